//! A receiver's signed word for what it took. Spec: docs/spec/metering.md, "Receipts".

use std::fmt;

use bytes::Bytes;
use pqcnet_crypto::{MlDsaSignature, NodeId, NodeKeys, NodePublic};
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as pb;
use pqcnet_protos::edge::v1 as edge_pb;

use crate::canonical::Reader;
use crate::channel::{Channel, ChannelName, MAX_CHANNEL_NAME};
use crate::codec::{array, invalid, node_bytes, node_id, required, wire};

const CONTEXT: &[u8] = b"pqcnet/receipt/1";

/// Names one subscription of a receiver over all its links and resumptions, or one member of a group over all its turns: 16 random bytes. Zeros: of a client that
/// does not countersign.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series(pub [u8; 16]);

impl Series {
    /// Of a client that does not countersign.
    pub const NONE: Series = Series([0; 16]);

    pub(crate) fn to_proto(self) -> Bytes {
        if self == Series::NONE {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(&self.0)
        }
    }

    pub(crate) fn from_proto(bytes: &Bytes) -> Result<Series, WireError> {
        if bytes.is_empty() {
            return Ok(Series::NONE);
        }
        Ok(Series(array("series", bytes)?))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a receipt says, before it is signed. Counts are cumulative, from `after` on: the last receipt says all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The network it holds in.
    pub network_id: [u8; 32],
    /// Who took the records, and signs.
    pub receiver: NodeId,
    /// Who delivered them.
    pub relayer: NodeId,
    /// Of which channel.
    pub channel: Channel,
    /// In which subscription.
    pub series: Series,
    /// The relayer's window in which it asked.
    pub window: u64,
    /// Everything counted lies above this offset.
    pub after: u64,
    /// The last offset taken.
    pub last: u64,
    /// Records taken.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The receiver's clock, milliseconds since the Unix epoch.
    pub signed_at_ms: u64,
}

/// A statement and its receiver's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What is said.
    pub statement: Statement,
    /// ML-DSA-65 over [`Statement::canonical_bytes`].
    pub signature: MlDsaSignature,
}

/// Why a receipt proves nothing; whoever brought it erred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// For another network.
    #[error("the receipt is for another network")]
    WrongNetwork,
    /// It names another receiver than the key's.
    #[error("the receipt names another receiver than whose key it is checked with")]
    WrongReceiver,
    /// It counts more records than there are offsets between its ends, or none.
    #[error("the receipt's counts do not fit its offsets")]
    Counts,
    /// Not signed by its receiver.
    #[error("the receipt's signature does not verify")]
    BadSignature,
}

impl Statement {
    /// What is signed: "pqcnet/receipt/1" ‖ network id 32 ‖ receiver 32 ‖ relayer 32 ‖ channel's owner 32 ‖ name length u8 ‖ name ‖
    /// series 16 ‖ window ‖ after ‖ last ‖ frames ‖ bytes ‖ signed_at_ms, the numbers u64 big-endian.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let name = self.channel.name.as_str().as_bytes();
        let mut out = Vec::with_capacity(CONTEXT.len() + 4 * 32 + 1 + name.len() + 16 + 6 * 8);
        out.extend_from_slice(CONTEXT);
        out.extend_from_slice(&self.network_id);
        out.extend_from_slice(self.receiver.as_bytes());
        out.extend_from_slice(self.relayer.as_bytes());
        out.extend_from_slice(self.channel.owner.as_bytes());
        // At most 128 bytes.
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.extend_from_slice(&self.series.0);
        for number in [
            self.window,
            self.after,
            self.last,
            self.frames,
            self.bytes,
            self.signed_at_ms,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// Signs it with the receiver's keys (about 150 µs).
    pub fn sign(self, keys: &NodeKeys) -> Receipt {
        let signature = keys.sign_ml_dsa(&self.canonical_bytes());
        Receipt {
            statement: self,
            signature,
        }
    }

    /// Whether the counts are possible between the offsets.
    pub fn is_possible(&self) -> bool {
        let span = self.last.checked_sub(self.after);
        self.frames > 0 && span.is_some_and(|span| self.frames <= span)
    }
}

impl Receipt {
    /// Checks everything but who the relayer is. Costs a signature verification (about 60 µs).
    ///
    /// # Errors
    /// The first check that failed; a failure means untrusted.
    pub fn verify(&self, network_id: &[u8; 32], key: &NodePublic) -> Result<(), ReceiptError> {
        if self.statement.network_id != *network_id {
            return Err(ReceiptError::WrongNetwork);
        }
        if self.statement.receiver != key.node_id() {
            return Err(ReceiptError::WrongReceiver);
        }
        if !self.statement.is_possible() {
            return Err(ReceiptError::Counts);
        }
        let signed = self.statement.canonical_bytes();
        let verdict = key.ml_dsa.verify(&signed, &self.signature);
        verdict.map_err(|_| ReceiptError::BadSignature)
    }

    /// The canonical bytes, then the signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.statement.canonical_bytes();
        out.extend_from_slice(self.signature.as_bytes());
        out
    }

    /// Reads [`Receipt::to_bytes`].
    ///
    /// # Errors
    /// What is wrong with the bytes; the signature is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Receipt, WireError> {
        let mut read = Reader::after(CONTEXT, bytes)?;
        let network_id = read.array()?;
        let (receiver, relayer, owner) = (read.node()?, read.node()?, read.node()?);
        let name = ChannelName::from_proto(&read.text("channel name", MAX_CHANNEL_NAME)?)?;
        let statement = Statement {
            network_id,
            receiver,
            relayer,
            channel: Channel { owner, name },
            series: Series(read.array()?),
            window: read.u64()?,
            after: read.u64()?,
            last: read.u64()?,
            frames: read.u64()?,
            bytes: read.u64()?,
            signed_at_ms: read.u64()?,
        };
        let signature = MlDsaSignature::from_slice(read.slice(MlDsaSignature::LEN)?)
            .map_err(|_| invalid("signature", "wrong length"))?;
        read.end()?;
        Ok(Receipt {
            statement,
            signature,
        })
    }
}

