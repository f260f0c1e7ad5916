// Scenarios: the committed schema is that of the types; a snapshot of a node survives its text; lists are cut and totals are not.
use std::path::Path;
use std::time::Duration;

use pqcnet_actor::{ActorInfo, Bounds, CountersSnapshot, Life};
use pqcnet_crypto::NodeId;
use pqcnet_messages::control::{PausedChannel, Plane, ShardStatus, ShardWork, StatusReport};
use pqcnet_messages::{Channel, ChannelName, PauseCause, Role, Severity};
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_p2p::typed::{LinkStats, PeerInfo};

use super::*;
use crate::problem::Code;
use crate::steward::{AccountGiven, Seen, SeenLink, Told};

const SCHEMA: &str = "docs/spec/snapshot.schema.json";

/// The committed schema is generated from the types of this module: `PQCNET_WRITE_SCHEMA=1` writes it.
#[test]
fn the_schema_is_that_of_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let schema = schemars::schema_for!(Snapshot);
    let generated = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    let path = root.join(SCHEMA);
    if std::env::var_os("PQCNET_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        committed, generated,
        "{SCHEMA} is not that of the types: run this test with PQCNET_WRITE_SCHEMA=1, and think of `version`"
    );
    let page = std::fs::read_to_string(root.join("docs/spec/snapshot.md")).unwrap();
    assert!(page.contains(&format!("version {VERSION}")));
    for field in schema
        .get("properties")
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(
            page.contains(&format!("`{field}`")),
            "docs/spec/snapshot.md does not name `{field}`"
        );
    }
}

fn id(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 32])
}

/// A sentry (1) and two relayers (2, 3) in a network of six shards.
fn network() -> NetworkFile {
    let entry = |byte: u8, role| NodeEntry {
        id: id(byte),
        roles: [role].into(),
        control: vec!["127.0.0.1:1".parse().unwrap()],
        data: vec!["127.0.0.1:2".parse().unwrap()],
    };
    NetworkFile::new(NetworkParts {
        name: "test".to_owned(),
        root: pqcnet_crypto::MlDsaKeyPair::generate().public().clone(),
        shards: 6,
        admission: Admission::Any,
        nodes: vec![
            entry(1, Role::Sentry),
            entry(2, Role::Relayer),
            entry(3, Role::Relayer),
        ],
        bootstrap: vec![id(1)],
    })
    .unwrap()
}

fn link(number: u64, peer: u8, role: Role, plane: Plane) -> SeenLink {
    SeenLink {
        number,
        peer: PeerInfo {
            node_id: id(peer),
            role,
            software: "test/1".to_owned(),
            services: Vec::new(),
        },
        plane,
        open_for: Duration::from_secs(5),
        stats: LinkStats::default(),
        rtt: Some(Duration::from_micros(250)),
        silent: false,
    }
}

fn actor(path: &str, depth: [usize; 3], restarts: u32) -> ActorInfo {
    ActorInfo {
        path: pqcnet_actor::Path::root(path),
        behaviour: "Test",
        life: Life::Running,
        depth,
        bounds: Bounds::default(),
        restarts,
        handled: 9,
        busy: Duration::from_millis(3),
        state: Some(String::new()),
    }
}

/// The sentry's view while relayer 3 is down.
fn seen(links: Vec<SeenLink>) -> Seen {
    let warning = Code::DiskLow.problem("3 % is free");
    let down = Code::DataLinkDown.problem("no link").about(id(3));
    let shard = |id, records, lag_records| ShardStatus {
        id,
        channels: 1,
        records,
        bytes: 10,
        subscriptions: 2,
        lag_records,
        unwritten_bytes: 0,
        work: None,
    };
    let waiting = ShardWork {
        paused_channels: 3,
        paused: Some(PausedChannel {
            channel: Channel {
                owner: id(8),
                name: ChannelName::new("orders").unwrap(),
            },
            cause: PauseCause::Memory,
        }),
        ..ShardWork::default()
    };
    let paused = ShardStatus {
        work: waiting.noted(),
        ..shard(2, 0, 0)
    };
    Seen {
        account: AccountGiven {
            serving: true,
            report: StatusReport {
                node_id: id(1),
                role: Role::Sentry,
                software: "test/1".to_owned(),
                uptime_ms: 60_000,
                links: Vec::new(),
                shards: Vec::new(),
                counters: vec![("client_sessions".to_owned(), 1)],
                problems: vec![warning, down],
            },
        },
        expected: vec![
            (id(2), Plane::Data),
            (id(3), Plane::Data),
            (id(2), Plane::Control),
        ],
        links,
        told: vec![(
            id(2),
            Told {
                ago: Duration::from_secs(1),
                shards: vec![shard(0, 70, 5), paused, shard(4, 0, 0)],
                peers: [id(1)].into(),
                clients: 0,
                problems: 0,
            },
        )],
    }
}

