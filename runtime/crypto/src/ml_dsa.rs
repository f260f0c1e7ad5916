//! ML-DSA-65 ([FIPS 204](https://doi.org/10.6028/NIST.FIPS.204)), hedged, with the empty context string.
//!
//! A key pair is kept as its 32-byte seed and expanded once at start: AWS-LC turns the seed into a key (liboqs has no
//! such call), liboqs signs, AWS-LC verifies. liboqs 0.13 must not verify: its AVX2 code skips the norm check of `z`
//! (FIPS 204, algorithm 8, line 13) and computes one hint wrongly, so it accepts signatures that others refuse and the
//! other way round; Wycheproof's cases show both. See `docs/adr/0005-ml-dsa-verification.md`.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsRawBytes as _;
use aws_lc_rs::signature::{
    KeyPair as _, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};

use crate::engine::{self, ML_DSA_PUBLIC, ML_DSA_SIGNATURE};
use crate::secret::secret_bytes;
use crate::{VerifyError, WrongLength, fixed};

/// A signature alone is good for grants and the root; a node's identity always adds Ed25519.
const CONTEXT: &[u8] = b"";

secret_bytes! {
    /// The seed ξ that a key pair is generated from.
    pub(crate) struct MlDsaSeed(32)
}

secret_bytes! {
    /// The expanded signing key.
    struct MlDsaSecret(4032)
}

/// A public key of 1,952 bytes. Clones share them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MlDsaPublic(Arc<[u8; ML_DSA_PUBLIC]>);

/// A signature of 3,309 bytes. Clones share them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MlDsaSignature(Arc<[u8; ML_DSA_SIGNATURE]>);

/// A key pair that signs alone: the network's root, or a node's half for grants.
pub struct MlDsaKeyPair {
    seed: MlDsaSeed,
    secret: MlDsaSecret,
    public: MlDsaPublic,
}

impl MlDsaPublic {
    /// Bytes of a public key.
    pub const LEN: usize = ML_DSA_PUBLIC;

    /// Reads 1,952 bytes. Every string of this length is a public key in FIPS 204, so the length is the whole check.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, WrongLength> {
        fixed("an ML-DSA-65 public key", bytes).map(|bytes| {
            #[cfg(feature = "simulation")]
            if let Some(shared) = crate::simulation::shared_public(&bytes) {
                return Self(shared);
            }
            Self(Arc::new(bytes))
        })
    }

    /// The key as in FIPS 204.
    pub fn as_bytes(&self) -> &[u8; ML_DSA_PUBLIC] {
        &self.0
    }

    /// Checks one signature.
    pub fn verify(&self, message: &[u8], signature: &MlDsaSignature) -> Result<(), VerifyError> {
        #[cfg(feature = "simulation")]
        {
            use crate::simulation::{Op, verified};
            let really = || self.verify_really(message, signature).is_ok();
            if let Some(holds) = verified(
                Op::MlDsaVerify,
                &self.0[..],
                message,
                &signature.0[..],
                really,
            ) {
                return holds.then_some(()).ok_or(VerifyError::MlDsa);
            }
        }
        self.verify_really(message, signature)
    }

    fn verify_really(&self, message: &[u8], signature: &MlDsaSignature) -> Result<(), VerifyError> {
        UnparsedPublicKey::new(&ML_DSA_65, &self.0[..])
            .verify(message, &signature.0[..])
            .map_err(|_| VerifyError::MlDsa)
    }
}

impl MlDsaSignature {
    /// Bytes of a signature.
    pub const LEN: usize = ML_DSA_SIGNATURE;

    /// Reads 3,309 bytes; whether they encode a signature shows at verification.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, WrongLength> {
        fixed("an ML-DSA-65 signature", bytes).map(|bytes| {
            #[cfg(feature = "simulation")]
            if let Some(shared) = crate::simulation::shared_signature(&bytes) {
                return Self(shared);
            }
            Self(Arc::new(bytes))
        })
    }

    /// The signature as in FIPS 204.
    pub fn as_bytes(&self) -> &[u8; ML_DSA_SIGNATURE] {
        &self.0
    }
}

impl MlDsaKeyPair {
    /// A new key pair from the operating system's randomness.
    pub fn generate() -> Self {
        let mut seed = MlDsaSeed::zeroed();
        crate::random::fill(seed.expose_mut());
        Self::from_seed(seed)
    }

    pub(crate) fn from_seed(seed: MlDsaSeed) -> Self {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed.expose())
            .expect("any 32 bytes are an ML-DSA seed");
        let expanded = pair
            .private_key()
            .as_raw_bytes()
            .expect("a fresh key exports");
        let mut secret = MlDsaSecret::zeroed();
        secret.expose_mut().copy_from_slice(expanded.as_ref());
        let public = MlDsaPublic::from_slice(pair.public_key().as_ref())
            .expect("an ML-DSA-65 public key has 1,952 bytes");
        Self {
            seed,
            secret,
            public,
        }
    }

    pub(crate) fn seed(&self) -> &MlDsaSeed {
        &self.seed
    }

    #[cfg(test)]
    pub(crate) fn expanded_secret(&self) -> &[u8; 4032] {
        self.secret.expose()
    }

    /// The public half.
    pub fn public(&self) -> &MlDsaPublic {
        &self.public
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> MlDsaSignature {
        let mut signature = [0u8; ML_DSA_SIGNATURE];
        #[cfg(feature = "simulation")]
        {
            use crate::simulation::{Op, signed};
            if signed(
                Op::MlDsaSign,
                &self.public.0[..],
                message,
                &mut signature[..],
            ) {
                return MlDsaSignature(Arc::new(signature));
            }
        }
        engine::ml_dsa_sign(self.secret.expose(), message, CONTEXT, &mut signature)
            .expect("signing takes any message under a key that was generated here");
        MlDsaSignature(Arc::new(signature))
    }
}

impl fmt::Debug for MlDsaPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MlDsaPublic({}..)", hex::encode(&self.0[..4]))
    }
}

impl fmt::Debug for MlDsaSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MlDsaSignature({}..)", hex::encode(&self.0[..4]))
    }
}

impl fmt::Debug for MlDsaKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MlDsaKeyPair({:?}, secret redacted)", self.public)
    }
}
