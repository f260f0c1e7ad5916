//! A batch on its way to the disk, with everybody who waits for it.

use pqcnet_log::{AppendBatch, ChannelId};
use pqcnet_messages::Record;
use pqcnet_messages::edge::{DeadLetters, Published};
use pqcnet_messages::metering::Volume;

use super::channel::NewReaders;

/// What a caller is told once its batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The answer to a publish.
    Published(Published),
    /// The readers list is stored.
    Readers,
    /// The group is so far.
    Committed(u64),
    /// What a group put aside.
    Dead(DeadLetters),
}

/// What the records of one producer in a batch amount to.
#[derive(Debug, Clone, Copy)]
pub struct Advance {
    /// In which channel.
    pub channel: ChannelId,
    /// Whose.
    pub epoch: u64,
    /// Highest sequence.
    pub sequence: u64,
    /// Its offset.
    pub offset: u64,
    /// What it adds to the channel.
    pub volume: Volume,
}

/// Admitted together, durable together.
#[derive(Debug)]
pub struct Pending<T> {
    /// Its number; rises by one a batch.
    pub number: u64,
    /// The same records in clear, for subscribers at the head.
    pub records: Vec<(ChannelId, Record)>,
    /// How far each publish takes its producer, in order.
    pub advances: Vec<Advance>,
    /// New readers lists, in order.
    pub readers: Vec<NewReaders>,
    /// Who waits, in order.
    pub waiting: Vec<(T, Stored)>,
    /// Bytes of payloads.
    pub bytes: usize,
}

/// A batch that still grows: for the log, and for those who wait.
#[derive(Debug)]
pub struct Forming<T> {
    /// For the log.
    pub batch: AppendBatch,
    /// For those who wait.
    pub pending: Pending<T>,
}

impl<T> Forming<T> {
    /// Batch `number`, empty.
    pub fn new(number: u64, batch: AppendBatch) -> Self {
        let pending = Pending {
            number,
            records: Vec::new(),
            advances: Vec::new(),
            readers: Vec::new(),
            waiting: Vec::new(),
            bytes: 0,
        };
        Self { batch, pending }
    }
}
