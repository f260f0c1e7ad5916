//! The bounded queue between callers and the writer thread.

use std::collections::VecDeque;

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
    closed: bool,
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

    pub(crate) fn push(&self, batch: Batch) -> Result<Commit, SubmitError> {
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
        state.bytes += bytes;
        state.waiting.push_back(Queued { batch, settle });
        drop(state);
        self.filled.notify_one();
        Ok(commit)
    }

    /// Fills `group` with the oldest batches; waits for one. False when closed and empty.
    pub(crate) fn take_group(&self, group: &mut Vec<Queued>) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
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
            drop(queue.push(batch(10)).unwrap());
        }
        let Err(SubmitError::Busy(back)) = queue.push(batch(7)) else {
            panic!("a fourth fitted")
        };
        assert_eq!(back.byte_len(), 7);
        let mut group = Vec::new();
        assert!(queue.take_group(&mut group));
        assert_eq!((group.len(), queue.waiting()), (3, 0));
        assert!(queue.push(back).is_ok());
        // by bytes
        assert!(queue.push(batch(93)).is_ok());
        assert!(matches!(queue.push(batch(1)), Err(SubmitError::Busy(_))));
        assert!(matches!(
            queue.push(batch(101)),
            Err(SubmitError::TooLarge(_))
        ));
    }

    // 30, 20 and 5 bytes wait and a group holds 40: the 30 go alone, then the rest; a batch above the limit goes alone too.
    #[test]
    fn groups_respect_their_byte_limit_and_order() {
        let queue = Queue::new(LIMITS);
        for bytes in [30, 20, 5] {
            drop(queue.push(batch(bytes)).unwrap());
        }
        let mut group = Vec::new();
        assert!(queue.take_group(&mut group));
        assert_eq!(
            group.iter().map(|q| q.batch.byte_len()).collect::<Vec<_>>(),
            [30]
        );
        group.clear();
        assert!(queue.take_group(&mut group));
        assert_eq!(
            group.iter().map(|q| q.batch.byte_len()).collect::<Vec<_>>(),
            [20, 5]
        );
        group.clear();
        drop(queue.push(batch(90)).unwrap());
        assert!(queue.take_group(&mut group));
        assert_eq!(group.len(), 1);
    }

    // Closed with one batch waiting: that one is still handed out, then the writer is told to end; callers get theirs back.
    #[test]
    fn close_drains_then_ends() {
        let queue = Queue::new(LIMITS);
        drop(queue.push(batch(1)).unwrap());
        queue.close();
        assert!(matches!(queue.push(batch(1)), Err(SubmitError::Closed(_))));
        let mut group = Vec::new();
        assert!(queue.take_group(&mut group));
        group.clear();
        assert!(!queue.take_group(&mut group));
    }
}
