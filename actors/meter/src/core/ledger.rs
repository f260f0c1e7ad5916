//! From workers' readings to records: what is new beside what was counted before. Spec: docs/spec/metering.md §2.
//!
//! - *Stored* volume is the difference of the log's own durable counts, so a crash neither loses nor doubles any of it: what
//!   was durable and in no window comes with the next one.
//! - *Delivered* volume is what workers say they sent. A life of a worker that ended before its reading takes that with it,
//!   until a receipt that reaches further than what is known restores it.

use pqcnet_messages::metering::{DeliveredVolume, StoredVolume, Volume, VolumeTaken};
use pqcnet_messages::{Receipt, Series};

use super::bytes::{Malformed, Reader, put};
use super::record::{Qos, RecordKey, VolumeRecord};

/// What is kept of one key between windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Counted so far.
    pub total: Volume,
    /// Of what is stored: the log's own count up to which that goes. Of what is delivered, as frames: the highest offset of a reading (0 in
    /// what a release before groups signed has kept).
    pub mark: Volume,
    /// Of what is delivered: where the series began here.
    pub after: u64,
    /// The highest offset counted.
    pub last: u64,
    /// The last window with a record of it.
    pub window: u64,
}

impl Entry {
    /// Seven u64: total frames and bytes, mark's frames and bytes, after, last, window.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56);
        let (total, mark) = (self.total, self.mark);
        put(&mut out, [total.frames, total.bytes]);
        put(&mut out, [mark.frames, mark.bytes]);
        put(&mut out, [self.after, self.last, self.window]);
        out
    }

    /// Reads [`Entry::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Entry, Malformed> {
        let what = "a kept total";
        let mut read = Reader::new(bytes);
        let volume = |read: &mut Reader<'_>| {
            Ok::<_, Malformed>(Volume {
                frames: read.u64(what)?,
                bytes: read.u64(what)?,
            })
        };
        let entry = Entry {
            total: volume(&mut read)?,
            mark: volume(&mut read)?,
            after: read.u64(what)?,
            last: read.u64(what)?,
            window: read.u64(what)?,
        };
        read.end(what)?;
        Ok(entry)
    }
}

/// What was known of a shard when its last reading was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardMark {
    /// How often it had moved.
    pub moves: u8,
    /// The reading.
    pub run: u64,
    /// Its number.
    pub serial: u64,
}

/// Whether what the shard's channels had stored when it was opened here is not this relayer's to count: it came from another
/// one, or was stored before there was a meter. `whole`: nothing was.
pub fn begins_anew(known: Option<&ShardMark>, taken: &VolumeTaken, whole: bool) -> bool {
    match known {
        Some(known) => known.moves != taken.moves,
        None => taken.moves != 0 || (taken.generation != 1 && !whole),
    }
}

/// What became of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// To be kept.
    pub entry: Entry,
    /// To be reported, its window yet to be numbered; `None` when nothing was added.
    pub record: Option<VolumeRecord>,
}

/// The key of what a channel stored.
pub fn stored_key(stored: &StoredVolume) -> RecordKey {
    RecordKey {
        qos: Qos::Stored,
        customer: stored.channel.owner,
        channel: stored.channel.clone(),
        series: Series::NONE,
    }
}

/// The key of what a receiver was sent.
pub fn delivered_key(delivered: &DeliveredVolume) -> RecordKey {
    RecordKey {
        qos: Qos::Delivered,
        customer: delivered.receiver,
        channel: delivered.channel.clone(),
        series: delivered.series,
    }
}

/// Counts what a channel stored since it was last looked at.
pub fn post_stored(prior: Option<Entry>, stored: &StoredVolume, anew: bool) -> Posted {
    let prior = prior.unwrap_or_default();
    let mark = if anew { stored.at_open } else { prior.mark };
    let added = minus(stored.now, mark);
    let entry = Entry {
        total: plus(prior.total, added.unwrap_or_default()),
        // A log that was put back from an older copy counts on from where it had been.
        mark: added.map_or(mark, |_| stored.now),
        after: 0,
        last: prior.last.max(stored.now.frames),
        window: prior.window,
    };
    posted(stored_key(stored), prior.total, entry)
}

