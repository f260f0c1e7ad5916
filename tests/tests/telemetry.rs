//! Traces and metrics of real processes, as a collector in this process gets them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use pqcnet_client::{Client, ClientConfig, TraceCx};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_telemetry::logs::{self, LogFormat};
use pqcnet_telemetry::{Otlp, OtlpConfig};
use pqcnet_tests::network::Network;
use pqcnet_tests::otlp::{Collector, Span};

const CLIENT: &str = "an-application";
const SENTRY: &str = "pqcnet-sentry";
const RELAYER: &str = "pqcnet-relayer";

/// A step of a trace: who, what, and who and what it follows from.
type Edge<'a> = (&'a str, &'a str, Option<(&'a str, &'a str)>);

/// The trace as a tree: each span beside its parent, `None` for one whose parent is no span of it.
fn tree(spans: &[Span]) -> Vec<Edge<'_>> {
    let by_id: BTreeMap<u64, &Span> = spans.iter().map(|span| (span.span_id, span)).collect();
    assert_eq!(by_id.len(), spans.len(), "a span id twice: {spans:#?}");
    let mut edges: Vec<Edge<'_>> = spans
        .iter()
        .map(|span| {
            let parent = by_id.get(&span.parent_id).map(|parent| {
                assert!(
                    parent.times.0 <= span.times.1,
                    "it ended before it was caused"
                );
                (parent.service.as_str(), parent.name.as_str())
            });
            (span.service.as_str(), span.name.as_str(), parent)
        })
        .collect();
    edges.sort_unstable();
    edges
}

/// What one message does at the nodes, once it is at its sentry under `cause`.
fn at_the_nodes<'a>(cause: Option<(&'a str, &'a str)>) -> Vec<Edge<'a>> {
    vec![
        (SENTRY, "edge.Publish", cause),
        (RELAYER, "relay.Publish", Some((SENTRY, "edge.Publish"))),
        (RELAYER, "relay.Admit", Some((RELAYER, "relay.Publish"))),
        (RELAYER, "durable", Some((RELAYER, "relay.Admit"))),
        (SENTRY, "relay.Deliver", Some((RELAYER, "durable"))),
        (SENTRY, "sentry.Forward", Some((SENTRY, "relay.Deliver"))),
    ]
}

fn telemetry(network: &Network, role: Role, endpoint: &str, sampling: &str) -> Result<()> {
    let path = network.node(role, 1).folder().join("node.toml");
    let mut config = std::fs::OpenOptions::new().append(true).open(path)?;
    let section = format!(
        "\n[telemetry]\nendpoint = \"{endpoint}\"\nsampling = {sampling}\nmetrics_seconds = 1\n"
    );
    Ok(config.write_all(section.as_bytes())?)
}

fn exporter(endpoint: &str, authorities: Option<Vec<u8>>) -> Result<Otlp> {
    Ok(Otlp::start(OtlpConfig {
        endpoint: endpoint.parse()?,
        authorities,
        service: CLIENT.to_owned(),
        version: "1".to_owned(),
        instance: "test".to_owned(),
    })?)
}

/// The spans of a trace once there are so many of it, sorted.
async fn trace(collector: &Collector, trace_id: u128, spans: usize) -> Result<Vec<Span>> {
    let all = collector.until(|kept| {
        let of_trace = kept.spans.iter().filter(|span| span.trace_id == trace_id);
        let of_trace: Vec<Span> = of_trace.cloned().collect();
        (of_trace.len() >= spans).then_some(of_trace)
    });
    all.await.with_context(|| format!("trace {trace_id:032x}"))
}