/// A receiver's answer to [`crate::edge::Countersign`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countersigned {
    /// Its word.
    pub receipt: Receipt,
}

wire!(Countersigned => edge_pb::Countersigned);

impl From<&Countersigned> for edge_pb::Countersigned {
    fn from(signed: &Countersigned) -> Self {
        Self {
            receipt: Some((&signed.receipt).into()),
        }
    }
}

impl TryFrom<edge_pb::Countersigned> for Countersigned {
    type Error = WireError;

    fn try_from(signed: edge_pb::Countersigned) -> Result<Self, WireError> {
        Ok(Countersigned {
            receipt: required("receipt", signed.receipt)?.try_into()?,
        })
    }
}

impl From<&Receipt> for pb::Receipt {
    fn from(receipt: &Receipt) -> Self {
        let statement = &receipt.statement;
        Self {
            network_id: Bytes::copy_from_slice(&statement.network_id),
            receiver: node_bytes(&statement.receiver),
            relayer: node_bytes(&statement.relayer),
            channel: Some((&statement.channel).into()),
            series: Bytes::copy_from_slice(&statement.series.0),
            window: statement.window,
            after: statement.after,
            last: statement.last,
            frames: statement.frames,
            bytes: statement.bytes,
            signed_at_ms: statement.signed_at_ms,
            signature: Bytes::copy_from_slice(receipt.signature.as_bytes()),
        }
    }
}

impl TryFrom<pb::Receipt> for Receipt {
    type Error = WireError;

    fn try_from(receipt: pb::Receipt) -> Result<Self, WireError> {
        let statement = Statement {
            network_id: array("network id", &receipt.network_id)?,
            receiver: node_id("receiver", &receipt.receiver)?,
            relayer: node_id("relayer", &receipt.relayer)?,
            channel: required("channel", receipt.channel)?.try_into()?,
            series: Series(array("series", &receipt.series)?),
            window: receipt.window,
            after: receipt.after,
            last: receipt.last,
            frames: receipt.frames,
            bytes: receipt.bytes,
            signed_at_ms: receipt.signed_at_ms,
        };
        Ok(Receipt {
            statement,
            signature: MlDsaSignature::from_slice(&receipt.signature)
                .map_err(|_| invalid("signature", "wrong length"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    // Scenario: a receiver signs what it took; what is stored reads back as written, the signed bytes are pinned, and each
    // way in which a receipt can be wrong is told apart.
    use super::*;

    fn statement(keys: &NodeKeys) -> Statement {
        Statement {
            network_id: [1; 32],
            receiver: keys.node_id(),
            relayer: NodeId::from_bytes([2; 32]),
            channel: Channel {
                owner: NodeId::from_bytes([3; 32]),
                name: ChannelName::new("orders/eu").unwrap(),
            },
            series: Series([4; 16]),
            window: 5,
            after: 10,
            last: 30,
            frames: 20,
            bytes: 2_000,
            signed_at_ms: 6,
        }
    }

    #[test]
    fn signed_bytes_are_pinned() {
        let keys = NodeKeys::generate();
        let bytes = statement(&keys).canonical_bytes();
        let mut wanted = b"pqcnet/receipt/1".to_vec();
        wanted.extend([1; 32]);
        wanted.extend(keys.node_id().as_bytes());
        wanted.extend([2; 32]);
        wanted.extend([3; 32]);
        wanted.push(9);
        wanted.extend(b"orders/eu");
        wanted.extend([4; 16]);
        for number in [5u64, 10, 30, 20, 2_000, 6] {
            wanted.extend(number.to_be_bytes());
        }
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_told() {
        let keys = NodeKeys::generate();
        let receipt = statement(&keys).sign(&keys);
        assert_eq!(
            Receipt::from_bytes(&receipt.to_bytes()),
            Ok(receipt.clone())
        );
        let wire = pb::Receipt::from(&receipt);
        assert_eq!(Receipt::try_from(wire), Ok(receipt.clone()));
        assert_eq!(receipt.verify(&[1; 32], keys.public()), Ok(()));

        let cut = &receipt.to_bytes()[1..];
        assert!(matches!(
            Receipt::from_bytes(cut),
            Err(WireError::Invalid {
                field: "context",
                ..
            })
        ));
        let longer = [&receipt.to_bytes()[..], &[0]].concat();
        assert_eq!(Receipt::from_bytes(&longer), Err(WireError::Trailing));

        let wrong = receipt.verify(&[9; 32], keys.public());
        assert_eq!(wrong, Err(ReceiptError::WrongNetwork));
        let other = NodeKeys::generate();
        let wrong = receipt.verify(&[1; 32], other.public());
        assert_eq!(wrong, Err(ReceiptError::WrongReceiver));
        for (frames, last) in [(21, 30), (0, 30), (1, 9)] {
            let counts = Statement {
                frames,
                last,
                ..statement(&keys)
            };
            let wrong = counts.sign(&keys).verify(&[1; 32], keys.public());
            assert_eq!(wrong, Err(ReceiptError::Counts));
        }
        let mut forged = receipt;
        forged.statement.bytes += 1;
        let wrong = forged.verify(&[1; 32], keys.public());
        assert_eq!(wrong, Err(ReceiptError::BadSignature));
    }
}
