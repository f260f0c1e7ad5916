//! A connected peer: what it takes part in, what waits for it, and how fast it is read.

use std::collections::VecDeque;
use std::time::Duration;

use pqcnet_p2p::control::gossip::budget::{Budget, Charge};

use super::{Peer, Rpc, Rules, Topic};

/// What may be on its way unread in one direction: yamux's window, which production does not let grow.
const WINDOW: i64 = 256 * 1024;
/// yamux tells of room once half a window of it has come together.
const TELL: i64 = WINDOW / 2;
/// A peer has one gossip substream, on its first connection.
const CONNECTION: u64 = 1;

/// RPCs that wait for one peer; the library's three queues.
#[derive(Debug, Default)]
struct Queue {
    /// Subscriptions. Bounded by how often this node's own change.
    urgent: VecDeque<Rpc>,
    /// GRAFT and PRUNE. Bounded by the peer's budget of GRAFTs and this node's heartbeats.
    control: VecDeque<Rpc>,
    /// The rest, and until when each may wait. Bounded by [`super::Parameters::queue`].
    data: VecDeque<(Rpc, Duration)>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.control.is_empty() && self.data.is_empty()
    }
}

/// What came in while the peer's budget was spent.
#[derive(Debug)]
struct Held {
    until: Duration,
    frames: VecDeque<Rpc>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) peer: Peer,
    /// Whether this node dialled it.
    pub(super) outbound: bool,
    pub(super) topics: u16,
    /// In this heartbeat.
    pub(super) ihaves: usize,
    /// Ids asked of it in this heartbeat.
    pub(super) asked: usize,
    /// Messages for it that were dropped in this heartbeat.
    pub(super) unread: u64,
    /// It is among those that have something to send to, or waits for room.
    pub(super) listed: bool,
    budget: Budget,
    queue: Option<Box<Queue>>,
    held: Option<Box<Held>>,
    room: i64,
    read: i64,
    /// It has offended, and is not read any more.
    done: bool,
}

impl Neighbour {
    pub(super) fn new(now: Duration, peer: Peer, outbound: bool) -> Neighbour {
        Neighbour {
            peer,
            outbound,
            topics: 0,
            ihaves: 0,
            asked: 0,
            unread: 0,
            listed: false,
            budget: Budget::new(now),
            queue: None,
            held: None,
            room: WINDOW,
            read: 0,
            done: false,
        }
    }

    pub(super) fn takes_part(&self, topic: Topic) -> bool {
        self.topics & topic.bit() != 0
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether there was room. Control messages always have some.
    pub(super) fn push(&mut self, rules: &Rules, now: Duration, rpc: Rpc, own: bool) -> bool {
        let queue = self.queue.get_or_insert_default();
        match rpc {
            Rpc::Extensions | Rpc::Subscribe(_) | Rpc::Unsubscribe(_) => {
                queue.urgent.push_back(rpc)
            }
            Rpc::Graft(_) | Rpc::Prune { .. } => queue.control.push_back(rpc),
            Rpc::IHave { .. } | Rpc::IWant(_) | Rpc::Publish(_) => {
                if queue.data.len() >= rules.parameters.queue {
                    self.unread += 1;
                    return false;
                }
                let wait = match rpc {
                    Rpc::Publish(_) if own => rules.parameters.publish_wait,
                    Rpc::Publish(_) => rules.parameters.forward_wait,
                    _ => Duration::MAX,
                };
                queue.data.push_back((rpc, now.saturating_add(wait)));
            }
        }
        true
    }

    /// The next RPC, where there is one and room for it on the way.
    pub(super) fn pop(&mut self, rules: &Rules, now: Duration) -> Option<Rpc> {
        if self.room <= 0 {
            return None;
        }
        let queue = self.queue.as_mut()?;
        let next = (queue.urgent.pop_front()).or_else(|| queue.control.pop_front());
        let next = next.or_else(|| {
            while let Some((rpc, until)) = queue.data.pop_front() {
                if now < until {
                    return Some(rpc);
                }
                self.unread += 1;
            }
            None
        });
        if queue.is_empty() {
            self.queue = None;
        }
        let rpc = next?;
        self.room -= weight(rules, &rpc);
        Some(rpc)
    }

    /// Whether there is anything that could be sent now.
    pub(super) fn can_send(&self) -> bool {
        self.room > 0 && self.queue.is_some()
    }

    /// The peer has read so much.
    pub(super) fn on_window(&mut self, bytes: u32) {
        self.room = (self.room + i64::from(bytes)).min(WINDOW);
    }

    /// What came in and waits behind what its budget did not allow for. Bounded by the window.
    pub(super) fn hold(&mut self, rpc: Rpc) -> Option<Rpc> {
        match &mut self.held {
            Some(held) => {
                held.frames.push_back(rpc);
                None
            }
            None => Some(rpc),
        }
    }

    /// The next RPC that was held, once its time has come.
    pub(super) fn unhold(&mut self, now: Duration) -> Option<Rpc> {
        let held = self.held.as_mut().filter(|held| held.until <= now)?;
        let next = held.frames.pop_front();
        if next.is_none() {
            self.held = None;
        }
        next
    }

    /// Reads an RPC: what its sender is told of room, what becomes of it, and until when nothing more is read.
    pub(super) fn read(&mut self, rules: &Rules, now: Duration, rpc: &Rpc) -> Reading {
        if self.done {
            return Reading::Not;
        }
        self.read += weight(rules, rpc);
        let room = (self.read >= TELL).then(|| std::mem::take(&mut self.read));
        let room = room.and_then(|room| u32::try_from(room).ok());
        match self.budget.charge(now, CONNECTION, rpc.load()) {
            Charge::Free => Reading::On { room, until: None },
            Charge::Wait(wait) => {
                let until = now + wait;
                match &mut self.held {
                    Some(held) => held.until = until,
                    None => {
                        let frames = VecDeque::new();
                        self.held = Some(Box::new(Held { until, frames }));
                    }
                }
                Reading::On {
                    room,
                    until: Some(until),
                }
            }
            // There is one connection, so nothing is surplus.
            Charge::Surplus => Reading::Not,
            Charge::Offence(offence) => {
                self.done = true;
                self.held = None;
                Reading::Offence(offence)
            }
        }
    }
}

fn weight(rules: &Rules, rpc: &Rpc) -> i64 {
    i64::try_from(rules.rpc(rpc)).unwrap_or(WINDOW)
}

/// See [`Neighbour::read`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It counts.
    On {
        /// Its sender may send so much more.
        room: Option<u32>,
        /// Nothing further is read before.
        until: Option<Duration>,
    },
    /// It is dropped.
    Not,
    /// It is dropped, and the peer's connections are to be closed.
    Offence(super::Offence),
}
