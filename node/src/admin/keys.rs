//! What the page tells of a node's keys: what its key file says to everybody.
//!
//! What is stored is sealed under keys that each start derives anew, per shard, from the storage master key of the file. That
//! one is told of: it opens everything, and no rotation replaces it.

use pqcnet_crypto::keystore::{Entry, Summary};
use pqcnet_roles::caretaker::MADE_AT_MS;
use pqcnet_roles::snapshot::KeyFacts;

/// The keys of a file; `stores` adds the master key of what is stored, which has no versions.
pub fn facts(summary: &Summary, stores: bool) -> Vec<KeyFacts> {
    let mut facts = Vec::new();
    match &summary.versions {
        Some(table) => {
            let mut identities = table.identities.iter();
            let in_use = identities.position(|entry| entry.id == summary.public_id);
            for (at, entry) in table.identities.iter().enumerate() {
                let state = match Some(at).cmp(&in_use) {
                    std::cmp::Ordering::Less => "overlap",
                    std::cmp::Ordering::Equal => "current",
                    std::cmp::Ordering::Greater => "prepared",
                };
                facts.push(of_entry("identity", state, entry));
            }
            for (at, entry) in table.kem.iter().enumerate() {
                let last = at + 1 == table.kem.len();
                facts.push(of_entry(
                    "kem",
                    if last { "current" } else { "overlap" },
                    entry,
                ));
            }
        }
        // A file of format 1: one identity, whose age nobody wrote down.
        None => facts.push(first("identity", Some(hex::encode(summary.public_id)))),
    }
    if stores {
        let made_at = summary
            .versions
            .as_ref()
            .map(|table| table.storage_made_at_ms);
        facts.push(KeyFacts {
            since_ms: made_at.filter(|ms| *ms != 0),
            ..first("storage", None)
        });
    }
    facts
}

/// When the current key of each purpose was made, where that is known, as a node's account tells it.
pub fn made(keys: &[KeyFacts]) -> Vec<(String, u64)> {
    let current = keys.iter().filter(|key| key.state == "current");
    let made = current.filter_map(|key| {
        let since_ms = key.since_ms?;
        Some((format!("{}{MADE_AT_MS}", key.purpose), since_ms))
    });
    made.collect()
}

fn first(purpose: &'static str, fingerprint: Option<String>) -> KeyFacts {
    KeyFacts {
        purpose,
        version: 1,
        fingerprint,
        state: "current",
        since_ms: None,
        until_ms: None,
    }
}

fn of_entry(purpose: &'static str, state: &'static str, entry: &Entry) -> KeyFacts {
    let known = |ms: u64| (ms != 0).then_some(ms);
    KeyFacts {
        purpose,
        version: u64::from(entry.version.version),
        fingerprint: Some(hex::encode(entry.id)),
        state,
        since_ms: known(entry.version.made_at_ms),
        until_ms: known(entry.version.until_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pqcnet_crypto::NodeSecrets;
    use pqcnet_crypto::keystore::{self, Unlock, WrappingKey};

    /// A file with a KEM key that was rotated once: each version with its age, the former one until its overlap ends, no
    /// age for what nobody wrote down.
    #[test]
    fn a_key_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let lock = WrappingKey::create(&folder.path().join("unlock.key")).unwrap();
        let mut secrets = NodeSecrets::generate_at(1_000);
        secrets.rotate_kem(5_000, 2_000).unwrap();
        let path = folder.path().join("node.keys");
        keystore::create(&path, &secrets, Unlock::KeyFile(&lock)).unwrap();
        let told = facts(&keystore::summary(&path).unwrap(), true);
        let names = [
            "identity_made_at_ms",
            "kem_made_at_ms",
            "storage_made_at_ms",
        ]
        .map(str::to_owned);
        let at = [1_000, 5_000, 1_000];
        assert_eq!(made(&told), names.into_iter().zip(at).collect::<Vec<_>>());
        let told: Vec<_> = told
            .iter()
            .map(|key| {
                (
                    key.purpose,
                    key.version,
                    key.state,
                    key.since_ms,
                    key.until_ms,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("identity", 1, "current", Some(1_000), None),
                ("kem", 1, "overlap", Some(1_000), Some(7_000)),
                ("kem", 2, "current", Some(5_000), None),
                ("storage", 1, "current", Some(1_000), None),
            ]
        );
        let sentry = facts(&keystore::summary(&path).unwrap(), false);
        assert!(sentry.iter().all(|key| key.purpose != "storage"));
    }
}
