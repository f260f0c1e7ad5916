//! Nodes start, stop and end without a word.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_sim::crypto::Crypto;
use pqcnet_sim::world::{CrashKind, EventKind, NodeState, Observer, Verdict, WorldConfig};

use crate::support::{Town, twice};

fn config(seed: u64) -> WorldConfig {
    let mut config = WorldConfig::new(seed);
    config.crypto = Crypto::Modelled;
    config
}

// Scenario: a client publishes every 100 ms; its relayer's process is killed, and a second later it starts again on its disk.
// Later its machine loses power, and starts again. Everything published is acked in the end, offsets without a gap, and the
// whole is the same a second time.
#[test]
fn a_relayer_crashes_twice_and_nothing_is_lost() {
    let (_, done) = twice(|trace| {
        let mut town = Town::new(config(11), 1, 1, 1);
        town.world.observe(trace.clone());
        town.boot();
        town.load(100, Duration::from_millis(100));
        let relayer = town.members[0];
        for kind in [CrashKind::Process, CrashKind::Machine] {
            town.world.run_for(Duration::from_secs(2))?;
            assert!(town.world.crash(relayer, kind).is_some());
            assert_eq!(town.world.state(relayer), NodeState::Down);
            town.world.run_for(Duration::from_secs(1))?;
            town.world.start(relayer).unwrap();
        }
        town.world.run_for(Duration::from_secs(90))?;
        assert_eq!(town.world.state(relayer), NodeState::Up);
        let done = town.done.lock().clone();
        Ok((town.hash(), done))
    });
    assert_eq!(done.failed, Vec::<String>::new());
    let offsets: Vec<u64> = done.acked.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, (1..=100).collect::<Vec<u64>>());
}

// Scenario: a sentry is stopped in order under load: it is down within its deadline, its client waits, and goes on when the
// sentry is started again. A node that runs is not started twice.
#[test]
fn a_sentry_stops_in_order_and_comes_back() {
    let mut town = Town::new(config(12), 1, 1, 1);
    town.boot();
    town.load(20, Duration::from_millis(100));
    let sentry = town.members[1];
    assert!(town.world.start(sentry).is_err());
    town.world.run_for(Duration::from_secs(1)).unwrap();
    town.world.stop(sentry);
    assert_eq!(town.world.state(sentry), NodeState::Stopping);
    town.world.run_for(Duration::from_secs(30)).unwrap();
    assert_eq!(town.world.state(sentry), NodeState::Down);
    let acked = town.done.lock().acked.len();
    town.world.start(sentry).unwrap();
    town.world.run_for(Duration::from_secs(30)).unwrap();
    let done = town.done.lock().clone();
    assert!(acked < 20, "all were acked before the stop");
    assert_eq!((done.acked.len(), done.failed), (20, Vec::new()));
}

// Scenario: tasks of a node that crashes end where they are, in the middle of a wait, and what they hold is dropped; a task
// of a node that is down is not started.
#[test]
fn a_crash_ends_every_task() {
    struct Held(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.lock().push("dropped");
        }
    }
    let mut town = Town::new(config(13), 1, 0, 1);
    let client = town.clients[0];
    town.world.start(client).unwrap();
    let seen: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let (env, held) = (town.world.env(client).unwrap(), Held(seen.clone()));
    let (other, told) = (env.clone(), seen.clone());
    town.world.spawn(client, async move {
        other.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        other.sleep(Duration::from_secs(5)).await;
        told.lock().push("woke");
    });
    town.world.run_for(Duration::from_secs(1)).unwrap();
    assert!(seen.lock().is_empty());
    town.world.crash(client, CrashKind::Process);
    town.world.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(*seen.lock(), ["dropped"]);
    assert!(!town.world.spawn(client, async {}));
}

/// Has the n-th message of a name panic at whoever handles it, and counts what came of its kind.
struct Saboteur {
    message: &'static str,
    at: usize,
    seen: Arc<Mutex<usize>>,
}

impl Observer for Saboteur {
    fn on_event(&mut self, event: &pqcnet_sim::world::Event<'_>) -> Verdict {
        if event.kind != EventKind::Handled || event.message != self.message {
            return Verdict::Go;
        }
        let mut seen = self.seen.lock();
        *seen += 1;
        if *seen == self.at {
            return Verdict::Panic;
        }
        Verdict::Go
    }
}

// Scenario: the shard's worker panics at the third batch it is given: its supervisor starts it again, the client sends again,
// and all is acked once.
#[test]
fn an_actor_panics_at_a_chosen_message() {
    let seen: Arc<Mutex<usize>> = Arc::default();
    let mut town = Town::new(config(14), 1, 1, 1);
    town.world.observe(Saboteur {
        message: "relay.Publish",
        at: 3,
        seen: seen.clone(),
    });
    town.boot();
    town.load(10, Duration::from_millis(100));
    town.world.run_for(Duration::from_secs(60)).unwrap();
    let done = town.done.lock().clone();
    let offsets: Vec<u64> = done.acked.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, (1..=10).collect::<Vec<u64>>(), "{:?}", done.failed);
    assert!(*seen.lock() > 10, "the batch that met the panic came again");
}

// Scenario: a node's wall clock jumps by an hour and then runs fast by a thousandth; a restart sets it right. Nobody else's
// moves.
#[test]
fn a_wall_clock_jumps_and_drifts() {
    let mut town = Town::new(config(15), 1, 0, 2);
    let [first, second] = [town.clients[0], town.clients[1]];
    for node in [first, second] {
        town.world.start(node).unwrap();
    }
    let wall = |town: &mut Town, node| {
        let env = town.world.env(node).unwrap();
        town.world.wait(async move { env.wall_ms() }).unwrap()
    };
    let start = wall(&mut town, first);
    town.world.move_clock(first, 3_600_000, 1_000);
    assert_eq!(wall(&mut town, first), start + 3_600_000);
    town.world.run_for(Duration::from_secs(1_000)).unwrap();
    assert_eq!(wall(&mut town, first), start + 3_600_000 + 1_001_000);
    assert_eq!(wall(&mut town, second), start + 1_000_000);
    town.world.crash(first, CrashKind::Machine);
    town.world.start(first).unwrap();
    assert_eq!(wall(&mut town, first), start + 1_000_000);
}

// Scenario: a sentry that stops in order crashes before it has, and is started again at once. What is left of the stop leaves the
// new start alone: it stays up, and the client goes on.
#[test]
fn a_crash_overtakes_a_stop() {
    let mut town = Town::new(config(15), 1, 1, 1);
    town.boot();
    town.load(100, Duration::from_millis(100));
    let sentry = town.members[1];
    town.world.run_for(Duration::from_secs(1)).unwrap();
    town.world.stop(sentry);
    assert_eq!(town.world.state(sentry), NodeState::Stopping);
    town.world.crash(sentry, CrashKind::Process).unwrap();
    town.world.start(sentry).unwrap();
    town.world.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(town.world.state(sentry), NodeState::Up);
    let done = town.done.lock().clone();
    assert_eq!((done.acked.len(), done.failed), (100, Vec::new()));
}
