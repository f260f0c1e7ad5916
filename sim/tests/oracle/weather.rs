//! Whole networks in bad weather.

use std::time::Duration;

use pqcnet_sim::faults::Act;
use pqcnet_sim::oracle::Limits;
use pqcnet_sim::world::Trace;

use crate::town::{Town, stormy};

// Three relayers, three sentries, four clients, no faults: everything that is sent is acknowledged and delivered.
#[test]
fn fair_weather() {
    let lasts = Duration::from_secs(5);
    let limits = Limits {
        mailbox: Some(1024),
        ..Limits::default()
    };
    let mut town = Town::new(7, [3, 3, 4], Duration::from_millis(200), lasts, limits);
    town.run_for(Duration::from_secs(8)).unwrap();
    town.settle(Duration::from_secs(10)).unwrap();
    let totals = town.oracle.totals();
    assert!(totals.sent >= 4 * 20, "{totals:?}");
    assert_eq!((totals.acked, totals.delivered), (totals.sent, totals.sent));
    assert_eq!(totals.unknown, 0);
}

// Thirty-two nodes, forty faults, a few seeds: every promise is kept.
#[test]
fn promises_hold_in_a_storm() {
    for seed in 1..=3 {
        let (_, totals) = stormy(seed, 40, None).unwrap_or_else(|stopped| panic!("{stopped}"));
        assert!(totals.acked > 200 && totals.resumed > 20, "{totals:?}");
    }
}

// The same seed, twice: event for event the same.
#[test]
fn a_storm_repeats() {
    let (first, second) = (Trace::new(), Trace::new());
    let run = |trace| stormy(1, 40, Some(trace)).unwrap_or_else(|stopped| panic!("{stopped}"));
    let outcomes = (run(&first), run(&second));
    if let Some(difference) = first.difference(&second) {
        panic!("{difference}");
    }
    assert_eq!(outcomes.0, outcomes.1);
}

// Three steps make one node's links worse, and end in another order than they began in; a fourth makes those of the other end
// worse meanwhile. Each counts for as long as it lasts, and in the end every link is as it was made.
#[test]
fn links_are_mended_in_any_order() {
    let lasts = Duration::from_secs(1);
    let mut town = Town::new(9, [1, 1, 2], lasts, lasts, Limits::default());
    let (a, b, now) = (town.relayers[0], town.sentries[0], town.world.now());
    let made = town.world.net().link(a, b);
    for (number, node, times, from, to) in [
        (1_001, a, 2.0, 1, 4),
        (1_002, a, 3.0, 2, 7),
        (1_003, a, 5.0, 3, 6),
        (1_004, b, 7.0, 5, 8),
    ] {
        let loss = 0.01;
        let act = Act::Worsen {
            number,
            node,
            times,
            loss,
        };
        town.script.add(now + Duration::from_secs(from), act);
        town.script
            .add(now + Duration::from_secs(to), Act::Mend(number));
    }
    let half = Duration::from_millis(500);
    for (after, times, steps) in [
        (1, 2, 1.0),
        (2, 6, 2.0),
        (3, 30, 3.0),
        (4, 15, 2.0),
        (5, 105, 3.0),
        (6, 21, 2.0),
        (7, 7, 1.0),
        (8, 1, 0.0),
    ] {
        let until = now + Duration::from_secs(after) + half;
        let rest = until - town.world.now();
        town.run_for(rest).unwrap();
        for (from, to) in [(a, b), (b, a)] {
            let link = town.world.net().link(from, to);
            assert_eq!(link.latency, made.latency * times, "after {after} s");
            assert!(
                (link.loss - made.loss - 0.01 * steps).abs() < 1e-9,
                "after {after} s"
            );
        }
    }
    assert_eq!(town.world.net().link(a, b), made);
}

// A sentry's steward panics at every message until its tree gives up and its program ends: it is started again, as by the
// service manager that production nodes have, and everything is delivered.
#[test]
fn a_program_that_gives_up_is_started_again() {
    let every = Duration::from_millis(100);
    let lasts = Duration::from_secs(10);
    let mut town = Town::new(13, [1, 1, 2], every, lasts, Limits::default());
    let (sentry, now) = (town.sentries[0], town.world.now());
    for _ in 0..100 {
        let act = Act::Panic(sentry, "sentry/steward".to_owned(), None, 0);
        town.script.add(now + Duration::from_secs(1), act);
    }
    town.run_for(Duration::from_secs(15)).unwrap();
    town.settle(Duration::from_secs(60)).unwrap();
    assert!(town.script.revived() > 0);
    let totals = town.oracle.totals();
    assert_eq!((totals.acked, totals.delivered), (totals.sent, totals.sent));
}

// Many seeds of the same, in processes of their own. SEEDS=from..to, FAULTS=n.
#[test]
#[ignore = "a long run: make soak"]
fn many_storms() {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "1..200".to_owned());
    let (from, to) = seeds.split_once("..").unwrap();
    let faults = std::env::var("FAULTS").map_or(40, |text| number(&text) as usize);
    let mut broken = Vec::new();
    for seed in number(from)..=number(to) {
        if let Err(stopped) = stormy(seed, faults, None) {
            eprintln!("{stopped}");
            broken.push((seed, stopped.reason));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
