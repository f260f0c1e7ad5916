//! Learning that an actor's state is gone.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::path::Path;

/// One incarnation of an actor: another one after each restart of the actor, and of its node. Opaque, and of no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(NonZeroU64);

impl Incarnation {
    /// From the number that [`Incarnation::number`] gave, here or on another node; 0 is none.
    pub fn from_number(number: u64) -> Option<Incarnation> {
        NonZeroU64::new(number).map(Incarnation)
    }

    /// Its number, to be carried elsewhere.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An incarnation of an actor, or a link, has ended, and its state with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Who.
    pub path: Path,
    /// Which of its incarnations; none where that was never known: a link, or an actor that had not begun.
    pub incarnation: Option<Incarnation>,
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

type End = (DownReason, Option<Incarnation>);

/// Resolves with the [`Down`] of what it watches.
#[must_use = "a watch does nothing unless awaited"]
pub struct Watch {
    path: Path,
    known: Option<Incarnation>,
    /// Where the incarnation will be told, if it is another node's.
    present: Option<oneshot::Receiver<Incarnation>>,
    rx: oneshot::Receiver<End>,
}

impl Watch {
    /// A watch on `path`, and the end to report through; dropping that end reports `NotWatched`. Which incarnation it is can
    /// be told later.
    pub fn pair(path: Path) -> (Watcher, Watch) {
        let (told, present) = oneshot::channel();
        let (mut watcher, mut watch) = Watch::pair_of(path, None);
        watcher.present = Some(told);
        watch.present = Some(present);
        (watcher, watch)
    }

    /// As [`Watch::pair`], the incarnation known.
    pub fn pair_of(path: Path, known: Option<Incarnation>) -> (Watcher, Watch) {
        let (tx, rx) = oneshot::channel();
        let watcher = Watcher {
            tx,
            known,
            present: None,
        };
        let watch = Watch {
            path,
            known,
            present: None,
            rx,
        };
        (watcher, watch)
    }

    /// The incarnation that is watched; on another node it is known once that node has answered. None: nothing is watched, or
    /// it is not known which.
    pub async fn incarnation(&mut self) -> Option<Incarnation> {
        if let Some(present) = self.present.take() {
            self.known = present.await.ok();
        }
        self.known
    }
}

impl Future for Watch {
    type Output = Down;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Down> {
        let known = self.known;
        Pin::new(&mut self.rx).poll(cx).map(|end| {
            let (reason, incarnation) = end.unwrap_or((DownReason::NotWatched, None));
            Down {
                path: self.path.clone(),
                incarnation: incarnation.or(known),
                reason,
            }
        })
    }
}

/// The reporting end of a [`Watch`].
pub struct Watcher {
    tx: oneshot::Sender<End>,
    known: Option<Incarnation>,
    present: Option<oneshot::Sender<Incarnation>>,
}

impl Watcher {
    /// Tells which incarnation is watched.
    pub fn present(&mut self, incarnation: Incarnation) {
        self.known = Some(incarnation);
        if let Some(present) = self.present.take() {
            let _left = present.send(incarnation);
        }
    }

    /// Reports the end; a watcher that left meanwhile is no error.
    pub fn down(self, reason: DownReason) {
        drop(self.tx.send((reason, self.known)));
    }

    /// Reports the end of this incarnation.
    pub(crate) fn ended(self, reason: DownReason, incarnation: Option<Incarnation>) {
        drop(self.tx.send((reason, incarnation)));
    }

    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.tx.is_closed()
    }

    /// Resolves once nobody waits any more.
    pub async fn abandoned(&mut self) {
        self.tx.closed().await;
    }
}
