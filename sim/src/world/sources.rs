//! Where randomness comes from while a world runs.

use std::cell::RefCell;

use pqcnet_actor::{Env, StreamRng, hosted};
use rand_core::Rng;

use super::{NodeName, tripwire};

/// The stream of (seed, node, actor, purpose). The same names give the same stream, whatever else there is.
pub fn stream_of(seed: u64, node: &NodeName, actor: &str, purpose: &str) -> StreamRng {
    StreamRng::named(seed, &[node.as_str(), actor, purpose])
}

thread_local! {
    /// What the world itself draws from, outside of any node: keys that nodes are made with.
    static LENT: RefCell<Option<StreamRng>> = const { RefCell::new(None) };
}

/// Runs `f`, whose entropy comes from `stream`.
pub(super) fn lend<T>(stream: StreamRng, f: impl FnOnce() -> T) -> T {
    let before = LENT.replace(Some(stream));
    let result = f();
    LENT.set(before);
    result
}

/// The entropy of cryptography on this thread.
pub(crate) fn fill(out: &mut [u8]) {
    let lent = LENT.with_borrow_mut(|lent| lent.as_mut().map(|stream| stream.fill_bytes(out)));
    if lent.is_some() || hosted::entropy(out) {
        return;
    }
    // Nobody of the world runs, so nobody knows whose randomness this is.
    out.fill(0);
    tripwire::trip("entropy drawn outside of any node");
}

/// The environment of the world itself.
pub(super) fn clock(seed: u64) -> Env {
    Env::simulated(seed, "world")
}
