//! Counts and latencies that any part of a node keeps: found by name, changed without a lock, read when somebody asks.
//!
//! [`crate::Env::counter`] and [`crate::Env::histogram`] give the same meter for the same name and labels, so a part
//! that restarts goes on counting. Names and labels are words of the program, never of a peer, which bounds them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Upper bounds of a histogram's buckets in seconds: three a decade, from a tenth of a millisecond (a synced write of a
/// fast disk) to ten seconds (the longest a link waits for an answer).
pub const BUCKETS: [f64; 16] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0,
];

/// The same in nanoseconds.
const BOUNDS_NS: [u64; BUCKETS.len()] = [
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Meters of one node. Each is named in the program, so only a bug meets this.
const MAX_METERS: usize = 256;

/// Names and values of labels.
pub type Labels = &'static [(&'static str, &'static str)];

/// Only rises. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// So many more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    pub fn total(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Gets each observation of a histogram as it is made, on the thread that makes it.
pub type Mirror = Box<dyn Fn(Duration) + Send + Sync>;
/// Makes the mirror of the histogram of this name, line of help and labels.
pub type MakeMirror = Box<dyn Fn(&'static str, &'static str, Labels) -> Mirror + Send + Sync>;

/// How often something took how long. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Observed>);

#[derive(Default)]
struct Observed {
    /// By bucket, the last for what is beyond all bounds.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_ns: AtomicU64,
    mirror: OnceLock<Mirror>,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed")
            .field("counts", &self.counts)
            .field("sum_ns", &self.sum_ns)
            .finish_non_exhaustive()
    }
}

impl Histogram {
    /// One more, that took so long.
    #[inline]
    pub fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.0.sum_ns.fetch_add(ns, Relaxed);
        if let Some(mirror) = self.0.mirror.get() {
            mirror(took);
        }
    }

    /// False if it has one already.
    fn reflect(&self, mirror: Mirror) -> bool {
        self.0.mirror.set(mirror).is_ok()
    }

    /// What was observed so far.
    pub fn observed(&self) -> Distribution {
        let mut counts = [0; BUCKETS.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.0.counts) {
            *count = bucket.load(Relaxed);
        }
        Distribution {
            counts,
            sum: Duration::from_nanos(self.0.sum_ns.load(Relaxed)),
        }
    }
}

/// A histogram's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// How many fell into each bucket of [`BUCKETS`], and beyond all.
    pub counts: [u64; BUCKETS.len() + 1],
    /// All that was observed.
    pub sum: Duration,
}

impl Distribution {
    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What a meter shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A counter's total.
    Counter(u64),
    /// A histogram's content.
    Histogram(Distribution),
}

/// One meter, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterReading {
    /// What it counts: words joined by `_`, the unit last (`handshake_seconds`).
    pub name: &'static str,
    /// One line for the reader.
    pub help: &'static str,
    /// Its labels.
    pub labels: Labels,
    /// What it shows.
    pub reading: Reading,
}

enum Meter {
    Counter(Counter),
    Histogram(Histogram),
}

type Named = BTreeMap<(&'static str, Labels), (&'static str, Meter)>;

/// All meters of a node.
#[derive(Default)]
pub(crate) struct Meters {
    named: Mutex<Named>,
    mirror: OnceLock<MakeMirror>,
}

impl Meters {
    fn lock(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every histogram a mirror, those that are there and those to come. Once: false when they have others.
    pub(crate) fn mirror(&self, make: MakeMirror) -> bool {
        let named = self.lock();
        if self.mirror.set(make).is_err() {
            return false;
        }
        let Some(make) = self.mirror.get() else {
            return false;
        };
        named
            .iter()
            .all(|((name, labels), (help, meter))| match meter {
                Meter::Histogram(histogram) => histogram.reflect(make(name, help, labels)),
                Meter::Counter(_) => true,
            })
    }

    pub(crate) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
    ) -> Counter {
        let make = || Meter::Counter(Counter::default());
        let of = |meter: &Meter| match meter {
            Meter::Counter(counter) => Some(counter.clone()),
            Meter::Histogram(_) => None,
        };
        self.meter(name, help, labels, make, of).unwrap_or_default()
    }

