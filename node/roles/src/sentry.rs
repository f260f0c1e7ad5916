//! The sentry's tree.
//!
//! ```text
//!   sentry (rest-for-one)
//!     uplink-<relayer>  one a relayer: its link, shared by all sessions
//!     sessions          a nursery: one ClientSession a client link
//!     steward           the node's account; closes links on the way down
//!     relayers          the Dialler of the uplinks' links
//!     neighbours        the Dialler of the control plane
//!     gate              lets clients in
//! ```
//!
//! Rest-for-one, since an uplink that restarts has forgotten which sessions joined it: sessions go with it, clients
//! reconnect and resume.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _, ready};
use pqcnet_actor::{Addr, Env, Nursery, Spec, Strategy, Tree, Watchable as _};
use pqcnet_crypto::NodeId;
use pqcnet_link::{Reason, ServiceId};
use pqcnet_mesh::{Dialler, DiallerConfig, Linked, NotLinked, User};
use pqcnet_messages::control::Plane;
use pqcnet_messages::edge;
use pqcnet_messages::relay::{RelayCountersign, RelayDeliver, RelayFlow, RelaySubscriptionEnded};
use pqcnet_messages::{MAX_EXPLAINED, Role};
use pqcnet_p2p::typed::{Access, Bindings, LinkHandle, Pass, PeerInfo};
use pqcnet_sentry_actors::{
    ClientLink, ClientSession, Closer, RelayLink, Routing, SESSION_BOUNDS, SessionShared,
    UPLINK_BOUNDS, Uplink, UplinkRefs,
};

use crate::gate::{Reception, TurnedAway, close_with_actor, no_room};
use crate::ground::{Ground, Setup, StartError, Started, Watched};
use crate::outward::Outward;
use crate::platform::Platform;
use crate::problem::Code;
use crate::shards;
use crate::steward::{Accounts, Collected};

/// Clients of one sentry at once; each holds a session, a link and its windows.
pub const MAX_CLIENTS: usize = 16_384;
/// Of these, links of one client: it may run on many machines, but not in everybody's place.
pub const MAX_LINKS_OF_A_CLIENT: usize = 128;

/// Starts a sentry.
///
/// # Errors
/// The network does not grant the role, or something cannot be bound or opened.
pub async fn sentry(platform: &dyn Platform, setup: Setup) -> Result<Started, StartError> {
    let ground = Ground::prepare(platform, setup, Role::Sentry).await?;
    let relayers: Vec<NodeId> = ground
        .network
        .relayers()
        .iter()
        .map(|node| node.id)
        .collect();
    let map = shards::map(&ground.env, ground.authority())?;
    let map = Routing::new(shards::owners(&ground.env, map));

    let mut tree = Tree::new("sentry", Strategy::RestForOne);
    let uplinks: BTreeMap<NodeId, Addr<Uplink>> = relayers
        .iter()
        .map(|&relayer| {
            let name = format!("uplink-{}", relayer.short());
            let spec = Spec::new(name, Uplink::incarnations(relayer)).mailbox(UPLINK_BOUNDS);
            (relayer, tree.child(spec))
        })
        .collect();
    let sessions = tree.nursery("sessions", MAX_CLIENTS);
    let reception = Arc::new(Clients {
        env: ground.env.clone(),
        nursery: sessions,
        last: AtomicU64::new(0),
        seats: Arc::default(),
        shared: Arc::new(SessionShared {
            shares: Default::default(),
            sentry: ground.node_id,
            network_id: ground.network.network_id().0,
            map,
            uplinks: Arc::new(
                uplinks
                    .iter()
                    .map(|(id, uplink)| (*id, refs(uplink)))
                    .collect(),
            ),
        }),
    });
    let expected = relayers
        .iter()
        .map(|&relayer| (relayer, Plane::Data))
        .collect();
    let (steward, steward_refs) = ground.steward(&mut tree, expected, reception.clone(), None);
    let outward = ground.outward(steward_refs);
    tree_of_uplinks(&mut tree, uplinks, &outward);
    let watched = Watched::default();
    ground.doors(&mut tree, &steward, &outward, reception, watched);
    let mesh = outward.steward.mesh.clone();
    ground.start(tree, steward, mesh).await
}

fn tree_of_uplinks(tree: &mut Tree, uplinks: BTreeMap<NodeId, Addr<Uplink>>, outward: &Outward) {
    let users = uplinks
        .iter()
        .map(|(id, uplink)| {
            (
                *id,
                User {
                    up: uplink.of(),
                    down: uplink.of(),
                },
            )
        })
        .collect();
    let (outward, uplinks) = (outward.clone(), Arc::new(uplinks));
    let dial = Arc::new(move |relayer: NodeId| dial(outward.clone(), uplinks.clone(), relayer));
    let config = DiallerConfig::new(dial, users);
    tree.child(Spec::new("relayers", move |_| Dialler::new(config.clone())));
}

fn dial(
    outward: Outward,
    uplinks: Arc<BTreeMap<NodeId, Addr<Uplink>>>,
    relayer: NodeId,
) -> BoxFuture<'static, Result<Linked<RelayLink>, NotLinked>> {
    async move {
        let uplink = uplinks.get(&relayer).ok_or("no uplink for it")?;
        let bind = |_: &LinkHandle, bindings: Bindings| {
            bindings
                .serve::<RelayDeliver>(uplink.of())
                .serve::<RelaySubscriptionEnded>(uplink.of())
                .serve::<RelayCountersign>(uplink.of())
                .serve::<RelayFlow>(uplink.of())
        };
        let services = vec![ServiceId::RELAY];
        let handle = outward.data(relayer, Role::Relayer, services, bind).await?;
        let closed = handle.closed().map(|reason| reason.to_string()).boxed();
        Ok(Linked {
            link: relay_link(&handle),
            closed,
        })
    }
    .boxed()
}

