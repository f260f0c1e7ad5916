//! Logs on standard error, and the metrics registry behind `/metrics`.
//!
//! - [`logs`]: `tracing` to standard error, text or JSON, one level or a filter by target. Standard output is for data.
//! - [`metrics`]: named gauges and counters that are read when somebody asks, rendered as OpenMetrics text.
//!
//! Never logged, at any level: secret keys, passphrases, payloads, grants, storage keys. Types that hold secrets have a
//! redacted `Debug`; payloads are logged by length only.

pub mod logs;
pub mod metrics;

pub use logs::{LogError, LogFormat, LogLevel};
pub use metrics::{Kind, Metrics, MetricsError, Sample};
