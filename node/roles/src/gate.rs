//! Takes links in on both planes: checks what a peer may be, starts the actors that serve it, tells the steward.
//!
//! ```text
//!   data:    TCP ─ QSTP handshake ─ Hello ─┐
//!                                          ├─ role granted now? (Authority) ─ Reception ─ serve
//!   control: libp2p substream ───── Hello ─┘
//! ```
//!
//! Started by: every role, last, so that nobody comes in before there is somebody to serve them, and stopped first.
//! The sockets are bound before the tree starts ([`Doors`]) and outlive an incarnation: a restart loses the links that were
//! being established, not those that stand. Sends to: the steward, and the nursery behind the role's [`Reception`].
//! While file descriptors are nearly used up it takes nobody new ([`Crowded`], from the watchman). Mailbox: that alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pqcnet_actor::latest;
use pqcnet_actor::{Behaviour, Cx, Env, NurseryFull, On, Ref, Reply, TellError, Watchable};
use pqcnet_crypto::NodeId;
use pqcnet_link::{LinkConfig, PeerHello, Reason, ServiceId};
use pqcnet_mesh::Authority;
use pqcnet_mesh::core::scores::Offence;
use pqcnet_messages::Role;
use pqcnet_messages::control::{Ping, Plane, Status};
use pqcnet_p2p::control::{ControlEvent, ControlEvents, Substream};
use pqcnet_p2p::endpoint::{Connected, Incoming, Rejected};
use pqcnet_p2p::guard::Prefix;
use pqcnet_p2p::streams::ByteStream;
use pqcnet_p2p::typed::{
    Accepted, Access, Bindings, LinkHandle, PeerInfo, Places, RoleRefused, establish, turn_away,
};
use tokio::sync::Mutex;

use crate::caretaker::Orders;
use crate::mesh::MeshRefs;
use crate::reach::Paths;
use crate::steward::{LinkOpened, plane_name};
use crate::telling::Telling;
use crate::watchman::Crowded;

/// Links whose Hello is under way at once; a stranger got through a whole handshake to count here.
const MAX_GREETING: usize = 512;
/// Of these, from one source: whoever says nothing after its handshake keeps only its neighbours waiting.
const MAX_GREETING_EACH: usize = 32;
/// Links that stand at once on one plane, and of these those of one node: more than any role's own limits (a sentry's
/// clients, a relayer's sentries), for what no role counts.
const MAX_LINKS: usize = 16_384;
const MAX_LINKS_EACH: usize = 256;
/// Peers that are being told that there is no place for them; more are just hung up on.
const MAX_FAREWELLS: usize = 64;

/// Whom a link being established is counted with: on the data plane strangers have as many ids as they like but few
/// addresses; on the control plane a node has one connection for all its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Prefix(Prefix),
    Node(NodeId),
}

/// What a role does with a link once its peer is known.
pub trait Reception: Send + Sync + 'static {
    /// Services offered on a plane, beside `control`.
    fn services(&self, plane: Plane) -> Vec<ServiceId>;
    /// Roles that may link on a plane.
    fn admits(&self, plane: Plane, role: Role) -> bool;
    /// Starts whatever serves this peer and binds it. An error closes the link with these words.
    fn receive(
        &self,
        plane: Plane,
        peer: &PeerInfo,
        link: &LinkHandle,
        bindings: Bindings,
    ) -> Result<Bindings, TurnedAway>;
}

/// Why a peer that may link is not served now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TurnedAway {
    /// For the peer.
    pub reason: Reason,
    /// For the peer and the log.
    pub detail: String,
}

/// The refusal of a nursery that takes nobody more.
pub(crate) fn no_room(full: &NurseryFull) -> TurnedAway {
    let reason = match full {
        NurseryFull::Full { .. } => Reason::Limits,
        NurseryFull::Closed => Reason::Draining,
    };
    TurnedAway {
        reason,
        detail: full.to_string(),
    }
}

