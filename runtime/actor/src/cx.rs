//! What an actor can do from inside a handler.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use crate::addr::Addr;
use crate::env::Env;
use crate::error::{AskError, OffloadError, TellError};
use crate::mail::{Envelope, Mail};
use crate::message::{Behaviour, Message};
use crate::path::Path;
use crate::refs::Ref;
use crate::rng::StreamRng;
use crate::tasks::Tasks;
use crate::timers::{Call, Due, TimerId, Timers};
use crate::trace::{StepKind, TraceCx};
use crate::watch::{Down, Watchable};

type Done<B> = Box<dyn FnOnce(&mut B, &mut Cx<B>)>;

/// Due timers fired in one poll. An interval fires once however late it is, so more than this many are due only
/// in an actor with more timers than this.
const TIMERS_A_POLL: usize = 256;

/// Finished tasks handled in one poll; as many as messages.
const TASKS_A_POLL: usize = 64;

/// An actor's view of itself and the world. Everything it starts here ends with this incarnation.
pub struct Cx<B: Behaviour> {
    mail: Arc<Mail<B>>,
    env: Env,
    timers: Timers<B>,
    /// The interval whose call runs now; taken off when it cancels itself.
    firing: Option<TimerId>,
    tasks: Tasks<Done<B>>,
    rng: Option<StreamRng>,
    incarnation: u32,
    stop: bool,
    pub(crate) batch: VecDeque<Envelope<B>>,
}

impl<B: Behaviour> Cx<B> {
    pub(crate) fn new(mail: Arc<Mail<B>>, env: Env) -> Self {
        Cx {
            mail,
            env,
            timers: Timers::new(),
            firing: None,
            tasks: Tasks::default(),
            rng: None,
            incarnation: 0,
            stop: false,
            batch: VecDeque::new(),
        }
    }

    // ---- time ----

    /// Monotonic time since an arbitrary start.
    #[inline]
    pub fn now(&self) -> Duration {
        self.env.now()
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.env.wall_ms()
    }

    /// Calls `f` once, after `delay`.
    pub fn after(
        &mut self,
        delay: Duration,
        f: impl FnOnce(&mut B, &mut Cx<B>) + 'static,
    ) -> TimerId {
        let at = self.now().saturating_add(delay);
        self.timers
            .add(at, TraceCx::current(), Call::Once(Box::new(f)))
    }

    /// Calls `f` every `period`, first after one. Periods missed by a busy actor are skipped, not made up for.
    pub fn every(
        &mut self,
        period: Duration,
        f: impl FnMut(&mut B, &mut Cx<B>) + 'static,
    ) -> TimerId {
        // Zero would be due for ever within one poll.
        let period = period.max(Duration::from_millis(1));
        let at = self.now().saturating_add(period);
        self.timers
            .add(at, TraceCx::NONE, Call::Every(period, Box::new(f)))
    }

