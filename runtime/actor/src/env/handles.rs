//! What is handed to who has something done elsewhere: a task, offloaded work, a thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::{OffloadError, TaskError};

/// A task on the node's runtime.
pub struct Task<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> Task<T> {
    /// Ends it at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| {
            outcome.map_err(|error| {
                if error.is_panic() {
                    TaskError::Panicked
                } else {
                    TaskError::Aborted
                }
            })
        })
    }
}

/// The result of offloaded work.
pub struct Offloaded<T>(pub(super) oneshot::Receiver<Result<T, OffloadError>>);

impl<T> Future for Offloaded<T> {
    type Output = Result<T, OffloadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|outcome| outcome.unwrap_or(Err(OffloadError::Closed)))
    }
}

/// A thread of its own; dropping this detaches it.
#[derive(Debug)]
pub struct DedicatedThread(pub(super) std::thread::JoinHandle<()>);

impl DedicatedThread {
    /// Waits for its end; false if it panicked. Blocks, so never from an actor.
    pub fn join(self) -> bool {
        self.0.join().is_ok()
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
