//! The bytes of a key file, `docs/spec/keystore.md`.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::lock::{Argon2Cost, Protection};
use super::versions::{KeyVersion, MAX_IDENTITIES, MAX_KEM_KEYS};
use super::{KeystoreError, Summary};
use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::{AeadAlgorithm, AeadKey, Prk, kdf};

pub(super) const MAGIC: [u8; 8] = *b"PQCNKEYS";
/// The newest version: a node's keys with their versions, and the age of the storage key where no identity tells it. A
/// root key stays in version 1, which has none.
pub(super) const VERSION: u16 = 3;
/// The part that all versions share.
pub(super) const HEADER_LEN: usize = 100;
/// The longest file: a node's keys, as many versions as there may be.
pub(super) const MAX_LEN: usize = HEADER_LEN
    + 8
    + 2
    + (MAX_IDENTITIES + MAX_KEM_KEYS) * Entry::LEN
    + (1 + 2 * MAX_IDENTITIES + MAX_KEM_KEYS) * SEED_LEN
    + TAG_LEN;
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

    /// Seeds in a file of version 1.
    fn seeds(self) -> usize {
        match self {
            Self::Node => 3,
            Self::Root => 1,
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
pub(super) fn body_parts<const N: usize>(body: &[u8]) -> Option<&[[u8; SEED_LEN]; N]> {
    seeds(body)?.as_array()
}

/// The seeds of an opened body, if it is nothing else.
pub(super) fn seeds(body: &[u8]) -> Option<&[[u8; SEED_LEN]]> {
    let (seeds, rest) = body.as_chunks::<SEED_LEN>();
    rest.is_empty().then_some(seeds)
}

/// One key of a file of version 2 or 3, clear: which version, and its public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which version, how old, until when.
    pub version: KeyVersion,
    /// The NodeId of an identity; of a KEM key [`kem_id`](super::kem_id).
    pub id: [u8; 32],
}

impl Entry {
    const LEN: usize = 4 + 8 + 8 + 32;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.version.to_be_bytes());
        out.extend_from_slice(&self.version.made_at_ms.to_be_bytes());
        out.extend_from_slice(&self.version.until_ms.to_be_bytes());
        out.extend_from_slice(&self.id);
    }

    fn read(from: &mut Fields<'_>) -> Option<Entry> {
        Some(Entry {
            version: KeyVersion {
                version: u32::from_be_bytes(from.take()?),
                made_at_ms: u64::from_be_bytes(from.take()?),
                until_ms: u64::from_be_bytes(from.take()?),
            },
            id: from.take()?,
        })
    }
}

/// What a file of version 2 or 3 says of its keys, clear: identities, then KEM keys, each ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// When the storage master key was made, milliseconds since the Unix epoch; 0 where nobody wrote it down. It is made
    /// with the first identity, so the file says it of itself only once that one is erased.
    pub storage_made_at_ms: u64,
    /// 1 to [`MAX_IDENTITIES`].
    pub identities: Vec<Entry>,
    /// 0 to [`MAX_KEM_KEYS`]; the last is in use.
    pub kem: Vec<Entry>,
}

impl Table {
    /// Whether the storage key's age is in the file, which makes it one of version 3.
    fn dates_storage(&self) -> bool {
        let first = self
            .identities
            .iter()
            .any(|entry| entry.version.version == 1);
        self.storage_made_at_ms != 0 && !first
    }

    fn put(&self, out: &mut Vec<u8>) {
        if self.dates_storage() {
            out.extend_from_slice(&self.storage_made_at_ms.to_be_bytes());
        }
        let count = |list: &[Entry]| u8::try_from(list.len()).expect("at most four");
        out.extend_from_slice(&[count(&self.identities), count(&self.kem)]);
        for entry in self.identities.iter().chain(&self.kem) {
            entry.put(out);
        }
    }

    fn seeds(&self) -> usize {
        1 + 2 * self.identities.len() + self.kem.len()
    }