/// Closes a link when the actor that serves it is gone: its state was the session's.
pub(crate) fn close_with_actor(env: &Env, actor: &impl Watchable, link: &LinkHandle) {
    let (ended, link) = (actor.watch(), link.clone());
    env.spawn(async move {
        let down = ended.await;
        tracing::debug!(actor = %down.path, reason = ?down.reason, "closing the link it served");
        link.close(Reason::Internal);
    });
}

/// Both planes, bound and listening. Shared by the gate's incarnations, one at a time.
#[derive(Clone)]
pub struct Doors {
    data: Arc<Mutex<Incoming>>,
    control: Arc<Mutex<ControlEvents>>,
    /// Of links on the data plane, and on the control plane.
    places: [Places; 2],
}

impl Doors {
    /// Doors over bound sockets.
    pub fn new(data: Incoming, control: ControlEvents) -> Doors {
        Doors {
            data: Arc::new(Mutex::new(data)),
            control: Arc::new(Mutex::new(control)),
            places: [(); 2].map(|()| Places::new(MAX_LINKS, MAX_LINKS_EACH)),
        }
    }

    fn places(&self, plane: Plane) -> &Places {
        let [data, control] = &self.places;
        match plane {
            Plane::Data => data,
            Plane::Control => control,
        }
    }
}

/// What a gate is started with.
#[derive(Clone)]
pub struct GateConfig {
    /// What this node is.
    pub role: Role,
    /// Who may be what.
    pub authority: Authority,
    /// Where peers come in.
    pub doors: Doors,
    /// What the role does with them.
    pub reception: Arc<dyn Reception>,
    /// The node's steward.
    pub steward: StewardRefs,
    /// How the node is reached.
    pub(crate) paths: Paths,
}

/// What the gate needs of the steward.
#[derive(Clone, Debug)]
pub struct StewardRefs {
    /// Follows links.
    pub opened: Ref<LinkOpened>,
    /// Served on every link.
    pub ping: Ref<Ping>,
    /// Served on every link.
    pub status: Ref<Status>,
    /// Directives and adverts, served on every link.
    pub mesh: MeshRefs,
    /// With which nodes there is a control link, whoever dialled.
    pub linked: latest::Receiver<Arc<BTreeSet<NodeId>>>,
    /// Served to operators alone.
    pub orders: Orders,
}

impl StewardRefs {
    /// The `control` service, bound.
    pub fn bindings(&self) -> Bindings {
        let bindings = Bindings::new()
            .serve(self.ping.clone())
            .serve(self.status.clone());
        self.mesh.bind(bindings)
    }

    /// What of it a peer of this role gets. A client, which may be anybody, can ping: who else is connected is not for it, and if
    /// it asks it is refused and the refusal counted.
    pub fn bindings_for(&self, role: Role) -> Bindings {
        let nodes = Role::ALL.into_iter().filter(|role| *role != Role::Client);
        let operators = Access::roles([Role::Operator]);
        let bindings = Bindings::new()
            .serve(self.ping.clone())
            .serve_if(Access::roles(nodes), self.status.clone())
            .serve_if(operators.clone(), self.orders.drain.clone())
            .serve_if(operators, self.orders.back_up.clone());
        match role {
            Role::Client => bindings,
            _ => self.mesh.bind(bindings),
        }
    }

    /// Tells the steward of a link; a full mailbox costs the link its place in reports, nothing else.
    pub fn opened(&self, plane: Plane, handle: LinkHandle) {
        if let Err(TellError::Full(told) | TellError::Closed(told)) =
            self.opened.try_tell(LinkOpened { plane, handle })
        {
            let peer = told.handle.peer().node_id;
            tracing::warn!(%peer, "the steward did not hear of a link");
        }
    }
}

/// The actor.
pub struct Gate {
    config: GateConfig,
    greeting: usize,
    /// The same by source; none at zero.
    sources: BTreeMap<Source, usize>,
    farewells: usize,
    telling: Telling,
    /// There are no descriptors to spare.
    crowded: bool,
}

