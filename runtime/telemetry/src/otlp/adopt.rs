//! Gives exported spans the ids that travelled with the messages.
//!
//! `tracing-opentelemetry` invents ids. The steps of a trace have ids already (`pqcnet_actor::Ids`, in one span field),
//! the same on every node; here, on the exporting thread, they replace the invented ones.

use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use pqcnet_actor::{Counter, IDS_FIELD, Ids};

/// How spans fared.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanCounts {
    /// Ended, and offered to the queue.
    pub(super) recorded: Counter,
    /// Taken by the collector.
    pub(super) exported: Counter,
    /// Not taken by it, for good.
    pub(super) failed: Counter,
}

/// An exporter that puts our ids in first.
#[derive(Debug)]
pub(super) struct Adopt<E> {
    exporter: E,
    counts: SpanCounts,
}

impl<E> Adopt<E> {
    pub(super) fn new(exporter: E, counts: SpanCounts) -> Self {
        Self { exporter, counts }
    }
}

/// A span that is a step of one of our traces, under its own ids; any other as it is.
fn adopted(mut span: SpanData) -> SpanData {
    let at = span
        .attributes
        .iter()
        .position(|attribute| attribute.key.as_str() == IDS_FIELD);
    let ids = at.and_then(|at| {
        let KeyValue { value, .. } = span.attributes.swap_remove(at);
        value.as_str().parse::<Ids>().ok()
    });
    if let Some(ids) = ids {
        span.span_context = SpanContext::new(
            TraceId::from(ids.trace_id),
            SpanId::from(ids.span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        span.parent_span_id = SpanId::from(ids.parent_id);
    }
    span
}

impl<E: SpanExporter> SpanExporter for Adopt<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n = batch.len() as u64;
        let outcome = self
            .exporter
            .export(batch.into_iter().map(adopted).collect());
        let outcome = outcome.await;
        match &outcome {
            Ok(()) => self.counts.exported.add(n),
            Err(_) => self.counts.failed.add(n),
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The bounded queue, and a count of what came to it: what it had no room for is in no other count.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) queue: BatchSpanProcessor,
    pub(super) counts: SpanCounts,
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.queue.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        self.counts.recorded.bump();
        self.queue.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}
