//! Whom a node links with on the control plane, of all whom it knows.
//!
//! A node dials its bootstrap nodes always, and others until it has [`CIRCLE`] links with others, whoever dialled. Random
//! choices of a few links each make a graph that stays in one piece when many nodes die, and in which word gets around in
//! a few hops. Peers that do not answer make way for others after [`PATIENCE`] failures. Of two nodes the one with the lower
//! id dials first, and the other only after [`COURTESY`], so that a pair that both want each other has one link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pqcnet_crypto::NodeId;

/// Links with others than bootstrap nodes. gossipsub keeps 6 to 12 of its peers in a topic's mesh.
pub const CIRCLE: usize = 8;
/// Failures in a row after which another peer is tried in one's place.
pub const PATIENCE: u32 = 3;
/// How long a peer with a lower id has to dial before this node does: a dial and its handshake take less.
pub const COURTESY: Duration = Duration::from_secs(1);
/// A node that knows fewer others than this has no majority to lose.
pub const QUORUM_FROM: usize = 3;

/// The circle.
#[derive(Clone, Debug)]
pub struct Circle {
    me: NodeId,
    bootstrap: BTreeSet<NodeId>,
    chosen: BTreeSet<NodeId>,
    /// Open links by peer, whoever dialled.
    linked: BTreeMap<NodeId, usize>,
    failures: BTreeMap<NodeId, u32>,
    /// Candidates with a lower id, and since when they are.
    seniors: BTreeMap<NodeId, Duration>,
}

impl Circle {
    /// Nobody is linked; these are dialled always.
    pub fn new(me: NodeId, bootstrap: impl IntoIterator<Item = NodeId>) -> Circle {
        Circle {
            me,
            bootstrap: bootstrap.into_iter().collect(),
            chosen: BTreeSet::new(),
            linked: BTreeMap::new(),
            failures: BTreeMap::new(),
            seniors: BTreeMap::new(),
        }
    }

    /// A link opened.
    pub fn on_link(&mut self, peer: NodeId) {
        *self.linked.entry(peer).or_default() += 1;
        self.failures.remove(&peer);
    }

