//! A node's secrets and their versions: what changes at a rotation, and until when the version before still counts.
//!
//! ```text
//!   identity    1 former ─── until its overlap ends ──▶ erased
//!               2 in use ◀── the NodeId, what the node signs with
//!               3 prepared ── waits for the root's word, then goes into use; and back, while 2 counts
//!
//!   KEM key     4 former ─── until its overlap ends ──▶ erased
//!               5 in use ◀── what the advert names
//! ```
//!
//! Why so: docs/adr/0010-key-versions.md. Time is the caller's wall clock in milliseconds since the Unix epoch.

use super::StorageMasterKey;
use crate::{KemPublic, KemSecret, NodeId, NodeKeys, NodePublic, sha256};

/// Most identities in a file: the one in use, one prepared, and two whose overlaps have not ended.
pub const MAX_IDENTITIES: usize = 4;
/// Most KEM keys in a file: the one in use and three whose overlaps have not ended.
pub const MAX_KEM_KEYS: usize = 4;
/// Longest time for which an old version stays valid beside the new one: a quarter. Longer, and a rotation protects
/// nothing.
pub const MAX_OVERLAP_MS: u64 = 92 * 24 * 3600 * 1000;

/// One version of a key: its number, its age, its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyVersion {
    /// From 1; one more at each rotation.
    pub version: u32,
    /// When it was made, milliseconds since the Unix epoch; 0 where nobody wrote it down (files of format 1).
    pub made_at_ms: u64,
    /// When it stops counting, milliseconds since the Unix epoch; 0 as long as it is in use or prepared.
    pub until_ms: u64,
}

impl KeyVersion {
    fn new(version: u32, made_at_ms: u64) -> Self {
        Self {
            version,
            made_at_ms,
            until_ms: 0,
        }
    }

    /// Whether it counts at `now_ms`.
    pub fn holds(&self, now_ms: u64) -> bool {
        self.until_ms == 0 || now_ms < self.until_ms
    }

    /// How long ago it was made, where that is known.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        (self.made_at_ms != 0).then(|| now_ms.saturating_sub(self.made_at_ms))
    }
}

/// A key and which version it is.
#[derive(Debug)]
pub struct Versioned<K> {
    /// Which version.
    pub version: KeyVersion,
    /// The key.
    pub key: K,
}

/// Everything a node keeps secret across restarts.
#[derive(Debug)]
pub struct NodeSecrets {
    /// The identity in use.
    pub keys: NodeKeys,
    /// The root of sealing at rest.
    pub storage: StorageMasterKey,
    /// The other versions and the KEM keys.
    pub versions: Versions,
}

/// What a node keeps besides the identity in use.
#[derive(Debug)]
pub struct Versions {
    /// When the storage master key was made, milliseconds since the Unix epoch; 0 where nobody wrote it down.
    pub storage_made_at_ms: u64,
    /// Which version the identity in use is.
    pub identity: KeyVersion,
    /// Earlier identities, ascending.
    pub(super) former: Vec<Versioned<NodeKeys>>,
    /// The next identity.
    pub(super) prepared: Option<Versioned<NodeKeys>>,
    /// KEM keys, ascending; the last is the one in use. Files of format 1 have none.
    pub(super) kem: Vec<Versioned<KemSecret>>,
}

/// Why keys were not rotated; the operator erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// There is a prepared identity that never went into use.
    #[error("identity version {version} is prepared already: put it into use or discard it")]
    AlreadyPrepared {
        /// Its version.
        version: u32,
    },
    /// Nothing was prepared.
    #[error("no identity is prepared")]
    NothingPrepared,
    /// There is no identity to go back to.
    #[error("no earlier identity counts any more: there is none to go back to")]
    NothingToUndo,
    /// Too many versions still count.
    #[error("{max} versions count already; the oldest stops at {until_ms} ms since 1970")]
    TooMany {
        /// Most there may be.
        max: usize,
        /// When the next place becomes free.
        until_ms: u64,
    },
    /// An overlap beyond [`MAX_OVERLAP_MS`].
    #[error("an overlap has at most {max_ms} ms, {got_ms} asked for")]
    OverlapTooLong {
        /// The most.
        max_ms: u64,
        /// As asked.
        got_ms: u64,
    },
}

