//! Larger networks repeat too, and other schedules are found.

use std::time::Duration;

use pqcnet_sim::crypto::Crypto;
use pqcnet_sim::net::{Link, Uniform};
use pqcnet_sim::world::{Hash, WorldConfig};

use crate::support::{Town, twice};

fn config(seed: u64) -> WorldConfig {
    let mut config = WorldConfig::new(seed);
    config.crypto = Crypto::Modelled;
    config.links = Box::new(Uniform(Link {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(5),
        loss: 0.01,
        ..Link::default()
    }));
    config
}

fn run(seed: u64, yields: u32, [relayers, sentries, clients]: [usize; 3]) -> (Hash, usize) {
    let (hash, acked) = twice(|trace| {
        let mut config = config(seed);
        config.yields = yields;
        let mut town = Town::new(config, relayers, sentries, clients);
        town.world.observe(trace.clone());
        town.boot();
        town.load(5, Duration::from_millis(200));
        town.world.run_for(Duration::from_secs(15))?;
        let done = town.done.lock().clone();
        assert_eq!(done.failed, Vec::<String>::new());
        Ok((town.hash(), done.acked.len()))
    });
    assert_eq!(acked, 5 * clients);
    (hash, acked)
}

// Scenario: 32 nodes over links with jitter and loss, every client publishes: all is acked, twice alike.
#[test]
fn thirty_two_nodes_repeat() {
    run(21, 0, [3, 9, 20]);
}

// Scenario: 200 nodes, the same.
#[test]
fn two_hundred_nodes_repeat() {
    run(22, 0, [4, 36, 160]);
}

// Scenario: one poll in eight gives way: the same nodes do their work in another order, and repeat it.
#[test]
fn yields_make_other_schedules() {
    let size = [2, 3, 5];
    let straight = run(23, 0, size).0;
    let yielding = run(23, 8, size).0;
    assert_ne!(straight, yielding);
    assert_ne!(run(23, 4, size).0, yielding);
}
