//! Deliveries of one relayer on their way to one client session.
//!
//! One handover is under way at a time; what arrives meanwhile is joined to what waits for the same subscription. So a
//! busy session costs one message, and what waits is bounded by the subscriptions' windows: a relayer that sends more
//! than [`Outbox::new`]'s limit is not believed any further.

use std::collections::VecDeque;

use pqcnet_actor::TraceCx;
use pqcnet_messages::{MAX_BATCH_RECORDS, MAX_OUTSTANDING_RECORDS, MAX_PAYLOAD, Record, Refusal};

/// Something for one subscription.
#[derive(Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The relayer's subscription id.
    pub subscription: u32,
    /// In order.
    pub records: Vec<Record>,
    /// The relayer ended the subscription after these records.
    pub ended: Option<Refusal>,
    /// The trace they came with; of joined parcels the first that is recorded.
    pub trace: TraceCx,
}

/// More is waiting than the windows allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overfull;

/// What waits for one session.
#[derive(Debug)]
pub struct Outbox {
    limit: usize,
    waiting: VecDeque<Parcel>,
    bytes: usize,
    busy: bool,
}

impl Outbox {
    /// Holds at most `limit` bytes beside the parcel under way.
    pub fn new(limit: usize) -> Outbox {
        Outbox {
            limit,
            waiting: VecDeque::new(),
            bytes: 0,
            busy: false,
        }
    }

    /// Raises the limit, for another subscription's window.
    pub fn widen(&mut self, bytes: usize) {
        self.limit += bytes;
    }

    /// Takes a subscription's window back and forgets what waits for it.
    pub fn narrow(&mut self, subscription: u32, bytes: usize) {
        self.limit = self.limit.saturating_sub(bytes);
        self.waiting
            .retain(|parcel| parcel.subscription != subscription);
        self.bytes = self.waiting.iter().map(cost).sum();
    }

    /// The relayer's link is gone, and every subscription with it. A parcel under way is still under way.
    pub fn clear(&mut self) {
        self.limit = 0;
        self.waiting.clear();
        self.bytes = 0;
    }

    /// Records arrived.
    ///
    /// # Errors
    /// Nothing of them is kept.
    pub fn push(&mut self, parcel: Parcel) -> Result<(), Overfull> {
        let bytes = self.bytes + cost(&parcel);
        let same = self
            .waiting
            .iter_mut()
            .rev()
            .find(|p| p.subscription == parcel.subscription);
        // An end may overtake records that wait for a link's credit. They come again with the next subscription; the end must not
        // be lost to them.
        if same.as_ref().is_some_and(|last| last.ended.is_some()) {
            return Ok(());
        }
        if bytes > self.limit {
            return Err(Overfull);
        }
        self.bytes = bytes;
        match same {
            Some(last) if last.records.len() + parcel.records.len() <= MAX_BATCH_RECORDS => {
                last.records.extend(parcel.records);
                last.ended = parcel.ended;
                if !last.trace.sampled {
                    last.trace = parcel.trace;
                }
            }
            Some(_) | None => self.waiting.push_back(parcel),
        }
        Ok(())
    }

    /// The next parcel to hand over, unless one is under way.
    pub fn next(&mut self) -> Option<Parcel> {
        if self.busy {
            return None;
        }
        let parcel = self.waiting.pop_front()?;
        self.bytes -= cost(&parcel);
        self.busy = true;
        Some(parcel)
    }

    /// The parcel that was to go could not: it is the next one again.
    pub fn put_back(&mut self, parcel: Parcel) {
        self.busy = false;
        self.bytes += cost(&parcel);
        self.waiting.push_front(parcel);
    }

    /// The parcel under way was taken.
    pub fn on_taken(&mut self) {
        self.busy = false;
    }
}

/// What a subscription with this window can have waiting at most, as [`Outbox`] counts it.
pub fn allowance(window: usize) -> usize {
    window.max(MAX_PAYLOAD) + MAX_OUTSTANDING_RECORDS
}