/// Counts what a receiver was sent. `receipts`: all of this series; `fresh`: one of them was signed since the reading, and may be
/// ahead of it.
pub fn post_delivered(
    prior: Option<Entry>,
    delivered: &DeliveredVolume,
    receipts: &[Receipt],
    fresh: bool,
) -> Posted {
    let prior = prior.unwrap_or(Entry {
        after: delivered.after,
        last: delivered.after,
        mark: Volume {
            frames: delivered.after,
            bytes: 0,
        },
        ..Entry::default()
    });
    let last = prior.last.max(delivered.last);
    // Between its ends a series has no more frames than offsets: what a worker of another life had counted is not counted again.
    let room = (last - prior.after).saturating_sub(prior.total.frames);
    // What lies between a member's turns is room that others took: it has no more new ones than lie beyond the readings before.
    let reading = prior.mark.frames.max(delivered.last);
    let added = at_most(delivered.volume, room.min(reading - prior.mark.frames));
    let mut entry = Entry {
        total: plus(prior.total, added),
        last,
        mark: Volume {
            frames: reading,
            bytes: 0,
        },
        ..prior
    };
    let reaches = receipts.iter().map(|receipt| receipt.statement.last).max();
    let reaches = reaches.unwrap_or(0);
    // What was signed before this reading, and what reaches no further than it, the receiver has: a count below that lost some.
    if reaches == entry.last || (reaches > entry.last && !fresh) {
        let signed = receipts.iter().fold(Volume::default(), |sum, receipt| {
            let (frames, bytes) = (receipt.statement.frames, receipt.statement.bytes);
            plus(sum, Volume { frames, bytes })
        });
        entry.last = reaches;
        entry.total.frames = entry.total.frames.max(signed.frames);
        entry.total.bytes = entry.total.bytes.max(signed.bytes);
    }
    posted(delivered_key(delivered), prior.total, entry)
}

fn posted(key: RecordKey, before: Volume, entry: Entry) -> Posted {
    let volume = minus(entry.total, before).unwrap_or_default();
    let record = (volume.frames > 0).then_some(VolumeRecord {
        key,
        window: 0,
        volume,
        total: entry.total,
        last: entry.last,
    });
    Posted { entry, record }
}

/// The sum.
pub fn plus(a: Volume, b: Volume) -> Volume {
    Volume {
        frames: a.frames.saturating_add(b.frames),
        bytes: a.bytes.saturating_add(b.bytes),
    }
}

/// The difference; `None` where one of the two would be negative.
pub fn minus(a: Volume, b: Volume) -> Option<Volume> {
    Some(Volume {
        frames: a.frames.checked_sub(b.frames)?,
        bytes: a.bytes.checked_sub(b.bytes)?,
    })
}

