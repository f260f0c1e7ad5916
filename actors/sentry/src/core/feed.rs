//! One subscription of one client, fed by a relayer that may come and go.
//!
//! The client sees one unbroken run of offsets: after a relayer's link is lost the sentry drops what waits, subscribes
//! again after the last offset it sent on, and goes on. The relayer sends at most one window that the client has not
//! consumed, counted from that subscription; so at most one window waits here beside the one on its way to the client.

use std::collections::VecDeque;

use pqcnet_messages::{
    MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_OUTSTANDING_RECORDS, MAX_PAYLOAD, Record,
};

/// The relayer's fault in a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfed {
    /// The offset does not follow the one before.
    NotContiguous {
        /// The offset that had to come.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// More came than the window allows.
    WindowExceeded,
}

/// What waits for, and what is on its way to, one subscription's client.
#[derive(Debug)]
pub struct Feed {
    window: usize,
    received: u64,
    queue: VecDeque<Record>,
    queued_bytes: usize,
    /// Payload bytes of each record sent and not consumed; the first is the one after `consumed`.
    outstanding: VecDeque<usize>,
    outstanding_bytes: usize,
    consumed: u64,
    /// Where it begins is told by its first record.
    floating: bool,
}

impl Feed {
    /// Starts after `after`.
    pub fn new(after: u64, window: usize) -> Feed {
        Feed {
            window,
            received: after,
            queue: VecDeque::new(),
            queued_bytes: 0,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            consumed: after,
            floating: false,
        }
    }

    /// Of a group's member, which is told where its turn begins.
    #[must_use]
    pub fn floating(mut self) -> Feed {
        self.floating = true;
        self
    }

    /// A new relayer subscription starts after this offset, the last one sent on; what waited comes again.
    pub fn restart(&mut self) -> u64 {
        self.queue.clear();
        self.queued_bytes = 0;
        self.received = self.consumed + self.outstanding.len() as u64;
        self.received
    }

    /// Records from the relayer.
    ///
    /// # Errors
    /// Nothing of a faulty delivery is kept.
    pub fn on_records(&mut self, records: Vec<Record>) -> Result<(), Misfed> {
        if let Some(first) = records.first()
            && std::mem::take(&mut self.floating)
        {
            self.received = first.offset.saturating_sub(1);
            self.consumed = self.received;
        }
        let mut expected = self.received;
        let mut bytes = self.queued_bytes;
        for record in &records {
            expected += 1;
            if record.offset != expected {
                return Err(Misfed::NotContiguous {
                    expected,
                    got: record.offset,
                });
            }
            bytes += record.payload.len();
        }
        // Any one record may come when nothing is outstanding.
        let over = bytes > self.window.max(MAX_PAYLOAD)
            || self.queue.len() + records.len() > MAX_OUTSTANDING_RECORDS;
        if over {
            return Err(Misfed::WindowExceeded);
        }
        self.received = expected;
        self.queued_bytes = bytes;
        self.queue.extend(records);
        Ok(())
    }

    /// The client has dealt with everything up to `offset`. Returns what to tell the relayer, `None` if it is no news.
    pub fn on_consumed(&mut self, offset: u64) -> Option<u64> {
        let sent = self.consumed + self.outstanding.len() as u64;
        let upto = offset.min(sent);
        if upto <= self.consumed {
            return None;
        }
        for len in self.outstanding.drain(..(upto - self.consumed) as usize) {
            self.outstanding_bytes -= len;
        }
        self.consumed = upto;
        Some(upto)
    }

    /// Whether [`Feed::next_batch`] has one.
    pub fn is_ready(&self) -> bool {
        let fits = |record: &Record| {
            self.outstanding_bytes + record.payload.len() <= self.window
                && self.outstanding.len() < MAX_OUTSTANDING_RECORDS
        };
        let next = self.queue.front();
        next.is_some_and(|record| self.outstanding.is_empty() || fits(record))
    }

