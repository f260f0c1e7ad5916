//! What a shard's log keeps: segments of its entries in the order in which they came, and which of them are over.
//!
//! An entry belongs to the segment that was open when it was appended. A segment goes as a whole, the oldest first, and with it the
//! front of each channel up to the last entry that the channel has in it. So what is kept is at most the limit, and at least what fits
//! into seven eighths of it.

use std::collections::{BTreeMap, VecDeque};

use crate::types::Retention;
use crate::{ChannelHead, ChannelId};

/// Some entries of a shard that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// 1, 2, 3, … for the shard's whole life in this store.
    pub number: u64,
    /// Bytes of its entries.
    pub bytes: u64,
    /// When its first entries were written, milliseconds since the Unix epoch; 0 when it has none.
    pub oldest_ms: u64,
    /// When its last were.
    pub newest_ms: u64,
}

impl Segment {
    fn after(last: &Segment) -> Segment {
        Segment {
            number: last.number + 1,
            ..Segment::default()
        }
    }
}

/// What is appended at once: bytes, time, and the channels' last offsets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Added {
    /// Bytes of the entries.
    pub bytes: u64,
    /// When they were written.
    pub at_ms: u64,
    /// Each channel's last offset.
    pub lasts: Vec<(ChannelId, u64)>,
}

/// What an append changes, for [`Segments::added`] once it is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The open segment is closed before the append, with the [lasts](Segments::lasts) that it has.
    pub closes: Option<u64>,
    /// The open segment after it.
    pub open: Segment,
}

/// What is on the disk about the segments of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Noted {
    /// Ascending; the last of them is the open one.
    pub segments: Vec<Segment>,
    /// The generation that noted last.
    pub generation: u32,
    /// Of each channel the last offset in a closed segment.
    pub closed: BTreeMap<ChannelId, u64>,
}

/// The segments of one shard.
#[derive(Debug)]
pub struct Segments {
    retention: Retention,
    closed: VecDeque<Segment>,
    open: Segment,
    lasts: BTreeMap<ChannelId, u64>,
    /// An append is under way: what it closes it closes itself.
    appending: bool,
}

impl Segments {
    /// From what is on the disk. `before` is the last generation that may have appended: if it noted nothing, retention was turned off
    /// meanwhile or is new, and the bytes of the open segment are taken from what the heads say.
    pub fn load(
        retention: Retention,
        noted: &Noted,
        before: u32,
        heads: &[ChannelHead],
    ) -> Segments {
        let mut closed: VecDeque<Segment> = noted.segments.iter().copied().collect();
        let first = Segment::after(&Segment::default());
        let mut open = closed.pop_back().unwrap_or(first);
        let unnoted = heads.iter().filter_map(|head| {
            let known = noted.closed.get(&head.channel).copied().unwrap_or(0);
            let from = known.max(head.first.saturating_sub(1));
            (head.head > from).then_some((head, head.head - from))
        });
        let mut lasts = BTreeMap::new();
        let (mut bytes, mut newest_ms) = (0, 0);
        for (head, count) in unnoted {
            lasts.insert(head.channel, head.head);
            // Of an average entry's size: what each took is nowhere noted.
            bytes += (u128::from(head.bytes) * u128::from(count) / u128::from(head.head)) as u64;
            newest_ms = newest_ms.max(head.newest_ms);
        }
        if noted.generation != before {
            open.bytes = bytes;
            open.newest_ms = open.newest_ms.max(newest_ms);
            if open.oldest_ms == 0 {
                open.oldest_ms = open.newest_ms;
            }
        }
        Segments {
            retention,
            closed,
            open,
            lasts,
            appending: false,
        }
    }

    /// What an append changes.
    pub fn step(&self, added: &Added) -> Step {
        let closes = self.is_full(added.at_ms).then_some(self.open.number);
        let mut open = match closes {
            Some(_) => Segment::after(&self.open),
            None => self.open,
        };
        open.bytes += added.bytes;
        open.newest_ms = open.newest_ms.max(added.at_ms);
        if open.oldest_ms == 0 {
            open.oldest_ms = added.at_ms;
        }
        Step { closes, open }
    }

    /// The append is under way. If it fails, these segments are loaded anew.
    pub fn added(&mut self, step: Step, added: Added) {
        if step.closes.is_some() {
            self.closed.push_back(self.open);
            self.lasts.clear();
        }
        self.open = step.open;
        self.lasts.extend(added.lasts);
        self.appending = true;
    }

    /// The append is durable.
    pub fn settled(&mut self) {
        self.appending = false;
    }

    /// Closes the open segment if it is time and nothing else would; what is to be noted: the one after it.
    pub fn close(&mut self, now_ms: u64) -> Option<Segment> {
        if self.appending || !self.is_full(now_ms) {
            return None;
        }
        self.closed.push_back(self.open);
        self.open = Segment::after(&self.open);
        Some(self.open)
    }

    /// The lasts of the segment that [`Segments::close`] has closed are noted.
    pub fn closed(&mut self) {
        self.lasts.clear();
    }

