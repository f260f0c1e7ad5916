//! The bytes of a key file, `docs/spec/keystore.md`.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::KeystoreError;
use super::lock::{Argon2Cost, Protection};
use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::{AeadAlgorithm, AeadKey, Prk, kdf};

pub(super) const MAGIC: [u8; 8] = *b"PQCNKEYS";
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_LEN: usize = 100;
/// The longest file: a node's three seeds.
pub(super) const MAX_LEN: usize = HEADER_LEN + 3 * SEED_LEN + TAG_LEN;
const SEED_LEN: usize = 32;

/// What a key file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node's identity and storage master key.
    Node,
    /// The ML-DSA key that a network's directives are signed with.
    Root,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Root => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Node),
            2 => Some(Self::Root),
            _ => None,
        }
    }

    fn body_len(self) -> usize {
        match self {
            Self::Node => 3 * SEED_LEN,
            Self::Root => SEED_LEN,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "a node's keys",
            Self::Root => "a network's root key",
        })
    }
}

/// Seeds on their way into a file, erased afterwards.
#[derive(Default)]
pub struct BodyWriter(Zeroizing<Vec<u8>>);

impl BodyWriter {
    pub(super) fn push(&mut self, seed: &[u8; SEED_LEN]) {
        if self.0.is_empty() {
            self.0.reserve_exact(MAX_LEN); // a growing vector would leave copies behind
        }
        self.0.extend_from_slice(seed);
    }
}

/// The seeds of an opened body, if there are exactly `N`.
pub(super) fn body_parts<const N: usize>(body: &[u8]) -> Option<[&[u8; SEED_LEN]; N]> {
    let (seeds, rest) = body.as_chunks::<SEED_LEN>();
    if !rest.is_empty() || seeds.len() != N {
        return None;
    }
    Some(std::array::from_fn(|index| &seeds[index]))
}

/// The clear part; all of it is authenticated and bound into the key.
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) protection: Protection,
    pub(super) salt: [u8; 32],
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) public_id: [u8; 32],
}

impl Header {
    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let (protection, cost) = match self.protection {
            Protection::Passphrase(cost) => (1, [cost.memory_kib, cost.passes, cost.lanes]),
            Protection::KeyFile => (2, [0; 3]),
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[self.kind.code(), protection]);
        for value in cost {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.public_id);
        bytes
            .try_into()
            .expect("the fields of a header make 100 bytes")
    }

    /// Splits a file into its checked header and sealed body.
    pub(super) fn parse<'a>(
        path: &Path,
        file: &'a [u8],
    ) -> Result<(Self, &'a [u8]), KeystoreError> {
        let damaged = |field| KeystoreError::Damaged {
            path: path.to_owned(),
            field,
        };
        if !file.starts_with(&MAGIC) {
            return Err(KeystoreError::NotAKeyFile {
                path: path.to_owned(),
            });
        }
        let mut rest = Fields(&file[MAGIC.len()..]);
        let version = u16::from_be_bytes(rest.take().ok_or_else(|| damaged("length"))?);
        if version != VERSION {
            return Err(KeystoreError::Version {
                path: path.to_owned(),
                found: version,
                known: VERSION,
            });
        }
        let [kind, protection] = rest.take().ok_or_else(|| damaged("length"))?;
        let kind = Kind::from_code(kind).ok_or_else(|| damaged("kind"))?;
        let mut cost = [0u32; 3];
        for value in &mut cost {
            *value = u32::from_be_bytes(rest.take().ok_or_else(|| damaged("length"))?);
        }
        let [memory_kib, passes, lanes] = cost;
        let protection = match (protection, cost) {
            (1, _) => {
                Protection::Passphrase(Argon2Cost::checked(memory_kib, passes, lanes).ok_or_else(
                    || KeystoreError::CostOutOfBounds {
                        path: path.to_owned(),
                        memory_kib,
                        passes,
                        lanes,
                    },
                )?)
            }
            (2, [0, 0, 0]) => Protection::KeyFile,
            _ => return Err(damaged("protection")),
        };
        let salt = rest.take().ok_or_else(|| damaged("length"))?;
        let nonce = rest.take().ok_or_else(|| damaged("length"))?;
        let public_id = rest.take().ok_or_else(|| damaged("length"))?;
        if rest.0.len() != kind.body_len() + TAG_LEN {
            return Err(damaged("length"));
        }
        Ok((
            Self {
                kind,
                protection,
                salt,
                nonce,
                public_id,
            },
            rest.0,
        ))
    }

    /// The whole file.
    pub(super) fn seal(&self, unlocked: &Prk, body: BodyWriter) -> Vec<u8> {
        let header = self.to_bytes();
        let mut text = body.0;
        let tag = self
            .aead(unlocked)
            .seal_in_place(&self.nonce, &header, &mut text);
        [&header[..], &text, &tag].concat()
    }

    /// The seeds, if key, header and body belong together.
    pub(super) fn open(&self, unlocked: &Prk, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(sealed.to_vec());
        let length = self
            .aead(unlocked)
            .open_in_place(&self.nonce, &self.to_bytes(), &mut text)
            .ok()?
            .len();
        text.truncate(length);
        Some(text)
    }

    fn aead(&self, unlocked: &Prk) -> AeadKey {
        let mut key = Zeroizing::new([0u8; 32]);
        kdf::extract(&self.salt, unlocked.expose())
            .expand(&[b"pqcnet/keystore/1", &self.to_bytes()], &mut key[..]);
        AeadKey::new(AeadAlgorithm::Aes256Gcm, &key)
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}