impl NodeSecrets {
    /// New secrets from the operating system's randomness, of unknown age.
    pub fn generate() -> Self {
        Self::generate_at(0)
    }

    /// New secrets from the operating system's randomness: identity and KEM key of version 1.
    pub fn generate_at(now_ms: u64) -> Self {
        let kem = Versioned {
            version: KeyVersion::new(1, now_ms),
            key: KemSecret::generate(),
        };
        Self {
            keys: NodeKeys::generate(),
            storage: StorageMasterKey::generate(),
            versions: Versions {
                storage_made_at_ms: now_ms,
                identity: KeyVersion::new(1, now_ms),
                former: Vec::new(),
                prepared: None,
                kem: vec![kem],
            },
        }
    }

    /// Makes the next identity, which waits until [`NodeSecrets::use_prepared`]: before that the network has to know it.
    pub fn prepare_identity(&mut self, now_ms: u64) -> Result<&Versioned<NodeKeys>, RotateError> {
        if let Some(prepared) = &self.versions.prepared {
            return Err(RotateError::AlreadyPrepared {
                version: prepared.version.version,
            });
        }
        self.versions.erase_ended(now_ms);
        // The one in use will be a former one, and needs a place then.
        room(&self.versions.former, MAX_IDENTITIES - 2)?;
        let next = Versioned {
            version: KeyVersion::new(self.versions.identity.version.saturating_add(1), now_ms),
            key: NodeKeys::generate(),
        };
        Ok(self.versions.prepared.insert(next))
    }

    /// Puts the prepared identity into use; the one before counts until `until_ms`. Gives the new NodeId.
    pub fn use_prepared(&mut self, now_ms: u64, until_ms: u64) -> Result<NodeId, RotateError> {
        overlap(until_ms.saturating_sub(now_ms))?;
        let prepared = (self.versions.prepared.take()).ok_or(RotateError::NothingPrepared)?;
        let mut old = std::mem::replace(&mut self.versions.identity, prepared.version);
        // An overlap that is over already leaves a moment of it, since 0 would be no end at all.
        old.until_ms = until_ms.max(1);
        let key = std::mem::replace(&mut self.keys, prepared.key);
        self.versions.former.push(Versioned { version: old, key });
        self.versions.erase_ended(now_ms);
        Ok(self.keys.node_id())
    }

    /// Puts the identity before into use again, as long as it counts; the one in use becomes the prepared one, and may go
    /// into use another time. Gives the NodeId in use from now on.
    pub fn undo_use(&mut self, now_ms: u64) -> Result<NodeId, RotateError> {
        if let Some(prepared) = &self.versions.prepared {
            return Err(RotateError::AlreadyPrepared {
                version: prepared.version.version,
            });
        }
        self.versions.erase_ended(now_ms);
        let before = (self.versions.former.pop()).ok_or(RotateError::NothingToUndo)?;
        let again = KeyVersion {
            until_ms: 0,
            ..before.version
        };
        let version = std::mem::replace(&mut self.versions.identity, again);
        let key = std::mem::replace(&mut self.keys, before.key);
        self.versions.prepared = Some(Versioned { version, key });
        Ok(self.keys.node_id())
    }

    /// Erases the prepared identity.
    pub fn discard_prepared(&mut self) -> Result<u32, RotateError> {
        let prepared = (self.versions.prepared.take()).ok_or(RotateError::NothingPrepared)?;
        Ok(prepared.version.version)
    }

