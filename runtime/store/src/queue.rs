//! The bounded queue between callers and the writer thread.
//!
//! ```text
//!   in a hurry ──▶ taken at once, with all that waits
//!   may wait   ──▶ taken with the next that is in a hurry, or when its patience is over
//! ```
//!
//! All leave in the order in which they came.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::{Batch, Commit, Settle, SubmitError, commit_channel};

/// Limits of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Batches waiting.
    pub batches: usize,
    /// Bytes waiting.
    pub bytes: usize,
    /// Bytes taken for one group; at least one batch is always taken.
    pub group_bytes: usize,
}

/// A batch and whom to tell.
pub(crate) struct Queued {
    pub batch: Batch,
    pub settle: Settle,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Queued>,
    bytes: usize,
    /// When the first patience of those that came since it was empty is over, that of one in a hurry at once. What a group leaves over is due, too.
    due: Duration,
    closed: bool,
}

impl State {
    /// What waits is to be written, or for how long it may wait still.
    fn ripe(&self, now: Duration) -> Result<(), Duration> {
        if self.closed || now >= self.due {
            return Ok(());
        }
        Err(self.due - now)
    }
}

pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    filled: Condvar,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            filled: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, now: Duration, batch: Batch) -> Result<Commit, SubmitError> {
        let bytes = batch.byte_len();
        if bytes > self.limits.bytes {
            return Err(SubmitError::TooLarge(batch));
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(SubmitError::Closed(batch));
        }
        if state.waiting.len() >= self.limits.batches || state.bytes + bytes > self.limits.bytes {
            return Err(SubmitError::Busy(batch));
        }
        let (settle, commit) = commit_channel();
        let due = now.saturating_add(batch.patience());
        state.due = match state.waiting.is_empty() {
            true => due,
            false => state.due.min(due),
        };
        state.bytes += bytes;
        state.waiting.push_back(Queued { batch, settle });
        drop(state);
        self.filled.notify_one();
        Ok(commit)
    }

    /// Fills `group` with the oldest batches; waits for one that is to be written. False when closed and empty.
    pub(crate) fn take_group(&self, now: impl Fn() -> Duration, group: &mut Vec<Queued>) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.waiting.is_empty() {
                if state.closed {
                    return false;
                }
                self.filled.wait(&mut state);
                continue;
            }
            match state.ripe(now()) {
                Ok(()) => break,
                Err(more) => {
                    self.filled.wait_for(&mut state, more);
                }
            }
        }
        let mut taken = 0;
        while let Some(next) = state.waiting.front() {
            let bytes = next.batch.byte_len();
            if !group.is_empty() && taken + bytes > self.limits.group_bytes {
                break;
            }
            taken += bytes;
            state.bytes -= bytes;
            group.extend(state.waiting.pop_front());
        }
        true
    }

    /// Takes no more; what waits is still written.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Takes no more, and nobody writes what waits: their commits resolve to closed.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    const LIMITS: Limits = Limits {
        batches: 3,
        bytes: 100,
        group_bytes: 40,
    };

    const NOW: Duration = Duration::from_secs(1);

    fn batch(bytes: usize) -> Batch {
        let mut batch = Batch::new();
        batch.put(Family("f"), b"", &vec![0; bytes]);
        batch
    }

    // Three fit by count; the fourth comes back whole, and fits again once a group was taken.
    #[test]
    fn bounds_are_exact_and_refused_batches_come_back() {
        let queue = Queue::new(LIMITS);
        for _ in 0..3 {
            drop(queue.push(NOW, batch(10)).unwrap());
        }
        let Err(SubmitError::Busy(back)) = queue.push(NOW, batch(7)) else {
            panic!("a fourth fitted")
        };
        assert_eq!(back.byte_len(), 7);
        let mut group = Vec::new();
        assert!(queue.take_group(|| NOW, &mut group));
        assert_eq!((group.len(), queue.waiting()), (3, 0));
        assert!(queue.push(NOW, back).is_ok());
        // by bytes
        assert!(queue.push(NOW, batch(93)).is_ok());
        assert!(matches!(
            queue.push(NOW, batch(1)),
            Err(SubmitError::Busy(_))
        ));
        assert!(matches!(
            queue.push(NOW, batch(101)),
            Err(SubmitError::TooLarge(_))
        ));
    }

    // 30, 20 and 5 bytes wait and a group holds 40: the 30 go alone, then the rest; a batch above the limit goes alone too.
    #[test]
    fn groups_respect_their_byte_limit_and_order() {
        let queue = Queue::new(LIMITS);
        for bytes in [30, 20, 5] {
            drop(queue.push(NOW, batch(bytes)).unwrap());
        }
        let mut group = Vec::new();
        assert!(queue.take_group(|| NOW, &mut group));
        assert_eq!(
            group.iter().map(|q| q.batch.byte_len()).collect::<Vec<_>>(),
            [30]
        );
        group.clear();
        assert!(queue.take_group(|| NOW, &mut group));
        assert_eq!(
            group.iter().map(|q| q.batch.byte_len()).collect::<Vec<_>>(),
            [20, 5]
        );
        group.clear();
        drop(queue.push(NOW, batch(90)).unwrap());
        assert!(queue.take_group(|| NOW, &mut group));
        assert_eq!(group.len(), 1);
    }

    // Closed with one batch waiting: that one is still handed out, then the writer is told to end; callers get theirs back.
    #[test]
    fn close_drains_then_ends() {
        let queue = Queue::new(LIMITS);
        drop(queue.push(NOW, batch(1)).unwrap());
        queue.close();
        assert!(matches!(
            queue.push(NOW, batch(1)),
            Err(SubmitError::Closed(_))
        ));
        let mut group = Vec::new();
        assert!(queue.take_group(|| NOW, &mut group));
        group.clear();
        assert!(!queue.take_group(|| NOW, &mut group));
    }

    fn patient(bytes: usize, patience: Duration) -> Batch {
        let mut batch = batch(bytes);
        batch.may_wait(patience);
        batch
    }

    fn sizes(group: &[Queued]) -> Vec<usize> {
        group.iter().map(|q| q.batch.byte_len()).collect()
    }

    // Two that may wait, an hour and a minute, and one that does not: all three go at once and in order. One that may wait goes alone
    // when its time has come, or when the queue is closed.
    #[test]
    fn who_may_wait_goes_with_the_next() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let queue = Queue::new(LIMITS);
        let mut group = Vec::new();
        drop(queue.push(NOW, patient(1, hour)).unwrap());
        drop(queue.push(NOW, patient(2, minute)).unwrap());
        assert_eq!(queue.state.lock().ripe(NOW + minute / 2), Err(minute / 2));
        drop(queue.push(NOW, batch(3)).unwrap());
        assert!(queue.take_group(|| NOW, &mut group));
        assert_eq!(sizes(&group), [1, 2, 3]);
        group.clear();
        drop(queue.push(NOW, patient(4, minute)).unwrap());
        assert_eq!(queue.state.lock().ripe(NOW), Err(minute));
        assert!(queue.take_group(|| NOW + minute, &mut group));
        assert_eq!(sizes(&group), [4]);
        group.clear();
        drop(queue.push(NOW, patient(5, hour)).unwrap());
        queue.close();
        assert!(queue.take_group(|| NOW, &mut group));
        assert_eq!(sizes(&group), [5]);
    }

    // A group holds 40 bytes, and 30, 20 and 25 wait, of which the first and the last may: each goes alone, and the last at once, since
    // it was left over.
    #[test]
    fn what_does_not_fit_goes_next() {
        let queue = Queue::new(LIMITS);
        let hour = Duration::from_secs(3600);
        let mut group = Vec::new();
        drop(queue.push(NOW, patient(30, hour)).unwrap());
        drop(queue.push(NOW, batch(20)).unwrap());
        drop(queue.push(NOW, patient(25, hour)).unwrap());
        for expected in [30, 20, 25] {
            assert!(queue.take_group(|| NOW, &mut group));
            assert_eq!(sizes(&group), [expected]);
            group.clear();
        }
    }
}
