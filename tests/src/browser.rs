//! A headless Chromium, driven over the DevTools protocol. It ends with this value.
//!
//! The page itself observes and measures: a condition is a JavaScript expression that is looked at after every change of the
//! document, and times are the page's own.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tungstenite::{Message, WebSocket};

/// Debian's package.
const PACKAGE: &str = "chromium";
/// A browser that has not started by then will not; a page that has not changed by then will not either.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running browser.
pub struct Browser {
    address: String,
    _child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one with a profile of its own.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start() -> Result<Browser> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new(program()?);
        command
            .args([
                "--headless=new",
                "--remote-debugging-port=0",
                "--no-first-run",
                "--no-default-browser-check",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-dev-shm-usage",
                "--disable-extensions",
                "--disable-gpu",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if nix::unistd::geteuid().is_root() {
            // Chromium's sandbox refuses root, which is who runs tests in a container.
            command.arg("--no-sandbox");
        }
        let mut child = command.arg("about:blank").spawn()?;
        let stderr = child.stderr.take().context("no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let listening = async {
            let mut told = String::new();
            while let Some(line) = lines.next_line().await? {
                if let Some((_, at)) = line.split_once("DevTools listening on ws://") {
                    let (address, _) = at.split_once('/').context("an address")?;
                    return Ok(address.to_owned());
                }
                told.push_str(&line);
                told.push('\n');
            }
            bail!("chromium ended:\n{told}")
        };
        let address = tokio::time::timeout(PATIENCE, listening)
            .await
            .context("chromium does not start")??;
        // What it says further on is of no interest, and must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Browser {
            address,
            _child: child,
            _profile: profile,
        })
    }

    /// A new tab, its console and its requests watched.
    pub fn tab(&self) -> Result<Tab> {
        let version = ureq::get(format!("http://{}/json/version", self.address))
            .call()?
            .into_body()
            .read_to_string()?;
        let version: Value = serde_json::from_str(&version)?;
        let browser = version["webSocketDebuggerUrl"]
            .as_str()
            .context("no browser")?;
        let mut browser = Tab::connect(&self.address, browser)?;
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let target = target["targetId"].as_str().context("no target")?;
        let page = format!("ws://{}/devtools/page/{target}", self.address);
        let mut tab = Tab::connect(&self.address, &page)?;
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(tab)
    }
}

fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    places.find(|place| place.is_file()).with_context(|| {
        format!("chromium is not installed: apt-get install --no-install-recommends {PACKAGE}")
    })
}

/// One tab.
pub struct Tab {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    /// What the browser reported beside answers, in order.
    pub events: Vec<Value>,
}

impl Tab {
    fn connect(address: &str, url: &str) -> Result<Tab> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        stream.set_nodelay(true)?;
        let (socket, _) =
            tungstenite::client(url, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Tab {
            socket,
            last_id: 0,
            events: Vec::new(),
        })
    }

    /// Calls a method of the protocol.
    ///
    /// # Errors
    /// The browser refuses, or is gone.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let text = json!({ "id": id, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(text))?;
        loop {
            let Message::Text(text) = self.socket.read()? else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text)?;
            if message["id"] == id {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].take());
            }
            if message.get("method").is_some() {
                self.events.push(message);
            }
        }
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", json!({ "url": url }))?;
        match gone.get("errorText") {
            Some(error) => bail!("{error}"),
            None => Ok(()),
        }
    }

    /// The value of an expression; a promise is waited for.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let mut answer = self.call("Runtime.evaluate", params)?;
        if let Some(details) = answer.get("exceptionDetails") {
            let why = &details["exception"]["description"];
            bail!("{}", why.as_str().unwrap_or("an exception"));
        }
        Ok(answer["result"]["value"].take())
    }

    /// Begins to look for a condition; [`Tab::seen`] waits for it. The clock starts now.
    pub fn look_for(&mut self, condition: &str) -> Result<()> {
        self.value(&format!("globalThis.seen = {}; 0", watching(condition)))
            .map(drop)
    }

    /// How long after [`Tab::look_for`] the page met the condition, by its own clock.
    pub fn seen(&mut self) -> Result<Duration> {
        let ms = self.value("globalThis.seen")?;
        Ok(Duration::from_secs_f64(
            ms.as_f64().context("a time")? / 1000.0,
        ))
    }

    /// Waits until the page meets a condition.
    pub fn wait_for(&mut self, condition: &str) -> Result<()> {
        self.value(&watching(condition)).map(drop)
    }

    /// A picture of what the tab shows, as PNG, in base 64.
    pub fn picture(&mut self) -> Result<String> {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", params)?;
        Ok(picture["data"].as_str().context("no picture")?.to_owned())
    }

    /// Presses a key and lets it go.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            other => bail!("{other}: a key that this does not know"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
            });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", params)?;
        }
        Ok(())
    }
}

fn watching(condition: &str) -> String {
    let words = json!(condition);
    let patience = PATIENCE.as_millis();
    format!(
        "new Promise((yes, no) => {{
            const began = performance.now();
            const look = () => {{
                if (!({condition})) return;
                changes.disconnect();
                clearTimeout(alarm);
                yes(performance.now() - began);
            }};
            const changes = new MutationObserver(look);
            const all = {{ subtree: true, childList: true, attributes: true, characterData: true }};
            changes.observe(document, all);
            const alarm = setTimeout(() => {{
                changes.disconnect();
                no(new Error('never: ' + {words} + '\\n' + (document.body?.innerText ?? '').slice(0, 3000)));
            }}, {patience});
            look();
        }})"
    )
}
