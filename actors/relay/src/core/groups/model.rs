//! Members come, go, die, do nothing, commit late and refuse records, and the owner restarts, in any order: every record is given to
//! somebody, none is passed over, none at or below an acknowledged commit comes again, and a channel is one member's at a time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const CHANNELS: u8 = 3;

#[derive(Debug, Clone)]
enum Step {
    Store(u8),
    Join(u8, u8),
    Leave(usize),
    Deliver(usize, u64),
    Commit(usize, u64),
    Refuse(usize, u64),
    LinkDown(u64),
    Copied(usize, bool),
    Look,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..CHANNELS).prop_map(Step::Store),
        4 => (0..5u8, 0..CHANNELS).prop_map(|(member, channel)| Step::Join(member, channel)),
        2 => (0..20usize).prop_map(Step::Leave),
        6 => (0..20usize, 1..4u64).prop_map(|(at, count)| Step::Deliver(at, count)),
        5 => (0..20usize, 0..3u64).prop_map(|(at, back)| Step::Commit(at, back)),
        1 => (0..20usize, 0..3u64).prop_map(|(at, back)| Step::Refuse(at, back)),
        1 => (0..3u64).prop_map(Step::LinkDown),
        3 => (0..4usize, any::<bool>()).prop_map(|(at, well)| Step::Copied(at, well)),
        2 => Just(Step::Look),
        1 => Just(Step::Restart),
    ]
}

fn id(channel: u8) -> ChannelId {
    ChannelId([channel; 32])
}

fn group() -> GroupKey {
    GroupKey {
        customer: NodeId::from_bytes([1; 32]),
        name: GroupName::new("g").unwrap(),
    }
}

#[derive(Default)]
struct World {
    groups: Groups,
    /// On the disk.
    disk: BTreeMap<ChannelId, Vec<StoredGroup>>,
    heads: BTreeMap<ChannelId, u64>,
    /// Every subscription that ever was: its channel and member.
    joined: Vec<(SubscriptionKey, ChannelId, u8)>,
    /// Those that have their channel now, and how far they were given records.
    active: BTreeMap<SubscriptionKey, (ChannelId, u64)>,
    present: BTreeSet<SubscriptionKey>,
    given: BTreeMap<ChannelId, BTreeSet<u64>>,
    acked: BTreeMap<ChannelId, u64>,
    /// What is put aside is copied first.
    copies: bool,
    copying: Vec<(ChannelId, GroupKey, u64)>,
    copied: BTreeSet<(ChannelId, u64)>,
    next: u32,
}

impl World {
    fn settle(&mut self) {
        while let Some(change) = self.groups.poll() {
            match change {
                Change::Begin {
                    key,
                    channel,
                    after,
                    ..
                } => {
                    assert!(self.present.contains(&key));
                    assert!(
                        self.active.values().all(|(held, _)| *held != channel),
                        "two have it"
                    );
                    assert!(after <= self.head(channel));
                    assert!(after >= self.acked.get(&channel).copied().unwrap_or(0));
                    let given = self.given.entry(channel).or_default();
                    assert!(
                        (1..=after).all(|offset| given.contains(&offset)),
                        "passed over"
                    );
                    self.active.insert(key, (channel, after));
                }
                Change::End { key, refusal } => {
                    assert_eq!(refusal, Refusal::Reassigned);
                    self.active.remove(&key);
                    self.present.remove(&key);
                }
                Change::Store(channel) => self.store(channel),
                Change::Copy {
                    channel,
                    of,
                    offset,
                } => {
                    assert!(self.copies);
                    assert!(self.active.values().all(|(held, _)| *held != channel));
                    self.copying.push((channel, of, offset));
                }
            }
        }
    }

    fn store(&mut self, channel: ChannelId) {
        let stored = self.groups.stored(&channel);
        assert_eq!(decode(&encode(&stored)).as_ref(), Some(&stored));
        let letters = stored.iter().flat_map(|group| &group.letters);
        for letter in letters.filter(|letter| self.copies && !letter.refused) {
            assert!(self.copied.contains(&(channel, letter.offset)), "no copy");
            assert!(self.groups.listed().contains(&(channel, letter.offset)));
        }
        self.disk.insert(channel, stored);
    }

