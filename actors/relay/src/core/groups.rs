//! Consumer groups: which member has a channel, and how far the group is. Spec: docs/spec/relay.md §9.
//!
//! ```text
//!   members present ──▶ of each channel the one whose hash with it is highest has it ──▶ delivered from the last commit on
//!                       it goes, or a higher one comes ──▶ generation + 1 ──▶ the next one, from the last commit on
//! ```
//!
//! A subscription is a member's for one turn: once another has the channel, nothing that comes under it counts any more. Who
//! has a channel follows from who is there, so the owners of several shards need not agree.

mod idle;
mod stored;

#[cfg(test)]
mod model;

use std::collections::{BTreeMap, VecDeque};

use pqcnet_crypto::{NodeId, sha256};
use pqcnet_log::{ChannelId, LetterKeys};
use pqcnet_messages::{DeadLetter, GroupName, MAX_DEAD_LETTERS, MemberId, Refusal, Series};

use super::subscription::SubscriptionKey;
pub use stored::{MAX_GROUPS, StoredGroup, decode, encode};

/// Members of one group of one channel.
pub const MAX_MEMBERS: usize = 256;
/// A record is put aside when so many members in a row went without getting past it.
pub const DELIVERY_LIMIT: u32 = 5;

/// A group of one channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// Whose.
    pub customer: NodeId,
    /// What that one calls it.
    pub name: GroupName,
}

