//! What the log on a broker keeps locally: heads and marks, where entries are in the stream, and the spill.
//!
//! Beside the families of [`keys`](crate::keys), of which `log.entry` holds only what is spilled:
//!
//! | family | key | value |
//! |---|---|---|
//! | `log.place` | shard u16, channel 32, last offset of a run u64 | its first offset, writer epoch, sequence of its record's first message, place in the stream at or before that: u64 each |
//! | `log.spill` | shard u16, record u64 | the record's facts and metas ([`record`](super::record)) |
//! | `log.stream` | shard u16 | highest record that is in the stream and settled, highest writer epoch claimed, place in the stream from which to read: u64 each; whose claims are this store's: 16 random bytes; unless all of it is 0: u64, 1 where its owner stands in the stream's name, 2 where the stream is to be deleted, 4 where it is |

use std::ops::ControlFlow;

use bytes::BytesMut;
use pqcnet_store::{Batch, Family, ReadError, Scan, Store, View};

use super::names::Named;
use super::record::{Facts, Record, decode_spilled, encode_spilled};
use crate::keys::{self, ABOUT, ENTRY, FIRST, GENERATION, HEAD, MARK};
use crate::{ChannelId, LogError, ReadRequest, ShardNo};

/// Runs of a read: its records come of at most so many.
pub(crate) const MAX_RUNS: usize = 512;

/// Where entries are in the stream.
pub const PLACE: Family = Family("log.place");
/// Records that wait for the broker.
pub const SPILL: Family = Family("log.spill");
/// Where each shard's stream stands.
pub const STREAM: Family = Family("log.stream");

/// Every family of the log on a broker, for a store's schema.
pub const FAMILIES: [Family; 9] = [
    GENERATION, ENTRY, HEAD, FIRST, MARK, ABOUT, PLACE, SPILL, STREAM,
];

/// Where a shard's stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// Highest record in the stream and settled.
    pub through: u64,
    /// Highest writer epoch that was ever claimed, or was about to be.
    pub epoch: u64,
    /// Everything before this place in the stream is settled or void.
    pub position: u64,
    /// Stands in each of this store's claims, and in nobody else's.
    pub writer: u128,
    /// What the stream is called.
    pub named: Named,
    /// Whether there is one.
    pub life: Life,
}

/// Whether a shard has a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Life {
    /// It has.
    #[default]
    Used,
    /// The shard is elsewhere: stream and all else are to be deleted.
    Doomed,
    /// They are; only how far writer epochs went is known.
    Vacant,
}

impl Standing {
    /// A release before shards moved here reads only what is 0, and refuses the rest.
    fn marks(&self) -> u64 {
        let named = u64::from(self.named == Named::Own);
        named
            | match self.life {
                Life::Used => 0,
                Life::Doomed => 2,
                Life::Vacant => 4,
            }
    }

    fn encode(&self) -> Vec<u8> {
        let (high, low) = ((self.writer >> 64) as u64, self.writer as u64);
        let mut value = keys::value([self.through, self.epoch, self.position, high, low]);
        if self.marks() > 0 {
            value.extend(self.marks().to_be_bytes());
        }
        value
    }

    fn decode(value: &[u8]) -> Option<Standing> {
        let (numbers, marks) = match keys::numbers::<6>(value) {
            Some([numbers @ .., marks]) => (numbers, marks),
            None => (keys::numbers::<5>(value)?, 0),
        };
        let [through, epoch, position, high, low] = numbers;
        let life = match marks & !1 {
            0 => Life::Used,
            2 => Life::Doomed,
            4 => Life::Vacant,
            _ => return None,
        };
        Some(Standing {
            through,
            epoch,
            position,
            writer: u128::from(high) << 64 | u128::from(low),
            named: if marks & 1 == 1 {
                Named::Own
            } else {
                Named::Plain
            },
            life,
        })
    }
}

/// Some entries of a channel that lie together in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub first: u64,
    pub last: u64,
    pub epoch: u64,
    pub sequence: u64,
    /// At or before the place of the message with that sequence.
    pub position: u64,
}

