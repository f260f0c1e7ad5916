//! What locks a key file: a passphrase stretched by Argon2id, or 32 random bytes in another file.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::format::Header;
use super::{KeystoreError, disk};
use crate::secret::secret_bytes;
use crate::{Prk, random};

/// What Argon2id spends on one guess ([RFC 9106](https://www.rfc-editor.org/rfc/rfc9106)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes; computed one after another here.
    pub lanes: u32,
}

impl Argon2Cost {
    /// The second choice of RFC 9106, section 4, with one lane since lanes are not computed in parallel here.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };
    /// Below this a file protects too little to be ours.
    const LEAST: Self = Self {
        memory_kib: 8 * 1024,
        passes: 1,
        lanes: 1,
    };
    /// Above this opening a file would be an attack on the machine: 256 MiB for some seconds.
    const MOST: Self = Self {
        memory_kib: 256 * 1024,
        passes: 16,
        lanes: 4,
    };

    pub(super) fn checked(memory_kib: u32, passes: u32, lanes: u32) -> Option<Self> {
        let within = (Self::LEAST.memory_kib..=Self::MOST.memory_kib).contains(&memory_kib)
            && (Self::LEAST.passes..=Self::MOST.passes).contains(&passes)
            && (Self::LEAST.lanes..=Self::MOST.lanes).contains(&lanes);
        within.then_some(Self {
            memory_kib,
            passes,
            lanes,
        })
    }

    fn stretch(self, passphrase: &Passphrase, salt: &[u8; 32]) -> Prk {
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .expect("the bounds are within Argon2's own");
        let argon2 =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut key = Zeroizing::new([0u8; 32]);
        argon2
            .hash_password_into(passphrase.0.as_bytes(), salt, &mut key[..])
            .expect("lengths and cost are within Argon2's bounds");
        Prk::copied_from(&key)
    }
}

/// How a key file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// By a passphrase, at this cost a guess.
    Passphrase(Argon2Cost),
    /// By a 32-byte key file.
    KeyFile,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "a passphrase",
            Self::KeyFile => "a key file",
        })
    }
}

/// A passphrase; erased on drop.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Fewest bytes: Argon2id slows guessing down, it does not make a four-letter word a secret.
    pub const MIN_LEN: usize = 8;
    /// Most bytes, so that a mistaken file is noticed.
    pub const MAX_LEN: usize = 1024;

    /// Takes over `text`; the caller must not keep a copy.
    pub fn new(text: String) -> Result<Self, KeystoreError> {
        let text = Zeroizing::new(text);
        if (Self::MIN_LEN..=Self::MAX_LEN).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(KeystoreError::PassphraseLength {
                min: Self::MIN_LEN,
                max: Self::MAX_LEN,
                got: text.len(),
            })
        }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

secret_bytes! {
    /// 32 random bytes from a file of their own, for nodes that start without a person.
    pub struct WrappingKey(32)
}

impl WrappingKey {
    /// Creates a new key file at `path`, mode 0600, synced; fails if anything is there already.
    pub fn create(path: &Path) -> Result<Self, KeystoreError> {
        let mut key = Self::zeroed();
        random::fill(key.expose_mut());
        disk::write_new(path, key.expose())?;
        Ok(key)
    }

    /// Reads a key file under the same conditions as the file it opens.
    pub fn open(path: &Path) -> Result<Self, KeystoreError> {
        let bytes = disk::read(path, 32)?;
        let bytes: &[u8; 32] =
            bytes
                .as_slice()
                .try_into()
                .map_err(|_| KeystoreError::WrappingKeyLength {
                    path: path.to_owned(),
                    got: bytes.len() as u64,
                })?;
        Ok(Self::copied_from(bytes))
    }
}

/// What the user gives to open or lock a file.
#[derive(Debug, Clone, Copy)]
pub enum Unlock<'a> {
    /// A passphrase.
    Passphrase(&'a Passphrase),
    /// A wrapping key from a file.
    KeyFile(&'a WrappingKey),
}

/// The secret that the file's key is derived from.
pub(super) fn file_key(
    path: &Path,
    header: &Header,
    unlock: Unlock<'_>,
) -> Result<Prk, KeystoreError> {
    match (header.protection, unlock) {
        (Protection::Passphrase(cost), Unlock::Passphrase(passphrase)) => {
            Ok(cost.stretch(passphrase, &header.salt))
        }
        (Protection::KeyFile, Unlock::KeyFile(key)) => Ok(Prk::copied_from(key.expose())),
        (locked_by @ Protection::Passphrase(_), Unlock::KeyFile(_))
        | (locked_by @ Protection::KeyFile, Unlock::Passphrase(_)) => {
            Err(KeystoreError::WrongUnlock {
                path: path.to_owned(),
                locked_by,
            })
        }
    }
}
