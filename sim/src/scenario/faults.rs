//! What goes wrong, as written in a scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::churn::Model;
use super::reader::{Fields, nearest};
use super::spec::{Behaviour, Byzantine, ChurnModel, Fault, FaultKind, Group, Role, Targets};

/// All nodes, by their group's name and their own.
pub(super) struct Nodes {
    groups: BTreeMap<String, Vec<String>>,
    all: Vec<String>,
    clients: BTreeSet<String>,
    brokers: BTreeSet<String>,
}

impl Nodes {
    pub(super) fn new(groups: &[Group]) -> Nodes {
        let by_name = groups
            .iter()
            .map(|group| (group.name.clone(), group.nodes().collect()));
        let of = |role| groups.iter().filter(move |group| group.role == role);
        Nodes {
            groups: by_name.collect(),
            all: groups.iter().flat_map(Group::nodes).collect(),
            clients: of(Role::Client).flat_map(Group::nodes).collect(),
            brokers: of(Role::Broker).flat_map(Group::nodes).collect(),
        }
    }

    /// What `nodes = [...]`, or another such key, names: groups, nodes, or `group/4`, the first four of a group.
    pub(super) fn targets(&self, fields: &Fields<'_>, key: &'static str) -> Targets {
        if !fields.has(key) {
            fields.missing(key);
        }
        self.of_key(fields, key)
    }

    fn of_key(&self, fields: &Fields<'_>, key: &'static str) -> Targets {
        let mut nodes: Vec<String> = Vec::new();
        for word in fields.texts(key).unwrap_or_default() {
            match self.named(&word) {
                Some(found) => nodes.extend(found.iter().cloned()),
                None => {
                    let known = self.groups.keys().chain(&self.all).map(String::as_str);
                    let near = nearest(&word, known).map(str::to_owned);
                    let why = format!("`{word}` is no group, no node and no `group/number`");
                    fields.refuse(key, why, near);
                }
            }
        }
        nodes.sort();
        nodes.dedup();
        // As they are numbered, not as they are spelt.
        let order: BTreeMap<&str, usize> = self.all.iter().map(String::as_str).zip(0..).collect();
        nodes.sort_by_key(|node| order.get(node.as_str()).copied());
        Targets { nodes }
    }

    /// Clients that `victims = [...]` names.
    fn victims(&self, fields: &Fields<'_>) -> Targets {
        let victims = self.of_key(fields, "victims");
        if let Some(other) = victims.nodes.iter().find(|n| !self.clients.contains(*n)) {
            fields.refuse("victims", format!("`{other}` is no client"), None);
        }
        victims
    }

