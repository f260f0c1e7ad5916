//! Heap bytes, counted, for tests of what a peer can make a node hold.
//!
//! Whoever calls something of this crate runs on its allocator. It counts twice: for the [`thread`] that allocates, which suits
//! pure code and lets tests run side by side, and for the whole [`process`], less the threads that opted out; a test that
//! reads that count wants a process of its own, which nextest gives each. A reallocation counts as both buffers at once,
//! which is the worst that an allocator may do.
#![expect(
    unsafe_code,
    reason = "a counting allocator is an unsafe trait; it only adds and forwards"
)]

use std::alloc::{GlobalAlloc, Layout, System};

struct Counting;

// SAFETY: every call is forwarded to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    thread::count(bytes);
    process::count(bytes);
}

/// What one thread allocates.
pub mod thread {
    use std::cell::Cell;

    thread_local! {
        static LIVE: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
        static CALLS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count(bytes: isize) {
        LIVE.set(LIVE.get() + bytes);
        PEAK.set(PEAK.get().max(LIVE.get()));
        CALLS.set(CALLS.get() + usize::from(bytes > 0));
    }

    /// What some work cost.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cost {
        /// Most bytes held at once, beyond what was held before.
        pub peak: usize,
        /// How often it allocated.
        pub calls: usize,
    }

    /// Does the work, and says what it cost this thread.
    pub fn cost<T>(work: impl FnOnce() -> T) -> (T, Cost) {
        let (before, calls) = (LIVE.get(), CALLS.get());
        PEAK.set(before);
        let result = work();
        let peak = usize::try_from(PEAK.get() - before).unwrap_or_default();
        let calls = CALLS.get() - calls;
        (result, Cost { peak, calls })
    }
}

/// What the threads of this process allocate together.
pub mod process {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicIsize, Ordering};

    static LIVE: AtomicIsize = AtomicIsize::new(0);
    static PEAK: AtomicIsize = AtomicIsize::new(0);

    thread_local! {
        static EXEMPT: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn count(bytes: isize) {
        if !EXEMPT.get() {
            let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
    }

    /// From here on this thread's bytes are not counted.
    pub fn exempt() {
        EXEMPT.set(true);
    }

    /// Bytes held now.
    pub fn live() -> isize {
        LIVE.load(Ordering::Relaxed)
    }

    /// Forgets the peak.
    pub fn restart() {
        PEAK.store(live(), Ordering::Relaxed);
    }

    /// Most bytes held since [`restart`].
    pub fn peak() -> isize {
        PEAK.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: work that holds two buffers at once, one after it gave another back, and work that holds none.
    #[test]
    fn a_thread_is_counted() {
        let (kept, cost) = thread::cost(|| {
            drop(vec![0_u8; 5_000]);
            let first = vec![0_u8; 3_000];
            let second = vec![0_u8; 4_000];
            first.len() + second.len()
        });
        assert_eq!((kept, cost.peak, cost.calls), (7_000, 7_000, 3));
        let (sum, cost) = thread::cost(|| 1 + 1);
        assert_eq!((sum, cost.peak, cost.calls), (2, 0, 0));
    }

    // Scenario: another thread's bytes count for the process, until it opts out.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the threads are what is tested")]
    fn a_process_is_counted() {
        const LARGE: usize = 64 << 20;
        let before = process::live();
        let held = std::thread::spawn(|| vec![0_u8; LARGE]).join().unwrap();
        assert!(process::live() - before >= LARGE as isize);
        let with_one = process::live();
        process::restart();
        let other = std::thread::spawn(|| {
            process::exempt();
            vec![0_u8; LARGE]
        });
        let other = other.join().unwrap();
        assert!(process::peak() - with_one < LARGE as isize);
        assert_eq!(held.len() + other.len(), 2 * LARGE);
    }
}
