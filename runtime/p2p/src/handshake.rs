//! Drives the pure handshake of `pqcnet_qstp` over any byte stream.
//!
//! ```text
//!   initiate:  M1 ──▶   ◀── Retry (puzzle solved in the pool)   M1 ──▶   ◀── M2   M3 ──▶ done
//!   respond:   ◀── M1   guard: Accept | Challenge   M2 ──▶   ◀── M3 done
//! ```
//!
//! Reads are exact and bounded: nothing after the last message is taken from the stream. Every step that computes runs
//! in the node's pool; the responder's steps share a lane with few places, so that strangers cannot fill the pool, and
//! are charged to the guard's CPU budget. When one side gives up it says so with a Reject, and both sides name the same
//! stage and reason.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::OffloadError;
use pqcnet_crypto::{NodeId, NodeKeys, NodePublic};
use pqcnet_qstp::{HandshakeError, Stage, Suite};

use crate::guard::{GuardConfig, Refused};
use crate::network::NetworkId;
use crate::stream::QstpStream;

mod security;
mod wire;

pub use security::{HalfOpen, Security};

/// What both planes of a node run handshakes with.
#[derive(Clone)]
pub struct SecurityConfig {
    /// Who this node is.
    pub keys: Arc<NodeKeys>,
    /// Which network it belongs to.
    pub network_id: NetworkId,
    /// Suites, best first.
    pub suites: Vec<Suite>,
    /// From the first byte to the end of the handshake, negotiation and puzzles included.
    pub deadline: Duration,
    /// Limits against floods.
    pub guard: GuardConfig,
    /// Responder steps that compute at once.
    pub lane: usize,
    /// Idle buffers kept for streams.
    pub idle_buffers: usize,
    /// The network's own nodes, where they are known: on the control plane, where connections stay, everybody else shares
    /// a few places. `None`: no difference.
    pub members: Option<Arc<BTreeSet<NodeId>>>,
}

impl SecurityConfig {
    /// Suite 1 before suite 2, ten seconds, the guard's own limits, one lane of the machine's cores in two.
    pub fn new(keys: Arc<NodeKeys>, network_id: NetworkId) -> SecurityConfig {
        SecurityConfig {
            keys,
            network_id,
            suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
            deadline: Duration::from_secs(10),
            guard: GuardConfig::default(),
            lane: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            idle_buffers: 32,
            members: None,
        }
    }
}

/// On which plane a connection is. Its name is in the transcript, so a peer cannot be led from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// libp2p.
    Control,
    /// Direct streams.
    Data,
}

impl Plane {
    fn prologue(self) -> &'static [u8] {
        match self {
            Plane::Control => b"/pqcnet/qstp/1",
            Plane::Data => b"/pqcnet/data/1",
        }
    }
}

/// Why a connection has no peer.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailed {
    /// The handshake itself; stage and reason are the same on both sides.
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    /// The stream failed or ended.
    #[error("at {stage:?}: {source}")]
    Io {
        /// What was being sent or awaited.
        stage: Stage,
        /// Why.
        source: io::Error,
    },
    /// The peer was too slow.
    #[error("no handshake within {0:?}")]
    Deadline(Duration),
    /// The guard did not let it begin.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// This node's pool is full or gone.
    #[error("this node cannot compute the handshake: {0}")]
    Pool(OffloadError),
}

impl HandshakeFailed {
    /// Stage and reason, when the protocol has them.
    pub fn protocol(&self) -> Option<&HandshakeError> {
        match self {
            HandshakeFailed::Protocol(error) => Some(error),
            HandshakeFailed::Io { .. }
            | HandshakeFailed::Deadline(_)
            | HandshakeFailed::Refused(_)
            | HandshakeFailed::Pool(_) => None,
        }
    }
}

/// What a handshake cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Agreed on.
    pub suite: Suite,
    /// Bytes sent, headers included.
    pub sent: usize,
    /// Bytes received.
    pub received: usize,
    /// From the first message to the last, by this side's clock.
    pub took: Duration,
    /// Where the initiator's time went; all zero on the responder's side.
    pub steps: Steps,
}

/// Where an initiator's time went. They add up to the whole handshake but for the sending itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Until a Retry came and its puzzle was solved; zero when none was asked for.
    pub retry: Duration,
    /// From the first message that was taken to the answer with the encapsulated key.
    pub kem: Duration,
    /// Opening that answer, verifying the peer's signatures, and signing.
    pub signature: Duration,
}

/// A stream whose peer is proven.
pub struct Secured<S> {
    /// The peer's keys.
    pub peer: NodePublic,
    /// The transcript's hash: the same on both sides, and on no other connection.
    pub binding: [u8; 32],
    /// What it cost.
    pub account: Account,
    /// Its bytes.
    pub stream: QstpStream<S>,
}

#[cfg(test)]
mod tests;
