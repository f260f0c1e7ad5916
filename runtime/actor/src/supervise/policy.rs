//! What both kinds of supervisor decide by: shared vocabulary of the pure cores.

use std::time::Duration;

use crate::order::{EndReason, Order};

/// What happens to the others when one child fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing: children do not depend on each other.
    OneForOne,
    /// Those started after it are stopped, in reverse, and started again in order: each may depend on earlier ones.
    RestForOne,
    /// All others are stopped and started again: they depend on each other.
    OneForAll,
}

/// Which ends of a child are followed by a new incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Every one.
    Permanent,
    /// Failures only.
    Transient,
    /// None, and a failure counts against nobody.
    Temporary,
}

impl Restart {
    pub(crate) fn wants(self, reason: &EndReason) -> bool {
        match self {
            Restart::Permanent => true,
            Restart::Transient => *reason != EndReason::Stopped,
            Restart::Temporary => false,
        }
    }
}

/// How long a killed child may take to notice. A handler that blocks longer is given up on.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(1);

/// Something to do or to say, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Give a child an order. After `Finish` it is forgotten.
    Order(u64, Order),
    /// Every child is up.
    Started,
    /// Every child is down. `cut`: those that had to be killed.
    Ended { reason: EndReason, cut: Vec<u64> },
}

/// A supervisor's decisions: fed with what happened, asked for effects.
pub(crate) trait Policy {
    fn start(&mut self, now: Duration);
    /// Stop every child, each with its deadline.
    fn stop(&mut self, now: Duration);
    /// As `stop`, with no deadline to wait for.
    fn kill(&mut self, now: Duration);
    fn on_started(&mut self, child: u64, now: Duration);
    fn on_ended(&mut self, child: u64, reason: EndReason, now: Duration, random: u64);
    /// Time has passed.
    fn on_time(&mut self, now: Duration);
    fn poll_effect(&mut self) -> Option<Effect>;
    fn next_due(&self, now: Duration) -> Option<Duration>;
    /// Whether children are wanted.
    fn is_running(&self) -> bool;
    /// Whether no child runs and none is wanted.
    fn is_held(&self) -> bool;
}

/// Where one child stands, as its supervisor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kid {
    /// Not running; to be started no sooner than this.
    Down {
        not_before: Duration,
    },
    Starting,
    Up,
    /// Asked to stop; to be killed at this time.
    Stopping {
        kill_at: Duration,
    },
    /// Killed; given up on at this time.
    Killing {
        give_up_at: Duration,
    },
    /// It did not notice being killed.
    Lost,
    /// Not to run again.
    Finished,
}

impl Kid {
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Kid::Starting | Kid::Up)
    }

    pub(crate) fn is_ending(self) -> bool {
        matches!(self, Kid::Stopping { .. } | Kid::Killing { .. })
    }
}
