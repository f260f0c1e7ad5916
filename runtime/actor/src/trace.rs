//! The trace context that travels with every message.

use std::cell::Cell;

/// Which trace a piece of work belongs to. All zero: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceCx {
    /// The whole flow, constant from its first message on.
    pub trace_id: u128,
    /// The step that caused this one.
    pub span_id: u64,
    /// Whether spans of this trace are recorded.
    pub sampled: bool,
}

thread_local! {
    static CURRENT: Cell<TraceCx> = const { Cell::new(TraceCx::NONE) };
}

impl TraceCx {
    /// Belongs to no trace.
    pub const NONE: TraceCx = TraceCx {
        trace_id: 0,
        span_id: 0,
        sampled: false,
    };

    /// The context of the handler, or of the [`TraceCx::scope`], that runs on this thread now.
    #[inline]
    pub fn current() -> TraceCx {
        CURRENT.with(Cell::get)
    }

    /// Runs `f` with this as the current context, so messages sent in it carry it.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        let _entered = Entered::new(self);
        f()
    }

    /// The context of step `step` inside this one: same trace, a span id derived from both.
    pub fn child(self, step: u64) -> TraceCx {
        TraceCx {
            span_id: mix(self.span_id ^ mix(step)),
            ..self
        }
    }
}

/// Restores the previous context when dropped, also by a panic.
pub(crate) struct Entered(TraceCx);

impl Entered {
    #[inline]
    pub(crate) fn new(trace: TraceCx) -> Self {
        Entered(CURRENT.with(|cell| cell.replace(trace)))
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|cell| cell.set(self.0));
    }
}

/// The finaliser of SplitMix64: a bijection, so distinct steps of one span keep distinct ids.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A scope inside a scope: the inner one wins, the outer one returns, and a panic restores it too.
    #[test]
    fn scopes_nest_and_survive_a_panic() {
        let outer = TraceCx {
            trace_id: 7,
            span_id: 1,
            sampled: true,
        };
        outer.scope(|| {
            let inner = outer.child(3);
            assert_eq!(inner.trace_id, 7);
            assert_ne!(inner.span_id, outer.span_id);
            assert_ne!(inner.span_id, outer.child(4).span_id);
            inner.scope(|| assert_eq!(TraceCx::current(), inner));
            assert_eq!(TraceCx::current(), outer);
            let caught = std::panic::catch_unwind(|| inner.scope(|| panic!("inside a scope")));
            assert!(caught.is_err());
            assert_eq!(TraceCx::current(), outer);
        });
        assert_eq!(TraceCx::current(), TraceCx::NONE);
    }
}
