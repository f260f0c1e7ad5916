//! What one plane holds: its peers and their connections, the router, the court, events that wait.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{Either, select};
use parking_lot::{Mutex, MutexGuard};
use pqcnet_actor::{Env, StreamRng};
use pqcnet_crypto::{NodeId, NodePublic};
use pqcnet_p2p::control::judging::{Court, VERDICT};
use pqcnet_p2p::control::substreams::OpenError;
use pqcnet_p2p::control::{
    ControlConfig, ControlError, ControlEvent, Entry, Gossip, Offence, PeerCounters, Peers,
    Substream, UpgradeError, Validator, Verdict,
};
use rand_core::Rng as _;
use tokio::sync::Notify;

use super::lookup::{Lookups, Question, Reply};
use crate::gossip::{ENVELOPE, Event, Frame, Key, Message, Peer, PublishError, Router, Rules};
use crate::net::{Inbox, Net, Parcel, SimStream};
use crate::world::NodeNo;

/// Substreams of one connection, both sides' together; production's multiplexer takes as many, gossip's and lookups' own
/// included.
const STREAMS: usize = 96 - 4;
/// The name of a substream's protocol, twice: asked for and agreed to.
const NEGOTIATION: usize = 2 * 40;

/// What travels between two planes.
pub(super) enum Word {
    /// Between the routers.
    Gossip(Frame),
    /// A substream for a link: the number of its connection.
    Branch(u64),
    /// A question about records, by the asker's number.
    Ask(u64, Question),
    /// Its answer.
    Reply(u64, Reply),
}

/// One connection to a peer.
pub(super) struct Connection {
    pub(super) stream: SimStream,
    pub(super) branches: Vec<u64>,
    _entry: Entry,
}

/// A connected node.
pub(super) struct Known {
    pub(super) number: Peer,
    pub(super) public: NodePublic,
    /// Decided when its first connection came.
    pub(super) gossips: bool,
    /// Never empty.
    pub(super) conns: Vec<Connection>,
}

/// Everything that changes.
pub(super) struct State {
    pub(super) router: Option<Router>,
    draws: StreamRng,
    court: Court,
    pub(super) known: BTreeMap<NodeId, Known>,
    numbers: BTreeMap<Peer, NodeId>,
    last: u32,
    pub(super) conns: BTreeMap<u64, NodeId>,
    pub(super) queue: VecDeque<ControlEvent>,
    pub(super) next_beat: Option<Duration>,
    pub(super) dialling: usize,
    pub(super) lookups: Lookups,
    pub(super) over: bool,
}

/// One plane, for its handles and tasks.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) net: Net,
    pub(super) node: NodeNo,
    pub(super) config: ControlConfig,
    pub(super) inbox: Arc<Inbox>,
    /// Something has changed that the pump waits by.
    pub(super) nudge: Notify,
    rules: Option<Arc<Rules>>,
    places: Peers,
    state: Mutex<State>,
}

impl State {
    /// Somebody else than a lookup uses the connection to a node, or it is gone.
    pub(super) fn keep(&mut self, peer: &NodeId) {
        self.lookups.errands.remove(peer);
    }
}

