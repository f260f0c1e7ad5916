//! A deadline that costs little when it is not reached.
//!
//! Registering a tokio timer and taking it off again costs a third of an ask. So each thread keeps the sleeps of asks that
//! were answered in time, still registered, for later asks on the same runtime. Such a sleep may go off before its new
//! owner's deadline; it is moved on then, once, instead of at every ask.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep};

/// Sleeps kept by a thread. As many asks rarely wait at once in one thread's tasks, and more are only slower.
const SPARES: usize = 16;

pin_project! {
    struct Kept {
        runtime: Id,
        #[pin]
        sleep: Sleep,
        // Whom it wakes as it is registered now.
        waker: Waker,
    }
}

impl Kept {
    /// Whether it will wake this task by `deadline` as it is. The same task means the same runtime.
    #[inline]
    fn serves(&self, deadline: Instant, waker: &Waker) -> bool {
        self.waker.will_wake(waker) && self.sleep.deadline() <= deadline && !self.sleep.is_elapsed()
    }
}

/// One pointer: every ask takes one and gives it back.
type Spare = Pin<Box<Kept>>;

thread_local! {
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

/// Waits for a point in time, registering nothing until it is first polled.
pub(crate) struct Timeout {
    deadline: Instant,
    kept: Option<Spare>,
}

impl Timeout {
    pub(crate) fn at(deadline: Instant) -> Self {
        Timeout {
            deadline,
            kept: None,
        }
    }

    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.kept.is_none() {
            let spare = SPARE.with_borrow_mut(Vec::pop);
            if spare
                .as_ref()
                .is_some_and(|spare| spare.serves(self.deadline, cx.waker()))
            {
                self.kept = spare;
                return Poll::Pending;
            }
            self.kept = Some(fit(spare, self.deadline, cx.waker()));
        }
        self.poll_kept(cx)
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(kept) = &mut self.kept else {
            return Poll::Pending;
        };
        loop {
            let mut kept = kept.as_mut().project();
            if kept.sleep.as_mut().poll(cx).is_pending() {
                kept.waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            if kept.sleep.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            kept.sleep.reset(self.deadline);
        }
    }
}

/// The spare, if it is of this runtime, or else a new sleep; due no later than `deadline`.
fn fit(spare: Option<Spare>, deadline: Instant, waker: &Waker) -> Spare {
    let runtime = Handle::current().id();
    match spare {
        Some(mut kept) if kept.runtime == runtime => {
            if kept.sleep.deadline() > deadline {
                kept.as_mut().project().sleep.reset(deadline);
            }
            kept
        }
        Some(_) | None => Box::pin(Kept {
            runtime,
            sleep: tokio::time::sleep_until(deadline),
            waker: waker.clone(),
        }),
    }
}

impl Drop for Timeout {
    #[inline]
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take()
            && !kept.sleep.is_elapsed()
        {
            // The thread may be ending; then nothing is kept.
            let _kept: Result<(), _> = SPARE.try_with(|spares| {
                if let Ok(mut spares) = spares.try_borrow_mut()
                    && spares.len() < SPARES
                {
                    spares.push(kept);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::env::monotonic;

    fn kept_sleeps() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    async fn until(deadline: Instant) {
        let mut timeout = Timeout::at(deadline);
        std::future::poll_fn(|cx| timeout.poll(cx)).await;
    }

    // A sleep for one second is given back unused; then deadlines at 10 s, later than what it is registered for, and
    // at 10.5 s and 11 s: each is met exactly, and only unused sleeps are kept. Then in another runtime: the first one's
    // are not used there.
    #[test]
    fn deadlines_are_exact_with_sleeps_used_again() {
        for _ in 0..2 {
            crate::simulate(|| async {
                let start = monotonic();
                let second = Duration::from_secs(1);
                let mut unused = Timeout::at(start + second);
                assert!(futures::poll!(std::future::poll_fn(|cx| unused.poll(cx))).is_pending());
                drop(unused);
                assert_eq!(kept_sleeps(), 1);
                until(start + 10 * second).await;
                assert_eq!(monotonic() - start, 10 * second);
                // It went off for good, so it was not kept.
                assert_eq!(kept_sleeps(), 0);

                let mut late = Timeout::at(start + 20 * second);
                assert!(futures::poll!(std::future::poll_fn(|cx| late.poll(cx))).is_pending());
                drop(late);
                // Registered later than it is needed now.
                until(start + 11 * second).await;
                assert_eq!(monotonic() - start, 11 * second);

                let many: Vec<_> = (0..2 * SPARES)
                    .map(|_| Timeout::at(start + 30 * second))
                    .collect();
                for mut timeout in many {
                    assert!(
                        futures::poll!(std::future::poll_fn(|cx| timeout.poll(cx))).is_pending()
                    );
                    // All alive at once would need as many sleeps; one after another they share one.
                    drop(timeout);
                    assert_eq!(kept_sleeps(), 1);
                }
            });
        }
    }
}
