//! Rules of the roles, pure: numbers come in as arguments, what changed goes out.

pub mod levels;
pub mod missing;
pub mod pairs;
pub mod probes;
pub mod starting;
