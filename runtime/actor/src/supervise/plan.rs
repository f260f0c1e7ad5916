//! A tree's supervisor: a fixed list of children, started in order and stopped in reverse. Pure.
//!
//! Children to be recycled are stopped one at a time, last first; only when none is left are those that are down
//! started, first first. Under one-for-one a restart waits for nobody.

use std::collections::VecDeque;
use std::time::Duration;

use crate::order::{EndReason, Order};
use crate::supervise::limiter::Limiter;
use crate::supervise::policy::{Effect, KILL_GRACE, Kid, Policy, Restart, Strategy};

#[derive(Debug)]
struct Child {
    restart: Restart,
    shutdown: Duration,
    kid: Kid,
    /// To be stopped before anything is started.
    recycle: bool,
    /// Starts only after all before it are up.
    in_order: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// Nothing runs; waiting for an order.
    Held,
    Running {
        /// Whether `Started` has been said.
        announced: bool,
    },
    /// Everything stops, and this is what will be said.
    Stopping { then: EndReason },
}

#[derive(Debug)]
pub(crate) struct Plan {
    strategy: Strategy,
    limiter: Limiter,
    children: Vec<Child>,
    mode: Mode,
    /// Deadlines are over: whoever is stopped now is killed at once.
    hasty: bool,
    cut: Vec<u64>,
    effects: VecDeque<Effect>,
}