fn stream_key(shard: ShardNo) -> [u8; 2] {
    shard.0.to_be_bytes()
}

fn spill_key(shard: ShardNo, record: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[2..].copy_from_slice(&record.to_be_bytes());
    key
}

/// What is written down of a shard's stream.
pub(crate) fn written(store: &dyn Store, shard: ShardNo) -> Result<Option<Standing>, LogError> {
    let mut found = None;
    let read = store.view(&mut |view| {
        found = view.get(STREAM, &stream_key(shard))?;
        Ok(())
    });
    read.map_err(storage)?;
    let Some(value) = found else {
        return Ok(None);
    };
    let standing = Standing::decode(&value);
    let odd = || LogError::DamagedShard {
        shard,
        detail: "its standing has the wrong shape".to_owned(),
    };
    standing.map(Some).ok_or_else(odd)
}

/// Where the stream stands, and the highest spilled record; `None` when this store never had the shard.
pub(crate) fn standing(
    store: &dyn Store,
    shard: ShardNo,
) -> Result<Option<(Standing, u64)>, LogError> {
    let mut found = None;
    let mut damaged = None;
    let read = store.view(&mut |view| {
        let Some(value) = view.get(STREAM, &stream_key(shard))? else {
            return Ok(());
        };
        let Some(standing) = Standing::decode(&value) else {
            damaged = Some("its standing has the wrong shape".to_owned());
            return Ok(());
        };
        let mut last = standing.through;
        let (from, to) = (spill_key(shard, 0), spill_key(shard, u64::MAX));
        let range = Scan {
            from: &from,
            to: &to,
        };
        view.scan(SPILL, range, &mut |key, _| {
            let number = key.get(2..).and_then(|k| k.try_into().ok());
            let number = number.map(u64::from_be_bytes);
            if number != Some(last + 1) {
                damaged = Some(format!("record {} is missing in the spill", last + 1));
                return ControlFlow::Break(());
            }
            last += 1;
            ControlFlow::Continue(())
        })?;
        found = Some((standing, last));
        Ok(())
    });
    read.map_err(storage)?;
    match damaged {
        Some(detail) => Err(LogError::DamagedShard { shard, detail }),
        None => Ok(found),
    }
}

