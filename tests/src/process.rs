//! One node process. It is killed when this value goes, and drains by itself when this process dies, however that
//! happens: its standard input is a pipe that only we hold.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pqcnet_crypto::NodeId;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::hosts::Host;

/// A node that does not serve by then never will.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A node's own limit for draining and a little more.
const STOP_WITHIN: Duration = Duration::from_secs(35);

/// What a node prints once it serves.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Who it is.
    pub node_id: NodeId,
    /// Its admin pages.
    pub admin: std::net::SocketAddr,
    /// Its process id.
    pub pid: u32,
}

/// A running node process.
pub struct NodeProcess {
    /// What it said when it was ready.
    pub ready: Ready,
    child: Child,
}

/// A binary of the same build as this program: beside it, or above the folder that tests lie in.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let places = own.ancestors().skip(1).take(2);
    let mut paths = places.map(|place| place.join(name));
    let found = paths.find(|path| path.exists());
    found.with_context(|| format!("{name} is missing: cargo build -p pqcnet-node --bins"))
}

/// A runnable example of the client crate, of the same build.
pub fn example(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let places = own.ancestors().skip(1).take(2);
    let mut paths = places.map(|place| place.join("examples").join(name));
    let found = paths.find(|path| path.exists());
    found.with_context(|| format!("{name} is missing: cargo build -p pqcnet-client --examples"))
}

impl NodeProcess {
    /// Starts `name` with the configuration in `folder`, and waits until it serves. Its log is appended to
    /// `folder/log.txt`.
    pub async fn start(name: &str, folder: &Path) -> Result<NodeProcess> {
        NodeProcess::start_at(&binary(name)?, folder).await
    }

    /// The same with a binary that lies elsewhere.
    pub async fn start_at(binary: &Path, folder: &Path) -> Result<NodeProcess> {
        NodeProcess::start_by(Command::new(binary), folder).await
    }

    /// The same on a host in a network namespace.
    pub async fn start_on(host: &Host, name: &str, folder: &Path) -> Result<NodeProcess> {
        let [nsenter, namespace] = host.enter();
        let mut command = Command::new(nsenter);
        command.arg(namespace).arg(binary(name)?);
        NodeProcess::start_by(command, folder).await
    }

    async fn start_by(mut command: Command, folder: &Path) -> Result<NodeProcess> {
        let name = format!("{:?}", command.as_std());
        let log = folder.join("log.txt");
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = command
            .arg("--config")
            .arg(folder.join("node.toml"))
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        let mut lines = BufReader::new(stdout);
        let said = tokio::time::timeout(READY_WITHIN, lines.read_line(&mut line)).await;
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        match said {
            Ok(Ok(1..)) => {}
            Ok(_) => {
                let status = child.wait().await?;
                bail!("{name} ended before it served: {status}\n{}", told());
            }
            Err(_) => bail!("{name} did not serve within {READY_WITHIN:?}\n{}", told()),
        }
        let ready = serde_json::from_str(&line).with_context(|| format!("{name} said {line}"))?;
        Ok(NodeProcess { ready, child })
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it is gone by itself, or by somebody's order; it must end with status 0.
    pub async fn ended(mut self) -> Result<()> {
        let ended = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await;
        let status = ended.context("it did not end in time")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// SIGTERM; it must end with status 0 in time.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().context("already gone")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let ended = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await;
        let status = ended.context("it did not stop in time")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}
