//! Dials other nodes: data links to those a role works with, control links to its neighbours.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _};
use pqcnet_actor::Env;
use pqcnet_actor::latest;
use pqcnet_crypto::NodeId;
use pqcnet_link::{LinkConfig, PeerHello, ServiceId, Wire as _};
use pqcnet_mesh::{Authority, Linked, NotLinked, Route, View};
use pqcnet_messages::control::Plane;
use pqcnet_messages::{Role, SignedAdvert};
use pqcnet_p2p::control::{ControlError, ControlPlane};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::HandshakeFailed;
use pqcnet_p2p::network::{Address, NetworkFile};
use pqcnet_p2p::typed::{Bindings, LinkHandle, RoleRefused, establish};
use pqcnet_qstp::Reason;

use crate::core::missing::Missing;
use crate::gate::{StewardRefs, granted};

/// What dialling needs, shared by every dial of a node.
#[derive(Clone)]
pub struct Outward {
    /// The node's surroundings.
    pub env: Env,
    /// What this node is.
    pub role: Role,
    /// Addresses.
    pub network: Arc<NetworkFile>,
    /// Roles.
    pub authority: Authority,
    /// Addresses that nodes advertise.
    pub view: latest::Receiver<Arc<View>>,
    /// The data plane.
    pub endpoint: Endpoint,
    /// The control plane.
    pub control: Arc<dyn ControlPlane>,
    /// Hears of every link.
    pub steward: StewardRefs,
    /// Whom nobody has said where to find; shared by every dial.
    pub missing: Arc<Mutex<Missing>>,
    /// This node, which dials no circuit through itself.
    pub own: NodeId,
}