    fn head(&self, channel: ChannelId) -> u64 {
        self.heads.get(&channel).copied().unwrap_or(0)
    }

    fn leave(&mut self, key: SubscriptionKey) {
        let delivered = self.active.remove(&key).map(|(_, delivered)| delivered);
        self.present.remove(&key);
        self.groups.leave(7, key, delivered);
    }

    fn deliver(&mut self, key: SubscriptionKey, count: u64) {
        let Some((channel, delivered)) = self.active.get(&key).copied() else {
            return;
        };
        let upto = self.head(channel).min(delivered + count);
        self.given
            .entry(channel)
            .or_default()
            .extend(delivered + 1..=upto);
        self.active.insert(key, (channel, upto));
    }

    fn commit(&mut self, key: SubscriptionKey, offset: u64) {
        let held = self.active.get(&key).copied();
        match self
            .groups
            .commit(key, offset, held.map(|(_, delivered)| delivered))
        {
            Ok(channel) => {
                let (held, delivered) = held.expect("only who has the channel commits");
                assert_eq!(held, channel);
                assert!(offset <= delivered);
                self.store(channel);
                let acked = self.acked.entry(channel).or_default();
                *acked = offset.max(*acked);
            }
            Err(Refusal::Reassigned) => assert!(held.is_none()),
            Err(_) => assert!(held.is_none_or(|(_, delivered)| offset > delivered)),
        }
    }

    fn copied(&mut self, at: usize, well: bool) {
        if self.copying.is_empty() {
            return;
        }
        let (channel, of, offset) = self.copying.remove(at % self.copying.len());
        if well {
            self.copied.insert((channel, offset));
        }
        self.groups.copied(9, channel, (&of, offset), well);
        self.settle();
    }

    fn apply(&mut self, step: Step) {
        let pick = |world: &World, at: usize| {
            let count = world.joined.len();
            (count > 0).then(|| world.joined[at % count])
        };
        match step {
            Step::Store(channel) => *self.heads.entry(id(channel)).or_default() += 1,
            Step::Join(member, channel) => {
                self.next += 1;
                let key = SubscriptionKey {
                    link: u64::from(self.next % 3),
                    subscription: self.next,
                };
                let joining = Joining {
                    key,
                    member: MemberId([member; 16]),
                    after: 0,
                    window: 1,
                    series: Series::NONE,
                };
                self.present.insert(key);
                self.joined.push((key, id(channel), member));
                self.groups.join(id(channel), group(), joining).unwrap();
            }
            Step::Leave(at) => {
                if let Some((key, ..)) = pick(self, at) {
                    self.leave(key);
                }
            }
            Step::Deliver(at, count) => {
                if let Some((key, ..)) = pick(self, at) {
                    self.deliver(key, count);
                }
            }
            Step::Commit(at, back) => {
                if let Some((key, channel, _)) = pick(self, at) {
                    let delivered = self
                        .active
                        .get(&key)
                        .map_or(self.head(channel), |(_, d)| *d);
                    self.commit(key, (delivered + 1).saturating_sub(back));
                }
            }
            Step::Refuse(at, back) => {
                if let Some((key, channel, _)) = pick(self, at) {
                    let held = self.active.get(&key).map(|(_, delivered)| *delivered);
                    let offset = held.unwrap_or(3).saturating_sub(back);
                    if self.groups.refuse(7, key, offset, held).is_ok() {
                        assert!(held.is_some());
                        self.store(channel);
                    }
                }
            }
            Step::LinkDown(link) => {
                for key in self.groups.of_link(link) {
                    self.leave(key);
                }
            }
            Step::Copied(at, well) => self.copied(at, well),
            Step::Look => {
                let active = self.active.clone();
                let delivered = |key| active.get(&key).map(|(_, delivered)| *delivered);
                self.groups.look(7, delivered);
            }
            Step::Restart => {
                self.groups = Groups::new();
                if self.copies {
                    self.groups.copy_first();
                }
                self.copying.clear();
                for (channel, stored) in &self.disk {
                    self.groups.restore(*channel, stored.clone());
                }
                self.active.clear();
                self.present.clear();
            }
        }
        self.settle();
        for channel in (0..CHANNELS).map(id) {
            let here = |(key, of, _): &&(SubscriptionKey, ChannelId, u8)| {
                *of == channel && self.present.contains(key)
            };
            let members = self.joined.iter().filter(here).count();
            let active = self
                .active
                .values()
                .filter(|(held, _)| *held == channel)
                .count();
            let copying = self.copying.iter().any(|(held, ..)| *held == channel);
            assert_eq!(active, if copying { 0 } else { members.min(1) });
        }
    }
}

