//! When nodes leave and come back: pure iterators of (time, node, up or down).
//!
//! Every node is an alternating renewal process: a session, an absence, a session. Sessions follow the [`Model`], absences
//! are exponential. All nodes begin a fresh session at time zero. Each node draws from a stream of its own, so one node
//! more shifts nobody else's life.

mod draw;
mod trace;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand_core::Rng;

use draw::Draw;
pub use trace::{Trace, TraceError};

/// How long sessions last.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// Memoryless: within `over`, so large a share of the nodes leaves.
    Random {
        /// Departures a node, on average.
        share: f64,
        /// In this time.
        over: Duration,
    },
    /// Heavy-tailed below shape 1, as sessions of peer-to-peer networks were found to be (Stutzbach and Rejaie, IMC 2006).
    Weibull {
        /// `k`.
        shape: f64,
        /// Lambda: 63 % of the sessions are shorter.
        scale: Duration,
    },
    /// Few very long sessions carry most of the time.
    Pareto {
        /// Alpha: the smaller, the heavier the tail.
        shape: f64,
        /// No session is shorter.
        least: Duration,
    },
    /// Some nodes stay, the others come and go; which one a node is, it is for good.
    Bimodal {
        /// Share of those that stay, from 0 to 1.
        stable: f64,
        /// Their mean session.
        long: Duration,
        /// The others' mean session.
        short: Duration,
    },
    /// Published statistics of a real network.
    Trace(Trace),
}

/// A node goes or comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Since the churn began.
    pub at: Duration,
    /// Which of the nodes it was given, from 0.
    pub node: usize,
    /// Comes, if it was away.
    pub up: bool,
}

/// The changes of all nodes in order of time; ends at the horizon. A node whose first change is to come was away from the
/// start on: [`Churn::absent`].
pub struct Churn<R> {
    lives: Vec<Life<R>>,
    next: BinaryHeap<Reverse<Change>>,
    until: Duration,
}

/// One node's stream, and what its model made it.
struct Life<R> {
    rng: R,
    session: Session,
    away: Draw,
}

/// How one node lives.
enum Session {
    /// Comes and goes.
    Renewed(Draw),
    /// One change only.
    Last,
}

impl<R: Rng> Churn<R> {
    /// Churn of as many nodes as there are streams. `away` is the mean absence; nothing happens after `until`.
    pub fn new(
        model: &Model,
        away: Duration,
        until: Duration,
        streams: impl IntoIterator<Item = R>,
    ) -> Churn<R> {
        let mut lives = Vec::new();
        let mut next = BinaryHeap::new();
        for (node, mut rng) in streams.into_iter().enumerate() {
            let away = Draw::Exponential(away);
            let (session, first) = model.begin(&mut rng, until);
            if let Some((at, up)) = first.filter(|(at, _)| *at <= until) {
                next.push(Reverse(Change { at, node, up }));
            }
            lives.push(Life { rng, session, away });
        }
        Churn { lives, next, until }
    }

    /// Which nodes are away at time zero. Ask before the first change is taken.
    pub fn absent(&self) -> Vec<usize> {
        let coming = self.next.iter().filter(|Reverse(change)| change.up);
        let mut nodes: Vec<usize> = coming.map(|Reverse(change)| change.node).collect();
        nodes.sort_unstable();
        nodes
    }
}

impl<R: Rng> Iterator for Churn<R> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let Reverse(change) = self.next.pop()?;
        let life = &mut self.lives[change.node];
        if let Session::Renewed(session) = &life.session {
            let draw = if change.up { session } else { &life.away };
            let at = change.at + draw.sample(&mut life.rng);
            if at <= self.until {
                self.next.push(Reverse(Change {
                    at,
                    node: change.node,
                    up: !change.up,
                }));
            }
        }
        Some(change)
    }
}

impl Model {
    /// What a node becomes, and its first change.
    fn begin(&self, rng: &mut impl Rng, until: Duration) -> (Session, Option<(Duration, bool)>) {
        let session = match self {
            Model::Random { share, over } => Draw::Exponential(draw::times(*over, 1.0 / share)),
            Model::Weibull { shape, scale } => Draw::Weibull {
                shape: *shape,
                scale: *scale,
            },
            Model::Pareto { shape, least } => Draw::Pareto {
                shape: *shape,
                least: *least,
            },
            Model::Bimodal {
                stable,
                long,
                short,
            } => Draw::Exponential(if draw::unit(rng) < *stable {
                *long
            } else {
                *short
            }),
            Model::Trace(trace) => return trace.begin(rng, until),
        };
        let first = session.sample(rng);
        (Session::Renewed(session), Some((first, false)))
    }
}
