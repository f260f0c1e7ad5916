//! The relay: shard workers that admit, store, deliver, in order, and ack only what is durable.
//!
//! Spec: docs/spec/relay.md.
//!
//! ```text
//!   sentry ── link ──▶ Intake ──Admit, Follow, …──▶ ShardWorker ──AppendBatch──▶ ShardLog ──▶ disk
//!      ▲               sessions, grants              core::Shard  ◀── durable ──
//!      └──────────── RelayDeliver, RelaySubscriptionEnded ◀──┘
//! ```
//!
//! - [`ShardWorker`]: one a shard this relayer owns, permanent.
//! - [`Intake`]: one a sentry's link, temporary: it ends with the link, and when it ends otherwise the link must close.
//! - A worker sends records straight to the link; the first may reach the sentry before the answer to its subscribe.

pub mod core;
mod intake;
mod shard_worker;

pub use intake::{Admits, Domain, Intake, IntakeConfig, IntakeLimits};
pub use shard_worker::{ShardWorker, ShardWorkerConfig};
