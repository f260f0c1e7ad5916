//! The adapter over actix: the only file that knows it.
//!
//! ```text
//!   arbiter task
//!   └─ Cell           polls inside catch_unwind, obeys Start, Kill and Finish
//!      └─ ContextFut  actix's: started, items, stop
//!         └─ Shell    the actix actor: factory, behaviour, Cx
//!            └─ Pump  the one item in the context: timers, at most 64 messages, tasks
//! ```
//!
//! actix's own mailbox carries nothing. What its source does and why this is shaped so: `docs/ARCHITECTURE.md`.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use actix::dev::ContextFut;
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Supervised};
use rand_core::Rng;
use tokio::time::Sleep;

use crate::counters::bump;
use crate::cx::Cx;
use crate::env::{Env, monotonic};
use crate::mail::{Life, Mail, Taken};
use crate::message::{Behaviour, Stopping};
use crate::order::{EndReason, Order};
use crate::reply::{Dropping, dropping};
use crate::watch::DownReason;

/// Messages handled in one poll. More, and tokio's other tasks on this thread wait longer than a timer's grain.
pub(crate) const DRAIN_BUDGET: usize = 64;

/// One poll in this many is timed, and counted this many times: timing each would cost more than handling.
const SAMPLE: u64 = 64;

/// A batch buffer larger than this is given back when it is empty.
const KEEP_BATCH: usize = DRAIN_BUDGET;

pub(crate) type Factory<B> = Box<dyn FnMut(&Env) -> B + Send>;

/// The actix actor. Its behaviour comes and goes.
struct Shell<B: Behaviour> {
    /// None once an actor that is started once only was.
    factory: Option<Factory<B>>,
    once: bool,
    behaviour: Option<B>,
    cx: Cx<B>,
    sleep: Option<Pin<Box<Sleep>>>,
    polls: u64,
}

// Nothing in it is pinned in place: `sleep` has a box of its own, and the behaviour is never polled.
impl<B: Behaviour> Unpin for Shell<B> {}

type Acx<B> = actix::Context<Shell<B>>;

impl<B: Behaviour> Actor for Shell<B> {
    type Context = Acx<B>;

    fn started(&mut self, acx: &mut Acx<B>) {
        acx.spawn(Pump);
        let Some(factory) = &mut self.factory else {
            return self.cx.stop();
        };
        let behaviour = factory(self.cx.env());
        if self.once {
            self.factory = None;
        }
        let behaviour = self.behaviour.insert(behaviour);
        behaviour.started(&mut self.cx);
        self.cx.mail().stats.set_life(Life::Running);
        self.cx.mail().report_started();
    }
}

impl<B: Behaviour> Supervised for Shell<B> {
    /// Drops all that belongs to the ended incarnation. Each drop may panic without keeping the others.
    fn restarting(&mut self, _: &mut Acx<B>) {
        self.sleep = None;
        let old = self.behaviour.take();
        let rest = self.cx.reset();
        for panicked in [
            catch_unwind(AssertUnwindSafe(|| drop(old))).is_err(),
            catch_unwind(AssertUnwindSafe(|| drop(rest))).is_err(),
        ] {
            if panicked {
                tracing::error!(actor = %self.cx.path(), "panicked while being dropped");
            }
        }
    }
}

/// Drains the mailbox; lives as long as the incarnation.
struct Pump;

impl<B: Behaviour> ActorFuture<Shell<B>> for Pump {
    type Output = ();

    #[inline]
    fn poll(
        self: Pin<&mut Self>,
        shell: &mut Shell<B>,
        acx: &mut Acx<B>,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        shell.polls += 1;
        let timed = shell.polls.is_multiple_of(SAMPLE).then(monotonic);
        shell.pump(task);
        if let Some(since) = timed {
            let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let busy = &shell.cx.mail().stats.busy_ns;
            busy.store(busy.load(Relaxed).saturating_add(ns * SAMPLE), Relaxed);
        }
        if shell.cx.is_stopping() {
            acx.stop();
        }
        Poll::Pending
    }
}

