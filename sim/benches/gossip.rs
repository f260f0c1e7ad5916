//! The same gossip on this simulator's own heap and on simulacra's network, in one run:
//!
//!     cargo bench -p pqcnet-sim --bench gossip [-- NODES SECONDS]
//!
//! 1,000 nodes of six dials each, links of 80 to 160 ms, one message a second for each ten nodes, for ten simulated seconds
//! after ten to settle. The routers are the same; what differs is who carries their frames and tells them the time.
#![allow(clippy::print_stdout, reason = "figures are this program's data")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::Stopwatch;
use pqcnet_p2p::control::{GossipConfig, Verdict};
use pqcnet_sim::gossip::swarm::{Draws, Edge, Swarm, random_graph};
use pqcnet_sim::gossip::{Event, Frame, Message, Peer, Router, Rpc, Rules, Topic};

const DIALS: u32 = 6;
const SETTLE: u64 = 10;
const DIALLING: Duration = Duration::from_micros(500);
const TOPIC: Topic = Topic(0);
const SIZE: usize = 1024;

struct Scenario {
    nodes: u32,
    seconds: u64,
    edges: Vec<Edge>,
    rules: Arc<Rules>,
}

/// What a tool did, so that it can be seen that all did the same.
#[derive(Default)]
struct Done {
    fresh: u64,
    arrived: u64,
}

fn latency(a: Peer, b: Peer) -> Duration {
    let (low, high) = (a.0.min(b.0), a.0.max(b.0));
    Duration::from_millis(u64::from(80 + (low * 31 + high * 17) % 80))
}

impl Scenario {
    fn new(nodes: u32, seconds: u64) -> Scenario {
        let config = GossipConfig {
            topics: vec!["adverts".to_owned()],
            ..GossipConfig::default()
        };
        Scenario {
            nodes,
            seconds,
            edges: random_graph(nodes, DIALS, 7),
            rules: Rules::of(&config).expect("production's configuration"),
        }
    }

    fn end(&self) -> Duration {
        Duration::from_secs(SETTLE + self.seconds)
    }

    /// When who publishes what.
    fn published(&self) -> impl Iterator<Item = (Duration, Peer, Bytes)> {
        let (rate, nodes) = ((self.nodes / 10).max(1), self.nodes);
        let count = u64::from(rate) * self.seconds.saturating_sub(2);
        (0..count).map(move |n| {
            let at = Duration::from_secs(SETTLE) + Duration::from_secs(n) / rate;
            let mut data = vec![0; SIZE];
            data[..8].copy_from_slice(&n.to_be_bytes());
            let node = u32::try_from(n * 7 % u64::from(nodes)).expect("below the nodes");
            (at, Peer(node), data.into())
        })
    }

    /// When a node's heart beats.
    fn beats(&self, node: u32) -> impl Iterator<Item = Duration> {
        let p = &self.rules.parameters;
        let phase = p.heartbeat * (node * 37 % self.nodes) / self.nodes;
        let (first, every, end) = (p.first_heartbeat + phase, p.heartbeat, self.end());
        (0..)
            .map(move |n| first + every * n)
            .take_while(move |at| *at < end)
    }
}

/// A router, driven by another tool.
struct Driven {
    router: Router,
    draws: Draws,
    done: Done,
}

impl Driven {
    fn new(scenario: &Scenario, node: u32) -> Driven {
        let mut driven = Driven {
            router: Router::new(scenario.rules.clone()),
            draws: Draws(u64::from(node)),
            done: Done::default(),
        };
        let draws = &mut driven.draws;
        driven
            .router
            .subscribe(Duration::ZERO, TOPIC, &mut || draws.draw());
        driven
    }

    fn connect(
        &mut self,
        now: Duration,
        peer: Peer,
        outbound: bool,
        send: impl FnMut(Peer, Frame),
    ) {
        self.router.connect(now, peer, outbound);
        self.flush(now, send);
    }

    fn receive(&mut self, now: Duration, from: Peer, frame: Frame, send: impl FnMut(Peer, Frame)) {
        self.done.arrived += u64::from(matches!(frame, Frame::Rpc(Rpc::Publish(_))));
        let draws = &mut self.draws;
        self.router.receive(now, from, frame, &mut || draws.draw());
        self.flush(now, send);
    }

    fn beat(&mut self, now: Duration, send: impl FnMut(Peer, Frame)) {
        let draws = &mut self.draws;
        self.router.heartbeat(now, &mut || draws.draw());
        self.flush(now, send);
    }

    fn publish(&mut self, now: Duration, message: Arc<Message>, send: impl FnMut(Peer, Frame)) {
        let draws = &mut self.draws;
        let published = self.router.publish(now, message, &mut || draws.draw());
        published.expect("somebody is connected");
        self.flush(now, send);
    }

