//! One subscription: where it stands and how much it may be owed. Spec: docs/spec/relay.md §4.

use std::collections::VecDeque;
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_log::ChannelId;
use pqcnet_messages::{MAX_OUTSTANDING_RECORDS, Record, Series};

use super::volume::SeriesKey;

/// Largest window: what one subscriber that never reads can make a link's two ends hold.
pub const MAX_WINDOW: usize = 16 << 20;

/// A subscriber that took nothing for so long holds nobody back: it may be gone for good.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// A subscription's name: the link it came over and the sentry's number on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey {
    /// The relayer's number of the link.
    pub link: u64,
    /// The sentry's number of the subscription.
    pub subscription: u32,
}

/// Deliveries of one channel to one subscriber.
#[derive(Debug)]
pub struct Subscription {
    /// Its name.
    pub key: SubscriptionKey,
    /// Of which channel.
    pub channel: ChannelId,
    /// For whom.
    pub customer: NodeId,
    /// In which of that one's series.
    pub series: Series,
    /// Highest offset delivered, or the one presented.
    pub delivered: u64,
    /// A read from the log is under way or waits for its turn.
    pub reading: bool,
    /// It waits in the queue of those that may have something to get.
    pub queued: bool,
    /// It came near the head once, and has not stood still since.
    keeps_up: bool,
    /// How far it was when it last moved, and when that was seen.
    seen: (u64, Duration),
    window_bytes: usize,
    outstanding_bytes: usize,
    /// Payload sizes of the records delivered and not consumed; the last is `delivered`'s.
    outstanding: VecDeque<u32>,
}

/// The subscriber says that it consumed what it never got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDelivered;

impl Subscription {
    /// A subscription to what comes after `after`.
    pub fn new(
        key: SubscriptionKey,
        channel: ChannelId,
        (customer, series): (NodeId, Series),
        after: u64,
        window_bytes: usize,
    ) -> Self {
        Self {
            key,
            channel,
            customer,
            series,
            delivered: after,
            reading: false,
            queued: false,
            keeps_up: false,
            seen: (after, Duration::ZERO),
            window_bytes: window_bytes.min(MAX_WINDOW),
            outstanding_bytes: 0,
            outstanding: VecDeque::new(),
        }
    }

    /// What it is called in the account of what was sent.
    pub fn series_key(&self) -> SeriesKey {
        SeriesKey {
            channel: self.channel,
            receiver: self.customer,
            series: self.series,
        }
    }

    /// Payload bytes that may be sent now; `None` when nothing may. With nothing outstanding any one record may go,
    /// however large.
    pub fn room(&self) -> Option<usize> {
        if self.outstanding.is_empty() {
            return Some(self.window_bytes);
        }
        if self.outstanding.len() >= MAX_OUTSTANDING_RECORDS {
            return None;
        }
        let room = self.window_bytes.checked_sub(self.outstanding_bytes)?;
        (room > 0).then_some(room)
    }

