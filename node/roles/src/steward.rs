//! The node's account of itself: its links on both planes, what is wrong, and the `control` service.
//!
//! Started by: every role, first. Hears from: the gate and the diallers (links), the role's owner (conditions). Serves
//! [`Ping`] and [`Status`] to any linked node, [`Account`] to the admin pages. Sends to: linked nodes, a [`Ping`]
//! when a link opens and every [`HEARTBEAT`].
//!
//! Stopping, it closes every link in order, those of clients and operators first, so that what they wait for is answered while
//! the links behind still stand; the actors that serve them are stopped after it.
//!
//! Mailbox: [`BOUNDS`]. A restart forgets which links are open; those stand as long as the actors they serve hold them.

mod look;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use pqcnet_actor::latest;
use pqcnet_actor::{AskError, Behaviour, Bounds, Class, Cx, Digest, Message, On, Reply, Stopping};
use pqcnet_crypto::NodeId;
use pqcnet_link::Reason;
use pqcnet_mesh::{Authority, View};
use pqcnet_messages::Role;
use pqcnet_messages::control::{
    LinkStatus, MAX_REPORTED_LINKS, Ping, Plane, Pong, ShardStatus, Status, StatusReport,
};
use pqcnet_messages::mesh::{LinkDown, LinkUp};
use pqcnet_p2p::control::ControlPlane;
use pqcnet_p2p::typed::LinkHandle;

use crate::core::starting::Starting;
use crate::mesh::MeshRefs;
use crate::problem::{Code, Problem, explain};
use crate::watchman::Noticed;

use look::Neighbour;
pub use look::{ASK_AFTER, Look, Seen, SeenLink, Told};

/// Link facts come in bursts when a gate opens; pings and status are small and rare.
pub const BOUNDS: Bounds = Bounds {
    control: 4096,
    request: 256,
    bulk: 1,
};
/// Between pings to a linked node, on each link.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// A neighbour that does not answer a ping within this is reported.
const PING_DEADLINE: Duration = Duration::from_secs(5);

/// The count of control links that a node waits for after its start.
pub const AWAITED: &str = "links_awaited";

/// How long a link that is closed for its peer's standing has to say why, before the connection under it goes too.
const FAREWELL: Duration = Duration::from_secs(1);

/// A link that is up.
#[derive(Debug)]
pub struct LinkOpened {
    /// What it rides.
    pub plane: Plane,
    /// The link; the steward follows it to its end.
    pub handle: LinkHandle,
}

impl Message for LinkOpened {
    type Reply = ();
    const NAME: &'static str = "roles.LinkOpened";
    const CLASS: Class = Class::Control;

    fn digest(&self, into: &mut Digest) {
        (self.plane, self.handle.peer().node_id).hash(into);
    }
}

/// Asks for the whole account, for the admin pages.
#[derive(Clone, Copy, Debug)]
pub struct Account;

/// A node's account.
#[derive(Clone, Debug)]
pub struct AccountGiven {
    /// As other nodes get it.
    pub report: StatusReport,
    /// Whether it does its work: of the data links it needs, at least one stands.
    pub serving: bool,
}

impl Message for Account {
    type Reply = AccountGiven;
    const NAME: &'static str = "roles.Account";
    const CLASS: Class = Class::Control;
}

/// What a role adds to the account.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Its shards.
    pub shards: Vec<ShardStatus>,
    /// Its named counts.
    pub counters: Vec<(String, u64)>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// A role's own part of the account, collected when somebody asks; it takes a second at most.
pub trait Accounts: Send + Sync + 'static {
    /// Asks the role's actors.
    fn collect(&self) -> BoxFuture<'static, Collected>;

    /// What cannot be done while no data link to this peer stands, in words.
    fn carried_by(&self, _peer: NodeId) -> Vec<String> {
        Vec::new()
    }
}

