//! The client's rules, pure: no runtime, no sockets, no clock.

pub mod producer;
pub mod subscription;
pub mod tally;
