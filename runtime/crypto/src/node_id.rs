//! The name of a node: a hash over both of its public keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{NodePublic, WrongLength, fixed, sha256};

/// `SHA-256("pqcnet/node/1" ‖ ML-DSA public key ‖ Ed25519 public key)`.
///
/// It covers both keys, so forging a node takes breaking both signatures. Its text form, also in serde, is 64
/// lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdParseError {
    /// Too few or too many characters.
    #[error("a node id has 64 hexadecimal digits, this has {got} characters")]
    Length {
        /// Characters offered.
        got: usize,
    },
    /// A character outside `0-9a-f`.
    #[error("a node id has only the digits 0-9 and a-f, this has {found:?} at position {at}")]
    Digit {
        /// The first such character.
        found: char,
        /// Where it stands, from 0.
        at: usize,
    },
}

impl NodeId {
    /// Bytes of a node id.
    pub const LEN: usize = 32;
    const DOMAIN: &[u8] = b"pqcnet/node/1";

    /// The id of the node that holds `public`.
    pub fn of(public: &NodePublic) -> Self {
        Self(sha256(&[
            Self::DOMAIN,
            public.ml_dsa.as_bytes(),
            public.ed25519.as_bytes(),
        ]))
    }

    /// Takes a hash read from a message or a PeerId.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, WrongLength> {
        fixed("a node id", bytes).map(Self)
    }

    /// The hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight digits, for logs and tables.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl From<[u8; 32]> for NodeId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for NodeId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 64];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = NodeIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((at, found)) = text
            .chars()
            .enumerate()
            .find(|(_, c)| !matches!(c, '0'..='9' | 'a'..='f'))
        {
            return Err(NodeIdParseError::Digit { found, at });
        }
        let mut id = [0u8; 32];
        hex::decode_to_slice(text, &mut id)
            .map_err(|_| NodeIdParseError::Length { got: text.len() })?;
        Ok(Self(id))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
