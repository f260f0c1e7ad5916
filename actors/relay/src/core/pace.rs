//! When channels that crowd out others have their next share of a write. Spec: docs/spec/relay.md §8.
//!
//! ```text
//!   a write with a share of theirs, which takes T ─▶ none ─▶ with the first write of others ─▶ alone
//!                                                    half of so many times T          all of it
//! ```
//!
//! However short a write is, one after the other leaves the disk and the processors to a flood. So it rests between them, while only
//! others are written. And one more write, of its share alone, would hold up whatever of others comes meanwhile by as long as a sync takes; a
//! share that goes along with a write of theirs costs them its bytes. So towards the end of its rest it waits for one.

use std::time::Duration;

/// Longest that they wait.
const LONGEST: Duration = Duration::from_millis(200);

/// A share is at least what they rest, in microseconds, over this, in bytes: half a MB a second, where a sync takes so long that bytes hardly show
/// in it, and a publish of 2 MiB is stored before its publisher gives it up.
const MICROSECONDS_A_BYTE: u128 = 2;

/// The state of one shard.
#[derive(Debug, Default)]
pub struct Pace {
    /// The forming batch has a share of theirs.
    shared: bool,
    /// Since when one that has is on its way.
    since: Option<Duration>,
    /// From then on a share goes along with what others have written.
    along_at: Duration,
    /// From then on it waits for nobody.
    alone_at: Duration,
    /// How long they rest, if no write of others takes a share along.
    rest: Duration,
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

    /// It is durable. They rest so many times as long as a write takes: `write`, or where nobody says, as this one took.
    pub fn written(&mut self, now: Duration, rests: u32, write: Option<Duration>) {
        if let Some(since) = self.since.take() {
            let took = write.unwrap_or(now.saturating_sub(since)).min(LONGEST);
            let rest = (took * rests).min(LONGEST);
            (self.along_at, self.alone_at) = (now + rest / 2, now + rest);
            self.rest = rest;
        }
    }

    /// What a share may be at least, after so long a rest.
    pub fn least_bytes(&self) -> u64 {
        u64::try_from(self.rest.as_micros() / MICROSECONDS_A_BYTE).unwrap_or(u64::MAX)
    }

    /// When their next share is due: along with a write of others, or alone.
    pub fn due(&self, along: bool) -> Duration {
        if along { self.along_at } else { self.alone_at }
    }

    /// How long a share may still wait for a write of others.
    pub fn patience(&self, now: Duration) -> Duration {
        self.alone_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    // A write with a share takes 3 ms: the next is due 3 ms after it with others, 6 ms after it alone, twice that. Writes without one change nothing;
    // after one that took a second it is 200 ms at most; where it is known that a write takes 1 ms, as for one that waited, that counts. Without
    // rests it is due at once. A share is half a byte for each microsecond of the rest at least.
    #[test]
    fn longer_without_a_share_than_with_one() {
        let mut pace = Pace::default();
        let due = |pace: &Pace| (pace.due(true), pace.due(false));
        assert_eq!(due(&pace), (Duration::ZERO, Duration::ZERO));
        assert_eq!(pace.least_bytes(), 0);
        pace.shared();
        pace.sent(MS * 10);
        pace.written(MS * 13, 2, None);
        assert_eq!(pace.least_bytes(), 3_000);
        assert_eq!(due(&pace), (MS * 16, MS * 19));
        assert_eq!(
            [15, 18, 30].map(|at| pace.patience(MS * at)),
            [MS * 4, MS, Duration::ZERO]
        );
        pace.sent(MS * 14);
        pace.written(MS * 15, 2, None);
        assert_eq!(due(&pace), (MS * 16, MS * 19));
        pace.shared();
        pace.sent(MS * 20);
        pace.written(MS * 1020, 2, None);
        assert_eq!(due(&pace), (MS * 1120, MS * 1220));
        pace.shared();
        pace.sent(MS * 1300);
        pace.written(MS * 1310, 4, Some(MS));
        assert_eq!(due(&pace), (MS * 1312, MS * 1314));
        pace.shared();
        pace.sent(MS * 1320);
        pace.written(MS * 1323, 0, None);
        assert_eq!(due(&pace), (MS * 1323, MS * 1323));
    }
}
