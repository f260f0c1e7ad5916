//! Publishes of a channel that crowds out others wait here, and each write takes a share of them. Spec: docs/spec/relay.md §8.
//!
//! They are judged when their turn comes, in the order in which they came; one that is larger than a share is stored in parts,
//! and answered with its last.

use std::time::Duration;

use pqcnet_log::ChannelId;
use pqcnet_messages::Refusal;

use super::admit::{Admission, check_payloads};
use super::{Effect, NewRecords, Shard};

/// How soon those are looked at again that hold producers back: a consumer that is slow is so for longer.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whether a publish is counted already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charge {
    /// It is not, and may be too much.
    Due,
    /// It was when it was queued.
    Paid,
}

/// What a batch was given of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SharedOut {
    Nothing,
    /// Shares of channels that are held back.
    Shares,
    /// Also of one that is not any more.
    More,
}

/// A publish that waits for its channel's share.
pub(super) struct Queued<T> {
    pub(super) wall_ms: u64,
    pub(super) new: NewRecords,
    pub(super) to: T,
    /// A part of it was taken: what becomes of it as a whole is not known before its last is.
    pub(super) begun: bool,
}

impl<T> Queued<T> {
    pub(super) fn new(wall_ms: u64, new: NewRecords, to: T) -> Self {
        Self {
            wall_ms,
            new,
            to,
            begun: false,
        }
    }

    /// What it is refused with. Of one that was begun nobody may believe that nothing of it is stored.
    fn refusal(&self, refusal: &Refusal) -> Refusal {
        match self.begun {
            true => Refusal::Unavailable,
            false => refusal.clone(),
        }
    }
}

impl<T> Shard<T> {
    /// Whether a channel that brings so much more has to share: it crowds out others of its shard, or brings much while its shard crowds out
    /// others of the log.
    pub(super) fn crowds(&mut self, now: Duration, id: &ChannelId, more: u64) -> bool {
        self.flow.crowds(now, id, more)
            || (self.write_share.is_some() && self.flow.is_much(now, id, more))
    }

    /// Takes a publish in if its channel may have so much on its way.
    pub(super) fn queue(&mut self, now: Duration, id: ChannelId, publish: Queued<T>) {
        let checked = self.writable().and_then(|_| {
            if publish.new.channel.owner != publish.new.customer {
                return Err(Refusal::NotAllowed);
            }
            let bytes = check_payloads(&publish.new)?;
            let full = self.pending_bytes + bytes > self.limits.pending_bytes;
            if full || self.flow.check(&id, bytes as u64).is_err() {
                return Err(Refusal::Busy);
            }
            match self.channels.contains_key(&id) {
                true => Ok(bytes),
                false => Err(Refusal::UnknownProducer),
            }
        });
        match checked {
            Ok(bytes) => {
                self.pending_bytes += bytes;
                self.flow.charge_waiting(now, id, bytes as u64);
                self.queues.entry(id).or_default().push_back(publish);
            }
            Err(refusal) => self.refuse(publish.to, refusal),
        }
    }

    /// Gives each channel that waits its share of the forming batch. One that crowds nobody out any more has all that waits, at once if nobody is
    /// there who would wait for it, otherwise in pieces.
    pub(super) fn share_out(&mut self, now: Duration) -> SharedOut {
        let along = self.next.is_some() || self.waits_alone();
        let open = now >= self.pace.due(along);
        let mut out = SharedOut::Nothing;
        let waiting: Vec<ChannelId> = self.queues.keys().copied().collect();
        let held = self.write_share.is_some_and(|share| share.crowds);
        // No channel's share is nothing, however many there are.
        let each = self
            .write_share
            .map(|share| (share.bytes / waiting.len().max(1) as u64).max(1));
        for id in waiting {
            let crowds = self.flow.crowds(now, &id, 0);
            let much = self.flow.is_much(now, &id, 0);
            let mut share = match each {
                _ if crowds => each.unwrap_or(u64::MAX).min(self.flow.share(&id)),
                Some(each) if much => each,
                Some(_) | None => self.flow.piece(now, &id),
            };
            if crowds || (held && much) {
                if !open {
                    continue;
                }
                self.pace.shared();
                share = share.max(self.pace.least_bytes());
                out = out.max(SharedOut::Shares);
            } else {
                out = SharedOut::More;
            }
            let mut taken = 0;
            while taken < share
                && let Some(publish) = self.queues.get_mut(&id).and_then(|q| q.pop_front())
            {
                taken += self.take_part(now, id, publish, share - taken);
            }
            if let (true, Some(next)) = (crowds, &mut self.next) {
                next.batch.crowding(taken);
            }
            if self.queues.get(&id).is_some_and(|queue| queue.is_empty()) {
                self.queues.remove(&id);
            }
        }
        out
    }

