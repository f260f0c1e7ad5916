//! Where a session's requests go: one relayer session per relayer, opened when first needed.
//!
//! ```text
//!            up                 submit               opened(Ok)
//!   Down ─────────► Idle ──────────────► Opening ───────────────► Open
//!    ▲               ▲                      │ opened(Err)           │ lost(session)
//!    │  down         └──────────────────────┴───────────────────────┘
//!    └──────────────── from every state
//! ```

use std::collections::{BTreeMap, VecDeque};

use pqcnet_crypto::NodeId;

/// What to do with a submitted request.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted<R> {
    /// Send it now under this relayer session.
    Send(u64, R),
    /// It waits; a session must be asked for, under this generation of the link.
    Open(u64),
    /// It waits for the session that is being opened.
    Wait,
    /// The relayer is not reachable, or does not exist.
    Unavailable(R),
    /// Too many requests wait already.
    Busy(R),
}

#[derive(Debug)]
enum State<R> {
    Idle,
    Opening(VecDeque<R>),
    Open(u64),
}

/// The routes of one client session. `R` is a request that waits.
#[derive(Debug)]
pub struct Routes<R> {
    waiting_max: usize,
    relayers: BTreeMap<NodeId, (u64, State<R>)>,
}

impl<R> Routes<R> {
    /// No relayer is up; at most `waiting_max` requests wait for each.
    pub fn new(waiting_max: usize) -> Routes<R> {
        Routes {
            waiting_max,
            relayers: BTreeMap::new(),
        }
    }

    /// The link to a relayer is up, under a generation never used before. Returns what waited for an older one.
    pub fn up(&mut self, relayer: NodeId, generation: u64) -> VecDeque<R> {
        waiting(self.relayers.insert(relayer, (generation, State::Idle)))
    }

    /// The link to a relayer is gone. Returns what waited for it.
    pub fn down(&mut self, relayer: &NodeId) -> VecDeque<R> {
        waiting(self.relayers.remove(relayer))
    }

    /// The generation of the link to this relayer, while it is up.
    pub fn generation(&self, relayer: &NodeId) -> Option<u64> {
        self.relayers
            .get(relayer)
            .map(|(generation, _)| *generation)
    }

    /// The relayers with an open session, each with its link's generation.
    pub fn open(&self) -> Vec<(NodeId, u64)> {
        let open = self.relayers.iter();
        let open = open.filter(|(_, (_, state))| matches!(state, State::Open(_)));
        open.map(|(relayer, (generation, _))| (*relayer, *generation))
            .collect()
    }

    #[cfg(test)]
    fn session(&self, relayer: &NodeId) -> Option<u64> {
        match self.relayers.get(relayer) {
            Some((_, State::Open(session))) => Some(*session),
            Some((_, State::Idle | State::Opening(_))) | None => None,
        }
    }

    /// A request for this relayer.
    pub fn submit(&mut self, relayer: &NodeId, request: R) -> Submitted<R> {
        let Some((generation, state)) = self.relayers.get_mut(relayer) else {
            return Submitted::Unavailable(request);
        };
        match state {
            State::Open(session) => Submitted::Send(*session, request),
            State::Idle => {
                *state = State::Opening(VecDeque::from([request]));
                Submitted::Open(*generation)
            }
            State::Opening(queue) if queue.len() >= self.waiting_max => Submitted::Busy(request),
            State::Opening(queue) => {
                queue.push_back(request);
                Submitted::Wait
            }
        }
    }

    /// The answer to [`Submitted::Open`]: the session, or `None` if it was refused. Returns what waited, in order: to be
    /// sent under the session or refused. An answer from an older link changes nothing.
    pub fn opened(
        &mut self,
        relayer: &NodeId,
        generation: u64,
        session: Option<u64>,
    ) -> VecDeque<R> {
        let Some((current, state)) = self.relayers.get_mut(relayer) else {
            return VecDeque::new();
        };
        if *current != generation || !matches!(state, State::Opening(_)) {
            return VecDeque::new();
        }
        let next = session.map_or(State::Idle, State::Open);
        match std::mem::replace(state, next) {
            State::Opening(queue) => queue,
            State::Idle | State::Open(_) => VecDeque::new(),
        }
    }

    /// The relayer does not know this session (any more): the next request opens another.
    pub fn lost(&mut self, relayer: &NodeId, session: u64) {
        if let Some((_, state)) = self.relayers.get_mut(relayer)
            && matches!(state, State::Open(open) if *open == session)
        {
            *state = State::Idle;
        }
    }
}

fn waiting<R>(old: Option<(u64, State<R>)>) -> VecDeque<R> {
    match old {
        Some((_, State::Opening(queue))) => queue,
        Some((_, State::Idle | State::Open(_))) | None => VecDeque::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_bytes([1; 32]);
    const B: NodeId = NodeId::from_bytes([2; 32]);

    /// The first request opens a session, later ones wait in order, and all go out once it is open.
    #[test]
    fn opens_once_and_keeps_order() {
        let mut routes = Routes::new(2);
        assert_eq!(routes.submit(&A, 1), Submitted::Unavailable(1));
        assert!(routes.up(A, 7).is_empty());
        assert_eq!(routes.submit(&A, 1), Submitted::Open(7));
        assert_eq!(routes.submit(&A, 2), Submitted::Wait);
        assert_eq!(routes.submit(&A, 3), Submitted::Busy(3));
        assert_eq!(routes.session(&A), None);
        assert_eq!(routes.opened(&A, 7, Some(40)), [1, 2]);
        assert_eq!(routes.submit(&A, 4), Submitted::Send(40, 4));
        assert_eq!(routes.submit(&B, 5), Submitted::Unavailable(5));
    }

    /// A refused opening hands back what waited, and the next request tries again.
    #[test]
    fn refused_opening() {
        let mut routes = Routes::new(2);
        assert!(routes.up(A, 1).is_empty());
        assert_eq!(routes.submit(&A, 1), Submitted::Open(1));
        assert_eq!(routes.opened(&A, 1, None), [1]);
        assert_eq!(routes.submit(&A, 2), Submitted::Open(1));
    }

    /// The link goes while a session is being opened: the waiting request comes back, and the late answer of the old link
    /// does not open a session on the new one.
    #[test]
    fn late_answer_of_an_old_link() {
        let mut routes = Routes::new(2);
        assert!(routes.up(A, 1).is_empty());
        assert_eq!(routes.submit(&A, 1), Submitted::Open(1));
        assert_eq!(routes.down(&A), [1]);
        assert_eq!(routes.generation(&A), None);
        assert!(routes.opened(&A, 1, Some(9)).is_empty());
        assert!(routes.up(A, 2).is_empty());
        assert_eq!(routes.submit(&A, 2), Submitted::Open(2));
        assert!(routes.opened(&A, 1, Some(9)).is_empty());
        assert_eq!(routes.session(&A), None);
        assert_eq!(routes.up(A, 3), [2]);
    }

    /// A relayer that forgot a session costs one refused request; a report about an older session changes nothing.
    #[test]
    fn lost_session() {
        let mut routes = Routes::new(2);
        assert!(routes.up(A, 1).is_empty());
        assert_eq!(routes.submit(&A, 1), Submitted::Open(1));
        assert_eq!(routes.opened(&A, 1, Some(5)), [1]);
        routes.lost(&A, 4);
        assert_eq!(routes.session(&A), Some(5));
        routes.lost(&A, 5);
        assert_eq!(routes.submit(&A, 2), Submitted::Open(1));
    }
}
