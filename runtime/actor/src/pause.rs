//! How long an actor's core waits before it tries something again: doubling, with jitter. Pure.

use std::time::Duration;

/// Doubling pauses with jitter.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Pause {
    /// Pauses from `min` to `max`.
    pub fn new(min: Duration, max: Duration) -> Pause {
        Pause {
            min,
            max: max.max(min),
            failures: 0,
        }
    }

    /// The next attempt's time. `random` is 64 uniform bits.
    pub fn until(&mut self, now: Duration, random: u64) -> Duration {
        now + self.next(random)
    }

    /// The next pause: uniform between `min` and `min * 2^failures`, the latter at most `max`.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self
            .min
            .saturating_mul(1 << self.failures.min(20))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        let spread = u64::try_from((ceiling - self.min).as_micros()).unwrap_or(u64::MAX);
        let jitter = (u128::from(spread) * u128::from(random)) >> 64;
        self.min + Duration::from_micros(u64::try_from(jitter).unwrap_or(spread))
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(100);

    /// Largest jitter shows the ceilings: they double, stop at the maximum, and fall back after a success.
    #[test]
    fn doubles_to_the_ceiling_and_resets() {
        let mut pause = Pause::new(MIN, MAX);
        let ceilings: Vec<u128> = (0..6).map(|_| pause.next(u64::MAX).as_millis()).collect();
        assert_eq!(ceilings, [10, 19, 39, 79, 99, 99]);
        pause.reset();
        assert_eq!(pause.next(u64::MAX), MIN);
    }

    /// Smallest jitter never goes below the floor, however many failures came before.
    #[test]
    fn floor_holds() {
        let mut pause = Pause::new(MIN, MAX);
        for _ in 0..100 {
            assert_eq!(pause.next(0), MIN);
        }
    }
}
