//! Node processes started by this one, and stopped by it whatever happens.
//!
//! A child holds the reading end of a pipe as its standard input and drains when that closes, so it ends with its parent
//! even if the parent is killed. Stopping is by process id: SIGTERM, then SIGKILL after the deadline.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::folder::LocalNode;
use crate::ready::Ready;

/// A node that is not ready by then is not coming: key derivation and the store's recovery take a few seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A little more than a node's own limit for draining.
const STOP_WITHIN: Duration = Duration::from_secs(35);

/// A running node process.
#[derive(Debug)]
pub struct NodeProcess {
    /// Which node.
    pub node: LocalNode,
    /// What it said when it was ready.
    pub ready: Ready,
    child: Child,
    /// Held open for the child's whole life: waiting for a [`Child`] would close its own.
    _stdin: ChildStdin,
}

/// Another binary of this build: it lies next to this one.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this program?")?;
    let path = own.with_file_name(name);
    if !path.exists() {
        bail!(
            "{} is missing; build all binaries of pqcnet-node",
            path.display()
        );
    }
    Ok(path)
}

/// Starts a node and waits until it serves. Its log goes to `log`, or to our standard error.
pub async fn start(node: LocalNode, log: Option<&Path>) -> Result<NodeProcess> {
    let mut command = Command::new(sibling(&format!("pqcnet-{}", node.role))?);
    command
        .arg("--config")
        .arg(&node.config)
        .arg("--stop-with-stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if let Some(path) = log {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        command.stderr(file);
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", node.name))?;
    let stdin = child
        .stdin
        .take()
        .context("a child without standard input")?;
    let line = tokio::time::timeout(READY_WITHIN, first_line(&mut child)).await;
    let ready = match line {
        Ok(Ok(line)) => serde_json::from_str::<Ready>(&line)
            .with_context(|| format!("{} said `{}`", node.name, line.trim())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(anyhow::anyhow!(
            "not ready within {} s",
            READY_WITHIN.as_secs()
        )),
    };
    match ready {
        Ok(ready) => Ok(NodeProcess {
            node,
            ready,
            child,
            _stdin: stdin,
        }),
        Err(error) => {
            let ended = stop_child(&mut child).await;
            let told = log
                .map(|path| format!("; its log: {}", tail(path)))
                .unwrap_or_default();
            Err(error.context(format!("{} did not start ({ended}){told}", node.name)))
        }
    }
}

async fn first_line(child: &mut Child) -> Result<String> {
    let stdout = child
        .stdout
        .take()
        .context("a child without standard output")?;
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line).await?;
    if read == 0 {
        bail!("it ended without a word on standard output");
    }
    Ok(line)
}

/// The last lines of a log, for an error message.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

impl NodeProcess {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// Ends when the process does.
    pub async fn ended(&mut self) -> String {
        described(self.child.wait().await)
    }

    /// Asks it to drain, waits, and kills it if it does not. Says how it ended.
    pub async fn stop(mut self) -> String {
        stop_child(&mut self.child).await
    }
}

async fn stop_child(child: &mut Child) -> String {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
        && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
    {
        tracing::debug!(pid, %error, "SIGTERM");
    }
    match tokio::time::timeout(STOP_WITHIN, child.wait()).await {
        Ok(status) => described(status),
        Err(_) => match child.kill().await {
            Ok(()) => format!("killed: it did not stop within {} s", STOP_WITHIN.as_secs()),
            Err(error) => format!("it neither stopped nor could be killed: {error}"),
        },
    }
}

fn described(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end is unknown: {error}"),
    }
}

/// Stops all, the last started first.
pub async fn stop_all(nodes: Vec<NodeProcess>) -> Vec<(String, String)> {
    let mut ends = Vec::new();
    for node in nodes.into_iter().rev() {
        let name = node.node.name.clone();
        ends.push((name, node.stop().await));
    }
    ends
}
