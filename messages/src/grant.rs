//! A customer's leave to act for it through one sentry.

use bytes::Bytes;
use pqcnet_crypto::{MlDsaSignature, NodeId, NodeKeys, NodePublic};
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as pb;

use crate::canonical::Reader;
use crate::codec::{array, invalid, node_bytes, node_id};

const CONTEXT: &[u8] = b"pqcnet/grant/1";
/// Longest life of a grant: a day, so that a stolen one dies soon and a session signs rarely.
pub const MAX_GRANT_LIFETIME_MS: u64 = 24 * 3600 * 1000;
/// How far a signer's clock may be ahead of the verifier's.
pub const GRANT_SKEW_MS: u64 = 5 * 60 * 1000;

/// Signed once a session by the customer; the relayer verifies it, so a sentry can invent nobody. It names the sentry,
/// so that another sentry cannot use a grant it has seen.
#[derive(Clone, Debug, Hash)]
pub struct Grant {
    /// Who grants.
    pub customer: NodePublic,
    /// The network it holds in.
    pub network_id: [u8; 32],
    /// The sentry it is given to.
    pub sentry: NodeId,
    /// The customer's clock, milliseconds since the Unix epoch.
    pub issued_at_ms: u64,
    /// How long it holds.
    pub lifetime_ms: u64,
    /// Random, so that no two grants are the same bytes.
    pub nonce: [u8; 16],
    /// ML-DSA-65 over [`Grant::canonical_bytes`].
    pub signature: MlDsaSignature,
}

/// Why a grant does not hold; whoever presented it erred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// For another network.
    #[error("the grant is for another network")]
    WrongNetwork,
    /// For another sentry.
    #[error("the grant is for another sentry")]
    WrongSentry,
    /// Issued in the future, beyond [`GRANT_SKEW_MS`].
    #[error("the grant is not valid yet")]
    NotYetValid,
    /// Over.
    #[error("the grant has expired")]
    Expired,
    /// Longer than [`MAX_GRANT_LIFETIME_MS`].
    #[error("the grant's lifetime is over the limit")]
    LifetimeTooLong,
    /// Not signed by the customer it names.
    #[error("the grant's signature does not verify")]
    BadSignature,
}

impl Grant {
    /// Signs a grant with the customer's keys.
    pub fn issue(
        keys: &NodeKeys,
        network_id: [u8; 32],
        sentry: NodeId,
        issued_at_ms: u64,
        lifetime_ms: u64,
        nonce: [u8; 16],
    ) -> Grant {
        let customer = keys.public().clone();
        let message = canonical(
            &customer,
            &network_id,
            &sentry,
            issued_at_ms,
            lifetime_ms,
            &nonce,
        );
        let signature = keys.sign_ml_dsa(&message);
        Grant {
            customer,
            network_id,
            sentry,
            issued_at_ms,
            lifetime_ms,
            nonce,
            signature,
        }
    }

    /// What is signed: "pqcnet/grant/1" ‖ network id ‖ customer's ML-DSA and Ed25519 keys ‖ sentry ‖ issued_at_ms ‖ lifetime_ms
    /// (both u64 big-endian) ‖ nonce. Every part has a fixed length.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        canonical(
            &self.customer,
            &self.network_id,
            &self.sentry,
            self.issued_at_ms,
            self.lifetime_ms,
            &self.nonce,
        )
    }

    /// Checks everything but needs a signature verification (about 60 µs): call it off the actor's thread. Returns the
    /// customer.
    ///
    /// # Errors
    /// The first check that failed; a failure means untrusted.
    pub fn verify(
        &self,
        network_id: &[u8; 32],
        sentry: &NodeId,
        wall_ms: u64,
    ) -> Result<NodeId, GrantError> {
        if self.network_id != *network_id {
            return Err(GrantError::WrongNetwork);
        }
        if self.sentry != *sentry {
            return Err(GrantError::WrongSentry);
        }
        if self.lifetime_ms > MAX_GRANT_LIFETIME_MS {
            return Err(GrantError::LifetimeTooLong);
        }
        if self.issued_at_ms > wall_ms.saturating_add(GRANT_SKEW_MS) {
            return Err(GrantError::NotYetValid);
        }
        if wall_ms >= self.expires_at_ms() {
            return Err(GrantError::Expired);
        }
        self.customer
            .ml_dsa
            .verify(&self.canonical_bytes(), &self.signature)
            .map_err(|_| GrantError::BadSignature)?;
        Ok(self.customer.node_id())
    }

    /// The canonical bytes, then the signature: for files and stores.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.canonical_bytes();
        out.extend_from_slice(self.signature.as_bytes());
        out
    }

    /// Reads [`Grant::to_bytes`].
    ///
    /// # Errors
    /// What is wrong with the bytes; the signature is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Grant, WireError> {
        let mut read = Reader::after(CONTEXT, bytes)?;
        let network_id = read.array()?;
        let customer = NodePublic::from_bytes(read.slice(NodePublic::LEN)?)
            .map_err(|_| invalid("customer", "wrong length"))?;
        let grant = Grant {
            customer,
            network_id,
            sentry: read.node()?,
            issued_at_ms: read.u64()?,
            lifetime_ms: read.u64()?,
            nonce: read.array()?,
            signature: MlDsaSignature::from_slice(read.slice(MlDsaSignature::LEN)?)
                .map_err(|_| invalid("signature", "wrong length"))?,
        };
        read.end()?;
        Ok(grant)
    }

    /// When it stops holding, milliseconds since the Unix epoch.
    pub fn expires_at_ms(&self) -> u64 {
        self.issued_at_ms.saturating_add(self.lifetime_ms)
    }
}

fn canonical(
    customer: &NodePublic,
    network_id: &[u8; 32],
    sentry: &NodeId,
    issued_at_ms: u64,
    lifetime_ms: u64,
    nonce: &[u8; 16],
) -> Vec<u8> {
    [
        CONTEXT,
        network_id,
        &customer.to_bytes(),
        sentry.as_bytes(),
        &issued_at_ms.to_be_bytes(),
        &lifetime_ms.to_be_bytes(),
        nonce,
    ]
    .concat()
}

impl From<&Grant> for pb::Grant {
    fn from(grant: &Grant) -> Self {
        Self {
            customer: Bytes::copy_from_slice(&grant.customer.to_bytes()),
            network_id: Bytes::copy_from_slice(&grant.network_id),
            sentry: node_bytes(&grant.sentry),
            issued_at_ms: grant.issued_at_ms,
            lifetime_ms: grant.lifetime_ms,
            nonce: Bytes::copy_from_slice(&grant.nonce),
            signature: Bytes::copy_from_slice(grant.signature.as_bytes()),
        }
    }
}

impl TryFrom<pb::Grant> for Grant {
    type Error = WireError;

    fn try_from(grant: pb::Grant) -> Result<Self, WireError> {
        Ok(Grant {
            customer: NodePublic::from_bytes(&grant.customer)
                .map_err(|_| invalid("customer", "wrong length"))?,
            network_id: array("network id", &grant.network_id)?,
            sentry: node_id("sentry", &grant.sentry)?,
            issued_at_ms: grant.issued_at_ms,
            lifetime_ms: grant.lifetime_ms,
            nonce: array("nonce", &grant.nonce)?,
            signature: MlDsaSignature::from_slice(&grant.signature)
                .map_err(|_| invalid("signature", "wrong length"))?,
        })
    }
}
