//! Which messages of one channel the broker confirmed, and so which records are in its stream without a hole before them.

use std::collections::{BTreeSet, VecDeque};

/// A record on its way to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub record: u64,
    /// Sequence of its first message in the channel's writer epoch.
    pub sequence: u64,
    /// Its size.
    pub bytes: u64,
    /// Delivery tag of its last message.
    last_tag: u64,
}

/// The confirms of one channel. Delivery tags count from 1 and are given in the order of publishing.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Tags given so far.
    given: u64,
    /// Every tag up to this one is confirmed.
    through: u64,
    /// Confirmed tags beyond a hole; at most as many as are on their way.
    beyond: BTreeSet<u64>,
    sent: VecDeque<Sent>,
    bytes: u64,
}

impl Ledger {
    /// The ledger of a new channel on which `settled` messages were published and confirmed.
    pub fn new(settled: u64) -> Self {
        Self {
            given: settled,
            through: settled,
            ..Self::default()
        }
    }

    /// A record of so many messages and bytes was published next.
    pub fn published(&mut self, record: u64, sequence: u64, messages: u64, bytes: u64) {
        self.given += messages;
        self.bytes += bytes;
        let last_tag = self.given;
        self.sent.push_back(Sent {
            record,
            sequence,
            bytes,
            last_tag,
        });
    }

    /// The broker confirmed a tag, or all up to it. A tag that was never given, or confirmed before, changes nothing.
    pub fn confirmed(&mut self, tag: u64, multiple: bool) {
        if tag > self.given || tag <= self.through {
            return;
        }
        if multiple {
            self.through = tag;
            self.beyond = self.beyond.split_off(&(tag + 1));
        } else {
            self.beyond.insert(tag);
        }
        while self.beyond.remove(&(self.through + 1)) {
            self.through += 1;
        }
    }

    /// The next record all of whose messages, and all before it, are confirmed.
    pub fn next_durable(&mut self) -> Option<Sent> {
        let first = self.sent.front()?;
        if first.last_tag > self.through {
            return None;
        }
        self.bytes -= first.bytes;
        self.sent.pop_front()
    }

    /// Records on their way.
    pub fn records(&self) -> usize {
        self.sent.len()
    }

    /// Bytes on their way.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(ledger: &mut Ledger) -> Vec<u64> {
        std::iter::from_fn(|| ledger.next_durable())
            .map(|sent| sent.record)
            .collect()
    }

    // Three records of 2, 1 and 3 messages behind a claim; confirms come out of order, singly and together.
    #[test]
    fn only_the_contiguous_prefix_is_durable() {
        let mut ledger = Ledger::new(1);
        for (record, sequence, messages) in [(7, 1, 2), (8, 3, 1), (9, 4, 3)] {
            ledger.published(record, sequence, messages, 10);
        }
        ledger.confirmed(4, false);
        ledger.confirmed(3, false);
        assert!(durable(&mut ledger).is_empty());
        ledger.confirmed(2, false);
        assert_eq!(durable(&mut ledger), [7, 8]);
        assert_eq!((ledger.records(), ledger.bytes()), (1, 10));
        ledger.confirmed(7, false);
        assert!(durable(&mut ledger).is_empty());
        ledger.confirmed(6, true);
        assert_eq!(durable(&mut ledger), [9]);
        assert_eq!((ledger.records(), ledger.bytes()), (0, 0));
    }

    // A broker that confirms what it was never sent, or twice, moves nothing.
    #[test]
    fn unknown_tags_change_nothing() {
        let mut ledger = Ledger::new(0);
        ledger.published(1, 1, 2, 0);
        ledger.confirmed(9, true);
        ledger.confirmed(3, false);
        ledger.confirmed(0, true);
        assert!(durable(&mut ledger).is_empty());
        ledger.confirmed(2, true);
        ledger.confirmed(1, true);
        assert_eq!(durable(&mut ledger), [1]);
        ledger.published(2, 3, 1, 0);
        assert!(durable(&mut ledger).is_empty());
    }
}
