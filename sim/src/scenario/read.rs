//! From TOML to a [`Scenario`], with everything that is wrong said by line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::faults::{self, Nodes};
use super::reader::{Document, Fields, Problem, nearest};
use super::spec::{
    Crypto, Group, Invariants, Latency, MapOrder, Nat, Network, Role, Scenario, Traffic,
};
use super::units::parse_duration;
use crate::crypto::Costs;
use crate::geo::{Point, places};

/// Most nodes of a scenario.
pub const MAX_NODES: u64 = 100_000;
/// Longest run: 10,080 minutes.
const MAX_DURATION: Duration = Duration::from_secs(7 * 86_400);
/// Shards, where a scenario does not say: as many as `pqcnet up` makes.
const SHARDS: u64 = 16;

/// Windows of meters, where a scenario does not say: as long as a production relayer's.
const WINDOW: Duration = Duration::from_secs(60);
const MIN_WINDOW: Duration = Duration::from_millis(100);
const MAX_WINDOW: Duration = Duration::from_secs(86_400);

const ROLES: &[(&str, Role)] = &[
    ("sentry", Role::Sentry),
    ("relayer", Role::Relayer),
    ("client", Role::Client),
    ("broker", Role::Broker),
];

const NATS: &[(&str, Nat)] = &[("cone", Nat::Cone), ("symmetric", Nat::Symmetric)];

pub(super) fn scenario(text: &str) -> Result<Scenario, Vec<Problem>> {
    Document::read(text, whole)
}

fn whole(fields: &Fields<'_>) -> Scenario {
    let name = word(fields, "name");
    let duration = fields.duration("duration").unwrap_or_default();
    if !fields.has("duration") {
        fields.missing("duration");
    } else if duration.is_zero() || duration > MAX_DURATION {
        fields.refuse("duration", "above zero and at most seven days", None);
    }
    let network = network(fields);
    let places = own_places(fields);
    let by_table = matches!(network.latency, Latency::Matrix { .. });
    let groups = groups(fields, &places, by_table);
    let nodes = Nodes::new(&groups);
    let shards = fields.count("shards", 1..=4_096).unwrap_or(SHARDS);
    let scenario = Scenario {
        name,
        about: fields.text("about").unwrap_or_default(),
        duration,
        crypto: fields.word("crypto", Crypto::WORDS).unwrap_or(Crypto::Memo),
        costs: costs(fields),
        shards: shards as u32,
        metering: metering(fields),
        network,
        traffic: traffic(fields, &groups, (duration, shards)),
        maps: maps(fields, &nodes, &groups, duration),
        faults: faults::faults(fields, &nodes, duration),
        byzantine: faults::byzantine(fields, &nodes, duration),
        invariants: invariants(fields),
        places,
        groups,
    };
    let has = |role| scenario.groups.iter().any(|group| group.role == role);
    if !scenario.groups.is_empty() {
        for (role, name) in [(Role::Relayer, "relayer"), (Role::Sentry, "sentry")] {
            if !has(role) {
                fields.refuse("nodes", format!("a network needs a {name}"), None);
            }
        }
    }
    scenario
}

/// As production's; none if it is zero.
fn metering(fields: &Fields<'_>) -> Option<Duration> {
    let window = fields.duration("metering").unwrap_or(WINDOW);
    if !window.is_zero() && !(MIN_WINDOW..=MAX_WINDOW).contains(&window) {
        fields.refuse("metering", "zero, or 100 ms to a day", None);
    }
    (!window.is_zero()).then_some(window)
}

/// A name that must be there.
fn word(fields: &Fields<'_>, key: &'static str) -> String {
    if !fields.has(key) {
        fields.missing(key);
        return String::new();
    }
    let name = fields.text(key).unwrap_or_default();
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(letter) {
        fields.refuse(key, "1 to 64 lower-case letters, digits and hyphens", None);
    }
    name
}

