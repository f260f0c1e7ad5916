//! The latest durable records of a shard, so subscribers near the head cost no read.

use std::collections::{BTreeMap, VecDeque};

use pqcnet_log::ChannelId;
use pqcnet_messages::Record;

/// Counted for a record on top of its payload: its own size and its share of the queues.
const RECORD_COST: usize = 96;

/// Records of all channels, the oldest of any channel dropped first.
#[derive(Debug)]
pub struct Tail {
    max_bytes: usize,
    bytes: usize,
    channels: BTreeMap<ChannelId, VecDeque<Record>>,
    /// Channel of each record held, oldest first.
    order: VecDeque<ChannelId>,
}

impl Tail {
    /// Holds at most `max_bytes`, by its own count.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            bytes: 0,
            channels: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// What it holds, by its own count.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a channel's next record. After a jump in its offsets, what was held of the channel is dropped.
    pub fn push(&mut self, channel: ChannelId, record: Record) {
        let held = self.channels.entry(channel).or_default();
        if held
            .back()
            .is_some_and(|last| last.offset + 1 != record.offset)
        {
            self.drop_channel(channel);
        }
        self.bytes += cost(&record);
        self.channels.entry(channel).or_default().push_back(record);
        self.order.push_back(channel);
        while self.bytes > self.max_bytes {
            self.drop_oldest();
        }
    }

    fn drop_channel(&mut self, channel: ChannelId) {
        if let Some(held) = self.channels.remove(&channel) {
            self.bytes -= held.iter().map(cost).sum::<usize>();
            self.order.retain(|c| *c != channel);
        }
    }

    fn drop_oldest(&mut self) {
        let Some(channel) = self.order.pop_front() else {
            return;
        };
        if let Some(held) = self.channels.get_mut(&channel) {
            self.bytes -= held.pop_front().as_ref().map_or(0, cost);
            if held.is_empty() {
                self.channels.remove(&channel);
            }
        }
    }

    /// The records after `after`, if they are held without a hole; empty when that must come from the log.
    pub fn after(&self, channel: &ChannelId, after: u64) -> impl Iterator<Item = &Record> {
        let held = self.channels.get(channel);
        let skip = held.and_then(|held| {
            let first = held.front()?.offset;
            // Held from `first` on: the wanted next one must not be before it.
            (after + 1).checked_sub(first)
        });
        held.into_iter().flat_map(move |held| {
            let skip = skip.map_or(held.len(), |skip| skip as usize);
            held.iter().skip(skip)
        })
    }
}

fn cost(record: &Record) -> usize {
    record.payload.len() + RECORD_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ChannelId = ChannelId([1; 32]);
    const B: ChannelId = ChannelId([2; 32]);

    fn record(offset: u64) -> Record {
        Record {
            offset,
            published_at_ms: 0,
            payload: vec![0; 100 - RECORD_COST].into(),
        }
    }

    fn after(tail: &Tail, channel: &ChannelId, after: u64) -> Vec<u64> {
        tail.after(channel, after).map(|r| r.offset).collect()
    }

    // Room for four of 100 bytes: the oldest of any channel goes first, and what is before the held part is not served.
    #[test]
    fn holds_the_latest_of_all_channels() {
        let mut tail = Tail::new(400);
        for (channel, offset) in [(A, 5), (A, 6), (B, 1), (A, 7)] {
            tail.push(channel, record(offset));
        }
        assert_eq!(after(&tail, &A, 4), [5, 6, 7]);
        assert_eq!(after(&tail, &A, 6), [7]);
        assert_eq!(after(&tail, &A, 7), [0u64; 0]);
        assert_eq!(after(&tail, &A, 3), [0u64; 0]);
        tail.push(B, record(2));
        assert_eq!(after(&tail, &A, 4), [0u64; 0]);
        assert_eq!(after(&tail, &A, 5), [6, 7]);
        assert_eq!(after(&tail, &B, 0), [1, 2]);
        assert_eq!(tail.bytes, 400);
    }

    // Channel A jumps from 2 to 9 (storage was reopened and held more): 1 and 2 are not served as if 3 followed.
    #[test]
    fn a_jump_drops_what_was_before() {
        let mut tail = Tail::new(400);
        for (channel, offset) in [(A, 1), (B, 1), (A, 2), (A, 9)] {
            tail.push(channel, record(offset));
        }
        assert_eq!(after(&tail, &A, 0), [0u64; 0]);
        assert_eq!(after(&tail, &A, 8), [9]);
        assert_eq!(after(&tail, &B, 0), [1]);
        assert_eq!((tail.bytes, tail.order.len()), (200, 2));
    }

    // A record larger than the tail is not held at all.
    #[test]
    fn an_oversized_record_is_not_held() {
        let mut tail = Tail::new(99);
        tail.push(A, record(1));
        assert_eq!(after(&tail, &A, 0), [0u64; 0]);
        assert_eq!(tail.bytes, 0);
    }
}
