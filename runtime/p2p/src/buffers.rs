//! Large buffers that streams borrow while bytes are moving and give back when idle.
//!
//! A stream that kept its own would hold 200 KB a connection; one that allocated anew each time would clear 132 KB
//! for every burst. Buffers here keep their contents' length, so nothing is cleared twice. What they held stays in
//! them until the next borrower overwrites it: plaintext of one peer never reaches another, since a stream only reads
//! what it has itself written into the buffer.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// Buffers of one size that are free now.
#[derive(Clone, Debug)]
pub struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    size: usize,
    keep: usize,
}

impl Buffers {
    /// Buffers of `size` bytes, of which at most `keep` lie idle.
    pub fn new(size: usize, keep: usize) -> Buffers {
        Buffers {
            free: Arc::default(),
            size,
            keep,
        }
    }

    /// Buffers that all of a process share: a simulation runs thousands of nodes on one thread, and few bytes move at once.
    /// The first call says how large they are and how many lie idle.
    pub fn of_the_process(size: usize, keep: usize) -> Buffers {
        static SHARED: OnceLock<Buffers> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Buffers::new(size, keep));
        debug_assert_eq!(shared.size, size);
        shared.clone()
    }

    /// A buffer of `size` bytes with arbitrary contents.
    pub fn take(&self) -> Vec<u8> {
        self.free.lock().pop().unwrap_or_else(|| vec![0; self.size])
    }

    /// Gives a buffer back; one over the idle limit is freed.
    pub fn give(&self, buffer: Vec<u8>) {
        debug_assert_eq!(buffer.len(), self.size);
        let mut free = self.free.lock();
        if free.len() < self.keep {
            free.push(buffer);
        }
    }
}