fn network(fields: &Fields<'_>) -> Network {
    let table = fields.table("network");
    let table = table.as_ref();
    let share = |key| {
        table
            .and_then(|table| table.number(key, 0.0..=0.9))
            .unwrap_or(0.0)
    };
    Network {
        latency: table.map_or(Latency::Geography, latency),
        jitter: table
            .and_then(|table| table.number("jitter", 0.0..=10.0))
            .unwrap_or(0.05),
        loss: share("loss"),
        duplicate: share("duplicate"),
        reorder: share("reorder"),
        bandwidth: table
            .and_then(|table| table.bits("bandwidth"))
            .unwrap_or(1_000_000_000),
        queue: table
            .and_then(|table| table.bytes("queue"))
            .unwrap_or(4 * 1024 * 1024),
    }
}

fn latency(table: &Fields<'_>) -> Latency {
    let matrix = table.text("matrix");
    let names = table.text("names");
    let text = table.text("latency");
    match (text.as_deref(), matrix) {
        (None | Some("matrix"), Some(matrix)) => Latency::Matrix {
            table: matrix,
            names,
        },
        (Some("matrix"), None) => {
            table.missing("matrix");
            Latency::Geography
        }
        (None | Some("geography"), None) => Latency::Geography,
        (Some(text), _) => match parse_duration(text) {
            Ok(fixed) => Latency::Fixed(fixed),
            Err(_) => {
                let why = format!("`{text}` is neither geography nor matrix nor a duration");
                let near = nearest(text, ["geography", "matrix"]).map(str::to_owned);
                table.refuse("latency", why, near);
                Latency::Geography
            }
        },
    }
}

fn own_places(fields: &Fields<'_>) -> BTreeMap<String, Point> {
    let mut own = BTreeMap::new();
    for (name, table) in fields.named_tables("places") {
        for key in ["latitude", "longitude"] {
            if !table.has(key) {
                table.missing(key);
            }
        }
        let point = Point::new(
            table.number("latitude", -90.0..=90.0).unwrap_or_default(),
            table
                .number("longitude", -180.0..=180.0)
                .unwrap_or_default(),
        );
        own.insert(name, point);
    }
    own
}

fn groups(fields: &Fields<'_>, own: &BTreeMap<String, Point>, by_table: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut names = BTreeSet::new();
    if !fields.has("nodes") {
        fields.missing("nodes");
    }
    for table in fields.tables("nodes") {
        if !table.has("role") {
            table.missing("role");
        }
        let role = table.word("role", ROLES).unwrap_or(Role::Client);
        let name = if table.has("name") {
            word(&table, "name")
        } else {
            table.text("role").unwrap_or_default()
        };
        if !names.insert(name.clone()) {
            table.refuse("name", format!("two groups are named `{name}`"), None);
        }
        let regions = table
            .texts("regions")
            .unwrap_or_else(|| vec!["frankfurt".to_owned()]);
        if regions.is_empty() {
            table.refuse("regions", "at least one", None);
        }
        // A table of latencies has its own names; they are checked with it.
        for region in regions.iter().filter(|_| !by_table) {
            if !own.contains_key(region) && places::find(region).is_none() {
                let near = nearest(region, own.keys().map(String::as_str));
                let near = near
                    .or_else(|| nearest(region, places::names()))
                    .map(str::to_owned);
                table.refuse(
                    "regions",
                    format!("`{region}` is no place known here"),
                    near,
                );
            }
        }
        groups.push(Group {
            name,
            role,
            count: table.count("count", 1..=MAX_NODES).unwrap_or(1) as u32,
            regions,
            bandwidth: table.bits("bandwidth"),
            nat: nat(&table),
            cpu: table.number("cpu", 0.001..=1_000.0).unwrap_or(1.0),
            disk: table.bytes("disk"),
        });
        let total: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
        if total > MAX_NODES {
            table.refuse("count", format!("more than {MAX_NODES} nodes in all"), None);
        }
    }
    groups
}

