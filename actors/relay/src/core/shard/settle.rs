//! What becomes of a batch: on its way, durable, or of unknown fate; and what a reopened log says.

use std::time::Duration;

use pqcnet_log::{ChannelHead, LogError};
use pqcnet_messages::Refusal;
use pqcnet_messages::metering::Volume;

use super::fair::SharedOut;
use super::{Effect, Phase, REOPEN_AFTER, Shard};
use crate::core::channel::{About, ChannelState, NewReaders, channel_id};
use crate::core::delivery::{Delivered, Problem};
use crate::core::pace::Pace;
use crate::core::pending::{Forming, Pending};

impl<T> Shard<T> {
    /// Hands the forming batch to the log, unless one is on its way.
    pub(super) fn flush(&mut self, now: Duration) {
        if self.in_flight.is_some() || !matches!(self.phase, Phase::Ready { .. }) {
            return;
        }
        let patience = self.waits_alone().then(|| self.pace.patience(now));
        let mut out = SharedOut::Nothing;
        // What was stored before, or is refused, takes of a share and gives the disk nothing: nobody would come back for the rest.
        loop {
            let more = self.share_out(now);
            out = out.max(more);
            if more == SharedOut::Nothing || self.next.is_some() {
                break;
            }
        }
        if let Some(Forming { mut batch, pending }) = self.next.take() {
            let waits = patience.filter(|_| out == SharedOut::Shares);
            batch.may_wait(waits.unwrap_or_default());
            self.effects.push_back(Effect::Append(batch));
            self.pace.sent(now);
            self.in_flight = Some(pending);
        }
    }

    /// The batch is durable: acknowledge, then deliver.
    pub(super) fn settle(&mut self, now: Duration, done: Pending<T>) {
        self.pending_bytes -= done.bytes;
        for advance in &done.advances {
            if let Some(state) = self.channels.get_mut(&advance.channel) {
                let (sequence, offset) = (advance.sequence, advance.offset);
                state.producers.durable(advance.epoch, sequence, offset);
            }
        }
        for (to, stored) in done.waiting {
            let result = Ok(stored);
            self.effects.push_back(Effect::Reply { to, result });
        }
        for NewReaders { channel, readers } in done.readers {
            if let Some(state) = self.channels.get_mut(&channel) {
                state.on_disk = true;
                if let Some(about) = &mut state.about {
                    about.readers = readers;
                }
                self.delivery
                    .retain(&channel, |customer| state.may_read(customer));
                self.groups
                    .retain(&channel, |customer| state.may_read(customer));
            }
        }
        for (channel, record) in done.records {
            self.delivery.push(channel, record);
        }
        for advance in &done.advances {
            if let Some(state) = self.channels.get_mut(&advance.channel) {
                state.on_disk = true;
                state.durable.head = state.durable.head.max(advance.offset);
                state.volume.frames += advance.volume.frames;
                state.volume.bytes += advance.volume.bytes;
                if self.metered {
                    self.written.note(advance.channel);
                }
                self.delivery.advance(&advance.channel, state.durable.head);
                if state.durable.head == state.admitted.head {
                    state.durable = state.admitted;
                }
            }
            self.flow.settled(advance.channel, advance.volume.bytes);
            if self.delivery.watches(&advance.channel) {
                self.judge_lag(now, advance.channel);
            }
        }
    }

    /// Storage failed. Whatever was admitted is of unknown fate: everybody is told, and the log is read anew.
    pub(super) fn fail(&mut self, now: Duration, error: LogError) {
        let shard = self.shard;
        self.full = matches!(error, LogError::Full { .. });
        let problem = Delivered::Problem(Problem::Log { shard, error });
        self.effects.push_back(Effect::Deliver(problem));
        let next = self.next.take().map(|next| next.pending);
        let lost = [self.in_flight.take(), next];
        for (to, _) in lost
            .into_iter()
            .flatten()
            .flat_map(|pending| pending.waiting)
        {
            self.effects.push_back(Effect::Reply {
                to,
                result: Err(Refusal::Storage),
            });
        }
        self.refuse_queued(&Refusal::Storage);
        self.stalled = None;
        self.pending_bytes = 0;
        self.flow.lost();
        self.pace = Pace::default();
        self.keys.end();
        self.phase = Phase::Failed {
            retry_at: now + self.reopen_after,
        };
        self.reopen_after = (self.reopen_after * 2).min(REOPEN_AFTER.1);
    }

    /// Takes the channels as stored. Of what was known before only that stays which the log does not keep.
    pub(super) fn restore(&mut self, heads: &[ChannelHead]) {
        let first = !self.served;
        let mut before = std::mem::take(&mut self.channels);
        let max = self.limits.producers;
        for head in heads {
            let mut about = self.open_about(head);
            if let Some(about) = &mut about {
                let groups = std::mem::take(&mut about.groups);
                self.groups.restore(head.channel, groups);
            }
            let mut state = ChannelState::restored(head, about);
            // What came since the first opening is this relayer's own doing.
            state.at_open = if first {
                state.volume
            } else {
                Volume::default()
            };
            if let Some(earlier) = before.remove(&head.channel) {
                state.producers.keep_unused(&earlier.producers, max);
                state.at_open = earlier.at_open;
            }
            if self.metered {
                self.written.note(head.channel);
            }
            self.delivery.advance(&head.channel, head.head);
            self.delivery
                .retain(&head.channel, |customer| state.may_read(customer));
            self.groups
                .retain(&head.channel, |customer| state.may_read(customer));
            self.channels.insert(head.channel, state);
        }
        self.stored_channels = self.channels.len();
        self.by_customer.clear();
        for about in self.channels.values().filter_map(|s| s.about.as_ref()) {
            *self.by_customer.entry(about.channel.owner).or_default() += 1;
        }
        for (id, earlier) in before {
            if let Some(about) = earlier.about {
                let mut state = ChannelState::new(about.channel);
                state.producers.keep_unused(&earlier.producers, max);
                self.channels.insert(id, state);
            }
        }
        let unstored = self
            .channels
            .iter()
            .filter(|(_, state)| !state.about_stored);
        self.empty = unstored.map(|(id, _)| *id).collect();
    }

    fn open_about(&mut self, head: &ChannelHead) -> Option<About> {
        let (shard, channel) = (self.shard, head.channel);
        let mut sealed = head.about.as_deref().unwrap_or_default().to_vec();
        let problem = match self.keys.open(&channel, 0, &mut sealed) {
            Ok(text) => match About::decode(&sealed[text]) {
                Some(about) if channel_id(&about.channel) == channel => return Some(about),
                Some(_) | None => Problem::About { shard, channel },
            },
            Err(error) => Problem::Sealed {
                shard,
                channel,
                offset: 0,
                error,
            },
        };
        self.effects
            .push_back(Effect::Deliver(Delivered::Problem(problem)));
        None
    }
}
