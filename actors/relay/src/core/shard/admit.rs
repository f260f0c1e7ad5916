//! Judges what customers want stored, and puts it into the forming batch.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_log::{AppendBatch, Base, ChannelId, ShardNo};
use pqcnet_messages::edge::{MAX_READERS, Published};
use pqcnet_messages::metering::Volume;
use pqcnet_messages::{Channel, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_PAYLOAD, Record, Refusal};

use super::fair::Charge;
use super::{NewRecords, Shard, ShardLimits};
use crate::core::channel::{About, ChannelState, NewReaders, sealed_about};
use crate::core::pending::{Advance, Forming, Stored};
use crate::core::producers::Verdict;
use crate::core::seal::ShardKeys;

impl<T> Shard<T> {
    pub(super) fn try_publish(
        &mut self,
        now: Duration,
        wall_ms: u64,
        (id, charge): (ChannelId, Charge),
        new: NewRecords,
    ) -> Result<Admission, Refusal> {
        let generation = self.writable()?;
        if new.channel.owner != new.customer {
            return Err(Refusal::NotAllowed);
        }
        let bytes = check_payloads(&new)?;
        let state = self.channels.get_mut(&id).ok_or(Refusal::UnknownProducer)?;
        if state.about.is_none() {
            return Err(Refusal::Storage);
        }
        let skip = match state
            .producers
            .judge(new.epoch, new.first_seq, new.payloads.len())?
        {
            Verdict::Stored { sequence, offset } => {
                return Ok(Admission::Done(published(sequence, offset)));
            }
            Verdict::UnderWay {
                sequence,
                offset,
                batch,
            } => {
                let published = published(sequence, offset);
                return Ok(Admission::Wait { batch, published });
            }
            Verdict::Admit { skip } => skip,
        };
        if charge == Charge::Due {
            if self.pending_bytes + bytes > self.limits.pending_bytes {
                return Err(Refusal::Busy);
            }
            let paused = self.flow.check(&id, bytes as u64);
            paused.map_err(|_| Refusal::Busy)?;
        }
        if !state.about_stored {
            room_for_channel(
                &self.limits,
                self.stored_channels,
                &self.by_customer,
                &new.customer,
            )?;
        }
        self.pending_bytes += bytes;
        let Forming { batch, pending } =
            next_batch(&mut self.next, &mut self.batches, self.shard, generation);
        pending.bytes += bytes;
        let counts = (&mut self.stored_channels, &mut self.by_customer);
        let slot = place(batch, &id, state, &mut self.keys, counts);
        // Stamps never go back within a channel, whatever the wall clock does.
        let at_ms = wall_ms.max(state.admitted.newest_ms);
        let stamp = at_ms.to_be_bytes();
        let mut sequence = new.first_seq + skip as u64 - 1;
        let before = batch.byte_len();
        let keys = &mut self.keys;
        let mut volume = Volume::default();
        for payload in new.payloads.into_iter().skip(skip) {
            sequence += 1;
            volume.frames += 1;
            volume.bytes += payload.len() as u64;
            let offset = batch.push(slot, (new.epoch, sequence), at_ms, |offset, out| {
                keys.seal(&id, offset, [&stamp, &payload], out);
            });
            state.admitted.head = offset;
            let record = Record {
                offset,
                published_at_ms: at_ms,
                payload,
            };
            pending.records.push((id, record));
        }
        let offset = state.admitted.head;
        state.admitted.newest_ms = at_ms;
        state.admitted.bytes += (batch.byte_len() - before) as u64;
        state
            .producers
            .admitted(new.epoch, sequence, offset, pending.number);
        pending.advances.push(Advance {
            channel: id,
            epoch: new.epoch,
            sequence,
            offset,
            volume,
        });
        match charge {
            Charge::Due => self.flow.charge(now, id, volume.bytes),
            Charge::Paid => self.flow.hold(now, id, volume.bytes),
        }
        Ok(Admission::Wait {
            batch: pending.number,
            published: published(sequence, offset),
        })
    }

