//! A batch of entries for one shard as data: one flat buffer, filled in place.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{ChannelHead, ChannelId, ProducerMark, ShardNo};

/// A channel's place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSlot(usize);

/// Where a channel stands before a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// Highest offset; 0 when it has no entry yet.
    pub head: u64,
    /// Bytes of entries ever stored.
    pub bytes: u64,
    /// Highest producer epoch whose mark was ever dropped.
    pub forgotten_epoch: u64,
    /// When the newest entry was written, milliseconds since the Unix epoch.
    pub newest_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub channel: ChannelId,
    /// Offset of the run's first entry.
    pub first: u64,
    /// Offset of the next entry.
    pub next: u64,
    pub bytes: u64,
    pub forgotten_epoch: u64,
    pub newest_ms: u64,
    pub forget: Vec<u64>,
    /// Marks that came without their entries.
    pub marks: Vec<ProducerMark>,
    pub about: Option<Bytes>,
    /// What is below `first` is not kept.
    pub skips: bool,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub run: usize,
    pub offset: u64,
    pub epoch: u64,
    pub sequence: u64,
    /// End of its bytes; the start is the previous entry's end.
    pub end: usize,
}

/// Epoch and sequence of an entry whose producer's mark comes by itself. No epoch is 0.
pub(crate) const NO_PRODUCER: (u64, u64) = (0, 0);

/// Entries and channel changes that become durable together.
pub struct AppendBatch {
    pub(crate) shard: ShardNo,
    pub(crate) generation: u32,
    pub(crate) buffer: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) runs: Vec<Run>,
    pub(crate) crowding: u64,
    /// In microseconds: a batch is handed about in errors, and they are to be small.
    patience: u32,
    by_channel: BTreeMap<ChannelId, usize>,
}

/// Its size and never its bytes: a refused batch may end up in somebody's error text.
impl fmt::Debug for AppendBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendBatch")
            .field("shard", &self.shard)
            .field("generation", &self.generation)
            .field("entries", &self.entries.len())
            .field("bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl AppendBatch {
    /// An empty batch of a generation that [`ShardLog::open`](crate::ShardLog::open) started.
    pub fn new(shard: ShardNo, generation: u32) -> Self {
        Self {
            shard,
            generation,
            buffer: Vec::new(),
            entries: Vec::new(),
            runs: Vec::new(),
            crowding: 0,
            patience: 0,
            by_channel: BTreeMap::new(),
        }
    }

    /// The slot of `channel`, which stood at `base` before this batch. A channel that has a slot keeps it.
    pub fn channel(&mut self, channel: ChannelId, base: Base) -> ChannelSlot {
        let runs = &mut self.runs;
        ChannelSlot(*self.by_channel.entry(channel).or_insert_with(|| {
            runs.push(Run {
                channel,
                first: base.head + 1,
                next: base.head + 1,
                bytes: base.bytes,
                forgotten_epoch: base.forgotten_epoch,
                newest_ms: base.newest_ms,
                forget: Vec::new(),
                marks: Vec::new(),
                about: None,
                skips: false,
            });
            runs.len() - 1
        }))
    }

    /// Adds the channel's next entry, written at `at_ms`, of the bytes that `write` appends to the buffer. Returns its
    /// offset.
    pub fn push(
        &mut self,
        slot: ChannelSlot,
        (epoch, sequence): (u64, u64),
        at_ms: u64,
        write: impl FnOnce(u64, &mut Vec<u8>),
    ) -> u64 {
        let run = &mut self.runs[slot.0];
        let offset = run.next;
        let start = self.buffer.len();
        write(offset, &mut self.buffer);
        run.next += 1;
        run.newest_ms = at_ms;
        run.bytes += (self.buffer.len() - start) as u64;
        self.entries.push(Entry {
            run: slot.0,
            offset,
            epoch,
            sequence,
            end: self.buffer.len(),
        });
        offset
    }

    /// The same for an entry that was stored elsewhere before; [`mark`](Self::mark) says how far its producer got.
    pub fn push_copy(
        &mut self,
        slot: ChannelSlot,
        at_ms: u64,
        write: impl FnOnce(u64, &mut Vec<u8>),
    ) -> u64 {
        self.push(slot, NO_PRODUCER, at_ms, write)
    }

    /// How far a producer got whose entries were stored elsewhere before.
    pub fn mark(&mut self, slot: ChannelSlot, mark: ProducerMark) {
        self.runs[slot.0].marks.push(mark);
    }

    /// The channel's numbers after the batch, as they were elsewhere; its head is what its entries make it.
    pub fn settle_as(&mut self, slot: ChannelSlot, base: Base) {
        let run = &mut self.runs[slot.0];
        run.bytes = base.bytes;
        run.forgotten_epoch = base.forgotten_epoch;
        run.newest_ms = base.newest_ms;
    }

    /// Nothing at or below the base that the channel was given is kept.
    pub fn skip_to_base(&mut self, slot: ChannelSlot) {
        self.runs[slot.0].skips = true;
    }

    /// Replaces what is stored about the channel.
    pub fn set_about(&mut self, slot: ChannelSlot, about: Bytes) {
        self.runs[slot.0].about = Some(about);
    }

    /// Drops a producer's mark; the highest epoch ever dropped stays known.
    pub fn forget(&mut self, slot: ChannelSlot, epoch: u64) {
        let run = &mut self.runs[slot.0];
        run.forget.push(epoch);
        run.forgotten_epoch = run.forgotten_epoch.max(epoch);
    }

    /// The shard it is for.
    pub fn shard(&self) -> ShardNo {
        self.shard
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is neither an entry nor a channel change.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of all entries.
    pub fn byte_len(&self) -> usize {
        self.buffer.len()
    }

    /// The entries: channel, offset, epoch, sequence and sealed bytes, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = (ChannelId, u64, u64, u64, &[u8])> {
        let mut start = 0;
        self.entries.iter().map(move |e| {
            let bytes = &self.buffer[start..e.end];
            start = e.end;
            (
                self.runs[e.run].channel,
                e.offset,
                e.epoch,
                e.sequence,
                bytes,
            )
        })
    }
}