    /// Of each channel with entries in the open segment, or in the one just closed, the last.
    pub fn lasts(&self) -> &BTreeMap<ChannelId, u64> {
        &self.lasts
    }

    fn is_full(&self, now_ms: u64) -> bool {
        // Eight of them keep either limit to an eighth.
        let bytes = self
            .retention
            .bytes
            .map(|bytes| (bytes / 8).clamp(64 << 10, 500 << 20));
        let by_bytes = bytes.is_some_and(|bytes| self.open.bytes >= bytes);
        let age_ms = self.retention.age.map(|age| age.as_millis() as u64 / 8);
        let by_age = age_ms.is_some_and(|age| {
            self.open.oldest_ms > 0 && now_ms.saturating_sub(self.open.oldest_ms) >= age
        });
        !self.lasts.is_empty() && (by_bytes || by_age)
    }

    /// The segments that are over at this time, oldest first.
    pub fn over(&self, now_ms: u64) -> Vec<Segment> {
        let mut kept = self.kept_bytes();
        let mut over = Vec::new();
        for segment in &self.closed {
            let too_much = self.retention.bytes.is_some_and(|most| kept > most);
            let age_ms = u128::from(now_ms.saturating_sub(segment.newest_ms));
            let too_old = (self.retention.age).is_some_and(|age| age_ms > age.as_millis());
            if !too_much && !too_old {
                break;
            }
            kept -= segment.bytes;
            over.push(*segment);
        }
        over
    }

    /// A segment's entries are gone.
    pub fn dropped(&mut self, number: u64) {
        self.closed.retain(|segment| segment.number != number);
    }

    /// The one that takes what comes.
    pub fn open(&self) -> Segment {
        self.open
    }

