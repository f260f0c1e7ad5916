// Scenarios: recorded steps are exported under their own ids, other spans never; what the queue has no room for is lost
// and counted; a collector that does not answer delays nobody; TLS authorities that are none are the operator's fault.
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use pqcnet_actor::{StepKind, TraceCx};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// Keeps what it is given; while it is held, gives nothing back.
#[derive(Clone, Debug, Default)]
struct Collector(Arc<(Mutex<Kept>, Condvar)>);

#[derive(Debug, Default)]
struct Kept {
    held: bool,
    spans: Vec<SpanData>,
}

impl Collector {
    fn hold(&self, held: bool) {
        self.0.0.lock().unwrap().held = held;
        self.0.1.notify_all();
    }

    fn spans(&self) -> Vec<SpanData> {
        self.0.0.lock().unwrap().spans.clone()
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut kept = self.0.0.lock().unwrap();
        while kept.held {
            kept = self.0.1.wait(kept).unwrap();
        }
        kept.spans.extend(batch);
        Ok(())
    }
}

fn provider(collector: &Collector, counts: &SpanCounts, queue: usize) -> SdkTracerProvider {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(queue)
        .with_max_export_batch_size(1)
        .build();
    let queue = BatchSpanProcessor::builder(Adopt::new(collector.clone(), counts.clone()))
        .with_batch_config(config)
        .build();
    let counts = counts.clone();
    SdkTracerProvider::builder()
        .with_span_processor(Counted { queue, counts })
        .build()
}

/// The layer as [`Otlp::layer`] makes it.
fn recording<T>(provider: &SdkTracerProvider, f: impl FnOnce(&Env) -> T) -> T {
    let steps = FilterFn::new(|metadata| metadata.is_span() && metadata.target() == TRACE_TARGET);
    let layer = spans(provider.tracer("test")).with_filter(steps);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _in = runtime.enter();
    let env = Env::plain();
    env.set_sampling(1.0);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || f(&env))
}

#[test]
fn steps_are_exported_under_their_own_ids() {
    let (collector, counts) = (Collector::default(), SpanCounts::default());
    let provider = provider(&collector, &counts, 100);
    let (root, outer, inner) = recording(&provider, |env| {
        let root = env.begin_trace();
        let outer = env
            .step(root, "Publish", StepKind::Producer, &"client")
            .unwrap();
        let inner = outer.scope(|| {
            // Somebody else's span between the two is no part of the trace.
            let _stranger = tracing::info_span!("stranger").entered();
            env.step(TraceCx::current(), "Admit", StepKind::Consumer, &"shard-1")
                .unwrap()
        });
        inner.fail("no disk");
        (root, outer.cx(), inner.cx())
    });
    provider.force_flush().unwrap();
    let mut spans = collector.spans();
    spans.sort_by_key(|span| span.name.clone());
    let [admit, publish] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    let trace = TraceId::from(root.trace_id);
    for (span, name, kind, parent, own) in [
        (publish, "Publish", SpanKind::Producer, 0, outer.span_id),
        (
            admit,
            "Admit",
            SpanKind::Consumer,
            outer.span_id,
            inner.span_id,
        ),
    ] {
        assert_eq!((span.name.as_ref(), &span.span_kind), (name, &kind));
        assert_eq!(span.span_context.trace_id(), trace);
        assert_eq!(span.span_context.span_id(), SpanId::from(own));
        assert_eq!(span.parent_span_id, SpanId::from(parent));
        let keys: Vec<&str> = span.attributes.iter().map(|a| a.key.as_str()).collect();
        assert_eq!(keys, ["pqcnet.actor"]);
    }
    assert_eq!(admit.status, Status::error("no disk"));
    assert_eq!(publish.status, Status::Unset);
    assert_eq!(counts.recorded.total(), 2);
    assert_eq!((counts.exported.total(), counts.failed.total()), (2, 0));
}

#[test]
fn a_collector_that_hangs_costs_the_queue_and_no_more() {
    let (collector, counts) = (Collector::default(), SpanCounts::default());
    let provider = provider(&collector, &counts, 10);
    collector.hold(true);
    recording(&provider, |env| {
        for _ in 0..100 {
            drop(env.step(env.begin_trace(), "Publish", StepKind::Internal, &"client"));
        }
    });
    collector.hold(false);
    provider.force_flush().unwrap();
    assert_eq!(counts.recorded.total(), 100);
    let exported = counts.exported.total();
    // The queue's ten, and one that was taken before it filled.
    assert!((10..=11).contains(&exported), "{exported}");
    assert_eq!(collector.spans().len() as u64, exported);
}

fn config(endpoint: &str, authorities: Option<&str>) -> OtlpConfig {
    OtlpConfig {
        endpoint: endpoint.parse().unwrap(),
        authorities: authorities.map(|pem| pem.as_bytes().to_vec()),
        service: "test".to_owned(),
        version: "1".to_owned(),
        instance: "a".to_owned(),
    }
}

#[test]
fn a_collector_that_is_not_there_is_no_reason_not_to_start() {
    // A port that was just free: nobody answers.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let otlp = Otlp::start(config(&format!("http://{port}"), None)).unwrap();
    let samples = otlp.samples()();
    assert_eq!(samples.len(), 5);
    assert!(
        samples
            .iter()
            .all(|sample| sample.value == crate::Value::Counter(0))
    );
    otlp.stop();
}

