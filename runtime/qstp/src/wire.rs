//! Byte layouts of the handshake's messages: docs/spec/qstp.md §4. All integers are big-endian.

use pqcnet_crypto::aead::TAG_LEN;
use pqcnet_crypto::{HybridSignature, KemCiphertext, KemPublic, NodePublic, sha256};

use crate::config::Limits;
use crate::frame::{FrameType, HEADER_LEN, framed};

/// Key id u32, age u32, bits u8, HMAC.
pub(crate) const TOKEN_LEN: usize = 41;
/// A Retry is its token.
pub(crate) const RETRY_LEN: usize = TOKEN_LEN;
const FINISHED_LEN: usize = 32;
const LIMITS_LEN: usize = 12;

/// Takes fixed-size fields off the front of a message whose length was checked.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> &'a [u8; N] {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .expect("the length was checked before");
        self.0 = rest;
        field
    }

    fn slice(&mut self, len: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(len);
        self.0 = rest;
        field
    }
}

/// M1 of the link profile.
#[derive(Debug)]
pub(crate) struct M1<'a> {
    pub(crate) suites: u16,
    pub(crate) network_id: &'a [u8; 32],
    pub(crate) key: &'a [u8],
    pub(crate) token: &'a [u8; TOKEN_LEN],
    pub(crate) solution: u64,
}

impl<'a> M1<'a> {
    /// version, profile, suites, network id, nonce, X-Wing key, token, solution.
    pub(crate) const LEN: usize = Self::TOKEN_AT + TOKEN_LEN + 8;
    const TOKEN_AT: usize = 1 + 1 + 2 + 32 + 32 + KemPublic::LEN;

    /// Reads a body of [`M1::LEN`] bytes whose version and profile are ours.
    pub(crate) fn decode(body: &'a [u8]) -> Option<M1<'a>> {
        if body.len() != Self::LEN {
            return None;
        }
        let mut fields = Fields(body);
        let [_version, _profile] = *fields.array();
        let suites = u16::from_be_bytes(*fields.array());
        let network_id = fields.array();
        let _nonce: &[u8; 32] = fields.array();
        let key = fields.slice(KemPublic::LEN);
        let token = fields.array();
        let solution = u64::from_be_bytes(*fields.array());
        Some(M1 {
            suites,
            network_id,
            key,
            token,
            solution,
        })
    }

    /// The first M1 as a whole message: no token, no solution.
    pub(crate) fn encode(
        version: u8,
        profile: u8,
        suites: u16,
        network_id: &[u8; 32],
        nonce: &[u8; 32],
        key: &KemPublic,
    ) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::LEN);
        body.extend_from_slice(&[version, profile]);
        body.extend_from_slice(&suites.to_be_bytes());
        body.extend_from_slice(network_id);
        body.extend_from_slice(nonce);
        body.extend_from_slice(key.as_bytes());
        body.resize(Self::LEN, 0);
        framed(FrameType::M1, &body)
    }

    /// The same message with other token and solution.
    pub(crate) fn with_token(message: &[u8], token: &[u8; TOKEN_LEN], solution: u64) -> Vec<u8> {
        let mut again = message.to_vec();
        let (_, tail) = again.split_at_mut(HEADER_LEN + Self::TOKEN_AT);
        tail[..TOKEN_LEN].copy_from_slice(token);
        tail[TOKEN_LEN..].copy_from_slice(&solution.to_be_bytes());
        again
    }

    /// `H(M1)`: SHA-256 of the whole first message.
    pub(crate) fn hash(first: &[u8]) -> [u8; 32] {
        sha256(&[first])
    }
}

/// M2: a clear part and a sealed part.
pub(crate) struct M2;

impl M2 {
    /// suite, nonce, ciphertext.
    pub(crate) const CLEAR_LEN: usize = 2 + 32 + KemCiphertext::LEN;
    /// public keys, limits, signatures, finished.
    pub(crate) const PLAIN_LEN: usize =
        NodePublic::LEN + LIMITS_LEN + HybridSignature::LEN + FINISHED_LEN;
    pub(crate) const LEN: usize = Self::CLEAR_LEN + Self::PLAIN_LEN + TAG_LEN;

    /// Suite and ciphertext of the clear part; its nonce counts only in the transcript.
    pub(crate) fn clear(clear: &[u8]) -> (u16, &[u8]) {
        let mut fields = Fields(clear);
        let suite = u16::from_be_bytes(*fields.array());
        let _nonce: &[u8; 32] = fields.array();
        (suite, fields.slice(KemCiphertext::LEN))
    }
}

/// M3: all of it sealed.
pub(crate) struct M3;

impl M3 {
    /// public keys, NodeId meant, signatures, finished.
    pub(crate) const PLAIN_LEN: usize = NodePublic::LEN + 32 + HybridSignature::LEN + FINISHED_LEN;
    pub(crate) const LEN: usize = Self::PLAIN_LEN + TAG_LEN;
}

/// The sealed plaintext of M2 or M3: what is signed, then the signatures, then the finished value. Between public keys and
/// signatures lie `N` bytes: limits (M2) or the NodeId meant (M3).
pub(crate) struct Sealed<'a, const N: usize> {
    pub(crate) public: &'a [u8],
    pub(crate) extra: &'a [u8; N],
    pub(crate) signatures: &'a [u8],
    pub(crate) finished: &'a [u8; FINISHED_LEN],
}

impl<'a, const N: usize> Sealed<'a, N> {
    pub(crate) const SIGNED_LEN: usize = NodePublic::LEN + N;

    /// Reads a plaintext of the length that [`M2`] or [`M3`] fixes.
    pub(crate) fn decode(plain: &'a [u8]) -> Sealed<'a, N> {
        let mut fields = Fields(plain);
        Sealed {
            public: fields.slice(NodePublic::LEN),
            extra: fields.array(),
            signatures: fields.slice(HybridSignature::LEN),
            finished: fields.array(),
        }
    }
}

impl Limits {
    pub(crate) fn encode(&self) -> [u8; LIMITS_LEN] {
        let mut out = [0; LIMITS_LEN];
        out[..4].copy_from_slice(&self.max_record.to_be_bytes());
        out[4..8].copy_from_slice(&self.epoch_records.to_be_bytes());
        out[8..].copy_from_slice(&self.epoch_ms.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; LIMITS_LEN]) -> Option<Limits> {
        let mut fields = Fields(bytes);
        let limits = Limits {
            max_record: u32::from_be_bytes(*fields.array()),
            epoch_records: u32::from_be_bytes(*fields.array()),
            epoch_ms: u32::from_be_bytes(*fields.array()),
        };
        limits.in_bounds().then_some(limits)
    }
}
