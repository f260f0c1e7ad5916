//! The task that owns the swarm.
//!
//! Started by [`Libp2pControl::start`](super::Libp2pControl::start); ends when every handle is gone. Events queue up to [`EVENTS`]; while the queue
//! is full the swarm is not polled, so its peers wait, but commands are still answered.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, SubscriptionError};
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionId, DialError, ListenError, NetworkBehaviour, Swarm, SwarmEvent, dial_opts,
};
use libp2p::{PeerId, TransportError, dcutr, relay};
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use tokio::sync::mpsc;

use super::chosen::Chosen;
use super::fused::Fused;
use super::handle::{Answer, Command, ControlConfig, Dialled};
use super::judging::{self, Court, Gossip, PeerCounters, Validator, Verdict};
use super::peers::Peers;
use super::substreams::{self, OpenError};
use super::upgrade::{self, UpgradeError, node_id_of, peer_id_of};
use super::ways::Ways;
use super::{ControlError, ControlEvent, Substream, gossip, lan, lookup, probing, reach, seen};

use crate::network::Address;

mod answers;
mod lookups;
mod reaching;

use answers::{dial_failures, not_tried, publish_error, reply};

/// Events that wait for the role: a burst of peers and substreams fits.
const EVENTS: usize = 256;
/// Events of one connection that wait for the driver; each may be a decoded gossip RPC.
const EVENTS_EACH: usize = 2;
/// Verdicts that wait for the driver; their tasks wait with them.
const VERDICTS: usize = 64;
/// Dials under way at once; a node has fewer peers to dial.
const DIALLING: usize = 256;
/// Connections are kept until somebody closes them; libp2p wants a number.
const IDLE: Duration = Duration::from_secs(1 << 30);

#[derive(NetworkBehaviour)]
struct Behaviour {
    substreams: substreams::Behaviour,
    gossip: Toggle<Chosen<gossip::Behaviour>>,
    lookup: Toggle<Chosen<lookup::Behaviour>>,
    lan: Toggle<lan::Behaviour>,
    relay: Toggle<Chosen<relay::Behaviour>>,
    circuits: Chosen<relay::client::Behaviour>,
    holes: Toggle<Chosen<dcutr::Behaviour>>,
    seen: Toggle<Chosen<seen::Behaviour>>,
    probes: Toggle<Chosen<reach::Client>>,
    probing: Toggle<Chosen<probing::Behaviour>>,
}

/// A verdict on its way back from its task.
enum Judged {
    Gossip {
        id: [u8; 32],
        from: NodeId,
        size: usize,
        verdict: Verdict,
    },
    Record(lookups::Checked),
}

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    peers: Peers,
    queue: VecDeque<ControlEvent>,
    listening: Vec<(ListenerId, Answer<Result<Multiaddr, String>>)>,
    dialling: BTreeMap<ConnectionId, Answer<Dialled>>,
    env: Env,
    court: Court,
    lookups: lookups::Lookups,
    relays: bool,
    max_message: usize,
    published: gossip::Published,
    judged: mpsc::Receiver<Judged>,
    /// Given to tasks, and kept, so that the channel never ends.
    verdicts: mpsc::Sender<Judged>,
}

