//! QSTP's key schedule by hand, from docs/spec/qstp.md §5 and §6: what a hostile peer computes for itself, so that it can
//! seal whatever it likes.

use pqcnet_crypto::kdf::{self, Prk};
use pqcnet_crypto::{AeadAlgorithm, OpenKey, SealKey, SharedSecret, sha256};

pub const PROLOGUE: &[u8] = b"/pqcnet/qstp/1";
/// Header and clear part of M2.
pub const M2_CLEAR: usize = 4 + 1_154;

/// The bytes of a transcript so far.
#[derive(Clone)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    pub fn new() -> Transcript {
        let mut bytes = b"QSTP/1 transcript".to_vec();
        bytes.extend_from_slice(&[0, PROLOGUE.len() as u8]);
        bytes.extend_from_slice(PROLOGUE);
        Transcript(bytes)
    }

    pub fn absorb(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn th(&self) -> [u8; 32] {
        sha256(&[&self.0])
    }
}

pub struct Keys {
    hs: Prk,
    th_2: [u8; 32],
}

impl Keys {
    pub fn new(shared: &SharedSecret, th_2: [u8; 32]) -> Keys {
        let first = kdf::extract(&[0; 32], shared.expose());
        let hs = kdf::extract(first.expose(), &[0; 32]);
        Keys { hs, th_2 }
    }

    fn one_shot(&self, side: u8) -> ([u8; 32], [u8; 12]) {
        let mut bytes = [0; 44];
        let label: [&[u8]; 3] = [b"QSTP/1 handshake ", &[side], &self.th_2];
        self.hs.expand(&label, &mut bytes);
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        key.copy_from_slice(&bytes[..32]);
        iv.copy_from_slice(&bytes[32..]);
        (key, iv)
    }

    /// Seals the sealed part of `side`'s message.
    pub fn seal(&self, side: u8, associated: &[u8; 32], plain: &[u8]) -> Vec<u8> {
        let (key, iv) = self.one_shot(side);
        sealed(&key, &iv, associated, plain)
    }

    /// Opens it.
    pub fn open(&self, side: u8, associated: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
        let (key, iv) = self.one_shot(side);
        let mut sealed = sealed.to_vec();
        let key = OpenKey::new(AeadAlgorithm::Aes256Gcm, &key);
        match key.open_in_place(&iv, associated, &mut sealed) {
            Ok(plain) => plain.to_vec(),
            Err(error) => panic!("the other side's own message: {error}"),
        }
    }

    /// The first record of what `side` sends, whatever its plaintext.
    pub fn first_record(&self, side: u8, th_4: &[u8; 32], plain: &[u8]) -> Vec<u8> {
        let master = kdf::extract(th_4, self.hs.derive(&[b"QSTP/1 master"]).expose());
        let chain = master.derive(&[b"QSTP/1 chain ", &[side]]);
        let salt = [&th_4[..], &0u64.to_be_bytes()].concat();
        let epoch = kdf::extract(&salt, chain.expose());
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        epoch.expand(&[b"QSTP/1 key"], &mut key);
        epoch.expand(&[b"QSTP/1 iv"], &mut iv);
        let head = head(0x10, plain.len() + 16);
        [&head[..], &sealed(&key, &iv, &head, plain)].concat()
    }
}

fn sealed(key: &[u8; 32], iv: &[u8; 12], associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut text = plain.to_vec();
    let tag = SealKey::new(AeadAlgorithm::Aes256Gcm, key).seal_in_place(iv, associated, &mut text);
    text.extend_from_slice(&tag);
    text
}

/// A frame's header.
pub fn head(kind: u8, len: usize) -> [u8; 4] {
    let [.., a, b, c] = (len as u32).to_be_bytes();
    [kind, a, b, c]
}
