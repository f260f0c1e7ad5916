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
//! - [`ShardWorker`]: one a shard of the network, permanent; those of shards that are elsewhere rest.
//! - [`Holder`]: takes over shards that the root's map gives to this relayer, and gives away those that it gives to others.
//! - [`Intake`]: one a sentry's link, temporary: it ends with the link, and when it ends otherwise the link must close.
//! - A worker sends records straight to the link; the first may reach the sentry before the answer to its subscribe.

pub mod core;
mod holder;
mod intake;
mod shard_worker;

pub use core::tenure::{MapInForce, Place, Tenure};
pub use holder::{AskShard, Holder, HolderConfig, KeepTenure, LoadTenure, Release};
pub use intake::{Admits, Domain, Intake, IntakeConfig, IntakeLimits};
pub use shard_worker::{ShardWorker, ShardWorkerConfig};
