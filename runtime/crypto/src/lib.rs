//! Every primitive that the network stands on, behind types that cannot be mixed up, printed or left in memory.
//!
//! | need | module | engine |
//! |---|---|---|
//! | key encapsulation, X-Wing | [`kem`] | ML-KEM-768 by liboqs, X25519 by AWS-LC |
//! | who a node is, both signatures | [`identity`], [`node_id`] | ML-DSA-65 as below, Ed25519 by AWS-LC |
//! | one ML-DSA signature (grants, the root) | [`ml_dsa`] | liboqs signs, AWS-LC verifies |
//! | records and payloads | [`aead`] | AWS-LC |
//! | key schedule, transcripts, tokens | [`kdf`], [`hash`] | AWS-LC; BLAKE2b by RustCrypto |
//! | keys on disk | [`keystore`] | Argon2id by RustCrypto, AES-256-GCM |
//! | refuse to run on a broken engine | [`self_test`] | all of the above |
//!
//! Rules that hold for every secret type here: it zeroises on drop, its `Debug` prints only its name, and it has
//! neither `Clone`, `Display`, `PartialEq` nor serde. Raw bytes come out only through a method called `expose`
//! (or `as_bytes` on values that are about to be fed to a key schedule), which makes them easy to search for.
//!
//! The feature `simulation` (module `simulation`) charges, remembers and models operations for the simulator, on threads
//! that ask for it. The feature `seeded` (module `seeded`) replaces hidden entropy by a stream of the calling thread. It belongs into
//! `[dev-dependencies]` and the simulator; see that module for why a release binary never links it.

pub mod aead;
#[cfg(test)]
mod differential;
pub mod ed25519;
mod engine;
pub mod hash;
pub mod identity;
#[cfg(test)]
mod kat;
pub mod kdf;
pub mod kem;
pub mod keystore;
pub mod ml_dsa;
pub mod node_id;
pub mod random;
mod secret;
#[cfg(any(test, feature = "seeded"))]
pub mod seeded;
pub mod self_test;
#[cfg(feature = "simulation")]
pub mod simulation;

pub use aead::{AeadAlgorithm, AeadKey, OpenError, OpenKey, SealKey};
pub use ed25519::Ed25519Public;
pub use hash::{Sha256, blake2b256, sha256};
pub use identity::{HybridSignature, NodeKeys, NodePublic};
pub use kdf::{Prk, hmac_sha256};
pub use kem::{KemCiphertext, KemError, KemPublic, KemSecret, SharedSecret, encapsulate};
pub use keystore::{NodeSecrets, StorageMasterKey};
pub use ml_dsa::{MlDsaKeyPair, MlDsaPublic, MlDsaSignature};
pub use node_id::NodeId;

/// Bytes of the wrong length for a fixed-size value; the party that sent them erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} takes {expected} bytes, got {got}")]
pub struct WrongLength {
    /// The value that was being read.
    pub what: &'static str,
    /// Its fixed size in bytes.
    pub expected: usize,
    /// Bytes offered.
    pub got: usize,
}

/// A signature that does not hold; names the half that failed.
///
/// Whoever made the signature erred, or was impersonated. Treat as untrusted, never retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The Ed25519 half (or an Ed25519 public key that is no point).
    #[error("the Ed25519 signature does not verify")]
    Ed25519,
    /// The ML-DSA-65 half.
    #[error("the ML-DSA-65 signature does not verify")]
    MlDsa,
}

/// Copies a slice into a fixed-size array, or names what did not fit.
pub(crate) fn fixed<const N: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], WrongLength> {
    bytes.try_into().map_err(|_| WrongLength {
        what,
        expected: N,
        got: bytes.len(),
    })
}
