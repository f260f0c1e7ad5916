//! How often, and how soon, what failed is started again. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// At most `restarts` within any period of `within`; one more and the supervisor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Failures survived.
    pub restarts: u32,
    /// The period they are counted over.
    pub within: Duration,
}

impl Default for Intensity {
    /// Five in half a minute: with the default backoff a fault that repeats at once escalates after some two seconds.
    fn default() -> Self {
        Intensity {
            restarts: 5,
            within: Duration::from_secs(30),
        }
    }
}

/// The wait before a restart: `min`, doubled with every failure still counted, at most `max`; of that, a random
/// half to whole, so that actors that fell together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// After any number of them.
    pub max: Duration,
}

impl Default for Backoff {
    /// From 50 ms, long enough for a full queue to move, to 5 s, short beside a client's timeout.
    fn default() -> Self {
        Backoff {
            min: Duration::from_millis(50),
            max: Duration::from_secs(5),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Limiter {
    intensity: Intensity,
    backoff: Backoff,
    /// Never longer than `intensity.restarts + 1`.
    failures: VecDeque<Duration>,
}

impl Limiter {
    pub(crate) fn new(intensity: Intensity, backoff: Backoff) -> Self {
        Limiter {
            intensity,
            backoff,
            failures: VecDeque::new(),
        }
    }

    /// Counts a failure at `now`. The wait before the restart, or `None`: one too many.
    pub(crate) fn fail(&mut self, now: Duration, random: u64) -> Option<Duration> {
        while let Some(first) = self.failures.front() {
            if now.saturating_sub(*first) <= self.intensity.within {
                break;
            }
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let n = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        if n > self.intensity.restarts {
            return None;
        }
        let doubled = self.backoff.min.saturating_mul(1 << (n - 1).min(30));
        let wait = doubled.min(self.backoff.max);
        let half = wait / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        Some(half + Duration::from_nanos(random % span.saturating_add(1)))
    }

    /// Forgets the past; for a supervisor that is started anew.
    pub(crate) fn reset(&mut self) {
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    // Three restarts in ten seconds: the fourth failure inside the window is one too many, at its edge included;
    // just past the edge the first is forgotten.
    #[test]
    fn the_window_slides() {
        let intensity = Intensity {
            restarts: 3,
            within: 10 * SECOND,
        };
        for (fourth, allowed) in [
            (10 * SECOND, false),
            (10 * SECOND + Duration::from_nanos(1), true),
        ] {
            let mut limiter = Limiter::new(intensity, Backoff::default());
            for second in 0..3 {
                assert!(limiter.fail(second * SECOND, 0).is_some());
            }
            assert_eq!(limiter.fail(fourth, 0).is_some(), allowed);
        }
    }

    // No restart allowed at all: the first failure is one too many.
    #[test]
    fn zero_restarts_escalates_at_once() {
        let intensity = Intensity {
            restarts: 0,
            within: SECOND,
        };
        let mut limiter = Limiter::new(intensity, Backoff::default());
        assert_eq!(limiter.fail(SECOND, 0), None);
    }

    proptest! {
        // Whatever the randomness: the k-th wait lies between half and whole of min * 2^(k-1), capped.
        #[test]
        fn waits_double_and_jitter(random: Vec<u64>, min_ms in 1_u64..1_000, max_ms in 1_u64..10_000) {
            let backoff = Backoff {
                min: Duration::from_millis(min_ms),
                max: Duration::from_millis(max_ms),
            };
            let intensity = Intensity { restarts: u32::MAX, within: SECOND };
            let mut limiter = Limiter::new(intensity, backoff);
            for (k, random) in random.iter().enumerate() {
                let wait = limiter.fail(Duration::ZERO, *random).unwrap();
                let whole = backoff.min.saturating_mul(1 << k.min(30)).min(backoff.max);
                prop_assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            }
        }
    }
}
