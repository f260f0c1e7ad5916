//! Heap bytes of this process, less those of threads that opted out. One count a process: a test that reads it wants a
//! process of its own, which nextest gives each.
#![expect(
    unsafe_code,
    reason = "a counting allocator is an unsafe trait; it only adds and forwards"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize) {
    if !EXEMPT.get() {
        let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

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

/// From here on this thread's bytes are not counted.
pub(crate) fn exempt() {
    EXEMPT.set(true);
}

/// Bytes held now.
pub(crate) fn live() -> isize {
    LIVE.load(Ordering::Relaxed)
}

/// Forgets the peak.
pub(crate) fn restart() {
    PEAK.store(live(), Ordering::Relaxed);
}

/// Most bytes held since [`restart`].
pub(crate) fn peak() -> isize {
    PEAK.load(Ordering::Relaxed)
}
