//! Several entries of a record in one message: a broker takes a message of 32 KiB hardly later than one of 1 KiB.
//!
//! ```text
//! bundle = 1 ‖ channels u16 ‖ channel 32 … ‖ entries u32 ‖ head … ‖ sealed bytes, one after the other      integers big-endian
//! head   = channel's number u16 ‖ offset u64 ‖ epoch u64 ‖ sequence u64 ‖ length u32
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::record::{Reader, Record, put32};
use super::transport::EntryHead;
use crate::{AppendBatch, ChannelId};

const VERSION: u8 = 1;
/// Bytes of entries past which a bundle takes no more: what a message costs by itself is little beside this, and a reader
/// that wants one of its entries gets little else.
const BYTES: usize = 32 << 10;
/// Entries of a bundle: empty ones count, too.
const ENTRIES: usize = 1024;

/// An entry with its bytes.
pub(crate) type Entry = (EntryHead, Bytes);

/// Which of a record's entries go together, in order.
pub(crate) fn parts(record: &Record) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, meta) in record.metas.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if bytes + meta.len <= BYTES && part.len() < ENTRIES => {
                part.end = at + 1;
                bytes += meta.len;
            }
            Some(_) | None => {
                parts.push(at..at + 1);
                bytes = meta.len;
            }
        }
    }
    parts
}

/// A record's entries, in order.
pub(crate) fn entries(record: &Record) -> impl Iterator<Item = Entry> {
    record.entries().map(|(run, meta, body)| {
        let head = EntryHead {
            channel: run.channel,
            offset: meta.offset,
            epoch: meta.epoch,
            sequence: meta.sequence,
        };
        (head, body)
    })
}

/// The entries as one body.
pub(crate) fn encode(entries: &[Entry]) -> Bytes {
    let mut numbers: BTreeMap<ChannelId, u16> = BTreeMap::new();
    let mut channels: Vec<ChannelId> = Vec::new();
    for (head, _) in entries {
        numbers.entry(head.channel).or_insert_with(|| {
            channels.push(head.channel);
            // At most `ENTRIES`.
            (channels.len() - 1) as u16
        });
    }
    let bytes: usize = entries.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = Vec::with_capacity(7 + channels.len() * 32 + entries.len() * 30 + bytes);
    out.push(VERSION);
    out.extend_from_slice(&(channels.len() as u16).to_be_bytes());
    for channel in &channels {
        out.extend_from_slice(&channel.0);
    }
    put32(&mut out, entries.len());
    for (head, bytes) in entries {
        out.extend_from_slice(&numbers[&head.channel].to_be_bytes());
        for number in [head.offset, head.epoch, head.sequence] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        put32(&mut out, bytes.len());
    }
    for (_, bytes) in entries {
        out.extend_from_slice(bytes);
    }
    out.into()
}

/// The entries of a body; `None` when no version of this program wrote it.
pub(crate) fn decode(body: &Bytes) -> Option<Vec<Entry>> {
    let mut from = Reader(body);
    if from.take(1)? != [VERSION] {
        return None;
    }
    let count = u16::from_be_bytes(from.take(2)?.try_into().ok()?);
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(ChannelId(from.take(32)?.try_into().ok()?));
    }
    let mut heads = Vec::new();
    for _ in 0..from.count()? {
        let channel = u16::from_be_bytes(from.take(2)?.try_into().ok()?);
        let channel = *channels.get(usize::from(channel))?;
        let [offset, epoch, sequence] = from.numbers()?;
        let length = from.u32()? as usize;
        let head = EntryHead {
            channel,
            offset,
            epoch,
            sequence,
        };
        heads.push((head, length));
    }
    let mut at = body.len() - from.0.len();
    let mut entries = Vec::with_capacity(heads.len());
    for (head, length) in heads {
        let end = at.checked_add(length).filter(|end| *end <= body.len())?;
        entries.push((head, body.slice(at..end)));
        at = end;
    }
    (at == body.len()).then_some(entries)
}

