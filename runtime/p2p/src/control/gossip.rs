//! gossipsub on a leash: content-addressed messages, our own verdict before forwarding, and a bound on what one peer costs.
//!
//! gossipsub bounds little by itself (version 0.50, read in its source). What holds here, for one peer:
//!
//! | what it can make grow | gossipsub's own bound | here |
//! |---|---|---|
//! | topics it subscribes to | none | the network's topics only ([`GossipConfig::topics`], at most [`MAX_TOPICS`]) |
//! | one RPC decoded | 5,000 messages, 16 KiB of control messages | [`MESSAGES`] messages, [`CONTROL_BYTES`] |
//! | ids of messages seen | a minute of them | [`SEEN`], at the rate of its [budget](budget) |
//! | messages that wait for a verdict | 5 heartbeats of them | [`judging::PENDING`](super::judging::PENDING) and `PENDING_BYTES` |
//! | PRUNEs that answer its GRAFTs, unread | 20,000 | its budget of GRAFTs; over it, closed |
//! | messages for it, unread | 5,000 | [`QUEUE`] |
//! | ids it does not want (IDONTWANT) | 10,000 | closed: the negotiated version has no such message |
//! | IWANTs we send after its IHAVEs | 5,000 a heartbeat | [`IDS`] a heartbeat |
//! | IWANTs it leaves unanswered | forever, without scores | [the followup time](even_scores) of them |
//!
//! So it is tied by a wrapper around its behaviour and its connection handler, and takes part only with nodes that may
//! ([`super::ControlConfig::gossips_with`]): with others there is no gossip substream at all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, MessageAuthenticity, MessageId,
    PeerScoreParams, PeerScoreThresholds, ValidationMode, Version, WhitelistSubscriptionFilter,
};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use pqcnet_actor::Env;

use super::Offence;

pub mod budget;
mod handler;
mod parameters;
mod published;

pub use budget::PATIENCE;
use budget::{Budget, Sent};
use handler::{Heard, Metered};
pub use parameters::Parameters;
pub(super) use published::Published;

/// The name of the gossip protocol. It is gossipsub 1.1; a name of its own keeps other libp2p networks out.
pub const PROTOCOL: &str = "/pqcnet/gossip/1";
/// The topics of every network.
pub const TOPICS: [&str; 2] = ["adverts", "directives"];
/// Topics a network may have.
pub const MAX_TOPICS: usize = 16;
/// Messages in one RPC; ours have one.
pub const MESSAGES: usize = 4;
/// Bytes of subscriptions and control messages in one RPC. Two-byte elements decode to a hundred times that.
pub const CONTROL_BYTES: usize = 2048;
/// Message ids in one IHAVE or IWANT of ours, and IWANTs a heartbeat for one peer's IHAVEs. Whoever answers an IWANT puts all of
/// it into its [`QUEUE`] at once and drops what does not fit: half of that leaves room for what is forwarded meanwhile.
pub const IDS: usize = QUEUE / 2;
/// Messages that wait for one peer to read.
pub const QUEUE: usize = 16;
/// How long the id of a message is remembered. Older ones come to the validator again, which knows them by version.
pub const SEEN: Duration = Duration::from_secs(30);
/// gossipsub measures what its decoder has buffered, not the message: a chunk of the next one, and the envelope.
const SLACK: usize = 10 * 1024;

type Inner = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;
type InnerHandler = THandler<Inner>;
type InnerOut = THandlerOutEvent<Inner>;

/// How this node gossips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipConfig {
    /// The topics of the network. A subscription to another one is not remembered.
    pub topics: Vec<String>,
    /// Largest message, in bytes.
    pub max_message: usize,
    /// Between heartbeats.
    pub heartbeat: Duration,
}

impl Default for GossipConfig {
    /// An advert or directive with two keys and its ML-DSA signature is below 16 KiB; gossipsub's own heartbeat.
    fn default() -> Self {
        GossipConfig {
            topics: TOPICS.map(str::to_owned).to_vec(),
            max_message: 16 * 1024,
            heartbeat: Duration::from_secs(1),
        }
    }
}

/// SHA-256 over topic and data. Who forwards a message, and when, does not change its name.
pub fn message_id(topic: &str, data: &[u8]) -> [u8; 32] {
    pqcnet_crypto::sha256(&[b"pqcnet/gossip/1", topic.as_bytes(), b"\0", data])
}

