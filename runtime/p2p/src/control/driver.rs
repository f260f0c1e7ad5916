//! The task that owns the swarm.
//!
//! Started by [`Libp2pControl::start`](super::Libp2pControl::start); ends when every handle is gone. Events queue up to [`EVENTS`]; while the queue
//! is full the swarm is not polled, so its peers wait, but commands are still answered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError};
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionId, DialError, ListenError, NetworkBehaviour, Swarm, SwarmEvent, dial_opts,
};
use libp2p::{PeerId, TransportError};
use pqcnet_actor::Env;
use tokio::sync::mpsc;

use super::handle::{Answer, Command, ControlConfig, Dialled, GossipConfig};
use super::peers::Peers;
use super::substreams::{self, OpenError};
use super::upgrade::{self, UpgradeError, node_id_of, peer_id_of};
use super::{ControlError, ControlEvent, DialFailure, Gossip, GossipRef, Substream, Verdict};

/// Events that wait for the role: a burst of peers and substreams fits.
const EVENTS: usize = 256;
/// Dials under way at once; a node has fewer peers to dial.
const DIALLING: usize = 256;
/// Connections are kept until somebody closes them; libp2p wants a number.
const IDLE: Duration = Duration::from_secs(1 << 30);

#[derive(NetworkBehaviour)]
struct Behaviour {
    substreams: substreams::Behaviour,
    gossip: Toggle<gossipsub::Behaviour>,
}

/// Content-addressed and unsigned: our own signature is inside the data, and nothing is forwarded before the role
/// has checked it.
fn gossip(config: GossipConfig) -> Result<gossipsub::Behaviour, String> {
    let behaviour = gossipsub::ConfigBuilder::default()
        .heartbeat_interval(config.heartbeat)
        .max_transmit_size(config.max_message)
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::from(message_id(message).to_vec()))
        .build()
        .map_err(|error| error.to_string())?;
    gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, behaviour)
        .map_err(str::to_owned)
}

fn message_id(message: &gossipsub::Message) -> [u8; 32] {
    pqcnet_crypto::sha256(&[
        b"pqcnet/gossip/1",
        message.topic.as_str().as_bytes(),
        b"\0",
        &message.data,
    ])
}

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    peers: Peers,
    queue: VecDeque<ControlEvent>,
    listening: Vec<(ListenerId, Answer<Result<Multiaddr, String>>)>,
    dialling: BTreeMap<ConnectionId, Answer<Dialled>>,
}