/// An application publishes one message within a trace of its own: all that happens to it, at the client, the sentry and
/// the relayer, until it is back at the subscriber, is that one trace, step under step. A message of an application that
/// traces nothing begins its trace at the sentry, which samples all. Metrics of both nodes come to the same collector,
/// histograms of what took place among them.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_one_trace() -> Result<()> {
    let collector = Collector::start().await?;
    let network = Network::create(1, 1, Admission::Any)?;
    // Whether a relayer samples does not matter: it begins no trace.
    telemetry(&network, Role::Sentry, &collector.endpoint, "1.0")?;
    telemetry(&network, Role::Relayer, &collector.endpoint, "0.0")?;
    network.start_all().await?;
    let otlp = exporter(&collector.endpoint, None)?;
    logs::init_with(&"warn".parse()?, LogFormat::Text, Some(&otlp))?;

    let keys = Arc::new(NodeKeys::generate());
    let client = Client::connect(ClientConfig::new(network.file.clone(), keys)).await?;
    let channel = "traced".parse()?;
    let mut records = client
        .subscribe(&client.channel("traced".parse()?), 0)
        .await?;
    let publisher = client.publisher(&channel)?;

    // The application traces nothing.
    publisher.publish("first").await?;
    assert_eq!(records.next().await?.offset, 1);
    let begun = collector.until(|kept| {
        let mut roots = kept.spans.iter().filter(|span| span.name == "edge.Publish");
        roots.next().map(|span| span.trace_id)
    });
    let begun = trace(&collector, begun.await?, 7).await?;
    let mut expected = at_the_nodes(None);
    expected.push((CLIENT, "edge.Deliver", Some((SENTRY, "sentry.Forward"))));
    expected.sort_unstable();
    assert_eq!(tree(&begun), expected);
    let root = begun.iter().find(|span| span.name == "edge.Publish");
    assert_eq!(root.map(|span| span.parent_id), Some(0));

    // The application is within a trace of its own.
    let own = TraceCx {
        trace_id: 0x5eed_0000_0000_0000_0000_0000_0000_0001,
        span_id: 0xabcd,
        sampled: true,
    };
    publisher.within(own).publish("second").await?;
    assert_eq!(records.next().await?.offset, 2);
    let spans = trace(&collector, own.trace_id, 8).await?;
    let mut expected = at_the_nodes(Some((CLIENT, "publish")));
    expected.push((CLIENT, "publish", None));
    expected.push((CLIENT, "edge.Deliver", Some((SENTRY, "sentry.Forward"))));
    expected.sort_unstable();
    assert_eq!(tree(&spans), expected);
    let first = spans.iter().find(|span| span.name == "publish");
    let first = first.context("the client's own step")?;
    assert_eq!(first.parent_id, own.span_id);
    // It lasts until the acknowledgement, so until the message is durable.
    let durable = spans.iter().find(|span| span.name == "durable");
    assert!(durable.is_some_and(|durable| durable.times.1 <= first.times.1));
    // Names of messages and actors leave the node, nothing of what they carry.
    assert!(spans.iter().all(|span| span.attributes == ["pqcnet.actor"]));

    // One that is not sampled stays so on every node.
    collector.forget();
    let unsampled = TraceCx {
        trace_id: own.trace_id + 1,
        sampled: false,
        ..own
    };
    publisher.within(unsampled).publish("third").await?;
    publisher.within(own).publish("fourth").await?;
    assert_eq!(records.next().await?.offset, 3);
    assert_eq!(records.next().await?.offset, 4);
    trace(&collector, own.trace_id, 8).await?;
    let strangers = |kept: &pqcnet_tests::otlp::Kept| {
        let others = kept
            .spans
            .iter()
            .filter(|span| span.trace_id != own.trace_id);
        others.cloned().collect::<Vec<_>>()
    };
    assert_eq!(collector.look(strangers), []);

    for (service, metric, least) in [
        (SENTRY, "pqcnet_edge_ack_seconds", 4.0),
        (SENTRY, "pqcnet_handshake_seconds", 2.0),
        (SENTRY, "pqcnet_client_sessions", 1.0),
        (SENTRY, "pqcnet_serving", 1.0),
        (RELAYER, "pqcnet_relay_ack_seconds", 4.0),
        (RELAYER, "pqcnet_delivery_seconds", 4.0),
        (RELAYER, "pqcnet_store_write_seconds", 4.0),
        (RELAYER, "pqcnet_shard_records", 4.0),
        (RELAYER, "pqcnet_telemetry_spans", 1.0),
    ] {
        let key = (service.to_owned(), metric.to_owned());
        let enough =
            collector.until(|kept| kept.metrics.get(&key).filter(|n| **n >= least).copied());
        enough
            .await
            .with_context(|| format!("{metric} of {service}"))?;
    }
    drop(client);
    network.stop().await?;
    otlp.stop();
    Ok(())
}

/// Over TLS: a collector whose certificate the named authority vouches for gets the spans, one that only the system could
/// vouch for does not, and the exporter counts what it could not send.
#[tokio::test(flavor = "multi_thread")]
async fn telemetry_over_tls_wants_a_known_certificate() -> Result<()> {
    use tracing_subscriber::layer::SubscriberExt as _;

    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let collector = Collector::start_tls(&certificate, &key).await?;
    for (authorities, known) in [(Some(certificate.into_bytes()), true), (None, false)] {
        collector.forget();
        let otlp = Arc::new(exporter(&collector.endpoint, authorities)?);
        let env = pqcnet_actor::Env::plain();
        env.set_sampling(1.0);
        let subscriber = tracing_subscriber::registry().with(otlp.layer());
        tracing::subscriber::with_default(subscriber, || {
            let kind = pqcnet_actor::StepKind::Internal;
            drop(env.step(env.begin_trace(), "over-tls", kind, &"test"));
        });
        let flushing = otlp.clone();
        env.offload(move || flushing.flush()).await?;
        let count = |outcome: &str| {
            let samples = otlp.samples()();
            let label = ("outcome", outcome.to_owned());
            let found = samples
                .into_iter()
                .find(|sample| sample.labels.contains(&label));
            found.map(|sample| sample.value)
        };
        let one = |yes: bool| Some(pqcnet_telemetry::Value::Counter(u64::from(yes)));
        assert_eq!(
            (count("exported"), count("failed")),
            (one(known), one(!known))
        );
        let came = collector.look(|kept| kept.spans.len());
        assert_eq!(came, usize::from(known));
        env.offload(move || otlp.stop()).await?;
    }
    Ok(())
}
