//! A collector in this process: takes spans and metrics over OTLP on loopback and keeps them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// The longest that what was sent may be on its way; only a broken exporter takes it.
const WITHIN: Duration = Duration::from_secs(20);
/// Spans kept; what comes beyond is counted.
const MAX_SPANS: usize = 100_000;

/// A span as it was exported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// `service.name` of who exported it.
    pub service: String,
    /// What it is called.
    pub name: String,
    /// Its trace.
    pub trace_id: u128,
    /// Itself.
    pub span_id: u64,
    /// Its parent; 0: none.
    pub parent_id: u64,
    /// OpenTelemetry's number of its kind.
    pub kind: i32,
    /// Nanoseconds since the Unix epoch.
    pub times: (u64, u64),
    /// Its attributes' names.
    pub attributes: Vec<String>,
}

/// What came so far.
#[derive(Debug, Default)]
pub struct Kept {
    /// Every span.
    pub spans: Vec<Span>,
    /// Spans beyond those kept.
    pub more_spans: usize,
    /// The last value of each metric by service and name: sums and gauges added up over their labels, histograms as
    /// their counts.
    pub metrics: BTreeMap<(String, String), f64>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    news: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector; it ends with this value.
pub struct Collector {
    /// Where it is: `http://127.0.0.1:…`.
    pub endpoint: String,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// One in clear text.
    pub async fn start() -> Result<Collector> {
        Collector::serve(None).await
    }

    /// One that speaks TLS under this certificate and key, both PEM.
    pub async fn start_tls(certificate: &str, key: &str) -> Result<Collector> {
        Collector::serve(Some(Identity::from_pem(certificate, key))).await
    }

    async fn serve(identity: Option<Identity>) -> Result<Collector> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let scheme = if identity.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::default());
        let mut server = Server::builder();
        if let Some(identity) = identity {
            server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
        }
        let serving = server
            .add_service(TraceServiceServer::new(Service(shared.clone())))
            .add_service(MetricsServiceServer::new(Service(shared.clone())))
            .serve_with_incoming(TcpIncoming::from(listener));
        let serving = tokio::spawn(async move {
            if let Err(error) = serving.await {
                panic!("the collector ended: {error}");
            }
        });
        Ok(Collector {
            endpoint,
            shared,
            serving,
        })
    }

    /// Looks at what came so far.
    pub fn look<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Waits until `look` finds what it looks for.
    pub async fn until<T>(&self, mut look: impl FnMut(&Kept) -> Option<T>) -> Result<T> {
        let found = async {
            loop {
                let mut news = std::pin::pin!(self.shared.news.notified());
                // Before the look, or what comes in between would be missed.
                news.as_mut().enable();
                if let Some(found) = look(&self.shared.lock()) {
                    return found;
                }
                news.await;
            }
        };
        let found = tokio::time::timeout(WITHIN, found).await;
        found.with_context(|| format!("not exported in time; so far: {:#?}", self.shared.lock()))
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        *self.shared.lock() = Kept::default();
    }
}

struct Service(Arc<Shared>);

fn service_name(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice());
    let name = |attribute: &KeyValue| match &attribute.value.as_ref()?.value {
        Some(Value::StringValue(text)) if attribute.key == "service.name" => Some(text.clone()),
        _ => None,
    };
    let found = attributes.unwrap_or_default().iter().find_map(name);
    found.unwrap_or_default()
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock();
        for of_service in request.into_inner().resource_spans {
            let service = service_name(of_service.resource.as_ref());
            for span in of_service
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                if kept.spans.len() >= MAX_SPANS {
                    kept.more_spans += 1;
                    continue;
                }
                kept.spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace_id: u128::from_be_bytes(number(&span.trace_id)),
                    span_id: u64::from_be_bytes(number(&span.span_id)),
                    parent_id: u64::from_be_bytes(number(&span.parent_span_id)),
                    kind: span.kind,
                    times: (span.start_time_unix_nano, span.end_time_unix_nano),
                    attributes: span.attributes.into_iter().map(|a| a.key).collect(),
                });
            }
        }
        drop(kept);
        self.0.news.notify_waiters();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A metric as one number.
fn amount(metric: &Metric) -> f64 {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
    let points = match &metric.data {
        Some(Data::Sum(sum)) => &sum.data_points,
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        Some(Data::Histogram(histogram)) => {
            let counts = histogram.data_points.iter().map(|point| point.count as f64);
            return counts.sum();
        }
        Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => return 0.0,
    };
    let amounts = points.iter().map(|point| match point.value {
        Some(Number::AsInt(n)) => n as f64,
        Some(Number::AsDouble(n)) => n,
        None => 0.0,
    });
    amounts.sum()
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut kept = self.0.lock();
        for of_service in request.into_inner().resource_metrics {
            let service = service_name(of_service.resource.as_ref());
            let metrics = of_service.scope_metrics.into_iter();
            for metric in metrics.flat_map(|scope| scope.metrics) {
                let key = (service.clone(), metric.name.clone());
                kept.metrics.insert(key, amount(&metric));
            }
        }
        drop(kept);
        self.0.news.notify_waiters();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
