//! A nursery's supervisor: children that come and go, in no order. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::order::{EndReason, Order};
use crate::supervise::limiter::Limiter;
use crate::supervise::policy::{Effect, KILL_GRACE, Kid, Policy, Restart};

#[derive(Debug)]
struct Child {
    restart: Restart,
    shutdown: Duration,
    kid: Kid,
}

impl Child {
    fn due(&self) -> Option<Duration> {
        match self.kid {
            Kid::Down { not_before: due }
            | Kid::Stopping { kill_at: due }
            | Kid::Killing { give_up_at: due } => Some(due),
            Kid::Starting | Kid::Up | Kid::Lost | Kid::Finished => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Held,
    Running,
    Stopping { then: EndReason },
}

#[derive(Debug)]
pub(crate) struct Crowd {
    limiter: Limiter,
    children: BTreeMap<u64, Child>,
    /// Every child's `due`, so that time costs only those concerned.
    agenda: BTreeSet<(Duration, u64)>,
    mode: Mode,
    cut: Vec<u64>,
    effects: VecDeque<Effect>,
}

impl Crowd {
    pub(crate) fn new(limiter: Limiter) -> Self {
        Crowd {
            limiter,
            children: BTreeMap::new(),
            agenda: BTreeSet::new(),
            mode: Mode::Held,
            cut: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// A child has come; the driver takes them in only while this runs.
    pub(crate) fn add(&mut self, number: u64, restart: Restart, shutdown: Duration) {
        debug_assert_eq!(self.mode, Mode::Running);
        self.children.insert(
            number,
            Child {
                restart,
                shutdown,
                kid: Kid::Starting,
            },
        );
        self.order(number, Order::Start);
    }

    fn order(&mut self, number: u64, order: Order) {
        self.effects.push_back(Effect::Order(number, order));
    }

    /// Moves a child on, keeping the agenda true.
    fn set(&mut self, number: u64, kid: Kid) {
        if let Some(child) = self.children.get_mut(&number) {
            if let Some(due) = child.due() {
                self.agenda.remove(&(due, number));
            }
            child.kid = kid;
            if let Some(due) = child.due() {
                self.agenda.insert((due, number));
            }
        }
    }

    fn finish(&mut self, number: u64) {
        self.set(number, Kid::Finished);
        self.children.remove(&number);
        self.order(number, Order::Finish);
    }

    fn wind_down(&mut self, then: EndReason, now: Duration) {
        self.mode = Mode::Stopping { then };
        let numbers: Vec<u64> = self.children.keys().copied().collect();
        for number in numbers {
            let child = &self.children[&number];
            let kill_at = now.saturating_add(child.shutdown);
            match child.kid {
                Kid::Starting | Kid::Up => {
                    self.set(number, Kid::Stopping { kill_at });
                    self.order(number, Order::Stop);
                }
                Kid::Down { .. } => self.finish(number),
                Kid::Stopping { .. } | Kid::Killing { .. } | Kid::Lost | Kid::Finished => {}
            }
        }
        self.settle();
    }

    /// Says so once the last child is gone.
    fn settle(&mut self) {
        if let Mode::Stopping { then } = &self.mode
            && self.children.is_empty()
        {
            let reason = then.clone();
            self.mode = Mode::Held;
            let cut = std::mem::take(&mut self.cut);
            self.effects.push_back(Effect::Ended { reason, cut });
        }
    }
}

impl Policy for Crowd {
    fn start(&mut self, _now: Duration) {
        if self.mode == Mode::Held {
            self.mode = Mode::Running;
            self.limiter.reset();
            self.effects.push_back(Effect::Started);
        }
    }

    fn stop(&mut self, now: Duration) {
        if self.mode == Mode::Running {
            self.wind_down(EndReason::Stopped, now);
        }
    }

    fn kill(&mut self, now: Duration) {
        self.stop(now);
        let numbers: Vec<u64> = self.children.keys().copied().collect();
        for number in numbers {
            if matches!(self.children[&number].kid, Kid::Stopping { .. }) {
                self.set(number, Kid::Stopping { kill_at: now });
            }
        }
        self.on_time(now);
    }

    fn on_started(&mut self, number: u64, _now: Duration) {
        if self
            .children
            .get(&number)
            .is_some_and(|child| child.kid == Kid::Starting)
        {
            self.set(number, Kid::Up);
        }
    }

    fn on_ended(&mut self, number: u64, reason: EndReason, now: Duration, random: u64) {
        let Some(child) = self.children.get(&number) else {
            return;
        };
        if self.mode != Mode::Running || !child.kid.is_running() || !child.restart.wants(&reason) {
            self.finish(number);
            self.settle();
            return;
        }
        match self.limiter.fail(now, random) {
            Some(wait) => {
                let not_before = now.saturating_add(wait);
                self.set(number, Kid::Down { not_before });
            }
            None => {
                self.finish(number);
                let cause = match reason {
                    EndReason::Failed(cause) => cause,
                    EndReason::Stopped => "stopped by itself".to_owned(),
                    EndReason::Killed => "killed".to_owned(),
                };
                self.wind_down(EndReason::Failed(cause), now);
            }
        }
    }

    fn on_time(&mut self, now: Duration) {
        while let Some((due, number)) = self.agenda.first().copied() {
            if due > now {
                break;
            }
            self.agenda.pop_first();
            match self.children.get(&number).map(|child| child.kid) {
                Some(Kid::Down { .. }) => {
                    self.set(number, Kid::Starting);
                    self.order(number, Order::Start);
                }
                Some(Kid::Stopping { .. }) => {
                    let give_up_at = now.saturating_add(KILL_GRACE);
                    self.set(number, Kid::Killing { give_up_at });
                    self.cut.push(number);
                    self.order(number, Order::Kill);
                }
                Some(Kid::Killing { .. }) => self.finish(number),
                Some(Kid::Starting | Kid::Up | Kid::Lost | Kid::Finished) | None => {}
            }
        }
        self.settle();
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_due(&self, _now: Duration) -> Option<Duration> {
        self.agenda.first().map(|(due, _)| *due)
    }

    fn is_running(&self) -> bool {
        self.mode == Mode::Running
    }

    fn is_held(&self) -> bool {
        self.mode == Mode::Held
    }
}
