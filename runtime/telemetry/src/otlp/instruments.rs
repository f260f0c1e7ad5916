//! What a node counts, as instruments of OpenTelemetry's SDK.
//!
//! ```text
//!   Samples, as /metrics shows them ── take ──▶ reading ──▶ observable counters and gauges ─┐
//!   Histogram::observe (pqcnet_actor) ── mirror ─────────▶ the SDK's histograms ────────────┴─▶ reader ─▶ OTLP
//! ```
//!
//! A counter or gauge is kept by its owner, and its instrument tells what it was at the one reading that an export is made
//! of. A histogram of the SDK takes observations, not what became of them, so each is handed to it when it is made, in
//! buckets of the same bounds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry_sdk::metrics::{Instrument, Stream};
use pqcnet_actor::{BUCKETS, Env};

use crate::metrics::{MAX_SAMPLES, PREFIX, Sample, Value};

/// Series of an instrument without a series for each shard or actor. The SDK makes room for all of them at once.
const FEW: usize = 128;

/// By name, every series with its value.
type Reading = BTreeMap<&'static str, Vec<(Vec<KeyValue>, Value)>>;

/// The counters and gauges of one node. Its instruments are made as their names come up; names are words of the program,
/// which bounds them.
pub(super) struct Instruments {
    meter: Meter,
    reading: Arc<Mutex<Reading>>,
}

impl Instruments {
    pub(super) fn new(meter: Meter) -> Instruments {
        let reading = Arc::default();
        Instruments { meter, reading }
    }

    /// From now on the instruments tell these values, and no series that is not among them.
    pub(super) fn take(&self, mut samples: Vec<Sample>) {
        samples.truncate(MAX_SAMPLES);
        let mut unknown = Vec::new();
        let mut reading = lock(&self.reading);
        for series in reading.values_mut() {
            series.clear();
        }
        for sample in samples {
            if matches!(sample.value, Value::Histogram(_)) {
                continue;
            }
            let Sample {
                name,
                help,
                labels,
                value,
            } = sample;
            let series = reading.entry(name).or_insert_with(|| {
                unknown.push((name, help, value.clone()));
                Vec::new()
            });
            let labels = labels.into_iter();
            let labels = labels.map(|(name, value)| KeyValue::new(name, value));
            series.push((labels.collect(), value));
        }
        drop(reading);
        for (name, help, value) in unknown {
            self.make(name, help, &value);
        }
    }

    /// An instrument of the kind that the value shows. The SDK keeps it as long as its provider lives.
    fn make(&self, name: &'static str, help: &'static str, value: &Value) {
        let full = format!("{PREFIX}_{name}");
        let (meter, unit) = (&self.meter, unit(name));
        let reading = Arc::clone(&self.reading);
        match value {
            Value::Counter(_) => drop(
                meter
                    .u64_observable_counter(full)
                    .with_description(help)
                    .with_unit(unit)
                    .with_callback(move |of| tell(&reading, name, of, whole))
                    .build(),
            ),
            Value::Gauge(_) => drop(
                meter
                    .u64_observable_gauge(full)
                    .with_description(help)
                    .with_unit(unit)
                    .with_callback(move |of| tell(&reading, name, of, whole))
                    .build(),
            ),
            Value::CounterOf(_) => drop(
                meter
                    .f64_observable_counter(full)
                    .with_description(help)
                    .with_unit(unit)
                    .with_callback(move |of| tell(&reading, name, of, broken))
                    .build(),
            ),
            Value::GaugeOf(_) => drop(
                meter
                    .f64_observable_gauge(full)
                    .with_description(help)
                    .with_unit(unit)
                    .with_callback(move |of| tell(&reading, name, of, broken))
                    .build(),
            ),
            Value::Histogram(_) => {}
        }
    }
}

fn lock(reading: &Mutex<Reading>) -> MutexGuard<'_, Reading> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell<T>(
    reading: &Mutex<Reading>,
    name: &str,
    instrument: &dyn AsyncInstrument<T>,
    value: impl Fn(&Value) -> Option<T>,
) {
    let reading = lock(reading);
    for (labels, told) in reading.get(name).into_iter().flatten() {
        if let Some(value) = value(told) {
            instrument.observe(value, labels);
        }
    }
}

/// A whole number, as OTLP carries it: with a sign.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Counter(n) | Value::Gauge(n) => Some((*n).min(i64::MAX.unsigned_abs())),
        Value::CounterOf(_) | Value::GaugeOf(_) | Value::Histogram(_) => None,
    }
}

fn broken(value: &Value) -> Option<f64> {
    match value {
        Value::CounterOf(n) | Value::GaugeOf(n) => Some(*n),
        Value::Counter(_) | Value::Gauge(_) | Value::Histogram(_) => None,
    }
}

/// From now on every observation of the node's histograms is the SDK's as well.
pub(super) fn mirror(meter: &Meter, env: &Env) {
    let meter = meter.clone();
    let first = env.mirror_histograms(move |name, help, labels| {
        let histogram = meter
            .f64_histogram(format!("{PREFIX}_{name}"))
            .with_description(help)
            .with_unit(unit(name))
            .with_boundaries(BUCKETS.to_vec())
            .build();
        let labels = labels.iter();
        let labels: Vec<KeyValue> = labels.map(|(name, v)| KeyValue::new(*name, *v)).collect();
        Box::new(move |took| histogram.record(took.as_secs_f64(), &labels))
    });
    if !first {
        tracing::error!("a bug: a second exporter of one node's histograms, which gets none");
    }
}

/// How many series an instrument may have.
pub(super) fn room(instrument: &Instrument) -> Option<Stream> {
    let name = instrument.name().strip_prefix(PREFIX)?;
    let many = ["_shard_", "_actor"].iter().any(|of| name.starts_with(of));
    let most = if many { MAX_SAMPLES } else { FEW };
    Stream::builder().with_cardinality_limit(most).build().ok()
}

/// In UCUM's letters.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some(_) | None => "1",
    }
}