impl<B: Behaviour> Shell<B> {
    fn pump(&mut self, task: &mut Context<'_>) {
        let Some(behaviour) = &mut self.behaviour else {
            return;
        };
        let cx = &mut self.cx;
        if cx.mail().order() == Order::Stop {
            cx.mail().obeyed(Order::Stop);
            match behaviour.stopping(cx) {
                Stopping::Now => cx.stop(),
                Stopping::Draining => cx.mail().stats.set_life(Life::Draining),
            }
        }
        let mut idle = cx.fire_due(behaviour);
        idle &= drain(behaviour, cx);
        idle &= cx.finish_tasks(behaviour, task);
        if let Some(asked) = cx.mail().take_describe() {
            let text = format!(
                "{} [{} tasks, {} timers]",
                behaviour.describe(),
                cx.tasks_len(),
                cx.timers_len()
            );
            drop(asked.send(text));
        }
        if cx.is_stopping() {
            return;
        }
        idle &= self.arm(task);
        if !idle {
            task.waker().wake_by_ref();
        }
    }

    /// Sets the one sleep to the next due time. False if that is already past.
    fn arm(&mut self, task: &mut Context<'_>) -> bool {
        let Some(due) = self.cx.next_due() else {
            return true;
        };
        let at = self.cx.env().instant_of(due);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(task).is_pending()
    }
}

/// Handles at most [`DRAIN_BUDGET`] messages. True if the mailbox is empty and parked.
fn drain<B: Behaviour>(behaviour: &mut B, cx: &mut Cx<B>) -> bool {
    let mut left = DRAIN_BUDGET;
    let mut parked = false;
    let idle = loop {
        if cx.is_stopping() {
            break false;
        }
        if cx.batch.is_empty() {
            if parked || left == 0 {
                break parked;
            }
            let mut batch = std::mem::take(&mut cx.batch);
            let taken = cx.mail().take(&mut batch, left);
            cx.batch = batch;
            parked = taken != Taken::Some;
            if taken == Taken::Parked {
                break true;
            }
        } else if cx.mail().control_waits() {
            let mut batch = std::mem::take(&mut cx.batch);
            cx.mail().take_control(&mut batch, left);
            cx.batch = batch;
        }
        if left == 0 {
            break false;
        }
        if let Some(envelope) = cx.batch.pop_front() {
            left -= 1;
            cx.mail().begin();
            envelope.deliver(behaviour, cx);
        }
    };
    if cx.batch.is_empty() && cx.batch.capacity() > KEEP_BATCH {
        // An idle actor keeps no buffer.
        cx.batch = std::collections::VecDeque::new();
    }
    let handled = (DRAIN_BUDGET - left) as u64;
    let total = &cx.mail().stats.handled;
    total.store(total.load(Relaxed) + handled, Relaxed);
    idle
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between incarnations, or before the first.
    Held,
    Running,
    Done,
}

/// An actor's task. Lives from its tree's start until it is finished for good.
pub(crate) struct Cell<B: Behaviour> {
    fut: ContextFut<Shell<B>, Acx<B>>,
    /// Without an address alive actix refuses to restart.
    _keep: actix::Addr<Shell<B>>,
    mail: Arc<Mail<B>>,
    /// Whether the mailbox knows this task. It never moves to another.
    registered: bool,
    state: State,
    ran: bool,
}

