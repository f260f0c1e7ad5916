//! When channels that crowd out others have their next share of a write. Spec: docs/spec/relay.md §8.
//!
//! ```text
//!   a write with a share of theirs ─▶ durable after T ─▶ so many times T without them ─▶ the next
//! ```
//!
//! However short a write is, one after the other leaves the disk and the processors to a flood. So it rests between them, while only
//! others are written.

use std::time::Duration;

/// Longest that they wait.
const LONGEST: Duration = Duration::from_millis(200);

/// The state of one shard.
#[derive(Debug, Default)]
pub struct Pace {
    /// The forming batch has a share of theirs.
    shared: bool,
    /// Since when one that has is on its way.
    since: Option<Duration>,
    again_at: Duration,
}

impl Pace {
    /// The forming batch has a share.
    pub fn shared(&mut self) {
        self.shared = true;
    }

    /// The forming batch is on its way.
    pub fn sent(&mut self, now: Duration) {
        self.since = std::mem::take(&mut self.shared).then_some(now);
    }

    /// It is durable. They rest so many times as long as it took.
    pub fn written(&mut self, now: Duration, rests: u32) {
        if let Some(since) = self.since.take() {
            let took = now.saturating_sub(since).min(LONGEST);
            self.again_at = now + (took * rests).min(LONGEST);
        }
    }

    /// Whether it is time.
    pub fn is_open(&self, now: Duration) -> bool {
        now >= self.again_at
    }

    /// When it is.
    pub fn again_at(&self) -> Duration {
        self.again_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    // A write with a share takes 3 ms: the next is due 6 ms after it, twice that. Writes without one change nothing, and after one that took a
    // second it is 200 ms. Without rests it is due at once.
    #[test]
    fn longer_without_a_share_than_with_one() {
        let mut pace = Pace::default();
        assert!(pace.is_open(Duration::ZERO));
        pace.shared();
        pace.sent(MS * 10);
        pace.written(MS * 13, 2);
        assert_eq!(
            (pace.is_open(MS * 18), pace.is_open(MS * 19)),
            (false, true)
        );
        pace.sent(MS * 14);
        pace.written(MS * 15, 2);
        assert_eq!(pace.again_at(), MS * 19);
        pace.shared();
        pace.sent(MS * 20);
        pace.written(MS * 1020, 2);
        assert_eq!(pace.again_at(), MS * 1220);
        pace.shared();
        pace.sent(MS * 1230);
        pace.written(MS * 1233, 0);
        assert!(pace.is_open(MS * 1233));
    }
}
