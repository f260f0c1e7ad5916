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
//!   Subscribe 1 ───────▶                              link version 2: events, watches, sequenced tells
//!         ◀──────────────────────────────── Event 1   items and gaps, no number left out
//!   Down ──────────────▶                              stage and reason
//! ```
//!
//! Semantics: at most once, in order per (link, service, class). An ask that times out means *unknown*. [`reliable`] adds
//! sequence, acknowledgement, repetition and dedup over as many links as it takes.

mod asks;
mod config;
mod credit;
mod error;
mod event;
mod event_log;
mod frame;
mod ids;
mod link;
mod outcome;
pub mod reliable;
mod streams;
mod text;
pub mod wire;

#[cfg(test)]
mod tests;

pub use config::{
    LINK_VERSION, LINK_VERSION_MIN, Limits, LinkConfig, MAX_ASK_TIME, MAX_COST, MAX_DETAIL,
    MAX_FRAME, MAX_HELLO_FRAME, MAX_KEEPALIVE, MAX_SERVICES, MAX_SOFTWARE, MAX_WINDOW,
    MIN_MAX_FRAME, PeerHello, UNIT, cost,
};
pub use error::{DownReason, Fault, Reason, SendError, Stage};
pub use event::{
    AckState, Answer, DroppedWhy, EndedWhy, Event, Fate, Inbound, Stats, StreamNotice,
};
pub use event_log::{Backlog, BacklogLimits, BadPosition, Cursor, Missed, Notice, Position};
pub use ids::{Class, Role, ServiceId, Trace, UnknownRole};
pub use link::{Link, To};
pub use streams::{MAX_SUBSCRIPTIONS, MAX_WATCHES};
pub use text::printable;
pub use wire::{Addressed, Wire, WireError};
