//! Randomness from the engine's generator, which the operating system seeds.

/// Fills `out` with random bytes.
///
/// # Panics
/// If the operating system has no randomness to give: a node without it must not go on.
pub fn fill(out: &mut [u8]) {
    #[cfg(any(test, feature = "seeded"))]
    if crate::seeded::fill_from_this_thread(out) {
        return;
    }
    aws_lc_rs::rand::fill(out).expect("the operating system gives randomness");
}

/// `N` random bytes that need not stay secret (nonces, salts, ids).
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0u8; N];
    fill(&mut out);
    out
}
