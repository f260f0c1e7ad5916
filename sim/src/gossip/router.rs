//! One node's router: subscriptions, publishing, forwarding, what is asked and told.
//!
//! Its methods are the library's in other words; the heartbeat is in `beat`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pqcnet_p2p::control::Verdict;
use pqcnet_p2p::control::gossip::budget::Sent;

use super::backoff::Backoffs;
use super::cache::Cache;
use super::neighbour::{Neighbour, Reading};
use super::seen::Seen;
use super::wire::topics_of;
use super::{ByKey, Event, Frame, Key, Message, Peer, Rpc, Rules, Topic};

/// Longest backoff that a peer may ask for, as the library has it.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// Numbers drawn by whoever drives a router.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It was before.
    #[error("the message was published before")]
    Duplicate,
    /// Nobody of the topic is connected.
    #[error("no connected peer takes part in the topic")]
    NoPeers,
    /// So many peers are, and none had room in its queue.
    #[error("the queues of all {0} peers are full")]
    QueuesFull(usize),
}

/// Peers that messages of a topic go to which this node does not take part in.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    pub(super) peers: Vec<Peer>,
    pub(super) last: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Router {
    pub(super) rules: Arc<Rules>,
    /// In the order of their numbers.
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) joined: u16,
    /// By topic, in the order of their numbers.
    pub(super) meshes: Vec<Vec<Peer>>,
    pub(super) fanouts: Vec<Option<Fanout>>,
    pub(super) backoffs: Backoffs,
    pub(super) cache: Cache,
    seen: Seen,
    /// Asked for and not yet come, and until when it is awaited. Bounded by what may be asked in that time.
    pub(super) promised: HashMap<Key, Duration, ByKey>,
    /// Peers that something may be sent to.
    ready: VecDeque<Peer>,
    windows: VecDeque<(Peer, u32)>,
    waiting: BTreeSet<(Duration, Peer)>,
    pub(super) events: VecDeque<Event>,
}

impl Router {
    /// Knows nobody and takes part in nothing.
    pub fn new(rules: Arc<Rules>) -> Router {
        let p = &rules.parameters;
        let topics = rules.topics.len();
        Router {
            neighbours: Vec::new(),
            joined: 0,
            meshes: vec![Vec::new(); topics],
            fanouts: (0..topics).map(|_| None).collect(),
            backoffs: Backoffs::new(p.heartbeat, p.backoff_slack),
            cache: Cache::new(p.history_gossip, p.history_length),
            seen: Seen::new(p.seen),
            promised: HashMap::default(),
            ready: VecDeque::new(),
            windows: VecDeque::new(),
            waiting: BTreeSet::new(),
            events: VecDeque::new(),
            rules,
        }
    }

    /// What it gossips by.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The peers of a topic's mesh, in order.
    pub fn mesh(&self, topic: Topic) -> &[Peer] {
        self.meshes.get(topic.at()).map_or(&[], Vec::as_slice)
    }

    /// Whether this node takes part in a topic.
    pub fn takes_part(&self, topic: Topic) -> bool {
        self.joined & topic.bit() != 0
    }

    /// Connected peers.
    pub fn peers(&self) -> usize {
        self.neighbours.len()
    }

    /// What a connected peer has sent.
    pub fn sent(&self, peer: Peer) -> Sent {
        (self.find(peer)).map_or_else(Sent::default, |found| found.budget().sent())
    }

    pub(super) fn find(&self, peer: Peer) -> Option<&Neighbour> {
        let at = self.position(peer).ok()?;
        self.neighbours.get(at)
    }

    fn find_mut(&mut self, peer: Peer) -> Option<&mut Neighbour> {
        let at = self.position(peer).ok()?;
        self.neighbours.get_mut(at)
    }

    fn position(&self, peer: Peer) -> Result<usize, usize> {
        self.neighbours
            .binary_search_by_key(&peer, |known| known.peer)
    }

    /// The first connection to a peer stands; whether this node dialled it.
    pub fn connect(&mut self, now: Duration, peer: Peer, outbound: bool) {
        let Err(at) = self.position(peer) else {
            return;
        };
        self.neighbours
            .insert(at, Neighbour::new(now, peer, outbound));
        self.send(now, peer, Rpc::Extensions, false);
        if self.joined != 0 {
            self.send(now, peer, Rpc::Subscribe(self.joined), false);
        }
    }

    /// The last one is gone.
    pub fn disconnect(&mut self, peer: Peer) {
        let Ok(at) = self.position(peer) else {
            return;
        };
        self.neighbours.remove(at);
        for mesh in &mut self.meshes {
            remove(mesh, peer);
        }
        for fanout in self.fanouts.iter_mut().flatten() {
            remove(&mut fanout.peers, peer);
        }
        self.ready.retain(|ready| *ready != peer);
        self.windows.retain(|(to, _)| *to != peer);
        self.waiting.retain(|(_, waiting)| *waiting != peer);
    }

