//! The mesh's rules, pure: no actors, no sockets, no clock.

pub mod announcer;
pub mod book;
pub mod circle;
pub mod directives;
pub mod peers;
pub mod scores;
pub mod standing;
#[cfg(test)]
pub(crate) mod testing;
