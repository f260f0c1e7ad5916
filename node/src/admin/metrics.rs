//! What a node counts, as metrics: one reading for `/metrics` and for the collector.
//!
//! Names follow Prometheus (base units, `_total`), so that `promtool check metrics` has nothing to say. Every series that
//! an alert or a dashboard asks for is there from the start, at zero.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use pqcnet_actor::{ActorInfo, Class, CountersSnapshot, Env, Inspector, Ref};
use pqcnet_messages::control::Plane;
use pqcnet_roles::caretaker::MADE_AT_MS;
use pqcnet_roles::problem::{Code, Problem, Severity};
use pqcnet_roles::steward::{Account, AccountGiven, plane_name};
use pqcnet_telemetry::{Metrics, Sample, TextFormat, Value};

use super::ACCOUNT_DEADLINE;

type Source = Arc<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// Reads everything that a node counts. Clones share it.
#[derive(Clone)]
pub(super) struct Scrape {
    account: Ref<Account>,
    inspector: Inspector,
    env: Env,
    sources: Arc<Mutex<Vec<Source>>>,
    metrics: Metrics,
    latest: Arc<Mutex<Vec<Sample>>>,
}

impl Scrape {
    pub(super) fn new(account: Ref<Account>, inspector: Inspector, env: Env) -> Scrape {
        let (metrics, latest) = (Metrics::new(), Arc::new(Mutex::new(Vec::new())));
        let scraped: Arc<Mutex<Vec<Sample>>> = Arc::clone(&latest);
        metrics.source(move || lock(&scraped).clone());
        Scrape {
            account,
            inspector,
            env,
            sources: Arc::default(),
            metrics,
            latest,
        }
    }

    /// Adds what else is read at every scrape; it must be quick.
    pub(super) fn source(&self, read: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        lock(&self.sources).push(Arc::new(read));
    }

    /// Everything as it is now. A steward that does not answer leaves its part out.
    pub(super) async fn samples(&self) -> Vec<Sample> {
        let mut samples = runtime_samples(&self.env.counters());
        samples.extend(process_samples());
        samples.extend(self.env.meters().into_iter().map(Sample::from));
        for source in lock(&self.sources).iter() {
            samples.extend(source());
        }
        if let Ok(given) = self.account.ask(Account, ACCOUNT_DEADLINE).await {
            samples.extend(account_samples(&given));
        }
        samples.extend(actor_samples(&self.inspector.inspect().await));
        samples
    }

