//! What `run.json` says of the program beside its commit: hash, versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use pqcnet_crypto::Sha256;

/// What a run's order of events rests on, beside our own code.
const NAMED: &[&str] = &[
    "tokio",
    "actix",
    "libp2p",
    "oqs-sys",
    "aws-lc-sys",
    "rand_chacha",
    "libm",
];
/// The versions that this program was built with.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Versions by name.
pub(super) fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    versions.insert(
        "pqcnet-sim".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    );
    let quoted = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        Some(value.strip_suffix('"')?.to_owned())
    };
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        let name = quoted(line, "name").filter(|name| NAMED.contains(&name.as_str()));
        let version = name.and_then(|name| Some((name, quoted(lines.next()?, "version")?)));
        versions.extend(version);
    }
    versions
}

/// SHA-256 of this program's file; empty where it cannot be read.
pub(super) fn program() -> String {
    let hash = || -> std::io::Result<[u8; 32]> {
        let mut file = File::open(std::env::current_exe()?)?;
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; 256 * 1024]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(hash.finish()),
                len => hash.update(&chunk[..len]),
            }
        }
    };
    hash().map(hex::encode).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: every library that determinism rests on is in the lock file under its name.
    #[test]
    fn versions_are_those_of_the_lock_file() {
        let versions = versions();
        assert_eq!(versions.len(), NAMED.len() + 1, "{versions:?}");
        assert_eq!(versions["actix"], "0.13.5");
    }
}
