//! What `deploy/observability` holds, against live nodes: `promtool` lints their metrics, checks and tests the rules; a
//! private Prometheus scrapes them, and every query of the dashboard and of the rules is asked of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pqcnet_client::Client;
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::network::Network;
use pqcnet_tests::otlp::Collector;
use pqcnet_tests::tools::{self, Running};
use serde_json::Value;

const PACKAGE: &str = "prometheus";
/// A query that has no answer by then never will.
const WITHIN: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("tests/ lies in the root").to_owned()
}

fn rules() -> PathBuf {
    root().join("deploy/observability/prometheus")
}

/// The rules and the scrape configuration are valid; each alert has a test in which it fires and one in which it has
/// resolved, and all of them hold; every runbook exists.
#[test]
fn rules_fire_and_resolve() -> Result<()> {
    let promtool = tools::find("promtool", PACKAGE)?;
    let path = |name: &str| rules().join(name).display().to_string();
    tools::run(&promtool, &["check", "config", &path("prometheus.yml")], "")?;
    tools::run(&promtool, &["check", "rules", &path("alerts.yml")], "")?;
    tools::run(&promtool, &["test", "rules", &path("alerts_test.yml")], "")?;

    let alerts = fs::read_to_string(rules().join("alerts.yml"))?;
    let tests = fs::read_to_string(rules().join("alerts_test.yml"))?;
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let checks: Vec<&str> = tests
            .split("- eval_time: ")
            .filter(|check| {
                check
                    .lines()
                    .any(|line| line.trim() == format!("alertname: {name}"))
            })
            .collect();
        let silent: Vec<bool> = checks
            .iter()
            .map(|check| check.contains("exp_alerts: []"))
            .collect();
        let fired = silent.iter().position(|silent| !silent);
        let resolved = silent.iter().rposition(|silent| *silent);
        ensure!(fired.is_some(), "{name} is never made to fire");
        ensure!(
            resolved > fired,
            "{name} is never made to resolve after it fired"
        );
    }
    let mut linked = 0;
    for link in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
    {
        linked += 1;
        // Of a problem's code; pqcnet-roles has a test that each of these has its page.
        if !link.contains("{{") {
            assert!(root().join(link).is_file(), "{link} is missing");
        }
    }
    assert_eq!(
        linked,
        alerts.matches("- alert: ").count(),
        "an alert without a runbook"
    );
    Ok(())
}

/// Every node's page passes `promtool check metrics`, in Prometheus's own format; whoever asks for OpenMetrics gets that;
/// and no count that a node reports is missing among its metrics.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_named_as_prometheus_wants_them() -> Result<()> {
    let promtool = tools::find("promtool", PACKAGE)?;
    let network = live().await?;
    let client = traffic(&network).await?;
    for node in &network.nodes {
        let url = format!("http://{}/metrics", node.admin()?);
        let page = get(url.clone()).await?;
        tools::run(&promtool, &["check", "metrics"], &page).with_context(|| page.clone())?;
        assert!(!page.contains("role_count"), "{page}");
        let open = ureq::get(&url).header("accept", "application/openmetrics-text;version=1.0.0");
        let open = open.call()?.body_mut().read_to_string()?;
        assert!(open.ends_with("# EOF\n"), "{open}");
        let snapshot = node.log();
        assert!(
            !snapshot.contains("a count that is no metric"),
            "{snapshot}"
        );
    }
    drop(client);
    network.stop().await
}

/// A sentry and a relayer whose log tells of counts that are no metric, and who have a collector to send to.
async fn live() -> Result<Network> {
    let network = Network::create(1, 1, Admission::Any)?;
    for node in &network.nodes {
        let path = node.folder().join("node.toml");
        let mut config = fs::OpenOptions::new().append(true).open(path)?;
        writeln!(config, "\n[log]\nlevel = \"info,pqcnet_node=debug\"")?;
    }
    network.start_all().await?;
    Ok(network)
}

/// Some messages there and back; what it took is in the nodes' metrics. The client stays.
async fn traffic(network: &Network) -> Result<Client> {
    let client = network.client(&Arc::new(NodeKeys::generate())).await?;
    let name = "observed".parse()?;
    let mut records = client
        .subscribe(&client.channel("observed".parse()?), 0)
        .await?;
    for number in 1..=20u64 {
        client.publish(&name, number.to_be_bytes().to_vec()).await?;
        assert_eq!(records.next().await?.offset, number);
    }
    Ok(client)
}

async fn get(url: String) -> Result<String> {
    let asked = pqcnet_actor::Env::plain().offload(move || -> Result<String> {
        Ok(ureq::get(&url).call()?.body_mut().read_to_string()?)
    });
    asked.await?
}

/// A Prometheus of our own on loopback, with the rules of the repository and a short breath.
struct Prometheus {
    at: String,
    log: PathBuf,
    _running: Running,
}