impl Plan {
    pub(crate) fn new(strategy: Strategy, limiter: Limiter) -> Self {
        Plan {
            strategy,
            limiter,
            children: Vec::new(),
            mode: Mode::Held,
            hasty: false,
            cut: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// Adds the next child; its number is its place in the order.
    pub(crate) fn add(&mut self, restart: Restart, shutdown: Duration) {
        self.children.push(Child {
            restart,
            shutdown,
            kid: Kid::Down {
                not_before: Duration::ZERO,
            },
            recycle: false,
            in_order: true,
        });
    }

    fn order(&mut self, place: usize, order: Order) {
        self.effects.push_back(Effect::Order(place as u64, order));
    }

    fn child(&mut self, number: u64) -> Option<&mut Child> {
        self.children.get_mut(usize::try_from(number).ok()?)
    }

    fn wind_down(&mut self, then: EndReason) {
        self.mode = Mode::Stopping { then };
        for child in &mut self.children {
            child.recycle = child.kid.is_running();
        }
    }

    fn reconcile(&mut self, now: Duration) {
        if self.stop_recycled(now) {
            return;
        }
        match self.mode.clone() {
            Mode::Held => {}
            Mode::Stopping { then } => {
                self.mode = Mode::Held;
                let cut = std::mem::take(&mut self.cut);
                self.effects.push_back(Effect::Ended { reason: then, cut });
            }
            Mode::Running { announced } => {
                let all_up = self.start_down(now);
                if all_up && !announced {
                    self.mode = Mode::Running { announced: true };
                    self.effects.push_back(Effect::Started);
                }
            }
        }
    }

    /// Stops the last child that must go, unless one is on its way down. True while there are such.
    fn stop_recycled(&mut self, now: Duration) -> bool {
        if self.children.iter().any(|child| child.kid.is_ending()) {
            return true;
        }
        for child in &mut self.children {
            child.recycle &= child.kid.is_running();
        }
        let Some(place) = self.children.iter().rposition(|child| child.recycle) else {
            return false;
        };
        let hasty = self.hasty;
        let child = &mut self.children[place];
        child.recycle = false;
        let allowed = if hasty {
            Duration::ZERO
        } else {
            child.shutdown
        };
        child.kid = Kid::Stopping {
            kill_at: now.saturating_add(allowed),
        };
        self.order(place, Order::Stop);
        true
    }

    /// Starts what is down and may be. True if nothing is missing.
    fn start_down(&mut self, now: Duration) -> bool {
        let mut all_up = true;
        for place in 0..self.children.len() {
            let child = &mut self.children[place];
            match child.kid {
                Kid::Up | Kid::Finished => continue,
                Kid::Down { not_before } if not_before <= now && (all_up || !child.in_order) => {
                    child.kid = Kid::Starting;
                    self.order(place, Order::Start);
                }
                Kid::Down { .. }
                | Kid::Starting
                | Kid::Stopping { .. }
                | Kid::Killing { .. }
                | Kid::Lost => {}
            }
            all_up = false;
        }
        all_up
    }

    fn on_failure(&mut self, place: usize, reason: EndReason, now: Duration, random: u64) {
        let child = &mut self.children[place];
        if !child.restart.wants(&reason) {
            child.kid = Kid::Finished;
            self.order(place, Order::Finish);
            return;
        }
        let Some(wait) = self.limiter.fail(now, random) else {
            child.kid = Kid::Down { not_before: now };
            let cause = match reason {
                EndReason::Failed(cause) => cause,
                EndReason::Stopped => "stopped by itself".to_owned(),
                EndReason::Killed => "killed".to_owned(),
            };
            self.wind_down(EndReason::Failed(cause));
            return;
        };
        child.kid = Kid::Down {
            not_before: now.saturating_add(wait),
        };
        let recycled = match self.strategy {
            Strategy::OneForOne => self.children.len()..self.children.len(),
            Strategy::RestForOne => place..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        self.children[place].in_order = !recycled.is_empty();
        for child in &mut self.children[recycled] {
            child.recycle = child.kid.is_running();
            child.in_order = true;
        }
    }
}

impl Policy for Plan {
    fn start(&mut self, now: Duration) {
        if self.mode != Mode::Held {
            return;
        }
        self.mode = Mode::Running { announced: false };
        self.hasty = false;
        self.limiter.reset();
        for child in &mut self.children {
            child.in_order = true;
        }
        self.reconcile(now);
    }

    fn stop(&mut self, now: Duration) {
        if matches!(self.mode, Mode::Running { .. }) {
            self.wind_down(EndReason::Stopped);
            self.reconcile(now);
        }
    }

    fn kill(&mut self, now: Duration) {
        self.stop(now);
        self.hasty = true;
        for child in &mut self.children {
            if let Kid::Stopping { kill_at } = &mut child.kid {
                *kill_at = now;
            }
        }
        self.on_time(now);
    }

    fn on_started(&mut self, child: u64, now: Duration) {
        if let Some(child) = self.child(child)
            && child.kid == Kid::Starting
        {
            child.kid = Kid::Up;
        }
        self.reconcile(now);
    }

    fn on_ended(&mut self, number: u64, reason: EndReason, now: Duration, random: u64) {
        let running = matches!(self.mode, Mode::Running { .. });
        let Some(child) = self.child(number) else {
            return;
        };
        match child.kid {
            Kid::Starting | Kid::Up if running && !child.recycle => {
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                self.on_failure(place, reason, now, random);
            }
            Kid::Starting | Kid::Up | Kid::Stopping { .. } | Kid::Killing { .. } | Kid::Lost => {
                child.kid = Kid::Down { not_before: now }
            }
            Kid::Down { .. } | Kid::Finished => {}
        }
        self.reconcile(now);
    }

    fn on_time(&mut self, now: Duration) {
        for place in 0..self.children.len() {
            match self.children[place].kid {
                Kid::Stopping { kill_at } if kill_at <= now => {
                    self.children[place].kid = Kid::Killing {
                        give_up_at: now.saturating_add(KILL_GRACE),
                    };
                    self.cut.push(place as u64);
                    self.order(place, Order::Kill);
                }
                Kid::Killing { give_up_at } if give_up_at <= now => {
                    self.children[place].kid = Kid::Lost;
                }
                Kid::Down { .. }
                | Kid::Starting
                | Kid::Up
                | Kid::Stopping { .. }
                | Kid::Killing { .. }
                | Kid::Lost
                | Kid::Finished => {}
            }
        }
        self.reconcile(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_due(&self, now: Duration) -> Option<Duration> {
        let running = matches!(self.mode, Mode::Running { .. });
        self.children
            .iter()
            .filter_map(|child| match child.kid {
                Kid::Stopping { kill_at: due } | Kid::Killing { give_up_at: due } => Some(due),
                Kid::Down { not_before } if running && not_before > now => Some(not_before),
                Kid::Down { .. } | Kid::Starting | Kid::Up | Kid::Lost | Kid::Finished => None,
            })
            .min()
    }

    fn is_running(&self) -> bool {
        matches!(self.mode, Mode::Running { .. })
    }

    fn is_held(&self) -> bool {
        self.mode == Mode::Held
    }
}
