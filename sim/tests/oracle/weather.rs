//! Whole networks in bad weather.

use std::time::Duration;

use pqcnet_sim::oracle::Limits;

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

// Thirty-two nodes, forty faults, a few seeds: every promise is kept, and every seed gives the same run twice.
#[test]
fn promises_hold_in_a_storm() {
    for seed in 1..=3 {
        let (hash, totals) = stormy(seed, 40).unwrap_or_else(|stopped| panic!("{stopped}"));
        assert!(totals.acked > 200 && totals.resumed > 20, "{totals:?}");
        if seed == 1 {
            let again = stormy(seed, 40).unwrap_or_else(|stopped| panic!("{stopped}"));
            assert_eq!(again, (hash, totals));
        }
    }
}
