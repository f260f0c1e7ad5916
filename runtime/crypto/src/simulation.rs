//! Cryptography inside a simulation: charged, remembered or modelled, on the thread that asks for it.
//!
//! | mode     | an operation does                                                                    |
//! |----------|--------------------------------------------------------------------------------------|
//! | real     | what it always does                                                                  |
//! | memo     | the same, but a verification that was made before in this process is remembered      |
//! | modelled | sizes only: keys, signatures, ciphertexts and tags are hashes that anybody can make  |
//!
//! Whatever the mode, each operation is charged to whoever runs, by the function given to [`install`]. Modelled signatures
//! and tags still fail when what they cover was changed, so that nodes which garble messages are found out; they are no
//! defence against one that forges.
//!
//! Only the simulator enables the feature. Where its code meets a product's in one build it is inert: no thread of a
//! product installs it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::thread::LocalKey;

use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::engine::{ML_DSA_PUBLIC, ML_DSA_SIGNATURE};
use crate::hash::sha256;
use crate::seeded::{self, Seeded};

/// An operation that costs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// An ML-DSA-65 signature is made.
    MlDsaSign,
    /// One is checked.
    MlDsaVerify,
    /// An Ed25519 signature is made.
    Ed25519Sign,
    /// One is checked.
    Ed25519Verify,
    /// An X-Wing key pair is made.
    KemKeys,
    /// X-Wing encapsulates.
    Encapsulate,
    /// X-Wing decapsulates.
    Decapsulate,
    /// A cipher's key is set up.
    AeadKey,
    /// So many bytes are sealed.
    Seal,
    /// So many bytes are opened.
    Open,
}

impl Op {
    /// Every operation.
    pub const ALL: [Op; 10] = [
        Op::MlDsaSign,
        Op::MlDsaVerify,
        Op::Ed25519Sign,
        Op::Ed25519Verify,
        Op::KemKeys,
        Op::Encapsulate,
        Op::Decapsulate,
        Op::AeadKey,
        Op::Seal,
        Op::Open,
    ];
}

/// How operations are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As always.
    Real,
    /// Verifications are remembered.
    Memo,
    /// By their sizes alone.
    Modelled,
}

/// What a thread has installed.
#[derive(Clone, Copy)]
pub struct Simulation {
    /// How operations are done.
    pub mode: Mode,
    /// Gives the randomness.
    pub entropy: fn(&mut [u8]),
    /// Told of every operation and the bytes that it is about.
    pub charge: fn(Op, usize),
}

/// Verifications that are remembered: one of each advert and directive of the largest network several times over, in some
/// 10 MB. Beyond it all are forgotten, and made again.
const REMEMBERED: usize = 1 << 17;

thread_local! {
    static SIMULATION: Cell<Option<Simulation>> = const { Cell::new(None) };
    static MEMO: RefCell<HashMap<[u8; 32], bool>> = RefCell::default();
    static REPEATED: Cell<u64> = const { Cell::new(0) };
    static PUBLICS: RefCell<Shared<ML_DSA_PUBLIC>> = RefCell::default();
    static SIGNATURES: RefCell<Shared<ML_DSA_SIGNATURE>> = RefCell::default();
}

/// Values that many nodes of one process hold, each in memory once, by their first bytes, which are as random as the rest.
#[derive(Default)]
struct Shared<const N: usize> {
    held: HashMap<[u8; 32], Weak<[u8; N]>>,
    sweep_at: usize,
}

/// Fewer are never looked through for those that nobody holds any more.
const SWEEP_AT: usize = 256;

impl<const N: usize> Shared<N> {
    fn get(&mut self, bytes: &[u8; N]) -> Arc<[u8; N]> {
        let Some(name) = bytes.first_chunk() else {
            return Arc::new(*bytes);
        };
        let held = self.held.get(name).and_then(Weak::upgrade);
        if let Some(held) = held.filter(|held| **held == *bytes) {
            return held;
        }
        if self.held.len() >= self.sweep_at.max(SWEEP_AT) {
            self.held.retain(|_, held| held.strong_count() > 0);
            let left = self.held.len();
            self.sweep_at = left + left / 4;
        }
        let new = Arc::new(*bytes);
        self.held.insert(*name, Arc::downgrade(&new));
        new
    }

    fn of(table: &'static LocalKey<RefCell<Self>>, bytes: &[u8; N]) -> Option<Arc<[u8; N]>> {
        SIMULATION.get()?;
        Some(table.with_borrow_mut(|shared| shared.get(bytes)))
    }
}

/// A public key, one copy for all nodes of a simulation; `None` outside of one.
pub(crate) fn shared_public(bytes: &[u8; ML_DSA_PUBLIC]) -> Option<Arc<[u8; ML_DSA_PUBLIC]>> {
    Shared::of(&PUBLICS, bytes)
}

/// A signature, one copy for all nodes of a simulation; `None` outside of one.
pub(crate) fn shared_signature(
    bytes: &[u8; ML_DSA_SIGNATURE],
) -> Option<Arc<[u8; ML_DSA_SIGNATURE]>> {
    Shared::of(&SIGNATURES, bytes)
}

