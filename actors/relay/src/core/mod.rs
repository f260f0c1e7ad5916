//! The rules of a shard, pure: time and results come in as arguments, effects go out as data.
//!
//! [`shard::Shard`] ties together: [`producers`] (who may append what next), [`pending`] (what is on its way to the
//! disk), [`delivery`] (who gets what when, over [`subscription`] and [`tail`]), [`seal`] (how entries look at rest). [`flow`] says when
//! producers are to stop, [`pace`] when those that crowd out others have their next share, [`groups`] who of a consumer group has a channel. [`traces`] keeps
//! deliveries in the trace of their publish. [`volume`] counts for the meter. [`tenure`] says which shards are this relayer's,
//! [`moving`] brings them here.

pub mod channel;
pub mod delivery;
pub mod flow;
pub mod groups;
pub mod moving;
pub mod pace;
pub mod pending;
pub mod producers;
pub mod seal;
pub mod shard;
pub mod subscription;
pub mod tail;
pub mod tenure;
pub mod traces;
pub mod volume;

#[cfg(test)]
mod model;
#[cfg(test)]
mod races;
