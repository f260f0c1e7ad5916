//! Logs on standard error, the metrics registry behind `/metrics`, and both traces and metrics over OTLP.
//!
//! - [`logs`]: `tracing` to standard error, text or JSON, one level or a filter by target. Standard output is for data.
//! - [`metrics`]: named gauges, counters and histograms that are read when somebody asks, written as text.
//! - [`otlp`]: the same metrics, and the recorded steps of traces, sent to a collector where one is configured.
//!
//! Never logged or exported, at any level: secret keys, passphrases, payloads, grants, storage keys. Types that hold
//! secrets have a redacted `Debug`; payloads are logged by length only.

pub mod logs;
pub mod metrics;
pub mod otlp;

pub use logs::{LogError, LogFormat, LogLevel};
pub use metrics::{Metrics, MetricsError, Sample, TextFormat, Value};
pub use otlp::{Endpoint, Otlp, OtlpConfig, OtlpError, Ratio};
