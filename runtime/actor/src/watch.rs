//! Learning that an actor's state is gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::path::Path;

/// An incarnation of an actor, or a link, has ended, and its state with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Who.
    pub path: Path,
    /// Why.
    pub reason: DownReason,
}

/// Why it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// It stopped, by itself or because it was asked to.
    Stopped,
    /// It panicked. Its address may come back with a fresh state.
    Panicked,
    /// It did not stop by its deadline.
    Killed,
    /// It was already gone, or had as many watchers as it may have.
    NotWatched,
    /// The link to its node is gone.
    LinkLost(String),
}

/// Something whose end can be watched.
pub trait Watchable {
    /// Resolves once, when the present incarnation ends.
    fn watch(&self) -> Watch;
}

/// Resolves with the [`Down`] of what it watches.
#[must_use = "a watch does nothing unless awaited"]
pub struct Watch {
    path: Path,
    rx: oneshot::Receiver<DownReason>,
}

impl Watch {
    /// A watch on `path`, and the end to report through; dropping that end reports `NotWatched`.
    pub fn pair(path: Path) -> (Watcher, Watch) {
        let (tx, rx) = oneshot::channel();
        (Watcher { tx }, Watch { path, rx })
    }
}

impl Future for Watch {
    type Output = Down;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Down> {
        Pin::new(&mut self.rx).poll(cx).map(|reason| Down {
            path: self.path.clone(),
            reason: reason.unwrap_or(DownReason::NotWatched),
        })
    }
}

/// The reporting end of a [`Watch`].
pub struct Watcher {
    tx: oneshot::Sender<DownReason>,
}

impl Watcher {
    /// Reports the end; a watcher that left meanwhile is no error.
    pub fn down(self, reason: DownReason) {
        drop(self.tx.send(reason));
    }

    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.tx.is_closed()
    }
}