    fn named(&self, word: &str) -> Option<&[String]> {
        if word == "all" {
            return Some(&self.all);
        }
        if let Some(group) = self.groups.get(word) {
            return Some(group);
        }
        if let Some((group, number)) = word.split_once('/') {
            let (group, number) = (self.groups.get(group)?, number.parse::<usize>().ok()?);
            return group.get(..number);
        }
        let at = self.all.iter().position(|node| node == word)?;
        self.all.get(at..=at)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Churn,
    Crash,
    Restart,
    Partition,
    Latency,
    Loss,
    Slow,
    Skew,
    Jump,
    Panic,
    DiskFull,
    DiskSlow,
    DiskStalled,
    DiskFails,
    DiskLies,
    BrokerForgets,
}

const KINDS: &[(&str, Kind)] = &[
    ("churn", Kind::Churn),
    ("crash", Kind::Crash),
    ("restart", Kind::Restart),
    ("partition", Kind::Partition),
    ("latency", Kind::Latency),
    ("loss", Kind::Loss),
    ("slow", Kind::Slow),
    ("skew", Kind::Skew),
    ("jump", Kind::Jump),
    ("panic", Kind::Panic),
    ("disk-full", Kind::DiskFull),
    ("disk-slow", Kind::DiskSlow),
    ("disk-stalled", Kind::DiskStalled),
    ("disk-fails", Kind::DiskFails),
    ("disk-lies", Kind::DiskLies),
    ("broker-forgets", Kind::BrokerForgets),
];

pub(super) fn faults(fields: &Fields<'_>, nodes: &Nodes, duration: Duration) -> Vec<Fault> {
    let mut all = Vec::new();
    for table in fields.tables("faults") {
        let targets = nodes.targets(&table, "nodes");
        let at = table.duration("at").unwrap_or_default();
        if at > duration {
            table.refuse("at", "within the duration", None);
        }
        let lasts = table.duration("lasts");
        if !table.has("kind") {
            table.missing("kind");
        }
        if let Some(kind) = table.word("kind", KINDS) {
            let mut others = targets.nodes.iter();
            if matches!(kind, Kind::BrokerForgets)
                && let Some(other) = others.find(|node| !nodes.brokers.contains(*node))
            {
                table.refuse("nodes", format!("`{other}` is no broker"), None);
            }
            all.push(Fault {
                targets,
                at,
                lasts,
                kind: fault(&table, kind),
            });
        }
    }
    all
}

fn fault(table: &Fields<'_>, kind: Kind) -> FaultKind {
    let factor = |bounds| {
        if !table.has("factor") {
            table.missing("factor");
        }
        table.number("factor", bounds).unwrap_or(1.0)
    };
    match kind {
        Kind::Churn => FaultKind::Churn {
            model: churn_model(table),
            away: positive(table, "away", Duration::from_secs(30)),
        },
        Kind::Crash => FaultKind::Crash {
            torn: table.flag("torn").unwrap_or(false),
        },
        Kind::Restart => FaultKind::Restart,
        Kind::Partition => FaultKind::Partition {
            one_way: table.flag("one_way").unwrap_or(false),
        },
        Kind::Latency => FaultKind::Latency(factor(1.0..=10_000.0)),
        Kind::Loss => FaultKind::Loss(share(table, "share")),
        Kind::Slow => FaultKind::Slow(factor(1.0..=10_000.0)),
        Kind::Skew => {
            if !table.has("ppm") {
                table.missing("ppm");
            }
            FaultKind::Skew(table.number("ppm", -100_000.0..=100_000.0).unwrap_or(0.0))
        }
        Kind::Jump => {
            if !table.has("by") {
                table.missing("by");
            }
            FaultKind::Jump {
                by: table.duration("by").unwrap_or_default(),
                back: table.flag("back").unwrap_or(false),
            }
        }
        Kind::Panic => {
            if !table.has("actor") {
                table.missing("actor");
            }
            FaultKind::Panic {
                actor: table.text("actor").unwrap_or_default(),
                message: table.text("message"),
            }
        }
        Kind::DiskFull => FaultKind::DiskFull,
        Kind::DiskSlow => {
            if !table.has("factor") {
                table.missing("factor");
            }
            FaultKind::DiskSlow(count(table, "factor", 100_000))
        }
        Kind::DiskStalled => FaultKind::DiskStalled,
        Kind::DiskFails => FaultKind::DiskFails(count(table, "writes", 1_000)),
        Kind::DiskLies => FaultKind::DiskLies,
        Kind::BrokerForgets => FaultKind::BrokerForgets,
    }
}

#[derive(Clone, Copy)]
enum Life {
    Random,
    Weibull,
    Pareto,
    Bimodal,
    Trace,
}

const LIVES: &[(&str, Life)] = &[
    ("random", Life::Random),
    ("weibull", Life::Weibull),
    ("pareto", Life::Pareto),
    ("bimodal", Life::Bimodal),
    ("trace", Life::Trace),
];

fn churn_model(table: &Fields<'_>) -> ChurnModel {
    let life = table.word("model", LIVES).unwrap_or(Life::Random);
    let shape = |least: f64| table.number("shape", least..=100.0).unwrap_or(1.0);
    ChurnModel::Plain(match life {
        Life::Random => Model::Random {
            share: share(table, "share"),
            over: positive(table, "over", Duration::from_secs(600)),
        },
        Life::Weibull => Model::Weibull {
            shape: shape(0.05),
            scale: positive(table, "scale", Duration::from_secs(600)),
        },
        Life::Pareto => Model::Pareto {
            shape: shape(0.05),
            least: positive(table, "least", Duration::from_secs(10)),
        },
        Life::Bimodal => Model::Bimodal {
            stable: share(table, "stable"),
            long: positive(table, "long", Duration::from_secs(86_400)),
            short: positive(table, "short", Duration::from_secs(60)),
        },
        Life::Trace => {
            if !table.has("trace") {
                table.missing("trace");
            }
            return ChurnModel::Trace {
                file: table.text("trace").unwrap_or_default(),
                speed: table.number("speed", 0.001..=1_000_000.0).unwrap_or(1.0),
            };
        }
    })
}

/// From 1; 1 where nothing is said.
fn count(table: &Fields<'_>, key: &'static str, most: u64) -> u32 {
    let count = table.count(key, 1..=most).unwrap_or(1);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// From just above 0 to 1.
fn share(table: &Fields<'_>, key: &'static str) -> f64 {
    if !table.has(key) {
        table.missing(key);
    }
    table.number(key, 0.000_001..=1.0).unwrap_or(0.1)
}

fn positive(table: &Fields<'_>, key: &'static str, default: Duration) -> Duration {
    let duration = table.duration(key).unwrap_or(default);
    if duration.is_zero() {
        table.refuse(key, "above zero", None);
    }
    duration
}

#[derive(Clone, Copy)]
enum Manner {
    Drop,
    Delay,
    Flood,
    Replay,
    NeverForward,
    Lie,
}

const MANNERS: &[(&str, Manner)] = &[
    ("drop", Manner::Drop),
    ("delay", Manner::Delay),
    ("flood", Manner::Flood),
    ("replay", Manner::Replay),
    ("never-forward", Manner::NeverForward),
    ("lie", Manner::Lie),
];

pub(super) fn byzantine(fields: &Fields<'_>, nodes: &Nodes, duration: Duration) -> Vec<Byzantine> {
    let mut all = Vec::new();
    for table in fields.tables("byzantine") {
        let targets = nodes.targets(&table, "nodes");
        let from = table.duration("from").unwrap_or_default();
        let until = table.duration("until").unwrap_or(duration);
        if from > until || until > duration {
            table.refuse("until", "after `from` and within the duration", None);
        }
        if !table.has("behaviour") {
            table.missing("behaviour");
        }
        let Some(manner) = table.word("behaviour", MANNERS) else {
            continue;
        };
        let behaviour = match manner {
            Manner::Drop => Behaviour::Drop(share(&table, "share")),
            Manner::Delay => {
                Behaviour::Delay(positive(&table, "delay", Duration::from_millis(500)))
            }
            Manner::Flood => {
                Behaviour::Flood(table.number("rate", 0.1..=1_000_000.0).unwrap_or(100.0))
            }
            Manner::Replay => Behaviour::Replay(share(&table, "share")),
            Manner::NeverForward => Behaviour::NeverForward,
            Manner::Lie => Behaviour::Lie(share(&table, "share")),
        };
        all.push(Byzantine {
            victims: nodes.victims(&table),
            targets,
            behaviour,
            from,
            until,
        });
    }
    all
}
