//! Routers alone, over links of a fixed latency, in virtual time: for the calibration against libp2p, and to be measured.
//!
//! No nodes, no handshakes, no processors: one heap of deliveries, heartbeats and verdicts. Whole nodes run in
//! [`crate::world`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_p2p::control::Verdict;

use super::router::below;
use super::{Event, Frame, Key, Message, Peer, PublishError, Router, Rpc, Rules, Topic};

/// A connection, by who dialled whom.
pub type Edge = (Peer, Peer);

enum Due {
    Connect(Edge),
    Beat(Peer),
    Wake(Peer),
    Arrive { from: Peer, to: Peer, frame: Frame },
    Judged { at: Peer, key: Key, from: Peer },
}

struct Entry {
    at: Duration,
    order: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers with every version of every crate.
#[derive(Clone, Debug)]
pub struct Draws(pub u64);

impl Draws {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// How a message reached a node first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// From whom; itself, for the publisher.
    pub from: Peer,
    /// After how long.
    pub took: Duration,
    /// Over how many connections; the publisher is at zero.
    pub hops: u32,
}

/// What happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events: deliveries, heartbeats, verdicts.
    pub events: u64,
    /// Messages that arrived, repeats included.
    pub arrived: u64,
    /// Of these, those that were new to their node.
    pub fresh: u64,
    /// IHAVEs and IWANTs that arrived.
    pub gossiped: u64,
    /// Bytes of all frames on their connections.
    pub bytes: u64,
}

/// See the module.
pub struct Swarm {
    rules: Arc<Rules>,
    routers: Vec<Router>,
    latency: Box<dyn Fn(Peer, Peer) -> Duration>,
    judging: Duration,
    rng: Draws,
    now: Duration,
    order: u64,
    heap: BinaryHeap<Entry>,
    published: BTreeMap<Key, Duration>,
    deliveries: BTreeMap<(Key, Peer), Delivery>,
    tally: Tally,
}