/// While it lives, this thread's cryptography is a simulation's.
#[must_use = "cryptography is simulated only while the guard lives"]
pub struct Installed {
    _entropy: Seeded,
    _here: PhantomData<*const ()>,
}

/// Has this thread's cryptography be a simulation's.
///
/// # Panics
/// If it already is, or is seeded.
pub fn install(simulation: Simulation) -> Installed {
    let entropy = seeded::from_source(simulation.entropy);
    SIMULATION.set(Some(simulation));
    MEMO.with_borrow_mut(HashMap::clear);
    PUBLICS.take();
    SIGNATURES.take();
    REPEATED.set(0);
    Installed {
        _entropy: entropy,
        _here: PhantomData,
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        SIMULATION.set(None);
    }
}

/// Verifications on this thread that were remembered, since [`install`].
pub fn remembered() -> u64 {
    REPEATED.get()
}

pub(crate) fn charge(op: Op, bytes: usize) {
    if let Some(simulation) = SIMULATION.get() {
        (simulation.charge)(op, bytes);
    }
}

/// Charges an operation; true if it is to be modelled.
pub(crate) fn models(op: Op) -> bool {
    charge(op, 0);
    SIMULATION
        .get()
        .is_some_and(|simulation| simulation.mode == Mode::Modelled)
}

/// Charges a signature; true if it was modelled, into `out`.
pub(crate) fn signed(op: Op, public: &[u8], message: &[u8], out: &mut [u8]) -> bool {
    if !models(op) {
        return false;
    }
    out.fill(0);
    let kind = match op {
        Op::Ed25519Sign => Op::Ed25519Verify,
        _ => Op::MlDsaVerify,
    };
    out[..32].copy_from_slice(&modelled(kind, public, message));
    true
}

fn modelled(op: Op, public: &[u8], message: &[u8]) -> [u8; 32] {
    // A key's first bytes name it: they are as random as the rest.
    let name = &public[..public.len().min(32)];
    sha256(&[b"modelled signature", &[op as u8], name, message])
}

/// Charges a verification; `None` if it is to be made as always.
pub(crate) fn verified(
    op: Op,
    public: &[u8],
    message: &[u8],
    signature: &[u8],
    really: impl FnOnce() -> bool,
) -> Option<bool> {
    let simulation = SIMULATION.get()?;
    (simulation.charge)(op, message.len());
    match simulation.mode {
        Mode::Real => None,
        Mode::Modelled => {
            let (start, rest) = signature.split_at(32);
            let holds = *start == modelled(op, public, message);
            Some(holds && rest.iter().all(|byte| *byte == 0))
        }
        Mode::Memo => {
            let len = (message.len() as u64).to_be_bytes();
            let asked = sha256(&[&[op as u8], public, &len, message, signature]);
            if let Some(holds) = MEMO.with_borrow(|memo| memo.get(&asked).copied()) {
                REPEATED.set(REPEATED.get() + 1);
                return Some(holds);
            }
            let holds = really();
            MEMO.with_borrow_mut(|memo| {
                if memo.len() >= REMEMBERED {
                    memo.clear();
                }
                memo.insert(asked, holds);
            });
            Some(holds)
        }
    }
}

/// A modelled cipher's key: it leaves the text as it is and makes a tag that depends on everything.
pub(crate) struct Mac([u64; 2]);

fn fold(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(0xA076_1D64_78BD_642F)
}

