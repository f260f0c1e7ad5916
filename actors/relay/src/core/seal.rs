//! Entries at rest. Spec: docs/spec/relay.md §5, ADR 0003.
//!
//! ```text
//!   sealed = 1 ‖ generation u32 ‖ counter u64 ‖ AES-256-GCM(text) ‖ tag 16
//!   key    = HKDF(salt: none, ikm: storage master, info: "pqcnet/shard/1" ‖ shard u16 ‖ generation u32 ‖ salt 16)
//!   nonce  = 0 u32 ‖ counter u64;   associated data = shard u16 ‖ channel 32 ‖ offset u64
//! ```
//!
//! A generation is new at every start and its salt random, so no (key, nonce) pair ever comes twice: not after a crash
//! that lost an unsynced batch, and not after a folder was restored from an older copy.

use std::collections::{BTreeMap, VecDeque};

use pqcnet_crypto::aead::{AeadAlgorithm, OpenKey, SealKey, TAG_LEN};
use pqcnet_crypto::kdf::{self, Prk};
use pqcnet_log::{ChannelId, Salt, ShardNo};

const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 4 + 8;

/// Bytes a sealed entry is longer than its text.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Keys of earlier generations kept expanded; older ones are derived anew when met.
const KEPT_KEYS: usize = 16;

/// Why a stored entry does not open. All mean: damaged or tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than a header and a tag.
    #[error("a sealed entry has at least {OVERHEAD} bytes, this one {got}")]
    TooShort {
        /// Its length.
        got: usize,
    },
    /// Its first byte is no version of ours.
    #[error("sealed entry of unknown version {0}")]
    Version(u8),
    /// It names a generation that the shard never had.
    #[error("sealed under unknown generation {0}")]
    Generation(u32),
    /// The tag does not verify.
    #[error("the sealed entry does not authenticate")]
    Forged,
}

/// The root of one shard's keys.
pub struct ShardKeys {
    root: Prk,
    shard: ShardNo,
    salts: BTreeMap<u32, Salt>,
    kept: VecDeque<(u32, OpenKey)>,
    sealing: Option<Sealing>,
}

struct Sealing {
    generation: u32,
    key: SealKey,
    counter: u64,
}

impl ShardKeys {
    /// Keys of `shard` under a node's storage master key.
    pub fn new(storage_master: &[u8; 32], shard: ShardNo) -> Self {
        Self {
            root: kdf::extract(&[], storage_master),
            shard,
            salts: BTreeMap::new(),
            kept: VecDeque::new(),
            sealing: None,
        }
    }

    /// Learns the generations, to open what they sealed and nothing else.
    pub fn learn(&mut self, salts: &[(u32, Salt)]) {
        self.salts = salts.iter().copied().collect();
    }

    /// Learns the generations; from here on seals under `generation`, which must be new.
    pub fn begin(&mut self, generation: u32, salts: &[(u32, Salt)]) {
        self.learn(salts);
        let salt = self.salts.get(&generation).copied().unwrap_or_default();
        self.sealing = Some(Sealing {
            generation,
            key: SealKey::new(AeadAlgorithm::Aes256Gcm, &self.derive(generation, &salt)),
            counter: 0,
        });
    }

    /// Seals no more until the next [`begin`](Self::begin); opening goes on.
    pub fn end(&mut self) {
        self.sealing = None;
    }

    fn derive(&self, generation: u32, salt: &Salt) -> [u8; 32] {
        let mut key = [0; 32];
        let shard = self.shard.0.to_be_bytes();
        let info: [&[u8]; 4] = [b"pqcnet/shard/1", &shard, &generation.to_be_bytes(), salt];
        self.root.expand(&info, &mut key);
        key
    }

    fn associated(&self, channel: &ChannelId, offset: u64) -> [u8; 42] {
        pqcnet_log::keys::numbered(self.shard, channel, offset)
    }

