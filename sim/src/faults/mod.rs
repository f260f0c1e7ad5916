//! What goes wrong in a world, and when: steps in order of time, drawn from a scenario, from dice, or written by hand.
//!
//! ```text
//!   scenario ─▶ Script::of ──┐
//!   dice ─────▶ Script::drawn┼▶ Script ──drive──▶ World: crash, cut, slow down, move clocks, fill disks ...
//!   a test ───▶ Script::add ─┘      │
//!                                   └─▶ Weather: who is in trouble, since when it is over ──▶ Oracle
//! ```
//!
//! A step that names a node which is not there in the state it needs (a crash of a node that is down) does nothing.
//! Churn comes as an iterator of [`Change`](crate::scenario::churn::Change)s.

mod drawn;
mod panics;
mod read;
mod script;
mod weather;

pub use drawn::Dice;
pub use panics::Panics;
pub use script::{Act, Restarts, Script};
pub use weather::Weather;