    pub(super) fn try_set_readers(
        &mut self,
        channel: &Channel,
        mut readers: Vec<NodeId>,
        to: T,
    ) -> Result<(), (T, Refusal)> {
        readers.sort_unstable();
        readers.dedup();
        let bytes = readers.len() * 32;
        let checked = self.writable().and_then(|generation| {
            if readers.len() > MAX_READERS {
                return Err(Refusal::TooLarge);
            }
            if self.pending_bytes + bytes > self.limits.pending_bytes {
                return Err(Refusal::Busy);
            }
            let id = self.ensure_channel(channel)?;
            let stored = self.channels.get(&id).is_some_and(|s| s.about_stored);
            if !stored {
                let (stored, of) = (self.stored_channels, &self.by_customer);
                room_for_channel(&self.limits, stored, of, &channel.owner)?;
            }
            Ok((generation, id))
        });
        let (generation, id) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return Err((to, refusal)),
        };
        let Some(state) = self.channels.get_mut(&id) else {
            return Err((to, Refusal::Unavailable));
        };
        self.pending_bytes += bytes;
        let Forming { batch, pending } =
            next_batch(&mut self.next, &mut self.batches, self.shard, generation);
        pending.bytes += bytes;
        let counts = (&mut self.stored_channels, &mut self.by_customer);
        let slot = place(batch, &id, state, &mut self.keys, counts);
        let about = About {
            channel: channel.clone(),
            readers: readers.clone(),
            groups: self.groups.stored(&id),
        };
        batch.set_about(slot, sealed_about(&mut self.keys, &id, &about));
        pending.readers.push(NewReaders {
            channel: id,
            readers,
        });
        pending.waiting.push((to, Stored::Readers));
        Ok(())
    }
}

pub(super) enum Admission {
    /// Durable already.
    Done(Published),
    /// Answer when batch `batch` is durable.
    Wait { batch: u64, published: Published },
}

fn published(last_seq: u64, last_offset: u64) -> Published {
    Published {
        last_seq,
        last_offset,
    }
}

/// The payloads' bytes, if a publish is within its limits.
pub(super) fn check_payloads(new: &NewRecords) -> Result<usize, Refusal> {
    let count = new.payloads.len();
    if count == 0 {
        return Err(Refusal::Invalid("no payloads".to_owned()));
    }
    if new.first_seq == 0 || new.first_seq.checked_add(count as u64).is_none() {
        return Err(Refusal::Invalid("sequences count from 1".to_owned()));
    }
    let bytes = new.payloads.iter().map(Bytes::len).sum();
    let largest = new.payloads.iter().map(Bytes::len).max().unwrap_or(0);
    if count > MAX_BATCH_RECORDS || bytes > MAX_BATCH_BYTES || largest > MAX_PAYLOAD {
        return Err(Refusal::TooLarge);
    }
    Ok(bytes)
}

/// Whether one more channel of this customer may be stored.
fn room_for_channel(
    limits: &ShardLimits,
    stored: usize,
    by_customer: &BTreeMap<NodeId, usize>,
    customer: &NodeId,
) -> Result<(), Refusal> {
    if stored >= limits.channels {
        return Err(Refusal::TooLarge);
    }
    match by_customer.get(customer) {
        Some(own) if *own >= limits.customer_channels => Err(Refusal::Quota),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn next_batch<'a, T>(
    next: &'a mut Option<Forming<T>>,
    batches: &mut u64,
    shard: ShardNo,
    generation: u32,
) -> &'a mut Forming<T> {
    next.get_or_insert_with(|| {
        *batches += 1;
        Forming::new(*batches, AppendBatch::new(shard, generation))
    })
}

/// The channel's slot in the forming batch, with whatever else of the channel is due for the disk.
pub(super) fn place(
    batch: &mut AppendBatch,
    id: &ChannelId,
    state: &mut ChannelState,
    keys: &mut ShardKeys,
    (stored_channels, by_customer): (&mut usize, &mut BTreeMap<NodeId, usize>),
) -> pqcnet_log::ChannelSlot {
    let base = Base {
        forgotten_epoch: state.producers.forgotten(),
        ..state.admitted
    };
    let slot = batch.channel(*id, base);
    for epoch in state.drop_marks.drain(..) {
        batch.forget(slot, epoch);
    }
    if !state.about_stored
        && let Some(about) = &state.about
    {
        batch.set_about(slot, sealed_about(keys, id, about));
        state.about_stored = true;
        *stored_channels += 1;
        *by_customer.entry(about.channel.owner).or_default() += 1;
    }
    slot
}
