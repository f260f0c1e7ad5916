//! Metrics that are read when somebody asks: no locks on a data path, nothing to forget to update.
//!
//! A source is a closure over counters its owner keeps anyway (atomics, a stats snapshot). It yields [`Sample`]s; the
//! registry groups them by name and writes them in either text format that scrapers read. [`crate::otlp`] sends the
//! same samples.
//!
//! Names follow Prometheus: words joined by `_`, base units (`seconds`, `bytes`) last, `_total` after a counter.

use std::sync::{Arc, Mutex, PoisonError};

use pqcnet_actor::{BUCKETS, Distribution, MeterReading, Reading};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Most samples a source may yield: labels come from this node's own configuration, never from a peer's words.
pub const MAX_SAMPLES: usize = 4096;

/// What every metric's name begins with.
pub const PREFIX: &str = "pqcnet";

/// A value and how it moves.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Only rises; its name gets the suffix `_total`.
    Counter(u64),
    /// The same, of a measure that is no whole number, as seconds are.
    CounterOf(f64),
    /// Rises and falls.
    Gauge(u64),
    /// The same, of a measure that is no whole number.
    GaugeOf(f64),
    /// How often something took how long, in seconds.
    Histogram(Distribution),
}

impl Value {
    fn of(&self) -> MetricType {
        match self {
            Value::Counter(_) | Value::CounterOf(_) => MetricType::Counter,
            Value::Gauge(_) | Value::GaugeOf(_) => MetricType::Gauge,
            Value::Histogram(_) => MetricType::Histogram,
        }
    }
}

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `shard_bytes`, units last; the registry adds the prefix `pqcnet_`.
    pub name: &'static str,
    /// One line for the reader.
    pub help: &'static str,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

impl Sample {
    /// A sample without labels.
    pub fn new(name: &'static str, help: &'static str, value: Value) -> Self {
        Self {
            name,
            help,
            labels: Vec::new(),
            value,
        }
    }

    /// A counter without labels.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Value::Counter(value))
    }

    /// A gauge without labels.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Value::Gauge(value))
    }

    /// The same sample with one more label.
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

impl From<MeterReading> for Sample {
    fn from(meter: MeterReading) -> Self {
        let value = match meter.reading {
            Reading::Counter(total) => Value::Counter(total),
            Reading::Histogram(distribution) => Value::Histogram(distribution),
        };
        let labels = meter.labels.iter();
        Self {
            name: meter.name,
            help: meter.help,
            labels: labels.map(|(name, v)| (*name, (*v).to_owned())).collect(),
            value,
        }
    }
}

/// In which text metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus's own, which every scraper and `promtool check metrics` read.
    Prometheus,
    /// OpenMetrics, for who asks for it.
    OpenMetrics,
}

impl TextFormat {
    /// What an `Accept` header asks for; Prometheus's own if it asks for nothing.
    pub fn accepted(accept: Option<&str>) -> TextFormat {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => {
                TextFormat::OpenMetrics
            }
            Some(_) | None => TextFormat::Prometheus,
        }
    }

    /// The `Content-Type` of a page.
    pub const fn content_type(self) -> &'static str {
        match self {
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Why metrics could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// The text encoder failed: a bug in a source's names or labels.
    #[error("metrics could not be encoded")]
    Encode,
}

type Source = dyn Fn() -> Vec<Sample> + Send + Sync;

