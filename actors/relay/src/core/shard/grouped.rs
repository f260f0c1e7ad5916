//! Members of consumer groups: their subscriptions, commits, and what they put aside. Spec: docs/spec/relay.md §9.

use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_log::{ChannelId, LetterKeys};
use pqcnet_messages::edge::DeadLetters;
use pqcnet_messages::{Channel, GroupName, Refusal};

use super::admit::{next_batch, place};
use super::{Effect, Shard};
use crate::core::channel::{About, sealed_about};
use crate::core::delivery::Delivered;
use crate::core::groups::{Change, GroupKey, Joining};
use crate::core::pending::{Forming, Stored};
use crate::core::subscription::SubscriptionKey;
use crate::core::volume::SeriesKey;

impl<T> Shard<T> {
    /// Takes in a member of a group; returns the channel's durable head.
    pub fn join(
        &mut self,
        now: Duration,
        channel: &Channel,
        of: GroupKey,
        joining: Joining,
    ) -> Result<u64, Refusal> {
        if !self.served {
            return Err(self.not_ready());
        }
        let (id, head) = self.readable(of.customer, channel)?;
        if joining.after > head {
            let after = joining.after;
            let detail = format!("offset {after} is beyond the channel's head {head}");
            return Err(Refusal::Invalid(detail));
        }
        if self.delivery.delivered(joining.key).is_some() {
            return Err(Refusal::Invalid("subscription number in use".to_owned()));
        }
        if !self.channels.contains_key(&id) {
            self.ensure_channel(channel)?;
        }
        let key = joining.key;
        let series = SeriesKey {
            channel: id,
            receiver: of.customer,
            series: joining.series,
        };
        self.groups.join(id, of, joining)?;
        if let Some(carriage) = self.delivery.carriage() {
            carriage.stand_by(series, key);
        }
        self.regroup(now);
        self.look_later(now);
        Ok(head)
    }

    /// A group is done with everything up to `offset`; answered when that is durable.
    pub fn commit(&mut self, now: Duration, key: SubscriptionKey, offset: u64, to: T) {
        let delivered = self.delivery.delivered(key);
        let stored = self.writable().and_then(|generation| {
            let channel = self.groups.commit(key, offset, delivered)?;
            self.store_groups(channel, generation)
        });
        self.answer_when_stored(now, key, stored, to);
    }

    /// A member can not deal with a record; answered when it is durably put aside.
    pub fn put_aside(
        &mut self,
        (now, wall_ms): (Duration, u64),
        key: SubscriptionKey,
        offset: u64,
        to: T,
    ) {
        let delivered = self.delivery.delivered(key);
        let stored = self.writable().and_then(|generation| {
            let channel = self.groups.refuse(wall_ms, key, offset, delivered)?;
            self.store_groups(channel, generation)
        });
        self.answer_when_stored(now, key, stored, to);
    }

    /// The channel of a record that a member may [put aside](Self::put_aside) now.
    pub fn may_put_aside(
        &mut self,
        key: SubscriptionKey,
        offset: u64,
    ) -> Result<ChannelId, Refusal> {
        self.writable()?;
        let delivered = self.delivery.delivered(key);
        self.groups.may_refuse(key, offset, delivered)
    }

    /// The record of an [`Effect::Copy`] is copied, or could not be.
    pub fn on_copied(
        &mut self,
        (now, wall_ms): (Duration, u64),
        channel: ChannelId,
        (of, offset): (&GroupKey, u64),
        well: bool,
    ) {
        self.groups.copied(wall_ms, channel, (of, offset), well);
        self.regroup(now);
    }

    /// Every record that any group put aside.
    pub fn listed(&self) -> LetterKeys {
        self.groups.listed()
    }

    /// What a group of the customer's put aside, after those up to `discard` are forgotten, durably; then the group itself, if it is to be removed.
    pub fn dead_letters(
        &mut self,
        now: Duration,
        (customer, channel): (NodeId, &Channel),
        name: GroupName,
        (discard, remove): (u64, bool),
        to: T,
    ) {
        let of = GroupKey { customer, name };
        let readable = self.readable(customer, channel);
        let (id, _) = match readable {
            Ok(readable) => readable,
            Err(refusal) => return self.refuse(to, refusal),
        };
        let changes = discard > 0 || remove;
        let changed = match self.writable() {
            Ok(generation) if changes => {
                let discarded = discard > 0 && self.groups.discard(&id, &of, discard);
                Ok((generation, discarded))
            }
            Err(refusal) if changes => Err(refusal),
            Ok(_) | Err(_) => Ok((0, false)),
        };
        let (committed, letters) = self.groups.letters(&id, &of).unwrap_or_default();
        let dead = Stored::Dead(DeadLetters {
            committed,
            letters: letters.to_vec(),
            kept: Vec::new(),
            removed: remove,
        });
        let changed = changed.and_then(|(generation, discarded)| {
            let removed = remove && self.groups.remove(&id, &of)?;
            if discarded || removed {
                self.store_groups(id, generation)?;
            }
            Ok(discarded || removed)
        });
        match changed {
            Ok(true) => self.wait_for_batch(to, dead),
            Ok(false) => {
                let result = Ok(dead);
                self.effects.push_back(Effect::Reply { to, result });
            }
            Err(refusal) => self.refuse(to, refusal),
        }
        self.flush(now);
    }