/// No more than so many frames, and of the bytes the same part.
fn at_most(volume: Volume, frames: u64) -> Volume {
    if volume.frames <= frames {
        return volume;
    }
    let part = u128::from(volume.bytes) * u128::from(frames) / u128::from(volume.frames);
    Volume {
        frames,
        bytes: u64::try_from(part).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{channel, node, statement, volume};
    use pqcnet_crypto::NodeKeys;
    use pqcnet_messages::ShardId;
    use pqcnet_messages::metering::Reading;
    use proptest::prelude::*;

    fn stored(at_open: u64, now: u64) -> StoredVolume {
        StoredVolume {
            channel: channel(),
            at_open: volume(at_open),
            now: volume(now),
        }
    }

    fn delivered(after: u64, last: u64, frames: u64) -> DeliveredVolume {
        DeliveredVolume {
            channel: channel(),
            receiver: node(2),
            series: Series([1; 16]),
            after,
            last,
            volume: volume(frames),
            ask: None,
        }
    }

    fn frames(posted: &Posted) -> (u64, u64, u64) {
        let record = posted.record.as_ref().unwrap();
        (record.volume.frames, record.total.frames, record.last)
    }

    // The disk format: pinned.
    #[test]
    fn entries_are_pinned() {
        let entry = Entry {
            total: volume(1),
            mark: volume(2),
            after: 3,
            last: 4,
            window: 5,
        };
        let wanted: Vec<u8> = [1u64, 10, 2, 20, 3, 4, 5].map(u64::to_be_bytes).concat();
        assert_eq!(entry.to_bytes(), wanted);
        assert_eq!(Entry::from_bytes(&wanted), Ok(entry));
        let what = "a kept total";
        assert_eq!(
            Entry::from_bytes(&wanted[..55]),
            Err(Malformed { what, at: 48 })
        );
    }

    // A shard that came from elsewhere with 100 records: only what it stored here counts, here. One that never moved counts
    // from its first record on; a store older than its meter counts from the opening.
    #[test]
    fn what_came_from_elsewhere_is_not_counted() {
        let posted = post_stored(None, &stored(100, 130), true);
        assert_eq!(frames(&posted), (30, 30, 130));
        let next = post_stored(Some(posted.entry), &stored(100, 150), false);
        assert_eq!(frames(&next), (20, 50, 150));
        let quiet = post_stored(None, &stored(100, 100), true);
        assert_eq!((quiet.record, quiet.entry.mark), (None, volume(100)));
        let own = post_stored(None, &stored(5, 7), false);
        assert_eq!(frames(&own), (7, 7, 7));
        // Put back from an older copy: silence until it is where it was.
        let older = post_stored(Some(next.entry), &stored(120, 140), false);
        assert_eq!((older.record, older.entry), (None, next.entry));

        let taken = |moves, generation| VolumeTaken {
            shard: ShardId(1),
            moves,
            generation,
            reading: Reading::default(),
            stored: Vec::new(),
            delivered: Vec::new(),
        };
        let known = |moves| ShardMark {
            moves,
            run: 1,
            serial: 1,
        };
        assert!(!begins_anew(None, &taken(0, 1), false));
        assert!(begins_anew(None, &taken(0, 2), false));
        // Killed before its first window ended.
        assert!(!begins_anew(None, &taken(0, 2), true));
        for whole in [false, true] {
            assert!(begins_anew(None, &taken(1, 1), whole));
            assert!(!begins_anew(Some(&known(1)), &taken(1, 7), whole));
            assert!(begins_anew(Some(&known(1)), &taken(3, 7), whole));
        }
    }

    // A relayer is killed after it sent 1 to 120, of which the meter had kept 1 to 100 and the receiver taken and signed for 110.
    // The next life sends 111 to 150: 50 are new, not 40 and not 70. A receipt that reaches further than all that is known
    // restores what was lost.
    #[test]
    fn a_kill_neither_doubles_nor_hides_what_was_sent() {
        let kept = post_delivered(None, &delivered(0, 100, 100), &[], false);
        assert_eq!(frames(&kept), (100, 100, 100));
        // The worker's new life began behind 110.
        let next = post_delivered(Some(kept.entry), &delivered(110, 150, 40), &[], false);
        assert_eq!(frames(&next), (40, 140, 150), "ten are lost so far");
        let keys = NodeKeys::generate();
        let receipt = statement(&keys, 0, 160, 160).sign(&keys);
        let receipt = std::slice::from_ref(&receipt);
        let entry = Some(next.entry);
        let ahead = post_delivered(entry, &delivered(110, 150, 0), receipt, true);
        assert_eq!(ahead.record, None, "it may only have come in between");
        let restored = post_delivered(entry, &delivered(110, 150, 0), receipt, false);
        assert_eq!(frames(&restored), (20, 160, 160));
        // One that reaches as far as the reading restores at once.
        let receipt = statement(&keys, 0, 150, 150).sign(&keys);
        let receipt = std::slice::from_ref(&receipt);
        let restored = post_delivered(entry, &delivered(110, 150, 0), receipt, true);
        assert_eq!(frames(&restored), (10, 150, 150));
        // Sent again after the kill, though counted before: room for ten only.
        let again = post_delivered(Some(kept.entry), &delivered(90, 110, 20), &[], false);
        assert_eq!(frames(&again), (10, 110, 110));
        assert_eq!(again.record.unwrap().volume.bytes, 100);
    }

    // A member of a group was sent 1 to 20 and 81 to 100, others what lies between. The relayer is killed, and what the member did not commit,
    // 91 to 100, goes out again, then 101 to 105: five are new. Its receipt over 45 restores nothing, for nothing is missing. What a
    // release before has kept knows no mark, and has room for what lies between.
    #[test]
    fn what_a_member_is_sent_again_is_not_counted_again() {
        let first = post_delivered(None, &delivered(0, 20, 20), &[], false);
        let kept = post_delivered(Some(first.entry), &delivered(0, 100, 20), &[], false);
        assert_eq!(frames(&kept), (20, 40, 100));
        let again = post_delivered(Some(kept.entry), &delivered(90, 100, 10), &[], false);
        assert_eq!(again.record, None);
        let keys = NodeKeys::generate();
        let receipt = statement(&keys, 0, 105, 45).sign(&keys);
        let signed = std::slice::from_ref(&receipt);
        let next = post_delivered(Some(kept.entry), &delivered(90, 105, 15), signed, true);
        assert_eq!(frames(&next), (5, 45, 105));
        let elder = Entry {
            mark: Volume::default(),
            ..kept.entry
        };
        let again = post_delivered(Some(elder), &delivered(90, 100, 10), &[], false);
        assert_eq!(frames(&again), (10, 50, 100));
        assert_eq!(again.entry.mark.frames, 100);
    }

    proptest! {
        // Whatever the readings, the windows' volumes add up to what the log has, each record once, also when a reading
        // is lost and comes again with more.
        #[test]
        fn volumes_add_up(steps in proptest::collection::vec((0u64..50, any::<bool>()), 1..60)) {
            let (mut now, mut sum, mut prior) = (0, Volume::default(), None);
            for (added, kept) in steps {
                now += added;
                let posted = post_stored(prior, &stored(0, now), false);
                if kept {
                    let record = posted.record.as_ref();
                    sum = plus(sum, record.map(|r| r.volume).unwrap_or_default());
                    prior = Some(posted.entry);
                    prop_assert_eq!(sum, volume(now));
                    prop_assert_eq!(posted.entry.total, volume(now));
                }
            }
        }
    }
}