    /// Makes a new KEM key and puts it into use; the one before opens for `overlap_ms` more. Gives the new version.
    pub fn rotate_kem(&mut self, now_ms: u64, overlap_ms: u64) -> Result<u32, RotateError> {
        overlap(overlap_ms)?;
        let versions = &mut self.versions;
        versions.erase_ended(now_ms);
        room(&versions.kem, MAX_KEM_KEYS)?;
        let next = match versions.kem.last_mut() {
            Some(last) => {
                last.version.until_ms = now_ms.saturating_add(overlap_ms).max(1);
                last.version.version.saturating_add(1)
            }
            None => 1,
        };
        versions.kem.push(Versioned {
            version: KeyVersion::new(next, now_ms),
            key: KemSecret::generate(),
        });
        versions.erase_ended(now_ms);
        Ok(next)
    }
}

fn overlap(ms: u64) -> Result<(), RotateError> {
    if ms > MAX_OVERLAP_MS {
        return Err(RotateError::OverlapTooLong {
            max_ms: MAX_OVERLAP_MS,
            got_ms: ms,
        });
    }
    Ok(())
}

/// Whether one more than these fits.
fn room<K>(kept: &[Versioned<K>], max: usize) -> Result<(), RotateError> {
    if kept.len() < max {
        return Ok(());
    }
    Err(RotateError::TooMany {
        max,
        until_ms: kept.first().map_or(0, |oldest| oldest.version.until_ms),
    })
}

impl Versions {
    /// Of a file that holds one identity and nothing else.
    pub(super) fn of_format_1() -> Self {
        Self {
            storage_made_at_ms: 0,
            identity: KeyVersion::new(1, 0),
            former: Vec::new(),
            prepared: None,
            kem: Vec::new(),
        }
    }

    /// The KEM key in use, if the file has one.
    pub fn kem(&self) -> Option<&Versioned<KemSecret>> {
        self.kem.last()
    }

    /// The KEM key of this version, as long as it counts. A stale version is an error that names the current one, never
    /// a downgrade: `Err` holds the version in use.
    pub fn kem_of(&self, version: u32, now_ms: u64) -> Result<&KemSecret, Option<u32>> {
        let counts = |kem: &&Versioned<KemSecret>| {
            kem.version.version == version && kem.version.holds(now_ms)
        };
        let found = self.kem.iter().find(counts);
        found
            .map(|kem| &kem.key)
            .ok_or_else(|| self.kem().map(|kem| kem.version.version))
    }

    /// The identity that waits for the root's word.
    pub fn prepared(&self) -> Option<&Versioned<NodeKeys>> {
        self.prepared.as_ref()
    }

    /// Earlier identities that still count.
    pub fn former(&self, now_ms: u64) -> impl Iterator<Item = &Versioned<NodeKeys>> {
        let counts = move |former: &&Versioned<NodeKeys>| former.version.holds(now_ms);
        self.former.iter().filter(counts)
    }

    /// Drops, and so erases from memory, every version whose end has come.
    pub fn erase_ended(&mut self, now_ms: u64) {
        self.former.retain(|former| former.version.holds(now_ms));
        self.kem.retain(|kem| kem.version.holds(now_ms));
    }
}

/// A public name of a KEM key, for the clear part of a file and for people.
pub fn kem_id(public: &KemPublic) -> [u8; 32] {
    sha256(&[b"pqcnet/kem/1", public.as_bytes()])
}

/// What proves that whoever asks the root for a succession holds both identities: signed with both, over this.
///
/// `"pqcnet/succession/1" ‖ network id ‖ old NodeId ‖ new ML-DSA key ‖ new Ed25519 key ‖ asked_at_ms`.
pub fn succession_bytes(
    network_id: &[u8; 32],
    old: NodeId,
    new: &NodePublic,
    asked_at_ms: u64,
) -> Vec<u8> {
    [
        &b"pqcnet/succession/1"[..],
        network_id,
        old.as_bytes(),
        &new.to_bytes(),
        &asked_at_ms.to_be_bytes(),
    ]
    .concat()
}
