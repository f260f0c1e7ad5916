//! Ed25519 ([RFC 8032](https://www.rfc-editor.org/rfc/rfc8032)), the classical half of every identity.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::secret::secret_bytes;
use crate::{VerifyError, WrongLength, fixed};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

secret_bytes! {
    /// The seed that an Ed25519 key pair is expanded from.
    pub(crate) struct Ed25519Seed(32)
}

/// A public key; whether it is a point of the curve shows at the first verification.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ed25519Public([u8; 32]);

impl Ed25519Public {
    /// Bytes of a public key.
    pub const LEN: usize = 32;

    /// Reads 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, WrongLength> {
        fixed("an Ed25519 public key", bytes).map(Self)
    }

    /// The key as in RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks one signature.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), VerifyError> {
        #[cfg(feature = "simulation")]
        {
            use crate::simulation::{Op, verified};
            let really = || self.verify_really(message, signature).is_ok();
            if let Some(holds) = verified(Op::Ed25519Verify, &self.0, message, signature, really) {
                return holds.then_some(()).ok_or(VerifyError::Ed25519);
            }
        }
        self.verify_really(message, signature)
    }

    fn verify_really(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), VerifyError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| VerifyError::Ed25519)
    }
}

impl fmt::Debug for Ed25519Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Public({}..)", hex::encode(&self.0[..4]))
    }
}

/// A key pair; only ever used together with an ML-DSA one, so it stays inside this crate.
pub(crate) struct Ed25519Pair {
    seed: Ed25519Seed,
    engine: Ed25519KeyPair,
    public: Ed25519Public,
}

impl Ed25519Pair {
    pub(crate) fn generate() -> Self {
        let mut seed = Ed25519Seed::zeroed();
        crate::random::fill(seed.expose_mut());
        Self::from_seed(seed)
    }

    pub(crate) fn from_seed(seed: Ed25519Seed) -> Self {
        let engine = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("any 32 bytes are an Ed25519 seed");
        let public = Ed25519Public::from_slice(engine.public_key().as_ref())
            .expect("an Ed25519 public key has 32 bytes");
        Self {
            seed,
            engine,
            public,
        }
    }

    pub(crate) fn seed(&self) -> &Ed25519Seed {
        &self.seed
    }

    pub(crate) fn public(&self) -> &Ed25519Public {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        #[cfg(feature = "simulation")]
        {
            use crate::simulation::{Op, signed};
            let mut modelled = [0; SIGNATURE_LEN];
            if signed(
                Op::Ed25519Sign,
                self.public.as_bytes(),
                message,
                &mut modelled,
            ) {
                return modelled;
            }
        }
        let signature = self.engine.sign(message);
        signature
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes")
    }
}
