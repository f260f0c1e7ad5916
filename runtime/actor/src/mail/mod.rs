//! An actor's mailbox: three bounded lanes under one lock.
//!
//! ```text
//!   post ----------------------> lane.queue --take, at most 64--> batch in the shell --begin--> handler
//!   post_when_free -> waiter -> grant ^
//!
//!   queued + taken but not begun + granted <= bound, exactly, whoever sends from wherever
//! ```
//!
//! A lane's room is counted from the handler's start, so an actor with a bound of one can tell itself something. The
//! receiver parks under the same lock that senders push under, so no wake-up is lost. Waiting senders are granted
//! room in order, when the receiver takes its next batch.

mod receive;
mod send;

#[cfg(test)]
mod model;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio::sync::oneshot;

use crate::counters::bump;
use crate::cx::Cx;
use crate::env::Env;
use crate::error::AskError;
use crate::message::{Behaviour, Class, Message, On};
use crate::order::{EndReason, Order, Reporter};
use crate::path::Path;
use crate::refs::Letter;
use crate::reply::ReplyTo;
use crate::watch::{DownReason, Incarnation, Watch, Watcher};

/// Watchers of one actor; more are told `NotWatched`. Sized for a hub watched by every session of a node.
pub(crate) const MAX_WATCHERS: usize = 16_384;

/// An idle lane gives back a buffer larger than this many messages.
const KEEP_CAPACITY: usize = 128;

/// How many messages of each class may wait in a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Control messages. Never dropped: a full lane hands them back.
    pub control: u32,
    /// Request messages.
    pub request: u32,
    /// Bulk messages.
    pub bulk: u32,
}

impl Default for Bounds {
    /// 64 Control, since few know an actor well enough to control it; 1,024 of the others.
    fn default() -> Self {
        Bounds {
            control: 64,
            request: 1_024,
            bulk: 1_024,
        }
    }
}

impl Bounds {
    /// The default, with another bound for requests.
    pub fn request(request: u32) -> Self {
        Bounds {
            request,
            ..Bounds::default()
        }
    }

    fn of(&self, lane: usize) -> usize {
        // A bound of zero would make an actor unreachable in that class without anybody learning why.
        let bound = match lane {
            0 => self.control,
            1 => self.request,
            _ => self.bulk,
        };
        bound.max(1) as usize
    }
}

/// A message in a queue, its type forgotten.
pub(crate) trait Deliver<B: Behaviour>: Send {
    fn deliver(self: Box<Self>, behaviour: &mut B, cx: &mut Cx<B>);
    fn name(&self) -> &'static str;
}

pub(crate) type Envelope<B> = Box<dyn Deliver<B>>;

impl<M: Message, B: On<M>> Deliver<B> for Letter<M> {
    #[inline]
    fn deliver(self: Box<Self>, behaviour: &mut B, cx: &mut Cx<B>) {
        let Letter {
            msg,
            trace,
            reply,
            only,
        } = *self;
        if only.is_some() && only != cx.mail().incarnation() {
            cx.mail().stale::<M>(only, reply);
            return;
        }
        #[cfg(any(test, feature = "simulation"))]
        cx.env().handles(cx.path(), &msg);
        cx.enter_message(trace, M::NAME, |cx| {
            // `reply` is dropped by a panic's unwinding, which tells the caller.
            behaviour.on(msg, cx).settle(reply);
        });
    }

    fn name(&self) -> &'static str {
        M::NAME
    }
}

/// What an operator sees of an actor's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Not started yet.
    Waiting,
    /// Handling messages.
    Running,
    /// Asked to stop and not done.
    Draining,
    /// Between incarnations: backing off, or held by its supervisor.
    Held,
    /// Gone for good.
    Ended,
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) handled: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    pub(crate) restarts: AtomicU32,
    life: AtomicU8,
}

impl Stats {
    pub(crate) fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Relaxed);
    }

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Relaxed) {
            0 => Life::Waiting,
            1 => Life::Running,
            2 => Life::Draining,
            3 => Life::Held,
            _ => Life::Ended,
        }
    }
}

