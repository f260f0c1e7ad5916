//! What the world does for one node.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_actor::hosted::{Handled, Host};

use super::NodeNo;
use super::cpu::Cpu;
use super::ledger::{EventKind, Ledger};
use crate::net::Net;

thread_local! {
    /// Charged on this thread so far, ns.
    static CHARGED: Cell<u64> = const { Cell::new(0) };
    /// Charged by the offloaded work that runs now; `None` when none does.
    static WORK: Cell<Option<u64>> = const { Cell::new(None) };
}

pub(super) struct NodeHost {
    node: NodeNo,
    clock: Env,
    ledger: Arc<Ledger>,
    net: Net,
    message_ns: u64,
    cpu: Arc<Mutex<Cpu>>,
}

impl NodeHost {
    pub(super) fn new(
        node: NodeNo,
        clock: Env,
        net: Net,
        message_ns: u64,
        cpu: Arc<Mutex<Cpu>>,
    ) -> NodeHost {
        NodeHost {
            node,
            clock,
            ledger: net.ledger().clone(),
            net,
            message_ns,
            cpu,
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Host for NodeHost {
    fn handled(&self, what: &Handled<'_>) {
        let kind = if what.remote {
            EventKind::Passed
        } else {
            if self.message_ns > 0 {
                self.cpu.lock().occupy(self.now_ns(), self.message_ns);
            }
            EventKind::Handled
        };
        let (at, actor) = (self.clock.now(), what.actor.as_str());
        let panics = self.ledger.record(
            kind,
            at,
            self.node,
            actor,
            what.message,
            what.len,
            what.digest,
        );
        assert!(
            !panics,
            "the scenario has this actor panic at {}",
            what.message
        );
    }

    fn charge(&self, cost: Duration) {
        let cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        CHARGED.set(CHARGED.get().saturating_add(cost));
        match WORK.get() {
            Some(work) => WORK.set(Some(work.saturating_add(cost))),
            None => {
                self.cpu.lock().occupy(self.now_ns(), cost);
            }
        }
    }

    fn begin_work(&self) -> bool {
        if !self.cpu.lock().takes_jobs() {
            return false;
        }
        WORK.set(Some(0));
        true
    }

    fn finish_work(&self, deliver: Box<dyn FnOnce() + Send>) {
        let cost = WORK.take().unwrap_or(0);
        if cost == 0 {
            return deliver();
        }
        let ends = self.cpu.lock().job(self.now_ns(), cost);
        let cpu = self.cpu.clone();
        let deliver = move || {
            cpu.lock().done();
            deliver();
        };
        self.net.at(Duration::from_nanos(ends), Box::new(deliver));
    }

    fn charged(&self) -> Duration {
        Duration::from_nanos(CHARGED.get())
    }
}