    /// The next batch for the client, as far as its window allows; a record always fits an empty window.
    pub fn next_batch(&mut self) -> Option<Vec<Record>> {
        let mut batch = Vec::new();
        let mut payload_bytes = 0;
        while let Some(record) = self.queue.front() {
            let len = record.payload.len();
            let over_window = self.outstanding_bytes + len > self.window
                || self.outstanding.len() >= MAX_OUTSTANDING_RECORDS;
            payload_bytes += len;
            if (over_window && !self.outstanding.is_empty())
                || batch.len() == MAX_BATCH_RECORDS
                || payload_bytes > MAX_BATCH_BYTES
            {
                break;
            }
            self.outstanding.push_back(len);
            self.outstanding_bytes += len;
            self.queued_bytes -= len;
            batch.extend(self.queue.pop_front());
        }
        if batch.is_empty() { None } else { Some(batch) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn records(offsets: impl IntoIterator<Item = u64>, len: usize) -> Vec<Record> {
        let record = |offset| Record {
            offset,
            published_at_ms: 7,
            payload: Bytes::from(vec![0; len]),
        };
        offsets.into_iter().map(record).collect()
    }

    fn offsets(batch: Option<Vec<Record>>) -> Vec<u64> {
        batch.unwrap_or_default().iter().map(|r| r.offset).collect()
    }

    /// A window of two records: the third waits until the client has consumed one; consuming what was never sent, or
    /// twice, changes nothing.
    #[test]
    fn the_clients_window_is_kept() {
        let mut feed = Feed::new(4, 20);
        assert_eq!(feed.on_records(records(5..=8, 10)), Ok(()));
        assert_eq!(offsets(feed.next_batch()), [5, 6]);
        assert_eq!(feed.next_batch(), None);
        assert_eq!(feed.on_consumed(4), None);
        assert_eq!(feed.on_consumed(5), Some(5));
        assert_eq!(feed.on_consumed(5), None);
        assert_eq!(offsets(feed.next_batch()), [7]);
        assert_eq!(feed.on_consumed(99), Some(7), "clipped to what was sent");
        assert_eq!(offsets(feed.next_batch()), [8]);
    }

    /// A group's member: its turn begins wherever its first record is, and is counted from there.
    #[test]
    fn a_turn_begins_anywhere() {
        let mut feed = Feed::new(0, 20).floating();
        assert_eq!(feed.on_records(records(41..=43, 10)), Ok(()));
        assert_eq!(offsets(feed.next_batch()), [41, 42]);
        assert_eq!(feed.on_consumed(40), None);
        assert_eq!(feed.on_consumed(41), Some(41));
        assert_eq!(offsets(feed.next_batch()), [43]);
        let (expected, got) = (44, 45);
        let missing = Err(Misfed::NotContiguous { expected, got });
        assert_eq!(feed.on_records(records([45], 1)), missing);
    }

    /// A record larger than the whole window still goes out, alone.
    #[test]
    fn one_record_always_fits() {
        let mut feed = Feed::new(0, 10);
        assert_eq!(feed.on_records(records(1..=2, 100)), Ok(()));
        assert_eq!(offsets(feed.next_batch()), [1]);
        assert_eq!(feed.next_batch(), None);
        assert_eq!(feed.on_consumed(1), Some(1));
        assert_eq!(offsets(feed.next_batch()), [2]);
    }

    /// The relayer goes away with two records waiting here and comes back: they come again, after the last one sent on;
    /// a repeated or skipped one is the relayer's fault and leaves no trace.
    #[test]
    fn goes_on_after_the_last_offset_sent() {
        let mut feed = Feed::new(0, 2);
        assert_eq!(feed.on_records(records(1..=4, 1)), Ok(()));
        assert_eq!(offsets(feed.next_batch()), [1, 2]);
        assert_eq!(feed.restart(), 2);
        assert_eq!(feed.next_batch(), None);
        for wrong in [2, 4] {
            let refused = Err(Misfed::NotContiguous {
                expected: 3,
                got: wrong,
            });
            assert_eq!(feed.on_records(records([wrong], 1)), refused);
        }
        assert_eq!(feed.on_records(records(3..=5, 1)), Ok(()));
        assert_eq!(feed.on_consumed(2), Some(2));
        assert_eq!(offsets(feed.next_batch()), [3, 4]);
    }

    /// A relayer that ignores the window, in bytes or in records, is caught before its data is kept.
    #[test]
    fn window_exceeded() {
        let mut feed = Feed::new(0, 4 * MAX_PAYLOAD);
        assert_eq!(
            feed.on_records(records(1..=5, MAX_PAYLOAD)),
            Err(Misfed::WindowExceeded)
        );
        assert_eq!(feed.on_records(records(1..=4, MAX_PAYLOAD)), Ok(()));
        assert_eq!(
            feed.on_records(records([5], 1)),
            Err(Misfed::WindowExceeded)
        );
        let many = MAX_OUTSTANDING_RECORDS as u64;
        assert_eq!(
            feed.on_records(records(5..=many + 1, 0)),
            Err(Misfed::WindowExceeded)
        );
        assert_eq!(feed.on_records(records(5..=many, 0)), Ok(()));
    }

    proptest! {
        /// Whatever comes and is consumed in whatever order, batches are contiguous, within their limits, and the bytes on
        /// their way never exceed the window once more than one record is.
        #[test]
        fn batches_are_contiguous_and_bounded(
            steps in proptest::collection::vec((0u8..3, 1u64..40, 1usize..200), 1..200),
        ) {
            const WINDOW: usize = 2000;
            let mut feed = Feed::new(0, WINDOW);
            let (mut fed, mut seen) = (0, 0);
            let mut way: Vec<usize> = Vec::new();
            let mut consumed = 0u64;
            for (step, count, len) in steps {
                match step {
                    0 => {
                        if feed.on_records(records(fed + 1..=fed + count, len)).is_ok() {
                            fed += count;
                        }
                    }
                    1 => {
                        if let Some(upto) = feed.on_consumed(consumed + count) {
                            way.drain(..(upto - consumed) as usize);
                            consumed = upto;
                        }
                    }
                    _ => while feed.is_ready() {
                        let batch = feed.next_batch().unwrap();
                        for record in batch {
                            seen += 1;
                            prop_assert_eq!(record.offset, seen);
                            way.push(record.payload.len());
                        }
                        prop_assert!(way.iter().sum::<usize>() <= WINDOW || way.len() == 1);
                    },
                }
            }
        }
    }
}