    /// Takes part in a topic from now on.
    pub fn subscribe(&mut self, now: Duration, topic: Topic, random: Random<'_>) {
        if self.takes_part(topic) || topic.at() >= self.meshes.len() {
            return;
        }
        for peer in self.everybody() {
            self.send(now, peer, Rpc::Subscribe(topic.bit()), false);
        }
        self.joined |= topic.bit();
        let wanted = self.rules.parameters.mesh_n;
        let fanout = self.fanouts.get_mut(topic.at()).and_then(Option::take);
        let mut added: Vec<Peer> = (fanout.into_iter().flat_map(|fanout| fanout.peers))
            .filter(|peer| !self.backoffs.holds(topic, *peer))
            .take(wanted)
            .collect();
        if added.len() < wanted {
            let others = self.candidates(topic, |known| {
                !added.contains(&known.peer) && !self.backoffs.holds(topic, known.peer)
            });
            added.extend(choose(others, wanted - added.len(), random));
        }
        added.sort_unstable();
        if let Some(mesh) = self.meshes.get_mut(topic.at()) {
            mesh.clone_from(&added);
        }
        for peer in added {
            self.send(now, peer, Rpc::Graft(topic), false);
        }
    }

    /// Does not take part any more.
    pub fn unsubscribe(&mut self, now: Duration, topic: Topic) {
        if !self.takes_part(topic) {
            return;
        }
        for peer in self.everybody() {
            self.send(now, peer, Rpc::Unsubscribe(topic), false);
        }
        self.joined &= !topic.bit();
        let mesh = self.meshes.get_mut(topic.at()).map(std::mem::take);
        let backoff = self.rules.parameters.unsubscribe_backoff;
        for peer in mesh.into_iter().flatten() {
            self.prune(now, topic, peer, backoff);
        }
    }

    /// Sends a message of this node's own.
    pub fn publish(
        &mut self,
        now: Duration,
        message: Arc<Message>,
        random: Random<'_>,
    ) -> Result<(), PublishError> {
        if self.seen.contains(message.key()) {
            return Err(PublishError::Duplicate);
        }
        let recipients = self.recipients(now, message.topic(), random);
        if recipients.is_empty() {
            return Err(PublishError::NoPeers);
        }
        let key = message.key();
        self.seen.insert(now, key);
        self.cache.put(message.clone(), true);
        self.promised.remove(&key);
        let mut sent = 0;
        for peer in &recipients {
            let had_room = self.send(now, *peer, Rpc::Publish(message.clone()), true);
            sent += usize::from(had_room);
        }
        if sent == 0 {
            return Err(PublishError::QueuesFull(recipients.len()));
        }
        Ok(())
    }

    fn recipients(&mut self, now: Duration, topic: Topic, random: Random<'_>) -> Vec<Peer> {
        if self.rules.parameters.flood_publish {
            return self.candidates(topic, |_| true);
        }
        let wanted = self.rules.parameters.mesh_n;
        let mut chosen = if self.takes_part(topic) {
            self.mesh(topic).to_vec()
        } else {
            let fanout = self.fanouts.get(topic.at()).and_then(Option::as_ref);
            fanout.map_or_else(Vec::new, |fanout| fanout.peers.clone())
        };
        chosen.retain(|peer| (self.find(*peer)).is_some_and(|known| known.takes_part(topic)));
        let mut fresh = Vec::new();
        if chosen.len() < wanted {
            let others = self.candidates(topic, |known| !chosen.contains(&known.peer));
            fresh = choose(others, wanted - chosen.len(), random);
        }
        if !self.takes_part(topic)
            && let Some(fanout) = self.fanouts.get_mut(topic.at())
        {
            let fanout = fanout.get_or_insert_default();
            fanout.last = now;
            // As the library has it: the newly chosen take the place of the earlier ones.
            if !fresh.is_empty() {
                fanout.peers.clone_from(&fresh);
            }
        }
        chosen.extend(fresh);
        chosen.sort_unstable();
        chosen
    }

    /// A frame arrived, in the order in which the peer sent it.
    pub fn receive(&mut self, now: Duration, from: Peer, frame: Frame, random: Random<'_>) {
        let Some(known) = self.find_mut(from) else {
            return;
        };
        match frame {
            Frame::Window(bytes) => {
                known.on_window(bytes);
                if known.can_send() && !known.listed {
                    known.listed = true;
                    self.ready.push_back(from);
                }
            }
            Frame::Rpc(rpc) => {
                if let Some(rpc) = known.hold(rpc) {
                    self.read(now, from, rpc, random);
                }
            }
        }
    }