    /// When those that wait have their next share; `None` where nothing waits, or what is on its way decides.
    pub(super) fn shares_again_at(&self) -> Option<Duration> {
        let waits = !self.queues.is_empty() && self.in_flight.is_none();
        let ready = matches!(self.phase, super::Phase::Ready { .. });
        (waits && ready).then(|| self.pace.due(self.waits_alone()))
    }

    /// Whether the shard has nothing to write but shares of channels that are held back for other shards: their batch waits in the log for
    /// one of those, and nobody here has to wait for it.
    pub(super) fn waits_alone(&self) -> bool {
        let held = self.write_share.is_some_and(|share| share.crowds);
        let queued = self.queues.keys().filter(|id| self.flow.is_busy(id));
        held && self.next.is_none() && self.flow.busy() <= queued.count() as u64
    }

    /// As much of a publish as fits, at least one record; returns its bytes.
    fn take_part(&mut self, now: Duration, id: ChannelId, publish: Queued<T>, room: u64) -> u64 {
        let Queued {
            wall_ms,
            mut new,
            to,
            begun,
        } = publish;
        let mut bytes = 0;
        let fits = new.payloads.iter().take_while(|payload| {
            let first = bytes == 0;
            bytes += payload.len() as u64;
            first || bytes <= room
        });
        let count = fits.count();
        let rest = new.payloads.split_off(count);
        let part: u64 = new
            .payloads
            .iter()
            .map(|payload| payload.len() as u64)
            .sum();
        let later = NewRecords {
            customer: new.customer,
            channel: new.channel.clone(),
            epoch: new.epoch,
            first_seq: new.first_seq + count as u64,
            payloads: rest,
            from: new.from,
        };
        // It is counted anew as what it turns out to be.
        self.pending_bytes -= part as usize;
        self.flow.taken(id, part);
        let admission = self.try_publish(now, wall_ms, (id, Charge::Paid), new);
        match admission {
            Ok(Admission::Done(_) | Admission::Wait { .. }) if !later.payloads.is_empty() => {
                let new = later;
                let queue = self.queues.entry(id).or_default();
                queue.push_front(Queued {
                    wall_ms,
                    new,
                    to,
                    begun: true,
                });
            }
            answer => {
                let rest: usize = later.payloads.iter().map(bytes::Bytes::len).sum();
                self.pending_bytes -= rest;
                self.flow.taken(id, rest as u64);
                let answer = match answer {
                    Err(_) if begun => Err(Refusal::Unavailable),
                    answer => answer,
                };
                self.answer_publish(answer, to);
            }
        }
        part.max(1)
    }

    /// Nothing that waits will be stored.
    pub(super) fn refuse_queued(&mut self, refusal: &Refusal) {
        for (id, queue) in std::mem::take(&mut self.queues) {
            for queued in queue {
                let result = Err(queued.refusal(refusal));
                let Queued { new, to, .. } = queued;
                let bytes: usize = new.payloads.iter().map(bytes::Bytes::len).sum();
                self.pending_bytes -= bytes;
                self.flow.taken(id, bytes as u64);
                self.effects.push_back(Effect::Reply { to, result });
            }
        }
    }

    /// How far behind those are that read a channel and kept up.
    pub(super) fn judge_lag(&mut self, now: Duration, channel: ChannelId) {
        let near = self.limits.flow.lag_records.low;
        let lag = self.delivery.lag_of(now, &channel, near);
        self.flow.lag(now, channel, lag);
        if self.flow.any_lagging() {
            self.look_again_at.get_or_insert(now + LOOK_AGAIN);
        }
    }
}
