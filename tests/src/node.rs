//! One node of a network of real processes: its files, and its process while it runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_actor::Env;
use pqcnet_crypto::keystore::{self, Unlock, WrappingKey};
use pqcnet_crypto::{NodeId, NodeSecrets};
use pqcnet_messages::Role;
use pqcnet_p2p::network::NetworkFile;

use crate::hosts::Host;
use crate::process::NodeProcess;

/// The longest a node may take to log what it did, or to answer; only a broken one takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a log: whoever reads it without a pause takes the processor from the node that is to write it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Lines of a log shown when a test ends while its node runs.
const LAST_WORDS: usize = 30;

/// One node: its files, and its process while it runs.
pub struct Node {
    /// `relayer-1`.
    pub name: String,
    /// Who it is.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Where it takes direct streams.
    pub data: SocketAddr,
    pub(crate) folder: PathBuf,
    /// Where it runs, if not on this host.
    pub(crate) host: Option<Host>,
    pub(crate) process: Mutex<Option<NodeProcess>>,
}

/// A network that goes while its nodes run belongs to a test that failed: what they logged last may say why.
impl Drop for Node {
    fn drop(&mut self) {
        if self.runs() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(LAST_WORDS);
            eprintln!("{} runs still; its log ends:", self.name);
            for line in lines.iter().skip(last) {
                eprintln!("    {line}");
            }
        }
    }
}

impl Node {
    /// Starts its process and waits until it serves.
    pub async fn start(&self) -> Result<()> {
        assert!(self.process().is_none(), "{} runs already", self.name);
        let binary = format!("pqcnet-{}", self.role);
        let process = match &self.host {
            Some(host) => NodeProcess::start_on(host, &binary, &self.folder).await,
            None => NodeProcess::start(&binary, &self.folder).await,
        };
        *self.process() = Some(process.with_context(|| self.name.clone())?);
        Ok(())
    }

    /// Where it runs, if not on this host.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The same with the binaries in `folder`, those of another release.
    pub async fn start_from(&self, folder: &Path) -> Result<()> {
        self.start_with(&folder.join(format!("pqcnet-{}", self.role)))
            .await
    }

    /// The same with this binary.
    pub async fn start_with(&self, binary: &Path) -> Result<()> {
        assert!(self.process().is_none(), "{} runs already", self.name);
        let process = NodeProcess::start_at(binary, &self.folder).await;
        *self.process() = Some(process.with_context(|| self.name.clone())?);
        Ok(())
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<NodeProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its process was started and neither killed nor stopped.
    pub fn runs(&self) -> bool {
        self.process().is_some()
    }

    fn take(&self) -> Result<NodeProcess> {
        self.process().take().context("not running")
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.take()?.kill().await
    }

    /// SIGTERM, and waits until it is gone. It must end well and in time.
    pub async fn stop(&self) -> Result<()> {
        self.take()?.stop().await
    }

    /// Waits until it is gone at somebody else's order. It must end well and in time.
    pub async fn ended(&self) -> Result<()> {
        self.take()?.ended().await
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        let process = self.process();
        Ok(process.as_ref().context("not running")?.ready.pid)
    }

    /// Where its admin pages are.
    pub fn admin(&self) -> Result<SocketAddr> {
        let process = self.process();
        Ok(process.as_ref().context("not running")?.ready.admin)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log.txt")).unwrap_or_default()
    }

    /// Waits until these words are in its log: what a peer is told is logged just before or after it hears of it.
    pub async fn says(&self, words: &str) -> Result<()> {
        let logged = async {
            while !self.log().contains(words) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let within = tokio::time::timeout(PATIENCE, logged).await;
        within.with_context(|| format!("`{words}` is not in the log:\n{}", self.log()))
    }

    /// What its page says about how it is.
    pub async fn account(&self) -> Result<String> {
        let at = self.admin()?;
        let page = Env::plain().offload(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent = ureq::Agent::from(config.build());
            let mut answer = agent.get(format!("http://{at}/readyz?verbose")).call()?;
            Ok::<_, anyhow::Error>(answer.body_mut().read_to_string()?)
        });
        page.await?
    }

    /// Waits until its account holds these words, or no longer does.
    pub async fn tells(&self, words: &str, wanted: bool) -> Result<()> {
        let told = async {
            while self.account().await?.contains(words) != wanted {}
            Ok::<_, anyhow::Error>(())
        };
        let within = tokio::time::timeout(PATIENCE, told).await;
        within.with_context(|| format!("`{words}` wanted: {wanted}\n{}", self.log()))?
    }

    /// Its keys, as it has them.
    pub fn secrets(&self) -> Result<NodeSecrets> {
        let key = WrappingKey::open(&self.folder.join("unlock.key"))?;
        Ok(keystore::open(
            &self.folder.join("node.keys"),
            Unlock::KeyFile(&key),
        )?)
    }

    /// Adds these lines to its configuration; they hold from its next start.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let path = self.folder.join("node.toml");
        let text = fs::read_to_string(&path)?;
        Ok(fs::write(&path, format!("{text}\n{lines}"))?)
    }

    /// Replaces its network file.
    pub fn set_network(&self, network: &NetworkFile) -> Result<()> {
        Ok(network.write(&self.folder.join("network.toml"))?)
    }
}
