//! A batch as a record of the stream: its entries, and the facts that its last message carries.
//!
//! ```text
//! facts  = 1 (2: where a run skips) ‖ generation u32 ‖ salt 16 ‖ runs u32 ‖ run …                                       integers big-endian
//! run    = channel 32 ‖ first u64 ‖ head u64 ‖ forgotten u64 ‖ bytes u64 ‖ newest ms u64
//!          ‖ dropped marks u32 ‖ epoch u64 … ‖ marks u32 ‖ (epoch, sequence, offset) … ‖ about u32 (0: none, else length + 1) ‖ about
//!          ‖ in facts of version 2: u8, 1 where nothing before its first entry is kept
//! metas  = entries u32 ‖ (run u32, offset u64, epoch u64, sequence u64, length u32) …              in the spill, after the facts
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bundle;
use crate::batch::NO_PRODUCER;
use crate::{AppendBatch, ChannelId, ProducerMark, Salt, ShardNo};

const VERSION: u8 = 1;
/// With fronts that were passed over, of shards that came from elsewhere. A release before those refuses it.
const SKIPS: u8 = 2;
/// More runs, marks or entries than a batch can have: 8 MiB of empty payloads are fewer.
const MAX_ITEMS: u32 = 1 << 20;

/// What a record changes of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub channel: ChannelId,
    /// Offset of its first entry; `head + 1` when it has none.
    pub first: u64,
    pub head: u64,
    pub forgotten_epoch: u64,
    pub bytes: u64,
    pub newest_ms: u64,
    pub forget: Vec<u64>,
    pub marks: Vec<ProducerMark>,
    pub about: Option<Bytes>,
    /// What is below `first` is not kept.
    pub skips: bool,
}

/// One entry of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub run: usize,
    pub offset: u64,
    pub epoch: u64,
    pub sequence: u64,
    pub len: usize,
}

/// The changes that a record makes, without its entries' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub generation: u32,
    pub salt: Salt,
    pub runs: Vec<Run>,
}

/// A record with its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub facts: Facts,
    pub metas: Vec<Meta>,
    /// The entries' sealed bytes, one after the other.
    pub buffer: Bytes,
}

impl Record {
    pub(crate) fn new(batch: AppendBatch, salt: Salt) -> Self {
        let mut marks: BTreeMap<(usize, u64), (u64, u64)> = BTreeMap::new();
        let mut metas = Vec::with_capacity(batch.entries.len());
        let mut start = 0;
        for (index, run) in batch.runs.iter().enumerate() {
            let alone = run.marks.iter();
            marks.extend(alone.map(|mark| ((index, mark.epoch), (mark.sequence, mark.offset))));
        }
        for entry in &batch.entries {
            if (entry.epoch, entry.sequence) != NO_PRODUCER {
                marks.insert((entry.run, entry.epoch), (entry.sequence, entry.offset));
            }
            metas.push(Meta {
                run: entry.run,
                offset: entry.offset,
                epoch: entry.epoch,
                sequence: entry.sequence,
                len: entry.end - start,
            });
            start = entry.end;
        }
        let runs = batch.runs.into_iter().enumerate().map(|(index, run)| {
            let of_run = marks.range((index, 0)..=(index, u64::MAX));
            Run {
                channel: run.channel,
                first: run.first,
                head: run.next - 1,
                forgotten_epoch: run.forgotten_epoch,
                bytes: run.bytes,
                newest_ms: run.newest_ms,
                forget: run.forget,
                marks: of_run
                    .map(|((_, epoch), (sequence, offset))| ProducerMark {
                        epoch: *epoch,
                        sequence: *sequence,
                        offset: *offset,
                    })
                    .collect(),
                about: run.about,
                skips: run.skips,
            }
        });
        Self {
            facts: Facts {
                generation: batch.generation,
                salt,
                runs: runs.collect(),
            },
            metas,
            buffer: batch.buffer.into(),
        }
    }

    /// Messages it makes: its entries', and one that closes it.
    pub(crate) fn messages(&self) -> u64 {
        bundle::parts(self).len() as u64 + 1
    }

    /// The entries with their bytes, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Run, &Meta, Bytes)> {
        let mut start = 0;
        self.metas.iter().map(move |meta| {
            let bytes = self.buffer.slice(start..start + meta.len);
            start += meta.len;
            (&self.facts.runs[meta.run], meta, bytes)
        })
    }
}

