//! What the demo's processes agree on.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use pqcnet_crypto::Sha256;
use serde::{Deserialize, Serialize};

/// The channel that carries a message: all in turn.
pub fn channel_of(message: u64, channels: usize) -> usize {
    usize::try_from(message).unwrap_or(usize::MAX) % channels.max(1)
}

/// What a process says before its account.
pub const READY: &str = "ready";

/// Count and content of a channel, in order.
#[derive(Clone, Default)]
pub struct Digest {
    /// Messages.
    pub count: u64,
    hash: Sha256,
}

impl Digest {
    /// The next message.
    pub fn add(&mut self, payload: &[u8]) {
        self.count += 1;
        self.hash.update(&(payload.len() as u64).to_be_bytes());
        self.hash.update(payload);
    }

    /// What both ends must agree on.
    pub fn seen(&self, channel: &str) -> Seen {
        let hash = hex::encode(self.hash.current());
        Seen {
            channel: channel.to_owned(),
            count: self.count,
            hash,
        }
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.seen("") == other.seen("")
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.seen("").fmt(f)
    }
}

/// A channel as one end saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its name.
    pub channel: String,
    /// Messages.
    pub count: u64,
    /// SHA-256 over each payload's length and bytes, in order.
    pub hash: String,
}

/// What the publisher prints when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Messages of each channel that were sent one at a time, before full speed.
    pub unhurried: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// When full speed began, microseconds since the Unix epoch.
    pub began_us: u64,
}

/// What the subscriber prints when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Each channel.
    pub channels: Vec<Seen>,
    /// When the last message came, microseconds since the Unix epoch.
    pub ended_us: u64,
}

/// Microseconds since the Unix epoch: the one clock that two processes share.
#[expect(
    clippy::disallowed_methods,
    reason = "latency between processes needs a clock they share, finer than Env's"
)]
pub fn wall_us() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Writes times, one a message, in the order of offsets.
pub fn write_times(path: &Path, times: &[u64]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for time in times {
        out.write_all(&time.to_le_bytes()).context("times")?;
    }
    out.flush().context("times")
}

/// Reads them back.
pub fn read_times(path: &Path) -> Result<Vec<u64>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bytes = Vec::new();
    BufReader::new(file)
        .read_to_end(&mut bytes)
        .context("times")?;
    let (times, rest) = bytes.as_chunks::<8>();
    anyhow::ensure!(rest.is_empty(), "{} is cut short", path.display());
    Ok(times.iter().map(|time| u64::from_le_bytes(*time)).collect())
}