    fn flush(&mut self, now: Duration, mut send: impl FnMut(Peer, Frame)) {
        loop {
            while let Some((to, frame)) = self.router.poll_transmit(now) {
                send(to, frame);
            }
            match self.router.poll_event() {
                Some(Event::Judge { from, message }) => {
                    self.done.fresh += 1;
                    self.router
                        .verdict(now, message.key(), from, Verdict::Accept);
                }
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// On this simulator's own heap.
fn ours(scenario: &Scenario) -> Done {
    let dialled = (scenario.edges.as_slice(), DIALLING);
    let mut swarm = Swarm::new(
        &scenario.rules,
        scenario.nodes,
        dialled,
        latency,
        Duration::ZERO,
        1,
    );
    for (at, node, data) in scenario.published() {
        swarm.run_until(at);
        swarm
            .publish(node, TOPIC, data)
            .expect("somebody is connected");
    }
    swarm.run_until(scenario.end());
    let tally = swarm.tally();
    Done {
        fresh: tally.fresh,
        arrived: tally.arrived,
    }
}

#[derive(Clone)]
enum Note {
    Frame(Frame),
    Connect(Peer, bool),
    Beat,
    Publish(Arc<Message>),
}

/// On simulacra: its topology, its event queue, its deliveries.
fn simulacra(scenario: &Scenario) -> Done {
    use simulacra::{
        Message as Parcel, MessageId, NetEvent, Network, NodeId, Time, TopologyBuilder,
    };
    let nanos = |at: Duration| u64::try_from(at.as_nanos()).expect("a few seconds");
    let mut topology = TopologyBuilder::new(scenario.nodes as usize);
    for (a, b) in &scenario.edges {
        let latency = simulacra::Duration::from_nanos(nanos(latency(*a, *b)));
        topology = topology.link(a.0, b.0, latency);
    }
    let mut network = Network::new(topology.build(), 1);
    let mut number = 1 << 40;
    let mut note = |at: Duration, node: Peer, what: Note| {
        number += 1;
        let here = NodeId(node.0);
        let parcel = Parcel::new(MessageId::new(number), here, here, what);
        network.schedule(Time::from_nanos(nanos(at)), NetEvent::Deliver(parcel));
    };
    let mut at = Duration::ZERO;
    for (dialler, to) in &scenario.edges {
        note(at, *dialler, Note::Connect(*to, true));
        note(at, *to, Note::Connect(*dialler, false));
        at += DIALLING;
    }
    for node in 0..scenario.nodes {
        for at in scenario.beats(node) {
            note(at, Peer(node), Note::Beat);
        }
    }
    for (at, node, data) in scenario.published() {
        note(
            at,
            node,
            Note::Publish(Message::new(&scenario.rules, TOPIC, data)),
        );
    }
    let mut nodes: Vec<Driven> = (0..scenario.nodes)
        .map(|n| Driven::new(scenario, n))
        .collect();
    let end = scenario.end();
    network.run(|cx, event| {
        let NetEvent::Deliver(parcel) = event else {
            panic!("nothing is dropped here");
        };
        let now = Duration::from_nanos(cx.now().as_nanos());
        if now > end {
            return;
        }
        let driven = &mut nodes[parcel.dst.as_u32() as usize];
        let (from, here) = (Peer(parcel.src.as_u32()), parcel.dst);
        let send = |to: Peer, frame| cx.send(here, NodeId(to.0), Note::Frame(frame));
        match parcel.payload {
            Note::Frame(frame) => driven.receive(now, from, frame, send),
            Note::Connect(peer, outbound) => driven.connect(now, peer, outbound, send),
            Note::Beat => driven.beat(now, send),
            Note::Publish(message) => driven.publish(now, message, send),
        }
    });
    total(nodes.iter())
}

fn total<'a>(nodes: impl Iterator<Item = &'a Driven>) -> Done {
    nodes.fold(Done::default(), |sum, node| Done {
        fresh: sum.fresh + node.done.fresh,
        arrived: sum.arrived + node.done.arrived,
    })
}

fn measured(name: &str, scenario: &Scenario, run: impl FnOnce(&Scenario) -> Done) -> f64 {
    let watch = Stopwatch::start();
    let done = run(scenario);
    let took = watch.elapsed().as_secs_f64();
    let simulated = scenario.end().as_secs_f64();
    let (fresh, copies) = (done.fresh, done.arrived as f64 / done.fresh as f64);
    println!(
        "{name:<22} {took:>8.2} s  {:>8.1} x real time  {fresh:>9} deliveries  {copies:.2} copies each",
        simulated / took
    );
    took
}

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let nodes = numbers
        .first()
        .map_or(1000, |n| u32::try_from(*n).expect("a number of nodes"));
    let scenario = Scenario::new(nodes, numbers.get(1).copied().unwrap_or(10));
    println!("{nodes} nodes, {} simulated s", scenario.end().as_secs());
    let ours = measured("pqcnet-sim", &scenario, ours);
    let simulacra = measured("simulacra 0.1.0", &scenario, simulacra);
    println!("simulacra / ours {:.2}", simulacra / ours);
}
