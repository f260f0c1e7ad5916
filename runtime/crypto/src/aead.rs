//! Authenticated encryption in place, by the fast engine.
//!
//! Nonces are the caller's: a record number XOR an IV, a counter, or 12 random bytes for a key used once. A nonce
//! used twice under one [`AeadKey`] gives the key's authentication away, so every caller counts.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes a sealed text is longer than its plain text.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of a key, of every algorithm here.
pub const KEY_LEN: usize = 32;

/// Which cipher; a QSTP suite names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AeadAlgorithm {
    /// AES-256-GCM (NIST SP 800-38D), suite 1.
    Aes256Gcm,
    /// ChaCha20-Poly1305 ([RFC 8439](https://www.rfc-editor.org/rfc/rfc8439)), suite 2.
    ChaCha20Poly1305,
}

/// The sealed text, its associated data, nonce or key is not what was sealed. Nothing more is known, and the buffer's
/// content is undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than a tag.
    #[error("a sealed text has at least {TAG_LEN} bytes, got {got}")]
    TooShort {
        /// Bytes offered.
        got: usize,
    },
    /// The tag does not verify.
    #[error("the sealed text does not authenticate")]
    Forged,
}

/// A key for both directions; where a direction is known, use [`SealKey`] or [`OpenKey`].
pub struct AeadKey {
    key: Engine,
    algorithm: AeadAlgorithm,
}

enum Engine {
    #[cfg(not(feature = "simulation"))]
    Real(LessSafeKey),
    // Boxed, so that thousands of modelled keys are small.
    #[cfg(feature = "simulation")]
    Real(Box<LessSafeKey>),
    #[cfg(feature = "simulation")]
    Modelled(crate::simulation::Mac),
}

impl AeadKey {
    /// Expands a key's schedule once; the engine erases it on drop.
    pub fn new(algorithm: AeadAlgorithm, key: &[u8; KEY_LEN]) -> Self {
        #[cfg(feature = "simulation")]
        if crate::simulation::models(crate::simulation::Op::AeadKey) {
            return Self {
                key: Engine::Modelled(crate::simulation::Mac::new(key)),
                algorithm,
            };
        }
        let engine = match algorithm {
            AeadAlgorithm::Aes256Gcm => &AES_256_GCM,
            AeadAlgorithm::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(engine, key).expect("both algorithms take 32-byte keys");
        let key = LessSafeKey::new(key);
        #[cfg(feature = "simulation")]
        let key = Box::new(key);
        Self {
            key: Engine::Real(key),
            algorithm,
        }
    }

    /// The algorithm the key is for.
    pub fn algorithm(&self) -> AeadAlgorithm {
        self.algorithm
    }

    /// Encrypts `text` where it lies and returns the tag that belongs behind it.
    ///
    /// # Panics
    /// If `text` is beyond the algorithm's 64 GiB bound.
    pub fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_LEN] {
        #[cfg(feature = "simulation")]
        crate::simulation::charge(crate::simulation::Op::Seal, text.len());
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "a simulation has other engines"
        )]
        let key = match &self.key {
            Engine::Real(key) => key,
            #[cfg(feature = "simulation")]
            Engine::Modelled(mac) => return mac.tag(nonce, aad, text),
        };
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            .expect("sealing fails only beyond 64 GiB");
        let mut out = [0u8; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Authenticates and decrypts `sealed` (text, then tag) where it lies; returns the plain text.
    pub fn open_in_place<'a>(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if sealed.len() < TAG_LEN {
            return Err(OpenError::TooShort { got: sealed.len() });
        }
        #[cfg(feature = "simulation")]
        crate::simulation::charge(crate::simulation::Op::Open, sealed.len());
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "a simulation has other engines"
        )]
        let key = match &self.key {
            Engine::Real(key) => key,
            #[cfg(feature = "simulation")]
            Engine::Modelled(mac) => {
                let (text, tag) = sealed.split_at_mut(sealed.len() - TAG_LEN);
                let holds = mac.tag(nonce, aad, text)[..] == *tag;
                return holds.then_some(text).ok_or(OpenError::Forged);
            }
        };
        let nonce = Nonce::assume_unique_for_key(*nonce);
        key.open_in_place(nonce, Aad::from(aad), sealed)
            .map_err(|_| OpenError::Forged)
    }
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AeadKey({:?}, redacted)", self.algorithm)
    }
}

/// The sending direction of a channel: it can only seal.
#[derive(Debug)]
pub struct SealKey(AeadKey);

impl SealKey {
    /// See [`AeadKey::new`].
    pub fn new(algorithm: AeadAlgorithm, key: &[u8; KEY_LEN]) -> Self {
        Self(AeadKey::new(algorithm, key))
    }

    /// See [`AeadKey::seal_in_place`].
    pub fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_LEN] {
        self.0.seal_in_place(nonce, aad, text)
    }
}

/// The receiving direction of a channel: it can only open.
#[derive(Debug)]
pub struct OpenKey(AeadKey);

impl OpenKey {
    /// See [`AeadKey::new`].
    pub fn new(algorithm: AeadAlgorithm, key: &[u8; KEY_LEN]) -> Self {
        Self(AeadKey::new(algorithm, key))
    }

    /// See [`AeadKey::open_in_place`].
    pub fn open_in_place<'a>(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        self.0.open_in_place(nonce, aad, sealed)
    }
}