impl Facts {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let skips = self.runs.iter().any(|run| run.skips);
        let mut out = vec![if skips { SKIPS } else { VERSION }];
        put32(&mut out, self.generation as usize);
        out.extend_from_slice(&self.salt);
        put32(&mut out, self.runs.len());
        for run in &self.runs {
            out.extend_from_slice(&run.channel.0);
            for number in [
                run.first,
                run.head,
                run.forgotten_epoch,
                run.bytes,
                run.newest_ms,
            ] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            put32(&mut out, run.forget.len());
            for epoch in &run.forget {
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            put32(&mut out, run.marks.len());
            for mark in &run.marks {
                for number in [mark.epoch, mark.sequence, mark.offset] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
            put32(
                &mut out,
                run.about.as_ref().map_or(0, |about| about.len() + 1),
            );
            out.extend_from_slice(run.about.as_deref().unwrap_or_default());
            if skips {
                out.push(u8::from(run.skips));
            }
        }
        out
    }

    /// The facts at the front of `bytes`, and the rest; `None` when no version of this program wrote them.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut from = Reader(bytes);
        let &[version] = from.take(1)? else {
            return None;
        };
        if version != VERSION && version != SKIPS {
            return None;
        }
        let generation = from.u32()?;
        let salt = from.take(16)?.try_into().ok()?;
        let mut runs = Vec::new();
        for _ in 0..from.count()? {
            let channel = ChannelId(from.take(32)?.try_into().ok()?);
            let [first, head, forgotten_epoch, bytes, newest_ms] = from.numbers()?;
            let forget = (0..from.count()?)
                .map(|_| from.u64())
                .collect::<Option<_>>()?;
            let mut marks = Vec::new();
            for _ in 0..from.count()? {
                let [epoch, sequence, offset] = from.numbers()?;
                marks.push(ProducerMark {
                    epoch,
                    sequence,
                    offset,
                });
            }
            let about = match from.u32()? {
                0 => None,
                more => Some(Bytes::copy_from_slice(from.take(more as usize - 1)?)),
            };
            let skips = version == SKIPS && from.take(1)? == [1];
            runs.push(Run {
                channel,
                first,
                head,
                forgotten_epoch,
                bytes,
                newest_ms,
                forget,
                marks,
                about,
                skips,
            });
        }
        let facts = Self {
            generation,
            salt,
            runs,
        };
        Some((facts, from.0))
    }
}

/// A batch's facts and metas as the spill keeps them, of a generation with this salt.
pub fn encoded(batch: AppendBatch, salt: Salt) -> Vec<u8> {
    encode_spilled(&Record::new(batch, salt))
}

/// What a broker or a disk brings as such, read and written again; `None` when it is none.
pub fn reencoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let (facts, metas) = decode_spilled(bytes)?;
    let buffer = Bytes::new();
    Some(encode_spilled(&Record {
        facts,
        metas,
        buffer,
    }))
}

/// Facts and metas, as the spill keeps them; the bytes lie with the entries.
pub(crate) fn encode_spilled(record: &Record) -> Vec<u8> {
    let mut out = record.facts.encode();
    put32(&mut out, record.metas.len());
    for meta in &record.metas {
        put32(&mut out, meta.run);
        for number in [meta.offset, meta.epoch, meta.sequence] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        put32(&mut out, meta.len);
    }
    out
}

/// What [`encode_spilled`] made.
pub(crate) fn decode_spilled(bytes: &[u8]) -> Option<(Facts, Vec<Meta>)> {
    let (facts, rest) = Facts::decode(bytes)?;
    let mut from = Reader(rest);
    let mut metas = Vec::new();
    for _ in 0..from.count()? {
        let run = from.u32()? as usize;
        let [offset, epoch, sequence] = from.numbers()?;
        let len = from.u32()? as usize;
        if run >= facts.runs.len() {
            return None;
        }
        metas.push(Meta {
            run,
            offset,
            epoch,
            sequence,
            len,
        });
    }
    from.0.is_empty().then_some((facts, metas))
}

/// Name of a shard's stream.
pub fn stream_name(prefix: &str, shard: ShardNo) -> String {
    format!("{prefix}.shard-{}", shard.0)
}