    /// When [`Router::wake`] is due: a peer that was over its budget may be read again.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Reads on where a wait is over.
    pub fn wake(&mut self, now: Duration, random: Random<'_>) {
        while let Some((at, peer)) = self.waiting.first().copied()
            && at <= now
        {
            self.waiting.remove(&(at, peer));
            while let Some(rpc) = self.find_mut(peer).and_then(|known| known.unhold(now)) {
                self.read(now, peer, rpc, random);
            }
        }
    }

    fn read(&mut self, now: Duration, from: Peer, rpc: Rpc, random: Random<'_>) {
        let rules = self.rules.clone();
        let Some(known) = self.find_mut(from) else {
            return;
        };
        match known.read(&rules, now, &rpc) {
            Reading::On { room, until } => {
                self.windows.extend(room.map(|room| (from, room)));
                self.waiting.extend(until.map(|until| (until, from)));
                self.on_rpc(now, from, rpc, random);
            }
            Reading::Not => {}
            Reading::Offence(offence) => {
                let peer = from;
                self.events.push_back(Event::Misbehaved { peer, offence });
            }
        }
    }

    fn on_rpc(&mut self, now: Duration, from: Peer, rpc: Rpc, random: Random<'_>) {
        match rpc {
            Rpc::Extensions => {}
            Rpc::Subscribe(topics) => self.on_subscribe(now, from, topics),
            Rpc::Unsubscribe(topic) => self.on_unsubscribe(now, from, topic),
            Rpc::Graft(topic) => self.on_graft(now, from, topic),
            Rpc::Prune { topic, backoff } => self.on_prune(now, from, topic, backoff),
            Rpc::IHave { topic, keys } => self.on_ihave(now, from, topic, &keys, random),
            Rpc::IWant(keys) => self.on_iwant(now, from, &keys),
            Rpc::Publish(message) => self.on_message(now, from, message),
        }
    }

    fn on_subscribe(&mut self, now: Duration, from: Peer, topics: u16) {
        let low = self.rules.parameters.mesh_n_low;
        let Some(known) = self.find_mut(from) else {
            return;
        };
        known.topics |= topics;
        for topic in topics_of(topics & self.joined) {
            if self.backoffs.holds(topic, from) || self.mesh(topic).len() >= low {
                continue;
            }
            if (self.meshes.get_mut(topic.at())).is_some_and(|mesh| insert(mesh, from)) {
                self.send(now, from, Rpc::Graft(topic), false);
            }
        }
    }

    fn on_unsubscribe(&mut self, now: Duration, from: Peer, topic: Topic) {
        if let Some(known) = self.find_mut(from) {
            known.topics &= !topic.bit();
        }
        if let Some(fanout) = self.fanouts.get_mut(topic.at()).and_then(Option::as_mut) {
            remove(&mut fanout.peers, from);
        }
        if (self.meshes.get_mut(topic.at())).is_some_and(|mesh| remove(mesh, from)) {
            let backoff = self.rules.parameters.prune_backoff;
            self.backoffs.update(now, topic, from, backoff);
        }
    }

    fn on_graft(&mut self, now: Duration, from: Peer, topic: Topic) {
        if !self.takes_part(topic) || self.mesh(topic).binary_search(&from).is_ok() {
            return;
        }
        let p = &self.rules.parameters;
        let (high, backoff) = (p.mesh_n_high, p.prune_backoff);
        let Some(known) = self.find(from) else {
            return;
        };
        let known_there = known.takes_part(topic);
        let full = self.mesh(topic).len() >= high && !known.outbound;
        // One that has not subscribed is not even told that it is not grafted.
        if self.backoffs.forbids(now, topic, from) || (known_there && full) {
            self.prune(now, topic, from, backoff);
        } else if known_there && let Some(mesh) = self.meshes.get_mut(topic.at()) {
            insert(mesh, from);
        }
    }

    fn on_prune(&mut self, now: Duration, from: Peer, topic: Topic, backoff: u64) {
        if !self.takes_part(topic) {
            return;
        }
        if let Some(mesh) = self.meshes.get_mut(topic.at()) {
            remove(mesh, from);
        }
        let backoff = Duration::from_secs(backoff).min(MAX_BACKOFF);
        self.backoffs.update(now, topic, from, backoff);
    }