impl Shared {
    pub(super) fn new(
        env: &Env,
        net: Net,
        node: NodeNo,
        config: ControlConfig,
    ) -> Result<Shared, ControlError> {
        let rules = config.gossip.as_ref().map(Rules::of).transpose();
        let rules = rules.map_err(ControlError::Setup)?;
        let first = |rules: &Arc<Rules>| env.now() + rules.parameters.first_heartbeat;
        let state = State {
            router: rules.clone().map(Router::new),
            draws: env.rng("gossip"),
            court: Court::default(),
            known: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last: 0,
            conns: BTreeMap::new(),
            queue: VecDeque::new(),
            next_beat: rules.as_ref().map(first),
            dialling: 0,
            lookups: Lookups::new(config.lookup),
            over: false,
        };
        Ok(Shared {
            env: env.clone(),
            net,
            node,
            places: Peers::new(config.max_peers, config.security.members()),
            config,
            inbox: Arc::default(),
            nudge: Notify::new(),
            rules,
            state: Mutex::new(state),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn tell(&self, state: &mut State, event: ControlEvent) {
        state.queue.push_back(event);
        self.nudge.notify_one();
    }

    /// A connection has passed its handshake.
    pub(super) fn connected(
        self: &Arc<Self>,
        public: NodePublic,
        stream: SimStream,
        outbound: bool,
    ) -> Result<(), UpgradeError> {
        let entry = self.places.enter(&public).ok_or(UpgradeError::Full)?;
        let id = public.node_id();
        let mut state = self.lock();
        if state.over {
            return Err(UpgradeError::Swarm("the plane has stopped".into()));
        }
        stream.attach(&self.inbox);
        state.conns.insert(stream.number(), id);
        let connection = Connection {
            stream,
            branches: Vec::new(),
            _entry: entry,
        };
        if let Some(known) = state.known.get_mut(&id) {
            known.conns.push(connection);
            return Ok(());
        }
        state.last += 1;
        let number = Peer(state.last);
        let gossips = (self.config.gossips_with)(&id);
        let known = Known {
            number,
            public: public.clone(),
            gossips,
            conns: vec![connection],
        };
        state.known.insert(id, known);
        state.numbers.insert(number, id);
        state.court.open(id);
        self.tell(&mut state, ControlEvent::PeerUp { peer: public });
        if gossips && let Some(router) = &mut state.router {
            router.connect(self.env.now(), number, outbound);
        }
        self.flush(&mut state);
        Ok(())
    }

    /// A connection has ended.
    pub(super) fn closed(
        self: &Arc<Self>,
        state: &mut State,
        conn: u64,
        reason: Option<std::io::ErrorKind>,
    ) {
        let Some(id) = state.conns.remove(&conn) else {
            return;
        };
        let Some(known) = state.known.get_mut(&id) else {
            return;
        };
        let at = (known.conns.iter()).position(|open| open.stream.number() == conn);
        if let Some(at) = at {
            let gone = known.conns.remove(at);
            self.sever(&gone);
        }
        if known.conns.is_empty() {
            self.forget(state, &id, reason.map(|reason| reason.to_string()));
        }
    }

    fn sever(&self, gone: &Connection) {
        for branch in &gone.branches {
            self.net.sever(self.node, *branch);
        }
    }

    fn forget(&self, state: &mut State, peer: &NodeId, reason: Option<String>) {
        let Some(known) = state.known.remove(peer) else {
            return;
        };
        state.numbers.remove(&known.number);
        state.keep(peer);
        state.lookups.gone(peer);
        state.court.close(peer);
        if let Some(router) = &mut state.router {
            router.disconnect(known.number);
        }
        let peer = *peer;
        self.tell(state, ControlEvent::PeerDown { peer, reason });
    }

    /// Closes every connection to a node.
    pub(super) fn disconnect(&self, state: &mut State, peer: &NodeId) {
        let Some(known) = state.known.get_mut(peer) else {
            return;
        };
        for gone in std::mem::take(&mut known.conns) {
            self.sever(&gone);
            state.conns.remove(&gone.stream.number());
        }
        self.forget(state, peer, None);
    }

    /// Stops: everything is let go of.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.over = true;
        let peers: Vec<NodeId> = state.known.keys().copied().collect();
        for peer in peers {
            self.disconnect(&mut state, &peer);
        }
        state.queue.clear();
    }

    pub(super) fn post(&self, state: &State, to: &NodeId, parcel: Parcel) -> bool {
        let first = state.known.get(to).and_then(|known| known.conns.first());
        first.map(|conn| conn.stream.post(parcel)).is_some()
    }

    // ---- substreams ----

    pub(super) fn open(&self, peer: NodeId) -> Result<SimStream, OpenError> {
        let mut state = self.lock();
        state.keep(&peer);
        let known = state.known.get_mut(&peer);
        let conn = known.and_then(|known| known.conns.first_mut());
        let conn = conn.ok_or(OpenError::NotConnected)?;
        self.room(conn)?;
        let branch = conn.stream.branch();
        let branch = branch.map_err(|_| OpenError::NotConnected)?;
        conn.branches.push(branch.number());
        conn.stream.post(Parcel {
            bytes: ENVELOPE + NEGOTIATION,
            what: "substream",
            digest: 0,
            body: Box::new(Word::Branch(branch.number())),
        });
        Ok(branch)
    }

    /// Whether a connection takes one more substream.
    fn room(&self, conn: &mut Connection) -> Result<(), OpenError> {
        if conn.branches.len() >= STREAMS {
            conn.branches.retain(|branch| self.net.stands(*branch));
        }
        if conn.branches.len() >= STREAMS {
            return Err(OpenError::Refused("too many substreams".into()));
        }
        Ok(())
    }

    /// The peer has opened one.
    pub(super) fn on_branch(&self, state: &mut State, from: &NodeId, conn: u64, branch: u64) {
        state.keep(from);
        let Some(stream) = self.net.claim(branch) else {
            return;
        };
        let Some(known) = state.known.get_mut(from) else {
            return;
        };
        let open = (known.conns.iter_mut()).find(|open| open.stream.number() == conn);
        let Some(open) = open else {
            return;
        };
        if self.room(open).is_err() {
            return;
        }
        open.branches.push(branch);
        let peer = known.public.clone();
        let stream = Box::new(stream);
        self.tell(state, ControlEvent::Substream(Substream { peer, stream }));
    }

    // ---- gossip ----

    pub(super) fn subscribe(
        self: &Arc<Self>,
        topic: &str,
        validator: Arc<dyn Validator>,
    ) -> Result<(), ControlError> {
        let rules = self.rules.as_ref().ok_or(ControlError::NoGossip)?;
        let number = rules.topic(topic);
        let number = number.ok_or_else(|| ControlError::NoTopic(topic.to_owned()))?;
        let mut state = self.lock();
        self.routed(&mut state, |router, now, random| {
            router.subscribe(now, number, random);
        });
        state.court.appoint(topic.to_owned(), validator);
        Ok(())
    }

    pub(super) fn publish(self: &Arc<Self>, topic: &str, data: Bytes) -> Result<(), ControlError> {
        let rules = self.rules.as_ref().ok_or(ControlError::NoGossip)?;
        let (size, max) = (data.len(), rules.parameters.max_message);
        if size > max {
            return Err(ControlError::TooLarge { size, max });
        }
        let topic = rules.topic(topic).ok_or(ControlError::NoPeers)?;
        let message = Message::new(rules, topic, data);
        let mut state = self.lock();
        let published = self.routed(&mut state, |router, now, random| {
            router.publish(now, message, random)
        });
        published
            .unwrap_or(Err(PublishError::NoPeers))
            .map_err(|error| match error {
                PublishError::Duplicate => ControlError::Duplicate,
                PublishError::NoPeers => ControlError::NoPeers,
                PublishError::QueuesFull(_) => ControlError::Publish(error.to_string()),
            })
    }

    /// Does something with the router, then sends and tells what follows from it.
    pub(super) fn routed<T>(
        self: &Arc<Self>,
        state: &mut State,
        work: impl FnOnce(&mut Router, Duration, &mut dyn FnMut() -> u64) -> T,
    ) -> Option<T> {
        let draws = &mut state.draws;
        let router = state.router.as_mut()?;
        let done = work(router, self.env.now(), &mut || draws.next_u64());
        self.flush(state);
        Some(done)
    }

    /// Sends and tells what the router has.
    pub(super) fn flush(self: &Arc<Self>, state: &mut State) {
        let Some(rules) = &self.rules else {
            return;
        };
        let now = self.env.now();
        while let Some((to, frame)) = state.router.as_mut().and_then(|r| r.poll_transmit(now)) {
            if let Some(id) = state.numbers.get(&to) {
                let parcel = Parcel {
                    bytes: rules.size(&frame),
                    what: frame.name(),
                    digest: frame.digest(),
                    body: Box::new(Word::Gossip(frame)),
                };
                self.post(state, id, parcel);
            }
        }
        while let Some(event) = state.router.as_mut().and_then(Router::poll_event) {
            match event {
                Event::Judge { from, message } => self.judge(state, from, message),
                Event::Unread { peer, messages } => {
                    if let Some(id) = state.numbers.get(&peer) {
                        state.court.unread(id, messages);
                    }
                }
                Event::Misbehaved { peer, offence } => {
                    if let Some(id) = state.numbers.get(&peer).copied() {
                        self.offend(state, id, offence);
                    }
                }
            }
        }
    }

    fn offend(&self, state: &mut State, peer: NodeId, offence: Offence) {
        tracing::info!(%peer, %offence, "closing the connections of a node");
        self.tell(state, ControlEvent::Misbehaved { peer, offence });
        self.disconnect(state, &peer);
    }

    /// Has a message judged in a task of its own, where it has a place.
    fn judge(self: &Arc<Self>, state: &mut State, from: Peer, message: Arc<Message>) {
        let Some((rules, id)) = self.rules.as_ref().zip(state.numbers.get(&from).copied()) else {
            return;
        };
        let gossip = Gossip {
            topic: rules.name(message.topic()).to_owned(),
            data: message.data().clone(),
            from: id,
        };
        let (key, size) = (message.key(), message.data().len());
        let validator = state.court.admit(&gossip);
        let small = size <= rules.parameters.max_message;
        let Some(validator) = validator.filter(|_| small) else {
            let now = self.env.now();
            if let Some(router) = &mut state.router {
                router.verdict(now, key, from, Verdict::Ignore);
            }
            return;
        };
        let shared = self.clone();
        self.env.spawn(async move {
            let judging = AssertUnwindSafe(async { validator.judge(gossip).await }).catch_unwind();
            let timeout = pin!(shared.env.sleep(VERDICT));
            let verdict = match select(pin!(judging), timeout).await {
                Either::Left((Ok(verdict), _)) => verdict,
                Either::Left((Err(_), _)) => {
                    tracing::error!("a validator of gossip panicked");
                    Verdict::Ignore
                }
                Either::Right(_) => Verdict::Ignore,
            };
            shared.judged(key, from, id, size, verdict);
        });
    }

    /// Only now is the message forwarded, or forgotten.
    fn judged(self: &Arc<Self>, key: Key, from: Peer, id: NodeId, size: usize, verdict: Verdict) {
        let mut state = self.lock();
        self.routed(&mut state, |router, now, _| {
            router.verdict(now, key, from, verdict);
        });
        let booked = state.court.book(self.env.now(), &id, size, verdict);
        if let Err(offence) = booked {
            self.offend(&mut state, id, offence);
        }
    }

    // ---- records ----

    /// A place among what is judged for a record that a peer wants stored.
    pub(super) fn admit_record(&self, state: &mut State, from: &NodeId, size: usize) -> bool {
        state.court.admit_record(from, size)
    }

    /// What its check found.
    pub(super) fn book_record(&self, state: &mut State, from: &NodeId, size: usize, good: bool) {
        let verdict = if good {
            Verdict::Accept
        } else {
            Verdict::Ignore
        };
        let booked = state.court.book(self.env.now(), from, size, verdict);
        debug_assert!(booked.is_ok(), "nobody offends by being ignored");
    }

    pub(super) fn counters(&self) -> Vec<PeerCounters> {
        let state = self.lock();
        let mut all = Vec::new();
        for node in state.court.peers() {
            let mut counters = PeerCounters::new(node);
            state.court.count(&mut counters);
            if let Some((router, known)) = state.router.as_ref().zip(state.known.get(&node)) {
                let sent = router.sent(known.number);
                counters.rpcs = sent.rpcs;
                counters.elements = sent.elements;
                counters.bytes = sent.bytes;
                counters.throttled = sent.throttled;
            }
            all.push(counters);
        }
        all
    }
}
