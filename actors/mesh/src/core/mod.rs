//! The mesh's rules, pure: no actors, no sockets, no clock.

pub mod peers;