    /// Bytes of all segments.
    pub fn kept_bytes(&self) -> u64 {
        let closed = self.closed.iter().map(|segment| segment.bytes);
        closed.sum::<u64>() + self.open.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn channel(byte: u8) -> ChannelId {
        ChannelId([byte; 32])
    }

    fn retention(bytes: Option<u64>, age_ms: Option<u64>) -> Retention {
        let age = age_ms.map(Duration::from_millis);
        Retention { bytes, age }
    }

    /// What a disk has, and every entry that is kept: segment, channel, offset, bytes, time.
    struct World {
        retention: Retention,
        segments: Segments,
        noted: Noted,
        lists: BTreeMap<u64, BTreeMap<ChannelId, u64>>,
        kept: Vec<(ChannelId, u64, u64, u64)>,
        heads: BTreeMap<ChannelId, ChannelHead>,
        generation: u32,
    }

    impl World {
        fn new(retention: Retention) -> World {
            let noted = Noted::default();
            World {
                retention,
                segments: Segments::load(retention, &noted, 0, &[]),
                noted,
                lists: BTreeMap::new(),
                kept: Vec::new(),
                heads: BTreeMap::new(),
                generation: 0,
            }
        }

        fn note(&mut self, open: Segment) {
            self.noted.segments.retain(|s| s.number != open.number);
            self.noted.segments.push(open);
            self.noted.generation = self.generation;
        }

        fn append(&mut self, id: u8, bytes: u64, at_ms: u64) {
            let id = channel(id);
            let head = self.heads.entry(id).or_insert(ChannelHead {
                channel: id,
                first: 1,
                head: 0,
                forgotten_epoch: 0,
                bytes: 0,
                newest_ms: 0,
                producers: Vec::new(),
                about: None,
            });
            head.head += 1;
            head.bytes += bytes;
            head.newest_ms = at_ms;
            let last = head.head;
            self.kept.push((id, last, bytes, at_ms));
            let added = Added {
                bytes,
                at_ms,
                lasts: vec![(id, last)],
            };
            let step = self.segments.step(&added);
            if let Some(number) = step.closes {
                self.lists.insert(number, self.segments.lasts().clone());
            }
            self.note(step.open);
            self.segments.added(step, added);
            self.segments.settled();
        }

        fn retain(&mut self, now_ms: u64) {
            if let Some(open) = self.segments.close(now_ms) {
                self.lists
                    .insert(open.number - 1, self.segments.lasts().clone());
                self.segments.closed();
                self.note(open);
            }
            for segment in self.segments.over(now_ms) {
                for (id, last) in self.lists.remove(&segment.number).unwrap() {
                    self.kept
                        .retain(|(kept, offset, ..)| *kept != id || *offset > last);
                    let head = self.heads.get_mut(&id).unwrap();
                    head.first = head.first.max(last + 1);
                }
                self.noted.segments.retain(|s| s.number != segment.number);
                self.segments.dropped(segment.number);
            }
        }

        fn restart(&mut self) {
            self.noted.closed.clear();
            for list in self.lists.values() {
                self.noted
                    .closed
                    .extend(list.iter().map(|(id, last)| (*id, *last)));
            }
            let heads: Vec<_> = self.heads.values().cloned().collect();
            self.segments = Segments::load(self.retention, &self.noted, self.generation, &heads);
            self.generation += 1;
            self.noted.generation = self.generation;
        }

        fn check(&self, now_ms: u64) {
            let bytes: u64 = self.kept.iter().map(|(.., bytes, _)| bytes).sum();
            assert_eq!(
                self.segments.kept_bytes(),
                bytes,
                "what is kept is what is counted"
            );
            if let Some(most) = self.retention.bytes {
                // One segment that is not closed yet may be beyond it.
                assert!(bytes <= most.max(64 << 10) + most / 8 + (64 << 10));
            }
            if let Some(age) = self.retention.age {
                let age = age.as_millis() as u64;
                let oldest = self.kept.iter().map(|(.., at)| *at).min();
                let within = age + age / 8 + 1;
                assert!(
                    oldest.is_none_or(|at| now_ms - at <= within),
                    "{oldest:?} at {now_ms}"
                );
            }
            // Prefixes go, and nothing else: what is kept of a channel is what is between its first and its head.
            for head in self.heads.values() {
                let offsets: Vec<u64> = (self.kept.iter())
                    .filter_map(|(id, offset, ..)| (*id == head.channel).then_some(*offset))
                    .collect();
                let wanted: Vec<u64> = (head.first..=head.head).collect();
                assert_eq!(offsets, wanted);
            }
        }
    }

    proptest! {
        /// Scenario: entries of some channels come over time, the log is looked over after each, and is opened anew now and then.
        /// What is kept is within the limits, is counted exactly, and is of each channel what lies above one offset.
        #[test]
        fn limits_hold(
            bytes in prop::option::of(100_000_u64..2_000_000),
            age_ms in prop::option::of(1_000_u64..100_000),
            steps in prop::collection::vec((0_u8..5, 1_u64..60_000, 0_u64..400, 0_u8..20), 1..200),
        ) {
            let mut world = World::new(retention(bytes, age_ms));
            let mut now_ms = 1;
            for (id, bytes, passes, what) in steps {
                now_ms += passes;
                if what == 0 {
                    world.restart();
                }
                world.append(id, bytes, now_ms);
                world.retain(now_ms);
                world.check(now_ms);
            }
        }
    }

    /// Scenario: what is in the log when retention is turned on is one segment, of as many bytes as the channels' averages say; an
    /// entry's age is that of the newest. Turned off and on again, what came meanwhile is added.
    #[test]
    fn what_was_there_before_counts() {
        let head = |id, first, head, bytes| ChannelHead {
            channel: channel(id),
            first,
            head,
            forgotten_epoch: 0,
            bytes,
            newest_ms: 500,
            producers: Vec::new(),
            about: None,
        };
        let limits = retention(Some(1 << 20), Some(8_000));
        let heads = [head(1, 1, 10, 1_000), head(2, 6, 10, 2_000)];
        let segments = Segments::load(limits, &Noted::default(), 3, &heads);
        assert_eq!(segments.kept_bytes(), 1_000 + 1_000);
        let open = Segment {
            number: 1,
            bytes: 2_000,
            oldest_ms: 500,
            newest_ms: 500,
        };
        assert_eq!(segments.open, open);
        assert_eq!(segments.over(1 << 40), [], "an open segment stays");
        let mut segments = segments;
        assert_eq!(segments.close(1_499), None);
        assert_eq!(segments.close(1_500).map(|open| open.number), Some(2));
        assert_eq!(
            (segments.over(8_500), segments.over(8_501)),
            (vec![], vec![open])
        );

        let noted = Noted {
            segments: vec![open, Segment::after(&open)],
            generation: 4,
            closed: BTreeMap::from([(channel(1), 10), (channel(2), 10)]),
        };
        let later = [head(1, 1, 20, 3_000), head(2, 6, 10, 2_000)];
        let same = Segments::load(limits, &noted, 4, &heads);
        assert_eq!((same.kept_bytes(), same.lasts().len()), (2_000, 0));
        let more = Segments::load(limits, &noted, 6, &later);
        assert_eq!((more.open.number, more.open.bytes), (2, 1_500));
        assert_eq!(more.lasts(), &BTreeMap::from([(channel(1), 20)]));
    }

    /// While an append is under way nobody else closes a segment: its batch may fail, and what would be noted then is not there.
    #[test]
    fn an_append_closes_for_itself() {
        let mut segments = Segments::load(retention(None, Some(80)), &Noted::default(), 0, &[]);
        let added = |at_ms| Added {
            bytes: 1,
            at_ms,
            lasts: vec![(channel(1), at_ms)],
        };
        let step = segments.step(&added(5));
        assert_eq!((step.closes, step.open.number), (None, 1));
        segments.added(step, added(5));
        assert_eq!(segments.close(1_000), None);
        let step = segments.step(&added(15));
        assert_eq!(
            (step.closes, step.open.number, step.open.bytes),
            (Some(1), 2, 1)
        );
        segments.settled();
        assert!(segments.close(15).is_some());
    }
}
