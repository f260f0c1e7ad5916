//! The offload pool: a bounded queue before a few threads.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::OffloadError;

/// Jobs that may wait. At some 60 us a signature check, this is an eighth of a second of one core's work.
pub(crate) const QUEUE: usize = 2_048;

type Job = Box<dyn FnOnce() + Send>;

/// Threads start when work first waits for one, and end when the pool is dropped and its queue empty.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    max_threads: usize,
    queue: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(max_threads: usize, queue: usize) -> Self {
        Pool {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                ready: Condvar::new(),
                max_threads: max_threads.max(1),
                queue,
            }),
        }
    }

    pub(crate) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<Result<T, OffloadError>> {
        let (tx, rx) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.jobs.len() >= self.shared.queue {
            let limit = self.shared.queue;
            drop(tx.send(Err(OffloadError::Busy { limit })));
            return rx;
        }
        state.jobs.push_back(Box::new(move || {
            let outcome = run_caught(work);
            drop(tx.send(outcome));
        }));
        let grow = state.idle < state.jobs.len() && state.threads < self.shared.max_threads;
        if grow {
            state.threads += 1;
        }
        drop(state);
        if grow {
            self.shared.start_thread();
        }
        self.shared.ready.notify_one();
        rx
    }
}

/// Runs `work`, turning a panic into an error.
pub(crate) fn run_caught<T>(work: impl FnOnce() -> T) -> Result<T, OffloadError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| OffloadError::Panicked)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the pool behind Cx::offload: bounded, and stopped by its Drop"
    )]
    fn start_thread(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("offload".into())
            .spawn(move || shared.work());
        if let Err(error) = started {
            tracing::error!(%error, "no thread for the offload pool");
            let mut state = self.lock();
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody will ever run these; dropping them answers `Closed`.
                state.jobs.clear();
            }
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self
                    .ready
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    // One thread, a queue of two: the thread is held inside the first job, two more wait, the fourth is refused,
    // and after release all three have run. A job that panics answers so and the thread lives on.
    #[test]
    fn the_queue_is_bounded_and_panics_are_answers() {
        let pool = Pool::new(1, 2);
        let (hold, held) = sync_channel::<()>(0);
        let (entered_tx, entered) = sync_channel::<()>(1);
        let first = pool.submit(move || {
            entered_tx.send(()).unwrap();
            held.recv().unwrap();
            1
        });
        entered.recv().unwrap();
        let second = pool.submit(|| -> i32 { panic!("offloaded work panics") });
        let third = pool.submit(|| 3);
        let fourth = pool.submit(|| 4);
        assert_eq!(
            fourth.blocking_recv().unwrap(),
            Err(OffloadError::Busy { limit: 2 })
        );
        hold.send(()).unwrap();
        assert_eq!(first.blocking_recv().unwrap(), Ok(1));
        assert_eq!(second.blocking_recv().unwrap(), Err(OffloadError::Panicked));
        assert_eq!(third.blocking_recv().unwrap(), Ok(3));
    }

    // The pool is dropped with work queued: it is still done, then the threads end.
    #[test]
    fn a_dropped_pool_finishes_its_queue() {
        let pool = Pool::new(2, 100);
        let done: Vec<_> = (0..50).map(|i| pool.submit(move || i)).collect();
        drop(pool);
        for (i, rx) in done.into_iter().enumerate() {
            assert_eq!(rx.blocking_recv().unwrap(), Ok(i));
        }
    }
}
