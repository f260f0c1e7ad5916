//! The sentry: one session a client link, one uplink a relayer.
//!
//! ```text
//!             ┌─────────────────────────── a sentry ───────────────────────────┐
//!   client ═══╪═ ClientSession ── requests, straight over the link ────────────╪═══ relayer
//!             │        └───────── subscriptions ──── Uplink (one a relayer) ═══╪═══ relayer
//!             │                                        ▲ LinkUp, LinkDown      │
//!             │                                     Dialler (actors/mesh)      │
//!             └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A sentry stores nothing. What it holds for a client is bounded: requests by the link's ask window, deliveries by the
//! windows of its subscriptions. A relayer that goes away costs the client a pause: subscriptions resume by themselves
//! after the last offset sent on, requests are answered `Unavailable` and are worth repeating.
//! Spec: docs/spec/link.md (services `edge` and `relay`). The role's tree that starts these: `node/roles`.

mod client_session;
mod core;
mod ingress;
mod link;
mod routing;
mod uplink;

pub use client_session::{
    BOUNDS as SESSION_BOUNDS, ClientSession, MAX_SUBSCRIPTIONS, MAX_WINDOW, MAX_WINDOWS,
    SessionShared, WindowShares,
};
pub use ingress::{
    FeedConsumed, FeedTag, Forward, Join, OpenRelaySession, StartFeed, StopFeed, UplinkChanged,
};
pub use link::{ClientLink, Closer, Permit, RelayLink};
pub use routing::Routing;
pub use uplink::{BOUNDS as UPLINK_BOUNDS, Uplink, UplinkRefs, Uplinks};
