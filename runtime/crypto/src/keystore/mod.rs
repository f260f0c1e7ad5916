//! Secret keys at rest: one encrypted file for a node's secrets or a network's root key.
//!
//! ```text
//!  passphrase ──Argon2id(salt, cost)──┐
//!                                     ├─ HKDF-SHA256(salt, header) ─ AES-256-GCM(nonce, aad = header) ─ seeds
//!  32-byte key file ──────────────────┘
//! ```
//!
//! The file's layout and every check in order: `docs/spec/keystore.md`. A file is created with mode 0600, written whole
//! or not at all, never over another one, and refused when anybody but its owner could read or change it.

mod disk;
mod error;
mod format;
mod lock;
mod versions;

use std::path::Path;

pub use error::KeystoreError;
pub use format::{Entry, Kind, Table};
pub use lock::{Argon2Cost, Passphrase, Protection, Unlock, WrappingKey};
pub use versions::{
    KeyVersion, MAX_IDENTITIES, MAX_KEM_KEYS, MAX_OVERLAP_MS, NodeSecrets, RotateError, Versioned,
    Versions, kem_id, succession_bytes,
};

use crate::ed25519::Ed25519Seed;
use crate::ml_dsa::MlDsaSeed;
use crate::secret::secret_bytes;
use crate::{KemSecret, MlDsaKeyPair, NodeId, NodeKeys, random};
use format::{BodyWriter, Header, body_parts, seeds};

secret_bytes! {
    /// What a node's sealed storage is keyed from; every shard key is derived from it.
    pub struct StorageMasterKey(32)
}

impl StorageMasterKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        let mut key = Self::zeroed();
        random::fill(key.expose_mut());
        key
    }
}

/// What a key file can hold: [`NodeSecrets`], or the [`MlDsaKeyPair`] of a network's root.
pub trait Contents: sealed::Sealed + Sized {
    /// The kind recorded in the header.
    const KIND: Kind;
    /// A public name recorded in the header and checked after opening: the NodeId, or a hash of the root's public key.
    fn public_id(&self) -> [u8; 32];
    #[doc(hidden)]
    fn table(&self) -> Option<Table>;
    #[doc(hidden)]
    fn write(&self, body: &mut BodyWriter);
    #[doc(hidden)]
    fn read(table: Option<&Table>, in_use: &[u8; 32], body: &[u8]) -> Option<Self>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NodeSecrets {}
    impl Sealed for super::MlDsaKeyPair {}
}

impl Contents for NodeSecrets {
    const KIND: Kind = Kind::Node;

    fn public_id(&self) -> [u8; 32] {
        *self.keys.node_id().as_bytes()
    }

    fn table(&self) -> Option<Table> {
        let versions = &self.versions;
        let identity = |kept: &Versioned<NodeKeys>| Entry {
            version: kept.version,
            id: *kept.key.node_id().as_bytes(),
        };
        let in_use = Entry {
            version: versions.identity,
            id: self.public_id(),
        };
        Some(Table {
            storage_made_at_ms: versions.storage_made_at_ms,
            identities: (versions.former.iter().map(identity))
                .chain([in_use])
                .chain(versions.prepared.iter().map(identity))
                .collect(),
            kem: (versions.kem.iter())
                .map(|kem| Entry {
                    version: kem.version,
                    id: kem_id(kem.key.public()),
                })
                .collect(),
        })
    }

    fn write(&self, body: &mut BodyWriter) {
        let versions = &self.versions;
        body.push(self.storage.expose());
        let former = versions.former.iter().map(|kept| &kept.key);
        let prepared = versions.prepared.iter().map(|kept| &kept.key);
        for keys in former.chain([&self.keys]).chain(prepared) {
            let (ml_dsa, ed25519) = keys.seeds();
            body.push(ml_dsa.expose());
            body.push(ed25519.expose());
        }
        for kem in &versions.kem {
            body.push(kem.key.expose_seed());
        }
    }

