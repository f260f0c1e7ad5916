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
    let sent = run.counts["load: sent"];
    assert_eq!(sent, run.counts["load: acknowledged"]);
    // The relayers' meters, which close their windows in the end, have each message once, and receivers have signed for it.
    assert_eq!(run.counts["metering: relayers' books"], 3);
    for what in ["stored", "delivered", "signed for"] {
        assert_eq!(run.counts[&format!("metering: messages {what}")], sent);
    }
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

/// Scenario: the root moves shards with records three times, and two relayers crash while they are copied. Faults are not all that is
/// counted: three maps, two crashes and starts.
#[test]
fn shards_change_hands_under_load() {
    let run = same_twice("small-handover");
    assert_eq!(run.counts["faults: steps"], 7);
    assert_eq!(run.shares["loss after replay"], 0.0);
    assert!(run.shares["loss before replay"] > 0.0);
}

/// Scenario: the owner of shards and a sentry are cut off while the root gives them to others, twice: two would-be owners. What the
/// cut-off side goes on to store moves when the cut is healed.
#[test]
fn two_would_be_owners_in_a_partition() {
    let run = same_twice("small-two-owners");
    assert!(run.counts["network: segments held up by a cut"] > 0);
    assert_eq!(run.shares["loss after replay"], 0.0);
}

#[test]
fn a_hot_shard() {
    let run = same_twice("small-hot-shard");
    assert_eq!(run.shares["loss after replay"], 0.0);
}

/// Scenario: a relayer is gone for ten seconds with its machine: what was meant for it is published again.
#[test]
fn a_relayer_is_lost() {
    let run = same_twice("small-relayer-loss");
    assert!(run.counts["replay: messages published again"] > 0);
    assert_eq!(run.shares["loss after replay"], 0.0);
}

/// Scenario: windows of a second, and relayers that are killed and lose their machines in the middle of them, under load. Their meters
/// have exactly what their logs have, and what was taken is signed for, but for what was on its way when a machine went.
#[test]
fn meters_over_crashes() {
    let run = same_twice("small-metering");
    assert_eq!(run.counts["faults: steps"], 10);
    assert_eq!(run.counts["metering: relayers' books"], 3);
    let count = |what: &str| run.counts[&format!("metering: messages {what}")];
    assert_eq!(count("stored"), run.counts["load: delivered"]);
    assert!(count("signed for") <= count("stored"));
    assert!(count("signed for") <= count("delivered"));
    assert!(
        count("signed for") > count("stored") / 2,
        "{:?}",
        run.counts
    );
    // Without meters it is another run, and there is nothing to count.
    let mut without = small("small-metering");
    without.scenario.metering = None;
    let other = play(&without, &Options::new(7), &mut |_| {})
        .expect("a run")
        .run;
    assert_ne!(other.event_hash, run.event_hash);
    assert!(!other.counts.contains_key("metering: messages stored"));
}

/// Scenario: clients behind NATs of both kinds work as others do; two sentries behind NATs are dialled in vain, by clients and by
/// other nodes, serve nobody and keep their own links to relayers, also to one that crashes.
#[test]
fn nodes_behind_nats() {
    let run = same_twice("small-nat");
    let turned_away = "network: dials and datagrams that a NAT turned away";
    assert!(run.counts[turned_away] > 20, "{:?}", run.counts);
    assert_eq!(run.counts["load: sent"], run.counts["load: acknowledged"]);
    assert_eq!(run.shares["loss after replay"], 0.0);
    // Nothing else in the scenario turns anybody away.
    let open = play(&small("small-crash"), &Options::new(7), &mut |_| {});
    assert_eq!(open.expect("a run").run.counts[turned_away], 0);
}

/// Scenario: the broker that holds all logs is dead for eight seconds and a relayer dies with its spill meanwhile; then it forgets
/// its streams for three. What was acknowledged is there all along, and goes to the broker in order, before what is new.
#[test]
fn a_broker_is_away() {
    let run = same_twice("small-broker-outage");
    assert_eq!(run.counts["faults: steps"], 6);
    assert_eq!(run.nodes["broker"], 1);
    let all = run.counts["load: acknowledged"];
    assert_eq!(run.counts["broker: entries that stand"], all);
    assert_eq!(run.shares["loss after replay"], 0.0);
}

/// Scenario: shards change hands three times while all logs are on a broker. A new owner crashes while it copies, the broker is dead for three seconds
/// of the second move and an old owner dies meanwhile. All that was acknowledged is in the streams of those who have the shards in the end.
#[test]
fn shards_on_a_broker_change_hands() {
    let run = same_twice("small-broker-handover");
    assert_eq!(run.counts["faults: steps"], 9);
    let all = run.counts["load: acknowledged"];
    assert_eq!(run.counts["broker: entries that stand"], all);
    assert!(run.counts["broker: streams of shards that moved"] > 0);
    assert_eq!(run.shares["loss after replay"], 0.0);
}

/// Scenario: the source documents' claim, in small: churn and a spike of latency; less than 5 % would have been lost, nothing is.
#[test]
fn the_claim_in_small() {
    let run = same_twice("small-claim");
    let (before, after) = (
        run.shares["loss before replay"],
        run.shares["loss after replay"],
    );
    assert!(before < 0.05, "{before}");
    assert_eq!(after, 0.0);
}
