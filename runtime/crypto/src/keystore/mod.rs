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
mod format;
mod lock;

use std::path::{Path, PathBuf};

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

/// Why a key file was not created or opened, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// There is a file already; keys are never overwritten.
    #[error(
        "{path} exists already; keys are never overwritten: move it away or choose another path"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{path} does not exist; `pqcnet keys init` creates one")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// A link, folder, pipe or device stands there.
    #[error("{path} is not a regular file; name the key file itself, not a link to it")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody but the owner may read or change the file.
    #[error(
        "{path} is open to others (mode {mode:04o}): run `chmod 600 {path}`, and if others use this machine treat the keys as stolen"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error(
        "{path} belongs to user {owner}, this process runs as user {us}: run it as the owner or `chown` the file"
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// This process's user id.
        us: u32,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is none of ours.
    #[error("{path} is not a PQCNet key file")]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// A later release wrote the file.
    #[error(
        "{path} has format version {found}, this release reads version {known}: use the release that wrote it or a later one"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u16,
        /// The version of this release.
        known: u16,
    },
    /// A field holds a value that no release writes, or the length is wrong.
    #[error("{path} is damaged ({field}): restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// The file asks for more memory or time than an honest one.
    #[error(
        "{path} asks for {memory_kib} KiB, {passes} passes and {lanes} lanes of Argon2id, outside the bounds of an honest file: restore it from a backup"
    )]
    CostOutOfBounds {
        /// The file.
        path: PathBuf,
        /// Memory asked for, KiB.
        memory_kib: u32,
        /// Passes asked for.
        passes: u32,
        /// Lanes asked for.
        lanes: u32,
    },
    /// The file holds something else than was asked for.
    #[error("{path} holds {found}, needed is {needed}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: Kind,
        /// What was asked for.
        needed: Kind,
    },
    /// A key file was given for a file locked by a passphrase, or the other way round.
    #[error("{path} is locked by {locked_by}; give that to open it")]
    WrongUnlock {
        /// The file.
        path: PathBuf,
        /// What it takes.
        locked_by: Protection,
    },
    /// The passphrase or key file does not fit, or the file was altered; nobody can tell which.
    #[error("cannot unlock {path}: a wrong passphrase or key file, or the file was altered")]
    CannotUnlock {
        /// The file.
        path: PathBuf,
    },
    /// The opened seeds do not make the recorded identity: a bug or a broken machine, never an input.
    #[error("the keys in {path} do not make the identity it records; do not run on this machine")]
    Inconsistent {
        /// The file.
        path: PathBuf,
    },
    /// The wrapping key file has the wrong length.
    #[error("{path} has {got} bytes, a key file has 32 random bytes (`head -c 32 /dev/urandom`)")]
    WrappingKeyLength {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        got: u64,
    },
    /// A passphrase too short to protect anything, or absurdly long.
    #[error("a passphrase has {min} to {max} bytes, this has {got}")]
    PassphraseLength {
        /// Fewest bytes.
        min: usize,
        /// Most bytes.
        max: usize,
        /// Bytes given.
        got: usize,
    },
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