proptest! {
    #[test]
    fn every_record_is_somebodys(
        steps in prop::collection::vec(step(), 1..150),
        copies in any::<bool>(),
    ) {
        let mut world = World { copies, ..World::default() };
        if copies {
            world.groups.copy_first();
        }
        for step in steps {
            world.apply(step);
        }
        while !world.copying.is_empty() {
            world.copied(0, true);
        }
        // Somebody stays, and deals with the rest.
        for channel in 0..CHANNELS {
            world.apply(Step::Join(9, channel));
        }
        for key in world.active.keys().copied().collect::<Vec<_>>() {
            let (channel, _) = world.active[&key];
            let head = world.head(channel);
            world.deliver(key, head);
            world.commit(key, head);
            let given = world.given.entry(channel).or_default();
            prop_assert!((1..=head).all(|offset| given.contains(&offset)));
            prop_assert_eq!(world.groups.committed(key), Some(head));
        }
        prop_assert_eq!(world.active.len(), usize::from(CHANNELS));
    }
}

fn join(groups: &mut Groups, member: u8, subscription: u32) -> Vec<Change> {
    let key = SubscriptionKey {
        link: 1,
        subscription,
    };
    let joining = Joining {
        key,
        member: MemberId([member; 16]),
        after: 0,
        window: 1,
        series: Series::NONE,
    };
    groups.join(id(1), group(), joining).unwrap();
    std::iter::from_fn(|| groups.poll()).collect()
}

// Four members in a row are given record 1 and die; with the fifth it is put aside, durably, and the sixth begins at record 2. One who
// refuses record 3 has it put aside at once, and commits it like any other; what was put aside is forgotten only when asked.
#[test]
fn a_record_that_nobody_gets_past_is_put_aside() {
    let mut groups = Groups::new();
    for attempt in 1..=DELIVERY_LIMIT {
        let changes = join(&mut groups, 1, attempt);
        assert!(
            matches!(changes[..], [Change::Begin { after: 0, .. }]),
            "{changes:?}"
        );
        let key = SubscriptionKey {
            link: 1,
            subscription: attempt,
        };
        groups.leave(7, key, Some(3));
        assert_eq!(groups.poll(), Some(Change::Store(id(1))));
        let wanted = usize::from(attempt == DELIVERY_LIMIT);
        assert_eq!(groups.letters(&id(1), &group()).unwrap().1.len(), wanted);
    }
    let changes = join(&mut groups, 2, 99);
    assert!(
        matches!(changes[..], [Change::Begin { after: 1, .. }]),
        "{changes:?}"
    );
    let key = SubscriptionKey {
        link: 1,
        subscription: 99,
    };
    assert!(groups.refuse(8, key, 4, Some(3)).is_err());
    assert!(groups.refuse(8, key, 1, Some(3)).is_err());
    assert_eq!(groups.refuse(8, key, 3, Some(3)), Ok(id(1)));
    assert_eq!(groups.refuse(9, key, 3, Some(3)), Ok(id(1)));
    assert_eq!(groups.commit(key, 3, Some(3)), Ok(id(1)));
    let letter = |offset, at_ms, attempts, refused| DeadLetter {
        offset,
        at_ms,
        attempts,
        refused,
    };
    let letters = [letter(1, 7, DELIVERY_LIMIT, false), letter(3, 8, 0, true)];
    assert_eq!(groups.letters(&id(1), &group()), Some((3, &letters[..])));
    assert_eq!(groups.numbers(), (1, 2));
    assert!(groups.discard(&id(1), &group(), 1));
    assert!(!groups.discard(&id(1), &group(), 1));
    assert_eq!(groups.letters(&id(1), &group()), Some((3, &letters[1..])));
}