impl AppendBatch {
    /// What each channel's head becomes, marks aside.
    pub fn heads(&self) -> impl Iterator<Item = (ChannelId, ChannelHead)> {
        self.runs.iter().map(|run| {
            let head = ChannelHead {
                channel: run.channel,
                first: run.first,
                head: run.next - 1,
                forgotten_epoch: run.forgotten_epoch,
                bytes: run.bytes,
                newest_ms: run.newest_ms,
                producers: Vec::new(),
                about: run.about.clone(),
            };
            (run.channel, head)
        })
    }

    /// So many of its bytes are of channels that crowd out others of the shard.
    pub fn crowding(&mut self, bytes: u64) {
        self.crowding += bytes;
    }

    /// It may wait for so long for a batch of somebody else to be written with, where the log is one that writes them together.
    pub fn may_wait(&mut self, patience: Duration) {
        self.patience = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    }

    /// How long it may wait so; zero: not at all.
    pub fn patience(&self) -> Duration {
        Duration::from_micros(u64::from(self.patience))
    }

    /// Whether this batch drops a producer's mark.
    pub fn forgets(&self, channel: ChannelId, epoch: u64) -> bool {
        let run = self
            .by_channel
            .get(&channel)
            .map(|index| &self.runs[*index]);
        run.is_some_and(|run| run.forget.contains(&epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two channels interleave: each counts its own offsets, and the bytes come back entry by entry.
    #[test]
    fn offsets_count_per_channel() {
        let (a, b) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let mut batch = AppendBatch::new(ShardNo(3), 1);
        assert!(batch.is_empty());
        let slot_a = batch.channel(
            a,
            Base {
                head: 10,
                bytes: 500,
                forgotten_epoch: 4,
                newest_ms: 60,
            },
        );
        let slot_b = batch.channel(b, Base::default());
        assert_eq!(batch.channel(a, Base::default()), slot_a);
        for (slot, text) in [(slot_a, "one"), (slot_b, "two"), (slot_a, "")] {
            batch.push(slot, (7, 1), 70, |_, out| {
                out.extend_from_slice(text.as_bytes())
            });
        }
        let seen: Vec<_> = batch
            .entries()
            .map(|(c, o, _, _, x)| (c, o, x.to_vec()))
            .collect();
        assert_eq!(
            seen,
            [
                (a, 11, b"one".to_vec()),
                (b, 1, b"two".to_vec()),
                (a, 12, vec![])
            ]
        );
        assert_eq!(
            (batch.len(), batch.byte_len(), batch.runs[0].bytes),
            (3, 6, 503)
        );
        let debug = format!("{batch:?}");
        assert!(
            debug.contains("entries: 3, bytes: 6") && !debug.contains("111"),
            "{debug}"
        );
        batch.forget(slot_a, 3);
        assert_eq!(
            (batch.runs[0].forgotten_epoch, batch.runs[0].newest_ms),
            (4, 70)
        );
    }
}
