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

use std::path::Path;

pub use error::KeystoreError;
pub use format::Kind;
pub use lock::{Argon2Cost, Passphrase, Protection, Unlock, WrappingKey};

use crate::ed25519::Ed25519Seed;
use crate::ml_dsa::MlDsaSeed;
use crate::secret::secret_bytes;
use crate::{MlDsaKeyPair, NodeId, NodeKeys, random};
use format::{BodyWriter, Header, body_parts};

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

/// Everything a node keeps secret across restarts.
#[derive(Debug)]
pub struct NodeSecrets {
    /// The identity.
    pub keys: NodeKeys,
    /// The root of sealing at rest.
    pub storage: StorageMasterKey,
}

impl NodeSecrets {
    /// New secrets from the operating system's randomness.
    pub fn generate() -> Self {
        Self {
            keys: NodeKeys::generate(),
            storage: StorageMasterKey::generate(),
        }
    }
}

/// What a key file can hold: [`NodeSecrets`], or the [`MlDsaKeyPair`] of a network's root.
pub trait Contents: sealed::Sealed + Sized {
    /// The kind recorded in the header.
    const KIND: Kind;
    /// A public name recorded in the header and checked after opening: the NodeId, or a hash of the root's public key.
    fn public_id(&self) -> [u8; 32];
    #[doc(hidden)]
    fn write(&self, body: &mut BodyWriter);
    #[doc(hidden)]
    fn read(body: &[u8]) -> Option<Self>;
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

    fn write(&self, body: &mut BodyWriter) {
        let (ml_dsa, ed25519) = self.keys.seeds();
        body.push(ml_dsa.expose());
        body.push(ed25519.expose());
        body.push(self.storage.expose());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let [ml_dsa, ed25519, storage] = body_parts(body)?;
        let keys = NodeKeys::from_seeds(
            MlDsaSeed::copied_from(ml_dsa),
            Ed25519Seed::copied_from(ed25519),
        );
        Some(Self {
            keys,
            storage: StorageMasterKey::copied_from(storage),
        })
    }
}

impl Contents for MlDsaKeyPair {
    const KIND: Kind = Kind::Root;

    fn public_id(&self) -> [u8; 32] {
        crate::sha256(&[b"pqcnet/root/1", self.public().as_bytes()])
    }

    fn write(&self, body: &mut BodyWriter) {
        body.push(self.seed().expose());
    }

    fn read(body: &[u8]) -> Option<Self> {
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
    let protection = match unlock {
        Unlock::Passphrase(_) => Protection::Passphrase(cost),
        Unlock::KeyFile(_) => Protection::KeyFile,
    };
    let header = Header {
        kind: C::KIND,
        protection,
        salt: random::bytes(),
        nonce: random::bytes(),
        public_id: contents.public_id(),
    };
    let mut body = BodyWriter::default();
    contents.write(&mut body);
    let key = lock::file_key(path, &header, unlock)?;
    disk::write_new(path, &header.seal(&key, body))
}

/// Opens the file at `path`.
///
/// Checks, in this order: a regular file, ours, closed to others; length, magic, version, kind, bounds of the cost; that
/// `unlock` is of the right sort; authenticity of header and body; that the seeds make the recorded identity.
pub fn open<C: Contents>(path: &Path, unlock: Unlock<'_>) -> Result<C, KeystoreError> {
    let file = disk::read(path, format::MAX_LEN)?;
    let (header, sealed) = Header::parse(path, &file)?;
    if header.kind != C::KIND {
        return Err(KeystoreError::WrongKind {
            path: path.to_owned(),
            found: header.kind,
            needed: C::KIND,
        });
    }
    let key = lock::file_key(path, &header, unlock)?;
    let body = header
        .open(&key, sealed)
        .ok_or_else(|| KeystoreError::CannotUnlock {
            path: path.to_owned(),
        })?;
    C::read(&body)
        .filter(|contents| contents.public_id() == header.public_id)
        .ok_or_else(|| KeystoreError::Inconsistent {
            path: path.to_owned(),
        })
}

/// Reads the header alone, without unlocking: what the file claims to be.
pub fn summary(path: &Path) -> Result<Summary, KeystoreError> {
    let file = disk::read(path, format::MAX_LEN)?;
    let (header, _) = Header::parse(path, &file)?;
    Ok(Summary {
        kind: header.kind,
        protection: header.protection,
        public_id: header.public_id,
    })
}

#[cfg(test)]
mod tests;