// Where copies are made first, nobody has the channel until the copy is there: a member that stands by gets the record once more if it could not be made, and
// what comes after it if it could. An answer that comes twice, or for another record, changes nothing.
#[test]
fn a_record_is_copied_before_it_is_put_aside() {
    let mut groups = Groups::new();
    groups.copy_first();
    for well in [false, true] {
        let mut subscription = if well { 100 } else { 1 };
        let copy = loop {
            let key = SubscriptionKey {
                link: 1,
                subscription,
            };
            let begun = join(&mut groups, 1, subscription);
            assert!(
                matches!(begun[..], [Change::Begin { after: 0, .. }]),
                "{begun:?}"
            );
            groups.leave(7, key, Some(3));
            let changes: Vec<Change> = std::iter::from_fn(|| groups.poll()).collect();
            if let [copy @ Change::Copy { .. }, Change::Store(_)] = &changes[..] {
                break copy.clone();
            }
            assert_eq!(changes, [Change::Store(id(1))]);
            subscription += 1;
        };
        let wanted = Change::Copy {
            channel: id(1),
            of: group(),
            offset: 1,
        };
        assert_eq!(copy, wanted);
        assert_eq!(join(&mut groups, 2, subscription + 50), []);
        assert!(groups.listed().is_empty());
        groups.copied(8, id(1), (&group(), 2), well);
        assert_eq!(groups.poll(), None);
        groups.copied(8, id(1), (&group(), 1), well);
        let changes: Vec<Change> = std::iter::from_fn(|| groups.poll()).collect();
        if well {
            assert!(
                matches!(
                    changes[..],
                    [Change::Store(_), Change::Begin { after: 1, .. }]
                ),
                "{changes:?}"
            );
            assert_eq!(groups.listed(), LetterKeys::from([(id(1), 1)]));
        } else {
            assert!(
                matches!(changes[..], [Change::Begin { after: 0, .. }]),
                "{changes:?}"
            );
        }
        groups.copied(8, id(1), (&group(), 1), well);
        assert_eq!(groups.poll(), None);
        let key = SubscriptionKey {
            link: 1,
            subscription: subscription + 50,
        };
        groups.leave(9, key, None);
    }
}

// A place for dead letters that is full refuses one more, and the group does not get past a record that nobody deals with:
// nothing is dropped.
#[test]
fn dead_letters_are_bounded() {
    let mut groups = Groups::new();
    join(&mut groups, 1, 1);
    let key = SubscriptionKey {
        link: 1,
        subscription: 1,
    };
    let max = MAX_DEAD_LETTERS as u64;
    for offset in 2..=max + 1 {
        assert_eq!(groups.refuse(8, key, offset, Some(500)), Ok(id(1)));
    }
    assert_eq!(groups.refuse(8, key, 400, Some(500)), Err(Refusal::Quota));
    groups.leave(7, key, Some(500));
    for subscription in 2..20 {
        join(&mut groups, 1, subscription);
        groups.leave(
            7,
            SubscriptionKey {
                link: 1,
                subscription,
            },
            Some(500),
        );
    }
    let changes = join(&mut groups, 1, 99);
    assert!(
        changes
            .iter()
            .any(|change| matches!(change, Change::Begin { after: 0, .. }))
    );
}

// Two members of one link go with it, one after the other: the second never gets the turn that the first one's end would have given it.
#[test]
fn a_link_takes_all_its_members_along() {
    // Whichever of the two the channel belongs to.
    for (one, other) in [(1, 2), (2, 1)] {
        let mut groups = Groups::new();
        let begun = join(&mut groups, one, 1);
        assert!(matches!(begun[..], [Change::Begin { .. }]), "{begun:?}");
        join(&mut groups, other, 2);
        for key in groups.of_link(1) {
            groups.leave(7, key, None);
        }
        let left: Vec<Change> = std::iter::from_fn(|| groups.poll()).collect();
        assert_eq!(left, []);
        assert_eq!(groups.numbers(), (0, 0));
    }
}