/// A member that comes.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its subscription.
    pub key: SubscriptionKey,
    /// Which member.
    pub member: MemberId,
    /// Where the group begins if it never committed.
    pub after: u64,
    /// Of its subscription.
    pub window: usize,
    /// Of its subscription.
    pub series: Series,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The channel is this member's: deliver what comes after `after`.
    Begin {
        /// Its subscription.
        key: SubscriptionKey,
        /// Whose.
        customer: NodeId,
        /// Which channel.
        channel: ChannelId,
        /// The group's last commit.
        after: u64,
        /// Of the subscription.
        window: usize,
        /// Of the subscription.
        series: Series,
    },
    /// Nothing more comes under this subscription.
    End {
        /// Which.
        key: SubscriptionKey,
        /// Why.
        refusal: Refusal,
    },
    /// Store what is known of the channel's groups.
    Store(ChannelId),
    /// Copy a record to where it outlives the channel's front, then [`Groups::copied`]. Nobody has the channel meanwhile.
    Copy {
        /// Whose record.
        channel: ChannelId,
        /// The group that puts it aside.
        of: GroupKey,
        /// Which record.
        offset: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Member {
    key: SubscriptionKey,
    window: usize,
    series: Series,
}

/// Who has the channel.
#[derive(Debug, Clone, Copy)]
struct Holder {
    member: MemberId,
    key: SubscriptionKey,
    /// The last commit when it began.
    from: u64,
    /// Looks since it last did something.
    quiet: u32,
}

#[derive(Debug, Default)]
struct Group {
    committed: u64,
    generation: u32,
    attempts: u32,
    letters: Vec<DeadLetter>,
    /// The record after the last commit is being copied, to be put aside.
    copying: Option<u64>,
    /// It has something worth storing.
    stored: bool,
    members: BTreeMap<MemberId, Member>,
    holder: Option<Holder>,
    /// Members that had the channel and did nothing, and for how many looks more others come before them.
    passed_over: BTreeMap<MemberId, u32>,
}

/// All groups of a shard's channels.
#[derive(Debug, Default)]
pub struct Groups {
    channels: BTreeMap<ChannelId, BTreeMap<GroupKey, Group>>,
    by_key: BTreeMap<SubscriptionKey, (ChannelId, GroupKey, MemberId)>,
    /// What is put aside is copied first.
    copies: bool,
    out: VecDeque<Change>,
}

impl Groups {
    /// None.
    pub fn new() -> Groups {
        Groups::default()
    }

    /// What is put aside is copied first.
    pub fn copy_first(&mut self) {
        self.copies = true;
    }

    /// What is on the disk of a channel's groups. What is known here already is as far or further: it was said by a member.
    pub fn restore(&mut self, channel: ChannelId, stored: Vec<StoredGroup>) {
        for stored in stored {
            let key = GroupKey {
                customer: stored.customer,
                name: stored.name,
            };
            let groups = self.channels.entry(channel).or_default();
            let group = groups.entry(key).or_default();
            group.stored = true;
            group.generation = group.generation.max(stored.generation);
            if group.committed <= stored.committed && group.members.is_empty() {
                group.committed = stored.committed;
                group.attempts = stored.attempts;
                group.letters = stored.letters;
            }
        }
    }

    /// What is to be on the disk of them, ascending.
    pub fn stored(&self, channel: &ChannelId) -> Vec<StoredGroup> {
        let groups = self.channels.get(channel).into_iter().flatten();
        let stored = groups.filter(|(_, group)| group.stored);
        let stored = stored.map(|(key, group)| StoredGroup {
            customer: key.customer,
            name: key.name.clone(),
            committed: group.committed,
            generation: group.generation,
            attempts: group.attempts,
            letters: group.letters.clone(),
        });
        stored.collect()
    }

    /// A member comes.
    pub fn join(
        &mut self,
        channel: ChannelId,
        of: GroupKey,
        joining: Joining,
    ) -> Result<(), Refusal> {
        if self.by_key.contains_key(&joining.key) {
            return Err(Refusal::Invalid("subscription number in use".to_owned()));
        }
        let groups = self.channels.entry(channel).or_default();
        if !groups.contains_key(&of) && groups.len() >= MAX_GROUPS {
            return Err(Refusal::Quota);
        }
        let group = groups.entry(of.clone()).or_insert_with(|| Group {
            committed: joining.after,
            ..Group::default()
        });
        if !group.members.contains_key(&joining.member) && group.members.len() >= MAX_MEMBERS {
            return Err(Refusal::Busy);
        }
        let Joining {
            key,
            member,
            window,
            series,
            ..
        } = joining;
        let new = Member {
            key,
            window,
            series,
        };
        // It comes again over another link, and the former one is not known to be gone.
        if let Some(former) = group.members.insert(member, new) {
            if group.holder.is_some_and(|holder| holder.member == member) {
                group.holder = None;
            }
            self.by_key.remove(&former.key);
            self.out.push_back(Change::End {
                key: former.key,
                refusal: Refusal::Reassigned,
            });
        }
        self.by_key.insert(key, (channel, of.clone(), member));
        self.assign(channel, &of);
        Ok(())
    }

    /// A member goes; `delivered` is how far it was given records, if it had the channel.
    pub fn leave(&mut self, now_ms: u64, key: SubscriptionKey, delivered: Option<u64>) {
        let Some((channel, of, member)) = self.by_key.remove(&key) else {
            return;
        };
        // Its turn may not have begun yet: one of the same link went just before.
        self.out.retain(
            |change| !matches!(change, Change::Begin { key: begins, .. } if *begins == key),
        );
        let group = self.channels.get_mut(&channel).and_then(|g| g.get_mut(&of));
        let Some(group) = group else {
            return;
        };
        group.members.remove(&member);
        if let Some(holder) = group.holder.take_if(|holder| holder.key == key)
            && delivered.is_some_and(|delivered| delivered > group.committed)
        {
            group.attempts = if holder.from == group.committed {
                group.attempts + 1
            } else {
                1
            };
            group.stored = true;
            let offset = group.committed + 1;
            let due = group.attempts >= DELIVERY_LIMIT && group.has_room_for(offset);
            if due && self.copies {
                group.copying = Some(offset);
                let of = of.clone();
                self.out.push_back(Change::Copy {
                    channel,
                    of,
                    offset,
                });
            } else if due {
                group.give_up(now_ms);
            }
            self.out.push_back(Change::Store(channel));
        }
        self.assign(channel, &of);
        self.forget_if_empty(channel, &of);
    }

    /// The record of [`Change::Copy`] is copied, or could not be: then it is given to a member again.
    pub fn copied(
        &mut self,
        now_ms: u64,
        channel: ChannelId,
        (of, offset): (&GroupKey, u64),
        well: bool,
    ) {
        let group = self.channels.get_mut(&channel).and_then(|g| g.get_mut(of));
        let Some(group) = group else {
            return;
        };
        if group.copying.take_if(|at| *at == offset).is_none() {
            return;
        }
        if well && offset == group.committed + 1 && group.has_room_for(offset) {
            group.give_up(now_ms);
            self.out.push_back(Change::Store(channel));
        }
        self.assign(channel, of);
    }

    /// Whether a member may [`refuse`](Self::refuse) a record now; its channel.
    pub fn may_refuse(
        &mut self,
        key: SubscriptionKey,
        offset: u64,
        delivered: Option<u64>,
    ) -> Result<ChannelId, Refusal> {
        let (channel, group) = self.held(key)?;
        was_delivered(offset, delivered)?;
        if offset <= group.committed {
            let detail = format!("offset {offset} is committed");
            return Err(Refusal::Invalid(detail));
        }
        if group.has_room_for(offset) {
            Ok(channel)
        } else {
            Err(Refusal::Quota)
        }
    }

    /// Every record that any group put aside.
    pub fn listed(&self) -> LetterKeys {
        let groups = self.channels.iter();
        let groups = groups.flat_map(|(id, groups)| groups.values().map(move |group| (id, group)));
        let letters = groups.flat_map(|(id, group)| {
            let offsets = group.letters.iter().map(|letter| letter.offset);
            offsets.map(move |offset| (*id, offset))
        });
        letters.collect()
    }

    /// The group is done with everything up to `offset`; `delivered` is how far the member was given records. Returns the
    /// channel whose groups are to be stored.
    pub fn commit(
        &mut self,
        key: SubscriptionKey,
        offset: u64,
        delivered: Option<u64>,
    ) -> Result<ChannelId, Refusal> {
        let (channel, group) = self.held(key)?;
        was_delivered(offset, delivered)?;
        if offset > group.committed {
            group.committed = offset;
            group.attempts = 0;
        }
        group.stored = true;
        self.touched(key);
        Ok(channel)
    }

    /// A member can not deal with a record. The same as for [`commit`](Self::commit).
    pub fn refuse(
        &mut self,
        now_ms: u64,
        key: SubscriptionKey,
        offset: u64,
        delivered: Option<u64>,
    ) -> Result<ChannelId, Refusal> {
        let channel = self.may_refuse(key, offset, delivered)?;
        let (_, group) = self.held(key)?;
        group.put_aside(offset, now_ms, true);
        group.stored = true;
        self.touched(key);
        Ok(channel)
    }

    /// How far the group of a subscription is.
    pub fn committed(&self, key: SubscriptionKey) -> Option<u64> {
        let (channel, of, _) = self.by_key.get(&key)?;
        Some(self.channels.get(channel)?.get(of)?.committed)
    }

    /// Records below `first` are no longer kept: the group goes on behind them.
    pub fn front_gone(&mut self, key: SubscriptionKey, first: u64) {
        if let Ok((_, group)) = self.held(key) {
            group.committed = group.committed.max(first.saturating_sub(1));
        }
    }

    /// How far a group is, and what it put aside.
    pub fn letters(&self, channel: &ChannelId, of: &GroupKey) -> Option<(u64, &[DeadLetter])> {
        let group = self.channels.get(channel)?.get(of)?;
        Some((group.committed, &group.letters))
    }

    /// Forgets what a group put aside up to `offset`; whether there was any.
    pub fn discard(&mut self, channel: &ChannelId, of: &GroupKey, offset: u64) -> bool {
        let group = self.channels.get_mut(channel).and_then(|g| g.get_mut(of));
        group.is_some_and(|group| {
            let before = group.letters.len();
            group.letters.retain(|letter| letter.offset > offset);
            group.letters.len() < before
        })
    }

    /// Forgets a group, unless somebody is a member of it; whether there was something of it on the disk.
    pub fn remove(&mut self, channel: &ChannelId, of: &GroupKey) -> Result<bool, Refusal> {
        let Some(groups) = self.channels.get_mut(channel) else {
            return Ok(false);
        };
        let members = groups.get(of).map_or(0, |group| group.members.len());
        if members > 0 {
            let detail = format!("the group has {members} members");
            return Err(Refusal::Invalid(detail));
        }
        let removed = groups.remove(of);
        if groups.is_empty() {
            self.channels.remove(channel);
        }
        Ok(removed.is_some_and(|group| group.stored))
    }

    /// Whether a subscription is a member's.
    pub fn is_member(&self, key: SubscriptionKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The members that come over a link.
    pub fn of_link(&self, link: u64) -> Vec<SubscriptionKey> {
        let at = |subscription| SubscriptionKey { link, subscription };
        let range = self.by_key.range(at(0)..=at(u32::MAX));
        range.map(|(key, _)| *key).collect()
    }

    /// Groups of those who may no longer read the channel are gone, with their members and what they put aside.
    pub fn retain(&mut self, channel: &ChannelId, may_read: impl Fn(&NodeId) -> bool) {
        let Some(groups) = self.channels.get_mut(channel) else {
            return;
        };
        let gone: Vec<(GroupKey, Group)> = groups
            .extract_if(.., |key, _| !may_read(&key.customer))
            .collect();
        for member in gone.iter().flat_map(|(_, group)| group.members.values()) {
            self.by_key.remove(&member.key);
            self.out.push_back(Change::End {
                key: member.key,
                refusal: Refusal::NotAllowed,
            });
        }
    }

    /// Members now, and records put aside.
    pub fn numbers(&self) -> (u64, u64) {
        let groups = self.channels.values().flat_map(BTreeMap::values);
        let letters = groups.map(|group| group.letters.len() as u64);
        (self.by_key.len() as u64, letters.sum())
    }

    /// What follows next.
    pub fn poll(&mut self) -> Option<Change> {
        self.out.pop_front()
    }

    /// The group of the member that has its channel.
    fn held(&mut self, key: SubscriptionKey) -> Result<(ChannelId, &mut Group), Refusal> {
        let (channel, of, _) = self.by_key.get(&key).ok_or(Refusal::Reassigned)?;
        let group = self.channels.get_mut(channel).and_then(|g| g.get_mut(of));
        match group {
            Some(group) if group.holder.is_some_and(|holder| holder.key == key) => {
                Ok((*channel, group))
            }
            Some(_) | None => Err(Refusal::Reassigned),
        }
    }

    /// Gives the channel to whom it belongs among those who are there.
    fn assign(&mut self, channel: ChannelId, of: &GroupKey) {
        let group = self.channels.get_mut(&channel).and_then(|g| g.get_mut(of));
        // Whoever had the channel now would be given the record that is being put aside.
        let Some(group) = group.filter(|group| group.copying.is_none()) else {
            return;
        };
        let chosen = (group.members.iter())
            .max_by_key(|(member, _)| {
                let over = group.passed_over.contains_key(*member);
                (!over, sha256(&[&member.0, &channel.0]))
            })
            .map(|(member, state)| (*member, *state));
        let Some((member, state)) = chosen else {
            return;
        };
        if let Some(holder) = group.holder {
            if holder.member == member {
                return;
            }
            // It comes again, to stand by.
            group.members.remove(&holder.member);
            self.by_key.remove(&holder.key);
            self.out.push_back(Change::End {
                key: holder.key,
                refusal: Refusal::Reassigned,
            });
        }
        group.generation = group.generation.saturating_add(1);
        group.holder = Some(Holder {
            member,
            key: state.key,
            from: group.committed,
            quiet: 0,
        });
        self.out.push_back(Change::Begin {
            key: state.key,
            customer: of.customer,
            channel,
            after: group.committed,
            window: state.window,
            series: state.series,
        });
    }

    fn forget_if_empty(&mut self, channel: ChannelId, of: &GroupKey) {
        if let Some(groups) = self.channels.get_mut(&channel) {
            if groups.get(of).is_some_and(|group| {
                !group.stored && group.members.is_empty() && group.passed_over.is_empty()
            }) {
                groups.remove(of);
            }
            if groups.is_empty() {
                self.channels.remove(&channel);
            }
        }
    }
}

/// Whether a member was given the record.
fn was_delivered(offset: u64, delivered: Option<u64>) -> Result<(), Refusal> {
    match delivered {
        Some(delivered) if offset <= delivered => Ok(()),
        Some(_) | None => {
            let detail = format!("offset {offset} was not delivered");
            Err(Refusal::Invalid(detail))
        }
    }
}

impl Group {
    /// Or it was put aside by a member before.
    fn has_room_for(&self, offset: u64) -> bool {
        let known = self.letters.iter().any(|letter| letter.offset == offset);
        known || self.letters.len() < MAX_DEAD_LETTERS
    }

    /// Puts the record after the last commit aside, and goes on behind it.
    fn give_up(&mut self, at_ms: u64) {
        self.put_aside(self.committed + 1, at_ms, false);
        self.committed += 1;
        self.attempts = 0;
    }

    /// There is room for it.
    fn put_aside(&mut self, offset: u64, at_ms: u64, refused: bool) {
        let place = self
            .letters
            .binary_search_by_key(&offset, |letter| letter.offset);
        let Err(place) = place else {
            return;
        };
        let first = offset == self.committed + 1;
        let letter = DeadLetter {
            offset,
            at_ms,
            attempts: if first { self.attempts } else { 0 },
            refused,
        };
        self.letters.insert(place, letter);
    }
}
