//! The binaries as their users meet them: command lines, configuration, key files, exit codes, whole networks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod commands;
mod demo;
mod doctor;
mod network;
mod top;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pqcnet_node::local::folder::LocalNode;
use pqcnet_node::ready::Ready;

fn binary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_pqcnet")).with_file_name(name)
}

/// `pqcnet` with these words, in a clean environment.
fn pqcnet(words: &[&str]) -> Command {
    let mut command = Command::new(binary("pqcnet"));
    command
        .args(words)
        .stdin(Stdio::null())
        .env_remove("PQCNET_PASSPHRASE")
        .env_remove("PQCNET_STATE");
    command
}

fn output(mut command: Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("a binary of this build");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("a running process");
}

/// A node process; killed when dropped, if it still runs.
struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    ready: Ready,
}

impl Node {
    fn start(node: &LocalNode) -> Node {
        let mut child = Command::new(binary(&format!("pqcnet-{}", node.role)))
            .arg("--config")
            .arg(&node.config)
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a node");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready = serde_json::from_str(&line).expect("a ready node");
        Node {
            stdin: child.stdin.take(),
            child,
            ready,
        }
    }

    /// Asks it to stop and gives its exit code.
    fn stop(mut self) -> Option<i32> {
        signal(&self.child, Signal::SIGTERM);
        self.child.wait().expect("an end").code()
    }

    /// An admin page: status and text.
    fn page(&self, at: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut answer = agent
            .get(format!("http://{}{at}", self.ready.admin))
            .call()
            .expect("a page");
        let mut text = String::new();
        answer
            .body_mut()
            .as_reader()
            .read_to_string(&mut text)
            .expect("text");
        (answer.status().as_u16(), text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().expect("a running process");
            self.child.wait().expect("an end");
        }
    }
}
