//! The simulator's gossip beside the real one: 120 nodes of libp2p with production's gossip behaviour in one process, and
//! 120 routers of `pqcnet_sim::gossip`, over the same graph with the same latencies, with the same messages.
//!
//! What is compared does not depend on how busy the machine is: over how many connections a message first came to each
//! node, how long these connections are together, and how many copies arrived. Wall-clock latencies are printed beside
//! (`cargo test -p pqcnet-sim --test calibration -- --nocapture`); docs/guides/sim.md has them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on stops; it prints what it compared"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_p2p::control::GossipConfig;
use pqcnet_sim::gossip::swarm::{Edge, Swarm, random_graph};
use pqcnet_sim::gossip::{Peer, Rules, Topic};

mod memory;
mod real;

const NODES: u32 = 120;
/// Each node dials so many: 12 connections a node, of which a mesh takes 6 to 12.
const DIALS: u32 = 6;
const MESSAGES: u32 = 30;
/// Between two of them: a busy machine has time for one before the next.
const PACE: Duration = Duration::from_millis(400);
/// Between two connections: which peers a mesh begins with hangs on their order.
const DIALLING: Duration = Duration::from_millis(5);
/// Of every message, so that bytes count messages.
const SIZE: usize = 512;
const SEED: u64 = 42;

/// How the two may differ, relative to the real one. The graph and the messages are the same, the meshes are not: each
/// node draws its own, and on a busy machine connections come about at other times. On a quiet one they differ by 1 or 2 %.
const HOPS: f64 = 0.10;
const PATHS: f64 = 0.15;
/// Of the longest: on a machine so busy that messages wait for seconds, the first to come is not the one that went the
/// shortest way.
const TAILS: f64 = 0.30;
const COPIES: f64 = 0.25;

/// One way, the same in both directions; long beside what a busy machine takes for a message.
fn latency(a: Peer, b: Peer) -> Duration {
    let (low, high) = (a.0.min(b.0), a.0.max(b.0));
    Duration::from_millis(u64::from(80 + (low * 31 + high * 17) % 80))
}

fn config() -> GossipConfig {
    GossipConfig {
        topics: vec!["adverts".to_owned()],
        ..GossipConfig::default()
    }
}

fn publisher(message: u32) -> Peer {
    Peer(message * 7 % NODES)
}

fn data(message: u32) -> Bytes {
    let mut data = vec![0; SIZE];
    data[..4].copy_from_slice(&message.to_be_bytes());
    data.into()
}

/// A first delivery: from whom, and after how long by the clock.
type Firsts = BTreeMap<(u32, Peer), (Peer, Duration)>;

/// What one network did.
struct Outcome {
    hops: Vec<f64>,
    paths: Vec<f64>,
    clock: Vec<f64>,
    copies: f64,
    mesh: f64,
}

impl Outcome {
    fn new(firsts: &Firsts, arrived: u64, mesh: f64) -> Outcome {
        let (mut hops, mut paths, mut clock) = (Vec::new(), Vec::new(), Vec::new());
        for ((message, node), (_, took)) in firsts {
            let (mut count, mut length, mut at) = (0, Duration::ZERO, *node);
            while at != publisher(*message) {
                let (from, _) = firsts[&(*message, at)];
                count += 1;
                length += latency(from, at);
                at = from;
            }
            hops.push(f64::from(count));
            paths.push(length.as_secs_f64() * 1e3);
            clock.push(took.as_secs_f64() * 1e3);
        }
        for all in [&mut hops, &mut paths, &mut clock] {
            all.sort_by(f64::total_cmp);
        }
        Outcome {
            copies: arrived as f64 / firsts.len() as f64,
            hops,
            paths,
            clock,
            mesh,
        }
    }

    fn show(&self, name: &str) {
        let row = |all: &[f64]| {
            let [a, b, c, d] = [0.5, 0.9, 0.99, 1.0].map(|part| quantile(all, part));
            format!(
                "mean {:.2}  p50 {a:.1}  p90 {b:.1}  p99 {c:.1}  max {d:.1}",
                mean(all)
            )
        };
        println!("{name}");
        println!("  deliveries        {}", self.hops.len());
        println!("  mesh, mean        {:.2}", self.mesh);
        println!("  hops              {}", row(&self.hops));
        println!("  path, ms          {}", row(&self.paths));
        println!("  clock, ms         {}", row(&self.clock));
        println!("  copies a delivery {:.3}", self.copies);
    }
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len() as f64
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len() - 1;
    sorted[(last as f64 * part).round() as usize]
}

/// The same on the simulator's routers.
fn simulated(edges: &[Edge], seed: u64) -> Outcome {
    let rules = Rules::of(&config()).unwrap();
    let topic = Topic(0);
    let dialled = (edges, DIALLING);
    let mut swarm = Swarm::new(&rules, NODES, dialled, latency, Duration::ZERO, seed);
    swarm.run_until(Duration::from_secs(15));
    let mut keys = BTreeMap::new();
    let start = swarm.now();
    for message in 0..MESSAGES {
        let key = swarm
            .publish(publisher(message), topic, data(message))
            .unwrap();
        keys.insert(key, message);
        swarm.run_until(start + PACE * (message + 1));
    }
    swarm.run_until(start + PACE * MESSAGES + Duration::from_secs(10));
    let mesh = (0..NODES).map(|n| swarm.router(Peer(n)).unwrap().mesh(topic).len());
    let mesh = mesh.sum::<usize>() as f64 / f64::from(NODES);
    let firsts = swarm.deliveries().filter(|(_, _, first)| first.hops > 0);
    let firsts: Firsts = firsts
        .map(|(key, to, first)| ((keys[&key], to), (first.from, first.took)))
        .collect();
    Outcome::new(&firsts, swarm.tally().arrived, mesh)
}

// Scenario: sixty messages in two settled networks of 120 nodes, one of libp2p in real time, one of routers in virtual time.
// Everybody hears everything in both; hops, lengths of paths and copies are alike within the stated parts.
#[test]
fn like_the_real_one() {
    let edges = random_graph(NODES, DIALS, SEED);
    let real = real::run(&edges);
    let ours = simulated(&edges, SEED);
    real.show("libp2p");
    ours.show("simulated");
    let all = (MESSAGES * (NODES - 1)) as usize;
    assert_eq!((real.hops.len(), ours.hops.len()), (all, all));
    let gap = |what: &str, real: f64, ours: f64, most: f64| {
        let gap = (ours - real) / real;
        println!(
            "{what}: {:+.1} %, at most {:.0} %",
            gap * 100.0,
            most * 100.0
        );
        assert!(
            gap.abs() <= most,
            "{what}: {real:.3} really, {ours:.3} simulated"
        );
    };
    gap("hops, mean", mean(&real.hops), mean(&ours.hops), HOPS);
    gap("path, mean", mean(&real.paths), mean(&ours.paths), PATHS);
    for (part, most) in [(0.5, PATHS), (0.9, TAILS), (0.99, TAILS)] {
        let name = format!("path, p{}", part * 100.0);
        gap(
            &name,
            quantile(&real.paths, part),
            quantile(&ours.paths, part),
            most,
        );
    }
    gap("copies a delivery", real.copies, ours.copies, COPIES);
}
