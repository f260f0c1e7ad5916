//! Dials other nodes: data links to those a role works with, control links to its neighbours.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use pqcnet_actor::Env;
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
use tokio::sync::watch;

use crate::gate::{StewardRefs, granted};

/// Gossip and pulls tell of everybody within seconds. A lookup dials as many nodes as it takes: what every node of a network
/// that starts would ask at once is asked for only by one that still misses somebody after this time.
pub(crate) const LOOKUPS_AFTER: Duration = Duration::from_secs(120);

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
    pub view: watch::Receiver<Arc<View>>,
    /// The data plane.
    pub endpoint: Endpoint,
    /// The control plane.
    pub control: Arc<dyn ControlPlane>,
    /// Hears of every link.
    pub steward: StewardRefs,
    /// When this node started.
    pub started: Duration,
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
            (outward.authority)
                .valid(peer)
                .map_err(|standing| standing.to_string())?;
            let addresses = match outward.route(&peer).control {
                known if known.is_empty() => outward.look_up(peer).await.control,
                known => known,
            };
            if addresses.is_empty() {
                return Err("no control address of it is known".into());
            }
            let dialled = outward.control.dial(peer, &addresses).await;
            dialled.map_err(|error| NotLinked {
                handshake: is_somebody_else(&error),
                reason: error.to_string(),
            })?;
            let stream = outward
                .control
                .open(peer)
                .await
                .map_err(|error| error.to_string())?;
            let authority = outward.authority.clone();
            let check = move |peer: NodeId, hello: &PeerHello| {
                granted(&authority, peer, hello)?;
                if hello.role != Role::Client {
                    return Ok(());
                }
                Err(RoleRefused::new(format!("not dialled as a {}", hello.role)))
            };
            let config = outward.link(Vec::new());
            let accepted = establish(&outward.env, stream, peer, config, check)
                .await
                .map_err(|error| error.to_string())?;
            // The steward hears of it as the dialler's user.
            let handle = accepted.start(outward.steward.bindings());
            let closed = handle.closed().map(|reason| reason.to_string()).boxed();
            Ok(Linked {
                link: handle,
                closed,
            })
        }
        .boxed()
    }

    /// Where a node may be: as it advertises, then as the network file says.
    fn route(&self, peer: &NodeId) -> Route {
        let mut route = self.view.borrow().routes.get(peer).cloned();
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
        route.unwrap_or_default()
    }

    /// Asks the network where a node is, once adverts have had their time to say it.
    async fn look_up(&self, peer: NodeId) -> Route {
        if self.env.now() < self.started + LOOKUPS_AFTER {
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