    /// A link closed.
    pub fn on_unlink(&mut self, peer: &NodeId) {
        if let Some(count) = self.linked.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.linked.remove(peer);
            }
        }
    }

    /// A dial failed.
    pub fn on_failure(&mut self, peer: NodeId) {
        if self.chosen.contains(&peer) {
            *self.failures.entry(peer).or_default() += 1;
        }
    }

    /// Chooses anew: whoever is no candidate any more goes, the impatiently waited for make way if there are others, and
    /// the circle is filled up at random. Returns whom to dial and keep.
    pub fn choose(
        &mut self,
        candidates: &BTreeSet<NodeId>,
        now: Duration,
        mut random: impl FnMut() -> u64,
    ) -> BTreeSet<NodeId> {
        let (linked, me) = (&self.linked, self.me);
        self.seniors.retain(|peer, _| candidates.contains(peer));
        for peer in candidates.range(..me) {
            self.seniors.entry(*peer).or_insert(now);
        }
        let seniors = &self.seniors;
        let may = |peer: &NodeId| {
            let since = seniors.get(peer);
            since.is_none_or(|since| now >= *since + COURTESY)
        };
        self.chosen.retain(|peer| candidates.contains(peer));
        let mut others: Vec<NodeId> = (candidates.iter().copied())
            .filter(|peer| !self.chosen.contains(peer) && !self.bootstrap.contains(peer))
            .filter(|peer| !linked.contains_key(peer) && may(peer))
            .collect();
        let hopeless: Vec<NodeId> = (self.failures.iter())
            .filter(|(_, failures)| **failures >= PATIENCE)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in hopeless.into_iter().take(others.len()) {
            self.chosen.remove(&peer);
        }
        let chosen = &self.chosen;
        self.failures.retain(|peer, _| chosen.contains(peer));
        while self.size() < CIRCLE && !others.is_empty() {
            let at = (u128::from(random()) * others.len() as u128) >> 64;
            let peer = others.swap_remove(usize::try_from(at).unwrap_or(0));
            self.chosen.insert(peer);
        }
        self.bootstrap.union(&self.chosen).copied().collect()
    }

    /// When to choose again although nothing happened: then a peer has had its time to dial.
    pub fn next_look(&self, now: Duration) -> Option<Duration> {
        if self.size() >= CIRCLE {
            return None;
        }
        let ends = self.seniors.values().map(|since| *since + COURTESY);
        ends.filter(|end| *end > now).min()
    }

    /// Links with others than bootstrap nodes, open or wanted.
    fn size(&self) -> usize {
        let open = self.linked.keys();
        let open =
            open.filter(|peer| !self.bootstrap.contains(peer) && !self.chosen.contains(peer));
        self.chosen.len() + open.count()
    }

    /// Peers with an open link.
    pub fn linked(&self) -> usize {
        self.linked.len()
    }

    /// Whether a peer has an open link.
    pub fn is_linked(&self, peer: &NodeId) -> bool {
        self.linked.contains_key(peer)
    }

    /// How many links are too few for a node that knows so many others: it may be cut off. `None` while there are enough.
    pub fn short_of(&self, known: usize) -> Option<usize> {
        let needed = known.min(CIRCLE).div_ceil(2);
        (known >= QUORUM_FROM && self.linked.len() < needed).then_some(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::node;
    use proptest::prelude::*;

    const LATE: Duration = Duration::from_secs(100);

    fn nodes(range: std::ops::Range<u8>) -> BTreeSet<NodeId> {
        range.map(node).collect()
    }

    /// A source of numbers that look random enough for a choice.
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state ^ (state >> 29)
        }
    }

    /// Scenario: twenty candidates. Eight are chosen beside the bootstrap node, and stay as long as nothing happens.
    #[test]
    fn a_full_circle_is_stable() {
        let mut circle = Circle::new(node(0), [node(1)]);
        let candidates = nodes(1..21);
        let first = circle.choose(&candidates, LATE, numbers(7));
        assert_eq!(first.len(), 1 + CIRCLE);
        assert!(first.contains(&node(1)));
        for peer in &first {
            circle.on_link(*peer);
        }
        assert_eq!(circle.choose(&candidates, LATE, numbers(8)), first);
        assert_eq!(circle.linked(), 1 + CIRCLE);
        assert!(circle.is_linked(&node(1)));
    }

    /// Scenario: eight others dialled us. Nobody more is dialled until one of them goes.
    #[test]
    fn links_of_others_count() {
        let mut circle = Circle::new(node(0), [node(1)]);
        for peer in nodes(2..10) {
            circle.on_link(peer);
            circle.on_link(peer);
        }
        let candidates = nodes(1..21);
        assert_eq!(circle.choose(&candidates, LATE, numbers(7)), nodes(1..2));
        circle.on_unlink(&node(2));
        assert_eq!(circle.choose(&candidates, LATE, numbers(7)), nodes(1..2));
        circle.on_unlink(&node(2));
        circle.on_unlink(&node(99));
        assert_eq!(circle.choose(&candidates, LATE, numbers(7)).len(), 2);
    }

    /// Scenario: a chosen peer fails three times. Another is tried in its place if there is one, else it stays.
    #[test]
    fn the_dead_make_way() {
        let mut circle = Circle::new(node(0), []);
        let all = circle.choose(&nodes(1..9), LATE, numbers(7));
        assert_eq!(all, nodes(1..9));
        for _ in 0..PATIENCE {
            circle.on_failure(node(3));
            circle.on_failure(node(77));
        }
        assert_eq!(circle.choose(&nodes(1..9), LATE, numbers(7)), all);
        let mut expected = all.clone();
        expected.remove(&node(3));
        expected.insert(node(9));
        assert_eq!(circle.choose(&nodes(1..10), LATE, numbers(7)), expected);
        // A link that stood in between counts anew.
        circle.on_failure(node(9));
        circle.on_link(node(9));
        assert!(circle.failures.is_empty());
    }

    /// Scenario: a chosen peer is a candidate no more: banned, revoked, gone.
    #[test]
    fn the_unwanted_go() {
        let mut circle = Circle::new(node(0), [node(1)]);
        circle.choose(&nodes(1..6), LATE, numbers(7));
        circle.on_failure(node(4));
        let mut left = nodes(1..6);
        left.remove(&node(4));
        assert_eq!(circle.choose(&left, LATE, numbers(7)), left);
        assert!(circle.failures.is_empty());
    }

    /// Scenario: of four others two have lower ids. They have a second to dial; one does, and the other is dialled then.
    #[test]
    fn the_lower_id_dials() {
        let mut circle = Circle::new(node(3), []);
        let now = Duration::from_secs(5);
        let others = BTreeSet::from([1, 2, 4, 5].map(node));
        let juniors = BTreeSet::from([4, 5].map(node));
        assert_eq!(circle.choose(&others, now, numbers(7)), juniors);
        let end = now + COURTESY;
        assert_eq!(circle.next_look(now), Some(end));
        circle.on_link(node(1));
        let dialled = circle.choose(&others, end, numbers(7));
        assert_eq!(dialled, BTreeSet::from([2, 4, 5].map(node)));
        assert_eq!(circle.next_look(end), None);
    }

    /// Scenario: how many links are too few, for networks of every size.
    #[test]
    fn quorum() {
        let mut circle = Circle::new(node(0), []);
        let short = |circle: &Circle| [2, 3, 4, 8, 100].map(|known| circle.short_of(known));
        assert_eq!(short(&circle), [None, Some(2), Some(2), Some(4), Some(4)]);
        circle.on_link(node(1));
        circle.on_link(node(2));
        assert_eq!(short(&circle), [None, None, None, Some(4), Some(4)]);
        circle.on_link(node(3));
        circle.on_link(node(4));
        assert_eq!(short(&circle), [None; 5]);
    }

    proptest! {
        /// Thirty nodes that each choose among all the others: the links join them all, also without the first ten.
        #[test]
        fn thirty_circles_are_one_graph(seed in any::<u64>()) {
            let all = nodes(0..30);
            let mut links = BTreeMap::new();
            for me in &all {
                let mut others = all.clone();
                others.remove(me);
                let mut circle = Circle::new(*me, []);
                circle.choose(&others, Duration::ZERO, numbers(seed));
                let chosen = circle.choose(&others, LATE, numbers(seed ^ u64::from(me.as_bytes()[0]) << 32));
                prop_assert_eq!(chosen.len(), CIRCLE);
                for peer in chosen {
                    links.entry(*me).or_insert_with(BTreeSet::new).insert(peer);
                    links.entry(peer).or_insert_with(BTreeSet::new).insert(*me);
                }
            }
            for dead in [0, 10] {
                let living = nodes(dead..30);
                let mut reached = BTreeSet::from([node(29)]);
                let mut next = vec![node(29)];
                while let Some(one) = next.pop() {
                    for peer in links[&one].intersection(&living) {
                        if reached.insert(*peer) {
                            next.push(*peer);
                        }
                    }
                }
                prop_assert_eq!(&reached, &living);
            }
        }
    }
}
