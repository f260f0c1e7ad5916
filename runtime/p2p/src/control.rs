//! The control plane: small messages, gossip and lookup over multiplexed connections.
//!
//! Roles see [`ControlPlane`]; [`Libp2pControl`] carries it over libp2p with QSTP as the security upgrade. gossipsub
//! keeps its own timers and cannot run in virtual time, so the simulator brings its own plane behind the same trait.
//!
//! ```text
//!   role ──listen, dial, open, publish──▶ handle ──Command──▶ driver task ──▶ swarm
//!   role ◀──PeerUp, Substream, Gossip… ── events (bounded) ◀──┘
//! ```

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_crypto::{NodeId, NodePublic};

use crate::handshake::HandshakeFailed;
use crate::network::Address;
use crate::streams::BoxStream;

mod driver;
mod handle;
mod peers;
pub mod substreams;
#[cfg(test)]
mod tests;
mod upgrade;

pub use handle::{ControlConfig, ControlEvents, GossipConfig, Libp2pControl};
pub use upgrade::{PROTOCOL, UpgradeError, peer_id_of};

/// What a role asks of the control plane.
pub trait ControlPlane: Send + Sync + 'static {
    /// Listens at an address and says where; port 0 lets the system choose.
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Result<Address, ControlError>>;
    /// Connects to a node by the first of the addresses that answers. A connection that stands is success.
    fn dial<'a>(
        &'a self,
        peer: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Opens a substream for a link to a connected node.
    fn open(&self, peer: NodeId) -> BoxFuture<'_, Result<BoxStream, ControlError>>;
    /// Closes every connection to a node.
    fn disconnect(&self, peer: NodeId) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Takes part in a topic.
    fn subscribe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Sends to everybody in a topic. What is sent carries its own signature: the plane adds none.
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Bytes,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Says what was found about a message; it is forwarded only once accepted.
    fn judge(
        &self,
        message: GossipRef,
        verdict: Verdict,
    ) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// What happens on the control plane without being asked for.
#[derive(Debug)]
pub enum ControlEvent {
    /// The first connection to a node stands.
    PeerUp {
        /// Who.
        peer: NodePublic,
    },
    /// The last connection to a node is gone.
    PeerDown {
        /// Who.
        peer: NodeId,
        /// Why, when it was an error.
        reason: Option<String>,
    },
    /// A node opened a substream for a link.
    Substream(Substream),
    /// A stranger's connection failed before it was anybody's.
    InboundFailed {
        /// From where.
        from: Option<SocketAddr>,
        /// Stage and reason.
        error: UpgradeError,
    },
    /// A message of a topic, not yet forwarded: check its signature, then [`ControlPlane::judge`].
    Gossip(Gossip),
}

/// An incoming substream.
pub struct Substream {
    /// Whose keys the connection's handshake proved.
    pub peer: NodePublic,
    /// Its bytes.
    pub stream: BoxStream,
}

impl fmt::Debug for Substream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substream")
            .field("peer", &self.peer.node_id())
            .finish_non_exhaustive()
    }
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Which topic.
    pub topic: String,
    /// Its bytes, signature included.
    pub data: Bytes,
    /// What [`ControlPlane::judge`] needs.
    pub reference: GossipRef,
}

/// Names a message for [`ControlPlane::judge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipRef {
    /// SHA-256 of topic and data.
    pub id: [u8; 32],
    /// Who forwarded it to us.
    pub from: NodeId,
}

/// What the reader found about a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Signed by whoever may; forward it.
    Accept,
    /// Not for us to say; do not forward it.
    Ignore,
    /// Wrong; do not forward it and hold it against its forwarder.
    Reject,
}

/// Why a control-plane call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// gossipsub does not take the configuration.
    #[error("gossip cannot run like this: {0}")]
    Setup(String),
    /// The driver has stopped.
    #[error("the control plane has stopped")]
    Stopped,
    /// The address could not be listened at.
    #[error("cannot listen at {at}: {reason}")]
    Listen {
        /// Where.
        at: Address,
        /// Why.
        reason: String,
    },
    /// None of the node's addresses answered as that node.
    #[error("cannot dial {}: {}", .peer.short(), DialList(.failures))]
    Dial {
        /// Whom.
        peer: NodeId,
        /// Each address tried and its failure.
        failures: Vec<(String, DialFailure)>,
    },
    /// No substream.
    #[error(transparent)]
    Open(#[from] substreams::OpenError),
    /// Gossip is not enabled on this node.
    #[error("gossip is not enabled on this node")]
    NoGossip,
    /// No peer of the topic is connected.
    #[error("no connected peer takes part in the topic")]
    NoPeers,
    /// The message was published before.
    #[error("the message was published before")]
    Duplicate,
    /// The message is over the topic's limit, or every peer's queue is full.
    #[error("the message was not sent: {0}")]
    Publish(String),
}

/// Why one address did not lead to the node.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    /// The name has no address.
    #[error("cannot resolve: {0}")]
    Resolve(std::io::Error),
    /// No connection, or not the node that was meant; with stage and reason.
    #[error(transparent)]
    Upgrade(UpgradeError),
    /// The swarm did not try.
    #[error("not tried: {0}")]
    NotTried(String),
}

impl DialFailure {
    /// The handshake's failure, if that is what it was.
    pub fn handshake(&self) -> Option<&HandshakeFailed> {
        match self {
            DialFailure::Upgrade(UpgradeError::Handshake(failed)) => Some(failed),
            DialFailure::Upgrade(_) | DialFailure::Resolve(_) | DialFailure::NotTried(_) => None,
        }
    }
}

struct DialList<'a>(&'a [(String, DialFailure)]);

impl fmt::Display for DialList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no address");
        }
        for (at, (address, failure)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{address}: {failure}")?;
        }
        Ok(())
    }
}
