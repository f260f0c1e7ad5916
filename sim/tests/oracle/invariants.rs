//! Every invariant is broken on purpose, and noticed. (Those of a channel's records: pqcnet-account's own tests break each.)

use std::time::Duration;

use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, Series};
use pqcnet_meter::core::ledger::Entry;
use pqcnet_meter::core::record::{Qos, RecordKey};
use pqcnet_meter::disk;
use pqcnet_sim::faults::Act;
use pqcnet_sim::net::Cut;
use pqcnet_sim::oracle::Limits;
use pqcnet_sim::world::{CrashKind, Stopped};
use pqcnet_store::{Batch, Store as _};

use crate::town::Town;

const EVERY: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

fn town(limits: Limits) -> Town {
    Town::new(11, [1, 2, 2], EVERY, 20 * SECOND, limits)
}

fn stopped(outcome: Result<(), Stopped>, because: &str) -> Stopped {
    let stopped = outcome.expect_err("nobody noticed");
    assert!(stopped.reason.contains(because), "{stopped}");
    assert_eq!(stopped.seed, 11);
    assert!(!stopped.last.is_empty());
    stopped
}

// The relayer's disk lies about its syncs and loses power: what it acknowledged is gone. Noticed at the crash, with the
// message and its offset; the same again gives the same words at the same time.
#[test]
fn a_lost_acknowledgement() {
    let run = || {
        let mut town = town(Limits::default());
        let (relayer, now) = (town.relayers[0], town.world.now());
        town.script
            .add(now + 3 * SECOND, Act::DiskLies(relayer, true));
        let crash = Act::Crash(relayer, CrashKind::Machine);
        town.script.add(now + 6 * SECOND, crash);
        town.script.add(now + 8 * SECOND, Act::Start(relayer));
        let outcome = town.run_for(15 * SECOND);
        assert!(town.world.now() < now + 8 * SECOND);
        stopped(outcome, "and the disk ends at offset")
    };
    assert_eq!(run(), run());
}

// A subscriber is cut off for good, and the weather says nothing of it: what is acknowledged does not reach it in time.
#[test]
fn a_subscriber_that_is_not_reached() {
    let limits = Limits {
        grace: Some(3 * SECOND),
        ..Limits::default()
    };
    let mut town = town(limits);
    town.run_for(4 * SECOND).unwrap();
    let reader = town.clients[1];
    let others = town.world.nodes().filter(|node| *node != reader);
    let groups = vec![vec![reader], others.collect()];
    town.world.net().cut(Cut::Groups(groups));
    stopped(town.run_for(15 * SECOND), "its subscriber does not have it");
}

// A publisher is cut off for good: what it sent is not answered in time.
#[test]
fn a_publisher_that_is_not_answered() {
    let limits = Limits {
        grace: Some(3 * SECOND),
        ..Limits::default()
    };
    let mut town = town(limits);
    town.run_for(4 * SECOND).unwrap();
    town.world.disk(town.relayers[0]).set_stalled(true);
    stopped(
        town.run_for(15 * SECOND),
        "its publisher knows nothing of it",
    );
}

// A relayer's meter comes back from a crash with a book that has more than was ever stored.
#[test]
fn a_meter_that_counts_too_much() {
    let mut town = town(Limits::default());
    town.run_for(4 * SECOND).unwrap();
    let (relayer, owner) = (town.relayers[0], town.clients[0]);
    town.world.crash(relayer, CrashKind::Process);
    let channel = Channel {
        owner: town.world.id(owner),
        name: "c".parse().unwrap(),
    };
    let key = RecordKey {
        qos: Qos::Stored,
        customer: channel.owner,
        channel,
        series: Series::NONE,
    };
    let entry = Entry {
        total: Volume {
            frames: 1_000,
            bytes: 100_000,
        },
        ..Entry::default()
    };
    let mut wrong = Batch::new();
    disk::put_entry(&mut wrong, &key, &entry);
    let env = town.world.env(owner).unwrap();
    let (of, schema) = (town.world.disk(relayer).clone(), disk::schema());
    let mounted = town
        .world
        .wait(async { of.mount_meter(&env, &schema, &Batch::new()) });
    let store = mounted.unwrap().unwrap().expect("relayers meter");
    let kept = town.world.wait(store.submit(wrong).unwrap());
    kept.unwrap().unwrap();
    drop(store);
    stopped(town.run_for(SECOND), "meters have 1000 messages as stored");
}

// The process has more memory than the run allows. (Mailboxes: a unit test, since no actor here ever fills one.)
#[test]
fn too_much_memory() {
    let limits = Limits {
        memory: Some((|| 2_000, 1_999)),
        ..Limits::default()
    };
    stopped(town(limits).run_for(SECOND), "2000 bytes of memory");
}
