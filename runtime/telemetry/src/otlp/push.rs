//! An exporter of metrics that counts how its exports fare, and says once that the collector takes none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use pqcnet_actor::Counter;

/// How exports of metrics fared.
#[derive(Clone, Debug, Default)]
pub(super) struct PushCounts {
    /// Taken by the collector.
    pub(super) exported: Counter,
    /// Not taken by it; the next one has it all.
    pub(super) failed: Counter,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Told<E> {
    exporter: E,
    counts: PushCounts,
    failing: AtomicBool,
}

impl<E> Told<E> {
    pub(super) fn new(exporter: E, counts: PushCounts) -> Told<E> {
        let failing = AtomicBool::new(false);
        Told {
            exporter,
            counts,
            failing,
        }
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Told<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let outcome = self.exporter.export(metrics).await;
        match &outcome {
            Ok(()) => self.counts.exported.bump(),
            Err(_) => self.counts.failed.bump(),
        }
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        if let Err(why) = &outcome
            && !failed_before
        {
            tracing::warn!(%why, "the collector takes no metrics; told once until it does");
        }
        outcome
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
