//! What a supervisor holds of a child: an actor's cell, or another supervisor.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::cell::{Cell, Factory};
use crate::env::Env;
use crate::inspect::ActorInfo;
use crate::mail::{Home, Mail};
use crate::message::{Behaviour, Class};
use crate::order::{EndReason, Order, Reporter};
use crate::path::Path;
use crate::supervise::policy::Restart;

/// A probe of one actor: what is known at once, and its description when it comes.
pub(crate) type Probe = (ActorInfo, oneshot::Receiver<String>);

pub(crate) trait Member: Send + Sync {
    /// Puts it in its place, running nothing yet. Once.
    fn launch(&self, env: &Env, parent: &Path, reporter: Reporter);
    fn order(&self, order: Order);
    fn restart(&self) -> Restart;
    fn shutdown(&self) -> Duration;
    fn path(&self) -> Path;
    fn probe(&self, probes: &mut Vec<Probe>);
}

/// An actor.
pub(crate) struct CellMember<B: Behaviour> {
    pub(crate) name: String,
    pub(crate) mail: Arc<Mail<B>>,
    pub(crate) factory: Mutex<Option<Factory<B>>>,
    pub(crate) place: Option<u64>,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Duration,
    /// A nursery's that is never started again: what makes it goes once it was.
    pub(crate) once: bool,
    pub(crate) placed: AtomicBool,
}

impl<B: Behaviour> Member for CellMember<B> {
    fn launch(&self, env: &Env, parent: &Path, reporter: Reporter) {
        let factory = self
            .factory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.mail.settle_in(Home {
            path: parent.join(&self.name),
            env: env.clone(),
            reporter,
        });
        let (Some(factory), Some(arbiter)) = (factory, env.arbiter(self.place)) else {
            return;
        };
        let (mail, env) = (Arc::clone(&self.mail), env.clone());
        let once = self.once;
        let placed = arbiter.spawn_fn(move || {
            #[cfg(any(test, feature = "simulation"))]
            if let Some(scope) = env.scope_of(mail.path()) {
                return start_hosted(scope, Cell::new(mail, env, factory, once));
            }
            start_cell(Cell::new(mail, env, factory, once));
        });
        self.placed.store(placed, Ordering::Release);
    }

    fn order(&self, order: Order) {
        let placed = self.placed.load(Ordering::Acquire);
        if placed {
            self.mail.set_order(order);
        }
        if order == Order::Finish {
            // Here too, so that whoever hears of the end finds it closed.
            self.mail.close();
        } else if !placed {
            self.mail
                .report_ended(EndReason::Failed("no arbiter to run on".into()));
        }
    }

    fn restart(&self) -> Restart {
        self.restart
    }

    fn shutdown(&self) -> Duration {
        self.shutdown
    }

    fn path(&self) -> Path {
        self.mail.path().clone()
    }

    fn probe(&self, probes: &mut Vec<Probe>) {
        let mail = &self.mail;
        let stats = &mail.stats;
        let info = ActorInfo {
            path: mail.path().clone(),
            behaviour: B::NAME,
            life: stats.life(),
            depth: Class::ALL.map(|class| mail.depth(class)),
            bounds: mail.bounds(),
            restarts: stats.restarts.load(Ordering::Relaxed),
            handled: stats.handled.load(Ordering::Relaxed),
            busy: Duration::from_nanos(stats.busy_ns.load(Ordering::Relaxed)),
            state: None,
        };
        probes.push((info, mail.ask_description()));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the cell is the supervised task; its supervisor hears of its end"
)]
fn start_cell<B: Behaviour>(cell: Cell<B>) {
    drop(actix_rt::spawn(cell));
}

/// As [`start_cell`], in a simulated world.
#[cfg(any(test, feature = "simulation"))]
#[expect(
    clippy::disallowed_methods,
    reason = "the cell is the supervised task; its supervisor hears of its end"
)]
fn start_hosted<B: Behaviour>(scope: Arc<crate::hosted::Scope>, cell: Cell<B>) {
    let node = Arc::clone(scope.node());
    let task = actix_rt::spawn(crate::hosted::Scoped::new(scope, cell));
    node.remember(task.abort_handle());
    if node.is_over() {
        // The node's end has overtaken it.
        task.abort();
    }
}

/// The standing order of a supervisor.
#[derive(Default)]
pub(crate) struct Standing {
    order: AtomicU8,
    changed: Notify,
}

/// Set beside a stop that came before the start under it was seen: both are to be carried out.
const START_FIRST: u8 = 0x80;

impl Standing {
    pub(crate) fn set(&self, order: Order) {
        let before = self.order.load(Ordering::Acquire);
        let mut next = order as u8;
        if before & START_FIRST != 0 || Order::from_u8(before) == Order::Start {
            next |= START_FIRST;
        }
        let swapped =
            self.order
                .compare_exchange(before, next, Ordering::AcqRel, Ordering::Acquire);
        if swapped.is_err() {
            // Its supervisor has just taken `before`; only one parent sets.
            self.order.store(order as u8, Ordering::Release);
        }
        self.changed.notify_one();
    }

    /// The order, and whether a start comes before it.
    pub(crate) fn take(&self) -> (bool, Order) {
        let standing = self.order.swap(Order::None as u8, Ordering::AcqRel);
        let order = Order::from_u8(standing & !START_FIRST);
        (standing & START_FIRST != 0, order)
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