    fn read(table: Option<&Table>, in_use: &[u8; 32], body: &[u8]) -> Option<Self> {
        let Some(table) = table else {
            let [ml_dsa, ed25519, storage] = body_parts(body)?;
            return Some(Self {
                keys: node_keys([ml_dsa, ed25519]),
                storage: StorageMasterKey::copied_from(storage),
                versions: Versions::of_format_1(),
            });
        };
        let (storage, rest) = seeds(body)?.split_first()?;
        let (identities, kem) = rest.split_at_checked(2 * table.identities.len())?;
        let mut former = Vec::new();
        let named = |entry: &Entry, [ml_dsa, ed25519]: &[[u8; 32]; 2]| {
            let key = node_keys([ml_dsa, ed25519]);
            (*key.node_id().as_bytes() == entry.id).then_some(Versioned {
                version: entry.version,
                key,
            })
        };
        let pairs = identities.as_chunks::<2>().0;
        for (entry, pair) in table.identities.iter().zip(pairs) {
            former.push(named(entry, pair)?);
        }
        let at = table.place_of(in_use)?;
        let mut later = former.split_off(at).into_iter();
        let current = later.next()?;
        let kem = table.kem.iter().zip(kem).map(|(entry, seed)| {
            let key = KemSecret::from_seed(seed);
            (kem_id(key.public()) == entry.id).then_some(Versioned {
                version: entry.version,
                key,
            })
        });
        Some(Self {
            keys: current.key,
            storage: StorageMasterKey::copied_from(storage),
            versions: Versions {
                storage_made_at_ms: table.storage_made_at_ms,
                identity: current.version,
                former,
                prepared: later.next(),
                kem: kem.collect::<Option<_>>()?,
            },
        })
    }
}

fn node_keys([ml_dsa, ed25519]: [&[u8; 32]; 2]) -> NodeKeys {
    NodeKeys::from_seeds(
        MlDsaSeed::copied_from(ml_dsa),
        Ed25519Seed::copied_from(ed25519),
    )
}

impl Contents for MlDsaKeyPair {
    const KIND: Kind = Kind::Root;

    fn public_id(&self) -> [u8; 32] {
        crate::sha256(&[b"pqcnet/root/1", self.public().as_bytes()])
    }

    fn table(&self) -> Option<Table> {
        None
    }

    fn write(&self, body: &mut BodyWriter) {
        body.push(self.seed().expose());
    }

    fn read(_: Option<&Table>, _: &[u8; 32], body: &[u8]) -> Option<Self> {
        let [seed] = body_parts(body)?;
        Some(Self::from_seed(MlDsaSeed::copied_from(seed)))
    }
}

/// What the clear, not yet authenticated header of a key file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What the file holds.
    pub kind: Kind,
    /// How it is locked.
    pub protection: Protection,
    /// The [`NodeId`] of a node's file, or the hash of the root's public key.
    pub public_id: [u8; 32],
    /// Which keys a node's file holds; `None` in files of format 1, which hold one identity of unknown age.
    pub versions: Option<Table>,
}

impl Summary {
    /// The node that the file claims to belong to.
    pub fn node_id(&self) -> Option<NodeId> {
        match self.kind {
            Kind::Node => Some(NodeId::from_bytes(self.public_id)),
            Kind::Root => None,
        }
    }
}

/// Writes `contents` to a new file at `path`, mode 0600, synced; fails if anything is there already.
///
/// Argon2id takes about a tenth of a second and 64 MiB.
pub fn create<C: Contents>(
    path: &Path,
    contents: &C,
    unlock: Unlock<'_>,
) -> Result<(), KeystoreError> {
    create_with(path, contents, unlock, Argon2Cost::DEFAULT)
}

fn create_with<C: Contents>(
    path: &Path,
    contents: &C,
    unlock: Unlock<'_>,
    cost: Argon2Cost,
) -> Result<(), KeystoreError> {
    let protection = protection(unlock, cost);
    disk::write_new(path, &sealed_file(path, contents, unlock, protection)?)
}

fn protection(unlock: Unlock<'_>, cost: Argon2Cost) -> Protection {
    match unlock {
        Unlock::Passphrase(_) => Protection::Passphrase(cost),
        Unlock::KeyFile(_) => Protection::KeyFile,
    }
}

/// As [`create`], a file of format 1: the identity in use and the storage key, and nothing else. It is what a release from
/// before key versions reads, for a way back to one.
pub fn create_format_1(
    path: &Path,
    secrets: &NodeSecrets,
    unlock: Unlock<'_>,
) -> Result<(), KeystoreError> {
    let header = Header {
        kind: Kind::Node,
        protection: protection(unlock, Argon2Cost::DEFAULT),
        salt: random::bytes(),
        nonce: random::bytes(),
        public_id: secrets.public_id(),
        table: None,
    };
    let (ml_dsa, ed25519) = secrets.keys.seeds();
    let mut body = BodyWriter::default();
    for seed in [ml_dsa.expose(), ed25519.expose(), secrets.storage.expose()] {
        body.push(seed);
    }
    let key = lock::file_key(path, &header, unlock)?;
    disk::write_new(path, &header.seal(&key, body))
}