fn absorb(state: u64, bytes: &[u8]) -> u64 {
    let mut state = fold(state, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(state, u64::from_le_bytes(last))
}

impl Mac {
    pub(crate) fn new(key: &[u8; 32]) -> Mac {
        let (low, high) = key.split_at(16);
        Mac([absorb(1, low), absorb(2, high)])
    }

    pub(crate) fn tag(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &[u8]) -> [u8; TAG_LEN] {
        let Mac([a, b]) = *self;
        let state = absorb(absorb(absorb(a, nonce), aad), text);
        let low = state ^ (state >> 31);
        let high = fold(fold(b, state), low);
        let mut tag = [0; TAG_LEN];
        tag[..8].copy_from_slice(&low.to_le_bytes());
        tag[8..].copy_from_slice(&(high ^ (high >> 29)).to_le_bytes());
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AeadAlgorithm, AeadKey, KemSecret, MlDsaPublic, MlDsaSignature, NodeKeys, encapsulate,
    };

    thread_local! {
        static CHARGED: RefCell<Vec<(Op, usize)>> = RefCell::default();
    }

    fn simulation(mode: Mode) -> Simulation {
        Simulation {
            mode,
            entropy: |out| out.fill(7),
            charge: |op, bytes| CHARGED.with_borrow_mut(|charged| charged.push((op, bytes))),
        }
    }

    fn charged() -> Vec<Op> {
        CHARGED.take().into_iter().map(|(op, _)| op).collect()
    }

    // In every mode a signature by both keys holds, a changed message's and another node's does not, and each check of both
    // halves is charged. Remembered: a second check of the same is one that is not made again.
    #[test]
    fn signatures_hold_in_every_mode() {
        let (keys, other) = (NodeKeys::generate(), NodeKeys::generate());
        for mode in [Mode::Real, Mode::Memo, Mode::Modelled] {
            let _installed = install(simulation(mode));
            let signature = keys.sign(b"message");
            assert_eq!(charged(), [Op::Ed25519Sign, Op::MlDsaSign]);
            for _ in 0..2 {
                assert_eq!(keys.public().verify(b"message", &signature), Ok(()));
                assert_eq!(charged(), [Op::Ed25519Verify, Op::MlDsaVerify]);
            }
            let again = if mode == Mode::Memo { 2 } else { 0 };
            assert_eq!(remembered(), again);
            assert!(keys.public().verify(b"massage", &signature).is_err());
            assert!(other.public().verify(b"message", &signature).is_err());
            let alone = keys.sign_ml_dsa(b"message");
            assert!(keys.public().ml_dsa.verify(b"message", &alone).is_ok());
            assert!(keys.public().ml_dsa.verify(b"massage", &alone).is_err());
            charged();
        }
        // Without a guard nothing is charged.
        assert_eq!(
            keys.public().verify(b"message", &keys.sign(b"message")),
            Ok(())
        );
        assert_eq!(charged(), []);
    }

    // In a simulation equal keys and signatures lie in memory once, as long as somebody holds them; others do not meet them,
    // and without a simulation each reader has its own.
    #[test]
    fn what_all_hold_is_held_once() {
        let at = |bytes: &[u8]| MlDsaSignature::from_slice(bytes).unwrap();
        let place = |signature: &MlDsaSignature| signature.as_bytes().as_ptr();
        let one = [7; ML_DSA_SIGNATURE];
        let mut other = one;
        other[ML_DSA_SIGNATURE - 1] = 8;
        assert_ne!(place(&at(&one).clone()), place(&at(&other)));
        let (mine, yours) = (at(&one), at(&one));
        assert!(mine == yours && place(&mine) != place(&yours));

        let _installed = install(simulation(Mode::Real));
        let (mine, yours, others) = (at(&one), at(&one), at(&other));
        assert_eq!(place(&mine), place(&yours));
        assert_eq!(others.as_bytes(), &other);
        assert_ne!(mine, others);
        // The table does not keep what nobody holds: it stays small, however many come and go.
        let key = |n: u32| {
            let mut bytes = [0; ML_DSA_PUBLIC];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            MlDsaPublic::from_slice(&bytes).unwrap()
        };
        let held = key(0);
        for n in 0..10_000 {
            assert_eq!(key(n) == held, n == 0);
        }
        assert!(PUBLICS.with_borrow(|shared| shared.held.len()) <= 2 * SWEEP_AT);
        assert_eq!(key(0).as_bytes().as_ptr(), held.as_bytes().as_ptr());
    }

    // In every mode both sides of an encapsulation share a secret, one to another key gives another, what is sealed opens,
    // and a flipped bit, another nonce, other data or another key does not.
    #[test]
    fn secrets_and_ciphers_in_every_mode() {
        for mode in [Mode::Real, Mode::Memo, Mode::Modelled] {
            let _installed = install(simulation(mode));
            let (secret, other) = (
                KemSecret::from_seed(&[1; 32]),
                KemSecret::from_seed(&[2; 32]),
            );
            let (ciphertext, shared) = encapsulate(secret.public()).unwrap();
            let got = secret.decapsulate(&ciphertext).unwrap();
            assert_eq!(got.expose(), shared.expose());
            let wrong = other.decapsulate(&ciphertext).unwrap();
            assert_ne!(wrong.expose(), shared.expose());

            let key = AeadKey::new(AeadAlgorithm::Aes256Gcm, shared.expose());
            let stranger = AeadKey::new(AeadAlgorithm::Aes256Gcm, wrong.expose());
            let seal = || {
                let mut text = b"some text of a record".to_vec();
                let tag = key.seal_in_place(&[3; 12], b"head", &mut text);
                text.extend_from_slice(&tag);
                text
            };
            let opens = |key: &AeadKey, nonce: u8, aad: &[u8], mut sealed: Vec<u8>| {
                let opened = key.open_in_place(&[nonce; 12], aad, &mut sealed);
                opened.map(|text| text.to_vec()).ok()
            };
            let text = Some(b"some text of a record".to_vec());
            assert_eq!(opens(&key, 3, b"head", seal()), text, "{mode:?}");
            assert_eq!(opens(&stranger, 3, b"head", seal()), None);
            assert_eq!(opens(&key, 4, b"head", seal()), None);
            assert_eq!(opens(&key, 3, b"heat", seal()), None);
            for at in 0..seal().len() {
                let mut flipped = seal();
                flipped[at] ^= 1;
                assert_eq!(opens(&key, 3, b"head", flipped), None, "{mode:?} {at}");
            }
            let charged = charged();
            assert!(charged.contains(&Op::Encapsulate) && charged.contains(&Op::Open));
        }
    }
}
