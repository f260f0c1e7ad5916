//! Scenario: the built-in scenarios with 32 nodes and in seconds instead of minutes. Each runs twice with one seed: every
//! invariant holds, the load went through, and both runs have the same hash, or the first event that differs is told.

use pqcnet_sim::play::{Options, play, play_twice};
use pqcnet_sim::report::{Outcome, Run};

use super::small;

fn same_twice(name: &str) -> Run {
    let loaded = small(name);
    assert_eq!(loaded.scenario.node_count(), 32);
    let (played, difference) = play_twice(&loaded, 7).unwrap_or_else(|error| panic!("{error}"));
    if let Some(difference) = difference {
        panic!("{difference}");
    }
    assert_eq!(played.run.outcome, Outcome::Held);
    let count = |name: &str| played.run.counts[name];
    assert!(count("load: sent") > 20, "{:?}", played.run.counts);
    assert!(count("load: delivered") >= count("load: acknowledged"));
    played.run
}

#[test]
fn steady() {
    let run = same_twice("small-steady");
    // Nothing goes wrong, so everything is acknowledged; and another seed is another run.
    assert_eq!(run.counts["load: sent"], run.counts["load: acknowledged"]);
    let other = play(&small("small-steady"), &Options::new(8), &mut |_| {});
    assert_ne!(other.expect("a run").run.event_hash, run.event_hash);
}

#[test]
fn churn() {
    assert!(same_twice("small-churn").counts["faults: steps"] > 5);
}

#[test]
fn partition_and_heal() {
    let run = same_twice("small-partition");
    assert!(run.counts["network: segments held up by a cut"] > 0);
}

#[test]
fn relayers_crash_under_load() {
    assert_eq!(same_twice("small-crash").counts["faults: steps"], 10);
}