#[test]
fn authorities_must_be_certificates() {
    let start = |pem| Otlp::start(config("https://127.0.0.1:1", Some(pem))).map(|_| ());
    let none = start("a private key, perhaps");
    assert!(matches!(none, Err(OtlpError::NoAuthority)), "{none:?}");
    let broken = start("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    assert!(matches!(broken, Err(OtlpError::Tls(_))), "{broken:?}");
}

/// What an exporter of metrics got last, by name: kind, unit, and each series with its labels.
#[derive(Clone, Debug, Default)]
struct Board(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl PushMetricExporter for Board {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut board = self.0.lock().unwrap();
        board.clear();
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let lines = match metric.data() {
                AggregatedMetrics::U64(data) => lines(data, metric.unit()),
                AggregatedMetrics::F64(data) => lines(data, metric.unit()),
                other => panic!("{other:?}"),
            };
            let twice = board.insert(metric.name().to_owned(), lines);
            assert_eq!(twice, None, "{} is there twice", metric.name());
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let labels = attributes.map(|label| format!("{}={}", label.key, label.value));
    labels.collect::<Vec<_>>().join(",")
}

fn lines<T: std::fmt::Debug + Copy>(data: &MetricData<T>, unit: &str) -> Vec<String> {
    let mut lines: Vec<String> = match data {
        MetricData::Gauge(gauge) => gauge
            .data_points()
            .map(|at| {
                format!(
                    "gauge {unit} {{{}}} {:?}",
                    labels(at.attributes()),
                    at.value()
                )
            })
            .collect(),
        MetricData::Sum(sum) => {
            assert!(sum.is_monotonic() && sum.temporality() == Temporality::Cumulative);
            sum.data_points()
                .map(|at| {
                    format!(
                        "sum {unit} {{{}}} {:?}",
                        labels(at.attributes()),
                        at.value()
                    )
                })
                .collect()
        }
        MetricData::Histogram(histogram) => histogram
            .data_points()
            .map(|at| {
                assert_eq!(at.bounds().collect::<Vec<_>>(), pqcnet_actor::BUCKETS);
                let counts = at.bucket_counts().enumerate();
                let counts = counts.filter(|(_, n)| *n > 0).collect::<Vec<_>>();
                let labels = labels(at.attributes());
                format!("histogram {unit} {{{labels}}} {counts:?} {:?}", at.sum())
            })
            .collect(),
        MetricData::ExponentialHistogram(_) => panic!("nobody asked for one"),
    };
    lines.sort();
    lines
}

/// Scenario: samples of every kind come to an exporter as instruments of their kinds, with units and labels, in two readings
/// one after the other: a series that is not in the second reading is not in the second export, a new name is. Histograms
/// come with what was observed, in buckets of our bounds, whether they were made before the mirror or after it.
#[test]
fn samples_are_instruments_of_the_sdk() {
    let board = Board::default();
    let meters = meters(board.clone(), Resource::builder_empty().build());
    let meter = meters.meter(PREFIX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _in = runtime.enter();
    let env = Env::plain();
    let early = env.histogram("ack_seconds", "Acks", &[]);
    instruments::mirror(&meter, &env);
    early.observe(Duration::from_millis(2));
    let late = env.histogram("step_seconds", "Steps", &[("side", "dialler")]);
    late.observe(Duration::from_micros(100));
    late.observe(Duration::from_secs(11));

    let instruments = Instruments::new(meter);
    let shard =
        |number: &str, bytes| Sample::gauge("shard_bytes", "Bytes", bytes).label("shard", number);
    instruments.take(vec![
        shard("3", 7),
        shard("4", 8),
        Sample::counter("frames", "Frames", u64::MAX),
        Sample::new("busy_seconds", "Busy", crate::Value::CounterOf(1.5)),
        Sample::new("load", "Load", crate::Value::GaugeOf(0.25)),
        // The page's view of what is mirrored.
        Sample::new(
            "ack_seconds",
            "Acks",
            crate::Value::Histogram(early.observed()),
        ),
    ]);
    meters.force_flush().unwrap();
    let shown = |board: &Board| {
        let board = board.0.lock().unwrap();
        let lines = board
            .iter()
            .flat_map(|(name, lines)| lines.iter().map(move |line| format!("{name} {line}")));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&board),
        [
            "pqcnet_ack_seconds histogram s {} [(4, 1)] 0.002",
            "pqcnet_busy_seconds sum s {} 1.5",
            "pqcnet_frames sum 1 {} 9223372036854775807",
            "pqcnet_load gauge 1 {} 0.25",
            "pqcnet_shard_bytes gauge By {shard=3} 7",
            "pqcnet_shard_bytes gauge By {shard=4} 8",
            "pqcnet_step_seconds histogram s {side=dialler} [(0, 1), (16, 1)] 11.0001",
        ]
    );

    early.observe(Duration::from_millis(3));
    instruments.take(vec![
        shard("4", 9),
        Sample::counter("adverts", "Adverts", 1),
    ]);
    meters.force_flush().unwrap();
    assert_eq!(
        shown(&board),
        [
            "pqcnet_ack_seconds histogram s {} [(4, 1), (5, 1)] 0.005",
            "pqcnet_adverts sum 1 {} 1",
            "pqcnet_shard_bytes gauge By {shard=4} 9",
            "pqcnet_step_seconds histogram s {side=dialler} [(0, 1), (16, 1)] 11.0001",
        ]
    );
}

/// Scenario: as many series as a node may show, in one instrument: each is exported under its own labels.
#[test]
fn every_series_has_room() {
    let board = Board::default();
    let meters = meters(board.clone(), Resource::builder_empty().build());
    let instruments = Instruments::new(meters.meter(PREFIX));
    let samples = (0..crate::metrics::MAX_SAMPLES).map(|shard| {
        Sample::gauge("shard_records", "Records", 1).label("shard", shard.to_string())
    });
    instruments.take(samples.collect());
    meters.force_flush().unwrap();
    let shown = board.0.lock().unwrap()["pqcnet_shard_records"].len();
    assert_eq!(shown, crate::metrics::MAX_SAMPLES);
}