impl<B: Behaviour> Cell<B> {
    /// `once`: it is never started again, and what made it goes.
    pub(crate) fn new(mail: Arc<Mail<B>>, env: Env, factory: Factory<B>, once: bool) -> Self {
        let acx = Acx::<B>::new();
        let keep = acx.address();
        let fut = acx.into_future(Shell {
            factory: Some(factory),
            once,
            behaviour: None,
            cx: Cx::new(Arc::clone(&mail), env),
            sleep: None,
            polls: 0,
        });
        Cell {
            fut,
            _keep: keep,
            mail,
            registered: false,
            state: State::Held,
            ran: false,
        }
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.ran, true) {
            let restarts = &self.mail.stats.restarts;
            restarts.store(restarts.load(Relaxed).saturating_add(1), Relaxed);
            if let Some(home) = self.mail.home() {
                bump(&home.env.count().restarts);
            }
        }
        if let Some(home) = self.mail.home() {
            let purpose = format!("{}#incarnation", home.path);
            let restarts = self.mail.stats.restarts.load(Relaxed);
            let mut rng = home.env.actor_rng(&purpose, restarts);
            self.mail.begin_incarnation(rng.next_u64());
        }
        self.state = State::Running;
    }

    /// Drops the incarnation, tells watchers and the supervisor.
    fn end(&mut self, reason: EndReason) {
        let (why, down) = match &reason {
            EndReason::Stopped => (Dropping::Closed, DownReason::Stopped),
            EndReason::Killed => (Dropping::Closed, DownReason::Killed),
            EndReason::Failed(_) => (Dropping::Panicked, DownReason::Panicked),
        };
        // `Shell::restarting` catches what the drops throw; nothing else in here runs foreign code.
        let restarted = dropping(why, || self.fut.restart());
        debug_assert!(restarted, "the cell keeps an address");
        self.state = State::Held;
        self.mail.stats.set_life(Life::Held);
        if let (EndReason::Failed(cause), Some(home)) = (&reason, self.mail.home()) {
            bump(&home.env.count().panics);
            tracing::error!(actor = %home.path, %cause, "panicked");
        }
        self.mail.grant_all();
        self.mail.announce(&down);
        self.mail.report_ended(reason);
    }

    fn finish(&mut self) {
        if self.state == State::Running {
            self.end(EndReason::Killed);
        }
        self.state = State::Done;
        self.mail.close();
        self.mail.stats.set_life(Life::Ended);
    }
}

impl<B: Behaviour> Future for Cell<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.registered, true) {
            this.mail.register(task.waker());
        }
        loop {
            match (this.mail.order(), this.state) {
                (_, State::Done) => return Poll::Ready(()),
                (Order::Finish, _) => {
                    this.finish();
                    return Poll::Ready(());
                }
                (Order::Start, State::Held) => {
                    // A stop that came in between has been answered for this incarnation already: it never begins.
                    if this.mail.obeyed(Order::Start) {
                        this.begin();
                    }
                }
                (Order::Kill, State::Running) => {
                    this.mail.obeyed(Order::Kill);
                    this.end(EndReason::Killed);
                }
                // The incarnation ended by itself before the order came; its report is under way.
                (order @ (Order::Kill | Order::Stop), State::Held) => {
                    this.mail.obeyed(order);
                }
                (Order::None, State::Held) => return Poll::Pending,
                (Order::None | Order::Start | Order::Stop, State::Running) => {
                    let polled =
                        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.fut).poll(task)));
                    match polled {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(())) => this.end(EndReason::Stopped),
                        Err(panic) => {
                            this.end(EndReason::Failed(panic_text(&*panic)));
                            drop_caught(panic);
                        }
                    }
                }
            }
        }
    }
}

impl<B: Behaviour> Drop for Cell<B> {
    fn drop(&mut self) {
        // Otherwise actix would run the context once more from its own Drop.
        self.fut.ctx().terminate();
        dropping(Dropping::Closed, || {
            self.mail.close();
        });
    }
}

impl<B: Behaviour> Drop for Shell<B> {
    fn drop(&mut self) {
        let batch = std::mem::take(&mut self.cx.batch);
        self.cx.mail().bury(batch);
        let behaviour = self.behaviour.take();
        dropping(Dropping::Closed, || drop(behaviour));
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

/// A panic's payload may itself panic when dropped.
fn drop_caught(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}
