//! Which wanted peers to dial, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pqcnet_actor::Pause;
use pqcnet_crypto::NodeId;

/// What is known of the way to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be dialled at that time.
    Waiting(Duration),
    /// A dial is under way.
    Dialling,
    /// Linked since that time.
    Up(Duration),
}

#[derive(Debug)]
struct Peer {
    state: State,
    pause: Pause,
    wanted: bool,
}

/// The wanted peers.
#[derive(Debug)]
pub struct Peers {
    settled_after: Duration,
    pause: Pause,
    peers: BTreeMap<NodeId, Peer>,
}

impl Peers {
    /// All are to be dialled at once. A link that held for `settled_after` starts its pauses anew when it drops; one
    /// that drops sooner counts as one more failure, so a peer that accepts and closes is not dialled in a tight loop.
    pub fn new(
        wanted: impl IntoIterator<Item = NodeId>,
        pause: Pause,
        settled_after: Duration,
        now: Duration,
    ) -> Peers {
        let mut peers = Peers {
            settled_after,
            pause,
            peers: BTreeMap::new(),
        };
        peers.want(&wanted.into_iter().collect(), now);
        peers
    }

    /// Wants these and no others. A newcomer is to be dialled at once; a peer that is not wanted any more and is being
    /// dialled or linked is let be, and forgotten when that ends.
    pub fn want(&mut self, wanted: &BTreeSet<NodeId>, now: Duration) {
        self.peers.retain(|id, peer| {
            peer.wanted = wanted.contains(id);
            peer.wanted || !matches!(peer.state, State::Waiting(_))
        });
        for id in wanted {
            self.peers.entry(*id).or_insert(Peer {
                state: State::Waiting(now),
                pause: self.pause,
                wanted: true,
            });
        }
    }

    /// The next peer to dial; it counts as being dialled.
    pub fn next_dial(&mut self, now: Duration) -> Option<NodeId> {
        let due = |peer: &Peer| matches!(peer.state, State::Waiting(at) if at <= now);
        let (id, peer) = self.peers.iter_mut().find(|(_, peer)| due(peer))?;
        peer.state = State::Dialling;
        Some(*id)
    }

    /// A dial ended with a link.
    pub fn on_linked(&mut self, peer: &NodeId, now: Duration) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.state = State::Up(now);
        }
    }

    /// A dial failed, or a link dropped. `random` is 64 uniform bits. Returns the pause before the next dial, if there is to
    /// be one.
    pub fn on_lost(&mut self, peer: &NodeId, now: Duration, random: u64) -> Option<Duration> {
        let id = peer;
        let peer = self.peers.get_mut(id)?;
        if !peer.wanted {
            self.peers.remove(id);
            return None;
        }
        if let State::Up(since) = peer.state
            && now.saturating_sub(since) >= self.settled_after
        {
            peer.pause.reset();
        }
        let pause = peer.pause.next(random);
        peer.state = State::Waiting(now + pause);
        Some(pause)
    }

    /// When the next dial is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = |peer: &Peer| match peer.state {
            State::Waiting(at) => Some(at),
            State::Dialling | State::Up(_) => None,
        };
        self.peers.values().filter_map(due).min()
    }

    /// Every wanted peer and its state.
    pub fn states(&self) -> impl Iterator<Item = (NodeId, State)> + '_ {
        self.peers.iter().map(|(id, peer)| (*id, peer.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_bytes([1; 32]);
    const B: NodeId = NodeId::from_bytes([2; 32]);
    const MS: Duration = Duration::from_millis(1);

    fn peers() -> Peers {
        let pause = Pause::new(10 * MS, 100 * MS);
        Peers::new([A, B], pause, 1000 * MS, Duration::ZERO)
    }

    /// Every wanted peer is dialled once at the start; nothing more is due while dials are under way.
    #[test]
    fn dials_everyone_once() {
        let mut peers = peers();
        assert_eq!(peers.next_dial(Duration::ZERO), Some(A));
        assert_eq!(peers.next_dial(Duration::ZERO), Some(B));
        assert_eq!(peers.next_dial(Duration::ZERO), None);
        assert_eq!(peers.next_deadline(), None);
        peers.on_linked(&A, MS);
        let states: Vec<_> = peers.states().collect();
        assert_eq!(states, [(A, State::Up(MS)), (B, State::Dialling)]);
    }

    /// Failures double the pause; a dial is due exactly at its end.
    #[test]
    fn failures_back_off() {
        let mut peers = Peers::new([A], Pause::new(10 * MS, 100 * MS), 1000 * MS, MS);
        let mut now = MS;
        for expected in [10, 19, 39, 79, 99, 99] {
            assert_eq!(peers.next_dial(now), Some(A));
            let pause = peers.on_lost(&A, now, u64::MAX).unwrap();
            assert_eq!(pause.as_millis(), expected);
            assert_eq!(peers.next_deadline(), Some(now + pause));
            assert_eq!(peers.next_dial(now + pause - MS / 1000), None);
            now += pause;
        }
    }

    /// A peer that takes the link and drops it at once is dialled ever more rarely; one whose link held starts anew.
    #[test]
    fn only_a_link_that_held_resets_the_pause() {
        let mut peers = peers();
        let mut now = Duration::ZERO;
        for expected in [10, 19, 39] {
            assert_eq!(peers.next_dial(now), Some(A));
            peers.on_linked(&A, now);
            now += 999 * MS;
            let pause = peers.on_lost(&A, now, u64::MAX).unwrap();
            assert_eq!(pause.as_millis(), expected);
            now += pause;
        }
        assert_eq!(peers.next_dial(now), Some(A));
        peers.on_linked(&A, now);
        now += 1000 * MS;
        assert_eq!(peers.on_lost(&A, now, u64::MAX), Some(10 * MS));
    }

    /// Scenario: A is linked, B is waited for, and then C alone is wanted: B is forgotten at once, A when its link ends.
    #[test]
    fn wishes_change() {
        let mut peers = peers();
        let c = NodeId::from_bytes([3; 32]);
        assert_eq!(peers.next_dial(MS), Some(A));
        peers.on_linked(&A, MS);
        assert_eq!(peers.next_dial(MS), Some(B));
        peers.on_lost(&B, MS, 0);
        peers.want(&BTreeSet::from([c]), 2 * MS);
        assert_eq!(peers.next_dial(2 * MS), Some(c));
        assert_eq!(peers.next_deadline(), None);
        let states: Vec<_> = peers.states().collect();
        assert_eq!(states, [(A, State::Up(MS)), (c, State::Dialling)]);
        assert_eq!(peers.on_lost(&A, 3 * MS, 0), None);
        // A wish that comes back in time keeps the link.
        peers.want(&BTreeSet::new(), 4 * MS);
        peers.want(&BTreeSet::from([c]), 5 * MS);
        assert_eq!(peers.on_lost(&c, 6 * MS, 0), Some(10 * MS));
        assert_eq!(peers.states().count(), 1);
    }

    /// A peer nobody wanted is not taken up.
    #[test]
    fn unknown_peer() {
        let mut peers = peers();
        let stranger = NodeId::from_bytes([9; 32]);
        peers.on_linked(&stranger, MS);
        assert_eq!(peers.on_lost(&stranger, MS, 0), None);
        assert_eq!(peers.states().count(), 2);
    }
}
