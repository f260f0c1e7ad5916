//! Members that have a channel and do nothing while others stand by: their turn ends. Spec: docs/spec/relay.md §9.

use super::{Change, Groups};
use crate::core::subscription::SubscriptionKey;
use pqcnet_messages::Refusal;

/// A member with records that are not committed has so many looks to take one or to commit one.
pub const IDLE_LOOKS: u32 = 5;

impl Groups {
    /// A member that has its channel took a record, or committed or refused one.
    pub fn touched(&mut self, key: SubscriptionKey) {
        if let Ok((_, group)) = self.held(key)
            && let Some(holder) = &mut group.holder
        {
            holder.quiet = 0;
        }
    }

    /// Whether anybody waits for a channel that another member has, or is passed over for now.
    pub fn wants_looks(&self) -> bool {
        let mut groups = self.channels.values().flat_map(|groups| groups.values());
        groups.any(|group| group.members.len() > 1 || !group.passed_over.is_empty())
    }

    /// Looks at all who have a channel while others stand by; `delivered` is how far each was given records. One that did nothing
    /// since [`IDLE_LOOKS`] looks, with something at hand, loses its turn and is passed over for as many.
    pub fn look(&mut self, now_ms: u64, delivered: impl Fn(SubscriptionKey) -> Option<u64>) {
        let mut idle = Vec::new();
        let mut again = Vec::new();
        for (channel, groups) in &mut self.channels {
            for (of, group) in groups {
                let before = group.passed_over.len();
                group.passed_over.retain(|_, looks| {
                    *looks -= 1;
                    *looks > 0
                });
                if group.passed_over.len() < before {
                    again.push((*channel, of.clone()));
                }
                let Some(holder) = &mut group.holder else {
                    continue;
                };
                let at_hand = delivered(holder.key).is_some_and(|upto| upto > group.committed);
                if group.members.len() < 2 || !at_hand {
                    holder.quiet = 0;
                    continue;
                }
                holder.quiet += 1;
                if holder.quiet > IDLE_LOOKS {
                    group.passed_over.insert(holder.member, IDLE_LOOKS);
                    idle.push(holder.key);
                }
            }
        }
        for key in idle {
            self.out.push_back(Change::End {
                key,
                refusal: Refusal::Reassigned,
            });
            self.leave(now_ms, key, delivered(key));
        }
        for (channel, of) in again {
            self.assign(channel, &of);
            self.forget_if_empty(channel, &of);
        }
    }
}

#[cfg(test)]
mod tests {
    use pqcnet_crypto::NodeId;
    use pqcnet_log::ChannelId;
    use pqcnet_messages::{GroupName, MemberId, Series};

    use super::*;
    use crate::core::groups::{GroupKey, Joining};

    fn key(subscription: u32) -> SubscriptionKey {
        SubscriptionKey {
            link: 1,
            subscription,
        }
    }

    fn join(groups: &mut Groups, member: u8, subscription: u32) -> Vec<Change> {
        let joining = Joining {
            key: key(subscription),
            member: MemberId([member; 16]),
            after: 0,
            window: 1,
            series: Series::NONE,
        };
        let of = GroupKey {
            customer: NodeId::from_bytes([1; 32]),
            name: GroupName::new("g").unwrap(),
        };
        groups.join(ChannelId([1; 32]), of, joining).unwrap();
        changes(groups)
    }

    fn changes(groups: &mut Groups) -> Vec<Change> {
        std::iter::from_fn(|| groups.poll()).collect()
    }

    fn begun(changes: &[Change]) -> Option<SubscriptionKey> {
        changes.iter().find_map(|change| match change {
            Change::Begin { key, .. } => Some(*key),
            Change::End { .. } | Change::Store(_) | Change::Copy { .. } => None,
        })
    }

    /// A group of two of whom the first has the channel; the numbers of both.
    fn two() -> (Groups, (u8, u8)) {
        for (one, other) in [(1, 2), (2, 1)] {
            let mut groups = Groups::new();
            assert_eq!(begun(&join(&mut groups, one, 1)), Some(key(1)));
            if begun(&join(&mut groups, other, 2)).is_none() {
                return (groups, (one, other));
            }
        }
        panic!("the channel belongs to neither");
    }

    // Two members; the one that has the channel was given three records and does nothing for five looks. With the sixth its turn
    // ends, as one that went, and the other begins at the same place. It comes again at once and stands by, passed over, until five more looks are
    // over: then the channel is its again, as it belongs to it.
    #[test]
    fn one_that_does_nothing_loses_its_turn() {
        let (mut groups, (one, _)) = two();
        let three = |_| Some(3);
        for _ in 0..IDLE_LOOKS {
            groups.look(7, three);
            assert_eq!(changes(&mut groups), []);
        }
        groups.look(7, three);
        let found = changes(&mut groups);
        let end = Change::End {
            key: key(1),
            refusal: Refusal::Reassigned,
        };
        assert_eq!(found[0], end);
        assert_eq!(begun(&found), Some(key(2)));
        assert_eq!(groups.commit(key(1), 1, Some(3)), Err(Refusal::Reassigned));
        assert_eq!(join(&mut groups, one, 3), []);
        assert_eq!(groups.commit(key(2), 1, Some(3)), Ok(ChannelId([1; 32])));
        for look in 1..=IDLE_LOOKS {
            groups.touched(key(2));
            groups.look(7, three);
            let wanted = (look == IDLE_LOOKS).then_some(key(3));
            assert_eq!(begun(&changes(&mut groups)), wanted, "look {look}");
        }
    }

    // One that takes a record, or commits one, now and then keeps its turn however long it takes; so does one that has nothing at
    // hand, and one that nobody stands behind.
    #[test]
    fn one_that_does_something_keeps_it() {
        let (mut groups, _) = two();
        for look in 0..40 {
            match look % 4 {
                0 => groups.touched(key(1)),
                2 => drop(groups.commit(key(1), 1, Some(3)).unwrap()),
                _ => {}
            }
            groups.look(7, |_| Some(3));
        }
        for _ in 0..40 {
            groups.look(7, |_| Some(1));
        }
        assert!(groups.wants_looks());
        groups.leave(7, key(2), None);
        assert!(!groups.wants_looks());
        for _ in 0..40 {
            groups.look(7, |_| Some(3));
        }
        assert_eq!(changes(&mut groups), []);
    }
}