    /// The page.
    pub(super) async fn page(&self, format: TextFormat) -> Result<String, String> {
        let samples = self.samples().await;
        *lock(&self.latest) = samples;
        self.metrics
            .render(format)
            .map_err(|error| error.to_string())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn runtime_samples(counters: &CountersSnapshot) -> Vec<Sample> {
    [
        (
            "dead_letters",
            "Messages that no actor handled",
            counters.dead_letters,
        ),
        (
            "messages_dropped",
            "Bulk messages dropped at a full lane",
            counters.bulk_dropped,
        ),
        (
            "messages_refused",
            "Messages handed back to their sender at a full lane",
            counters.refused,
        ),
        (
            "actor_panics",
            "Incarnations of actors that panicked",
            counters.panics,
        ),
        (
            "actor_restarts",
            "Incarnations of actors started in the place of an ended one",
            counters.restarts,
        ),
        (
            "actor_kills",
            "Actors cut off at their shutdown deadline",
            counters.killed,
        ),
    ]
    .map(|(name, help, value)| Sample::counter(name, help, value))
    .into()
}

/// What the kernel says of this process; what it does not say is left out.
fn process_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let open = std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    if let Ok(open) = open {
        // One of them is the folder being read.
        let help = "File descriptors that this process has open";
        samples.push(Sample::gauge(
            "process_open_descriptors",
            help,
            count(open.saturating_sub(1)),
        ));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let help = "File descriptors that this process may open";
        samples.push(Sample::gauge("process_max_descriptors", help, soft));
    }
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = |time: nix::sys::time::TimeVal| {
            time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0
        };
        let cpu = Value::CounterOf(seconds(usage.user_time()) + seconds(usage.system_time()));
        let help = "CPU time of this process";
        samples.push(Sample::new("process_cpu_seconds", help, cpu));
    }
    if let Some(bytes) = resident_bytes() {
        let help = "Memory of this process that is in RAM";
        samples.push(Sample::gauge("process_resident_memory_bytes", help, bytes));
    }
    samples
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// A count in a node's report, and the metric it is.
struct Count {
    /// In the report.
    name: &'static str,
    /// The metric.
    metric: &'static str,
    help: &'static str,
    rises: bool,
}

/// Every count that a role reports: one that is not here is no metric, and a test of a live node says so.
const COUNTS: &[Count] = &[
    Count {
        name: "sentries",
        metric: "sentries",
        help: "Sentries linked to this relayer",
        rises: false,
    },
    Count {
        name: "subscriptions",
        metric: "subscriptions",
        help: "Subscriptions that this relayer serves",
        rises: false,
    },
    Count {
        name: "client_sessions",
        metric: "client_sessions",
        help: "Clients linked to this sentry",
        rises: false,
    },
    Count {
        name: "disk_free_bytes",
        metric: "disk_free_bytes",
        help: "Bytes free where the store lies",
        rises: false,
    },
    Count {
        name: "links_opened",
        metric: "links_opened",
        help: "Links opened since the node started",
        rises: true,
    },
    Count {
        name: "links_awaited",
        metric: "links_awaited",
        help: "Control links that the node waits for after its start",
        rises: false,
    },
    Count {
        name: "peers_known",
        metric: "mesh_peers_known",
        help: "Nodes in the peer book",
        rises: false,
    },
    Count {
        name: "peers_heard",
        metric: "mesh_peers_heard",
        help: "Nodes heard of since this node started, by an advert that holds",
        rises: false,
    },
    Count {
        name: "peers_linked",
        metric: "mesh_peers_linked",
        help: "Nodes with an open link on the control plane",
        rises: false,
    },
    Count {
        name: "shard_map_version",
        metric: "shard_map_version",
        help: "Version of the shard map in force",
        rises: false,
    },
    Count {
        name: "peers_banned",
        metric: "mesh_peers_banned",
        help: "Nodes that misbehaved and are not wanted for a while",
        rises: false,
    },
    Count {
        name: "adverts_sent",
        metric: "mesh_adverts_sent",
        help: "Adverts of this node that others took",
        rises: true,
    },
];

/// Counts that are metrics already, read from the kernel at each scrape.
const SHOWN_OTHERWISE: &[&str] = &["descriptors_open", "descriptors_limit"];

fn count_samples(counters: &[(String, u64)]) -> impl Iterator<Item = Sample> {
    counters.iter().filter_map(|(name, value)| {
        if let Some(purpose) = name.strip_suffix(MADE_AT_MS) {
            let at = Value::GaugeOf(Duration::from_millis(*value).as_secs_f64());
            let help = "When the key in use was made";
            let made = Sample::new("key_made_timestamp_seconds", help, at);
            return Some(made.label("purpose", purpose));
        }
        let Some(of) = COUNTS.iter().find(|count| count.name == name) else {
            if !SHOWN_OTHERWISE.contains(&name.as_str()) {
                tracing::debug!(%name, "a count that is no metric");
            }
            return None;
        };
        let value = match of.rises {
            true => Value::Counter(*value),
            false => Value::Gauge(*value),
        };
        Some(Sample::new(of.metric, of.help, value))
    })
}

fn account_samples(given: &AccountGiven) -> Vec<Sample> {
    let report = &given.report;
    let uptime = Value::GaugeOf(Duration::from_millis(report.uptime_ms).as_secs_f64());
    let mut samples = vec![
        Sample::gauge("node_info", "What this node is", 1)
            .label("role", report.role.to_string())
            .label("node", report.node_id.to_string())
            .label("software", report.software.clone()),
        Sample::gauge(
            "serving",
            "Whether the node does its work",
            u64::from(given.serving),
        ),
        Sample::new("uptime_seconds", "Since the node started", uptime),
    ];
    for plane in [Plane::Data, Plane::Control] {
        let links = report.links.iter().filter(|link| link.plane == plane);
        let links = count(links.count());
        let open = Sample::gauge("links", "Open links", links);
        samples.push(open.label("plane", plane_name(plane)));
    }
    for code in Code::ALL {
        let help = "Things that are wrong, by the name of their runbook in docs/runbooks";
        for severity in [Severity::Warning, Severity::Critical] {
            let same = |p: &&Problem| p.code == code.name() && p.severity == severity;
            let found = count(report.problems.iter().filter(same).count());
            // One that explains graver symptoms is as grave as they are.
            if found > 0 || severity == code.severity() {
                samples.push(
                    Sample::gauge("problems", help, found)
                        .label("code", code.name())
                        .label("severity", severity.name()),
                );
            }
        }
    }
    samples.extend(count_samples(&report.counters));
    for shard in &report.shards {
        let id = shard.id.to_string();
        let of = |name, help, value| Sample::gauge(name, help, value).label("shard", id.clone());
        samples.extend([
            of("shard_channels", "Channels with a record", shard.channels),
            of("shard_records", "Records stored", shard.records),
            of("shard_bytes", "Payload bytes stored", shard.bytes),
            of(
                "shard_subscriptions",
                "Subscriptions to channels of the shard",
                shard.subscriptions,
            ),
            of(
                "shard_lag_records",
                "Records that the subscription furthest behind has not consumed",
                shard.lag_records,
            ),
            of(
                "shard_unwritten_bytes",
                "Payload bytes admitted and not yet durable",
                shard.unwritten_bytes,
            ),
            of(
                "shard_paused_channels",
                "Channels of the shard whose publishers are asked to wait",
                shard.work().paused_channels,
            ),
            of(
                "shard_group_members",
                "Members of consumer groups of the shard's channels",
                shard.work().group_members,
            ),
            of(
                "shard_dead_letters",
                "Records that consumer groups of the shard's channels put aside",
                shard.work().dead_letters,
            ),
        ]);
    }
    samples
}

/// Actors that come and go under one name.
#[derive(Default)]
struct Crowd {
    actors: usize,
    depth: [usize; Class::ALL.len()],
}

/// Queues of every actor, those of one nursery together: a series for each session would be as many as there are
/// clients. What an actor has handled goes when it goes, so only of those that stay is it a counter.
fn actor_samples(actors: &[ActorInfo]) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut crowds: BTreeMap<&str, Crowd> = BTreeMap::new();
    for actor in actors {
        let path = actor.path.as_str();
        let (name, number) = path.rsplit_once('#').unwrap_or((path, ""));
        let crowd = crowds.entry(name).or_default();
        crowd.actors += 1;
        for (sum, depth) in crowd.depth.iter_mut().zip(actor.depth) {
            *sum += depth;
        }
        if number.is_empty() {
            let busy = Value::CounterOf(actor.busy.as_secs_f64());
            let handled = "Messages that an actor handled";
            let help = "Time that an actor spent handling messages, from a sample";
            samples.extend([
                Sample::counter("actor_handled", handled, actor.handled).label("actor", name),
                Sample::new("actor_busy_seconds", help, busy).label("actor", name),
            ]);
        }
    }
    for (name, crowd) in crowds {
        let actors = Sample::gauge("actors", "Actors under this name", count(crowd.actors));
        samples.push(actors.label("actor", name));
        for (class, depth) in Class::ALL.iter().zip(crowd.depth) {
            samples.push(
                Sample::gauge(
                    "actor_queue_messages",
                    "Messages waiting for an actor",
                    count(depth),
                )
                .label("actor", name)
                .label("class", format!("{class:?}").to_lowercase()),
            );
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    // Scenario: the table of counts has each name and metric once, in Prometheus's words; counts become their metrics,
    // an unknown one none; the kernel's part is complete on Linux.
    use super::*;

    #[test]
    fn counts_are_metrics_of_their_own() {
        let mut metrics: Vec<&str> = COUNTS.iter().map(|count| count.metric).collect();
        let mut names: Vec<&str> = COUNTS.iter().map(|count| count.name).collect();
        metrics.sort_unstable();
        metrics.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((metrics.len(), names.len()), (COUNTS.len(), COUNTS.len()));
        let reported = [
            ("sentries".to_owned(), 2),
            ("links_opened".to_owned(), 5),
            ("unheard_of".to_owned(), 1),
            ("storage_made_at_ms".to_owned(), 1_500),
        ];
        let samples: Vec<(&str, Value)> = count_samples(&reported)
            .map(|sample| (sample.name, sample.value))
            .collect();
        assert_eq!(
            samples,
            [
                ("sentries", Value::Gauge(2)),
                ("links_opened", Value::Counter(5)),
                ("key_made_timestamp_seconds", Value::GaugeOf(1.5)),
            ]
        );
    }

    #[test]
    fn the_kernel_tells_of_the_process() {
        let names: Vec<&str> = process_samples().iter().map(|sample| sample.name).collect();
        assert_eq!(
            names,
            [
                "process_open_descriptors",
                "process_max_descriptors",
                "process_cpu_seconds",
                "process_resident_memory_bytes"
            ]
        );
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
