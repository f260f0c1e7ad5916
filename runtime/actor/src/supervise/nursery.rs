//! A bounded place for actors that come and go: sessions, links, jobs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::addr::Addr;
use crate::env::Env;
use crate::error::NurseryFull;
use crate::message::Behaviour;
use crate::order::{Order, REPORTS_A_CHILD, Reporter};
use crate::path::Path;
use crate::supervise::crowd::Crowd;
use crate::supervise::driver::{Arrival, Driver, Members, Parent};
use crate::supervise::limiter::Limiter;
use crate::supervise::member::{Member, Probe, Standing};
use crate::supervise::policy::{KILL_GRACE, Restart};
use crate::supervise::spec::{SHUTDOWN, Spec};

/// A handle that starts actors in a nursery. Made by [`crate::Tree::nursery`].
#[derive(Clone)]
pub struct Nursery {
    arrivals: mpsc::Sender<Arrival>,
    count: Arc<Count>,
}

struct Count {
    /// Started or about to be, and not gone for good.
    live: AtomicUsize,
    limit: usize,
    made: AtomicU64,
}

impl Nursery {
    /// Starts an actor; its name gets a number of its own. Works from any thread, a handler included. Before the
    /// nursery itself has started, and between its incarnations, the actor waits and so do its messages.
    pub fn spawn<B: Behaviour>(&self, spec: Spec<B>) -> Result<Addr<B>, NurseryFull> {
        let limit = self.count.limit;
        let room = |live: usize| (live < limit).then_some(live + 1);
        self.count
            .live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| NurseryFull::Full { limit })?;
        let number = self.count.made.fetch_add(1, Ordering::Relaxed);
        let (addr, member) = spec.into_member(Restart::Temporary, Some(number));
        let arrival = Arrival {
            number,
            member: Arc::new(member),
        };
        // The channel holds `limit`, so only a nursery that is gone refuses.
        if self.arrivals.try_send(arrival).is_err() {
            self.count.gone();
            return Err(NurseryFull::Closed);
        }
        Ok(addr)
    }

    /// How many actors it holds.
    pub fn len(&self) -> usize {
        self.count.live.load(Ordering::Acquire)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many it may hold.
    pub fn limit(&self) -> usize {
        self.count.limit
    }
}

impl Count {
    fn gone(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(crate) struct NurseryMember {
    name: String,
    limit: usize,
    standing: Arc<Standing>,
    members: Members,
    count: Arc<Count>,
    parts: Mutex<Option<(Crowd, mpsc::Receiver<Arrival>)>>,
}

impl NurseryMember {
    pub(crate) fn new(name: String, limit: usize, limiter: Limiter) -> (Nursery, NurseryMember) {
        let (tx, rx) = mpsc::channel(limit.max(1));
        let count = Arc::new(Count {
            live: AtomicUsize::new(0),
            limit,
            made: AtomicU64::new(0),
        });
        let member = NurseryMember {
            name,
            limit,
            standing: Arc::default(),
            members: Arc::default(),
            count: Arc::clone(&count),
            parts: Mutex::new(Some((Crowd::new(limiter), rx))),
        };
        let nursery = Nursery {
            arrivals: tx,
            count,
        };
        (nursery, member)
    }
}

impl Member for NurseryMember {
    fn launch(&self, env: &Env, parent: &Path, reporter: Reporter) {
        let parts = self
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((policy, arrivals)) = parts else {
            return;
        };
        let (reporting, reports) = mpsc::channel((self.limit * REPORTS_A_CHILD).max(1));
        let count = Arc::clone(&self.count);
        let driver = Driver {
            policy,
            members: Arc::clone(&self.members),
            standing: Arc::clone(&self.standing),
            reports,
            reporting,
            arrivals: Some(arrivals),
            on_gone: Box::new(move || count.gone()),
            parent: Parent::Supervisor(reporter),
            env: env.clone(),
            path: parent.join(&self.name),
        };
        env.spawn(driver.run());
    }

    fn order(&self, order: Order) {
        self.standing.set(order);
    }

    fn restart(&self) -> Restart {
        Restart::Permanent
    }

    fn shutdown(&self) -> Duration {
        // Its children stop together, each within its own deadline, of which this is the usual one.
        SHUTDOWN
            .saturating_add(KILL_GRACE)
            .saturating_add(KILL_GRACE)
    }

    fn path(&self) -> Path {
        Path::root(&self.name)
    }

    fn probe(&self, probes: &mut Vec<Probe>) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members.values() {
            member.probe(probes);
        }
    }
}
