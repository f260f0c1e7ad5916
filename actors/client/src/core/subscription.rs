//! One subscription: holds what arrived until the application takes it, and checks that nothing is missing.
//!
//! The application stores the offset of the last record it took. After a lost link the subscription resumes after
//! exactly that one; what had arrived and was not taken is dropped and comes again, so that what is buffered never
//! exceeds one window.

use std::collections::VecDeque;

use pqcnet_messages::{MAX_OUTSTANDING_RECORDS, MAX_PAYLOAD, Record};

/// The sentry's fault in a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdelivery {
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

/// State of one subscription.
#[derive(Debug)]
pub struct Inbox {
    window: usize,
    taken: u64,
    received: u64,
    buffered: VecDeque<Record>,
    buffered_bytes: usize,
    unreported_bytes: usize,
    unreported: usize,
    skipped: u64,
    /// The highest offset taken: a group's member may be given what lies below it again.
    reached: u64,
    counts: Counts,
    /// Of a group's member: each turn begins where its first record is.
    floats: bool,
    begun: bool,
}

/// What the application took since the subscription's first start, each record once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub frames: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Inbox {
    /// Starts after `after`, with a window of so many payload bytes.
    pub fn new(after: u64, window: usize) -> Inbox {
        Inbox {
            window,
            taken: after,
            received: after,
            buffered: VecDeque::new(),
            buffered_bytes: 0,
            unreported_bytes: 0,
            unreported: 0,
            skipped: 0,
            reached: after,
            counts: Counts::default(),
            floats: false,
            begun: false,
        }
    }

    /// Of a group's member, which is told where each of its turns begins.
    pub fn floating(window: usize) -> Inbox {
        Inbox {
            floats: true,
            ..Inbox::new(0, window)
        }
    }

    /// Offsets that were passed over because they were no longer kept.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Nothing up to `offset` is kept any more: the next subscription goes on behind it.
    pub fn skip_through(&mut self, offset: u64) {
        if offset > self.taken {
            self.skipped += offset - self.taken;
            self.taken = offset;
            self.reached = offset;
            self.restart();
        }
    }

    /// What the application took so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The highest offset among these.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// The offset to resume after: the last one the application took.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// A new subscription starts at [`Inbox::taken`]; what was not taken comes again.
    pub fn restart(&mut self) -> u64 {
        self.buffered.clear();
        self.buffered_bytes = 0;
        self.unreported_bytes = 0;
        self.unreported = 0;
        self.received = self.taken;
        self.begun = false;
        self.taken
    }

    /// Records arrived.
    ///
    /// # Errors
    /// Nothing of a faulty delivery is kept.
    pub fn on_deliver(&mut self, records: Vec<Record>) -> Result<(), Misdelivery> {
        if self.floats
            && !self.begun
            && let Some(first) = records.first()
        {
            self.begun = true;
            self.received = first.offset.saturating_sub(1);
            self.taken = self.received;
        }
        let mut expected = self.received;
        let mut bytes = self.buffered_bytes;
        for record in &records {
            expected += 1;
            if record.offset != expected {
                return Err(Misdelivery::NotContiguous {
                    expected,
                    got: record.offset,
                });
            }
            bytes += record.payload.len();
        }
        // Any one record may come when nothing is outstanding.
        let over = bytes > self.window.max(MAX_PAYLOAD)
            || self.buffered.len() + records.len() > MAX_OUTSTANDING_RECORDS;
        if over {
            return Err(Misdelivery::WindowExceeded);
        }
        self.received = expected;
        self.buffered_bytes = bytes;
        self.buffered.extend(records);
        Ok(())
    }

    /// Hands the next record to the application.
    pub fn take(&mut self) -> Option<Record> {
        let record = self.buffered.pop_front()?;
        let bytes = record.payload.len();
        self.taken = record.offset;
        self.buffered_bytes -= bytes;
        self.unreported_bytes += bytes;
        self.unreported += 1;
        if record.offset > self.reached {
            self.reached = record.offset;
            self.counts.frames += 1;
            self.counts.bytes += bytes as u64;
        }
        Some(record)
    }

    /// The offset to report as consumed, once a quarter of the window has been taken: senders keep three quarters open,
    /// more than any one record needs.
    pub fn report(&mut self) -> Option<u64> {
        let due = self.unreported_bytes * 4 >= self.window
            || self.unreported * 4 >= MAX_OUTSTANDING_RECORDS;
        if !due || self.unreported == 0 {
            return None;
        }
        self.unreported_bytes = 0;
        self.unreported = 0;
        Some(self.taken)
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
            payload: Bytes::from(vec![offset as u8; len]),
        };
        offsets.into_iter().map(record).collect()
    }

    /// A resuming subscriber presents 10: records from 11 on are handed out in order; 10 or 12 first is refused.
    #[test]
    fn resumes_right_after_the_presented_offset() {
        let mut inbox = Inbox::new(10, 1000);
        for wrong in [1, 10, 12] {
            let refused = Err(Misdelivery::NotContiguous {
                expected: 11,
                got: wrong,
            });
            assert_eq!(inbox.on_deliver(records([wrong], 1)), refused);
        }
        let refused = Err(Misdelivery::NotContiguous {
            expected: 12,
            got: 13,
        });
        assert_eq!(inbox.on_deliver(records([11, 13], 1)), refused);
        assert_eq!(inbox.take(), None, "a faulty delivery leaves nothing");
        assert_eq!(inbox.on_deliver(records([11, 12], 1)), Ok(()));
        assert_eq!(inbox.take().map(|r| r.offset), Some(11));
        assert_eq!(inbox.taken(), 11);
    }

    /// The link goes with two records untaken: they are dropped and the resumption names the last one taken.
    #[test]
    fn restart_forgets_what_was_not_taken() {
        let mut inbox = Inbox::new(0, 1000);
        assert_eq!(inbox.on_deliver(records(1..=3, 1)), Ok(()));
        assert_eq!(inbox.take().map(|r| r.offset), Some(1));
        assert_eq!(inbox.restart(), 1);
        assert_eq!(inbox.take(), None);
        assert_eq!(inbox.on_deliver(records(2..=3, 1)), Ok(()));
        assert_eq!(inbox.take().map(|r| r.offset), Some(2));
    }

    /// Offsets up to 40 are gone when the subscriber, who took 1 and has 2 here, comes for more: it goes on with 41. One who is
    /// further does not go back.
    #[test]
    fn goes_on_behind_a_front_that_is_gone() {
        let mut inbox = Inbox::new(0, 1000);
        assert_eq!(inbox.on_deliver(records(1..=2, 1)), Ok(()));
        assert_eq!(inbox.take().map(|r| r.offset), Some(1));
        inbox.skip_through(40);
        assert_eq!((inbox.restart(), inbox.skipped()), (40, 39));
        assert_eq!(inbox.on_deliver(records(41..=42, 1)), Ok(()));
        assert_eq!(inbox.take().map(|r| r.offset), Some(41));
        inbox.skip_through(40);
        assert_eq!((inbox.taken(), inbox.skipped()), (41, 39));
        assert_eq!(inbox.take().map(|r| r.offset), Some(42));
    }

    /// A window of two large records: the third at once is the sentry's fault; taken room is room again.
    #[test]
    fn window_is_kept() {
        let mut inbox = Inbox::new(0, 2 * MAX_PAYLOAD);
        let excess = Err(Misdelivery::WindowExceeded);
        assert_eq!(inbox.on_deliver(records(1..=3, MAX_PAYLOAD)), excess);
        assert_eq!(inbox.on_deliver(records(1..=2, MAX_PAYLOAD)), Ok(()));
        assert_eq!(inbox.on_deliver(records([3], 1)), excess);
        assert_eq!(inbox.report(), None);
        assert_eq!(inbox.take().map(|r| r.offset), Some(1));
        assert_eq!(inbox.report(), Some(1), "half a window taken");
        assert_eq!(inbox.report(), None, "reported once");
        assert_eq!(inbox.on_deliver(records([3], 10)), Ok(()));
    }

    /// Empty payloads cost a window nothing: their number is bounded instead, and reported by number.
    #[test]
    fn empty_records_are_counted() {
        let max = MAX_OUTSTANDING_RECORDS as u64;
        let mut inbox = Inbox::new(0, 1 << 20);
        assert_eq!(inbox.on_deliver(records(1..=max, 0)), Ok(()));
        let excess = Err(Misdelivery::WindowExceeded);
        assert_eq!(inbox.on_deliver(records([max + 1], 0)), excess);
        for _ in 1..max / 4 {
            assert!(inbox.take().is_some());
            assert_eq!(inbox.report(), None);
        }
        assert!(inbox.take().is_some());
        assert_eq!(inbox.report(), Some(max / 4));
    }

    /// A group's member: its turn begins wherever the first record is, below what it had before as well; within a turn nothing is
    /// left out.
    #[test]
    fn a_turn_begins_anywhere() {
        let mut inbox = Inbox::floating(1000);
        assert_eq!(inbox.on_deliver(records(41..=43, 1)), Ok(()));
        assert_eq!(inbox.take().map(|record| record.offset), Some(41));
        let (expected, got) = (44, 45);
        let missing = Err(Misdelivery::NotContiguous { expected, got });
        assert_eq!(inbox.on_deliver(records([45], 1)), missing);
        inbox.restart();
        assert_eq!(inbox.on_deliver(records(7..=8, 1)), Ok(()));
        assert_eq!(inbox.take().map(|record| record.offset), Some(7));
        assert_eq!(inbox.taken(), 7);
    }

    /// A member takes 41 to 43 of ten bytes each; what it did not commit, 42 and 43, comes again with its next turn and then 44; a turn
    /// later it is given 60. Each of the five counts once, and its windows open as for any other.
    #[test]
    fn over_its_turns_a_member_counts_each_record_once() {
        let mut inbox = Inbox::floating(100);
        for turn in [41..=43, 42..=44, 60..=60] {
            inbox.restart();
            assert_eq!(inbox.on_deliver(records(turn.clone(), 10)), Ok(()));
            for offset in turn {
                assert_eq!(inbox.take().map(|record| record.offset), Some(offset));
            }
        }
        let (frames, bytes) = (5, 50);
        assert_eq!(inbox.counts(), Counts { frames, bytes });
        assert_eq!((inbox.reached(), inbox.taken()), (60, 60));
        inbox.restart();
        assert_eq!(inbox.on_deliver(records(58..=60, 10)), Ok(()));
        while inbox.take().is_some() {}
        assert_eq!(inbox.counts(), Counts { frames, bytes });
        assert_eq!(inbox.report(), Some(60));
    }

    proptest! {
        /// Whatever the batches, takes and link losses, the application sees 1, 2, 3 and so on, each once.
        #[test]
        fn application_sees_each_offset_once(steps in proptest::collection::vec(0u8..6, 1..200)) {
            let mut inbox = Inbox::new(0, usize::MAX / 8);
            let (mut seen, mut next) = (0u64, 1u64);
            for step in steps {
                match step {
                    0 => next = inbox.restart() + 1,
                    1 | 2 => {
                        let count = u64::from(step) * 3;
                        prop_assert_eq!(inbox.on_deliver(records(next..next + count, 1)), Ok(()));
                        next += count;
                    }
                    _ => if let Some(record) = inbox.take() {
                        prop_assert_eq!(record.offset, seen + 1);
                        seen += 1;
                    },
                }
            }
        }
    }
}