impl Gate {
    /// Takes nobody in yet.
    pub fn new(config: GateConfig) -> Gate {
        Gate {
            config,
            greeting: 0,
            sources: BTreeMap::new(),
            farewells: 0,
            telling: Telling::default(),
            crowded: false,
        }
    }

    fn watch_data(&mut self, cx: &mut Cx<Self>) {
        let doors = self.config.doors.data.clone();
        let next = async move { doors.lock().await.next().await };
        cx.spawn(next, |gate, arrived, cx| match arrived {
            Some(arrived) => {
                gate.on_arrived(arrived, cx);
                gate.watch_data(cx);
            }
            None => {
                tracing::error!("the data plane's listener ended");
                cx.stop();
            }
        });
    }

    fn watch_control(&mut self, cx: &mut Cx<Self>) {
        let doors = self.config.doors.control.clone();
        let next = async move { doors.lock().await.next().await };
        cx.spawn(next, |gate, event, cx| match event {
            Some(event) => {
                gate.on_control(event, cx);
                gate.watch_control(cx);
            }
            None => {
                tracing::error!("the control plane ended");
                cx.stop();
            }
        });
    }

    fn on_arrived(&mut self, arrived: Result<Connected, Rejected>, cx: &mut Cx<Self>) {
        match arrived {
            Ok(Connected {
                peer, stream, from, ..
            }) => {
                let peer = peer.node_id();
                // Without addresses there are no strangers to tell apart by them.
                let prefix = |at: std::net::SocketAddr| Source::Prefix(Prefix::of(at.ip()));
                let source = from.map_or(Source::Node(peer), prefix);
                self.greet(Plane::Data, peer, source, stream, cx);
            }
            Err(rejected) if self.tells(cx) => tracing::info!(%rejected, "not let in"),
            Err(_) => {}
        }
    }

    fn on_control(&mut self, event: ControlEvent, cx: &mut Cx<Self>) {
        match event {
            ControlEvent::Substream(Substream { peer, stream }) => {
                let peer = peer.node_id();
                self.greet(Plane::Control, peer, Source::Node(peer), stream, cx);
            }
            ControlEvent::PeerUp { peer } => {
                tracing::debug!(peer = %peer.node_id(), "control plane connected");
            }
            ControlEvent::PeerDown { peer, reason } => {
                tracing::debug!(%peer, ?reason, "control plane disconnected");
            }
            ControlEvent::InboundFailed { from, error } => {
                if self.tells(cx) {
                    tracing::info!(?from, %error, "not let in");
                }
            }
            ControlEvent::Found { peer, at } => {
                tracing::debug!(%peer, %at, "a node on the LAN");
                self.config.steward.mesh.sighted(peer, at);
            }
            ControlEvent::Circuit { peer } => {
                tracing::info!(%peer, "connected through a relay, from there");
                let meeting = self.config.paths.clone().meet(peer);
                cx.spawn(meeting, |_, (), _| ());
            }
            ControlEvent::Direct { peer } => {
                tracing::info!(%peer, "connected directly, in place of a circuit");
            }
            ControlEvent::Probed { at, by, reached } => {
                self.config.paths.probed(at, by, reached);
            }
            ControlEvent::Misbehaved { peer, offence } => {
                tracing::warn!(%peer, %offence, "control plane closed");
                self.config.steward.mesh.blame(peer, Offence::BadBytes);
            }
        }
    }

