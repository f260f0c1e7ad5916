//! Whole networks in bad weather.

use std::time::Duration;

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
