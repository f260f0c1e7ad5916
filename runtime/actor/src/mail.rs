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

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use crate::counters::bump;
use crate::cx::Cx;
use crate::env::Env;
use crate::error::TellError;
use crate::message::{Behaviour, Class, Message, On};
use crate::order::{EndReason, Order, Reporter};
use crate::path::Path;
use crate::refs::{Carrier, Letter, Posting};
use crate::reply::{Dropping, dropping};
use crate::trace::Entered;
use crate::watch::{DownReason, Watch, Watcher};

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
        let Letter { msg, trace, reply } = *self;
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

    pub(crate) fn watch_incarnation(&self) -> Watch {
        let (watcher, watch) = Watch::pair(self.path().clone());
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

    // ---- the receiver ----

    /// Remembers the task to wake. Orders given before are seen by the look that follows.
    pub(crate) fn register(&self, waker: &Waker) {
        let inner = self.lock();
        let _first = self.task.set(waker.clone());
        drop(inner);
    }

    /// Moves up to `room` envelopes to the batch, which must be empty: all Control first, then Request and Bulk, of
    /// which Bulk gets an eighth while both wait. Grants room to waiters. Parks if nothing is left behind and nobody
    /// waits, so that the common short batch costs one lock: what comes while it is handled wakes the task again.
    pub(crate) fn take(&self, batch: &mut VecDeque<Envelope<B>>, room: usize) -> Taken {
        debug_assert!(batch.is_empty());
        let mut inner = self.lock();
        let nobody_waits = inner.lanes.iter().all(|lane| lane.waiters.is_empty());
        let [control, request, bulk] = &mut inner.lanes;
        let n = request.queue.len();
        let only_requests = control.queue.is_empty() && bulk.queue.is_empty();
        if nobody_waits && only_requests && (1..=room).contains(&n) {
            // The usual case: a few requests and nothing else.
            std::mem::swap(&mut request.queue, batch);
            let taken = u32::try_from(n).unwrap_or(u32::MAX);
            self.taken[Class::Request.index()].store(taken, Ordering::Relaxed);
            inner.parked = true;
            return Taken::Last;
        }
        self.control_waits.store(false, Ordering::Relaxed);
        let [control, request, bulk] = inner.lanes.each_ref().map(|lane| lane.queue.len());
        let controls = control.min(room);
        let requests = request.min(room - controls - bulk.min(room - controls).min(room / 8));
        let bulks = bulk.min(room - controls - requests);
        for (lane, n) in [controls, requests, bulks].into_iter().enumerate() {
            let queue = &mut inner.lanes[lane].queue;
            if n > 0 && n == queue.len() && batch.is_empty() {
                std::mem::swap(queue, batch);
            } else if n > 0 {
                batch.extend(queue.drain(..n));
            }
            self.taken[lane].store(u32::try_from(n).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        if control > controls {
            self.control_waits.store(true, Ordering::Relaxed);
        }
        let all = control + request + bulk == batch.len();
        if nobody_waits {
            inner.parked = all;
        } else {
            // Waiters are let in by the next take, so there must be one: unless there is nothing more to begin.
            inner.parked = batch.is_empty();
            self.grant_locked(inner);
            return self.taken(batch, false);
        }
        if batch.is_empty() {
            for lane in &mut inner.lanes {
                if lane.queue.capacity() > KEEP_CAPACITY {
                    lane.queue = VecDeque::new();
                }
            }
        }
        drop(inner);
        self.taken(batch, all)
    }

    fn taken(&self, batch: &VecDeque<Envelope<B>>, parked: bool) -> Taken {
        match batch.len() {
            0 => Taken::Parked,
            _ if parked => Taken::Last,
            _ => Taken::Some,
        }
    }

    #[inline]
    pub(crate) fn control_waits(&self) -> bool {
        self.control_waits.load(Ordering::Relaxed)
    }

    /// Puts waiting Control, up to `room`, in front of a batch that is under way.
    pub(crate) fn take_control(&self, batch: &mut VecDeque<Envelope<B>>, room: usize) {
        let lane = Class::Control.index();
        let mut inner = self.lock();
        let queue = &mut inner.lanes[lane].queue;
        let n = queue.len().min(room);
        self.control_waits.store(queue.len() > n, Ordering::Relaxed);
        // Those taken before are still in front of these.
        let begun_before = self.taken[lane].load(Ordering::Relaxed) as usize;
        for (i, envelope) in queue.drain(..n).enumerate() {
            batch.insert(begun_before + i, envelope);
        }
        let taken = u32::try_from(begun_before + n).unwrap_or(u32::MAX);
        self.taken[lane].store(taken, Ordering::Relaxed);
    }

    /// The front of the batch is about to be handled: its room is free.
    #[inline]
    pub(crate) fn begin(&self) {
        for taken in &self.taken {
            let n = taken.load(Ordering::Relaxed);
            if n > 0 {
                taken.store(n - 1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn grant(&self, lane: usize, inner: &mut Inner<B>, woken: &mut Vec<Waker>) {
        if inner.lanes[lane].waiters.is_empty() {
            return;
        }
        let mut room = self.bounds.of(lane).saturating_sub(self.used(lane, inner));
        let lane = &mut inner.lanes[lane];
        for waiter in lane.waiters.iter_mut().filter(|waiter| !waiter.granted) {
            if room == 0 {
                return;
            }
            room -= 1;
            waiter.granted = true;
            lane.granted += 1;
            woken.push(waiter.waker.clone());
        }
    }

    /// Gives room that came free to waiters: an incarnation that ended takes no more batches.
    pub(crate) fn grant_all(&self) {
        self.grant_locked(self.lock());
    }

    fn grant_locked(&self, mut inner: MutexGuard<'_, Inner<B>>) {
        let mut woken = Vec::new();
        for lane in Class::ALL {
            self.grant(lane.index(), &mut inner, &mut woken);
        }
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Somebody wants to know the actor's state.
    #[inline]
    pub(crate) fn take_describe(&self) -> Option<oneshot::Sender<String>> {
        if !self.describe_waits.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = self.lock();
        self.describe_waits.store(false, Ordering::Relaxed);
        inner.describe.take()
    }

    /// Tells every watcher.
    pub(crate) fn announce(&self, reason: &DownReason) {
        let watchers = std::mem::take(&mut self.lock().watchers);
        for watcher in watchers {
            watcher.down(reason.clone());
        }
    }

    /// The end for good: nothing is taken from now on, and what waits becomes dead letters.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        if std::mem::replace(&mut inner.closed, true) {
            return;
        }
        let mut waiting = Vec::new();
        let mut letters = Vec::new();
        for lane in &mut inner.lanes {
            letters.extend(std::mem::take(&mut lane.queue));
            waiting.extend(lane.waiters.iter().map(|waiter| waiter.waker.clone()));
        }
        inner.describe = None;
        drop(inner);
        self.stats.set_life(Life::Ended);
        self.announce(&DownReason::Stopped);
        waiting.into_iter().for_each(Waker::wake);
        self.bury(letters);
    }

    /// Counts letters that nobody will handle and tells their callers `Closed`.
    pub(crate) fn bury(&self, letters: impl IntoIterator<Item = Envelope<B>>) {
        dropping(Dropping::Closed, || {
            for letter in letters {
                self.dead_letter(letter.name());
                drop(letter);
            }
        });
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

impl<M: Message, B: On<M>> Carrier<M> for Mail<B> {
    #[inline]
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        let lane = M::CLASS.index();
        // Allocating before the lock keeps it short; a refusal, the rare case, pays for the box.
        let boxed = Box::new(letter);
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            self.dead_letter(M::NAME);
            return Err(TellError::Closed(*boxed));
        }
        if !self.has_room(lane, &inner) || inner.lanes[lane].has_queue() {
            drop(inner);
            return self.refuse(*boxed);
        }
        let wake = self.push(lane, &mut inner, boxed);
        drop(inner);
        if wake {
            self.wake();
        }
        Ok(())
    }

    fn post_when_free(&self, letter: Letter<M>) -> Posting<'_, M> {
        match self.try_post(letter) {
            Ok(()) => Box::pin(std::future::ready(Ok(()))),
            Err(TellError::Closed(letter)) => Box::pin(std::future::ready(Err(letter))),
            Err(TellError::Full(letter)) => Box::pin(Wait {
                mail: self,
                letter: Some(Box::new(letter)),
                ticket: None,
            }),
        }
    }

    fn free(&self) -> usize {
        Mail::free(self, M::CLASS)
    }

    fn path(&self) -> &Path {
        Mail::path(self)
    }

    fn watch(&self) -> Watch {
        self.watch_incarnation()
    }
}

impl<B: Behaviour> Mail<B> {
    #[cold]
    fn refuse<M: Message>(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        match M::CLASS {
            Class::Bulk if letter.reply.is_none() => {
                self.count(|counters| &counters.bulk_dropped);
                let _entered = Entered::new(letter.trace);
                tracing::trace!(actor = %self.path(), message = M::NAME, "bulk message dropped");
                Ok(())
            }
            Class::Control | Class::Request | Class::Bulk => {
                self.count(|counters| &counters.refused);
                Err(TellError::Full(letter))
            }
        }
    }

    /// As `post`, but a full Bulk lane is `Full` and nothing is counted: the sender will wait.
    fn try_post<M: Message>(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>>
    where
        B: On<M>,
    {
        let lane = M::CLASS.index();
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            self.dead_letter(M::NAME);
            return Err(TellError::Closed(letter));
        }
        if !self.has_room(lane, &inner) || inner.lanes[lane].has_queue() {
            return Err(TellError::Full(letter));
        }
        let wake = self.push(lane, &mut inner, Box::new(letter));
        drop(inner);
        if wake {
            self.wake();
        }
        Ok(())
    }
}

/// A sender that waits for room.
struct Wait<'a, M: Message, B: On<M>> {
    mail: &'a Mail<B>,
    letter: Option<Box<Letter<M>>>,
    ticket: Option<u64>,
}

impl<M: Message, B: On<M>> Future for Wait<'_, M, B> {
    type Output = Result<(), Letter<M>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let lane = M::CLASS.index();
        let mut guard = this.mail.lock();
        let inner = &mut *guard;
        let Some(letter) = this.letter.take() else {
            return Poll::Ready(Ok(()));
        };
        if inner.closed {
            this.ticket = None;
            drop(guard);
            this.mail.dead_letter(M::NAME);
            return Poll::Ready(Err(*letter));
        }
        let waiters = &mut inner.lanes[lane].waiters;
        let place = this
            .ticket
            .and_then(|ticket| waiters.iter().position(|waiter| waiter.ticket == ticket));
        let mut wake = false;
        let admitted = match place {
            Some(place) if waiters[place].granted => {
                waiters.remove(place);
                inner.lanes[lane].granted -= 1;
                this.ticket = None;
                true
            }
            Some(place) => {
                waiters[place].waker.clone_from(cx.waker());
                false
            }
            None if !inner.lanes[lane].has_queue() && this.mail.has_room(lane, inner) => true,
            None => {
                let ticket = inner.next_ticket;
                inner.next_ticket += 1;
                this.ticket = Some(ticket);
                inner.lanes[lane].waiters.push_back(Waiter {
                    ticket,
                    waker: cx.waker().clone(),
                    granted: false,
                });
                // A receiver that parked early would not look for waiters when its batch is done.
                wake = std::mem::take(&mut inner.parked);
                false
            }
        };
        if !admitted {
            this.letter = Some(letter);
            drop(guard);
            if wake {
                this.mail.wake();
            }
            return Poll::Pending;
        }
        let wake = this.mail.push(lane, inner, letter);
        drop(guard);
        if wake {
            this.mail.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl<M: Message, B: On<M>> Drop for Wait<'_, M, B> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let lane = M::CLASS.index();
        let mut woken = Vec::new();
        let mut guard = self.mail.lock();
        let inner = &mut *guard;
        let waiters = &mut inner.lanes[lane].waiters;
        let place = waiters.iter().position(|waiter| waiter.ticket == ticket);
        if let Some(waiter) = place.and_then(|place| waiters.remove(place))
            && waiter.granted
        {
            inner.lanes[lane].granted -= 1;
            self.mail.grant(lane, inner, &mut woken);
        }
        drop(guard);
        woken.into_iter().for_each(Waker::wake);
    }
}
