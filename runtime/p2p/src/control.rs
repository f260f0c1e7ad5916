//! The control plane: small messages, gossip and lookup over multiplexed connections.
//!
//! Roles see [`ControlPlane`]; [`Libp2pControl`] carries it over libp2p with QSTP as the security upgrade. gossipsub
//! keeps its own timers and cannot run in virtual time, so the simulator brings its own plane behind the same trait.
//!
//! ```text
//!   role ──listen, dial, open, publish──▶ handle ──Command──▶ driver task ──▶ swarm
//!   role ◀──PeerUp, Substream, …─────────── events (bounded) ◀──┤
//!   role ◀──Validator::judge(message) ──── a task a message ◀───┘ verdict, then it is forwarded or not
//! ```
//!
//! Spec: docs/spec/control-plane.md. What one peer may cost is in [`gossip`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_crypto::{NodeId, NodePublic};

use crate::handshake::HandshakeFailed;
use crate::network::Address;
use crate::streams::BoxStream;

mod carrier;
mod chosen;
mod driver;
mod fused;
pub mod gossip;
mod handle;
pub mod judging;
mod lan;
pub mod lookup;
mod muxer;
mod peers;
mod probing;
pub mod reach;
mod seen;
pub mod substreams;
#[cfg(test)]
mod tests;
mod upgrade;
mod ways;
mod ws;

pub use gossip::{GossipConfig, TOPICS};
pub use handle::{ControlConfig, ControlEvents, GossipsWith, Libp2pControl};
pub use judging::{Gossip, PeerCounters, Validator, Verdict};
pub use lookup::{LookupConfig, RecordCheck};
pub use peers::{Entry, Peers};
pub use upgrade::{PROTOCOL, UpgradeError, peer_id_of};

/// What a role asks of the control plane.
pub trait ControlPlane: Send + Sync + 'static {
    /// Listens at an address and says where; port 0 lets the system choose.
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Result<Address, ControlError>>;
    /// Connects to a node by the first of the addresses that answers. A connection that stands is success, unless it goes
    /// through a relay: a direct one then takes its place.
    fn dial<'a>(
        &'a self,
        peer: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Opens a substream for a link to a connected node.
    fn open(&self, peer: NodeId) -> BoxFuture<'_, Result<BoxStream, ControlError>>;
    /// Closes every connection to a node.
    fn disconnect(&self, peer: NodeId) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Takes part in one of the network's topics ([`GossipConfig::topics`]). Every message of it that this node has not
    /// seen goes to the validator before it is forwarded; the validator is also how the role comes by it. Subscribing
    /// again replaces the validator.
    fn subscribe<'a>(
        &'a self,
        topic: &'a str,
        validator: Arc<dyn Validator>,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Sends to everybody in a topic. What is sent carries its own signature: the plane adds none, and does not show it to
    /// this node's own validator.
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Bytes,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// What each connected node has done, in the order of their NodeIds.
    fn counters(&self) -> BoxFuture<'_, Result<Vec<PeerCounters>, ControlError>>;
    /// Has a relay take connections for this node, as long as the connection to the relay stands; success once the relay has
    /// agreed. The relay is dialled if it must be.
    fn reserve<'a>(
        &'a self,
        relay: NodeId,
        at: &'a Address,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Connects to a node through a relay that takes connections for it. Where both punch holes and their NATs let themselves
    /// be opened, a direct connection takes its place ([`ControlEvent::Direct`]).
    fn dial_through<'a>(
        &'a self,
        peer: NodeId,
        relay: NodeId,
        at: &'a Address,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Tells lookups where a node listens; replaces what they were told before, and without addresses forgets it. Lookups
    /// know of no other nodes.
    fn learn<'a>(
        &'a self,
        node: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Holds others' records that this accepts, and judges those that lookups find by it. Until then none is held or found.
    fn keep_records(&self, check: Arc<dyn RecordCheck>) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Puts this node's own record at the nodes that are nearest to it; at one of them is success.
    fn announce(&self, record: Bytes) -> BoxFuture<'_, Result<(), ControlError>>;
    /// A node's newest record that was found and passed the check; `None` when there was none within
    /// [`lookup::TIMEOUT`].
    fn lookup(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Bytes>, ControlError>>;
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
    /// A node has connected through a relay that takes connections for this one.
    Circuit {
        /// Who.
        peer: NodeId,
    },
    /// With a node that was connected through a relay there is a direct connection; the circuits close, with what ran on
    /// them.
    Direct {
        /// Who.
        peer: NodeId,
    },
    /// A relay has tried whether this node can be reached there ([`ControlConfig::probes`]).
    Probed {
        /// The address.
        at: Address,
        /// The relay.
        by: NodeId,
        /// Whether it got through.
        reached: bool,
    },
    /// Somebody on the LAN says that a node listens there. Only dialling tells whether it does.
    Found {
        /// Who.
        peer: NodeId,
        /// Where.
        at: Address,
    },
    /// A node did what no honest one does; its connections are being closed. Held against it by whoever keeps scores.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// What.
        offence: Offence,
    },
}

/// What no honest node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Offence {
    /// More gossip RPCs than its budget, for longer than a burst.
    #[error("it sent more gossip than its budget for {} s", gossip::PATIENCE.as_secs())]
    Flood,
    /// GRAFT after GRAFT: each may cost an answer that waits for the peer to read it.
    #[error("it sent more GRAFTs than a mesh needs")]
    Grafts,
    /// Messages that our validators called wrong.
    #[error("it forwarded messages that are not validly signed")]
    Rejected,
    /// A control message of a protocol version that was not negotiated.
    #[error("it sent a control message that the negotiated protocol has not")]
    Protocol,
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

/// Why a control-plane call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// gossipsub does not take the configuration.
    #[error("gossip cannot run like this: {0}")]
    Setup(String),
    /// The machine's network does not let us listen on the LAN.
    #[error("mDNS does not start: {0}")]
    Lan(String),
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
    /// Lookups are not enabled on this node, or nobody checks records yet.
    #[error("lookups are not enabled on this node")]
    NoLookup,
    /// As many lookups are under way as may be.
    #[error("too many lookups are under way")]
    LookupsBusy,
    /// No node took the record: none is known ([`ControlPlane::learn`]), or none answered.
    #[error("no node has taken the record: {0}")]
    NotStored(String),
    /// The topic is none of the network's.
    #[error("`{0}` is no topic of this network; GossipConfig::topics lists them")]
    NoTopic(String),
    /// No peer of the topic is connected.
    #[error("no connected peer takes part in the topic")]
    NoPeers,
    /// The message was published before.
    #[error("the message was published before")]
    Duplicate,
    /// The message is over [`GossipConfig::max_message`].
    #[error("a message of {size} bytes; {max} are allowed")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// Every peer's queue is full, or gossipsub's own reason.
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
