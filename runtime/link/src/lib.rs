//! Typed links, pure: frames, credits, asks, the [`Wire`] and [`Addressed`] traits.
//!
//! A link carries messages between two nodes over one ordered byte stream that is already private and authenticated. It
//! moves (service, type id, bytes); what the bytes mean is the business of `messages`, where they go that of the driver in
//! `runtime/p2p`. Neither tasks nor sockets nor clocks here: bytes and time in, bytes and events out.
//! Spec: docs/spec/link.md.
//!
//! ```text
//!   asker                                   asked
//!   Hello ─────────────▶◀────────────────── Hello     versions, role, services, limits
//!   Ready ─────────────▶◀────────────────── Ready     each accepts the other
//!         ◀──────────────────────────────── Credit    256 units on (relay, request)
//!   Tell ──────────────▶                              costs units
//!         ◀──────────────────────────────── Credit    once the message is in its mailbox
//!   Ask 1 ─────────────▶                              takes units of the ask window
//!         ◀──────────────────────────────── Reply 1   gives them back
//!   Ask 2 ─────────────▶
//!   Cancel 2 ──────────▶
//!         ◀──────────────────────────────── Reply 2   Cancelled; exactly one reply an ask
//!   Down ──────────────▶                              stage and reason
//! ```
//!
//! Semantics: at most once, in order per (link, service, class). An ask that times out means *unknown*.

mod asks;
mod config;
mod credit;
mod error;
mod event;
mod frame;
mod ids;
mod link;
pub mod wire;

#[cfg(test)]
mod tests;

pub use config::{
    LINK_VERSION, Limits, LinkConfig, MAX_ASK_TIME, MAX_COST, MAX_DETAIL, MAX_FRAME,
    MAX_HELLO_FRAME, MAX_KEEPALIVE, MAX_SERVICES, MAX_SOFTWARE, MAX_WINDOW, MIN_MAX_FRAME,
    PeerHello, UNIT, cost,
};
pub use error::{DownReason, Fault, Reason, SendError, Stage};
pub use event::{Answer, Event, Inbound, Stats};
pub use ids::{Class, Role, ServiceId, Trace, UnknownRole};
pub use link::Link;
pub use wire::{Addressed, Wire, WireError};
