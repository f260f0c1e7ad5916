//! What a supervisor tells a child, and what it hears back.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::path::Path;

/// The standing order of a child. A later one replaces an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    None,
    /// Begin an incarnation.
    Start,
    /// End this incarnation in its own time.
    Stop,
    /// End this incarnation now.
    Kill,
    /// End for good.
    Finish,
}

impl Order {
    pub(crate) fn from_u8(n: u8) -> Order {
        match n {
            1 => Order::Start,
            2 => Order::Stop,
            3 => Order::Kill,
            4 => Order::Finish,
            _ => Order::None,
        }
    }
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// It stopped, by itself or on order.
    Stopped,
    /// It was cut off.
    Killed,
    /// It panicked, or could not be placed; the text says how.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Started,
    Ended(EndReason),
}

/// One child's line to its supervisor.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) child: u64,
    pub(crate) tx: mpsc::Sender<(u64, Event)>,
    pub(crate) cut: CutOff,
}

/// Those of a whole tree that overran their deadline.
#[derive(Clone, Default)]
pub(crate) struct CutOff(Arc<Mutex<Vec<Path>>>);

/// More paths than these are counted, not named.
const NAMED: usize = 64;

impl CutOff {
    pub(crate) fn add(&self, path: Path) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paths.len() < NAMED {
            paths.push(path);
        }
    }

    pub(crate) fn take(&self) -> Vec<Path> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reports a child can have on the way: an incarnation's start and end, the same of a following one, and the last
/// end. So a channel of this many places a child never fills.
pub(crate) const REPORTS_A_CHILD: usize = 5;

impl Reporter {
    pub(crate) fn started(&self) {
        self.report(Event::Started);
    }

    pub(crate) fn ended(&self, reason: EndReason) {
        self.report(Event::Ended(reason));
    }

    fn report(&self, event: Event) {
        if let Err(error) = self.tx.try_send((self.child, event)) {
            // The supervisor is gone: its runtime is going down.
            tracing::debug!(child = self.child, %error, "report without a supervisor");
        }
    }
}