/// Where the actor was put, known once its tree starts.
pub(crate) struct Home {
    pub(crate) path: Path,
    pub(crate) env: Env,
    pub(crate) reporter: Reporter,
}

/// The mailbox and everything else of an actor that other threads may touch.
pub(crate) struct Mail<B: Behaviour> {
    name: Path,
    home: OnceLock<Home>,
    bounds: Bounds,
    inner: Mutex<Inner<B>>,
    /// Control waits; read before every message, so that it never waits for more than one.
    control_waits: AtomicBool,
    describe_waits: AtomicBool,
    /// In the receiver's batch and not begun, by lane. Only the receiver writes.
    taken: [AtomicU32; 3],
    order: AtomicU8,
    /// The present incarnation, or between two the one that ended; 0 before the first.
    incarnation: AtomicU64,
    /// Wakes the receiver's task, of which there is one in an actor's life.
    task: OnceLock<Waker>,
    pub(crate) stats: Stats,
}

struct Inner<B: Behaviour> {
    lanes: [Lane<B>; 3],
    closed: bool,
    parked: bool,
    next_ticket: u64,
    watchers: Vec<Watcher>,
    describe: Option<oneshot::Sender<String>>,
}

struct Lane<B: Behaviour> {
    queue: VecDeque<Envelope<B>>,
    /// Room promised to waiters who have not come for it yet.
    granted: usize,
    waiters: VecDeque<Waiter>,
}

impl<B: Behaviour> Lane<B> {
    /// Whether somebody waits without a grant. Grants go in order, so the last in line tells. Whoever comes later
    /// must not pass them.
    #[inline]
    fn has_queue(&self) -> bool {
        self.waiters.back().is_some_and(|waiter| !waiter.granted)
    }
}

struct Waiter {
    ticket: u64,
    waker: Waker,
    granted: bool,
}

/// What the receiver found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A batch, and there may be more after it.
    Some,
    /// A batch, and the receiver is parked already: the next sender wakes it.
    Last,
    /// Nothing; the receiver is parked.
    Parked,
}

impl<B: Behaviour> Mail<B> {
    pub(crate) fn new(name: &str, bounds: Bounds) -> Arc<Self> {
        let lane = || Lane {
            queue: VecDeque::new(),
            granted: 0,
            waiters: VecDeque::new(),
        };
        Arc::new(Mail {
            name: Path::root(name),
            home: OnceLock::new(),
            bounds,
            inner: Mutex::new(Inner {
                lanes: [lane(), lane(), lane()],
                closed: false,
                parked: false,
                next_ticket: 0,
                watchers: Vec::new(),
                describe: None,
            }),
            control_waits: AtomicBool::new(false),
            describe_waits: AtomicBool::new(false),
            taken: Default::default(),
            order: AtomicU8::new(Order::None as u8),
            incarnation: AtomicU64::new(0),
            task: OnceLock::new(),
            stats: Stats::default(),
        })
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        // Nothing panics while it holds this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settle_in(&self, home: Home) {
        // A second start of the same tree is impossible: `start` takes it by value.
        drop(self.home.set(home));
    }

    pub(crate) fn home(&self) -> Option<&Home> {
        self.home.get()
    }