impl Outward {
    /// A data link to a node of one role, with these services served on it. Where the node's identity was succeeded, the
    /// new one is tried first.
    pub async fn data(
        &self,
        peer: NodeId,
        wanted: Role,
        services: Vec<ServiceId>,
        bind: impl FnOnce(&LinkHandle, Bindings) -> Bindings,
    ) -> Result<LinkHandle, NotLinked> {
        let heir = self.authority.standings().successor(peer);
        let identities = if heir == peer {
            vec![peer]
        } else {
            vec![heir, peer]
        };
        let mut failures = Vec::new();
        for identity in identities {
            if let Err(standing) = self.authority.valid(identity) {
                failures.push(standing.to_string());
                continue;
            }
            // The heir answers where its predecessor did.
            let mut addresses = match self.route(&identity).data {
                known if known.is_empty() => self.look_up(identity).await.data,
                known => known,
            };
            if identity != peer {
                addresses.extend(self.route(&peer).data);
            }
            for at in addresses {
                let connected = match self.endpoint.dial(&at, identity).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        failures.push(error.to_string());
                        continue;
                    }
                };
                let accepted = establish(
                    &self.env,
                    connected.stream,
                    identity,
                    self.link(services),
                    self.check(wanted),
                )
                .await
                .map_err(|error| error.to_string())?;
                let bindings = bind(accepted.handle(), self.steward.bindings());
                let handle = accepted.start(bindings);
                self.steward.opened(Plane::Data, handle.clone());
                return Ok(handle);
            }
        }
        if failures.is_empty() {
            failures.push("no data address of it is known".to_owned());
        }
        Err(failures.join(", ").into())
    }

    /// A control link: a libp2p connection if there is none, then a substream of its own.
    pub fn neighbour(
        &self,
        peer: NodeId,
    ) -> BoxFuture<'static, Result<Linked<LinkHandle>, NotLinked>> {
        let outward = self.clone();
        async move {
            // The other side may have dialled first, or an heir's link be made as the heir's own: one link is enough, and
            // this one is made when that ends.
            let mut linked = outward.steward.linked.clone();
            let heir = outward.authority.standings().successor(peer);
            let free = linked
                .wait_for(|linked| !linked.contains(&peer) && !linked.contains(&heir))
                .await;
            drop(free.map_err(|_| "this node is stopping")?);
            if heir == peer {
                return outward.control_link(peer, &[]).await;
            }
            // The heir answers where its predecessor did.
            let known = outward.route(&peer).control;
            let of_heir = match outward.control_link(heir, &known).await {
                Ok(linked) => return Ok(linked),
                Err(error) => error,
            };
            // Whoever answers at the shared address is one of the two: the other has done nothing wrong.
            let of_peer = match outward.control_link(peer, &[]).await {
                Ok(linked) => return Ok(linked),
                Err(error) => error,
            };
            Err(format!("{}, {}", of_heir.reason, of_peer.reason).into())
        }
        .boxed()
    }

    /// A link with this identity, at its own addresses or these.
    async fn control_link(
        &self,
        peer: NodeId,
        others: &[Address],
    ) -> Result<Linked<LinkHandle>, NotLinked> {
        (self.authority)
            .valid(peer)
            .map_err(|standing| standing.to_string())?;
        let mut addresses = self.route(&peer).control;
        let new = others.iter().filter(|at| !addresses.contains(at));
        let new: Vec<Address> = new.cloned().collect();
        addresses.extend(new);
        if addresses.is_empty() {
            addresses = self.look_up(peer).await.control;
        }
        self.connect(peer, &addresses).await?;
        let stream = self
            .control
            .open(peer)
            .await
            .map_err(|error| error.to_string())?;
        let authority = self.authority.clone();
        let check = move |peer: NodeId, hello: &PeerHello| {
            granted(&authority, peer, hello)?;
            if hello.role != Role::Client {
                return Ok(());
            }
            Err(RoleRefused::new(format!("not dialled as a {}", hello.role)))
        };
        let config = self.link(Vec::new());
        let accepted = establish(&self.env, stream, peer, config, check)
            .await
            .map_err(|error| error.to_string())?;
        // The steward hears of it as the dialler's user.
        let handle = accepted.start(self.steward.bindings());
        let closed = handle.closed().map(|reason| reason.to_string()).boxed();
        Ok(Linked {
            link: handle,
            closed,
        })
    }

    /// A connection on the control plane: at an address, else through a relay.
    async fn connect(&self, peer: NodeId, addresses: &[Address]) -> Result<(), NotLinked> {
        let is_direct = |at: &&Address| at.relay().is_none();
        let direct: Vec<Address> = addresses.iter().filter(is_direct).cloned().collect();
        let relays = addresses.iter().filter_map(Address::relay);
        let relays: Vec<NodeId> = relays.filter(|relay| *relay != self.own).collect();
        let failed = |error: ControlError| NotLinked {
            handshake: is_somebody_else(&error),
            reason: error.to_string(),
        };
        let mut last = NotLinked::from("no control address of it is known");
        // Without an address too: there may be a connection already.
        match self.control.dial(peer, &direct).await {
            Ok(()) => return Ok(()),
            Err(_) if direct.is_empty() => {}
            Err(error) => last = failed(error),
        }
        for relay in relays {
            let Some(at) = self.direct(&relay).into_iter().next() else {
                continue;
            };
            match self.control.dial_through(peer, relay, &at).await {
                Ok(()) => return Ok(()),
                Err(error) => last = failed(error),
            }
        }
        Err(last)
    }

    /// A node's own addresses on the control plane, without circuits.
    pub(crate) fn direct(&self, peer: &NodeId) -> Vec<Address> {
        let mut known = self.route(peer).control;
        known.retain(|at| at.relay().is_none());
        known
    }

    /// Where a node may be: as it advertises, then as the network file says.
    fn route(&self, peer: &NodeId) -> Route {
        let routes = self.view.borrow().routes.clone();
        let mut route = routes.get(peer).map(|route| Route::clone(route));
        if let Some(entry) = self.network.node(peer) {
            let route = route.get_or_insert_default();
            for (known, listed) in [
                (&mut route.control, &entry.control),
                (&mut route.data, &entry.data),
            ] {
                let new = listed.iter().filter(|at| !known.contains(at));
                let new: Vec<Address> = new.cloned().collect();
                known.extend(new);
            }
        }
        let route = route.unwrap_or_default();
        if !route.control.is_empty() || !route.data.is_empty() {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.found(peer);
        }
        route
    }

    /// Asks the network where a node is, if that is due.
    async fn look_up(&self, peer: NodeId) -> Route {
        if !self.misses(peer) {
            return Route::default();
        }
        let found = self.control.lookup(peer).await.ok().flatten();
        let Some(signed) = found.and_then(|record| SignedAdvert::from_wire(record).ok()) else {
            return Route::default();
        };
        let read = |texts: &[String]| texts.iter().filter_map(|at| at.parse().ok()).collect();
        let route = Route {
            control: read(&signed.advert.control),
            data: read(&signed.advert.data),
        };
        self.steward.mesh.found(signed);
        route
    }

    fn misses(&self, peer: NodeId) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.asks(peer, self.env.now())
    }

    fn link(&self, mut services: Vec<ServiceId>) -> LinkConfig {
        services.push(ServiceId::CONTROL);
        LinkConfig::new(self.role, services)
    }

    fn check(
        &self,
        wanted: Role,
    ) -> impl Fn(NodeId, &PeerHello) -> Result<(), RoleRefused> + use<> {
        let authority = self.authority.clone();
        move |peer, hello| {
            granted(&authority, peer, hello)?;
            if hello.role == wanted {
                return Ok(());
            }
            Err(RoleRefused::new(format!(
                "dialled as a {wanted}, not a {}",
                hello.role
            )))
        }
    }
}

/// Whether at one of the addresses somebody answered who could not prove to be the node that was meant.
fn is_somebody_else(error: &ControlError) -> bool {
    let ControlError::Dial { failures, .. } = error else {
        return false;
    };
    let mut faults = (failures.iter())
        .filter_map(|(_, failure)| failure.handshake().and_then(HandshakeFailed::protocol));
    faults.any(|error| {
        matches!(
            error.reason,
            Reason::Identity { .. } | Reason::BadSignature | Reason::BadFinished
        )
    })
}
