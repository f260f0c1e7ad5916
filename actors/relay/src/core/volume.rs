//! What a shard stored and sent, for the meter. Spec: docs/spec/metering.md §2.
//!
//! What is handed out stays here until the meter says that it has it for good: a reading that was lost comes again.

use std::collections::{BTreeMap, BTreeSet};

use pqcnet_crypto::NodeId;
use pqcnet_log::ChannelId;
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Record, Series};

use super::subscription::SubscriptionKey;

/// Receivers' series remembered at once: twice the subscriptions of a shard, so that one which is resumed is still known.
pub const MAX_SERIES: usize = 32_768;

/// Channels that stored something.
#[derive(Debug, Default)]
pub struct Written {
    fresh: BTreeSet<ChannelId>,
    handed: BTreeSet<ChannelId>,
}

impl Written {
    /// The channel has more than before.
    pub fn note(&mut self, channel: ChannelId) {
        self.fresh.insert(channel);
    }

    /// What is new since the reading that was kept; `kept`: the last one was.
    pub fn hand(&mut self, kept: bool) -> impl Iterator<Item = &ChannelId> {
        if kept {
            self.handed.clear();
        }
        self.handed.append(&mut self.fresh);
        self.handed.iter()
    }
}

/// One receiver's series of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Of which channel.
    pub channel: ChannelId,
    /// To whom.
    pub receiver: NodeId,
    /// In which of its subscriptions.
    pub series: Series,
}

/// How far a series was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Where it began here.
    pub after: u64,
    /// The last offset sent.
    pub last: u64,
    /// The subscription that serves it, while one does.
    pub open: Option<SubscriptionKey>,
    fresh: Volume,
    handed: Volume,
}

impl Carried {
    /// What was sent since the reading that was kept.
    pub fn unkept(&self) -> Volume {
        self.handed
    }

    fn is_idle(&self) -> bool {
        self.open.is_none() && self.fresh == Volume::default() && self.handed == Volume::default()
    }
}

/// What was sent to whom. A record counts once a series, however often it goes over links.
#[derive(Debug, Default)]
pub struct Carriage {
    series: BTreeMap<SeriesKey, Carried>,
    /// Members of groups that had a turn here and wait for another.
    standing: BTreeMap<SubscriptionKey, SeriesKey>,
}

impl Carriage {
    /// A subscription serves the series from here on, behind `after`.
    pub fn begin(&mut self, key: SeriesKey, subscription: SubscriptionKey, after: u64) {
        self.standing.remove(&subscription);
        if let Some(known) = self.series.get_mut(&key) {
            known.open = Some(subscription);
            return;
        }
        if self.series.len() >= MAX_SERIES {
            self.make_room();
        }
        self.series.insert(
            key,
            Carried {
                after,
                last: after,
                open: Some(subscription),
                fresh: Volume::default(),
                handed: Volume::default(),
            },
        );
    }

    /// A member of a group waits for its turn: it can sign for what it was sent in an earlier one.
    pub fn stand_by(&mut self, key: SeriesKey, subscription: SubscriptionKey) {
        if let Some(known) = self.series.get_mut(&key) {
            known.open = Some(subscription);
            self.standing.insert(subscription, key);
        }
    }

    /// A member that stood by no longer does.
    pub fn leave(&mut self, subscription: SubscriptionKey) {
        if let Some(key) = self.standing.remove(&subscription) {
            self.end(&key, subscription);
        }
    }

    /// Nobody stands by over this link any more.
    pub fn drop_link(&mut self, link: u64) {
        let at = |subscription| SubscriptionKey { link, subscription };
        let range = self.standing.range(at(0)..=at(u32::MAX));
        let gone: Vec<SubscriptionKey> = range.map(|(key, _)| *key).collect();
        for key in gone {
            self.leave(key);
        }
    }

    fn make_room(&mut self) {
        self.series.retain(|_, carried| !carried.is_idle());
        if self.series.len() >= MAX_SERIES {
            // More series ended since the last reading than there is room for: the first of them goes uncounted.
            let closed = self.series.iter().find(|(_, c)| c.open.is_none());
            if let Some(key) = closed.map(|(key, _)| *key) {
                self.series.remove(&key);
            }
        }
    }

    /// These records go out.
    pub fn sent(&mut self, key: &SeriesKey, records: &[Record]) {
        let Some(carried) = self.series.get_mut(key) else {
            return;
        };
        for record in records.iter().filter(|record| record.offset > carried.last) {
            carried.fresh.frames += 1;
            carried.fresh.bytes += record.payload.len() as u64;
        }
        if let Some(last) = records.last() {
            carried.last = carried.last.max(last.offset);
        }
    }

    /// The subscription serves it no more.
    pub fn end(&mut self, key: &SeriesKey, subscription: SubscriptionKey) {
        if let Some(carried) = self.series.get_mut(key)
            && carried.open == Some(subscription)
        {
            carried.open = None;
        }
    }

