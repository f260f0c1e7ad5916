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
//! - [`Envoy`]: one another relayer's link, temporary: it says who asks the holder.
//! - [`Intake`]: one a sentry's link, temporary: it ends with the link, and when it ends otherwise the link must close.
//! - A worker sends records straight to the link; the first may reach the sentry before the answer to its subscribe.

mod copy;
pub mod core;
mod envoy;
mod holder;
mod intake;
mod shard_worker;

pub use copy::{Counterpart, Place as CopyPlace, Reach};
pub use core::tenure::{MapInForce, Place, Tenure};
pub use envoy::{By, Envoy};
pub use holder::{Holder, HolderConfig, KeepTenure, LoadTenure};
pub use intake::{Admits, Domain, Intake, IntakeConfig, IntakeLimits};
pub use shard_worker::{ShardWorker, ShardWorkerConfig};