/// What a steward is started with.
#[derive(Clone)]
pub struct StewardConfig {
    /// Hears of links and offences.
    pub mesh: MeshRefs,
    /// Who may be linked now.
    pub authority: Authority,
    /// What the mesh looks like from here.
    pub view: latest::Receiver<Arc<View>>,
    /// Where nodes that may not be linked are disconnected.
    pub control: Arc<dyn ControlPlane>,
    /// Who this node is.
    pub node_id: NodeId,
    /// What it is.
    pub role: Role,
    /// Name and version of its software.
    pub software: String,
    /// Peers that a data link is expected to: without one, the node is not well.
    pub expected: Vec<(NodeId, Plane)>,
    /// Where it goes with which nodes there is a control link, whoever dialled.
    pub linked: latest::Sender<Arc<BTreeSet<NodeId>>>,
    /// The role's own part.
    pub accounts: Arc<dyn Accounts>,
}

struct OpenLink {
    plane: Plane,
    handle: LinkHandle,
    since: Duration,
    rtt: Option<Duration>,
    silent: bool,
    closing: bool,
    dialled_here: bool,
}

/// The actor.
pub struct Steward {
    config: StewardConfig,
    links: BTreeMap<u64, OpenLink>,
    /// Which of the expected links it may still be without.
    starting: Starting,
    /// What they told; at most as many as there are links.
    neighbours: BTreeMap<NodeId, Neighbour>,
    /// What others noticed, by who they are.
    noticed: BTreeMap<&'static str, Noticed>,
    opened: u64,
    nonce: u64,
    stopping: bool,
}

impl Steward {
    /// Knows of no link yet.
    pub fn new(config: StewardConfig) -> Steward {
        Steward {
            config,
            links: BTreeMap::new(),
            starting: Starting::default(),
            neighbours: BTreeMap::new(),
            noticed: BTreeMap::new(),
            opened: 0,
            nonce: 0,
            stopping: false,
        }
    }

    /// Whether there is a link to it, or to whoever has its place now.
    fn linked(&self, peer: NodeId, plane: Plane) -> bool {
        let standings = self.config.authority.standings();
        let seat = standings.seat(peer);
        let of_seat = |link: &OpenLink| standings.seat(link.handle.peer().node_id) == seat;
        let mut links = self.links.values();
        links.any(|link| link.plane == plane && of_seat(link))
    }

    fn serving(&self) -> bool {
        let mut needed = self
            .config
            .expected
            .iter()
            .filter(|(_, plane)| *plane == Plane::Data);
        !self.stopping
            && needed
                .clone()
                .next()
                .is_none_or(|_| needed.any(|(peer, plane)| self.linked(*peer, *plane)))
    }

    fn report(&self, collected: Collected, cx: &Cx<Self>) -> StatusReport {
        let Collected {
            shards,
            mut counters,
            mut problems,
        } = collected;
        let mut awaited = 0;
        for (peer, plane) in &self.config.expected {
            if self.linked(*peer, *plane) || !self.is_expected(*peer) {
                continue;
            }
            if self.starting.awaits(peer, *plane, cx.now()) {
                awaited += 1;
            } else {
                problems.push(self.missing(*peer, *plane));
            }
        }
        counters.push((AWAITED.to_owned(), awaited));
        for said in self.noticed.values() {
            problems.extend(said.problems.iter().cloned());
            counters.extend(said.counters.iter().cloned());
        }
        let silent = self.links.values().filter(|link| link.silent);
        problems.extend(silent.map(|link| silent_peer(link.handle.peer().node_id, link.plane)));
        counters.push(("links_opened".to_owned(), self.opened));
        counters.extend(self.mesh_counters());
        problems.extend(self.mesh_problems(cx));
        StatusReport {
            node_id: self.config.node_id,
            role: self.config.role,
            software: self.config.software.clone(),
            uptime_ms: uptime_ms(cx),
            // The first that fit; `links_opened` and the roles' counters tell of all.
            links: (self.links.values().take(MAX_REPORTED_LINKS))
                .map(OpenLink::status)
                .collect(),
            shards,
            counters,
            problems: explain(problems),
        }
    }