    /// Cancels a timer, also an interval from inside its own call; false if it has fired or is unknown.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if self.firing == Some(timer) {
            self.firing = None;
            return true;
        }
        self.timers.cancel(timer)
    }

    pub(crate) fn timers_mut(&mut self) -> &mut Timers<B> {
        &mut self.timers
    }

    // ---- work ----

    /// Runs a future on this actor's thread and hands its output to `f`. It ends with this incarnation.
    pub fn spawn<F>(&mut self, future: F, f: impl FnOnce(&mut B, F::Output, &mut Cx<B>) + 'static)
    where
        F: Future + 'static,
    {
        let trace = TraceCx::current();
        let task = async move {
            let output = future.await;
            let done: Done<B> = Box::new(move |behaviour, cx| {
                trace.scope(|| f(behaviour, output, cx));
            });
            done
        };
        self.tasks.push(Box::pin(task));
    }

    /// Runs CPU work off this thread (inline in a simulation) and hands its result to `f`, after this handler.
    pub fn offload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        f: impl FnOnce(&mut B, Result<T, OffloadError>, &mut Cx<B>) + 'static,
    ) {
        let done = self.env.offload(work);
        self.spawn(done, f);
    }

    /// Asks another actor and hands the outcome to `f`, after this handler. A full mailbox is `Busy`.
    pub fn ask<M: Message>(
        &mut self,
        to: &Ref<M>,
        msg: M,
        timeout: Duration,
        f: impl FnOnce(&mut B, Result<M::Reply, AskError>, &mut Cx<B>) + 'static,
    ) {
        match to.try_ask(msg, timeout) {
            Ok(pending) => self.spawn(pending, f),
            Err(TellError::Full(_)) => self.spawn(std::future::ready(Err(AskError::Busy)), f),
            Err(TellError::Closed(_)) => self.spawn(std::future::ready(Err(AskError::Closed)), f),
        }
    }

    /// Calls `f` once, when the watched incarnation ends.
    pub fn watch(
        &mut self,
        whom: &impl Watchable,
        f: impl FnOnce(&mut B, Down, &mut Cx<B>) + 'static,
    ) {
        self.spawn(whom.watch(), f);
    }

    // ---- self ----

    /// This actor's address.
    pub fn me(&self) -> Addr<B> {
        Addr::new(Arc::clone(&self.mail))
    }

    /// Ends this incarnation after the present handler. Whether another follows is up to [`crate::Restart`].
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// Where this actor stands.
    pub fn path(&self) -> &Path {
        self.mail.path()
    }

    /// The trace that the present handler belongs to.
    pub fn trace(&self) -> TraceCx {
        TraceCx::current()
    }

    /// The node's environment.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// This actor's random stream, seeded anew in each incarnation.
    pub fn rng(&mut self) -> &mut StreamRng {
        let (env, mail, incarnation) = (&self.env, &self.mail, self.incarnation);
        self.rng
            .get_or_insert_with(|| env.actor_rng(mail.path().as_str(), incarnation))
    }

    /// Whether [`Cx::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stop
    }

    // ---- the adapter's side ----

    /// Runs a handler inside its trace, as a step of it if the trace is sampled.
    #[inline]
    pub(crate) fn enter_message(
        &mut self,
        trace: TraceCx,
        message: &'static str,
        handler: impl FnOnce(&mut Self),
    ) {
        if trace == TraceCx::NONE && B::BEGINS_TRACES.is_empty() {
            return handler(self);
        }
        self.enter_trace(trace, message, handler);
    }

    fn enter_trace(
        &mut self,
        trace: TraceCx,
        message: &'static str,
        handler: impl FnOnce(&mut Self),
    ) {
        let trace = match trace {
            TraceCx::NONE if B::BEGINS_TRACES.contains(&message) => self.env.begin_trace(),
            carried => carried,
        };
        if trace == TraceCx::NONE {
            return handler(self);
        }
        match self
            .env
            .step(trace, message, StepKind::Consumer, self.path())
        {
            Some(step) => step.scope(|| handler(self)),
            None => trace.scope(|| handler(self)),
        }
    }

    pub(crate) fn mail(&self) -> &Mail<B> {
        &self.mail
    }

    /// Fires what is due. False if some of it was left for the next poll.
    pub(crate) fn fire_due(&mut self, behaviour: &mut B) -> bool {
        if self.timers.next_due().is_none() {
            return true;
        }
        let now = self.now();
        for _ in 0..TIMERS_A_POLL {
            if self.stop {
                return true;
            }
            match self.timers.pop_due(now) {
                None => return true,
                Some(Due::Alarm(call)) => call(behaviour, self),
                Some(Due::Timer(id, timer)) => {
                    let (at, trace) = (timer.at(), timer.trace);
                    match timer.call {
                        Call::Once(f) => trace.scope(|| f(behaviour, self)),
                        Call::Every(period, mut f) => {
                            self.firing = Some(id);
                            trace.scope(|| f(behaviour, self));
                            if self.firing.take().is_some() {
                                let next = next_beat(at, period, now);
                                self.timers.again(id, next, trace, Call::Every(period, f));
                            }
                        }
                    }
                }
            }
        }
        false
    }

    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.timers.next_due()
    }

    /// Handles finished tasks. False if some may be left for the next poll.
    pub(crate) fn finish_tasks(&mut self, behaviour: &mut B, task: &mut Context<'_>) -> bool {
        for _ in 0..TASKS_A_POLL {
            let Some(done) = self.tasks.poll_next(task) else {
                return true;
            };
            done(behaviour, self);
            if self.stop {
                return true;
            }
        }
        false
    }

    pub(crate) fn tasks_len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn timers_len(&self) -> usize {
        self.timers.len()
    }

    /// The incarnation is over; its timers go. Returns its tasks, for the caller to drop where a panic is caught.
    pub(crate) fn reset(&mut self) -> impl Sized + use<B> {
        self.rng = None;
        self.stop = false;
        self.firing = None;
        self.incarnation = self.incarnation.wrapping_add(1);
        (
            std::mem::replace(&mut self.timers, Timers::new()),
            std::mem::take(&mut self.tasks),
        )
    }
}

/// Keeps an interval's beat unless it has been missed.
fn next_beat(at: Duration, period: Duration, now: Duration) -> Duration {
    let next = at.saturating_add(period);
    if next > now {
        next
    } else {
        now.saturating_add(period)
    }
}
