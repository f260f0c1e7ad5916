//! Logs on stderr, and the metrics registry behind /metrics.