impl Driver {
    /// A swarm that neither listens nor dials yet.
    pub(super) fn new(env: &Env, config: ControlConfig) -> Result<Driver, ControlError> {
        let peers = Peers::new(config.max_peers, config.security.members());
        let transport = upgrade::transport(config.security.clone(), peers.clone());
        let behaviour = Behaviour {
            substreams: substreams::Behaviour::default(),
            gossip: config
                .gossip
                .map(gossip)
                .transpose()
                .map_err(ControlError::Setup)?
                .into(),
        };
        let spawner = env.clone();
        let swarm_config = libp2p::swarm::Config::with_executor(move |task| spawner.spawn(task))
            .with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy)
            .with_idle_connection_timeout(IDLE);
        let local = peer_id_of(&config.security.node_id());
        let swarm = Swarm::new(transport, behaviour, local, swarm_config);
        Ok(Driver {
            swarm,
            peers,
            queue: VecDeque::new(),
            listening: Vec::new(),
            dialling: BTreeMap::new(),
        })
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        outbox: mpsc::Sender<ControlEvent>,
    ) {
        loop {
            let full = self.queue.len() >= EVENTS;
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                room = outbox.reserve(), if !self.queue.is_empty() => match room {
                    Ok(room) => {
                        if let Some(event) = self.queue.pop_front() {
                            room.send(event);
                        }
                    }
                    // The reader is gone; the plane goes on for its callers.
                    Err(_) => self.queue.clear(),
                },
                event = self.swarm.select_next_some(), if !full => self.on_event(event),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Listen { at, answer } => match self.swarm.listen_on(at) {
                Ok(listener) => self.listening.push((listener, answer)),
                Err(error) => reply(answer, Err(error.to_string())),
            },
            Command::Dial { peer, at, answer } => self.dial(peer, at, answer),
            Command::Open { peer, answer } => {
                if self.swarm.is_connected(&peer) {
                    self.swarm.behaviour_mut().substreams.open(peer, answer);
                } else {
                    reply(answer, Err(OpenError::NotConnected));
                }
            }
            Command::Disconnect { peer } => {
                if self.swarm.disconnect_peer_id(peer).is_err() {
                    tracing::trace!("the peer was not connected");
                }
            }
            Command::Subscribe { topic, answer } => {
                let done = match self.swarm.behaviour_mut().gossip.as_mut() {
                    Some(gossip) => gossip
                        .subscribe(&IdentTopic::new(topic))
                        .map(|_| ())
                        .map_err(|error| ControlError::Publish(error.to_string())),
                    None => Err(ControlError::NoGossip),
                };
                reply(answer, done);
            }
            Command::Publish {
                topic,
                message,
                answer,
            } => {
                let done = match self.swarm.behaviour_mut().gossip.as_mut() {
                    Some(gossip) => gossip
                        .publish(IdentTopic::new(topic), message)
                        .map(|_| ())
                        .map_err(publish_error),
                    None => Err(ControlError::NoGossip),
                };
                reply(answer, done);
            }
            Command::Judge { message, verdict } => {
                let acceptance = match verdict {
                    Verdict::Accept => MessageAcceptance::Accept,
                    Verdict::Ignore => MessageAcceptance::Ignore,
                    Verdict::Reject => MessageAcceptance::Reject,
                };
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                    gossip.report_message_validation_result(
                        &MessageId::from(message.id.to_vec()),
                        &peer_id_of(&message.from),
                        acceptance,
                    );
                }
            }
        }
    }

    fn dial(&mut self, peer: PeerId, at: Vec<Multiaddr>, answer: Answer<Dialled>) {
        if at.is_empty() {
            return reply(answer, Err(Vec::new()));
        }
        if self.dialling.len() >= DIALLING {
            return reply(answer, Err(not_tried("too many dials are under way")));
        }
        // Without a condition on dials under way: each caller gets an outcome of its own.
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Disconnected)
            .addresses(at)
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dialling.insert(connection, answer);
            }
            Err(DialError::DialPeerConditionFalse(dial_opts::PeerCondition::Disconnected)) => {
                reply(answer, Ok(()));
            }
            Err(error) => reply(answer, Err(dial_failures(error))),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Substreams(inbound)) => self.on_inbound(inbound),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                if let Some(answer) = self.dialling.remove(&connection_id) {
                    reply(answer, Ok(()));
                }
                if num_established.get() == 1
                    && let Some(peer) = self.public(&peer_id)
                {
                    self.queue.push_back(ControlEvent::PeerUp { peer });
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                cause,
                ..
            } => {
                if let Some(peer) = node_id_of(&peer_id) {
                    let reason = cause.map(|cause| cause.to_string());
                    self.queue
                        .push_back(ControlEvent::PeerDown { peer, reason });
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(answer) = self.dialling.remove(&connection_id) {
                    reply(answer, Err(dial_failures(error)));
                }
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                let from = upgrade::socket_addr(&send_back_addr);
                let error = match error {
                    ListenError::Transport(TransportError::Other(error)) => {
                        UpgradeError::from_io(error)
                    }
                    other => UpgradeError::Swarm(other.to_string()),
                };
                self.queue
                    .push_back(ControlEvent::InboundFailed { from, error });
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                self.listened(listener_id, Ok(address));
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                let reason = reason.map_or_else(|error| error.to_string(), |()| "closed".into());
                self.listened(listener_id, Err(reason));
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "control plane's listener");
            }
            // Progress of dials and address book changes, which nobody here asks for. The enum is the library's.
            _ => {}
        }
    }

    fn on_inbound(&mut self, inbound: substreams::Inbound) {
        match self.public(&inbound.peer) {
            Some(peer) => {
                let stream = Box::new(inbound.stream);
                self.queue
                    .push_back(ControlEvent::Substream(Substream { peer, stream }));
            }
            None => tracing::debug!("a substream of a connection that just closed"),
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        if let gossipsub::Event::Message {
            propagation_source,
            message,
            ..
        } = event
            && let Some(from) = node_id_of(&propagation_source)
        {
            let reference = GossipRef {
                id: message_id(&message),
                from,
            };
            let topic = message.topic.into_string();
            let data = Bytes::from(message.data);
            self.queue.push_back(ControlEvent::Gossip(Gossip {
                topic,
                data,
                reference,
            }));
        }
    }

    fn listened(&mut self, listener: ListenerId, outcome: Result<Multiaddr, String>) {
        // A listener at 0.0.0.0 reports an address for each interface; the first one answers.
        if let Some(at) = self.listening.iter().position(|(id, _)| *id == listener) {
            let (_, answer) = self.listening.swap_remove(at);
            reply(answer, outcome);
        }
    }

    fn public(&self, peer: &PeerId) -> Option<pqcnet_crypto::NodePublic> {
        node_id_of(peer).and_then(|id| self.peers.public(&id))
    }
}

/// A caller that went away does not need its answer.
fn reply<T>(answer: Answer<T>, value: T) {
    if answer.send(value).is_err() {
        tracing::trace!("the caller is gone");
    }
}

fn publish_error(error: PublishError) -> ControlError {
    match error {
        PublishError::Duplicate => ControlError::Duplicate,
        PublishError::NoPeersSubscribedToTopic => ControlError::NoPeers,
        other => ControlError::Publish(other.to_string()),
    }
}

fn dial_failures(error: DialError) -> Vec<(String, DialFailure)> {
    match error {
        DialError::Transport(tried) => tried
            .into_iter()
            .map(|(address, error)| {
                let failure = match error {
                    TransportError::Other(error) => {
                        DialFailure::Upgrade(UpgradeError::from_io(error))
                    }
                    TransportError::MultiaddrNotSupported(address) => {
                        DialFailure::NotTried(format!("{address} is not supported"))
                    }
                };
                (upgrade::plain(&address), failure)
            })
            .collect(),
        other => not_tried(&other.to_string()),
    }
}

fn not_tried(reason: &str) -> Vec<(String, DialFailure)> {
    let failure = DialFailure::NotTried(reason.to_owned());
    vec![("any address".to_owned(), failure)]
}