/// A shard whose stream this store has written to, and that it has.
pub(crate) fn known_shard(store: &dyn Store) -> Result<Option<(ShardNo, Named)>, LogError> {
    let mut found = None;
    let range = Scan {
        from: &[],
        to: &[0xff; 3],
    };
    let read = store.view(&mut |view| {
        view.scan(STREAM, range, &mut |key, value| {
            let standing = Standing::decode(value).filter(|found| found.life == Life::Used);
            let shard = key.try_into().ok().map(u16::from_be_bytes);
            found = shard.zip(standing);
            match found {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        })
    });
    read.map_err(storage)?;
    Ok(found.map(|(shard, standing)| (ShardNo(shard), standing.named)))
}

pub(crate) fn put_standing(batch: &mut Batch, shard: ShardNo, standing: Standing) {
    batch.put(STREAM, &stream_key(shard), &standing.encode());
}

/// Removes everything of a shard whose stream is deleted, but its generations and how far writer epochs went.
pub(crate) fn put_wiped(batch: &mut Batch, shard: ShardNo, doomed: Standing) {
    let (from, to) = keys::shard_range(shard);
    for family in [ENTRY, HEAD, FIRST, MARK, ABOUT, PLACE, SPILL] {
        batch.delete_range(family, &from, &to);
    }
    let vacant = Standing {
        epoch: doomed.epoch,
        named: doomed.named,
        life: Life::Vacant,
        ..Standing::default()
    };
    put_standing(batch, shard, vacant);
}

/// What a record changes of heads, marks and abouts.
pub(crate) fn put_facts(batch: &mut Batch, shard: ShardNo, facts: &Facts) {
    for run in &facts.runs {
        let key = keys::channel(shard, &run.channel);
        if run.skips && run.first > 1 {
            put_trim(batch, shard, &run.channel, 0, run.first - 1);
        }
        let head = [run.head, run.forgotten_epoch, run.bytes, run.newest_ms];
        batch.put(HEAD, &key, &keys::value(head));
        for epoch in &run.forget {
            batch.delete(MARK, &keys::numbered(shard, &run.channel, *epoch));
        }
        for mark in &run.marks {
            let key = keys::numbered(shard, &run.channel, mark.epoch);
            batch.put(MARK, &key, &keys::value([mark.sequence, mark.offset]));
        }
        if let Some(about) = &run.about {
            batch.put(ABOUT, &key, about);
        }
    }
}

/// Where a record's entries are in the stream.
pub(crate) fn put_places(
    batch: &mut Batch,
    shard: ShardNo,
    facts: &Facts,
    (epoch, sequence, position): (u64, u64, u64),
) {
    for run in facts.runs.iter().filter(|run| run.first <= run.head) {
        let key = keys::numbered(shard, &run.channel, run.head);
        batch.put(
            PLACE,
            &key,
            &keys::value([run.first, epoch, sequence, position]),
        );
    }
}

/// The record into the spill, and all that it changes.
pub(crate) fn put_spilled(batch: &mut Batch, shard: ShardNo, number: u64, record: &Record) {
    put_facts(batch, shard, &record.facts);
    for (run, meta, bytes) in record.entries() {
        let key = keys::numbered(shard, &run.channel, meta.offset);
        batch.put(ENTRY, &key, &bytes);
    }
    batch.put(SPILL, &spill_key(shard, number), &encode_spilled(record));
}

/// The record out of the spill.
pub(crate) fn drop_spilled(batch: &mut Batch, shard: ShardNo, number: u64, facts: &Facts) {
    for run in facts.runs.iter().filter(|run| run.first <= run.head) {
        let from = keys::numbered(shard, &run.channel, run.first);
        let to = keys::numbered(shard, &run.channel, run.head + 1);
        batch.delete_range(ENTRY, &from, &to);
    }
    batch.delete(SPILL, &spill_key(shard, number));
}

/// A record from the spill. Entries that were trimmed meanwhile are not in it.
pub(crate) fn load_spilled(
    store: &dyn Store,
    shard: ShardNo,
    number: u64,
) -> Result<Record, LogError> {
    let mut found = None;
    let read = store.view(&mut |view| {
        let Some(value) = view.get(SPILL, &spill_key(shard, number))? else {
            return Ok(());
        };
        let Some((facts, metas)) = decode_spilled(&value) else {
            return Ok(());
        };
        let mut record = Record {
            facts,
            metas: Vec::with_capacity(metas.len()),
            buffer: Default::default(),
        };
        let mut buffer = Vec::new();
        for meta in metas {
            let channel = &record.facts.runs[meta.run].channel;
            let key = keys::numbered(shard, channel, meta.offset);
            if let Some(bytes) = view.get(ENTRY, &key)? {
                buffer.extend_from_slice(&bytes);
                record.metas.push(meta);
            }
        }
        record.buffer = buffer.into();
        found = Some(record);
        Ok(())
    });
    read.map_err(storage)?;
    found.ok_or_else(|| LogError::DamagedShard {
        shard,
        detail: format!("record {number} in the spill does not make sense"),
    })
}

/// Where the entries from `next` on are: runs in the stream, one after the other; none when the first is not there.
pub(crate) fn placed(
    store: &dyn Store,
    request: &ReadRequest,
    next: u64,
) -> Result<Vec<Placed>, LogError> {
    let (shard, channel) = (request.shard, request.channel);
    let mut runs: Vec<Placed> = Vec::new();
    let mut odd = false;
    let read = store.view(&mut |view| {
        let from = keys::numbered(shard, &channel, next);
        let to = after_channel(shard, &channel);
        let range = Scan {
            from: &from,
            to: &to,
        };
        view.scan(PLACE, range, &mut |key, value| {
            let last = keys::split(key).and_then(|(_, last)| last);
            let (Some(last), Some([first, epoch, sequence, position])) =
                (last, keys::numbers(value))
            else {
                odd = true;
                return ControlFlow::Break(());
            };
            let wanted = runs.last().map_or(next, |run| run.last + 1);
            if first > wanted || first > last {
                return ControlFlow::Break(());
            }
            runs.push(Placed {
                first,
                last,
                epoch,
                sequence,
                position,
            });
            let have = usize::try_from(last - next + 1).unwrap_or(usize::MAX);
            if have >= request.max_records || runs.len() == MAX_RUNS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    });
    read.map_err(storage)?;
    if odd {
        let detail = "a value in log.place has the wrong shape".to_owned();
        return Err(LogError::DamagedShard { shard, detail });
    }
    Ok(runs)
}

/// The first key after all of a channel's.
fn after_channel(shard: ShardNo, channel: &ChannelId) -> Vec<u8> {
    let mut key = keys::channel(shard, channel).to_vec();
    key.extend([0xff; 9]);
    key
}

/// Removes a channel's front.
pub(crate) fn put_trim(
    batch: &mut Batch,
    shard: ShardNo,
    channel: &ChannelId,
    first: u64,
    up_to: u64,
) {
    for family in [ENTRY, PLACE] {
        let from = keys::numbered(shard, channel, first);
        let to = keys::numbered(shard, channel, up_to + 1);
        batch.delete_range(family, &from, &to);
    }
    let key = keys::channel(shard, channel);
    batch.put(FIRST, &key, &keys::value([up_to + 1]));
}

/// The entries from `next` on that lie in the spill, as far as they go without a hole and the request allows.
pub(crate) fn spilled_entries(
    view: &dyn View,
    request: &ReadRequest,
    next: &mut u64,
    into: &mut (BytesMut, Vec<(u64, std::ops::Range<usize>)>),
) -> Result<(), ReadError> {
    let from = keys::numbered(request.shard, &request.channel, *next);
    let to = after_channel(request.shard, &request.channel);
    let range = Scan {
        from: &from,
        to: &to,
    };
    view.scan(ENTRY, range, &mut |key, value| {
        let offset = keys::split(key).and_then(|(_, offset)| offset);
        let (buffer, items) = &mut *into;
        let start = buffer.len();
        let full = !items.is_empty() && start + value.len() > request.max_bytes;
        if offset != Some(*next) || full || items.len() >= request.max_records {
            return ControlFlow::Break(());
        }
        buffer.extend_from_slice(value);
        items.push((*next, start..buffer.len()));
        *next += 1;
        ControlFlow::Continue(())
    })
}

pub(crate) fn storage(error: ReadError) -> LogError {
    match error {
        ReadError::Closed => LogError::Closed,
        other => LogError::Storage {
            detail: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The disk format: a shard whose stream has the plain name stands as it did before there was another.
    #[test]
    fn standings_are_pinned() {
        let mut standing = Standing {
            through: 1,
            epoch: 2,
            position: 3,
            writer: 4 << 64 | 5,
            ..Standing::default()
        };
        let mut wanted = keys::value([1, 2, 3, 4, 5]);
        assert_eq!(standing.encode(), wanted);
        assert_eq!(Standing::decode(&wanted), Some(standing));
        wanted.extend(0_u64.to_be_bytes());
        for (marks, named, life) in [
            (1, Named::Own, Life::Used),
            (2, Named::Plain, Life::Doomed),
            (5, Named::Own, Life::Vacant),
        ] {
            (standing.named, standing.life) = (named, life);
            wanted[47] = marks;
            assert_eq!(standing.encode(), wanted);
            assert_eq!(Standing::decode(&wanted), Some(standing));
        }
        for odd in [6, 8] {
            wanted[47] = odd;
            assert_eq!(Standing::decode(&wanted), None);
        }
        assert_eq!(Standing::decode(&wanted[..47]), None);
    }
}