    /// Reads a table and refuses one that no release writes; the error names the field.
    fn read(from: &mut Fields<'_>, version: u16, in_use: &[u8; 32]) -> Result<Table, &'static str> {
        let storage = match version {
            ..3 => None,
            _ => Some(u64::from_be_bytes(from.take().ok_or("length")?)),
        };
        let [identities, kem] = from.take().ok_or("length")?;
        let (identities, kem) = (usize::from(identities), usize::from(kem));
        if !(1..=MAX_IDENTITIES).contains(&identities) || kem > MAX_KEM_KEYS {
            return Err("number of keys");
        }
        let mut list = |count| -> Result<Vec<Entry>, &'static str> {
            (0..count)
                .map(|_| Entry::read(from).ok_or("length"))
                .collect()
        };
        let mut table = Table {
            storage_made_at_ms: storage.unwrap_or(0),
            identities: list(identities)?,
            kem: list(kem)?,
        };
        if storage.is_some() && !table.dates_storage() {
            return Err("age of the storage key");
        }
        if let Some(first) = table.identities.first()
            && first.version.version == 1
        {
            table.storage_made_at_ms = first.version.made_at_ms;
        }
        for list in [&table.identities, &table.kem] {
            if !list.is_sorted_by(|a, b| a.version.version < b.version.version)
                || list.first().is_some_and(|first| first.version.version == 0)
            {
                return Err("key versions");
            }
        }
        let at = table.place_of(in_use).ok_or("identity in use")?;
        let ends = |entries: &[Entry]| entries.iter().all(|entry| entry.version.until_ms != 0);
        let (former, rest) = table.identities.split_at(at);
        let later = &table.kem[..kem.saturating_sub(1)];
        if rest.len() > 2 || !ends(former) || !ends(later) {
            return Err("key versions");
        }
        if rest
            .iter()
            .chain(table.kem.last())
            .any(|e| e.version.until_ms != 0)
        {
            return Err("key versions");
        }
        Ok(table)
    }

    /// Where the identity in use stands; before it are former ones, behind it at most the prepared one.
    pub(super) fn place_of(&self, in_use: &[u8; 32]) -> Option<usize> {
        self.identities.iter().position(|entry| entry.id == *in_use)
    }
}

/// The clear part; all of it is authenticated and bound into the key.
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) protection: Protection,
    pub(super) salt: [u8; 32],
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) public_id: [u8; 32],
    /// Of versions 2 and 3; without one the file is of version 1.
    pub(super) table: Option<Table>,
}

impl Header {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (protection, cost) = match self.protection {
            Protection::Passphrase(cost) => (1, [cost.memory_kib, cost.passes, cost.lanes]),
            Protection::KeyFile => (2, [0; 3]),
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&MAGIC);
        let version: u16 = match &self.table {
            None => 1,
            Some(table) if table.dates_storage() => 3,
            Some(_) => 2,
        };
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&[self.kind.code(), protection]);
        for value in cost {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.public_id);
        debug_assert_eq!(bytes.len(), HEADER_LEN);
        if let Some(table) = &self.table {
            table.put(&mut bytes);
        }
        bytes
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
        if !(1..=VERSION).contains(&version) {
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
        let table = match (version, kind) {
            (1, _) => None,
            (_, Kind::Node) => Some(Table::read(&mut rest, version, &public_id).map_err(damaged)?),
            (_, Kind::Root) => return Err(damaged("kind")),
        };
        let seeds = table.as_ref().map_or(kind.seeds(), Table::seeds);
        if rest.0.len() != seeds * SEED_LEN + TAG_LEN {
            return Err(damaged("length"));
        }
        Ok((
            Self {
                kind,
                protection,
                salt,
                nonce,
                public_id,
                table,
            },
            rest.0,
        ))
    }

    /// What it says to everybody.
    pub(super) fn summary(&self) -> Summary {
        Summary {
            kind: self.kind,
            protection: self.protection,
            public_id: self.public_id,
            versions: self.table.clone(),
        }
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
