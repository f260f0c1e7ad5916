//! When a node says anew what it is.

use std::time::Duration;

/// Between two adverts that say the same.
pub const EVERY: Duration = Duration::from_secs(600);
/// How long an advert holds: three are lost before a node is taken for gone.
pub const LEASE_MS: u64 = 30 * 60 * 1000;
/// Changes within this time go out together.
const SETTLE: Duration = Duration::from_millis(200);

/// The schedule of a node's own adverts.
#[derive(Clone, Debug)]
pub struct Announcer {
    due: Duration,
    issued_at_ms: u64,
}

impl Announcer {
    /// The first advert is due at once.
    pub fn new(now: Duration) -> Announcer {
        Announcer {
            due: now,
            issued_at_ms: 0,
        }
    }

    /// Something that the advert says has changed.
    pub fn changed(&mut self, now: Duration) {
        self.due = self.due.min(now + SETTLE);
    }

    /// An advert with a time in the future came back to us: this identity ran before with a clock that was ahead, and
    /// only a younger advert replaces that one.
    pub fn surpass(&mut self, issued_at_ms: u64, now: Duration) {
        if issued_at_ms > self.issued_at_ms {
            self.issued_at_ms = issued_at_ms;
            self.changed(now);
        }
    }

    /// When the next advert is due.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// If one is due: its time of issue, which always rises. `random` is 64 uniform bits: up to a tenth of the interval
    /// is left out, so that nodes that started together do not stay together.
    pub fn poll(&mut self, now: Duration, wall_ms: u64, random: u64) -> Option<u64> {
        if now < self.due {
            return None;
        }
        let tenth = u64::try_from(EVERY.as_millis() / 10).unwrap_or(0);
        let early = (u128::from(tenth) * u128::from(random)) >> 64;
        self.due = now + EVERY - Duration::from_millis(u64::try_from(early).unwrap_or(0));
        self.issued_at_ms = wall_ms.max(self.issued_at_ms.saturating_add(1));
        Some(self.issued_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Scenario: the first advert at once, the next nine to ten minutes later, sooner when something changed.
    #[test]
    fn every_ten_minutes_or_on_change() {
        let mut announcer = Announcer::new(S);
        assert_eq!(announcer.poll(S, 5000, 0), Some(5000));
        assert_eq!(announcer.due(), 601 * S);
        assert_eq!(announcer.poll(600 * S, 9000, 0), None);
        assert_eq!(announcer.poll(601 * S, 9000, u64::MAX), Some(9000));
        let next = announcer.due();
        assert!(next > 1141 * S && next < 1142 * S, "{next:?}");
        announcer.changed(700 * S);
        announcer.changed(701 * S);
        assert_eq!(announcer.due(), 700 * S + SETTLE);
        assert_eq!(announcer.poll(701 * S, 9001, 0), Some(9001));
        assert_eq!(announcer.due(), 1301 * S);
    }

    /// Scenario: the machine's clock steps back, and an own advert from the future comes back: times still rise.
    #[test]
    fn times_of_issue_rise() {
        let mut announcer = Announcer::new(S);
        assert_eq!(announcer.poll(S, 5000, 0), Some(5000));
        announcer.changed(S);
        assert_eq!(announcer.poll(2 * S, 4000, 0), Some(5001));
        announcer.surpass(5001, 3 * S);
        assert_eq!(announcer.poll(4 * S, 4000, 0), None);
        announcer.surpass(8000, 5 * S);
        assert_eq!(announcer.poll(6 * S, 4000, 0), Some(8001));
    }
}
