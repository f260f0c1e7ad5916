//! The directives a node holds: of each subject the one that ranks highest.

use std::collections::{BTreeMap, BTreeSet};

use pqcnet_messages::{MAX_HAVE, MAX_PULLED, Pulled, SignedDirective, Subject, Submitted};

/// A table with room for no further subject; the root has ordered more than a network of 4,096 nodes needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("directives about {MAX_HAVE} subjects are held already")]
pub struct Full;

#[derive(Clone, Debug)]
struct Held {
    signed: SignedDirective,
    rank: (u64, [u8; 32]),
    fingerprint: [u8; 8],
}

/// The table. Whatever comes in has been verified.
#[derive(Clone, Debug, Default)]
pub struct Directives {
    held: BTreeMap<Subject, Held>,
}

impl Directives {
    /// Takes a directive, unless one about its subject ranks as high or higher.
    ///
    /// # Errors
    /// There is no room for another subject.
    pub fn take(&mut self, signed: SignedDirective) -> Result<Submitted, Full> {
        let (subject, rank) = (signed.subject(), signed.rank());
        match self.held.get(&subject) {
            Some(held) if held.rank == rank => return Ok(Submitted::Known),
            Some(held) if held.rank > rank => return Ok(Submitted::Superseded),
            None if self.held.len() >= MAX_HAVE => return Err(Full),
            Some(_) | None => {}
        }
        let fingerprint = signed.fingerprint();
        let held = Held {
            signed,
            rank,
            fingerprint,
        };
        self.held.insert(subject, held);
        Ok(Submitted::Applied)
    }

    /// Whether this very directive, or one that ranks higher, is held: then its signature need not be checked.
    pub fn outranks(&self, signed: &SignedDirective) -> bool {
        let held = self.held.get(&signed.subject());
        held.is_some_and(|held| held.rank >= signed.rank())
    }

    /// Every directive, by subject.
    pub fn iter(&self) -> impl Iterator<Item = &SignedDirective> {
        self.held.values().map(|held| &held.signed)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What a pull of ours says that we have.
    pub fn have(&self) -> Vec<[u8; 8]> {
        self.held.values().map(|held| held.fingerprint).collect()
    }

    /// The first of those that a peer with these fingerprints lacks.
    pub fn lacking(&self, have: &[[u8; 8]]) -> Pulled<SignedDirective> {
        let have: BTreeSet<&[u8; 8]> = have.iter().collect();
        let mut lacking = self
            .held
            .values()
            .filter(|held| !have.contains(&held.fingerprint));
        let items = lacking.by_ref().take(MAX_PULLED);
        Pulled {
            items: items.map(|held| held.signed.clone()).collect(),
            more: lacking.next().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{node, revoke};
    use proptest::prelude::*;

    /// Scenario: an order, the same again, an older and a newer one about the same node, one about another.
    #[test]
    fn highest_version_of_a_subject_holds() {
        let mut table = Directives::default();
        let second = revoke(1, 2);
        assert_eq!(table.take(second.clone()), Ok(Submitted::Applied));
        assert!(table.outranks(&second) && table.outranks(&revoke(1, 1)));
        assert_eq!(table.take(second.clone()), Ok(Submitted::Known));
        assert_eq!(table.take(revoke(1, 1)), Ok(Submitted::Superseded));
        assert!(!table.outranks(&revoke(1, 3)) && !table.outranks(&revoke(9, 1)));
        assert_eq!(table.take(revoke(1, 3)), Ok(Submitted::Applied));
        assert_eq!(table.take(revoke(9, 1)), Ok(Submitted::Applied));
        let held: Vec<_> = table
            .iter()
            .map(|d| (d.subject(), d.directive.version))
            .collect();
        assert_eq!(
            held,
            [(Subject::Node(node(1)), 3), (Subject::Node(node(9)), 1)]
        );
        assert_eq!((table.len(), table.is_empty()), (2, false));
    }

    /// Scenario: the table is full; a newer order about a known subject still gets in, a new subject does not.
    #[test]
    fn bounded() {
        let mut table = Directives::default();
        let numbered = |number: u16, version| {
            let mut signed = revoke(0, version);
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            signed.directive.order = pqcnet_messages::Order::Revoke {
                node: pqcnet_crypto::NodeId::from_bytes(id),
                reason: String::new(),
            };
            signed
        };
        for number in 0..4096 {
            assert_eq!(table.take(numbered(number, 1)), Ok(Submitted::Applied));
        }
        assert_eq!(table.take(numbered(4096, 1)), Err(Full));
        assert_eq!(table.take(numbered(7, 2)), Ok(Submitted::Applied));
        assert_eq!(table.len(), MAX_HAVE);
        // A stranger to the network pulls all of them, a page at a time.
        let mut other = Directives::default();
        let mut pages = 0;
        loop {
            let page = table.lacking(&other.have());
            pages += 1;
            for signed in page.items {
                assert_eq!(other.take(signed), Ok(Submitted::Applied));
            }
            if !page.more {
                break;
            }
        }
        assert_eq!((pages, other.len()), (4096 / MAX_PULLED, MAX_HAVE));
    }

    proptest! {
        /// Whatever order directives arrive in, and however often, two nodes end with the same ones; so does one that
        /// pulled from the other.
        #[test]
        fn nodes_converge(
            mut arrivals in proptest::collection::vec((0u8..4, 0u64..6), 0..40),
            seed in any::<u64>(),
        ) {
            let mut one = Directives::default();
            for (who, version) in &arrivals {
                one.take(revoke(*who, *version)).unwrap();
            }
            let turn = usize::try_from(seed % 41).unwrap_or(0) % arrivals.len().max(1);
            arrivals.rotate_left(turn);
            arrivals.reverse();
            let mut other = Directives::default();
            for (who, version) in arrivals {
                other.take(revoke(who, version)).unwrap();
            }
            prop_assert!(one.iter().eq(other.iter()));
            let mut third = Directives::default();
            for signed in one.lacking(&third.have()).items {
                third.take(signed).unwrap();
            }
            prop_assert!(one.iter().eq(third.iter()));
            prop_assert!(one.lacking(&third.have()).items.is_empty());
        }
    }
}
