//! Runs a policy: reports, orders and time in; orders and reports out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::latest;
use rand_core::Rng;
use tokio::sync::mpsc;

use crate::counters::bump;
use crate::env::Env;
use crate::error::Exit;
use crate::order::{EndReason, Event, Order, Reporter};
use crate::path::Path;
use crate::supervise::crowd::Crowd;
use crate::supervise::member::{Member, Standing};
use crate::supervise::policy::{Effect, Policy};

/// A supervisor's children, shared with those who inspect them.
pub(crate) type Members = Arc<Mutex<BTreeMap<u64, Arc<dyn Member>>>>;

/// Who hears of the supervisor's start and end.
pub(crate) enum Parent {
    /// A supervisor above.
    Supervisor(Reporter),
    /// Nobody: this is the root, and its end is the tree's.
    Root {
        phase: latest::Sender<Phase>,
        cut: crate::order::CutOff,
    },
}

/// Where a whole tree stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Up,
    Over(Exit),
}

/// A child for a running nursery.
pub(crate) struct Arrival {
    pub(crate) number: u64,
    pub(crate) member: Arc<dyn Member>,
}

/// A policy that may be given children while it runs.
pub(crate) trait Grow: Policy {
    fn grow(&mut self, number: u64, member: &dyn Member);
}

impl Grow for crate::supervise::plan::Plan {
    fn grow(&mut self, _: u64, _: &dyn Member) {
        // A tree's children are all there before it starts: nothing is ever sent on its arrivals channel.
    }
}

impl Grow for Crowd {
    fn grow(&mut self, number: u64, member: &dyn Member) {
        self.add(number, member.restart(), member.shutdown());
    }
}

pub(crate) struct Driver<P> {
    pub(crate) policy: P,
    pub(crate) members: Members,
    pub(crate) standing: Arc<Standing>,
    pub(crate) reports: mpsc::Receiver<(u64, Event)>,
    /// For children that arrive later.
    pub(crate) reporting: mpsc::Sender<(u64, Event)>,
    pub(crate) arrivals: Option<mpsc::Receiver<Arrival>>,
    /// Called once for each child that is gone for good.
    pub(crate) on_gone: Box<dyn Fn() + Send>,
    pub(crate) parent: Parent,
    pub(crate) env: Env,
    pub(crate) path: Path,
}

impl<P: Grow> Driver<P> {
    pub(crate) async fn run(mut self) {
        let mut rng = self.env.actor_rng(self.path.as_str(), 0);
        let mut finishing = false;
        loop {
            let now = self.env.now();
            let (start_first, order) = self.standing.take();
            if start_first {
                self.policy.start(now);
            }
            match order {
                Order::Start => self.policy.start(now),
                Order::Stop => self.policy.stop(now),
                Order::Kill => self.policy.kill(now),
                Order::Finish => {
                    finishing = true;
                    self.policy.kill(now);
                }
                Order::None => {}
            }
            self.policy.on_time(now);
            if self.carry_out() || (finishing && self.policy.is_held()) {
                break;
            }
            let due = self.policy.next_due(now);
            let wait = due.map(|due| due.saturating_sub(now));
            tokio::select! {
                biased;
                () = self.standing.changed() => {}
                Some((child, event)) = self.reports.recv() => {
                    let now = self.env.now();
                    match event {
                        Event::Started => self.policy.on_started(child, now),
                        Event::Ended(reason) => {
                            self.policy.on_ended(child, reason, now, rng.next_u64());
                        }
                    }
                }
                Some(arrival) = next(&mut self.arrivals), if self.policy.is_running() => {
                    self.admit(arrival);
                }
                () = self.env.sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
        self.finish_all();
        if let Some(mut arrivals) = self.arrivals.take() {
            arrivals.close();
            while let Ok(arrival) = arrivals.try_recv() {
                arrival.member.order(Order::Finish);
                (self.on_gone)();
            }
        }
    }

    fn admit(&mut self, Arrival { number, member }: Arrival) {
        let reporter = Reporter {
            child: number,
            tx: self.reporting.clone(),
            cut: self.cut().clone(),
        };
        member.launch(&self.env, &self.path, reporter);
        self.members().insert(number, Arc::clone(&member));
        self.policy.grow(number, &*member);
    }

    fn cut(&self) -> &crate::order::CutOff {
        match &self.parent {
            Parent::Supervisor(reporter) => &reporter.cut,
            Parent::Root { cut, .. } => cut,
        }
    }

    fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<dyn Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the root is over.
    fn carry_out(&mut self) -> bool {
        while let Some(effect) = self.policy.poll_effect() {
            match effect {
                Effect::Order(child, order) => self.pass_on(child, order),
                Effect::Started => match &self.parent {
                    Parent::Supervisor(reporter) => reporter.started(),
                    Parent::Root { phase, .. } => {
                        phase.send_replace(Phase::Up);
                    }
                },
                Effect::Ended { reason, cut } => {
                    for child in cut {
                        self.note_cut(child);
                    }
                    if self.say_ended(reason) {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn pass_on(&mut self, child: u64, order: Order) {
        let member = if order == Order::Finish && self.arrivals.is_some() {
            (self.on_gone)();
            self.members().remove(&child)
        } else {
            self.members().get(&child).cloned()
        };
        if let Some(member) = member {
            if order == Order::Kill {
                tracing::warn!(actor = %member.path(), "did not stop by its deadline");
            }
            member.order(order);
        }
    }

    fn note_cut(&self, child: u64) {
        bump(&self.env.count().killed);
        let path = self.members().get(&child).map(|member| member.path());
        self.cut()
            .add(path.unwrap_or_else(|| self.path.join(&format!("#{child}"))));
    }

    /// True when that was the root's end.
    fn say_ended(&self, reason: EndReason) -> bool {
        match (&self.parent, reason) {
            (Parent::Supervisor(reporter), EndReason::Failed(cause)) => {
                tracing::error!(supervisor = %self.path, %cause, "restart limit exceeded");
                let cause = format!("{} gave up: {cause}", self.path);
                reporter.ended(EndReason::Failed(cause));
                false
            }
            (Parent::Supervisor(reporter), reason) => {
                reporter.ended(reason);
                false
            }
            (Parent::Root { phase, .. }, EndReason::Failed(cause)) => {
                tracing::error!(supervisor = %self.path, %cause, "the root gave up");
                self.finish_all();
                let at = self.path.clone();
                phase.send_replace(Phase::Over(Exit::Escalated { at, cause }));
                true
            }
            (Parent::Root { phase, cut }, EndReason::Stopped | EndReason::Killed) => {
                self.finish_all();
                let late = cut.take();
                phase.send_replace(Phase::Over(if late.is_empty() {
                    Exit::Stopped
                } else {
                    Exit::Overran { late }
                }));
                true
            }
        }
    }

    fn finish_all(&self) {
        let members: Vec<_> = self.members().values().cloned().collect();
        for member in members {
            member.order(Order::Finish);
        }
    }
}

async fn next(arrivals: &mut Option<mpsc::Receiver<Arrival>>) -> Option<Arrival> {
    match arrivals {
        Some(arrivals) => arrivals.recv().await,
        None => None,
    }
}