fn relay_link(handle: &LinkHandle) -> RelayLink {
    RelayLink {
        open_session: handle.remote(),
        close_session: handle.remote(),
        open_producer: handle.remote(),
        publish: handle.remote(),
        set_readers: handle.remote(),
        find_offset: handle.remote(),
        subscribe: handle.remote(),
        join_group: handle.remote(),
        commit: handle.remote(),
        nack: handle.remote(),
        dead_letters: handle.remote(),
        consumed: handle.remote(),
        unsubscribe: handle.remote(),
        close: closer(handle),
    }
}

fn closer(handle: &LinkHandle) -> Closer {
    let handle = handle.clone();
    Arc::new(move || handle.close(Reason::Closed))
}

fn refs(uplink: &Addr<Uplink>) -> UplinkRefs {
    UplinkRefs {
        join: uplink.of(),
        open_session: uplink.of(),
        start_feed: uplink.of(),
        consumed: uplink.of(),
        commit: uplink.of(),
        stop_feed: uplink.of(),
        show_grant: uplink.of(),
    }
}

/// Starts a session for each client.
struct Clients {
    env: Env,
    nursery: Nursery,
    /// The last session's number; never used twice in a process.
    last: AtomicU64,
    seats: Arc<Mutex<BTreeMap<NodeId, usize>>>,
    shared: Arc<SessionShared>,
}

/// One link of a client, until it is dropped.
struct Seat {
    seats: Arc<Mutex<BTreeMap<NodeId, usize>>>,
    client: NodeId,
}

impl Clients {
    fn seat(&self, client: NodeId) -> Result<Seat, TurnedAway> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(client).or_default();
        if *taken >= MAX_LINKS_OF_A_CLIENT {
            return Err(TurnedAway {
                reason: Reason::Limits,
                detail: format!("this client has {MAX_LINKS_OF_A_CLIENT} links here already"),
            });
        }
        *taken += 1;
        Ok(Seat {
            seats: self.seats.clone(),
            client,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.client);
            }
        }
    }
}

impl Reception for Clients {
    fn services(&self, plane: Plane) -> Vec<ServiceId> {
        match plane {
            Plane::Data => vec![ServiceId::EDGE],
            Plane::Control => Vec::new(),
        }
    }

    fn admits(&self, plane: Plane, role: Role) -> bool {
        match plane {
            Plane::Data => matches!(role, Role::Client | Role::Operator),
            Plane::Control => role != Role::Client,
        }
    }

    fn receive(
        &self,
        plane: Plane,
        peer: &PeerInfo,
        link: &LinkHandle,
        bindings: Bindings,
    ) -> Result<Bindings, TurnedAway> {
        if plane == Plane::Control || peer.role != Role::Client {
            return Ok(bindings);
        }
        let seat = self.seat(peer.node_id)?;
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (customer, shared) = (peer.node_id, self.shared.clone());
        let pass = Pass::new();
        let attached = Access::roles([Role::Client]).with(&pass);
        let client = ClientLink {
            deliver: link.remote(),
            ended: link.remote(),
            countersign: link.remote(),
            flow: link.remote(),
            permit: Arc::new(move |until| pass.open_until(until)),
            close: closer(link),
        };
        let spec = Spec::new("session", move |_| {
            ClientSession::new(id, customer, client.clone(), shared.clone())
        });
        let session = self
            .nursery
            .spawn(spec.mailbox(SESSION_BOUNDS).place(id))
            .map_err(|full| no_room(&full))?;
        let ended = session.of::<edge::Attach>().watch();
        self.env.spawn(async move {
            ended.await;
            drop(seat);
        });
        close_with_actor(&self.env, &session.of::<edge::Attach>(), link);
        let attached = || attached.clone();
        Ok(bindings
            .serve::<edge::Attach>(session.of())
            .serve_if::<edge::OpenProducer>(attached(), session.of())
            .serve_if::<edge::Publish>(attached(), session.of())
            .serve_if::<edge::SetReaders>(attached(), session.of())
            .serve_if::<edge::FindOffset>(attached(), session.of())
            .serve_if::<edge::Subscribe>(attached(), session.of())
            .serve_if::<edge::JoinGroup>(attached(), session.of())
            .serve_if::<edge::Commit>(attached(), session.of())
            .serve_if::<edge::Nack>(attached(), session.of())
            .serve_if::<edge::ListDeadLetters>(attached(), session.of())
            .serve_if::<edge::Consumed>(attached(), session.of())
            .serve_if::<edge::Unsubscribe>(attached(), session.of()))
    }
}

impl Accounts for Clients {
    fn collect(&self) -> BoxFuture<'static, Collected> {
        let sessions = self.nursery.len();
        let count = u64::try_from(sessions).unwrap_or(u64::MAX);
        let full = || {
            Code::ClientsFull
                .problem(format!(
                    "{MAX_CLIENTS} clients are connected: no more are taken in"
                ))
                .because("more clients come to this sentry than one may have")
        };
        let collected = Collected {
            shards: Vec::new(),
            counters: vec![("client_sessions".to_owned(), count)],
            problems: if sessions < MAX_CLIENTS {
                Vec::new()
            } else {
                vec![full()]
            },
        };
        ready(collected).boxed()
    }

    fn carried_by(&self, peer: NodeId) -> Vec<String> {
        let shards = self.shared.map.owned_by(peer).into_iter();
        let told = shards.map(|shard| format!("shard {} is out of reach", shard.0));
        told.take(MAX_EXPLAINED).collect()
    }
}
