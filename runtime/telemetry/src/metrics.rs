//! Metrics that are read when somebody asks: no locks on a data path, nothing to forget to update.
//!
//! A source is a closure over counters its owner keeps anyway (atomics, a stats snapshot). It yields [`Sample`]s; the
//! registry groups them by name and writes OpenMetrics text.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Most samples a source may yield: labels come from this node's own configuration, never from a peer's words.
pub const MAX_SAMPLES: usize = 4096;

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only rises; its name gets the suffix `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `shard_bytes`, units last; the registry adds the prefix `pqcnet_`.
    pub name: &'static str,
    /// One line for the reader.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

impl Sample {
    /// A counter without labels.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self {
            name,
            help,
            kind: Kind::Counter,
            labels: Vec::new(),
            value,
        }
    }

    /// A gauge without labels.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
            value,
        }
    }

    /// The same sample with one more label.
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
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
            registry: Arc::new(Mutex::new(Registry::with_prefix("pqcnet"))),
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

    /// Everything, as OpenMetrics text.
    pub fn render(&self) -> Result<String, MetricsError> {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.lock())
            .map_err(|_| MetricsError::Encode)?;
        Ok(out)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A source that panicked leaves the registry itself whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            let kind = match first.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(first.name, first.help, None, kind)?;
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
    match sample.kind {
        Kind::Counter => at.encode_counter::<NoLabelSet, u64, u64>(&sample.value, None),
        Kind::Gauge => at.encode_gauge(&sample.value),
    }
}

#[cfg(test)]
mod tests {
    // Scenario: two sources with and without labels come out as one OpenMetrics text, read at each scrape.
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

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
            ]
        });
        let expected = |frames: u64| {
            format!(
                "# HELP pqcnet_frames Frames seen\n# TYPE pqcnet_frames counter\npqcnet_frames_total {frames}\n\
                 # HELP pqcnet_shard_bytes Bytes stored\n# TYPE pqcnet_shard_bytes gauge\n\
                 pqcnet_shard_bytes{{shard=\"1\"}} 7\npqcnet_shard_bytes{{shard=\"2\"}} 9\n# EOF\n"
            )
        };
        assert_eq!(metrics.render(), Ok(expected(0)));
        assert_eq!(metrics.render(), Ok(expected(1)));
    }
}
