//! What a relayer's actors tell its meter. Local only: nothing here has a form on the wire. Spec: docs/spec/metering.md.

use bytes::Bytes;
use pqcnet_actor::{Message, Ref};
use pqcnet_crypto::NodeId;

use crate::channel::Channel;
use crate::grant::Grant;
use crate::receipt::Series;
use crate::refusal::Refusal;
use crate::relay::RelayCountersign;
use crate::shard::ShardId;

/// Records and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Records.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Names one reading of a worker's book: `run` is one life of the worker, `serial` counts its readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Random for each life of a worker, never 0.
    pub run: u64,
    /// From 1.
    pub serial: u64,
}

/// To a shard's worker: what was stored and delivered since the reading that is kept for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeVolume {
    /// The last reading that is on the meter's disk. What came with later ones comes again.
    pub kept: Reading,
}

/// What one channel has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVolume {
    /// Which; its owner is the customer.
    pub channel: Channel,
    /// When the shard was opened here.
    pub at_open: Volume,
    /// Durable now, since the channel's first record.
    pub now: Volume,
}

/// What one subscription was sent since the last reading that was kept. A record is counted once a series, however often
/// it went over links.
#[derive(Debug, Clone)]
pub struct DeliveredVolume {
    /// Of which channel.
    pub channel: Channel,
    /// To whom.
    pub receiver: NodeId,
    /// In which of its subscriptions.
    pub series: Series,
    /// Where this worker began with it.
    pub after: u64,
    /// The last offset sent.
    pub last: u64,
    /// How much since the reading that was kept.
    pub volume: Volume,
    /// Where its receipt is asked for, and under which number, while it is open.
    pub ask: Option<(Ref<RelayCountersign>, u32)>,
}

/// A worker's book.
#[derive(Debug, Clone)]
pub struct VolumeTaken {
    /// Of which shard.
    pub shard: ShardId,
    /// How often the shard had moved when it came here.
    pub moves: u8,
    /// The log's first generation of this life; 1 when nothing was stored before it.
    pub generation: u32,
    /// Names this reading.
    pub reading: Reading,
    /// Channels that stored something since.
    pub stored: Vec<StoredVolume>,
    /// Subscriptions that were sent something since, and those that are open.
    pub delivered: Vec<DeliveredVolume>,
}

impl Message for TakeVolume {
    /// Refused while the shard is not open.
    type Reply = Result<VolumeTaken, Refusal>;
    const NAME: &'static str = "metering.TakeVolume";
}

/// To the meter: a grant that was verified, and holds here from now on.
#[derive(Debug, Clone)]
pub struct NoteGrant {
    /// It.
    pub grant: Grant,
}

impl Message for NoteGrant {
    type Reply = ();
    const NAME: &'static str = "metering.NoteGrant";
}

/// To the meter: close the window now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseWindow;

impl Message for CloseWindow {
    /// The number of the last window that is closed; `None` while there is none. An error says why it was not closed.
    type Reply = Result<Option<u64>, String>;
    const NAME: &'static str = "metering.CloseWindow";
}

/// To the meter: a report over these windows; none named: over all that are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateReport {
    /// First window.
    pub from: Option<u64>,
    /// Last window.
    pub to: Option<u64>,
}

impl Message for CreateReport {
    /// The file, or why there is none.
    type Reply = Result<Bytes, String>;
    const NAME: &'static str = "metering.CreateReport";
}

/// Sums since metering began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Published and durable.
    pub stored: Volume,
    /// Sent to receivers.
    pub delivered: Volume,
    /// Of that, signed for by them.
    pub receipted: Volume,
}

/// To the meter: what it has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTotals {
    /// Customers behind this one.
    pub after: Option<NodeId>,
    /// At most so many.
    pub limit: usize,
}

/// What a meter has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Windows that are closed: the number of the last one; 0 while there is none.
    pub window: u64,
    /// The oldest window that is kept.
    pub oldest: u64,
    /// When the last one was closed, milliseconds since the Unix epoch.
    pub closed_at_ms: u64,
    /// Of everybody.
    pub all: Sums,
    /// By customer, ascending.
    pub customers: Vec<(NodeId, Sums)>,
    /// There are more customers behind the last.
    pub more: bool,
}

impl Message for ReadTotals {
    /// An error says why it cannot be read.
    type Reply = Result<Totals, String>;
    const NAME: &'static str = "metering.ReadTotals";
}
