//! Scenario: thirty-two nodes under every kind of fault, with two hundred seeds; each is another schedule of the same
//! faults, and no promise may break in any. A broken one names its seed: `pqcnet-sim run <file> --seed <n>` shows it again.
//! Four parts, so that they share the machine's cores; `make soak` has ten thousand seeds.

use pqcnet_sim::play::{Options, play};
use pqcnet_sim::report::Outcome;

use super::small;

const EACH: u64 = 50;

fn part(number: u64) {
    let loaded = small("small-mixed");
    assert_eq!(loaded.scenario.node_count(), 32);
    let mut broken = Vec::new();
    for seed in number * EACH + 1..=(number + 1) * EACH {
        let played = play(&loaded, &Options::new(seed), &mut |_| {});
        let played = played.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(played.run.counts["load: acknowledged"] > 0, "seed {seed}");
        if let Outcome::Broken(found) = played.run.outcome {
            broken.push(format!("seed {seed}: {}", found.reason));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn seeds_1_to_50() {
    part(0);
}

#[test]
fn seeds_51_to_100() {
    part(1);
}

#[test]
fn seeds_101_to_150() {
    part(2);
}

#[test]
fn seeds_151_to_200() {
    part(3);
}