    /// Appends the sealed form of the text parts, one after another. Offset 0 is what is stored about the channel.
    ///
    /// # Panics
    /// Before [`begin`](Self::begin): a shard that is not open admits nothing.
    pub fn seal(&mut self, channel: &ChannelId, offset: u64, text: [&[u8]; 2], out: &mut Vec<u8>) {
        let associated = self.associated(channel, offset);
        let sealing = self.sealing.as_mut().expect("only an open shard seals");
        let counter = sealing.counter;
        sealing.counter += 1;
        out.reserve(OVERHEAD + text[0].len() + text[1].len());
        out.push(VERSION);
        out.extend_from_slice(&sealing.generation.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        let start = out.len();
        out.extend_from_slice(text[0]);
        out.extend_from_slice(text[1]);
        let tag = sealing
            .key
            .seal_in_place(&nonce(counter), &associated, &mut out[start..]);
        out.extend_from_slice(&tag);
    }

    /// Opens a sealed entry where it lies. The text is `sealed[HEADER..len - TAG]`, whose range is returned.
    pub fn open(
        &mut self,
        channel: &ChannelId,
        offset: u64,
        sealed: &mut [u8],
    ) -> Result<std::ops::Range<usize>, SealError> {
        let got = sealed.len();
        if got < OVERHEAD {
            return Err(SealError::TooShort { got });
        }
        let (header, body) = sealed.split_at_mut(HEADER_LEN);
        if header[0] != VERSION {
            return Err(SealError::Version(header[0]));
        }
        let mut generation = [0; 4];
        generation.copy_from_slice(&header[1..5]);
        let mut counter = [0; 8];
        counter.copy_from_slice(&header[5..]);
        let associated = self.associated(channel, offset);
        let key = self.opening(u32::from_be_bytes(generation))?;
        let nonce = nonce(u64::from_be_bytes(counter));
        match key.open_in_place(&nonce, &associated, body) {
            Ok(_) => Ok(HEADER_LEN..got - TAG_LEN),
            Err(_) => Err(SealError::Forged),
        }
    }

    fn opening(&mut self, generation: u32) -> Result<&OpenKey, SealError> {
        let place = match self.kept.iter().position(|(g, _)| *g == generation) {
            Some(place) => place,
            None => {
                let salt = self.salts.get(&generation);
                let salt = *salt.ok_or(SealError::Generation(generation))?;
                let key = self.derive(generation, &salt);
                if self.kept.len() == KEPT_KEYS {
                    self.kept.pop_front();
                }
                let key = OpenKey::new(AeadAlgorithm::Aes256Gcm, &key);
                self.kept.push_back((generation, key));
                self.kept.len() - 1
            }
        };
        Ok(&self.kept[place].1)
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId([7; 32]);

    fn keys() -> ShardKeys {
        let mut keys = ShardKeys::new(&[3; 32], ShardNo(5));
        keys.begin(2, &[(1, [1; 16]), (2, [2; 16])]);
        keys
    }

    fn sealed(keys: &mut ShardKeys, offset: u64, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        keys.seal(&CHANNEL, offset, [text, b""], &mut out);
        out
    }

    // The disk format: one entry under a fixed master key, generation and salt. A change needs a new VERSION.
    #[test]
    fn sealed_bytes_are_pinned() {
        let mut keys = keys();
        let first = sealed(&mut keys, 9, b"attack at dawn");
        assert_eq!(first[..13], [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(first.len(), b"attack at dawn".len() + OVERHEAD);
        let digest = pqcnet_crypto::hash::sha256(&[&first]);
        assert_eq!(hex::encode(&digest[..8]), "68a61420676e8ad0");
        // the same text again: another nonce, other bytes
        let second = sealed(&mut keys, 9, b"attack at dawn");
        assert_eq!(second[12], 1);
        assert_ne!(first[13..], second[13..]);
    }

    // Sealed in one start, opened in the next: the salts are enough.
    #[test]
    fn opens_after_a_restart() {
        let mut bytes = sealed(&mut keys(), 1, b"hello");
        let mut later = ShardKeys::new(&[3; 32], ShardNo(5));
        later.begin(3, &[(1, [1; 16]), (2, [2; 16]), (3, [9; 16])]);
        let text = later.open(&CHANNEL, 1, &mut bytes).unwrap();
        assert_eq!(&bytes[text], b"hello");
    }

    // Every bit flip and every cut is found; so are another shard, channel, offset, master key and salt.
    #[test]
    fn nothing_altered_or_moved_opens() {
        let good = sealed(&mut keys(), 4, b"0123456789");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = keys().open(&CHANNEL, 4, &mut bad).unwrap_err();
            match bit / 8 {
                0 => assert_eq!(error, SealError::Version(bad[0])),
                // generation 2 with its last bits flipped to 3 or 0 is unknown; to another known one, forged
                1..=4 => assert!(matches!(
                    error,
                    SealError::Generation(_) | SealError::Forged
                )),
                _ => assert_eq!(error, SealError::Forged),
            }
        }
        for cut in 0..good.len() {
            let error = keys()
                .open(&CHANNEL, 4, &mut good[..cut].to_vec())
                .unwrap_err();
            let wanted = if cut < OVERHEAD {
                SealError::TooShort { got: cut }
            } else {
                SealError::Forged
            };
            assert_eq!(error, wanted);
        }
        let open =
            |keys: &mut ShardKeys, channel, offset| keys.open(channel, offset, &mut good.clone());
        assert_eq!(open(&mut keys(), &CHANNEL, 5), Err(SealError::Forged));
        assert_eq!(
            open(&mut keys(), &ChannelId([8; 32]), 4),
            Err(SealError::Forged)
        );
        let mut other = ShardKeys::new(&[3; 32], ShardNo(6));
        other.begin(2, &[(2, [2; 16])]);
        assert_eq!(open(&mut other, &CHANNEL, 4), Err(SealError::Forged));
        let mut other = ShardKeys::new(&[4; 32], ShardNo(5));
        other.begin(2, &[(2, [2; 16])]);
        assert_eq!(open(&mut other, &CHANNEL, 4), Err(SealError::Forged));
        let mut other = ShardKeys::new(&[3; 32], ShardNo(5));
        other.begin(3, &[(2, [3; 16]), (3, [4; 16])]);
        assert_eq!(open(&mut other, &CHANNEL, 4), Err(SealError::Forged));
        other.begin(3, &[(3, [4; 16])]);
        let mut fresh = ShardKeys::new(&[3; 32], ShardNo(5));
        fresh.begin(3, &[(3, [4; 16])]);
        assert_eq!(open(&mut fresh, &CHANNEL, 4), Err(SealError::Generation(2)));
    }

    // More generations than keys kept: the oldest is derived again and still opens.
    #[test]
    fn many_generations_open() {
        let salts: Vec<_> = (1..=40).map(|g| (g, [g as u8; 16])).collect();
        let mut entries = Vec::new();
        for (generation, _) in &salts {
            let mut keys = ShardKeys::new(&[3; 32], ShardNo(5));
            keys.begin(*generation, &salts);
            entries.push(sealed(&mut keys, 1, &[*generation as u8]));
        }
        let mut keys = ShardKeys::new(&[3; 32], ShardNo(5));
        keys.begin(41, &salts);
        for _ in 0..2 {
            for (entry, (generation, _)) in entries.iter().zip(&salts) {
                let mut entry = entry.clone();
                let text = keys.open(&CHANNEL, 1, &mut entry).unwrap();
                assert_eq!(entry[text], [*generation as u8]);
            }
        }
        assert_eq!(keys.kept.len(), KEPT_KEYS);
    }
}
