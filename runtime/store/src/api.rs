//! The trait that the floors above hold, and the future of a write.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::{Batch, Family, ReadError, SubmitError, WriteError};

/// Durable key-value storage in families, written by batches and read on snapshots.
pub trait Store: Send + Sync + 'static {
    /// Queues a batch. It settles after every batch submitted before it.
    fn submit(&self, batch: Batch) -> Result<Commit, SubmitError>;

    /// Runs `read` on one consistent snapshot of everything settled so far, on the caller's thread.
    fn view(
        &self,
        read: &mut dyn FnMut(&dyn View) -> Result<(), ReadError>,
    ) -> Result<(), ReadError>;

    /// Tells that nothing is left in these ranges of a family, about so many bytes, so that the room they took is given back soon; `all` is
    /// where work on that may be done, beside everything else. A store that gives it back by itself does nothing.
    fn give_back(&self, _family: Family, _emptied: (&[Span], u64), _all: Span) {}
}

/// Keys from the first, up to and without the second.
pub type Span = (Vec<u8>, Vec<u8>);

/// One snapshot of a store.
pub trait View {
    /// The value of `key`, if it has one.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Calls `visit(key, value)` for each key of the range in order until it breaks.
    fn scan(&self, family: Family, range: Scan<'_>, visit: &mut Visit<'_>)
    -> Result<(), ReadError>;
}

/// Takes one key and its value, and says whether the scan goes on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The keys `from..to` of a family, ascending.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    /// First key wanted.
    pub from: &'a [u8],
    /// First key not wanted.
    pub to: &'a [u8],
}

/// Resolves when the batch is durable, or has failed. Dropping it changes nothing: the batch is written all the same.
#[derive(Debug)]
#[must_use = "nothing is durable before this resolves to Ok"]
pub struct Commit(oneshot::Receiver<Result<(), WriteError>>);

/// The writing side of a [`Commit`].
#[derive(Debug)]
pub struct Settle(oneshot::Sender<Result<(), WriteError>>);

/// A commit and the handle that settles it, for implementors of [`Store`].
pub fn commit_channel() -> (Settle, Commit) {
    let (tx, rx) = oneshot::channel();
    (Settle(tx), Commit(rx))
}

impl Settle {
    /// Tells whoever still waits. A [`Settle`] dropped unused resolves its commit to [`WriteError::Closed`].
    pub fn settle(self, result: Result<(), WriteError>) {
        // A caller that stopped waiting is no error: the batch's fate does not depend on it.
        self.0.send(result).ok();
    }
}

impl Future for Commit {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|settled| settled.unwrap_or(Err(WriteError::Closed)))
    }
}

impl Commit {
    /// Waits on the current thread, which must run no tasks: for tools and tests.
    pub fn wait(self) -> Result<(), WriteError> {
        self.0.blocking_recv().unwrap_or(Err(WriteError::Closed))
    }
}
