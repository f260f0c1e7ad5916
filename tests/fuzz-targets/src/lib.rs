//! One fuzz target a decoder: whatever bytes a peer, a disk or an operator can bring, they are refused typed or read,
//! never a panic, and what was read is written back as it was read.
//!
//! `tests/fuzz/fuzz_targets` hands these bodies to libFuzzer (`make fuzz MINUTES=n`); `tests/replay.rs` runs every file of
//! `tests/fuzz/corpus` through them in `make test`. The seeds are made from real messages by [`Target::seeds`].

mod files;
mod links;
mod messages;
mod metering;
mod qstp;
mod schedule;
mod streams;

pub use messages::{DECODERS, Decoder};

/// A decoder under test.
pub struct Target {
    /// Its name: of the binary and of the corpus's folder.
    pub name: &'static str,
    /// Takes any bytes; a panic is a finding.
    pub body: fn(&[u8]),
    /// Valid inputs to begin from, small and always the same.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    qstp::FRAMES,
    qstp::M1,
    qstp::M2,
    qstp::M3,
    qstp::SEALED,
    qstp::RECORD,
    links::LINK,
    links::LINK_OPEN,
    streams::STREAMS,
    messages::EDGE,
    messages::RELAY,
    messages::CONTROL,
    messages::GRANT,
    messages::ADVERT,
    messages::DIRECTIVE,
    metering::METERING,
    files::NETWORK,
    files::ADDRESS,
    files::KEYSTORE,
    files::LOG_KEYS,
    files::LOG_RECORD,
    files::LOG_BUNDLE,
    files::SEALED_ENTRY,
    #[cfg(feature = "node")]
    files::CONFIG,
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or when the body finds a fault.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target").body)(data);
}

/// Cuts the first byte off, to choose with.
fn choose(data: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = data.split_first()?;
    Some((usize::from(first), rest))
}