impl Driver {
    /// A swarm that neither listens nor dials yet.
    pub(super) fn new(env: &Env, config: ControlConfig) -> Result<Driver, ControlError> {
        let own = peer_id_of(&config.security.node_id());
        let peers = Peers::new(config.max_peers, config.security.members());
        let (transport, circuits) = relay::client::new(own);
        let transport = upgrade::transport(config.security.clone(), peers.clone(), transport);
        let with = || config.gossips_with.clone();
        let behaviour = Behaviour {
            substreams: substreams::Behaviour::default(),
            gossip: (config.gossip.as_ref())
                .map(|gossip| gossip::Behaviour::new(env.clone(), gossip))
                .transpose()
                .map_err(ControlError::Setup)?
                .map(|gossip| Chosen::new(gossip, with()))
                .into(),
            lookup: (config.lookup)
                .map(|lookup| lookup::behaviour(own, lookup))
                .map(|lookup| Chosen::new(lookup, with()).dialling(lookup::may_dial))
                .map(|lookup| lookup.tended(lookup::end_walks))
                .into(),
            lan: (config.lan)
                .then(|| lan::Behaviour::new(own))
                .transpose()
                .map_err(|error| ControlError::Lan(error.to_string()))?
                .into(),
            relay: (config
                .relays
                .then(|| Chosen::new(reach::server(own), with())))
            .into(),
            holes: (config.relayed)
                .then(|| Chosen::new(dcutr::Behaviour::new(own), with()))
                .into(),
            circuits: Chosen::new(circuits, with()),
            seen: (config.relays || config.relayed)
                .then(|| {
                    let known = config.probes.iter().flatten();
                    let known: Vec<_> = known.filter_map(Address::socket_addr).collect();
                    seen::Behaviour::new(config.relays, config.relayed, &known)
                })
                .map(|seen| Chosen::new(seen, with()))
                .into(),
            probes: (config.probes.is_some())
                .then(|| Chosen::new(reach::client(env), with()))
                .into(),
            probing: (config.relays)
                .then(|| Chosen::new(probing::Behaviour::default(), with()))
                .into(),
        };
        let spawner = env.clone();
        let swarm_config = libp2p::swarm::Config::with_executor(move |task| spawner.spawn(task))
            .with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy)
            .with_idle_connection_timeout(IDLE)
            .with_per_connection_event_buffer_size(EVENTS_EACH);
        let swarm = Swarm::new(transport, behaviour, own, swarm_config);
        let (verdicts, judged) = mpsc::channel(VERDICTS);
        Ok(Driver {
            env: env.clone(),
            court: Court::default(),
            relays: config.relays,
            lookups: lookups::Lookups::new(config.lookup.map_or(0, |lookup| lookup.max_record)),
            max_message: config.gossip.map_or(0, |gossip| gossip.max_message),
            published: gossip::Published::default(),
            judged,
            verdicts,
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
            let patience = self.lookups.patience(self.env.now());
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
                Some(judged) = self.judged.recv() => self.on_judged(judged),
                () = self.env.sleep(patience.unwrap_or_default()), if patience.is_some() => self.on_late(),
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
                self.lookups.keep(&peer);
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
            Command::Subscribe {
                topic,
                validator,
                answer,
            } => {
                let done = self.subscribe(topic, validator);
                reply(answer, done);
            }
            Command::Publish {
                topic,
                message,
                answer,
            } => {
                let done = self.publish(topic, message);
                reply(answer, done);
            }
            Command::Counters { answer } => reply(answer, self.counters()),
            Command::Learn { peer, at } => self.learn(peer, at),
            Command::KeepRecords { check, answer } => reply(answer, self.keep_records(check)),
            Command::Announce { record, answer } => self.announce(record, answer),
            Command::Lookup { node, answer } => self.look_up(node, answer),
        }
    }

    fn subscribe(
        &mut self,
        topic: String,
        validator: Arc<dyn Validator>,
    ) -> Result<(), ControlError> {
        let gossip = self.swarm.behaviour_mut().gossip.as_mut();
        let gossip = gossip.ok_or(ControlError::NoGossip)?.inner().gossipsub();
        match gossip.subscribe(&IdentTopic::new(&topic)) {
            Ok(_) => {
                self.court.appoint(topic, validator);
                Ok(())
            }
            Err(SubscriptionError::NotAllowed) => Err(ControlError::NoTopic(topic)),
            Err(other) => Err(ControlError::Publish(other.to_string())),
        }
    }

    fn publish(&mut self, topic: String, message: Bytes) -> Result<(), ControlError> {
        let gossip = self.swarm.behaviour_mut().gossip.as_mut();
        let gossip = gossip.ok_or(ControlError::NoGossip)?.inner().gossipsub();
        if message.len() > self.max_message {
            return Err(ControlError::TooLarge {
                size: message.len(),
                max: self.max_message,
            });
        }
        let (id, now) = (gossip::message_id(&topic, &message), self.env.now());
        if self.published.holds(&id, now) {
            return Err(ControlError::Duplicate);
        }
        gossip
            .publish(IdentTopic::new(topic), message)
            .map_err(publish_error)?;
        self.published.note(id, now);
        Ok(())
    }

