//! `pqcnet top` in a real pseudo-terminal, read as a terminal would: what its screen shows, and what it leaves behind.
//!
//! util-linux's `script` makes the terminal; a shell in it says which one it is, starts `top`, and says afterwards how it ended
//! and what the terminal is set to.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pqcnet_node::Role;

use crate::network::Network;
use crate::{Node, binary, path};

/// Only something broken takes it; then everything in the terminal is killed, and the screen tells.
const SECONDS: &str = "60";
const ROWS: u16 = 30;
const COLUMNS: u16 = 110;

struct Terminal {
    session: Child,
    keyboard: ChildStdin,
    output: ChildStdout,
    screen: vt100::Parser,
    /// All that came, of both screens.
    came: Vec<u8>,
}

impl Terminal {
    /// `pqcnet top` of this network in a terminal of its own.
    fn start(network: &Network) -> Terminal {
        let top = format!(
            "{} top --state {}",
            path(&binary("pqcnet")),
            network.state()
        );
        let shell = format!(
            "stty rows {ROWS} cols {COLUMNS}; echo \"terminal=$(tty)\"; sh -c 'echo process=$$; exec {top}'; \
             echo \"code=$?\"; echo \"set=$(stty -a | grep -oE -e '-?(icanon|echo|isig|opost)\\b' | tr '\\n' ' ')\""
        );
        let mut session = Command::new("timeout")
            .args([
                "--signal=KILL",
                SECONDS,
                "script",
                "--quiet",
                "--return",
                "--command",
            ])
            .arg(shell)
            .arg("/dev/null")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script is missing: install Debian's package `bsdutils`");
        Terminal {
            keyboard: session.stdin.take().unwrap(),
            output: session.stdout.take().unwrap(),
            session,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
            came: Vec::new(),
        }
    }

    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        let read = self.output.read(&mut bytes).unwrap();
        assert!(read > 0, "the terminal ended:\n{}", self.text());
        self.screen.process(&bytes[..read]);
        self.came.extend_from_slice(&bytes[..read]);
    }

    /// Reads on until the screen is as wanted.
    fn until(&mut self, wanted: impl Fn(&vt100::Screen) -> bool) {
        while !wanted(self.screen.screen()) {
            self.read();
        }
    }

    fn until_shown(&mut self, words: &[&str]) {
        self.until(|screen| {
            let text = screen.contents();
            words.iter().all(|word| text.contains(word))
        });
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// What the shell says after `name`, on whichever screen.
    fn said(&mut self, name: &str) -> String {
        loop {
            let came = String::from_utf8_lossy(&self.came);
            let said = came
                .split_once(name)
                .and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((said, _)) = said {
                return said.trim().to_owned();
            }
            self.read();
        }
    }

    /// The program is to end with 0 and leave the terminal as it was: lines, echo and signals, cursor and screen.
    fn ended_well(mut self) {
        assert_eq!(self.said("code="), "0", "{}", self.text());
        assert_eq!(
            self.said("set="),
            "opost isig icanon echo",
            "{}",
            self.text()
        );
        let screen = self.screen.screen();
        assert!(
            !screen.alternate_screen(),
            "the other screen is still shown"
        );
        assert!(!screen.hide_cursor(), "the cursor is still hidden");
        assert_eq!(self.session.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.session.kill().ok();
        self.session.wait().ok();
    }
}

// Scenario: top shows a network that is well; a relayer is killed: the problem is named with what to do, and its row says so;
// the window becomes smaller and everything is drawn anew in it; q ends it, and the terminal is as it was before.
#[test]
fn top_lives_in_a_terminal() {
    let network = Network::create();
    let mut nodes: Vec<Node> = network.nodes.iter().map(Node::start).collect();
    let mut terminal = Terminal::start(&network);
    let device = terminal.said("terminal=");
    terminal.until(|screen| screen.alternate_screen() && screen.hide_cursor());
    terminal.until_shown(&[
        "network local",
        "3 of 3 nodes are well",
        "relayer-1",
        "relayer-2",
        "sentry-1",
        "q quits",
    ]);

    let at = network
        .nodes
        .iter()
        .position(|node| node.role == Role::Relayer);
    let killed = nodes.remove(at.unwrap());
    drop(killed);
    terminal.until_shown(&["node-unreachable", "fix    start the node", "unreachable"]);

    let resized = Command::new("stty")
        .args(["-F", &device, "rows", "16", "cols", "70"])
        .status()
        .unwrap();
    assert!(resized.success());
    terminal.screen.screen_mut().set_size(16, 70);
    // Its last line, of the smaller window, and nothing of the wider one: every line fits.
    terminal.until(|screen| {
        let rows: Vec<String> = screen.rows(0, 70).collect();
        rows.last().is_some_and(|last| last.trim_end() == "q quits")
            && rows
                .iter()
                .any(|row| row.trim_end().ends_with('┐') && row.contains("nodes"))
    });
    terminal.press(b"q");
    terminal.ended_well();
    for node in nodes {
        assert_eq!(node.stop(), Some(0));
    }
}

// Scenario: Ctrl-C as a key, and SIGTERM from outside, while no node answers: each ends it as q does.
#[test]
fn top_lets_go_of_its_terminal() {
    let network = Network::create();
    for ending in [None, Some(Signal::SIGTERM)] {
        let mut terminal = Terminal::start(&network);
        let process = terminal.said("process=").parse().unwrap();
        terminal.until(vt100::Screen::alternate_screen);
        terminal.until_shown(&["3 problems"]);
        match ending {
            None => terminal.press(&[3]),
            Some(signal) => kill(Pid::from_raw(process), signal).unwrap(),
        }
        terminal.ended_well();
    }
}
