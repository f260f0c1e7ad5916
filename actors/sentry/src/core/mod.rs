//! The sentry's rules, pure: no actors, no sockets, no clock.

pub mod feed;
pub mod outbox;
pub mod routes;
pub mod shares;
