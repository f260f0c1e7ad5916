//! What a watcher sees: the account, every link with its counts, and what neighbours last told of themselves.
//!
//! Neighbours are asked only while somebody looks, each at most every [`ASK_AFTER`], and what they told goes with their last
//! link: nothing is shown of a node that can no longer be heard.

use std::collections::BTreeSet;
use std::time::Duration;

use pqcnet_actor::{Class, Cx, Message, On, Reply};
use pqcnet_crypto::NodeId;
use pqcnet_messages::Role;
use pqcnet_messages::control::{Plane, ShardStatus, Status, StatusReport};
use pqcnet_p2p::typed::{LinkStats, PeerInfo};

use super::{AccountGiven, Collected, OpenLink, Steward};

/// Between two askings of one neighbour: often enough for a person who watches, and little work for a large report.
pub const ASK_AFTER: Duration = Duration::from_secs(2);
/// A neighbour that has not told within this is asked again.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// Neighbours asked; a page shows no more in detail.
const MAX_ASKED: usize = 64;

/// Asks for what a watcher sees.
#[derive(Clone, Copy, Debug)]
pub struct Look;

impl Message for Look {
    type Reply = Seen;
    const NAME: &'static str = "roles.Look";
    const CLASS: Class = Class::Control;
}

/// What a watcher sees.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The node's account.
    pub account: AccountGiven,
    /// Links it wants.
    pub expected: Vec<(NodeId, Plane)>,
    /// Links it has, oldest first.
    pub links: Vec<SeenLink>,
    /// What neighbours told.
    pub told: Vec<(NodeId, Told)>,
}

/// One open link.
#[derive(Clone, Debug)]
pub struct SeenLink {
    /// Its number, never used twice in a run.
    pub number: u64,
    /// Who is at the other end.
    pub peer: PeerInfo,
    /// What it rides.
    pub plane: Plane,
    /// How long it has been open.
    pub open_for: Duration,
    /// Its counts.
    pub stats: LinkStats,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// The last ping was not answered.
    pub silent: bool,
}

/// What a neighbour told of itself.
#[derive(Clone, Debug)]
pub struct Told {
    /// How long ago.
    pub ago: Duration,
    /// Its shards.
    pub shards: Vec<ShardStatus>,
    /// Nodes it is linked to.
    pub peers: BTreeSet<NodeId>,
    /// Clients linked to it.
    pub clients: u64,
    /// Problems it has.
    pub problems: u64,
}

/// A neighbour as the steward remembers it.
#[derive(Debug, Default)]
pub(super) struct Neighbour {
    /// When it was last asked.
    asked: Option<Duration>,
    /// When it told, and what.
    told: Option<(Duration, StatusReport)>,
}

impl Steward {
    fn ask_neighbours(&mut self, cx: &mut Cx<Self>) {
        let linked: BTreeSet<NodeId> = (self.links.values())
            .filter(|link| !link.depends_on_us())
            .map(|link| link.handle.peer().node_id)
            .collect();
        self.neighbours.retain(|peer, _| linked.contains(peer));
        let now = cx.now();
        for peer in linked.into_iter().take(MAX_ASKED) {
            let neighbour = self.neighbours.entry(peer).or_default();
            if (neighbour.asked).is_some_and(|asked| now.saturating_sub(asked) < ASK_AFTER) {
                continue;
            }
            neighbour.asked = Some(now);
            let mut links = self.links.values();
            let Some(link) = links.find(|link| link.handle.peer().node_id == peer) else {
                continue;
            };
            let to = link.handle.remote::<Status>();
            cx.ask(&to, Status {}, TOLD_WITHIN, move |steward, answer, cx| {
                let neighbour = steward.neighbours.get_mut(&peer);
                if let (Some(neighbour), Ok(report)) = (neighbour, answer) {
                    neighbour.told = Some((cx.now(), report));
                }
            });
        }
    }

    fn seen(&self, collected: Collected, cx: &Cx<Self>) -> Seen {
        let now = cx.now();
        let told = self.neighbours.iter().filter_map(|(peer, neighbour)| {
            let (at, report) = neighbour.told.as_ref()?;
            let any_link = self
                .links
                .values()
                .any(|link| link.handle.peer().node_id == *peer);
            any_link.then(|| (*peer, told(now.saturating_sub(*at), report)))
        });
        let told = told.collect();
        Seen {
            account: AccountGiven {
                serving: self.serving(),
                report: self.report(collected, cx),
            },
            expected: self.config.expected.clone(),
            links: (self.links.iter())
                .map(|(number, link)| link.seen(*number, now))
                .collect(),
            told,
        }
    }
}

fn told(ago: Duration, report: &StatusReport) -> Told {
    let is_client = |role: Role| matches!(role, Role::Client | Role::Operator);
    let (clients, nodes): (Vec<_>, Vec<_>) =
        report.links.iter().partition(|link| is_client(link.role));
    Told {
        ago,
        shards: report.shards.clone(),
        peers: nodes.iter().map(|link| link.peer).collect(),
        clients: u64::try_from(clients.len()).unwrap_or(u64::MAX),
        problems: u64::try_from(report.problems.len()).unwrap_or(u64::MAX),
    }
}

impl OpenLink {
    fn seen(&self, number: u64, now: Duration) -> SeenLink {
        SeenLink {
            number,
            peer: self.handle.peer().clone(),
            plane: self.plane,
            open_for: now.saturating_sub(self.since),
            stats: self.handle.stats(),
            rtt: self.rtt,
            silent: self.silent,
        }
    }
}

impl On<Look> for Steward {
    fn on(&mut self, _: Look, cx: &mut Cx<Self>) -> Reply<Look> {
        self.ask_neighbours(cx);
        let (promise, reply) = Reply::later();
        cx.spawn(self.config.accounts.collect(), |steward, collected, cx| {
            promise.fulfil(steward.seen(collected, cx));
        });
        reply
    }
}
