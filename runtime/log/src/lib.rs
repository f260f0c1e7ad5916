//! The shard log: per channel, entries at offsets 1, 2, 3, …, appended durably, read from an offset, trimmed at the front.
//!
//! - [`ShardLog`] is the trait; [`EmbeddedLog`] keeps it in a [`pqcnet_store::Store`], [`BrokerLog`] on a RabbitMQ. Both pass
//!   the rules in `tests/rules`.
//! - The log does not look into entries: they arrive sealed, with the producer epoch and sequence they came under.
//! - *Generations fence writers.* [`ShardLog::open`] starts a new generation, durably, after everything an earlier one
//!   still had under way has settled; from then on an append by an earlier generation is refused. So a writer that
//!   opens and then reads the [heads](ShardLog::heads) knows all there is, and nothing is added behind its back.
//! - *One append under way a shard.* A failed append may or may not be found later, so a generation whose append failed
//!   is over: open again and read the heads.
//!
//! Keys and values on disk: [`keys`]. [`check`] holds them against each other; [`restored`] sets a copy apart; [`seek`] finds a
//! time. On a RabbitMQ: [`broker`], by the rules of [`core`].

mod batch;
pub mod broker;
pub mod check;
pub mod core;
mod embedded;
mod error;
mod fence;
pub mod keys;
pub mod restored;
pub mod seek;
mod types;

pub use batch::{AppendBatch, Base, ChannelSlot};
pub use broker::transport::BrokerSettings;
pub use broker::{AddressError, BrokerConfig, BrokerLog, Naming};
pub use embedded::EmbeddedLog;
pub use error::{AppendError, LogError};
pub use types::{
    ChannelHead, ChannelId, Entries, Letter, LetterKeys, Opened, Pending, ProducerMark,
    ReadRequest, Retention, Salt, ShardLog, ShardNo, Share,
};