    /// A link that should stand and does not.
    fn missing(&self, peer: NodeId, plane: Plane) -> Problem {
        let (code, other) = match plane {
            Plane::Data => (Code::DataLinkDown, Plane::Control),
            Plane::Control => (Code::ControlLinkDown, Plane::Data),
        };
        let (who, name) = (peer.short(), plane_name(plane));
        let cause = if self.linked(peer, other) {
            let other = plane_name(other);
            format!(
                "{who} lives, its {other} plane is linked: its {name} address does not answer or refuses this node"
            )
        } else {
            format!("{who} is down, cut off, or refuses this node")
        };
        let problem = code.problem(format!("no link to {who} on the {name} plane"));
        let problem = problem.because(cause).about(peer);
        match plane {
            Plane::Data => problem.explaining(self.config.accounts.carried_by(peer)),
            Plane::Control => problem,
        }
    }

    fn follow(&mut self, plane: Plane, handle: LinkHandle, dialled_here: bool, cx: &mut Cx<Self>) {
        if self.stopping {
            handle.close(Reason::Draining);
            return;
        }
        let number = self.opened;
        self.opened += 1;
        let closed = handle.closed();
        let peer = handle.peer().clone();
        if plane == Plane::Control {
            self.config.mesh.opened(number, &handle);
        }
        tracing::info!(peer = %peer.node_id, role = %peer.role, plane = plane_name(plane), "link open");
        self.links.insert(
            number,
            OpenLink {
                plane,
                handle,
                since: cx.now(),
                rtt: None,
                silent: false,
                closing: false,
                dialled_here,
            },
        );
        self.pair(peer.node_id);
        self.tell_linked();
        self.meet(peer.node_id, plane);
        // A directive may have come since the gate let it in.
        self.expel(cx);
        self.ping(number, cx);
        cx.spawn(closed, move |steward, reason, cx| {
            steward.links.remove(&number);
            steward.tell_linked();
            let plane = plane_name(plane);
            tracing::info!(peer = %peer.node_id, role = %peer.role, plane, %reason, "link closed");
            steward.config.mesh.closed(number, peer.node_id);
            steward.config.mesh.ended(peer.node_id, &reason);
            if steward.stopping {
                steward.close_next(cx);
            }
        });
    }

    /// Closes the links of whoever depends on this node; once those are gone, all others; then stops.
    fn close_next(&mut self, cx: &mut Cx<Self>) {
        if self.links.is_empty() {
            cx.stop();
            return;
        }
        let dependants = self.links.values().any(OpenLink::depends_on_us);
        for link in self.links.values_mut() {
            if !link.closing && link.depends_on_us() == dependants {
                link.closing = true;
                link.handle.close(Reason::Draining);
            }
        }
    }

    fn heartbeat(&mut self, cx: &mut Cx<Self>) {
        let numbers: Vec<u64> = self.links.keys().copied().collect();
        for number in numbers {
            self.ping(number, cx);
        }
        // What a lease or an overlap gave ends by time alone.
        self.expel(cx);
    }

    fn ping(&mut self, number: u64, cx: &mut Cx<Self>) {
        let Some(link) = self.links.get(&number) else {
            return;
        };
        if link.depends_on_us() {
            return;
        }
        self.nonce += 1;
        let (ping, sent) = (Ping { nonce: self.nonce }, cx.now());
        let to = link.handle.remote::<Ping>();
        cx.ask(&to, ping, PING_DEADLINE, move |steward, answer, cx| {
            if let Some(link) = steward.links.get_mut(&number) {
                // One that refuses pings answers too.
                link.silent = !matches!(answer, Ok(_) | Err(AskError::Refused(_)));
                link.rtt = answer.ok().map(|_| cx.now().saturating_sub(sent));
            }
        });
    }
}

impl OpenLink {
    /// One of the two nodes' own, of which one is enough.
    fn is_of_pair(&self) -> bool {
        self.plane == Plane::Control && !self.depends_on_us()
    }

