//! The receiver's side of a mailbox: batches, parking, room for those who wait, and the end.

use std::collections::VecDeque;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::task::Waker;

use tokio::sync::oneshot;

use super::{Envelope, Inner, KEEP_CAPACITY, Life, Mail, Taken};
use crate::message::{Behaviour, Class};
use crate::reply::{Dropping, dropping};
use crate::watch::DownReason;

impl<B: Behaviour> Mail<B> {
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

    pub(super) fn grant(&self, lane: usize, inner: &mut Inner<B>, woken: &mut Vec<Waker>) {
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
        let incarnation = self.incarnation();
        let watchers = std::mem::take(&mut self.lock().watchers);
        for watcher in watchers {
            watcher.ended(reason.clone(), incarnation);
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
}
