//! The rules of a shard's log on a broker, and of what the embedded one keeps, pure: what happened comes in as arguments, what is to be done goes out as data.
//!
//! ```text
//!   append ──▶ Owner ──Publish──▶ channel ──▶ stream ──▶ Fold (whoever reads it back)
//!               │  ▲                 │
//!         Spill,│  └── confirm, nack, cut ◀┘
//!        Settle ▼
//!           local store
//! ```
//!
//! - [`owner`]: the one writer of a shard: what goes to the broker at once, what waits in the spill, what is acknowledged.
//! - [`ledger`]: which messages of a channel the broker confirmed, as a contiguous prefix of records.
//! - [`fold`]: what a stream's messages amount to, the same for every reader.
//! - [`segments`]: what the embedded log keeps, by size and age.
//! - [`shares`]: what a shard may bring to one write of it.
//!
//! Spec: docs/spec/relay.md §6.

pub mod fold;
pub mod ledger;
pub mod owner;
pub mod segments;
pub mod shares;

#[cfg(test)]
mod model;
