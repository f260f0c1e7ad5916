//! What can go wrong with a log.

use crate::{AppendBatch, ChannelId, ShardNo};

/// Why an append was not taken. Nothing of it will be found later.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The store's queue is full: offer the batch again a little later.
    #[error("the write queue is full")]
    Busy(AppendBatch),
    /// A later generation was opened, or an append of this one failed.
    #[error("generation {generation} of shard {} is over", .shard.0)]
    Fenced {
        /// Shard of the batch.
        shard: ShardNo,
        /// Generation of the batch.
        generation: u32,
    },
    /// Bug of the caller: another append of the shard is under way.
    #[error("bug: shard {} has an append under way", .shard.0)]
    UnderWay {
        /// Shard of the batch.
        shard: ShardNo,
    },
    /// Bug of the caller: the batch does not continue the channel.
    #[error("bug: shard {} channel {channel} continues at {expected}, not at {got}", .shard.0)]
    NotNext {
        /// Shard of the batch.
        shard: ShardNo,
        /// Channel that does not fit.
        channel: ChannelId,
        /// The next offset.
        expected: u64,
        /// The batch's first offset.
        got: u64,
    },
    /// Bug of the caller: the batch exceeds what the log takes at once.
    #[error("bug: a batch of {bytes} bytes is too large")]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// Why an operation under way failed. For appends, trims and opens the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No room; writing resumes by itself when there is.
    #[error("no room: {detail}")]
    Full {
        /// What was found.
        detail: String,
    },
    /// The disk or the engine failed.
    #[error("storage failed: {detail}")]
    Storage {
        /// The engine's words.
        detail: String,
    },
    /// Stored bytes do not check out. Nothing of them was served.
    #[error("shard {} channel {channel} is damaged at offset {offset}: {detail}", .shard.0)]
    Damaged {
        /// Shard.
        shard: ShardNo,
        /// Channel.
        channel: ChannelId,
        /// The first entry that could not be read.
        offset: u64,
        /// What was found; it names the file where the engine does.
        detail: String,
    },
    /// The shard's heads do not check out, so it cannot be served.
    #[error("shard {} is damaged: {detail}", .shard.0)]
    DamagedShard {
        /// Shard.
        shard: ShardNo,
        /// What was found.
        detail: String,
    },
    /// A later generation was opened meanwhile.
    #[error("a later generation of shard {} was opened", .shard.0)]
    Superseded {
        /// Shard.
        shard: ShardNo,
    },
    /// The write queue is full: try again a little later.
    #[error("the write queue is full")]
    Busy,
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}
