//! Sentries that break the rules: honest clients at honest sentries notice nothing.

use std::time::Duration;

use pqcnet_sim::faults::{Act, Conduct};
use pqcnet_sim::oracle::Limits;

use crate::town::Town;

const SECOND: Duration = Duration::from_secs(1);

/// The first of three sentries behaves like this for eight seconds, with two clients of its own; two others use the honest
/// ones. What it has done, and what the honest clients got.
fn town_with(conduct: Conduct) -> u64 {
    let limits = Limits {
        grace: Some(10 * SECOND),
        mailbox: Some(1024),
        ..Limits::default()
    };
    let every = Duration::from_millis(100);
    let mut town = Town::with(5, [2, 3, 4], every, 10 * SECOND, limits, |town| {
        let bad = town.sentries[0];
        town.oracle.distrust(town.world.id(bad));
        // Client 1 reads what client 0 publishes, and so on in pairs.
        for victim in [0, 1] {
            town.oracle.give_up(town.clients[victim]);
        }
    });
    let (bad, now) = (town.sentries[0], town.world.now());
    town.script.add(now + SECOND, Act::Falls(bad, conduct));
    let outcome = town.run_for(12 * SECOND);
    outcome.unwrap_or_else(|stopped| panic!("{conduct:?}: {stopped}"));
    let done = town.script.conducts().done(bad);
    town.script.add(town.world.now(), Act::Repents(bad));
    let settled = town.settle(20 * SECOND);
    settled.unwrap_or_else(|stopped| panic!("{conduct:?}: {stopped}"));
    let totals = town.oracle.totals();
    assert!(totals.sent > 150, "{totals:?}");
    let all = (totals.sent, totals.sent);
    assert_eq!((totals.acked, totals.delivered), all, "{conduct:?}");
    done
}

#[test]
fn one_that_loses_what_it_gets() {
    assert!(town_with(Conduct::Loses(0.3)) > 5);
}

#[test]
fn one_that_takes_everything_twice() {
    assert!(town_with(Conduct::Repeats(1.0)) > 50);
}

#[test]
fn one_that_lies() {
    assert!(town_with(Conduct::Alters(0.5)) > 5);
}

#[test]
fn one_that_floods() {
    assert!(town_with(Conduct::Floods(500.0)) > 500);
}

// They do nothing that is counted.
#[test]
fn one_that_is_late_and_one_that_is_selfish() {
    assert_eq!(town_with(Conduct::Keeps(Duration::from_millis(700))), 0);
    assert_eq!(town_with(Conduct::Selfish), 0);
}
