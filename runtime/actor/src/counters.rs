//! What a node's actors lost, refused or survived, for its metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dead_letters: AtomicU64,
    pub(crate) bulk_dropped: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) killed: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        CountersSnapshot {
            dead_letters: self.dead_letters.load(Relaxed),
            bulk_dropped: self.bulk_dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            panics: self.panics.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            killed: self.killed.load(Relaxed),
        }
    }
}

/// Totals since the node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountersSnapshot {
    /// Messages that no actor handled: queued when their actor stopped for good, or sent after it had.
    pub dead_letters: u64,
    /// Bulk messages dropped because their lane was full.
    pub bulk_dropped: u64,
    /// Control and Request messages handed back because their lane was full.
    pub refused: u64,
    /// Incarnations that panicked.
    pub panics: u64,
    /// Incarnations started in the place of an ended one.
    pub restarts: u64,
    /// Actors cut off at their shutdown deadline.
    pub killed: u64,
}

pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
