//! Traces and metrics to a collector over OTLP (gRPC). Off unless an endpoint is configured.
//!
//! ```text
//!   Step (pqcnet_actor) ── tracing span ─▶ tracing-opentelemetry ─▶ queue, bounded ─▶ Adopt ─┐
//!   Samples, as /metrics shows them ── every so often ─▶ the SDK's instruments ─▶ reader ──────┴─▶ one channel, gRPC
//! ```
//!
//! Everything that waits for the network runs on a thread of its own; a collector that is slow or gone costs a node
//! what the queue holds and no more: spans beyond it are dropped and counted, an export of metrics is skipped.
//!
//! What leaves the node: names of messages and actors, times, counts, its id and role. Never payloads, channel names,
//! customers or grants. The channel is loopback or TLS ([`Endpoint`]); TLS 1.3 as rustls speaks it protects telemetry,
//! not the network's own traffic.

mod adopt;
mod endpoint;
mod instruments;
mod push;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use pqcnet_actor::{Counter, Env, TRACE_TARGET};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

use crate::metrics::{PREFIX, Sample};
use adopt::{Adopt, Counted, SpanCounts};
use instruments::Instruments;
use push::{PushCounts, Told};

pub use endpoint::{Endpoint, EndpointError, Ratio, RatioError};

/// Spans that wait for the collector: at some 500 bytes each 4 MiB, and a second of 2,000 traced messages at a node.
const QUEUE_SPANS: usize = 8192;
/// Spans in one export.
const BATCH_SPANS: usize = 512;
/// The longest a span waits for others.
const DELAY: Duration = Duration::from_millis(500);
/// The longest an export may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between exports that the SDK makes by itself: none, each follows a reading of ours.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
/// The longest a process that ends waits for what is queued.
const GOODBYE: Duration = Duration::from_secs(3);

/// Where to, and who sends.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// The collector.
    pub endpoint: Endpoint,
    /// PEM certificates of the authorities that may vouch for it; without any, those that the system trusts.
    pub authorities: Option<Vec<u8>>,
    /// `service.name`: `pqcnet-relayer`.
    pub service: String,
    /// `service.version`.
    pub version: String,
    /// `service.instance.id`.
    pub instance: String,
}