fn settings(config: &GossipConfig) -> Result<gossipsub::Config, String> {
    if config.topics.len() > MAX_TOPICS {
        return Err(format!("more than {MAX_TOPICS} topics"));
    }
    let transmit = config.max_message + SLACK;
    ConfigBuilder::default()
        .protocol_id(PROTOCOL, Version::V1_1)
        .heartbeat_initial_delay(config.heartbeat)
        .heartbeat_interval(config.heartbeat)
        .max_transmit_size(transmit)
        .max_publish_messages(MESSAGES)
        .max_control_message_size(CONTROL_BYTES)
        .max_control_messages_sent(IDS)
        .connection_handler_queue_len(QUEUE)
        .duplicate_cache_time(SEEN)
        .idontwant_message_size_threshold(transmit)
        // Our own signature is inside the data, and nothing is forwarded before a validator has checked it.
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| {
            MessageId::from(message_id(message.topic.as_str(), &message.data).to_vec())
        })
        .build()
        .map_err(|error| error.to_string())
}

fn inner(config: &GossipConfig) -> Result<Inner, String> {
    let built = settings(config)?;
    let topics = config.topics.iter();
    let topics = topics.map(|topic| IdentTopic::new(topic).hash()).collect();
    let mut inner = Inner::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        built,
        WhitelistSubscriptionFilter(topics),
    )
    .map_err(str::to_owned)?;
    let (scores, thresholds) = even_scores();
    inner.with_peer_score(scores, thresholds)?;
    Ok(inner)
}

/// Scores that are the same for everybody: whom to trust is the mesh's to say. Without any, gossipsub never forgets what it
/// has asked a peer for in vain, and never asks another for it.
fn even_scores() -> (PeerScoreParams, PeerScoreThresholds) {
    let scores = PeerScoreParams {
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        retain_score: Duration::ZERO,
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        opportunistic_graft_threshold: 0.0,
        ..PeerScoreThresholds::default()
    };
    (scores, thresholds)
}

/// What the behaviour tells the driver.
#[derive(Debug)]
pub enum Event {
    /// gossipsub's own.
    Inner(gossipsub::Event),
    /// A peer whose connections are being closed.
    Offence {
        /// Who.
        peer: PeerId,
        /// Why.
        offence: Offence,
    },
}

/// gossipsub, its peers metered.
pub struct Behaviour {
    inner: Inner,
    env: Env,
    /// A connected peer's budget, and how many connections share it.
    budgets: BTreeMap<PeerId, (Arc<Mutex<Budget>>, usize)>,
    connections: u64,
    closing: VecDeque<(PeerId, CloseConnection)>,
    offences: VecDeque<(PeerId, Offence)>,
}

impl Behaviour {
    /// Takes part in no topic yet; an error says what gossipsub does not take of the configuration.
    pub fn new(env: Env, config: &GossipConfig) -> Result<Behaviour, String> {
        Ok(Behaviour {
            inner: inner(config)?,
            env,
            budgets: BTreeMap::new(),
            connections: 0,
            closing: VecDeque::new(),
            offences: VecDeque::new(),
        })
    }

    /// What is metered.
    pub fn gossipsub(&mut self) -> &mut Inner {
        &mut self.inner
    }

    /// What a connected peer has sent.
    pub fn sent(&self, peer: &PeerId) -> Sent {
        (self.budgets.get(peer)).map_or_else(Sent::default, |(budget, _)| budget.lock().sent())
    }

    /// Closes a peer's connections and says why.
    pub(super) fn offend(&mut self, peer: PeerId, offence: Offence) {
        // One report a peer: several connections may find the same.
        if self.closing.iter().all(|(closing, _)| *closing != peer) {
            self.offences.push_back((peer, offence));
        }
        self.closing.push_back((peer, CloseConnection::All));
    }

    fn metered(&mut self, peer: PeerId, handler: InnerHandler) -> Metered {
        let now = self.env.now();
        let fresh = || (Arc::new(Mutex::new(Budget::new(now))), 0);
        let (budget, connections) = self.budgets.entry(peer).or_insert_with(fresh);
        *connections += 1;
        self.connections += 1;
        Metered::new(self.env.clone(), self.connections, handler, budget.clone())
    }

    fn ended(&mut self, peer: &PeerId) {
        if let Some((_, connections)) = self.budgets.get_mut(peer) {
            *connections = connections.saturating_sub(1);
            if *connections == 0 {
                self.budgets.remove(peer);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Metered;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler =
            (self.inner).handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(self.metered(peer, handler))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        at: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = (self.inner)
            .handle_established_outbound_connection(connection, peer, at, role, port)?;
        Ok(self.metered(peer, handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.ended(&closed.peer_id);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Heard::Gossip(event) => {
                (self.inner).on_connection_handler_event(peer, connection, event);
            }
            Heard::Surplus => {
                self.closing
                    .push_back((peer, CloseConnection::One(connection)));
            }
            Heard::Offence(offence) => self.offend(peer, offence),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer, offence)) = self.offences.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Event::Offence { peer, offence }));
        }
        if let Some((peer_id, connection)) = self.closing.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection,
            });
        }
        (self.inner.poll(cx)).map(|action| action.map_out(Event::Inner))
    }
}