/// The reference machine's, where nothing else is said.
fn costs(fields: &Fields<'_>) -> Costs {
    let mut costs = Costs::default();
    let Some(table) = fields.table("costs") else {
        return costs;
    };
    for (word, byte_word, op) in Costs::WORDS {
        let (mut each, mut byte) = costs.get(op);
        // Up to a second each, and a microsecond a byte.
        if let Some(us) = table.number(word, 0.0..=1e6) {
            each = libm::round(us * 1e6) as u64;
        }
        if let Some(ns) = byte_word.and_then(|word| table.number(word, 0.0..=1e3)) {
            byte = libm::round(ns * 1e3) as u64;
        }
        costs.set(op, each, byte);
    }
    costs
}

/// `true`, or which kind.
fn nat(table: &Fields<'_>) -> Nat {
    if table.is_text("nat") {
        return table.word("nat", NATS).unwrap_or(Nat::None);
    }
    match table.flag("nat") {
        Some(true) => Nat::Cone,
        Some(false) | None => Nat::None,
    }
}

fn traffic(
    fields: &Fields<'_>,
    groups: &[Group],
    (duration, shards): (Duration, u64),
) -> Vec<Traffic> {
    let mut all = Vec::new();
    for table in fields.tables("traffic") {
        let start = table.duration("start").unwrap_or_default();
        // The last sixth is for what is on its way.
        let stop = table.duration("stop").unwrap_or(duration * 5 / 6);
        if stop > duration || start > stop {
            table.refuse("stop", "after `start` and within the duration", None);
        }
        all.push(Traffic {
            publishers: clients(&table, "publishers", groups),
            subscribers: clients(&table, "subscribers", groups),
            rate: table.number("rate", 0.001..=100_000.0).unwrap_or(1.0),
            size: table
                .count("size", 32..=pqcnet_messages::MAX_PAYLOAD as u64)
                .unwrap_or(256) as usize,
            channels: table.count("channels", 1..=1_000).unwrap_or(1) as u32,
            shard: table
                .count("shard", 0..=shards - 1)
                .map(|shard| shard as u32),
            start,
            stop,
        });
    }
    all
}

fn maps(fields: &Fields<'_>, nodes: &Nodes, groups: &[Group], duration: Duration) -> Vec<MapOrder> {
    let mut all: Vec<MapOrder> = Vec::new();
    for table in fields.tables("maps") {
        let owners = nodes.targets(&table, "owners");
        let of_relayers = groups.iter().filter(|group| group.role == Role::Relayer);
        let relayers: BTreeSet<String> = of_relayers.flat_map(Group::nodes).collect();
        if !owners.nodes.iter().all(|node| relayers.contains(node)) {
            table.refuse("owners", "relayers alone have shards", None);
        }
        if !table.has("at") {
            table.missing("at");
        }
        let at = table.duration("at").unwrap_or_default();
        if at > duration || all.last().is_some_and(|last| last.at > at) {
            table.refuse("at", "within the duration, after the map before", None);
        }
        all.push(MapOrder { owners, at });
    }
    all
}

/// The name of a group of clients.
fn clients(table: &Fields<'_>, key: &'static str, groups: &[Group]) -> String {
    if !table.has(key) {
        table.missing(key);
        return String::new();
    }
    let name = table.text(key).unwrap_or_default();
    let of_clients = || groups.iter().filter(|group| group.role == Role::Client);
    if !of_clients().any(|group| group.name == name) {
        let near = nearest(&name, of_clients().map(|group| group.name.as_str()));
        let why = format!("`{name}` is no group of clients");
        table.refuse(key, why, near.map(str::to_owned));
    }
    name
}

fn invariants(fields: &Fields<'_>) -> Invariants {
    let Some(table) = fields.table("invariants") else {
        return Invariants::default();
    };
    Invariants {
        mailbox: table.count("mailbox", 1..=10_000_000),
        memory: table.bytes("memory"),
        reach: table.duration("reach"),
    }
}