/// The registry of one node. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix(PREFIX))),
        }
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source, asked at every scrape on the scraper's thread: it must be quick and must not wait.
    pub fn source(&self, read: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        self.lock()
            .register_collector(Box::new(SourceCollector(Box::new(read))));
    }

    /// Everything, as text.
    pub fn render(&self, format: TextFormat) -> Result<String, MetricsError> {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.lock())
            .map_err(|_| MetricsError::Encode)?;
        Ok(match format {
            TextFormat::OpenMetrics => out,
            TextFormat::Prometheus => as_prometheus(&out),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A source that panicked leaves the registry itself whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two formats differ in where a counter's suffix stands (OpenMetrics describes the name without it) and in the end.
fn as_prometheus(open: &str) -> String {
    let counters: Vec<&str> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(open.len() + counters.len() * 14);
    for line in open.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|what| {
            let (name, rest) = line.strip_prefix(what)?.split_once(' ')?;
            counters.contains(&name).then_some((what, name, rest))
        });
        match described {
            Some((what, name, rest)) => {
                for part in [what, name, "_total ", rest] {
                    out.push_str(part);
                }
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

struct SourceCollector(Box<Source>);

impl std::fmt::Debug for SourceCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceCollector")
    }
}

impl Collector for SourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut samples = (self.0)();
        samples.truncate(MAX_SAMPLES);
        samples.sort_by_key(|sample| sample.name);
        for group in samples.chunk_by(|left, right| left.name == right.name) {
            let Some(first) = group.first() else { continue };
            let of = first.value.of();
            let mut family = encoder.encode_descriptor(first.name, first.help, None, of)?;
            for sample in group {
                if sample.labels.is_empty() {
                    encode_value(sample, &mut family)?;
                } else {
                    encode_value(sample, &mut family.encode_family(&sample.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(sample: &Sample, at: &mut MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match &sample.value {
        Value::Counter(value) => at.encode_counter::<NoLabelSet, u64, u64>(value, None),
        Value::CounterOf(value) => at.encode_counter::<NoLabelSet, f64, f64>(value, None),
        Value::Gauge(value) => at.encode_gauge(value),
        Value::GaugeOf(value) => at.encode_gauge(value),
        Value::Histogram(observed) => {
            let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(observed.counts).collect();
            let (sum, count) = (observed.sum.as_secs_f64(), observed.count());
            at.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    // Scenario: two sources with and without labels come out as one text of either format, read at each scrape.
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn sources_are_read_at_each_scrape() {
        let metrics = Metrics::new();
        let seen = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&seen);
        metrics.source(move || {
            let now = counter.fetch_add(1, Ordering::Relaxed);
            vec![
                Sample::gauge("shard_bytes", "Bytes stored", 7).label("shard", "1"),
                Sample::counter("frames", "Frames seen", now),
                Sample::gauge("shard_bytes", "Bytes stored", 9).label("shard", "2"),
                Sample::new("busy_seconds", "Time spent", Value::CounterOf(0.5)),
            ]
        });
        let open = |frames: u64| {
            format!(
                "# HELP pqcnet_busy_seconds Time spent\n# TYPE pqcnet_busy_seconds counter\npqcnet_busy_seconds_total 0.5\n\
                 # HELP pqcnet_frames Frames seen\n# TYPE pqcnet_frames counter\npqcnet_frames_total {frames}\n\
                 # HELP pqcnet_shard_bytes Bytes stored\n# TYPE pqcnet_shard_bytes gauge\n\
                 pqcnet_shard_bytes{{shard=\"1\"}} 7\npqcnet_shard_bytes{{shard=\"2\"}} 9\n# EOF\n"
            )
        };
        assert_eq!(metrics.render(TextFormat::OpenMetrics), Ok(open(0)));
        assert_eq!(metrics.render(TextFormat::OpenMetrics), Ok(open(1)));
        let classic = "# HELP pqcnet_busy_seconds_total Time spent\n# TYPE pqcnet_busy_seconds_total counter\n\
             pqcnet_busy_seconds_total 0.5\n\
             # HELP pqcnet_frames_total Frames seen\n# TYPE pqcnet_frames_total counter\npqcnet_frames_total 2\n\
             # HELP pqcnet_shard_bytes Bytes stored\n# TYPE pqcnet_shard_bytes gauge\n\
             pqcnet_shard_bytes{shard=\"1\"} 7\npqcnet_shard_bytes{shard=\"2\"} 9\n";
        assert_eq!(
            metrics.render(TextFormat::Prometheus),
            Ok(classic.to_owned())
        );
    }

    // A meter's histogram: cumulative buckets in seconds, the last one unbounded, and its own labels on each line.
    #[test]
    fn histograms_are_cumulative() {
        let metrics = Metrics::new();
        let histogram = pqcnet_actor::Histogram::default();
        for ms in [1, 3, 20_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let meter = MeterReading {
            name: "ack_seconds",
            help: "Until it is durable",
            labels: &[("side", "edge")],
            reading: Reading::Histogram(histogram.observed()),
        };
        metrics.source(move || vec![Sample::from(meter.clone())]);
        let text = metrics.render(TextFormat::Prometheus).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# HELP pqcnet_ack_seconds Until it is durable");
        assert_eq!(lines[1], "# TYPE pqcnet_ack_seconds histogram");
        for line in [
            "pqcnet_ack_seconds_sum{side=\"edge\"} 20.004",
            "pqcnet_ack_seconds_count{side=\"edge\"} 3",
            "pqcnet_ack_seconds_bucket{le=\"0.0005\",side=\"edge\"} 0",
            "pqcnet_ack_seconds_bucket{le=\"0.001\",side=\"edge\"} 1",
            "pqcnet_ack_seconds_bucket{le=\"0.005\",side=\"edge\"} 2",
            "pqcnet_ack_seconds_bucket{le=\"10.0\",side=\"edge\"} 2",
            "pqcnet_ack_seconds_bucket{le=\"+Inf\",side=\"edge\"} 3",
        ] {
            assert!(lines.contains(&line), "{line} in\n{text}");
        }
        assert_eq!(lines.len(), 2 + 2 + BUCKETS.len() + 1);
    }

    // Prometheus asks for OpenMetrics by name; a browser and promtool get the plain text.
    #[test]
    fn the_format_is_what_the_scraper_accepts() {
        let of = TextFormat::accepted;
        assert_eq!(of(None), TextFormat::Prometheus);
        assert_eq!(of(Some("text/html,*/*")), TextFormat::Prometheus);
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(of(Some(prometheus)), TextFormat::OpenMetrics);
        assert!(TextFormat::Prometheus.content_type().contains("0.0.4"));
    }
}