impl Swarm {
    /// `nodes` routers, the first pair connected at once and each further one `pace` later, each link with its latency; they
    /// judge a message within `judging`. Heartbeats begin spread over one interval, as those of processes do.
    pub fn new(
        rules: &Arc<Rules>,
        nodes: u32,
        (edges, pace): (&[Edge], Duration),
        latency: impl Fn(Peer, Peer) -> Duration + 'static,
        judging: Duration,
        seed: u64,
    ) -> Swarm {
        let mut swarm = Swarm {
            rules: rules.clone(),
            routers: (0..nodes).map(|_| Router::new(rules.clone())).collect(),
            latency: Box::new(latency),
            judging,
            rng: Draws(seed),
            now: Duration::ZERO,
            order: 0,
            heap: BinaryHeap::new(),
            published: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            tally: Tally::default(),
        };
        let topics = rules.topics.len();
        for node in (0..nodes).map(Peer) {
            for topic in 0..topics {
                let topic = Topic(u8::try_from(topic).unwrap_or(u8::MAX));
                swarm.with(node, |router, now, random| {
                    router.subscribe(now, topic, random)
                });
            }
            let p = &rules.parameters;
            let interval = usize::try_from(p.heartbeat.as_micros()).unwrap_or(usize::MAX);
            let phase = below(interval, &mut || swarm.rng.draw());
            let phase = Duration::from_micros(phase as u64);
            swarm.push(p.first_heartbeat + phase, Due::Beat(node));
        }
        let mut at = Duration::ZERO;
        for edge in edges {
            swarm.push(at, Due::Connect(*edge));
            at += pace;
        }
        swarm
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A node's router.
    pub fn router(&self, node: Peer) -> Option<&Router> {
        self.routers.get(node.0 as usize)
    }

    /// How a message came to a node that has it.
    pub fn delivery(&self, key: Key, to: Peer) -> Option<Delivery> {
        self.deliveries.get(&(key, to)).copied()
    }

    /// Every first delivery, in the order of messages and nodes.
    pub fn deliveries(&self) -> impl Iterator<Item = (Key, Peer, Delivery)> {
        self.deliveries
            .iter()
            .map(|((key, to), found)| (*key, *to, *found))
    }

    /// Has a node publish a message.
    pub fn publish(&mut self, node: Peer, topic: Topic, data: Bytes) -> Result<Key, PublishError> {
        let message = Message::new(&self.rules, topic, data);
        let key = message.key();
        let mut published = Ok(());
        self.with(node, |router, now, random| {
            published = router.publish(now, message, random);
        });
        published?;
        self.published.insert(key, self.now);
        let here = Delivery {
            from: node,
            took: Duration::ZERO,
            hops: 0,
        };
        self.deliveries.insert((key, node), here);
        Ok(key)
    }

    /// Runs until virtual time has come so far.
    pub fn run_until(&mut self, end: Duration) {
        while let Some(next) = self.heap.peek()
            && next.at <= end
        {
            if let Some(entry) = self.heap.pop() {
                self.now = entry.at;
                self.tally.events += 1;
                self.on(entry.due);
            }
        }
        self.now = end;
    }

    fn on(&mut self, due: Due) {
        match due {
            Due::Connect((dialler, answerer)) => {
                self.with(dialler, |router, now, _| {
                    router.connect(now, answerer, true);
                });
                self.with(answerer, |router, now, _| {
                    router.connect(now, dialler, false);
                });
            }
            Due::Beat(node) => {
                let next = self.now + self.rules.parameters.heartbeat;
                self.push(next, Due::Beat(node));
                self.with(node, |router, now, random| router.heartbeat(now, random));
            }
            Due::Wake(node) => self.with(node, |router, now, random| router.wake(now, random)),
            Due::Arrive { from, to, frame } => {
                match &frame {
                    Frame::Rpc(Rpc::Publish(_)) => self.tally.arrived += 1,
                    Frame::Rpc(Rpc::IHave { .. } | Rpc::IWant(_)) => self.tally.gossiped += 1,
                    Frame::Rpc(_) | Frame::Window(_) => {}
                }
                self.with(to, |router, now, random| {
                    router.receive(now, from, frame, random)
                });
            }
            Due::Judged { at, key, from } => self.with(at, |router, now, _| {
                router.verdict(now, key, from, Verdict::Accept);
            }),
        }
    }

    fn push(&mut self, at: Duration, due: Due) {
        self.order += 1;
        let order = self.order;
        self.heap.push(Entry { at, order, due });
    }

    /// Does something with a node's router, then carries out what follows from it.
    fn with(
        &mut self,
        node: Peer,
        work: impl FnOnce(&mut Router, Duration, &mut dyn FnMut() -> u64),
    ) {
        let now = self.now;
        let Some(router) = self.routers.get_mut(node.0 as usize) else {
            return;
        };
        let before = router.next_deadline();
        work(router, now, &mut || self.rng.draw());
        let mut sent = Vec::new();
        while let Some(frame) = router.poll_transmit(now) {
            sent.push(frame);
        }
        let mut fresh = Vec::new();
        while let Some(event) = router.poll_event() {
            if let Event::Judge { from, message } = event {
                fresh.push((from, message.key()));
            }
        }
        let wake = router.next_deadline().filter(|next| Some(*next) != before);
        for (to, frame) in sent {
            self.tally.bytes += self.rules.size(&frame) as u64;
            let at = now + (self.latency)(node, to);
            let from = node;
            self.push(at, Due::Arrive { from, to, frame });
        }
        for (from, key) in fresh {
            self.tally.fresh += 1;
            self.arrived(node, from, key);
            let at = node;
            self.push(now + self.judging, Due::Judged { at, key, from });
        }
        if let Some(at) = wake {
            self.push(at, Due::Wake(node));
        }
    }

    fn arrived(&mut self, to: Peer, from: Peer, key: Key) {
        let hops = self.delivery(key, from).map_or(0, |before| before.hops);
        let since = self.published.get(&key).copied().unwrap_or(self.now);
        let first = Delivery {
            from,
            took: self.now.saturating_sub(since),
            hops: hops + 1,
        };
        self.deliveries.entry((key, to)).or_insert(first);
    }
}

/// A random graph in which every node dials `dials` others that it is not connected with yet; in no order.
pub fn random_graph(nodes: u32, dials: u32, seed: u64) -> Vec<Edge> {
    let mut rng = Draws(seed);
    let mut edges: std::collections::BTreeSet<Edge> = std::collections::BTreeSet::new();
    for node in 0..nodes {
        let mut open: Vec<u32> = (0..nodes)
            .filter(|other| {
                let there = (Peer(node), Peer(*other));
                *other != node && !edges.contains(&there) && !edges.contains(&(there.1, there.0))
            })
            .collect();
        for _ in 0..dials.min(u32::try_from(open.len()).unwrap_or(0)) {
            let other = open.swap_remove(below(open.len(), &mut || rng.draw()));
            edges.insert((Peer(node), Peer(other)));
        }
    }
    let mut edges: Vec<Edge> = edges.into_iter().collect();
    for at in (1..edges.len()).rev() {
        let other = below(at + 1, &mut || rng.draw());
        edges.swap(at, other);
    }
    edges
}