pub(crate) fn put32(out: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    out.extend_from_slice(&number.to_be_bytes());
}

/// What is left of some bytes.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn count(&mut self) -> Option<u32> {
        self.u32().filter(|count| *count <= MAX_ITEMS)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.u64()?;
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Base;

    fn record() -> Record {
        let mut batch = AppendBatch::new(ShardNo(3), 0x0102_0304);
        let base = Base {
            head: 4,
            bytes: 100,
            forgotten_epoch: 2,
            newest_ms: 7,
        };
        let slot = batch.channel(ChannelId([0xab; 32]), base);
        batch.push(slot, (5, 1), 8, |_, out| out.extend_from_slice(b"one"));
        batch.push(slot, (5, 2), 9, |_, out| out.extend_from_slice(b""));
        batch.forget(slot, 3);
        let other = batch.channel(ChannelId([0xcd; 32]), Base::default());
        batch.set_about(other, Bytes::from_static(b"about"));
        Record::new(batch, [0x11; 16])
    }

    // The wire and disk format: these bytes are in brokers and spills.
    #[test]
    fn facts_are_pinned() {
        let facts = record().facts;
        let mut wanted = vec![1, 1, 2, 3, 4];
        wanted.extend([0x11; 16]);
        wanted.extend([0, 0, 0, 2]);
        wanted.extend([0xab; 32]);
        for number in [5_u64, 6, 3, 103, 9] {
            wanted.extend(number.to_be_bytes());
        }
        wanted.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
        for number in [5_u64, 2, 6] {
            wanted.extend(number.to_be_bytes());
        }
        wanted.extend([0; 4]);
        wanted.extend([0xcd; 32]);
        for number in [1_u64, 0, 0, 0, 0] {
            wanted.extend(number.to_be_bytes());
        }
        wanted.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6]);
        wanted.extend(b"about");
        assert_eq!(facts.encode(), wanted);
        assert_eq!(Facts::decode(&wanted), Some((facts, &[][..])));
    }

    // The same of a copy whose front is gone: marks that came without entries, and version 2, which alone tells of fronts.
    #[test]
    fn facts_of_a_copy_are_pinned() {
        let mut batch = AppendBatch::new(ShardNo(3), 1);
        let base = Base {
            head: 4,
            ..Base::default()
        };
        let slot = batch.channel(ChannelId([0xab; 32]), base);
        batch.skip_to_base(slot);
        batch.push_copy(slot, 8, |_, out| out.extend_from_slice(b"one"));
        batch.mark(
            slot,
            ProducerMark {
                epoch: 9,
                sequence: 2,
                offset: 5,
            },
        );
        let facts = Record::new(batch, [0x11; 16]).facts;
        let mut wanted = vec![2, 0, 0, 0, 1];
        wanted.extend([0x11; 16]);
        wanted.extend([0, 0, 0, 1]);
        wanted.extend([0xab; 32]);
        for number in [5_u64, 5, 0, 3, 8] {
            wanted.extend(number.to_be_bytes());
        }
        wanted.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        for number in [9_u64, 2, 5] {
            wanted.extend(number.to_be_bytes());
        }
        wanted.extend([0, 0, 0, 0, 1]);
        assert_eq!(facts.encode(), wanted);
        assert_eq!(Facts::decode(&wanted), Some((facts, &[][..])));
        assert_eq!(Facts::decode(&wanted[..wanted.len() - 1]), None);
    }

    // What the spill keeps comes back; whatever is cut off, or of another version, is refused.
    #[test]
    fn spilled_records_come_back_whole_or_not_at_all() {
        let record = record();
        let bytes = encode_spilled(&record);
        assert_eq!(
            decode_spilled(&bytes),
            Some((record.facts.clone(), record.metas.clone()))
        );
        for len in 0..bytes.len() {
            assert_eq!(decode_spilled(&bytes[..len]), None, "{len} bytes");
        }
        let newer = [&[3], &bytes[1..]].concat();
        assert_eq!(decode_spilled(&newer), None);
        let texts: Vec<_> = record.entries().map(|(_, m, b)| (m.offset, b)).collect();
        assert_eq!(texts, [(5, Bytes::from_static(b"one")), (6, Bytes::new())]);
    }
}
