//! Reads of the log beside deliveries: where a time lies, and what the shard's next owner copies.

use pqcnet_actor::{Cx, On, Reply};
use pqcnet_log::seek::{self, Extent};
use pqcnet_log::{ChannelId, Entries, LogError, ReadRequest, ShardLog, ShardNo};
use pqcnet_messages::Refusal;
use pqcnet_messages::edge::OffsetFound;
use pqcnet_messages::moving::{
    MAX_TEXT_BYTES, MAX_TEXTS, ReadShard, ShardEntries, Stretch, SurveyShard,
};
use pqcnet_messages::relay_local::Locate;

use super::ShardWorker;
use super::duty::Duty;
use crate::core::moving::digest;
use crate::core::seal::ShardKeys;

/// Searches for a time at once; each is some twenty reads of the log, one after the other.
const LOCATING: usize = 8;

/// When an entry was stored; `None` for one that does not open.
fn stored_at(
    keys: &mut ShardKeys,
    channel: &ChannelId,
    offset: u64,
    sealed: &mut [u8],
) -> Option<u64> {
    let text = keys.open(channel, offset, sealed).ok()?;
    let stamp = sealed.get(text)?.first_chunk()?;
    Some(u64::from_be_bytes(*stamp))
}

impl On<Locate> for ShardWorker {
    fn on(&mut self, msg: Locate, cx: &mut Cx<Self>) -> Reply<Locate> {
        let (channel, head) = match self.core.readable(msg.customer, &msg.channel) {
            Ok(readable) => readable,
            Err(refusal) => return Reply::Now(Err(refusal)),
        };
        if self.locating >= LOCATING {
            return Reply::Now(Err(Refusal::Busy));
        }
        self.locating += 1;
        let mut keys = ShardKeys::new(self.config.storage_key.expose(), self.shard);
        keys.learn(&self.salts);
        let (log, extent, at_ms) = (
            self.log.clone(),
            Extent {
                shard: self.shard,
                channel,
                first: 1,
                head,
            },
            msg.at_ms,
        );
        let locating = async move {
            seek::before(&*log, extent, at_ms, |offset, sealed| {
                stored_at(&mut keys, &channel, offset, sealed)
            })
            .await
        };
        let (promise, reply) = Reply::later();
        cx.spawn(locating, move |worker, found, _| {
            worker.locating -= 1;
            promise.fulfil(match found {
                Ok(after) => Ok(OffsetFound { after, head }),
                Err(LogError::Busy) => Err(Refusal::Busy),
                Err(error) => {
                    tracing::warn!(shard = worker.shard.0, %error, "a time was not found");
                    Err(Refusal::Storage)
                }
            });
        });
        reply
    }
}

impl On<SurveyShard> for ShardWorker {
    fn on(&mut self, msg: SurveyShard, _cx: &mut Cx<Self>) -> Reply<SurveyShard> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        Reply::Now(self.core.survey(msg.after))
    }
}

impl On<ReadShard> for ShardWorker {
    fn on(&mut self, msg: ReadShard, cx: &mut Cx<Self>) -> Reply<ReadShard> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (promise, reply) = Reply::later();
        if msg.letters {
            self.show_letters(msg.stretches, promise, cx);
            return reply;
        }
        let (log, shard, wanted) = (self.log.clone(), self.shard, msg.stretches.clone());
        let reading = async move { read_stretches(&*log, shard, &wanted).await };
        cx.spawn(reading, move |worker, read, cx| {
            promise.fulfil(worker.in_clear(&msg.stretches, read));
            worker.drive(cx);
        });
        reply
    }
}

/// The entries of the first stretches that fit into an answer; the last of them may be cut short.
async fn read_stretches(
    log: &dyn ShardLog,
    shard: ShardNo,
    stretches: &[Stretch],
) -> Result<Vec<Entries>, LogError> {
    let (mut records, mut bytes) = (MAX_TEXTS, MAX_TEXT_BYTES);
    let mut read = Vec::new();
    for stretch in stretches {
        let whole = usize::try_from(stretch.up_to - stretch.after).unwrap_or(usize::MAX);
        let request = ReadRequest {
            shard,
            channel: ChannelId(stretch.channel),
            after: stretch.after,
            max_records: whole.min(records),
            max_bytes: bytes,
        };
        let entries = log.read(request).await?;
        let last = entries
            .items
            .last()
            .map_or(stretch.up_to, |(offset, _)| *offset);
        records -= entries.items.len().min(records);
        bytes -= entries.buffer.len().min(bytes);
        read.push(entries);
        if last < stretch.up_to || records == 0 || bytes == 0 {
            break;
        }
    }
    Ok(read)
}

impl ShardWorker {
    pub(super) fn in_clear(
        &mut self,
        stretches: &[Stretch],
        read: Result<Vec<Entries>, LogError>,
    ) -> Result<ShardEntries, Refusal> {
        let read = read.map_err(|error| match error {
            LogError::Busy => Refusal::Busy,
            error => {
                let shard = self.shard.0;
                tracing::error!(shard, %error, "a shard can not be copied to its next owner");
                Refusal::Storage
            }
        })?;
        let runs = stretches.iter().zip(read);
        let runs = runs.map(|(stretch, entries)| self.core.in_clear(stretch, entries));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let digest = digest(stretches, &runs);
        Ok(ShardEntries { runs, digest })
    }
}
