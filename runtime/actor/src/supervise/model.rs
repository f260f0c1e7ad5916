//! Random lives of a tree's children, checked against what a supervisor promises.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use crate::order::{EndReason, Order};
use crate::supervise::limiter::{Backoff, Intensity, Limiter};
use crate::supervise::plan::Plan;
use crate::supervise::policy::{Effect, KILL_GRACE, Policy, Restart, Strategy as Policies};

const DEADLINE: Duration = Duration::from_secs(2);

/// A child as it really is, not as its supervisor believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Real {
    Down,
    /// Ordered to start, and not started yet.
    Coming,
    Up,
    Leaving,
    Gone,
}

#[derive(Debug, Clone)]
enum Step {
    /// The next report arrives.
    Report,
    /// A child that is coming or up falls.
    Fall(usize),
    /// A child that is coming has come.
    Come(usize),
    /// A child that is leaving has left.
    Leave(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Report),
        1 => (0_usize..6).prop_map(Step::Fall),
        5 => (0_usize..6).prop_map(Step::Come),
        4 => (0_usize..6).prop_map(Step::Leave),
        3 => (1_u64..4_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

struct World {
    plan: Plan,
    strategy: Policies,
    children: Vec<Real>,
    reports: VecDeque<(u64, Option<EndReason>)>,
    now: Duration,
    /// Everything must go down.
    stopping: bool,
    ended: Option<EndReason>,
}

impl World {
    fn obey(&mut self) {
        while let Some(effect) = self.plan.poll_effect() {
            match effect {
                Effect::Order(child, order) => self.order(usize::try_from(child).unwrap(), order),
                Effect::Started => {
                    let missing = |real: &&Real| !matches!(real, Real::Up | Real::Gone);
                    let missing = self.children.iter().filter(missing).count();
                    // What fell is known only once its report has come.
                    assert!(
                        missing <= self.reports.len(),
                        "started: {:?}",
                        self.children
                    );
                }
                Effect::Ended { reason, .. } => {
                    let down = |real: &Real| matches!(real, Real::Down | Real::Gone);
                    assert!(self.children.iter().all(down), "{:?}", self.children);
                    assert_eq!(self.ended.replace(reason), None, "ends once");
                }
            }
        }
    }

    fn order(&mut self, child: usize, order: Order) {
        match order {
            Order::Start => {
                assert!(
                    !self.stopping && self.ended.is_none(),
                    "starts while it stops"
                );
                assert_eq!(self.children[child], Real::Down, "starts what runs");
                if self.strategy != Policies::OneForOne {
                    let coming = self.children[..child].contains(&Real::Coming);
                    assert!(!coming, "out of order: {:?}", self.children);
                }
                self.children[child] = Real::Coming;
            }
            Order::Stop => {
                let leaving = self.children.contains(&Real::Leaving);
                assert!(!leaving, "stops two at once: {:?}", self.children);
                if self.stopping {
                    let alive = |real: &Real| matches!(real, Real::Up | Real::Coming);
                    let after = self.children[child + 1..].iter().any(alive);
                    assert!(!after, "not in reverse: {:?}", self.children);
                }
                if matches!(self.children[child], Real::Coming | Real::Up) {
                    self.children[child] = Real::Leaving;
                }
            }
            Order::Kill => self.end(child, EndReason::Killed),
            Order::Finish => self.children[child] = Real::Gone,
            Order::None => panic!("no order"),
        }
    }

    fn end(&mut self, child: usize, reason: EndReason) {
        if matches!(
            self.children[child],
            Real::Coming | Real::Up | Real::Leaving
        ) {
            self.children[child] = Real::Down;
            self.reports.push_back((child as u64, Some(reason)));
        }
    }

    fn step(&mut self, step: Step) {
        let n = self.children.len();
        match step {
            Step::Report => match self.reports.pop_front() {
                Some((child, None)) => self.plan.on_started(child, self.now),
                Some((child, Some(reason))) => self.plan.on_ended(child, reason, self.now, 0),
                None => {}
            },
            Step::Fall(child) => {
                if matches!(self.children[child % n], Real::Coming | Real::Up) {
                    self.end(child % n, EndReason::Failed("fell".into()));
                }
            }
            Step::Come(child) => {
                if self.children[child % n] == Real::Coming {
                    self.children[child % n] = Real::Up;
                    self.reports.push_back(((child % n) as u64, None));
                }
            }
            Step::Leave(child) => {
                if self.children[child % n] == Real::Leaving {
                    self.end(child % n, EndReason::Stopped);
                }
            }
            Step::Pass(ms) => {
                self.now += Duration::from_millis(ms);
                self.plan.on_time(self.now);
            }
        }
        self.obey();
        self.stopping |= self.ended.is_some();
    }
}

fn strategy() -> impl Strategy<Value = Policies> {
    prop::sample::select(vec![
        Policies::OneForOne,
        Policies::RestForOne,
        Policies::OneForAll,
    ])
}

fn restart() -> impl Strategy<Value = Restart> {
    prop::sample::select(vec![
        Restart::Permanent,
        Restart::Permanent,
        Restart::Transient,
        Restart::Temporary,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    // Children come, fall and leave at any moment, and reports of it arrive late: starts go in order, stops in reverse
    // and one at a time, nothing is started twice. Then the tree is told to stop while its children do nothing of
    // their own: it ends, once, within the sum of their deadlines and graces.
    #[test]
    fn a_tree_keeps_its_promises(
        strategy in strategy(),
        restarts in prop::collection::vec(restart(), 1..6),
        limit in 0_u32..8,
        steps in steps(),
    ) {
        let intensity = Intensity { restarts: limit, within: Duration::from_secs(20) };
        let mut plan = Plan::new(strategy, Limiter::new(intensity, Backoff::default()));
        for restart in &restarts {
            plan.add(*restart, DEADLINE);
        }
        plan.start(Duration::ZERO);
        let mut world = World {
            plan,
            strategy,
            children: vec![Real::Down; restarts.len()],
            reports: VecDeque::new(),
            now: Duration::ZERO,
            stopping: false,
            ended: None,
        };
        world.obey();
        for step in steps {
            world.step(step);
        }
        if world.ended.is_none() {
            world.plan.stop(world.now);
            world.stopping = true;
            world.obey();
        }
        let latest = world.now + (DEADLINE + KILL_GRACE) * u32::try_from(restarts.len()).unwrap();
        while world.ended.is_none() {
            while !world.reports.is_empty() {
                world.step(Step::Report);
            }
            if world.ended.is_none() {
                let due = world.plan.next_due(world.now);
                prop_assert!(due.is_some_and(|due| due <= latest), "never ends: {:?}", world.children);
                world.now = due.unwrap_or(latest).max(world.now);
                world.plan.on_time(world.now);
                world.obey();
            }
        }
        prop_assert!(world.plan.is_held());
    }
}