    pub(crate) fn path(&self) -> &Path {
        self.home().map_or(&self.name, |home| &home.path)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn count(&self, counter: impl Fn(&crate::counters::Counters) -> &AtomicU64) {
        if let Some(home) = self.home() {
            bump(counter(home.env.count()));
        }
    }

    // ---- senders ----

    #[inline]
    fn has_room(&self, lane: usize, inner: &Inner<B>) -> bool {
        self.used(lane, inner) < self.bounds.of(lane)
    }

    #[inline]
    fn used(&self, lane: usize, inner: &Inner<B>) -> usize {
        // `taken` only falls outside the lock, so a stale value is too high and never lets one in too many.
        let taken = self.taken[lane].load(Ordering::Relaxed) as usize;
        inner.lanes[lane].queue.len() + inner.lanes[lane].granted + taken
    }

    /// Queues and returns whether to wake the receiver, after unlocking.
    #[inline]
    #[must_use]
    fn push(&self, lane: usize, inner: &mut Inner<B>, envelope: Envelope<B>) -> bool {
        inner.lanes[lane].queue.push_back(envelope);
        if lane == Class::Control.index() {
            self.control_waits.store(true, Ordering::Relaxed);
        }
        std::mem::take(&mut inner.parked)
    }

    #[inline]
    fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// How many of `class` wait, taken but not begun included.
    pub(crate) fn depth(&self, class: Class) -> usize {
        let inner = self.lock();
        let lane = class.index();
        inner.lanes[lane].queue.len() + self.taken[lane].load(Ordering::Relaxed) as usize
    }

    fn free(&self, class: Class) -> usize {
        let inner = self.lock();
        if inner.closed {
            return 0;
        }
        let lane = class.index();
        self.bounds.of(lane).saturating_sub(self.used(lane, &inner))
    }

    fn dead_letter(&self, message: &'static str) {
        self.count(|counters| &counters.dead_letters);
        tracing::debug!(actor = %self.path(), message, "dead letter");
    }

    #[inline]
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        Incarnation::from_number(self.incarnation.load(Ordering::Acquire))
    }

    /// Another incarnation begins.
    pub(crate) fn begin_incarnation(&self, number: u64) {
        self.incarnation.store(number.max(1), Ordering::Release);
    }

    /// A letter was for an incarnation that is over.
    #[cold]
    fn stale<M: Message>(&self, only: Option<Incarnation>, reply: Option<ReplyTo<M>>) {
        self.dead_letter(M::NAME);
        if let (Some(reply), Some(held)) = (reply, only) {
            let present = self.incarnation();
            reply.send(Err(AskError::Stale { held, present }));
        }
    }

    pub(crate) fn watch_incarnation(&self) -> Watch {
        let (watcher, watch) = Watch::pair_of(self.path().clone(), self.incarnation());
        let mut inner = self.lock();
        if inner.watchers.len() == inner.watchers.capacity() {
            inner.watchers.retain(|watcher| !watcher.is_abandoned());
        }
        if inner.closed || inner.watchers.len() >= MAX_WATCHERS {
            drop(inner);
            watcher.down(DownReason::NotWatched);
        } else {
            inner.watchers.push(watcher);
        }
        watch
    }

    // ---- the supervisor ----

    /// Replaces the standing order; the receiver looks at it whenever it is polled.
    pub(crate) fn set_order(&self, order: Order) {
        let before = self.order.swap(order as u8, Ordering::AcqRel);
        if before == Order::Start as u8 && matches!(order, Order::Stop | Order::Kill) {
            // The incarnation to be stopped never began; nobody else will say that it is over.
            self.obeyed(order);
            self.report_ended(EndReason::Stopped);
            return;
        }
        // The lock orders this against `register`: either the task is seen here, or the order there.
        drop(self.lock());
        self.wake();
    }

    #[inline]
    pub(crate) fn order(&self) -> Order {
        Order::from_u8(self.order.load(Ordering::Acquire))
    }

    /// Takes `order` off; false if another has replaced it, which stays and is seen at the next look.
    pub(crate) fn obeyed(&self, order: Order) -> bool {
        let none = Order::None as u8;
        self.order
            .compare_exchange(order as u8, none, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn report_started(&self) {
        if let Some(home) = self.home() {
            home.reporter.started();
        }
    }

    pub(crate) fn report_ended(&self, reason: EndReason) {
        if let Some(home) = self.home() {
            home.reporter.ended(reason);
        }
    }

    pub(crate) fn ask_description(&self) -> oneshot::Receiver<String> {
        let (tx, rx) = oneshot::channel();
        let mut inner = self.lock();
        inner.describe = Some(tx);
        self.describe_waits.store(true, Ordering::Relaxed);
        drop(inner);
        self.wake();
        rx
    }
}
