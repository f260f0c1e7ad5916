//! The machine's wall clock, for commands that run before any runtime and for the ages of keys.

/// Milliseconds since the Unix epoch; 0 on a machine whose clock stands before it.
#[expect(
    clippy::disallowed_methods,
    reason = "a command at the terminal has no Env, and nothing simulates it"
)]
pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