/// The bytes of a new file; `path` only names them in errors.
pub fn sealed<C: Contents>(
    path: &Path,
    contents: &C,
    unlock: Unlock<'_>,
) -> Result<Vec<u8>, KeystoreError> {
    let protection = protection(unlock, Argon2Cost::DEFAULT);
    sealed_file(path, contents, unlock, protection)
}

/// The bytes of a file with fresh salt and nonce.
fn sealed_file<C: Contents>(
    path: &Path,
    contents: &C,
    unlock: Unlock<'_>,
    protection: Protection,
) -> Result<Vec<u8>, KeystoreError> {
    let header = Header {
        kind: C::KIND,
        protection,
        salt: random::bytes(),
        nonce: random::bytes(),
        public_id: contents.public_id(),
        table: contents.table(),
    };
    let mut body = BodyWriter::default();
    contents.write(&mut body);
    let key = lock::file_key(path, &header, unlock)?;
    Ok(header.seal(&key, body))
}

/// Opens the file at `path`.
///
/// Checks, in this order: a regular file, ours, closed to others; length, magic, version, kind, bounds of the cost; that
/// `unlock` is of the right sort; authenticity of header and body; that the seeds make the recorded identities.
pub fn open<C: Contents>(path: &Path, unlock: Unlock<'_>) -> Result<C, KeystoreError> {
    let file = disk::read(path, format::MAX_LEN)?;
    open_bytes(path, &file, unlock)
}

/// Opens the bytes of a file; `path` only names them in errors.
pub fn open_bytes<C: Contents>(
    path: &Path,
    file: &[u8],
    unlock: Unlock<'_>,
) -> Result<C, KeystoreError> {
    let (header, sealed) = Header::parse(path, file)?;
    opened(path, &header, sealed, unlock)
}

fn opened<C: Contents>(
    path: &Path,
    header: &Header,
    sealed: &[u8],
    unlock: Unlock<'_>,
) -> Result<C, KeystoreError> {
    if header.kind != C::KIND {
        return Err(KeystoreError::WrongKind {
            path: path.to_owned(),
            found: header.kind,
            needed: C::KIND,
        });
    }
    let key = lock::file_key(path, header, unlock)?;
    let body = header
        .open(&key, sealed)
        .ok_or_else(|| KeystoreError::CannotUnlock {
            path: path.to_owned(),
        })?;
    C::read(header.table.as_ref(), &header.public_id, &body)
        .filter(|contents| contents.public_id() == header.public_id)
        .ok_or_else(|| KeystoreError::Inconsistent {
            path: path.to_owned(),
        })
}

/// Opens the file at `path`, lets `change` at its contents, and puts the result in its place: whole and synced under a
/// passing name, then renamed over it, under the same lock and with fresh salt and nonce. An error of `change` leaves the
/// file as it is. A file of format 1 becomes one of format 2.
///
/// Outer errors are the file's, the inner one is `change`'s.
pub fn update<C: Contents, T, E>(
    path: &Path,
    unlock: Unlock<'_>,
    change: impl FnOnce(&mut C) -> Result<T, E>,
) -> Result<Result<T, E>, KeystoreError> {
    let held = disk::Held::lock(path)?;
    let file = disk::read(path, format::MAX_LEN)?;
    let (header, sealed) = Header::parse(path, &file)?;
    let mut contents: C = opened(path, &header, sealed, unlock)?;
    Ok(match change(&mut contents) {
        Ok(changed) => {
            held.replace(&sealed_file(path, &contents, unlock, header.protection)?)?;
            Ok(changed)
        }
        Err(error) => Err(error),
    })
}

/// Reads the header alone, without unlocking: what the file claims to be.
pub fn summary(path: &Path) -> Result<Summary, KeystoreError> {
    let file = disk::read(path, format::MAX_LEN)?;
    summary_of(path, &file)
}

/// As [`summary`], of the bytes of a file; `path` only names them in errors.
pub fn summary_of(path: &Path, file: &[u8]) -> Result<Summary, KeystoreError> {
    Header::parse(path, file).map(|(header, _)| header.summary())
}

#[cfg(test)]
mod tests;