    /// What is new since the reading that was kept, and every series that is open; `kept`: the last reading was.
    pub fn hand(&mut self, kept: bool) -> impl Iterator<Item = (&SeriesKey, &Carried)> {
        for carried in self.series.values_mut() {
            if kept {
                carried.handed = Volume::default();
            }
            let fresh = std::mem::take(&mut carried.fresh);
            carried.handed.frames += fresh.frames;
            carried.handed.bytes += fresh.bytes;
        }
        self.series.iter().filter(|(_, carried)| !carried.is_idle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: SubscriptionKey = SubscriptionKey {
        link: 1,
        subscription: 1,
    };

    fn key(number: u16) -> SeriesKey {
        let mut series = [0; 16];
        series[..2].copy_from_slice(&number.to_be_bytes());
        SeriesKey {
            channel: ChannelId([1; 32]),
            receiver: NodeId::from_bytes([2; 32]),
            series: Series(series),
        }
    }

    fn records(offsets: std::ops::RangeInclusive<u64>) -> Vec<Record> {
        let record = |offset| Record {
            offset,
            published_at_ms: 0,
            payload: vec![0; 10].into(),
        };
        offsets.map(record).collect()
    }

    fn handed(carriage: &mut Carriage, kept: bool) -> Vec<(u64, Volume)> {
        let handed = carriage.hand(kept);
        handed.map(|(_, c)| (c.last, c.unkept())).collect()
    }

    // A subscription gets 1 to 4, is resumed after 2 and gets 3 to 6: six records went out, four of them once and two twice,
    // and six are counted. A reading that was lost comes again with what is new; one that was kept does not.
    #[test]
    fn a_record_counts_once_a_series() {
        let mut carriage = Carriage::default();
        carriage.begin(key(1), SUBSCRIPTION, 0);
        carriage.sent(&key(1), &records(1..=4));
        let volume = |frames| Volume {
            frames,
            bytes: frames * 10,
        };
        assert_eq!(handed(&mut carriage, false), [(4, volume(4))]);
        carriage.end(&key(1), SUBSCRIPTION);
        let resumed = SubscriptionKey {
            subscription: 2,
            ..SUBSCRIPTION
        };
        carriage.begin(key(1), resumed, 2);
        // The end of the earlier one may be heard late.
        carriage.end(&key(1), SUBSCRIPTION);
        carriage.sent(&key(1), &records(3..=6));
        assert_eq!(handed(&mut carriage, false), [(6, volume(6))]);
        assert_eq!(handed(&mut carriage, true), [(6, volume(0))], "still open");
        carriage.end(&key(1), resumed);
        assert_eq!(handed(&mut carriage, true), []);
    }

    // A member of a group has a turn over 1 to 4, stands by while another has the channel, and is asked for its signature all the same; its
    // next turn brings 3 and 4 again, then 9 and 10: six records. One that never had a turn is not asked, and neither is one that left,
    // or whose link did.
    #[test]
    fn a_member_signs_between_its_turns() {
        let at = |link, subscription| SubscriptionKey { link, subscription };
        let open = |carriage: &mut Carriage| {
            let handed = carriage.hand(true);
            handed.map(|(_, carried)| carried.open).collect::<Vec<_>>()
        };
        let mut carriage = Carriage::default();
        carriage.stand_by(key(1), at(1, 1));
        assert_eq!(open(&mut carriage), []);
        carriage.begin(key(1), at(1, 1), 0);
        carriage.sent(&key(1), &records(1..=4));
        carriage.end(&key(1), at(1, 1));
        carriage.stand_by(key(1), at(1, 2));
        assert_eq!(open(&mut carriage), [Some(at(1, 2))]);
        carriage.begin(key(1), at(1, 2), 2);
        carriage.sent(&key(1), &records(3..=4));
        carriage.sent(&key(1), &records(9..=10));
        let volume = |frames| Volume {
            frames,
            bytes: frames * 10,
        };
        assert_eq!(handed(&mut carriage, true), [(10, volume(2))]);
        carriage.leave(at(1, 2));
        assert_eq!(open(&mut carriage), [Some(at(1, 2))], "it has the turn");
        carriage.end(&key(1), at(1, 2));
        assert_eq!(open(&mut carriage), []);
        carriage.stand_by(key(1), at(1, 3));
        carriage.leave(at(1, 3));
        assert_eq!(open(&mut carriage), []);
        carriage.stand_by(key(1), at(1, 4));
        carriage.drop_link(2);
        assert_eq!(open(&mut carriage), [Some(at(1, 4))]);
        carriage.drop_link(1);
        assert_eq!(open(&mut carriage), []);
        assert!(carriage.standing.is_empty());
    }

    // The same for what is stored.
    #[test]
    fn a_lost_reading_comes_again() {
        let mut written = Written::default();
        let channel = |n| ChannelId([n; 32]);
        written.note(channel(1));
        written.note(channel(1));
        assert_eq!(written.hand(false).count(), 1);
        written.note(channel(2));
        assert_eq!(written.hand(false).count(), 2);
        written.note(channel(2));
        assert_eq!(written.hand(true).collect::<Vec<_>>(), [&channel(2)]);
        assert_eq!(written.hand(true).count(), 0);
    }

    // More series than are remembered: those that ended and are counted make room; open ones never do.
    #[test]
    fn memory_is_bounded() {
        let mut carriage = Carriage::default();
        for number in 0..MAX_SERIES as u16 {
            carriage.begin(key(number), SUBSCRIPTION, 0);
            carriage.sent(&key(number), &records(1..=1));
            if number > 0 {
                carriage.end(&key(number), SUBSCRIPTION);
            }
        }
        assert_eq!(handed(&mut carriage, false).len(), MAX_SERIES);
        carriage.begin(key(MAX_SERIES as u16), SUBSCRIPTION, 0);
        assert_eq!(carriage.series.len(), MAX_SERIES);
        assert!(carriage.series.contains_key(&key(0)), "it is open");
        assert_eq!(handed(&mut carriage, true).len(), 2);
        carriage.begin(key(1), SUBSCRIPTION, 0);
        assert!(carriage.series.len() <= MAX_SERIES);
    }
}
