//! What a shard is limited by, asks its shell for, is given, and tells of itself.

use std::time::Duration;

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_log::{AppendBatch, ChannelId};
use pqcnet_messages::metering::{Reading, StoredVolume};
use pqcnet_messages::{Channel, PauseCause, Refusal};

use crate::core::delivery::{Delivered, DeliveryLimits};
use crate::core::flow::{FlowLimits, Listener, Signal};
use crate::core::groups::GroupKey;
use crate::core::pending::Stored;
use crate::core::volume::{Carried, SeriesKey};

/// Limits of one shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardLimits {
    /// Channels with anything stored.
    pub channels: usize,
    /// Of these, channels of one customer.
    pub customer_channels: usize,
    /// Channels that were named but have nothing stored.
    pub empty_channels: usize,
    /// Producers a channel.
    pub producers: usize,
    /// Payload bytes admitted and not yet durable.
    pub pending_bytes: usize,
    /// Deliveries.
    pub delivery: DeliveryLimits,
    /// When producers are asked to stop.
    pub flow: FlowLimits,
    /// Between two looks at members of groups that others wait behind.
    pub member_look: Duration,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            channels: 65_536,
            customer_channels: 4096,
            empty_channels: 1024,
            producers: 64,
            // Two full groups of the store's writer: one on its way, one forming.
            pending_bytes: 8 << 20,
            delivery: DeliveryLimits::default(),
            flow: FlowLimits::default(),
            // Five of them: longer than dealing with a record takes, short enough that a night is not lost.
            member_look: Duration::from_secs(60),
        }
    }
}

/// What the shell must do. `T` is whatever it answers a caller with.
#[derive(Debug)]
pub enum Effect<T> {
    /// Open the log and read its heads, then [`Shard::on_opened`](super::Shard::on_opened).
    Open,
    /// Hand to the log, then [`Shard::on_appended`](super::Shard::on_appended).
    Append(AppendBatch),
    /// Answer.
    Reply {
        /// Whom.
        to: T,
        /// What.
        result: Result<Stored, Refusal>,
    },
    /// For a subscriber.
    Deliver(Delivered),
    /// Copy a record that a group puts aside, then [`Shard::on_copied`](super::Shard::on_copied).
    Copy {
        /// Whose record.
        channel: ChannelId,
        /// Which group.
        of: GroupKey,
        /// Which record.
        offset: u64,
    },
    /// For a publisher.
    Signal {
        /// Whom, and what.
        signal: Signal,
        /// About which channel.
        channel: Channel,
    },
}

/// A publish, for [`Shard::publish`](super::Shard::publish).
#[derive(Debug)]
pub struct NewRecords {
    /// Who sends it.
    pub customer: NodeId,
    /// Where to.
    pub channel: Channel,
    /// Producer epoch.
    pub epoch: u64,
    /// Sequence of the first payload.
    pub first_seq: u64,
    /// Payloads.
    pub payloads: Vec<Bytes>,
    /// Whom to tell to stop.
    pub from: Option<Listener>,
}

/// How much a shard holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Channels with anything stored.
    pub channels: u64,
    /// Records ever stored.
    pub records: u64,
    /// Bytes of entries ever stored.
    pub bytes: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Stored records that still wait to be sent to the subscription furthest behind.
    pub lag_records: u64,
    /// Payload bytes admitted and not yet durable.
    pub unwritten_bytes: u64,
    /// Bytes of records in memory: those, and what is kept for subscribers.
    pub memory_bytes: u64,
    /// Channels whose producers are asked to stop.
    pub paused_channels: u64,
    /// The one that waits longest.
    pub paused: Option<(Channel, PauseCause)>,
    /// How often one was asked to, so far.
    pub pauses: u64,
    /// Members of consumer groups.
    pub group_members: u64,
    /// Records that they put aside.
    pub dead_letters: u64,
}

/// What [`Shard::take_volume`](super::Shard::take_volume) gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Names it.
    pub reading: Reading,
    /// The first generation that the shard worked in.
    pub generation: u32,
    /// Channels that stored something.
    pub stored: Vec<StoredVolume>,
    /// Series that were sent something, and those that are open.
    pub sent: Vec<(Channel, SeriesKey, Carried)>,
}