    fn on_ihave(
        &mut self,
        now: Duration,
        from: Peer,
        topic: Topic,
        keys: &[Key],
        random: Random<'_>,
    ) {
        let p = &self.rules.parameters;
        let (ihaves, ids) = (p.max_ihave_messages, p.max_ids);
        let takes_part = self.takes_part(topic);
        let Some(known) = self.find_mut(from) else {
            return;
        };
        known.ihaves += 1;
        if known.ihaves > ihaves || known.asked >= ids || !takes_part {
            return;
        }
        let room = ids - known.asked;
        let mut wanted: Vec<Key> = (keys.iter().copied())
            .filter(|key| !self.seen.contains(*key) && !self.promised.contains_key(key))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return;
        }
        let wanted = choose(wanted, room, random);
        if let Some(known) = self.find_mut(from) {
            known.asked += wanted.len();
        }
        let until = now + self.rules.parameters.iwant_followup;
        self.promised.extend(wanted.iter().map(|key| (*key, until)));
        self.send(now, from, Rpc::IWant(wanted.into()), false);
    }

    fn on_iwant(&mut self, now: Duration, from: Peer, keys: &[Key]) {
        let most = self.rules.parameters.gossip_retransmission;
        for key in keys {
            if let Some((message, count)) = self.cache.asked(*key, from)
                && count <= most
            {
                self.send(now, from, Rpc::Publish(message), false);
            }
        }
    }

    fn on_message(&mut self, now: Duration, from: Peer, message: Arc<Message>) {
        let key = message.key();
        if !self.seen.insert(now, key) {
            return self.cache.observe(key, from);
        }
        self.promised.remove(&key);
        self.cache.put(message.clone(), false);
        if self.takes_part(message.topic()) {
            self.events.push_back(Event::Judge { from, message });
        }
    }

    /// What is to become of a message that [`Event::Judge`] told of. Whether it was still there.
    pub fn verdict(&mut self, now: Duration, key: Key, from: Peer, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Accept => {
                let Some((message, others)) = self.cache.accept(key) else {
                    return false;
                };
                let forward =
                    |peer: &Peer| *peer != from && others.iter().all(|(other, _)| other != peer);
                let mesh = self.mesh(message.topic()).iter();
                let recipients: Vec<Peer> = mesh.copied().filter(|peer| forward(peer)).collect();
                for peer in recipients {
                    self.send(now, peer, Rpc::Publish(message.clone()), false);
                }
                true
            }
            Verdict::Ignore | Verdict::Reject => self.cache.remove(key),
        }
    }

    /// A frame to send, to whom. `None`: nothing more for now.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<(Peer, Frame)> {
        if let Some((peer, room)) = self.windows.pop_front() {
            return Some((peer, Frame::Window(room)));
        }
        while let Some(peer) = self.ready.pop_front() {
            let rules = self.rules.clone();
            let Some(known) = self.find_mut(peer) else {
                continue;
            };
            let next = known.pop(&rules, now);
            known.listed = known.can_send();
            if known.listed {
                self.ready.push_back(peer);
            }
            if let Some(rpc) = next {
                return Some((peer, Frame::Rpc(rpc)));
            }
        }
        None
    }

    /// What this node has to know. `None`: nothing more for now.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn everybody(&self) -> Vec<Peer> {
        self.neighbours.iter().map(|known| known.peer).collect()
    }

    /// Peers of a topic that are so, in order.
    pub(super) fn candidates(&self, topic: Topic, so: impl Fn(&Neighbour) -> bool) -> Vec<Peer> {
        (self.neighbours.iter())
            .filter(|known| known.takes_part(topic) && so(known))
            .map(|known| known.peer)
            .collect()
    }

    pub(super) fn prune(&mut self, now: Duration, topic: Topic, peer: Peer, backoff: Duration) {
        self.backoffs.update(now, topic, peer, backoff);
        let backoff = backoff.as_secs();
        self.send(now, peer, Rpc::Prune { topic, backoff }, false);
    }

    /// Whether there was room for it.
    pub(super) fn send(&mut self, now: Duration, to: Peer, rpc: Rpc, own: bool) -> bool {
        let Ok(at) = self.position(to) else {
            return false;
        };
        let Some(known) = self.neighbours.get_mut(at) else {
            return false;
        };
        let had_room = known.push(&self.rules, now, rpc, own);
        if known.can_send() && !known.listed {
            known.listed = true;
            self.ready.push_back(to);
        }
        had_room
    }
}

/// `n` of them at random, in order; all, when there are no more.
pub(super) fn choose<T: Ord>(mut from: Vec<T>, n: usize, random: Random<'_>) -> Vec<T> {
    if from.len() > n {
        for at in 0..n {
            let other = at + below(from.len() - at, random);
            from.swap(at, other);
        }
        from.truncate(n);
        from.sort_unstable();
    }
    from
}

/// A number below `n`.
pub(super) fn below(n: usize, random: Random<'_>) -> usize {
    usize::try_from((u128::from(random()) * n as u128) >> 64).unwrap_or(0)
}

pub(super) fn insert(sorted: &mut Vec<Peer>, peer: Peer) -> bool {
    let at = sorted.binary_search(&peer);
    at.map_err(|at| sorted.insert(at, peer)).is_err()
}

pub(super) fn remove(sorted: &mut Vec<Peer>, peer: Peer) -> bool {
    let at = sorted.binary_search(&peer);
    at.map(|at| sorted.remove(at)).is_ok()
}
