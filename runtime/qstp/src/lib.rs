//! QSTP/1, link profile: the channel under every byte between two nodes. Pure: messages and records in, bytes out.
//!
//! ```text
//!   Initiator                                   Responder
//!      │ ───────────── M1 (clear) ────────────────▶ │
//!      │ ◀──────────── Retry (puzzle) ───────────── │   only when the guard asks for it; no state is kept
//!      │ ───────────── M1 + token + solution ─────▶ │
//!      │ ◀──────────── M2 (keys sealed) ─────────── │   Step::Reply
//!      │ ───────────── M3 (sealed), then data ────▶ │   Done on both sides
//!      │ ◀───────────▶ records ◀──────────────────▶ │   Session::split() -> (Sealer, Opener)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | what a node brings to a handshake: network, suites, keys, limits, prologue |
//! | [`frame`] | `{type u8, length u24}` around every message and record; incremental, bounded decoder |
//! | [`initiator`], [`responder`] | the two state machines |
//! | [`retry`], [`puzzle`] | the stateless Retry |
//! | [`record`] | sealing and opening in place, key updates, authenticated close |
//! | [`session`] | what a finished handshake gives: both directions, exporter, channel binding |
//! | [`error`] | stage, reason, and which side found it; both sides learn the same |
//!
//! Spec: `docs/spec/qstp.md`, what it defends and what not: `docs/spec/threat-model.md`.
//!
//! Time is a [`Duration`](std::time::Duration) since any fixed moment of the process (monotonic); nothing here reads
//! or trusts the wall clock. Secret randomness comes from `pqcnet_crypto` (ephemeral keys, encapsulation, signing and
//! nonces alike), so no caller can hand in a weak generator; the `seeded` feature of that crate makes a run repeatable.
//!
//! # Driving a handshake
//! Read one message with [`frame::Decoder`] (or a 4-byte header and [`frame::Header::parse`]), give it to `on_message`,
//! send what comes back. On [`Failure`], send its `reject` if there is one, then close: that is how the other side learns
//! stage and reason. Every call is CPU-bound, from 0.1 to 0.5 ms; a Retry costs the initiator up to
//! 2^25 hashes ([`Config::with_puzzle`]).

pub mod config;
pub mod error;
pub mod frame;
pub mod initiator;
pub mod puzzle;
pub mod record;
mod reject;
pub mod responder;
pub mod retry;
mod schedule;
mod sealed;
pub mod session;
#[cfg(test)]
mod tests;
mod transcript;
mod wire;

pub use config::{Config, ConfigError, Limits, Profile, Suite};
pub use error::{Failure, FoundBy, HandshakeError, Reason, Stage};
pub use frame::MAX_HANDSHAKE_MESSAGE;
pub use initiator::{Initiator, InitiatorStep};
pub use record::{Kind, Opened, Opener, RecordError, SealError, Sealer};
pub use responder::{Admission, Responder, ResponderStep};
pub use retry::RetryKeys;
pub use session::Session;

/// Heap bytes that one side of one handshake holds at most, whatever its peer sends: its state, the message it reads and
/// the one it writes. What `tests/allocation.rs` measures stays below half of it.
pub const HANDSHAKE_MEMORY: usize = 65_536;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;