impl Prometheus {
    fn start(folder: &Path, targets: &[String]) -> Result<Prometheus> {
        let program = tools::find("prometheus", PACKAGE)?;
        // Free just now; nobody else on this machine picks ports of the ephemeral range by number.
        let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (config, log) = (folder.join("prometheus.yml"), folder.join("prometheus.log"));
        let targets: Vec<String> = targets
            .iter()
            .map(|target| format!("\"{target}\""))
            .collect();
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\n\
             scrape_configs: [{{job_name: pqcnet, static_configs: [{{targets: [{}]}}]}}]\n",
            rules().join("alerts.yml").display(),
            targets.join(", ")
        );
        fs::write(&config, text)?;
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={at}"),
            "--log.level=warn".to_owned(),
        ];
        Ok(Prometheus {
            _running: Running::start(&program, &arguments, &log)?,
            at,
            log,
        })
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&get(format!("http://{}{path}", self.at)).await?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The values of an instant query.
    async fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let data = self
            .ask(&format!("/api/v1/query?query={}", encoded(expression)))
            .await;
        let data = data.with_context(|| expression.to_owned())?;
        let results = data["result"].as_array().context("no result")?;
        let value = |result: &Value| result["value"][1].as_str()?.parse().ok();
        Ok(results.iter().filter_map(value).collect())
    }

    /// Waits until a query's values are as wanted.
    async fn until(&self, expression: &str, wanted: impl Fn(&[f64]) -> bool) -> Result<()> {
        let found = async {
            loop {
                match self.query(expression).await {
                    Ok(values) if wanted(&values) => return,
                    // Not up yet, or nothing scraped yet: asked again, which takes a round trip.
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        if tokio::time::timeout(WITHIN, found).await.is_err() {
            let last = self.query(expression).await;
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("`{expression}` stays {last:?}\n{log}");
        }
        Ok(())
    }
}

/// For a URL: everything but letters and digits by its number.
fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    bytes.collect()
}

/// Every query of the dashboard, with its variables filled in.
fn dashboard() -> Result<Vec<(String, String)>> {
    let path = root().join("deploy/observability/grafana/dashboards/pqcnet.json");
    let board: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("a panel without a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"]
                .as_str()
                .context("a target without a query")?;
            let filled = expression
                .replace("$node", ".*")
                .replace("$__rate_interval", "5m");
            ensure!(
                !filled.contains('$'),
                "{title}: a variable nobody fills in: {expression}"
            );
            queries.push((title.to_owned(), filled));
        }
        let runbook = panel["description"]
            .as_str()
            .and_then(|d| d.split("Runbook: ").nth(1));
        if let Some(runbook) = runbook {
            ensure!(
                root().join(runbook).is_file(),
                "{title}: {runbook} is missing"
            );
        }
    }
    Ok(queries)
}

/// Names of metrics in an expression.
fn metrics_of(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("pqcnet_") || *word == "up")
        .collect()
}

/// Live nodes with traffic and a collector: each query of the dashboard has data, each metric that an alert is about
/// exists, each rule is evaluated without an error and none fires. Then the relayer dies: what says that a node is down and
/// that the sentry does not serve becomes true, and false again once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn every_query_has_data() -> Result<()> {
    let collector = Collector::start().await?;
    let network = Network::create(1, 1, Admission::Any)?;
    for node in &network.nodes {
        // Prometheus knows a node by its address: it must be the same after a restart.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = node.folder().join("node.toml");
        let config = fs::read_to_string(&path)?;
        let config = config.replace(
            "listen = \"127.0.0.1:0\"",
            &format!("listen = \"127.0.0.1:{port}\""),
        );
        let telemetry = format!(
            "\n[telemetry]\nendpoint = \"{}\"\nsampling = 1.0\nmetrics_seconds = 1\n",
            collector.endpoint
        );
        fs::write(&path, config + &telemetry)?;
    }
    network.start_all().await?;
    let place = tempfile::tempdir()?;
    let admins = network
        .nodes
        .iter()
        .map(|node| Ok(node.admin()?.to_string()));
    let prometheus = Prometheus::start(place.path(), &admins.collect::<Result<Vec<_>>>()?)?;
    prometheus
        .until("sum(pqcnet_serving)", |values| values == [2.0])
        .await?;
    // After the first scrape, so that rates see it.
    let client = traffic(&network).await?;
    let grown = "sum(increase(pqcnet_relay_ack_seconds_count[5m])) > 0";
    prometheus.until(grown, |values| values.len() == 1).await?;

    let queries = dashboard()?;
    assert!(queries.len() > 40, "{}", queries.len());
    for (title, query) in &queries {
        // A quantile of nothing, as of handshakes in a quiet minute, is no number; one of them at least is.
        let found = prometheus.until(query, |values| values.iter().any(|value| value.is_finite()));
        found.await.with_context(|| title.clone())?;
    }

    let groups = prometheus.ask("/api/v1/rules").await?;
    let rules = groups["groups"][0]["rules"]
        .as_array()
        .context("no rules")?
        .clone();
    assert!(rules.len() > 10, "{rules:?}");
    for rule in &rules {
        let name = rule["name"].as_str().context("a rule without a name")?;
        let expression = rule["query"].as_str().context("a rule without a query")?;
        for metric in metrics_of(expression) {
            let query = format!("count({metric})");
            let exists = prometheus.until(&query, |values| values.len() == 1);
            exists
                .await
                .with_context(|| format!("{name} asks for {metric}"))?;
        }
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    prometheus.until("ALERTS", <[f64]>::is_empty).await?;

    let expression = |alert: &str| -> Result<String> {
        let rule = rules
            .iter()
            .find(|rule| rule["name"] == alert)
            .context("no such alert")?;
        Ok(rule["query"].as_str().context("no query")?.to_owned())
    };
    let (down, idle) = (
        expression("PqcnetNodeDown")?,
        expression("PqcnetNotServing")?,
    );
    let critical = expression("PqcnetProblemCritical")?;
    network.node(Role::Relayer, 1).kill().await?;
    for query in [&down, &idle, &critical] {
        prometheus.until(query, |values| !values.is_empty()).await?;
    }
    network.node(Role::Relayer, 1).start().await?;
    for query in [&down, &idle, &critical] {
        prometheus.until(query, <[f64]>::is_empty).await?;
    }
    drop(client);
    network.stop().await
}
