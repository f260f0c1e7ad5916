//! How an answer gets back: at once, later through a promise, or as the reason why there is none.
//!
//! ```text
//!   caller                      mailbox                       handler
//!   Pending <--- oneshot --- ReplyTo in the Letter ---> Reply::Now(v)     -> v
//!                                                  ---> Reply::Later      -> Promise, fulfilled from anywhere
//!                                                  ---> unwound by panic  -> Panicked
//! ```

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::env::monotonic;
use crate::error::{AskError, MAX_TIMEOUT};
use crate::message::Message;
use crate::timeout::Timeout;

/// What a handler returns.
pub enum Reply<M: Message> {
    /// The answer.
    Now(M::Reply),
    /// The answer follows through the [`Promise`] made with this.
    Later(Later<M>),
}

impl<M: Message> Reply<M> {
    /// A promise to keep, and the value to return from the handler meanwhile.
    pub fn later() -> (Promise<M>, Reply<M>) {
        let slot = Arc::new(Mutex::new(Slot::Open));
        (
            Promise {
                slot: Some(Arc::clone(&slot)),
            },
            Reply::Later(Later { slot }),
        )
    }

    pub(crate) fn settle(self, to: Option<ReplyTo<M>>) {
        match self {
            Reply::Now(value) => {
                if let Some(to) = to {
                    to.send(Ok(value));
                }
            }
            Reply::Later(later) => later.attach(to),
        }
    }
}

enum Slot<M: Message> {
    /// Neither side has come.
    Open,
    /// The promise was kept first.
    Fulfilled(M::Reply),
    /// The promise was dropped first.
    Broken(AskError),
    /// The handler returned first; where the answer goes. `None`: it was a tell.
    Attached(Option<ReplyTo<M>>),
    /// Both sides have met.
    Settled,
}

type Shared<M> = Arc<Mutex<Slot<M>>>;

/// The place that a later answer will be sent from. Made by [`Reply::later`].
pub struct Later<M: Message> {
    slot: Shared<M>,
}

impl<M: Message> Later<M> {
    fn attach(self, to: Option<ReplyTo<M>>) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match std::mem::replace(&mut *slot, Slot::Settled) {
            Slot::Open => {
                *slot = Slot::Attached(to);
                return;
            }
            Slot::Fulfilled(value) => Ok(value),
            Slot::Broken(error) => Err(error),
            // A `Reply` is returned once, so no second attach exists.
            Slot::Attached(_) | Slot::Settled => return,
        };
        drop(slot);
        if let Some(to) = to {
            to.send(outcome);
        }
    }
}

/// An answer still owed. Dropped unfulfilled, the caller gets `Panicked` if the actor panicked, else `Abandoned`.
#[must_use = "dropping a promise tells the caller that it was abandoned"]
pub struct Promise<M: Message> {
    slot: Option<Shared<M>>,
}

impl<M: Message> Promise<M> {
    /// Answers.
    pub fn fulfil(mut self, value: M::Reply) {
        if let Some(slot) = self.slot.take() {
            Self::settle(&slot, Ok(value));
        }
    }

    /// Whether the caller still waits. False after its timeout, and for a message that was only told.
    pub fn is_wanted(&self) -> bool {
        let Some(slot) = &self.slot else {
            return false;
        };
        match &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
            Slot::Open => true,
            Slot::Attached(Some(to)) => !to.is_abandoned(),
            Slot::Attached(None) | Slot::Fulfilled(_) | Slot::Broken(_) | Slot::Settled => false,
        }
    }

    fn settle(slot: &Shared<M>, outcome: Result<M::Reply, AskError>) {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Settled) {
            Slot::Open => {
                *slot = match outcome {
                    Ok(value) => Slot::Fulfilled(value),
                    Err(error) => Slot::Broken(error),
                };
            }
            Slot::Attached(to) => {
                drop(slot);
                if let Some(to) = to {
                    to.send(outcome);
                }
            }
            Slot::Fulfilled(_) | Slot::Broken(_) | Slot::Settled => {}
        }
    }
}

impl<M: Message> Drop for Promise<M> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            Self::settle(&slot, Err(why_dropped()));
        }
    }
}

/// Where one answer goes. Dropped without an answer, it sends the reason why it was dropped.
pub struct ReplyTo<M: Message> {
    tx: Option<oneshot::Sender<Result<M::Reply, AskError>>>,
    timeout: Duration,
}

impl<M: Message> ReplyTo<M> {
    /// A pair; the caller's end gives up after `timeout`.
    pub fn pair(timeout: Duration) -> (ReplyTo<M>, Pending<M::Reply>) {
        let timeout = timeout.min(MAX_TIMEOUT);
        let (tx, rx) = oneshot::channel();
        let reply_to = ReplyTo {
            tx: Some(tx),
            timeout,
        };
        let pending = Pending {
            rx: Some(rx),
            timeout: Timeout::at(monotonic() + timeout),
        };
        (reply_to, pending)
    }

    /// Answers; a caller that gave up meanwhile is no error.
    #[inline]
    pub fn send(mut self, outcome: Result<M::Reply, AskError>) {
        if let Some(tx) = self.tx.take() {
            drop(tx.send(outcome));
        }
    }

    /// The time the caller gave when it asked.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the caller no longer waits.
    pub fn is_abandoned(&self) -> bool {
        self.tx.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Resolves once the caller no longer waits: its timeout passed, or it dropped the ask.
    pub async fn abandoned(&mut self) {
        if let Some(tx) = &mut self.tx {
            tx.closed().await;
        }
    }
}

impl<M: Message> Drop for ReplyTo<M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(tx) = self.tx.take() {
            drop(tx.send(Err(why_dropped())));
        }
    }
}

thread_local! {
    static DROPPING: Cell<Option<Dropping>> = const { Cell::new(None) };
}

/// Why this thread drops an actor's belongings just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropping {
    Panicked,
    Closed,
}

/// Runs `f`; requests dropped in it tell their callers `why`.
pub(crate) fn dropping<T>(why: Dropping, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Dropping>);
    impl Drop for Restore {
        fn drop(&mut self) {
            DROPPING.with(|cell| cell.set(self.0));
        }
    }
    let _restore = Restore(DROPPING.with(|cell| cell.replace(Some(why))));
    f()
}

fn why_dropped() -> AskError {
    match DROPPING.with(Cell::get) {
        Some(Dropping::Panicked) => AskError::Panicked,
        Some(Dropping::Closed) => AskError::Closed,
        None if std::thread::panicking() => AskError::Panicked,
        None => AskError::Abandoned,
    }
}

/// An ask in flight. Dropping it abandons the answer, not the request.
#[must_use = "an ask does its waiting here"]
pub struct Pending<R> {
    rx: Option<oneshot::Receiver<Result<R, AskError>>>,
    timeout: Timeout,
}

impl<R> Future for Pending<R> {
    type Output = Result<R, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(rx) = &mut this.rx else {
            return Poll::Ready(Err(AskError::Abandoned));
        };
        if let Poll::Ready(outcome) = Pin::new(rx).poll(cx) {
            this.rx = None;
            return Poll::Ready(outcome.unwrap_or(Err(AskError::Abandoned)));
        }
        ready!(this.timeout.poll(cx));
        this.rx = None;
        Poll::Ready(Err(AskError::Timeout))
    }
}