fn take(seen: Seen, actors: Vec<ActorInfo>) -> Snapshot {
    Snapshot::take(Parts {
        now_ms: 1_000_000,
        draining: false,
        seen,
        actors,
        counts: CountersSnapshot::default(),
        network: &network(),
        keys: &[KeyFacts {
            purpose: "identity",
            version: 1,
            fingerprint: Some(id(1).to_string()),
            state: "current",
            since_ms: Some(5),
            until_ms: None,
        }],
        suites: &["aes-256-gcm"],
    })
}

/// One relayer linked on one of two wanted planes, one down: states, shards with the figures of who told, problems with the
/// worst first; its text holds no null and reads back the same.
#[test]
fn a_sentry_with_one_relayer_down() {
    let links = vec![
        link(0, 2, Role::Relayer, Plane::Data),
        link(1, 9, Role::Client, Plane::Data),
    ];
    let snapshot = take(seen(links), vec![actor("gate", [0; 3], 0)]);
    assert_eq!(snapshot.verdict, Verdict::Degraded);
    let severities: Vec<&str> = snapshot
        .problems
        .iter()
        .map(|problem| problem.severity.as_str())
        .collect();
    assert_eq!(severities, ["critical", "warning"]);
    assert_eq!(snapshot.problems[0].about, Some(id(3).to_string()));
    let state = |byte: u8| snapshot.nodes[&id(byte).to_string()].state;
    assert_eq!(state(1), MeshState::This);
    assert_eq!(state(2), MeshState::Partial);
    assert_eq!(state(3), MeshState::Down);
    let this = &snapshot.nodes[&id(1).to_string()];
    assert_eq!(
        (this.clients, this.peers.as_slice()),
        (1, &[id(2).to_string()][..])
    );
    assert_eq!(snapshot.nodes[&id(2).to_string()].told_at_ms, Some(999_000));

    let told = &snapshot.shards["0"];
    assert_eq!(
        (told.source, told.lag_records),
        (ShardSource::Told, Some(5))
    );
    assert_eq!((told.paused_channels, &told.paused), (Some(0), &None));
    let paused = &snapshot.shards["2"];
    assert_eq!(paused.paused_channels, Some(3));
    let view = paused.paused.as_ref().unwrap();
    assert_eq!(view.channel, format!("{}:orders", id(8)));
    assert_eq!(view.cause, "memory");
    let dark = &snapshot.shards["1"];
    assert_eq!((dark.paused_channels, &dark.paused), (None, &None));
    assert_eq!(dark.owner, id(3).to_string());
    assert_eq!((dark.source, dark.records), (ShardSource::None, None));
    assert_eq!(snapshot.shards.len(), 6);

    let text = serde_json::to_string(&snapshot).unwrap();
    assert!(!text.contains("null"), "{text}");
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    let newer = text.replacen('{', "{\"of_tomorrow\":1,", 1);
    assert_eq!(serde_json::from_str::<Snapshot>(&newer).unwrap(), snapshot);
}

/// The same node when it does no work, has nothing wrong, or stops.
#[test]
fn the_verdict_is_the_worst_word() {
    let taken = |serving, problems: bool, draining| {
        let mut seen = seen(Vec::new());
        seen.account.serving = serving;
        if !problems {
            seen.account.report.problems.clear();
        }
        Snapshot::take(Parts {
            now_ms: 0,
            draining,
            seen,
            actors: Vec::new(),
            counts: CountersSnapshot::default(),
            network: &network(),
            keys: &[],
            suites: &[],
        })
        .verdict
    };
    assert_eq!(taken(true, false, false), Verdict::Ok);
    assert_eq!(taken(true, true, false), Verdict::Degraded);
    assert_eq!(taken(false, true, false), Verdict::NotServing);
    assert_eq!(taken(false, true, true), Verdict::Draining);
}

/// A node with more links and actors than are shown: what is remarkable stays, totals tell the rest.
#[test]
fn lists_are_cut_and_totals_are_not() {
    let clients = 2 * MAX_LINKS;
    let mut links: Vec<SeenLink> = (0..clients)
        .map(|number| link(number as u64, 9, Role::Client, Plane::Data))
        .collect();
    links.push(link(9_999, 2, Role::Relayer, Plane::Data));
    let mut actors: Vec<ActorInfo> = (0..2 * MAX_ACTORS)
        .map(|number| actor(&format!("session-{number}"), [0; 3], 0))
        .collect();
    actors.push(actor("busy", [0, 7, 0], 0));
    actors.push(actor("restarted", [0; 3], 2));
    let snapshot = take(seen(links), actors);
    assert_eq!(snapshot.links.len(), MAX_LINKS);
    assert_eq!(snapshot.links["9999"].role, "relayer");
    assert_eq!(snapshot.totals.links, clients as u64 + 1);
    assert_eq!(snapshot.totals.clients, clients as u64);
    assert_eq!(snapshot.actors.len(), MAX_ACTORS);
    assert_eq!(snapshot.actors["busy"].depth.request, 7);
    assert_eq!(snapshot.actors["restarted"].restarts, 2);
    assert_eq!(snapshot.totals.actors, 2 * MAX_ACTORS as u64 + 2);
    assert_eq!(Severity::Critical.name(), "critical");
}
