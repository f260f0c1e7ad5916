//! Disks, faults and invariants: that a simulated disk does what a store and a log must, that every invariant notices when
//! it is broken, and that whole networks keep their promises while everything goes wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[macro_use]
#[path = "../../../runtime/log/tests/rules/mod.rs"]
mod log_rules;

mod broker;
mod byzantine;
mod disk;
mod invariants;
mod log;
mod store;
#[path = "../../../runtime/log/tests/support/mod.rs"]
mod support;
mod town;
mod weather;