    fn counters(&mut self) -> Vec<PeerCounters> {
        let mut all = Vec::new();
        for node in self.court.peers() {
            let mut counters = PeerCounters::new(node);
            self.court.count(&mut counters);
            if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                let sent = gossip.inner().sent(&peer_id_of(&node));
                counters.rpcs = sent.rpcs;
                counters.elements = sent.elements;
                counters.bytes = sent.bytes;
                counters.throttled = sent.throttled;
            }
            all.push(counters);
        }
        all
    }

    fn dial(&mut self, peer: PeerId, at: Vec<Multiaddr>, answer: Answer<Dialled>) {
        if at.is_empty() {
            let connected = self.swarm.is_connected(&peer);
            return reply(answer, connected.then_some(()).ok_or_else(Vec::new));
        }
        if self.dialling.len() >= DIALLING {
            return reply(answer, Err(not_tried("too many dials are under way")));
        }
        // Without a condition on dials under way: each caller gets an outcome of its own. A circuit is no reason not to
        // find a direct way.
        let ways = self.swarm.behaviour().substreams.ways(&peer);
        let better = ways.is_some_and(Ways::is_relayed) && !at.iter().any(reach::is_circuit);
        let condition = if better {
            PeerCondition::Always
        } else {
            PeerCondition::Disconnected
        };
        let options = DialOpts::peer_id(peer)
            .condition(condition)
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
            SwarmEvent::Behaviour(BehaviourEvent::Lookup(event)) => self.on_lookup(event),
            SwarmEvent::Behaviour(BehaviourEvent::Lan(found)) => self.on_found(found),
            SwarmEvent::Behaviour(BehaviourEvent::Holes(punched)) => reaching::on_punched(punched),
            SwarmEvent::Behaviour(BehaviourEvent::Probes(probed)) => self.on_probed(probed),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                num_established,
                endpoint,
                ..
            } => {
                match self.dialling.remove(&connection_id) {
                    Some(answer) => {
                        self.lookups.keep(&peer_id);
                        reply(answer, Ok(()));
                    }
                    None if endpoint.is_dialer() && num_established.get() == 1 => {
                        self.lookups.errand(peer_id);
                    }
                    None => self.lookups.keep(&peer_id),
                }
                if num_established.get() == 1
                    && let Some(peer) = self.public(&peer_id)
                {
                    self.court.open(peer.node_id());
                    self.queue.push_back(ControlEvent::PeerUp { peer });
                }
                self.straighten(peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                cause,
                ..
            } => {
                self.lookups.keep(&peer_id);
                if let Some(peer) = node_id_of(&peer_id) {
                    self.court.close(&peer);
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
                match reach::relay_of(&address) {
                    Some(relay) => self.lookups.keep(&relay),
                    None if self.relays => self.swarm.add_external_address(address.clone()),
                    None => {}
                }
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

    fn on_found(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, at) in found {
            if let Some((peer, at)) = node_id_of(&peer).zip(upgrade::address(&at)) {
                self.queue.push_back(ControlEvent::Found { peer, at });
            }
        }
    }

    fn on_inbound(&mut self, inbound: substreams::Inbound) {
        self.lookups.keep(&inbound.peer);
        match self.public(&inbound.peer) {
            Some(peer) => {
                let stream = Box::new(Fused::new(inbound.stream));
                self.queue
                    .push_back(ControlEvent::Substream(Substream { peer, stream }));
            }
            None => tracing::debug!("a substream of a connection that just closed"),
        }
    }

    fn on_gossip(&mut self, event: gossip::Event) {
        match event {
            gossip::Event::Inner(gossipsub::Event::Message {
                propagation_source,
                message,
                ..
            }) => {
                if let Some(from) = node_id_of(&propagation_source) {
                    let topic = message.topic.into_string();
                    let data = Bytes::from(message.data);
                    self.judge(Gossip { topic, data, from });
                }
            }
            gossip::Event::Inner(gossipsub::Event::SlowPeer {
                peer_id,
                failed_messages,
            }) => {
                if let Some(peer) = node_id_of(&peer_id) {
                    let unread = failed_messages.non_priority + failed_messages.priority;
                    self.court.unread(&peer, unread as u64);
                }
            }
            // Who takes part in what. The enum is the library's.
            gossip::Event::Inner(_) => {}
            gossip::Event::Offence { peer, offence } => {
                if let Some(peer) = node_id_of(&peer) {
                    tracing::info!(%peer, %offence, "closing the connections of a node");
                    self.queue
                        .push_back(ControlEvent::Misbehaved { peer, offence });
                }
            }
        }
    }

    /// Has a message judged in a task of its own, where it has a place.
    fn judge(&mut self, message: Gossip) {
        let id = gossip::message_id(&message.topic, &message.data);
        let (from, size) = (message.from, message.data.len());
        let validator = self.court.admit(&message);
        let Some(validator) = validator.filter(|_| size <= self.max_message) else {
            return self.report(&id, &from, Verdict::Ignore);
        };
        let (env, verdicts) = (self.env.clone(), self.verdicts.clone());
        self.env.spawn(async move {
            let judging = AssertUnwindSafe(async { validator.judge(message).await }).catch_unwind();
            let timeout = pin!(env.sleep(judging::VERDICT));
            let verdict = match select(pin!(judging), timeout).await {
                Either::Left((Ok(verdict), _)) => verdict,
                Either::Left((Err(_), _)) => {
                    tracing::error!("a validator of gossip panicked");
                    Verdict::Ignore
                }
                Either::Right(_) => Verdict::Ignore,
            };
            let judged = Judged::Gossip {
                id,
                from,
                size,
                verdict,
            };
            if verdicts.send(judged).await.is_err() {
                tracing::trace!("the plane has stopped");
            }
        });
    }

    fn on_judged(&mut self, judged: Judged) {
        let (id, from, size, verdict) = match judged {
            Judged::Gossip {
                id,
                from,
                size,
                verdict,
            } => (id, from, size, verdict),
            Judged::Record(checked) => return self.on_checked(checked),
        };
        self.report(&id, &from, verdict);
        if let Err(offence) = self.court.book(self.env.now(), &from, size, verdict)
            && let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut()
        {
            gossip.inner().offend(peer_id_of(&from), offence);
        }
    }

    /// Only now is the message forwarded, or forgotten.
    fn report(&mut self, id: &[u8; 32], from: &NodeId, verdict: Verdict) {
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            let id = MessageId::from(id.to_vec());
            gossip.inner().gossipsub().report_message_validation_result(
                &id,
                &peer_id_of(from),
                acceptance,
            );
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