    /// Takes from `records` what may go in one delivery: the first always (callers asked [`room`](Self::room)), the
    /// others while they fit.
    pub fn take<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        max_records: usize,
        max_bytes: usize,
    ) -> Vec<Record> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for record in records.take(max_records) {
            let len = record.payload.len();
            if !self.fits(len) || (!taken.is_empty() && bytes + len > max_bytes) {
                break;
            }
            bytes += len;
            self.note(record);
            taken.push(record.clone());
        }
        taken
    }

    /// How far it is behind `head`, as far as that is to hold producers back: not while it catches up with what was there
    /// before it came, and not when it stands still.
    pub fn lag(&mut self, now: Duration, head: u64, near: u64) -> u64 {
        let behind = head.saturating_sub(self.delivered);
        if self.seen.0 != self.delivered || behind == 0 {
            self.seen = (self.delivered, now);
        }
        if behind <= near {
            self.keeps_up = true;
        } else if now.saturating_sub(self.seen.1) >= STANDS_STILL {
            self.keeps_up = false;
        }
        if self.keeps_up { behind } else { 0 }
    }

    fn fits(&self, len: usize) -> bool {
        self.outstanding.is_empty()
            || (self.outstanding.len() < MAX_OUTSTANDING_RECORDS
                && self.outstanding_bytes + len <= self.window_bytes)
    }

    fn note(&mut self, record: &Record) {
        // A payload has at most 64 KiB.
        self.outstanding.push_back(record.payload.len() as u32);
        self.outstanding_bytes += record.payload.len();
        self.delivered = record.offset;
    }

    /// Everything up to `offset` is dealt with. What was consumed before is fine to hear again.
    pub fn consumed(&mut self, offset: u64) -> Result<(), NotDelivered> {
        let behind = self.delivered.checked_sub(offset).ok_or(NotDelivered)?;
        while self.outstanding.len() as u64 > behind {
            if let Some(bytes) = self.outstanding.pop_front() {
                self.outstanding_bytes -= bytes as usize;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(range: std::ops::RangeInclusive<u64>, len: usize) -> Vec<Record> {
        let record = |offset| Record {
            offset,
            published_at_ms: 0,
            payload: vec![0; len].into(),
        };
        range.map(record).collect()
    }

    fn subscription(after: u64, window: usize) -> Subscription {
        let key = SubscriptionKey {
            link: 1,
            subscription: 1,
        };
        Subscription::new(
            key,
            ChannelId([0; 32]),
            (NodeId::from_bytes([0; 32]), Series::NONE),
            after,
            window,
        )
    }

    fn take(s: &mut Subscription, range: std::ops::RangeInclusive<u64>, len: usize) -> Vec<u64> {
        s.take(records(range, len).iter(), 100, 1000)
            .iter()
            .map(|r| r.offset)
            .collect()
    }

    // A window of 300 and records of 120 each: two go, the third waits until one is consumed.
    #[test]
    fn the_window_is_exact() {
        let mut s = subscription(0, 300);
        assert_eq!(take(&mut s, 1..=5, 120), [1, 2]);
        assert_eq!(s.room(), Some(60));
        assert_eq!(take(&mut s, 3..=5, 120), [0u64; 0]);
        s.consumed(1).unwrap();
        assert_eq!(s.room(), Some(180));
        assert_eq!(take(&mut s, 3..=5, 120), [3]);
        s.consumed(1).unwrap();
        assert_eq!(s.consumed(4), Err(NotDelivered));
        s.consumed(3).unwrap();
        assert_eq!(s.room(), Some(300));
    }

    // A record larger than the window goes alone, and nothing else until it is consumed; a window of none still moves.
    #[test]
    fn an_oversized_record_goes_alone() {
        for window in [0, 10] {
            let mut s = subscription(0, window);
            assert_eq!(take(&mut s, 1..=2, 40), [1]);
            assert_eq!(s.room(), None);
            s.consumed(1).unwrap();
            assert_eq!(take(&mut s, 2..=2, 40), [2]);
        }
    }

    // One delivery is bounded in records and bytes, whatever the window; a window is bounded too.
    #[test]
    fn a_delivery_is_bounded() {
        let mut s = subscription(0, usize::MAX);
        assert_eq!(s.room(), Some(MAX_WINDOW));
        assert_eq!(s.take(records(1..=50, 10).iter(), 3, 1000).len(), 3);
        let four = 4 * 10;
        assert_eq!(s.take(records(4..=50, 10).iter(), 100, four + 5).len(), 4);
        assert_eq!(s.delivered, 7);
    }

    // From far behind it holds nobody back until it has come near once; falling behind it does, until it stands still for
    // ten seconds, and then not before it has come near again.
    #[test]
    fn whose_lag_counts() {
        let at = Duration::from_secs;
        let mut s = subscription(0, 1 << 20);
        assert_eq!(s.lag(at(0), 100, 20), 0);
        take(&mut s, 1..=85, 1);
        assert_eq!(s.lag(at(1), 100, 20), 15);
        assert_eq!(s.lag(at(2), 200, 20), 115);
        take(&mut s, 86..=90, 1);
        assert_eq!(s.lag(at(11), 200, 20), 110);
        assert_eq!(s.lag(at(20), 200, 20), 110);
        assert_eq!(s.lag(at(21), 200, 20), 0);
        take(&mut s, 91..=100, 1);
        assert_eq!(s.lag(at(22), 200, 20), 0);
        take(&mut s, 101..=190, 1);
        assert_eq!(s.lag(at(23), 200, 20), 10);
    }

    // Empty payloads: the count bounds them.
    #[test]
    fn empty_records_are_counted() {
        let max = MAX_OUTSTANDING_RECORDS;
        let mut s = subscription(0, 10);
        let many = records(1..=max as u64 + 5, 0);
        assert_eq!(s.take(many.iter(), usize::MAX, 1000).len(), max);
        assert_eq!(s.room(), None);
        s.consumed(1).unwrap();
        assert_eq!(s.room(), Some(10));
    }
}