/// A batch's entries as one bundle.
pub fn bundle(batch: AppendBatch) -> Vec<u8> {
    let record = Record::new(batch, [0; 16]);
    encode(&entries(&record).collect::<Vec<_>>()).into()
}

/// What a broker brings as a bundle, read and written again; `None` when it is none. Channels that no entry names are left out, and
/// they come in the order in which entries name them.
pub fn rebundled(bytes: &[u8]) -> Option<Vec<u8>> {
    let entries = decode(&Bytes::copy_from_slice(bytes))?;
    Some(encode(&entries).into())
}

/// The channels and offsets of a bundle's entries, for who looks at a stream by other means; `None` when it is none.
pub fn bundled(bytes: &[u8]) -> Option<Vec<(ChannelId, u64)>> {
    let entries = decode(&Bytes::copy_from_slice(bytes))?;
    let places = entries.iter().map(|(head, _)| (head.channel, head.offset));
    Some(places.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Base, ShardNo};

    fn head(channel: u8, offset: u64, sequence: u64) -> EntryHead {
        EntryHead {
            channel: ChannelId([channel; 32]),
            offset,
            epoch: 5,
            sequence,
        }
    }

    fn entries() -> Vec<Entry> {
        vec![
            (head(0xab, 7, 1), Bytes::from_static(b"one")),
            (head(0xcd, 1, 9), Bytes::new()),
            (head(0xab, 8, 2), Bytes::from_static(b"three")),
        ]
    }

    // The format in streams: pinned.
    #[test]
    fn bytes_are_pinned() {
        let mut wanted = vec![1, 0, 2];
        wanted.extend([0xab; 32]);
        wanted.extend([0xcd; 32]);
        wanted.extend([0, 0, 0, 3]);
        for (channel, numbers, length) in
            [(0, [7_u64, 5, 1], 3), (1, [1, 5, 9], 0), (0, [8, 5, 2], 5)]
        {
            wanted.extend([0, channel]);
            for number in numbers {
                wanted.extend(number.to_be_bytes());
            }
            wanted.extend([0, 0, 0, length]);
        }
        wanted.extend(b"onethree");
        assert_eq!(encode(&entries()), wanted);
        assert_eq!(decode(&wanted.into()), Some(entries()));
    }

    // Cut, longer, of another version, or with a channel that is not there: none.
    #[test]
    fn what_makes_no_sense_is_none() {
        let bytes = encode(&entries());
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes.slice(..len)), None, "{len} bytes");
        }
        let changed = |at: usize, byte: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = byte;
            decode(&bytes.into())
        };
        assert_eq!(decode(&[&bytes[..], b"x"].concat().into()), None);
        assert_eq!(changed(0, 2), None);
        // The channel's number of the first entry.
        assert_eq!(changed(3 + 64 + 4 + 1, 2), None);
    }

    // Entries go together up to 32 KiB or 1,024; one that is larger goes alone; every entry is in one part, in order.
    #[test]
    fn parts_are_bounded() {
        let parts_of = |lengths: &[usize]| {
            let mut batch = AppendBatch::new(ShardNo(3), 1);
            let slot = batch.channel(ChannelId([1; 32]), Base::default());
            for (sequence, length) in (1..).zip(lengths) {
                batch.push(slot, (1, sequence), 0, |_, out| {
                    out.resize(out.len() + length, 7)
                });
            }
            parts(&Record::new(batch, [0; 16]))
        };
        assert_eq!(parts_of(&[]), []);
        assert_eq!(parts_of(&[16 << 10, 16 << 10, 1]), [0..2, 2..3]);
        assert_eq!(parts_of(&[1, 64 << 10, 1, 1]), [0..1, 1..2, 2..4]);
        assert_eq!(parts_of(&[0; 1_500]), [0..1_024, 1_024..1_500]);
    }
}