/// Payload bytes and one a record, so that empty records are bounded too.
fn cost(parcel: &Parcel) -> usize {
    let bytes = parcel.records.iter().map(|record| record.payload.len() + 1);
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn parcel(subscription: u32, offsets: std::ops::RangeInclusive<u64>) -> Parcel {
        let record = |offset| Record {
            offset,
            published_at_ms: 0,
            payload: Bytes::new(),
        };
        Parcel {
            subscription,
            records: offsets.map(record).collect(),
            ended: None,
            trace: TraceCx::NONE,
        }
    }

    /// While one parcel is under way the next ones join per subscription; order within each is kept.
    #[test]
    fn joins_while_busy() {
        let mut outbox = Outbox::new(100);
        assert_eq!(outbox.push(parcel(1, 1..=1)), Ok(()));
        assert_eq!(outbox.next(), Some(parcel(1, 1..=1)));
        for (subscription, offset) in [(1, 2), (2, 1), (1, 3), (2, 2)] {
            assert_eq!(outbox.push(parcel(subscription, offset..=offset)), Ok(()));
        }
        assert_eq!(outbox.next(), None);
        outbox.put_back(parcel(1, 1..=1));
        assert_eq!(outbox.next(), Some(parcel(1, 1..=1)));
        outbox.on_taken();
        assert_eq!(outbox.next(), Some(parcel(1, 2..=3)));
        outbox.on_taken();
        assert_eq!(outbox.next(), Some(parcel(2, 1..=2)));
        outbox.on_taken();
        assert_eq!(outbox.next(), None);
    }

    /// A batch never grows beyond its limit by joining, and a later parcel joins the last one, not an earlier.
    #[test]
    fn joined_parcels_stay_within_a_batch() {
        let max = MAX_BATCH_RECORDS as u64;
        let mut outbox = Outbox::new(usize::MAX);
        assert_eq!(outbox.push(parcel(1, 1..=max)), Ok(()));
        assert_eq!(outbox.push(parcel(1, max + 1..=max + 1)), Ok(()));
        assert_eq!(outbox.push(parcel(1, max + 2..=max + 2)), Ok(()));
        assert_eq!(outbox.next(), Some(parcel(1, 1..=max)));
        outbox.on_taken();
        assert_eq!(outbox.next(), Some(parcel(1, max + 1..=max + 2)));
    }

    /// The limit holds, follows the subscriptions, and an ended one leaves nothing behind.
    #[test]
    fn limit_follows_the_windows() {
        let mut outbox = Outbox::new(0);
        assert_eq!(outbox.push(parcel(1, 1..=1)), Err(Overfull));
        outbox.widen(2);
        assert_eq!(outbox.push(parcel(1, 1..=2)), Ok(()));
        assert_eq!(outbox.push(parcel(1, 3..=3)), Err(Overfull));
        outbox.widen(1);
        outbox.narrow(1, 2);
        assert_eq!(outbox.push(parcel(2, 1..=1)), Ok(()));
        assert_eq!(outbox.next(), Some(parcel(2, 1..=1)));
    }

    /// Parcels of three publishes join, the later two of recorded traces: they go on with the first of these.
    #[test]
    fn a_joined_parcel_keeps_the_first_recorded_trace() {
        let mut outbox = Outbox::new(100);
        assert_eq!(outbox.push(parcel(1, 1..=1)), Ok(()));
        assert!(outbox.next().is_some());
        let traced = |trace_id, sampled| TraceCx {
            trace_id,
            span_id: 0,
            sampled,
        };
        for (offset, trace) in [
            (2, TraceCx::NONE),
            (3, traced(1, false)),
            (4, traced(2, true)),
            (5, traced(3, true)),
        ] {
            let parcel = Parcel {
                trace,
                ..parcel(1, offset..=offset)
            };
            assert_eq!(outbox.push(parcel), Ok(()));
        }
        outbox.on_taken();
        let joined = Parcel {
            trace: traced(2, true),
            ..parcel(1, 2..=5)
        };
        assert_eq!(outbox.next(), Some(joined));
    }

    /// The end of a subscription travels behind its last records.
    #[test]
    fn an_end_comes_last() {
        let mut outbox = Outbox::new(allowance(0));
        let end = Parcel {
            subscription: 1,
            records: Vec::new(),
            ended: Some(Refusal::Draining),
            trace: TraceCx::NONE,
        };
        assert_eq!(outbox.push(parcel(1, 1..=2)), Ok(()));
        assert_eq!(outbox.push(end), Ok(()));
        // What it overtook is for nobody.
        assert_eq!(outbox.push(parcel(1, 3..=4)), Ok(()));
        let last = Parcel {
            ended: Some(Refusal::Draining),
            ..parcel(1, 1..=2)
        };
        assert_eq!(outbox.next(), Some(last));
        outbox.on_taken();
        assert_eq!(outbox.next(), None);
    }
}
