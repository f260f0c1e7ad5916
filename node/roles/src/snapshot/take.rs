//! Makes a [`Snapshot`] of its parts, cutting every list.

use std::collections::{BTreeMap, BTreeSet};

use pqcnet_actor::{ActorInfo, CountersSnapshot, Life};
use pqcnet_crypto::NodeId;
use pqcnet_messages::control::{Plane, ShardStatus};
use pqcnet_messages::{Problem, Role, Severity, ShardMap};
use pqcnet_p2p::network::NetworkFile;

use super::{
    ActorView, KeyView, Lanes, LinkView, MAX_ACTORS, MAX_LINKS, MAX_NODES, MAX_SHARDS, MeshNode,
    MeshState, NodeView, PausedView, ProblemView, ShardSource, ShardView, Snapshot, Totals,
    VERSION, Verdict,
};
use crate::steward::{Seen, SeenLink, Told, plane_name};

/// A key as the node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// `identity`, `storage`, `kem`.
    pub purpose: &'static str,
    /// From 1.
    pub version: u64,
    /// What is public of it.
    pub fingerprint: Option<String>,
    /// `current`, `overlap`, `prepared`, `revoked`.
    pub state: &'static str,
    /// When it was made, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// When its overlap ends, milliseconds since 1970.
    pub until_ms: Option<u64>,
}

/// What a snapshot is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The time, milliseconds since 1970.
    pub now_ms: u64,
    /// It was told to stop.
    pub draining: bool,
    /// From the steward.
    pub seen: Seen,
    /// From the tree.
    pub actors: Vec<ActorInfo>,
    /// Of the process.
    pub counts: CountersSnapshot,
    /// Who is in the network.
    pub network: &'a NetworkFile,
    /// The node's keys.
    pub keys: &'a [KeyFacts],
    /// Suites it offers.
    pub suites: &'a [&'static str],
}

