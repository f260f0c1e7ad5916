//! How long messages take: from their publisher's hand to its acknowledgement, and to their subscriber.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::report::Percentiles;

/// Longest that is told apart, in ms: ten hours. Longer ones count as that.
const LONGEST_MS: u64 = 36_000_000;
/// Digits: a thousandth.
const DIGITS: u8 = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// From the call of `send` until its receipt is good.
    Acknowledged,
    /// From the call of `send` until the subscriber has it for the first time.
    Delivered,
}

impl Leg {
    /// Both.
    pub const ALL: [Leg; 2] = [Leg::Acknowledged, Leg::Delivered];

    /// In reports.
    pub fn words(self) -> &'static str {
        match self {
            Leg::Acknowledged => "publish to acknowledgement",
            Leg::Delivered => "publish to delivery",
        }
    }
}

/// Times of all messages that count. Clones are the same.
#[derive(Clone)]
pub struct Times(Arc<Mutex<[Kept; 2]>>);

struct Kept {
    all: Histogram<u64>,
    /// Since the last look.
    lately: Histogram<u64>,
}

fn empty() -> Histogram<u64> {
    // These bounds and digits are ones that it takes.
    Histogram::new_with_bounds(1, LONGEST_MS, DIGITS)
        .unwrap_or_else(|error| panic!("a histogram of times: {error}"))
}

impl Default for Times {
    fn default() -> Times {
        let kept = || Kept {
            all: empty(),
            lately: empty(),
        };
        Times(Arc::new(Mutex::new([kept(), kept()])))
    }
}

impl Times {
    pub(super) fn took(&self, leg: Leg, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(LONGEST_MS);
        let kept = &mut self.0.lock()[leg as usize];
        kept.all.saturating_record(ms);
        kept.lately.saturating_record(ms);
    }

    /// Of the whole run; `None` before the first.
    pub fn all(&self, leg: Leg) -> Option<Percentiles> {
        percentiles(&self.0.lock()[leg as usize].all)
    }

    /// Since this was asked last; `None` if there was none.
    pub fn lately(&self, leg: Leg) -> Option<Percentiles> {
        let lately = &mut self.0.lock()[leg as usize].lately;
        let found = percentiles(lately);
        lately.reset();
        found
    }
}

fn percentiles(times: &Histogram<u64>) -> Option<Percentiles> {
    let ms = |share: f64| times.value_at_quantile(share) as f64;
    (!times.is_empty()).then(|| Percentiles {
        count: times.len(),
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p99_ms: ms(0.99),
        max_ms: times.max() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // A hundred deliveries of 1 to 100 ms, then one of a day: percentiles are theirs, the last one counts as ten hours, and a
    // second look has what came since the first.
    #[test]
    fn percentiles_of_known_times() {
        let times = Times::default();
        assert_eq!(times.all(Leg::Delivered), None);
        for ms in 1..=100 {
            times.took(Leg::Delivered, Duration::from_millis(ms));
        }
        let told = Percentiles {
            count: 100,
            p50_ms: 50.0,
            p90_ms: 90.0,
            p99_ms: 99.0,
            max_ms: 100.0,
        };
        assert_eq!(times.all(Leg::Delivered), Some(told.clone()));
        assert_eq!(times.lately(Leg::Delivered), Some(told));
        assert_eq!(times.lately(Leg::Delivered), None);
        times.took(Leg::Delivered, Duration::from_secs(86_400));
        let last = times.lately(Leg::Delivered).unwrap();
        assert!(
            (last.max_ms - LONGEST_MS as f64).abs() < 40_000.0,
            "{last:?}"
        );
        assert_eq!(times.all(Leg::Delivered).unwrap().count, 101);
        assert_eq!(times.all(Leg::Acknowledged), None);
    }
}