    fn answer_when_stored(
        &mut self,
        now: Duration,
        key: SubscriptionKey,
        stored: Result<(), Refusal>,
        to: T,
    ) {
        match stored {
            Ok(()) => {
                let committed = self.groups.committed(key).unwrap_or(0);
                self.wait_for_batch(to, Stored::Committed(committed));
            }
            Err(refusal) => self.refuse(to, refusal),
        }
        self.flush(now);
    }

    /// Answers with the forming batch, which holds what this is about.
    fn wait_for_batch(&mut self, to: T, stored: Stored) {
        match &mut self.next {
            Some(next) => next.pending.waiting.push((to, stored)),
            None => self.refuse(to, Refusal::Unavailable),
        }
    }

    /// Puts what is known of a channel's groups into the forming batch.
    fn store_groups(&mut self, id: ChannelId, generation: u32) -> Result<(), Refusal> {
        let groups = self.groups.stored(&id);
        let state = self.channels.get_mut(&id).ok_or(Refusal::Storage)?;
        let about = state.about.as_ref().ok_or(Refusal::Storage)?;
        let Forming { batch, pending } =
            next_batch(&mut self.next, &mut self.batches, self.shard, generation);
        // A list of readers that is on its way is what the channel will have.
        let newer = self.in_flight.iter().chain([&*pending]);
        let mut readers = newer.flat_map(|pending| &pending.readers);
        let readers = readers.rfind(|new| new.channel == id);
        let readers = readers.map_or(&about.readers, |new| &new.readers);
        let about = About {
            channel: about.channel.clone(),
            readers: readers.clone(),
            groups,
        };
        let counts = (&mut self.stored_channels, &mut self.by_customer);
        let slot = place(batch, &id, state, &mut self.keys, counts);
        batch.set_about(slot, sealed_about(&mut self.keys, &id, &about));
        Ok(())
    }

    /// A member goes, or its link does.
    pub(super) fn leave_group(&mut self, wall_ms: u64, key: SubscriptionKey) {
        if self.groups.is_member(key) {
            let delivered = self.delivery.delivered(key);
            self.groups.leave(wall_ms, key, delivered);
        }
    }

    /// The deliveries to a member ended here. Whoever comes next begins behind what is no longer kept.
    pub(super) fn member_ended(&mut self, key: SubscriptionKey, refusal: &Refusal) {
        if !self.groups.is_member(key) {
            return;
        }
        if let Refusal::FrontGone { first } = refusal {
            self.groups.front_gone(key, *first);
        }
        self.groups.leave(0, key, None);
        self.apply_changes();
    }

    /// Ends the turns of members that have had theirs for long enough and did nothing, where others wait.
    pub(super) fn look_at_members(&mut self, now: Duration, wall_ms: u64) {
        self.look_at_members_at = None;
        let delivery = &self.delivery;
        self.groups.look(wall_ms, |key| delivery.delivered(key));
        self.regroup(now);
        self.look_later(now);
    }

    fn look_later(&mut self, now: Duration) {
        if self.look_at_members_at.is_none() && self.groups.wants_looks() {
            self.look_at_members_at = Some(now + self.limits.member_look);
        }
    }

    /// Carries out what follows for members, and stores what is due.
    pub(super) fn regroup(&mut self, now: Duration) {
        self.apply_changes();
        self.flush(now);
    }

    fn apply_changes(&mut self) {
        while let Some(change) = self.groups.poll() {
            match change {
                Change::Begin {
                    key,
                    customer,
                    channel,
                    after,
                    window,
                    series,
                } => {
                    let state = self.channels.get(&channel);
                    let head = state.map_or(0, |state| state.durable.head);
                    let from = (after.min(head), head);
                    let begun =
                        self.delivery
                            .subscribe(key, (customer, series), channel, from, window);
                    if let Err(refusal) = begun {
                        self.groups.leave(0, key, None);
                        self.delivery.unsubscribe(key);
                        let ended = Delivered::Ended { key, refusal };
                        self.effects.push_back(Effect::Deliver(ended));
                    }
                }
                Change::End { key, refusal } => {
                    self.delivery.unsubscribe(key);
                    let ended = Delivered::Ended { key, refusal };
                    self.effects.push_back(Effect::Deliver(ended));
                }
                Change::Copy {
                    channel,
                    of,
                    offset,
                } => self.effects.push_back(Effect::Copy {
                    channel,
                    of,
                    offset,
                }),
                // Where it can not be stored now, it is with the next commit.
                Change::Store(channel) => {
                    let writable = self.writable();
                    let stored = writable.and_then(|now| self.store_groups(channel, now));
                    if stored.is_err() {
                        continue;
                    }
                }
            }
        }
    }
}