impl Snapshot {
    /// Takes one.
    pub fn take(parts: Parts<'_>) -> Snapshot {
        let Parts {
            now_ms,
            draining,
            seen,
            actors,
            counts,
            network,
            keys,
            suites,
        } = parts;
        let report = &seen.account.report;
        let mut problems: Vec<&Problem> = report.problems.iter().collect();
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        let verdict = match () {
            () if draining => Verdict::Draining,
            () if !seen.account.serving => Verdict::NotServing,
            () if problems.is_empty() => Verdict::Ok,
            () => Verdict::Degraded,
        };
        let mesh = Mesh::of(&seen, network);
        Snapshot {
            version: VERSION,
            taken_at_ms: now_ms,
            node: NodeView {
                id: report.node_id.to_string(),
                network: network.name().to_owned(),
                network_id: network.network_id().to_string(),
                role: report.role.name().to_owned(),
                software: report.software.clone(),
                suites: suites.iter().map(|&suite| suite.to_owned()).collect(),
                started_at_ms: now_ms.saturating_sub(report.uptime_ms),
            },
            verdict,
            problems: problems.into_iter().map(problem_view).collect(),
            totals: Totals {
                nodes: count(mesh.ids().len()),
                links: count(seen.links.len()),
                clients: count(seen.links.iter().filter(|link| is_client(link)).count()),
                shards: u64::from(network.shards()),
                actors: count(actors.len()),
            },
            nodes: mesh.nodes(now_ms),
            links: links(&seen.links, now_ms),
            shards: shards(&seen, network),
            actors: actor_views(actors),
            keys: key_views(keys),
            counters: counters(&report.counters, &counts),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn is_client(link: &SeenLink) -> bool {
    matches!(link.peer.role, Role::Client | Role::Operator)
}

fn problem_view(problem: &Problem) -> ProblemView {
    ProblemView {
        code: problem.code.clone(),
        severity: match problem.severity {
            Severity::Warning => "warning".to_owned(),
            Severity::Critical => "critical".to_owned(),
        },
        what: problem.what.clone(),
        cause: problem.cause.clone(),
        fix: problem.fix.clone(),
        about: problem.about.as_ref().map(NodeId::to_string),
        explains: problem.explains.clone(),
    }
}

/// The network from where this node stands.
struct Mesh<'a> {
    own: NodeId,
    seen: &'a Seen,
    network: &'a NetworkFile,
    expected: BTreeMap<NodeId, BTreeSet<&'static str>>,
    linked: BTreeMap<NodeId, BTreeSet<&'static str>>,
    told: BTreeMap<NodeId, &'a Told>,
}

impl<'a> Mesh<'a> {
    fn of(seen: &'a Seen, network: &'a NetworkFile) -> Mesh<'a> {
        let by_peer = |pairs: Vec<(NodeId, Plane)>| {
            let mut planes: BTreeMap<NodeId, BTreeSet<&'static str>> = BTreeMap::new();
            for (peer, plane) in pairs {
                planes.entry(peer).or_default().insert(plane_name(plane));
            }
            planes
        };
        let nodes = seen.links.iter().filter(|link| !is_client(link));
        Mesh {
            own: seen.account.report.node_id,
            seen,
            network,
            expected: by_peer(seen.expected.clone()),
            linked: by_peer(nodes.map(|link| (link.peer.node_id, link.plane)).collect()),
            told: seen.told.iter().map(|(peer, told)| (*peer, told)).collect(),
        }
    }

    /// This node, those it has to do with, then others that serve.
    fn ids(&self) -> Vec<NodeId> {
        let serves = |roles: &BTreeSet<Role>| {
            roles
                .iter()
                .any(|role| !matches!(role, Role::Client | Role::Operator))
        };
        let listed = self.network.nodes().iter();
        let listed = listed
            .filter(|node| serves(&node.roles))
            .map(|node| node.id);
        let near = self.expected.keys().chain(self.linked.keys()).copied();
        let mut known = BTreeSet::new();
        std::iter::once(self.own)
            .chain(near)
            .chain(listed)
            .filter(|id| known.insert(*id))
            .collect()
    }

    fn nodes(&self, now_ms: u64) -> BTreeMap<String, MeshNode> {
        let shown = self.ids().into_iter().take(MAX_NODES);
        shown
            .map(|id| (id.to_string(), self.node(id, now_ms)))
            .collect()
    }

    fn node(&self, id: NodeId, now_ms: u64) -> MeshNode {
        let none = BTreeSet::new();
        let expected = self.expected.get(&id).unwrap_or(&none);
        let linked = self.linked.get(&id).unwrap_or(&none);
        let state = match () {
            () if id == self.own => MeshState::This,
            () if linked.is_empty() && expected.is_empty() => MeshState::Known,
            () if linked.is_empty() => MeshState::Down,
            () if expected.is_subset(linked) => MeshState::Linked,
            () => MeshState::Partial,
        };
        let told = self.told.get(&id);
        let names =
            |planes: &BTreeSet<&str>| planes.iter().map(|&plane| plane.to_owned()).collect();
        let ids = |ids: &mut dyn Iterator<Item = &NodeId>| {
            ids.take(MAX_NODES).map(NodeId::to_string).collect()
        };
        MeshNode {
            roles: self.roles(id),
            state,
            expected: names(expected),
            linked: names(linked),
            peers: match told {
                Some(told) => ids(&mut told.peers.iter()),
                None if id == self.own => ids(&mut self.linked.keys()),
                None => Vec::new(),
            },
            clients: match told {
                Some(told) => told.clients,
                None if id == self.own => count(
                    self.seen
                        .links
                        .iter()
                        .filter(|link| is_client(link))
                        .count(),
                ),
                None => 0,
            },
            problems: match told {
                Some(told) => told.problems,
                None if id == self.own => count(self.seen.account.report.problems.len()),
                None => 0,
            },
            told_at_ms: told.map(|told| now_ms.saturating_sub(ms(told.ago))),
        }
    }

    fn roles(&self, id: NodeId) -> Vec<String> {
        let listed = self.network.roles_of(&id);
        if !listed.is_empty() {
            return listed.iter().map(|role| role.name().to_owned()).collect();
        }
        let mut links = self.seen.links.iter();
        let link = links.find(|link| link.peer.node_id == id);
        link.map(|link| link.peer.role.name().to_owned())
            .into_iter()
            .collect()
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn links(seen: &[SeenLink], now_ms: u64) -> BTreeMap<String, LinkView> {
    let (clients, nodes): (Vec<_>, Vec<_>) = seen.iter().partition(|link| is_client(link));
    let shown = nodes.into_iter().chain(clients).take(MAX_LINKS);
    shown
        .map(|link| (link.number.to_string(), link_view(link, now_ms)))
        .collect()
}

fn link_view(link: &SeenLink, now_ms: u64) -> LinkView {
    let stats = &link.stats;
    LinkView {
        peer: link.peer.node_id.to_string(),
        role: link.peer.role.name().to_owned(),
        plane: plane_name(link.plane).to_owned(),
        software: link.peer.software.clone(),
        opened_at_ms: now_ms.saturating_sub(ms(link.open_for)),
        bytes_in: stats.counts.bytes_in,
        bytes_out: stats.counts.bytes_out,
        frames_in: stats.counts.frames_in,
        frames_out: stats.counts.frames_out,
        outbound_bytes: count(stats.outbound),
        open_asks: count(stats.open_asks),
        unanswered: count(stats.unanswered),
        credit: stats.credit,
        rtt_us: link
            .rtt
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        silent: link.silent,
    }
}

fn shards(seen: &Seen, network: &NetworkFile) -> BTreeMap<String, ShardView> {
    let relayers = network.relayers();
    // A network without relayers has no map, and no node of it starts.
    let map = ShardMap::from_relayers(network.shards(), relayers.iter().map(|node| node.id)).ok();
    let own = seen.account.report.node_id;
    let figures = |owner: NodeId, shard: u32| -> (ShardSource, Option<&ShardStatus>) {
        let find = |shards: &'_ [ShardStatus]| shards.iter().position(|status| status.id == shard);
        if owner == own {
            let shards = &seen.account.report.shards;
            return (ShardSource::Here, find(shards).map(|at| &shards[at]));
        }
        let told = seen.told.iter().find(|(peer, _)| *peer == owner);
        match told.and_then(|(_, told)| find(&told.shards).map(|at| &told.shards[at])) {
            Some(status) => (ShardSource::Told, Some(status)),
            None => (ShardSource::None, None),
        }
    };
    let owned = relayers
        .iter()
        .flat_map(|node| {
            let shards = map.iter().flat_map(|map| map.owned_by(node.id));
            shards.map(|shard| (shard.0, node.id)).collect::<Vec<_>>()
        })
        .collect::<BTreeMap<u16, NodeId>>();
    owned
        .into_iter()
        .take(MAX_SHARDS)
        .map(|(shard, owner)| {
            let (source, status) = figures(owner, u32::from(shard));
            let view = ShardView {
                owner: owner.to_string(),
                source,
                channels: status.map(|status| status.channels),
                records: status.map(|status| status.records),
                bytes: status.map(|status| status.bytes),
                subscriptions: status.map(|status| status.subscriptions),
                lag_records: status.map(|status| status.lag_records),
                unwritten_bytes: status.map(|status| status.unwritten_bytes),
                paused_channels: status.map(|status| status.work().paused_channels),
                paused: status
                    .and_then(|status| status.work().paused.as_ref())
                    .map(|paused| PausedView {
                        channel: paused.channel.to_string(),
                        cause: paused.cause.to_string(),
                    }),
            };
            (shard.to_string(), view)
        })
        .collect()
}

fn actor_views(mut actors: Vec<ActorInfo>) -> BTreeMap<String, ActorView> {
    // Stable: what is equally remarkable stays in the tree's order.
    actors.sort_by_key(|actor| {
        let waiting: usize = actor.depth.iter().sum();
        let runs = actor.life == Life::Running;
        std::cmp::Reverse((!runs, actor.restarts, waiting))
    });
    actors.truncate(MAX_ACTORS);
    actors
        .into_iter()
        .map(|actor| (actor.path.as_str().to_owned(), actor_view(actor)))
        .collect()
}

fn actor_view(actor: ActorInfo) -> ActorView {
    let [control, request, bulk] = actor.depth.map(count);
    ActorView {
        behaviour: actor.behaviour.to_owned(),
        life: match actor.life {
            Life::Waiting => "waiting",
            Life::Running => "running",
            Life::Draining => "draining",
            Life::Held => "held",
            Life::Ended => "ended",
        }
        .to_owned(),
        depth: Lanes {
            control,
            request,
            bulk,
        },
        bounds: Lanes {
            control: u64::from(actor.bounds.control),
            request: u64::from(actor.bounds.request),
            bulk: u64::from(actor.bounds.bulk),
        },
        restarts: actor.restarts,
        handled: actor.handled,
        busy_us: u64::try_from(actor.busy.as_micros()).unwrap_or(u64::MAX),
        says: actor.state.filter(|words| !words.is_empty()),
    }
}

fn key_views(keys: &[KeyFacts]) -> BTreeMap<String, KeyView> {
    let views = keys.iter().map(|key| {
        let view = KeyView {
            purpose: key.purpose.to_owned(),
            version: key.version,
            fingerprint: key.fingerprint.clone(),
            state: key.state.to_owned(),
            since_ms: key.since_ms,
            until_ms: key.until_ms,
        };
        (format!("{}/{}", key.purpose, key.version), view)
    });
    views.collect()
}

fn counters(role: &[(String, u64)], process: &CountersSnapshot) -> BTreeMap<String, u64> {
    let process = [
        ("dead_letters", process.dead_letters),
        ("bulk_dropped", process.bulk_dropped),
        ("refused", process.refused),
        ("actor_panics", process.panics),
        ("actor_restarts", process.restarts),
        ("actors_killed", process.killed),
    ];
    let process = process.map(|(name, value)| (name.to_owned(), value));
    role.iter().cloned().chain(process).collect()
}
