//! A node's identity: an ML-DSA-65 and an Ed25519 key pair that always sign together.

use std::fmt;

use crate::ed25519::{self, Ed25519Pair, Ed25519Seed};
use crate::ml_dsa::MlDsaSeed;
use crate::{
    Ed25519Public, MlDsaKeyPair, MlDsaPublic, MlDsaSignature, NodeId, VerifyError, WrongLength,
};

/// Both public keys of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodePublic {
    /// The post-quantum half.
    pub ml_dsa: MlDsaPublic,
    /// The classical half.
    pub ed25519: Ed25519Public,
}

impl NodePublic {
    /// Bytes of the encoding: ML-DSA key, then Ed25519 key.
    pub const LEN: usize = MlDsaPublic::LEN + Ed25519Public::LEN;

    /// The node's name.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(self)
    }

    /// `ML-DSA key ‖ Ed25519 key`, 1,984 bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0u8; Self::LEN];
        let (ml_dsa, ed25519) = out.split_at_mut(MlDsaPublic::LEN);
        ml_dsa.copy_from_slice(self.ml_dsa.as_bytes());
        ed25519.copy_from_slice(self.ed25519.as_bytes());
        out
    }

    /// Reads [`NodePublic::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WrongLength> {
        let (ml_dsa, ed25519) = split("a node's public keys", bytes, MlDsaPublic::LEN, Self::LEN)?;
        Ok(Self {
            ml_dsa: MlDsaPublic::from_slice(ml_dsa)?,
            ed25519: Ed25519Public::from_slice(ed25519)?,
        })
    }

    /// Accepts only if both halves verify; the error names the half that did not.
    pub fn verify(&self, message: &[u8], signature: &HybridSignature) -> Result<(), VerifyError> {
        self.ed25519.verify(message, &signature.ed25519)?;
        self.ml_dsa.verify(message, &signature.ml_dsa)
    }
}

/// Both signatures of a node over one message.
#[derive(Clone, PartialEq, Eq)]
pub struct HybridSignature {
    ed25519: [u8; ed25519::SIGNATURE_LEN],
    ml_dsa: MlDsaSignature,
}

impl HybridSignature {
    /// Bytes of the encoding: Ed25519 signature, then ML-DSA signature.
    pub const LEN: usize = ed25519::SIGNATURE_LEN + MlDsaSignature::LEN;

    /// `Ed25519 signature ‖ ML-DSA signature`, 64 + 3,309 bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0u8; Self::LEN];
        let (ed25519, ml_dsa) = out.split_at_mut(ed25519::SIGNATURE_LEN);
        ed25519.copy_from_slice(&self.ed25519);
        ml_dsa.copy_from_slice(self.ml_dsa.as_bytes());
        out
    }

    /// Reads [`HybridSignature::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WrongLength> {
        let (ed25519, ml_dsa) = split(
            "a node's signatures",
            bytes,
            ed25519::SIGNATURE_LEN,
            Self::LEN,
        )?;
        Ok(Self {
            ed25519: crate::fixed("an Ed25519 signature", ed25519)?,
            ml_dsa: MlDsaSignature::from_slice(ml_dsa)?,
        })
    }
}

impl fmt::Debug for HybridSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HybridSignature({}.., {:?})",
            hex::encode(&self.ed25519[..4]),
            self.ml_dsa
        )
    }
}

/// The secret keys of a node, expanded and ready to sign. Share it as `Arc<NodeKeys>`.
pub struct NodeKeys {
    ml_dsa: MlDsaKeyPair,
    ed25519: Ed25519Pair,
    public: NodePublic,
    node_id: NodeId,
}

impl NodeKeys {
    /// New keys from the operating system's randomness.
    pub fn generate() -> Self {
        Self::from_pairs(MlDsaKeyPair::generate(), Ed25519Pair::generate())
    }

    pub(crate) fn from_seeds(ml_dsa: MlDsaSeed, ed25519: Ed25519Seed) -> Self {
        Self::from_pairs(
            MlDsaKeyPair::from_seed(ml_dsa),
            Ed25519Pair::from_seed(ed25519),
        )
    }

    fn from_pairs(ml_dsa: MlDsaKeyPair, ed25519: Ed25519Pair) -> Self {
        let public = NodePublic {
            ml_dsa: ml_dsa.public().clone(),
            ed25519: *ed25519.public(),
        };
        let node_id = public.node_id();
        Self {
            ml_dsa,
            ed25519,
            public,
            node_id,
        }
    }

    pub(crate) fn seeds(&self) -> (&MlDsaSeed, &Ed25519Seed) {
        (self.ml_dsa.seed(), self.ed25519.seed())
    }

    /// The node's name.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Both public keys.
    pub fn public(&self) -> &NodePublic {
        &self.public
    }

    /// Signs with both keys. About eight times the cost of an encapsulation and 3,373 bytes: sign handshakes, batches
    /// and roots, never single messages.
    pub fn sign(&self, message: &[u8]) -> HybridSignature {
        HybridSignature {
            ed25519: self.ed25519.sign(message),
            ml_dsa: self.ml_dsa.sign(message),
        }
    }

    /// Signs with the ML-DSA key alone, for grants, where a third party verifies and bytes count.
    pub fn sign_ml_dsa(&self, message: &[u8]) -> MlDsaSignature {
        self.ml_dsa.sign(message)
    }
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKeys({:?}, secrets redacted)", self.node_id)
    }
}

fn split<'a>(
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
    expected: usize,
) -> Result<(&'a [u8], &'a [u8]), WrongLength> {
    if bytes.len() == expected {
        Ok(bytes.split_at(at))
    } else {
        Err(WrongLength {
            what,
            expected,
            got: bytes.len(),
        })
    }
}
