//! A disk that checks what it is given.

use std::collections::BTreeMap;

use bytes::BytesMut;
use pqcnet_log::{AppendBatch, ChannelHead, ChannelId, Entries, ProducerMark, ReadRequest, Salt};

/// What the disk holds.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) salts: Vec<(u32, Salt)>,
    pub(super) entries: BTreeMap<ChannelId, Vec<Vec<u8>>>,
    pub(super) heads: BTreeMap<ChannelId, ChannelHead>,
}

impl Disk {
    pub(super) fn store(&mut self, batch: &AppendBatch) {
        for (channel, head) in batch.heads() {
            let kept = self.heads.entry(channel).or_insert_with(|| ChannelHead {
                first: 1,
                ..head.clone()
            });
            let producers = std::mem::take(&mut kept.producers);
            let about = kept.about.take();
            *kept = ChannelHead {
                first: 1,
                ..head.clone()
            };
            kept.about = kept.about.take().or(about);
            kept.producers = producers;
            kept.producers
                .retain(|mark| !batch.forgets(channel, mark.epoch));
        }
        for (channel, offset, epoch, sequence, bytes) in batch.entries() {
            let entries = self.entries.entry(channel).or_default();
            assert_eq!(offset, entries.len() as u64 + 1, "offsets are contiguous");
            entries.push(bytes.to_vec());
            let marks = &mut self.heads.get_mut(&channel).unwrap().producers;
            let mark = ProducerMark {
                epoch,
                sequence,
                offset,
            };
            match marks.iter_mut().find(|mark| mark.epoch == epoch) {
                Some(known) => {
                    assert_eq!(sequence, known.sequence + 1, "sequences are contiguous");
                    *known = mark;
                }
                None => {
                    assert_eq!(sequence, 1, "a producer starts at 1");
                    marks.push(mark);
                }
            }
        }
    }

    pub(super) fn read(&self, request: ReadRequest) -> Entries {
        let mut out = Entries {
            buffer: BytesMut::new(),
            items: Vec::new(),
        };
        let entries = self
            .entries
            .get(&request.channel)
            .map_or(&[][..], Vec::as_slice);
        for (offset, bytes) in (1..)
            .zip(entries)
            .skip(request.after as usize)
            .take(request.max_records)
        {
            let start = out.buffer.len();
            if start > 0 && start + bytes.len() > request.max_bytes {
                break;
            }
            out.buffer.extend_from_slice(bytes);
            out.items.push((offset, start..out.buffer.len()));
        }
        out
    }
}