    pub(crate) fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
    ) -> Histogram {
        let make = || {
            let histogram = Histogram::default();
            if let Some(make) = self.mirror.get() {
                histogram.reflect(make(name, help, labels));
            }
            Meter::Histogram(histogram)
        };
        let of = |meter: &Meter| match meter {
            Meter::Histogram(histogram) => Some(histogram.clone()),
            Meter::Counter(_) => None,
        };
        self.meter(name, help, labels, make, of).unwrap_or_default()
    }

    /// `None`, after a word in the log, for one meter too many and for a name of another kind: it counts, unseen.
    fn meter<T>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        make: impl FnOnce() -> Meter,
        of: impl FnOnce(&Meter) -> Option<T>,
    ) -> Option<T> {
        let mut named = self.lock();
        if named.len() >= MAX_METERS && !named.contains_key(&(name, labels)) {
            tracing::error!(name, "a bug: too many meters, this one is not shown");
            return None;
        }
        let (_, meter) = named
            .entry((name, labels))
            .or_insert_with(|| (help, make()));
        let found = of(meter);
        if found.is_none() {
            tracing::error!(name, "a bug: two kinds of meter under one name");
        }
        found
    }

    pub(crate) fn read(&self) -> Vec<MeterReading> {
        let named = self.lock();
        let readings = named
            .iter()
            .map(|((name, labels), (help, meter))| MeterReading {
                name,
                help,
                labels,
                reading: match meter {
                    Meter::Counter(counter) => Reading::Counter(counter.total()),
                    Meter::Histogram(histogram) => Reading::Histogram(histogram.observed()),
                },
            });
        readings.collect()
    }
}

#[cfg(test)]
mod tests {
    // Scenario: two parts of a node find the same meters by name and labels; values fall into the buckets whose upper
    // bound they do not exceed; a name that is taken by another kind and one meter too many count unseen.
    use super::*;

    #[test]
    fn bounds_are_the_same_in_both_units() {
        for (seconds, ns) in BUCKETS.iter().zip(BOUNDS_NS) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_nanos(ns));
        }
        assert!(BUCKETS.is_sorted());
    }

    // Scenario: a histogram that was there and one that comes later each have a mirror, which gets what is observed from
    // then on; a second maker of mirrors gets none.
    #[test]
    fn mirrors_get_what_is_observed() {
        let meters = Meters::default();
        let early = meters.histogram("early_seconds", "Early", &[]);
        early.observe(Duration::from_millis(1));
        let seen: Arc<Mutex<Vec<(&str, Duration)>>> = Arc::default();
        let told = Arc::clone(&seen);
        assert!(meters.mirror(Box::new(move |name, _, _| {
            let told = Arc::clone(&told);
            Box::new(move |took| told.lock().unwrap().push((name, took)))
        })));
        early.clone().observe(Duration::from_millis(2));
        let late = meters.histogram("late_seconds", "Late", &[("side", "dialler")]);
        late.observe(Duration::from_millis(3));
        assert!(!meters.mirror(Box::new(|_, _, _| Box::new(|_| panic!("a second mirror")))));
        early.observe(Duration::from_millis(4));
        let wanted = [
            ("early_seconds", 2),
            ("late_seconds", 3),
            ("early_seconds", 4),
        ];
        let wanted = wanted.map(|(name, ms)| (name, Duration::from_millis(ms)));
        assert_eq!(*seen.lock().unwrap(), wanted);
        assert_eq!(early.observed().count(), 3);
    }

    #[test]
    fn the_same_name_is_the_same_meter() {
        let meters = Meters::default();
        let labels: Labels = &[("side", "dialler")];
        meters.counter("b", "Second", &[]).bump();
        meters.counter("b", "Second", &[]).add(2);
        let took = meters.histogram("a_seconds", "First", labels);
        for took_us in [100, 101, 9_999_999, 10_000_001] {
            took.observe(Duration::from_micros(took_us));
        }
        let mut counts = [0; BUCKETS.len() + 1];
        (counts[0], counts[1], counts[15], counts[16]) = (1, 1, 1, 1);
        let observed = Distribution {
            counts,
            sum: Duration::from_micros(20_000_201),
        };
        assert_eq!(observed.count(), 4);
        let readings = meters.read();
        assert_eq!(readings.len(), 2);
        assert_eq!(
            (readings[0].name, readings[0].help, readings[0].labels),
            ("a_seconds", "First", labels)
        );
        assert_eq!(readings[0].reading, Reading::Histogram(observed));
        assert_eq!(readings[1].reading, Reading::Counter(3));
    }

    #[test]
    fn bugs_count_unseen() {
        let meters = Meters::default();
        meters.counter("taken", "A counter", &[]).bump();
        meters
            .histogram("taken", "No counter", &[])
            .observe(Duration::ZERO);
        meters.histogram("other", "A histogram", &[]);
        meters.counter("other", "No histogram", &[]).bump();
        let readings = meters.read();
        assert_eq!(readings.len(), 2);
        assert_eq!(readings[1].reading, Reading::Counter(1));
        let names: Vec<&'static str> = (0..MAX_METERS)
            .map(|n| -> &'static str { format!("m{n}").leak() })
            .collect();
        for name in &names {
            meters.counter(name, "Many", &[]).bump();
        }
        assert_eq!(meters.read().len(), MAX_METERS);
        meters.counter("taken", "A counter", &[]).bump();
        assert_eq!(
            meters
                .read()
                .iter()
                .find(|m| m.name == "taken")
                .map(|m| &m.reading),
            Some(&Reading::Counter(2))
        );
    }
}