    fn depends_on_us(&self) -> bool {
        matches!(self.handle.peer().role, Role::Client | Role::Operator)
    }

    fn status(&self) -> LinkStatus {
        let peer = self.handle.peer();
        LinkStatus {
            peer: peer.node_id,
            role: peer.role,
            plane: self.plane,
        }
    }
}

fn silent_peer(peer: NodeId, plane: Plane) -> Problem {
    let (who, plane) = (peer.short(), plane_name(plane));
    Code::PeerSilent
        .problem(format!("{who} does not answer pings on the {plane} plane"))
        .because(format!(
            "{who} hangs, or is too busy to answer within {PING_DEADLINE:?}"
        ))
        .about(peer)
}

/// The word in reports.
pub fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Control => "control",
        Plane::Data => "data",
    }
}

fn uptime_ms(cx: &Cx<Steward>) -> u64 {
    u64::try_from(cx.now().as_millis()).unwrap_or(u64::MAX)
}

impl Behaviour for Steward {
    const NAME: &'static str = "Steward";

    fn started(&mut self, cx: &mut Cx<Self>) {
        cx.every(HEARTBEAT, Self::heartbeat);
        self.tell_linked();
        self.watch_authority(self.config.authority.clone(), cx);
    }

    fn stopping(&mut self, cx: &mut Cx<Self>) -> Stopping {
        self.stopping = true;
        self.close_next(cx);
        Stopping::Draining
    }

    fn describe(&self) -> String {
        let rtts = self.links.values().filter_map(|link| link.rtt);
        let slowest = rtts
            .max()
            .map(|rtt| format!(", slowest ping {rtt:?}"))
            .unwrap_or_default();
        format!("{} links open{slowest}", self.links.len())
    }
}

impl On<LinkOpened> for Steward {
    fn on(&mut self, msg: LinkOpened, cx: &mut Cx<Self>) -> Reply<LinkOpened> {
        self.follow(msg.plane, msg.handle, false, cx);
        Reply::Now(())
    }
}

impl On<LinkUp<LinkHandle>> for Steward {
    fn on(&mut self, msg: LinkUp<LinkHandle>, cx: &mut Cx<Self>) -> Reply<LinkUp<LinkHandle>> {
        self.follow(Plane::Control, msg.link, true, cx);
        Reply::Now(())
    }
}

impl On<LinkDown> for Steward {
    /// The link's own end has been followed already.
    fn on(&mut self, _: LinkDown, _: &mut Cx<Self>) -> Reply<LinkDown> {
        Reply::Now(())
    }
}

impl On<Noticed> for Steward {
    fn on(&mut self, msg: Noticed, _: &mut Cx<Self>) -> Reply<Noticed> {
        self.noticed.insert(msg.by, msg);
        Reply::Now(())
    }
}

impl On<Ping> for Steward {
    fn on(&mut self, msg: Ping, cx: &mut Cx<Self>) -> Reply<Ping> {
        Reply::Now(Pong {
            nonce: msg.nonce,
            role: self.config.role,
            software: self.config.software.clone(),
            uptime_ms: uptime_ms(cx),
        })
    }
}

impl On<Status> for Steward {
    fn on(&mut self, _: Status, cx: &mut Cx<Self>) -> Reply<Status> {
        let (promise, reply) = Reply::later();
        cx.spawn(self.config.accounts.collect(), |steward, collected, cx| {
            promise.fulfil(steward.report(collected, cx));
        });
        reply
    }
}

impl On<Account> for Steward {
    fn on(&mut self, _: Account, cx: &mut Cx<Self>) -> Reply<Account> {
        let (promise, reply) = Reply::later();
        cx.spawn(self.config.accounts.collect(), |steward, collected, cx| {
            let serving = steward.serving();
            promise.fulfil(AccountGiven {
                report: steward.report(collected, cx),
                serving,
            });
        });
        reply
    }
}