/// Why telemetry cannot be sent; the operator erred.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The authorities' file holds no certificate.
    #[error("no certificate in the file of the collector's authorities: PEM is expected")]
    NoAuthority,
    /// Authorities that are no certificates, or no TLS here.
    #[error("TLS to the collector cannot be set up: {0}")]
    Tls(#[source] tonic::transport::Error),
    /// No exporter.
    #[error("the exporter does not start: {0}")]
    Exporter(String),
    /// No thread.
    #[error("no thread for telemetry: {0}")]
    Thread(#[source] std::io::Error),
}

/// What a node shows of its exporter, by [`Otlp::samples`].
#[derive(Clone, Debug, Default)]
struct Counts {
    spans: SpanCounts,
    pushes: PushCounts,
}

/// A connection to a collector. [`Otlp::stop`] sends what waits; dropped without it, that is lost.
#[derive(Debug)]
pub struct Otlp {
    runtime: Mutex<Option<Runtime>>,
    provider: SdkTracerProvider,
    meters: SdkMeterProvider,
    counts: Counts,
}

impl Otlp {
    /// Starts the exporter's thread. The collector need not answer yet, nor ever.
    ///
    /// # Errors
    /// The configuration does not make a connection.
    pub fn start(config: OtlpConfig) -> Result<Otlp, OtlpError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(OtlpError::Thread)?;
        // The channel's own task lives where it is made.
        let entered = runtime.enter();
        let channel = connect(&config)?;
        let unbuilt =
            |error: opentelemetry_otlp::ExporterBuildError| OtlpError::Exporter(error.to_string());
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(channel.clone())
            .with_timeout(TIMEOUT)
            .build()
            .map_err(unbuilt)?;
        let pusher = opentelemetry_otlp::MetricExporter::builder()
            // What a scrape shows as well: totals since the start.
            .with_temporality(Temporality::Cumulative)
            .with_tonic()
            .with_channel(channel)
            .with_timeout(TIMEOUT)
            .build()
            .map_err(unbuilt)?;
        drop(entered);
        let counts = Counts::default();
        let queue = BatchSpanProcessor::builder(Adopt::new(exporter, counts.spans.clone()))
            .with_batch_config(
                BatchConfigBuilder::default()
                    .with_max_queue_size(QUEUE_SPANS)
                    .with_max_export_batch_size(BATCH_SPANS)
                    .with_scheduled_delay(DELAY)
                    .build(),
            )
            .build();
        let provider = SdkTracerProvider::builder()
            // What is to be recorded was decided where the trace began.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource(&config))
            .with_span_processor(Counted {
                queue,
                counts: counts.spans.clone(),
            })
            .build();
        let meters = meters(Told::new(pusher, counts.pushes.clone()), resource(&config));
        Ok(Otlp {
            runtime: Mutex::new(Some(runtime)),
            provider,
            meters,
            counts,
        })
    }

    /// The subscriber's layer that takes the steps of traces and nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let steps =
            FilterFn::new(|metadata| metadata.is_span() && metadata.target() == TRACE_TARGET)
                .with_max_level_hint(LevelFilter::INFO);
        spans(self.provider.tracer("pqcnet")).with_filter(steps)
    }

    /// From now on every observation of the node's histograms goes into the exports. To be called before anything is
    /// observed that should be in them, once a node.
    pub fn mirror(&self, env: &Env) {
        instruments::mirror(&self.meter(), env);
    }

    fn meter(&self) -> Meter {
        self.meters.meter(PREFIX)
    }

    /// Sends what `collect` gives every so often, and the histograms, until [`Otlp::stop`].
    pub fn push_metrics(
        &self,
        env: &Env,
        every: Duration,
        collect: impl Fn() -> BoxFuture<'static, Vec<Sample>> + Send + 'static,
    ) {
        let (env, meters) = (env.clone(), self.meters.clone());
        let instruments = Instruments::new(self.meter());
        let pushing = async move {
            loop {
                env.sleep(every).await;
                // Actors are asked on the node's own runtime; here only the network is waited for.
                let Ok(samples) = env.task(collect()).await else {
                    continue;
                };
                instruments.take(samples);
                // The reader's thread exports; how that went, `Told` tells.
                if let Err(error) = tokio::task::block_in_place(|| meters.force_flush()) {
                    tracing::debug!(%error, "an export of metrics");
                }
            }
        };
        if let Some(runtime) = &*self.runtime() {
            drop(runtime.spawn(pushing));
        }
    }

    /// How exports fare, for a node's own metrics.
    pub fn samples(&self) -> impl Fn() -> Vec<Sample> + Send + Sync + 'static + use<> {
        let counts = self.counts.clone();
        move || {
            let spans = |outcome: &str, counter: &Counter| {
                let help = "Spans of traces, by what became of them; recorded ones are the sum of all and the lost";
                Sample::counter("telemetry_spans", help, counter.total()).label("outcome", outcome)
            };
            let pushes = |outcome: &str, counter: &Counter| {
                let help = "Exports of metrics to the collector";
                Sample::counter("telemetry_pushes", help, counter.total()).label("outcome", outcome)
            };
            vec![
                spans("recorded", &counts.spans.recorded),
                spans("exported", &counts.spans.exported),
                spans("failed", &counts.spans.failed),
                pushes("exported", &counts.pushes.exported),
                pushes("failed", &counts.pushes.failed),
            ]
        }
    }

    /// Sends the spans that wait now. Blocks; not for an actor or a task.
    pub fn flush(&self) {
        if let Err(error) = self.provider.force_flush() {
            tracing::debug!(%error, "spans that waited were not all sent");
        }
    }

    /// Sends what waits, for a few seconds at most, and ends. Blocks: for the end of `main`.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(GOODBYE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
        self.end();
    }

    fn runtime(&self) -> MutexGuard<'_, Option<Runtime>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never blocks, so this may be dropped anywhere.
    fn end(&self) {
        if let Some(runtime) = self.runtime().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        self.end();
    }
}

/// The provider of all instruments; exports are asked for, by nobody else.
fn meters(exporter: impl PushMetricExporter, resource: Resource) -> SdkMeterProvider {
    let reader = PeriodicReader::builder(exporter)
        .with_interval(NEVER)
        .build();
    SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(reader)
        .with_view(instruments::room)
        .build()
}

type Spans<S> = tracing_opentelemetry::OpenTelemetryLayer<S, SdkTracer>;

/// Ids and parents are ours, and so is what a span says: nothing of the layer's own.
fn spans<S>(tracer: SdkTracer) -> Spans<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_context_activation(false)
        .with_tracked_inactivity(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
}

fn connect(config: &OtlpConfig) -> Result<Channel, OtlpError> {
    let endpoint = Channel::from_shared(config.endpoint.as_str().to_owned())
        .map_err(|error| OtlpError::Exporter(error.to_string()))?
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT);
    if !config.endpoint.is_tls() {
        return Ok(endpoint.connect_lazy());
    }
    let tls = match &config.authorities {
        // It would be taken, and then vouch for nobody.
        Some(pem) if !holds_certificate(pem) => return Err(OtlpError::NoAuthority),
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let endpoint = endpoint.tls_config(tls).map_err(OtlpError::Tls)?;
    Ok(endpoint.connect_lazy())
}

fn holds_certificate(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----")
}

fn attributes(config: &OtlpConfig) -> [(&'static str, &str); 3] {
    [
        ("service.name", &config.service),
        ("service.version", &config.version),
        ("service.instance.id", &config.instance),
    ]
}

fn resource(config: &OtlpConfig) -> Resource {
    let own = attributes(config);
    Resource::builder_empty()
        .with_attributes(own.map(|(key, value)| KeyValue::new(key, value.to_owned())))
        .build()
}

#[cfg(test)]
mod tests;