    fn greet(
        &mut self,
        plane: Plane,
        peer: NodeId,
        source: Source,
        stream: impl ByteStream,
        cx: &mut Cx<Self>,
    ) {
        let mut services = self.config.reception.services(plane);
        services.push(ServiceId::CONTROL);
        let config = LinkConfig::new(self.config.role, services);
        let each = self.sources.get(&source).copied().unwrap_or(0);
        if self.crowded || self.greeting >= MAX_GREETING || each >= MAX_GREETING_EACH {
            return self.no_place(peer, stream, config, cx);
        }
        self.greeting += 1;
        self.sources.insert(source, each + 1);
        let check = role_check(
            self.config.authority.clone(),
            self.config.reception.clone(),
            plane,
        );
        let env = cx.env().clone();
        let establishing = async move { establish(&env, stream, peer, config, check).await };
        cx.spawn(establishing, move |gate, outcome, cx| {
            gate.greeted(source);
            match outcome {
                Ok(accepted) => gate.receive(plane, accepted),
                Err(error) => {
                    gate.config.steward.mesh.ended(peer, &error.reason);
                    if gate.tells(cx) {
                        tracing::info!(%peer, plane = plane_name(plane), %error, "no link");
                    }
                }
            }
        });
    }

    /// Whether a stranger gets a line in the log.
    fn tells(&mut self, cx: &Cx<Self>) -> bool {
        let (tells, missed) = self.telling.next(cx.now());
        if let Some(count) = missed {
            tracing::info!(count, "more strangers were not let in, without a line each");
        }
        tells
    }

    fn greeted(&mut self, source: Source) {
        self.greeting -= 1;
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    fn no_place(
        &mut self,
        peer: NodeId,
        stream: impl ByteStream,
        config: LinkConfig,
        cx: &mut Cx<Self>,
    ) {
        if self.tells(cx) {
            tracing::warn!(%peer, "too many links are being established");
        }
        if self.farewells >= MAX_FAREWELLS {
            return;
        }
        self.farewells += 1;
        let env = cx.env().clone();
        let told = async move {
            let why = "too many links are being established";
            turn_away(&env, stream, config, Reason::Limits, why).await;
        };
        cx.spawn(told, |gate, (), _| gate.farewells -= 1);
    }

    fn receive(&mut self, plane: Plane, accepted: Accepted) {
        let peer = accepted.peer.clone();
        let bindings = self.config.steward.bindings_for(peer.role);
        let handle = accepted.handle().clone();
        let place = self.config.doors.places(plane).take(peer.node_id);
        let received = match place {
            Ok(place) => {
                accepted.hold(place);
                let reception = &self.config.reception;
                reception.receive(plane, &peer, &handle, bindings)
            }
            Err(full) => Err(TurnedAway {
                reason: Reason::Limits,
                detail: full.to_string(),
            }),
        };
        match received {
            Ok(bindings) => {
                let handle = accepted.start(bindings);
                self.config.steward.opened(plane, handle);
            }
            Err(turned_away) => {
                tracing::warn!(peer = %peer.node_id, %turned_away, "turned away");
                let handle = accepted.start(Bindings::new());
                handle.close_with(turned_away.reason, &turned_away.detail);
            }
        }
    }
}

impl On<Crowded> for Gate {
    fn on(&mut self, msg: Crowded, _: &mut Cx<Self>) -> Reply<Crowded> {
        self.crowded = msg.0;
        Reply::Now(())
    }
}

impl Behaviour for Gate {
    const NAME: &'static str = "Gate";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.watch_data(cx);
        self.watch_control(cx);
    }

    fn describe(&self) -> String {
        format!("{} links being established", self.greeting)
    }
}

/// Decides whether a peer may have the role it claims.
pub type RoleCheck = Box<dyn Fn(NodeId, &PeerHello) -> Result<(), RoleRefused> + Send + Sync>;

fn role_check(authority: Authority, reception: Arc<dyn Reception>, plane: Plane) -> RoleCheck {
    Box::new(move |peer, hello| {
        granted(&authority, peer, hello)?;
        if reception.admits(plane, hello.role) {
            return Ok(());
        }
        let plane = plane_name(plane);
        Err(RoleRefused::new(format!(
            "a {} does not link on the {plane} plane here",
            hello.role
        )))
    })
}

/// Whether the peer may be what it claims, now.
pub fn granted(authority: &Authority, peer: NodeId, hello: &PeerHello) -> Result<(), RoleRefused> {
    let admitted = authority.admit(peer, hello.role);
    admitted.map_err(|standing| RoleRefused::new(standing.to_string()))
}
