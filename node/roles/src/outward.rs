//! Dials other nodes: data links to those a role works with, control links to its neighbours.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_link::{LinkConfig, PeerHello, ServiceId};
use pqcnet_mesh::Linked;
use pqcnet_messages::Role;
use pqcnet_messages::control::Plane;
use pqcnet_p2p::control::ControlPlane;
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::network::{Address, NetworkFile};
use pqcnet_p2p::typed::{Bindings, LinkHandle, RoleRefused, establish};

use crate::gate::{StewardRefs, granted};

/// What dialling needs, shared by every dial of a node.
#[derive(Clone)]
pub struct Outward {
    /// The node's surroundings.
    pub env: Env,
    /// What this node is.
    pub role: Role,
    /// Addresses and roles.
    pub network: Arc<NetworkFile>,
    /// The data plane.
    pub endpoint: Endpoint,
    /// The control plane.
    pub control: Arc<dyn ControlPlane>,
    /// Hears of every link.
    pub steward: StewardRefs,
}

impl Outward {
    /// A data link to a node of one role, with these services served on it.
    pub async fn data(
        &self,
        peer: NodeId,
        wanted: Role,
        services: Vec<ServiceId>,
        bind: impl FnOnce(&LinkHandle, Bindings) -> Bindings,
    ) -> Result<LinkHandle, String> {
        let mut failures = Vec::new();
        for at in self.addresses(&peer) {
            let connected = match self.endpoint.dial(at, peer).await {
                Ok(connected) => connected,
                Err(error) => {
                    failures.push(error.to_string());
                    continue;
                }
            };
            let accepted = establish(
                &self.env,
                connected.stream,
                peer,
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
        if failures.is_empty() {
            failures.push("network.toml has no data address for it".to_owned());
        }
        Err(failures.join(", "))
    }

    /// A control link: a libp2p connection if there is none, then a substream of its own.
    pub fn neighbour(
        &self,
        peer: NodeId,
    ) -> BoxFuture<'static, Result<Linked<LinkHandle>, String>> {
        let outward = self.clone();
        async move {
            let entry = outward
                .network
                .node(&peer)
                .ok_or("network.toml does not list it")?;
            let addresses = entry.control.clone();
            let wanted = entry.roles.clone();
            outward
                .control
                .dial(peer, &addresses)
                .await
                .map_err(|error| error.to_string())?;
            let stream = outward
                .control
                .open(peer)
                .await
                .map_err(|error| error.to_string())?;
            let network = outward.network.clone();
            let check = move |peer: NodeId, hello: &PeerHello| {
                granted(&network, peer, hello)?;
                if wanted.contains(&hello.role) {
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

    /// The nodes this one dials on the control plane. Of two bootstrap nodes the one with the lower id dials, so that a
    /// pair has one link.
    pub fn neighbours(&self, own: NodeId) -> Vec<NodeId> {
        let bootstrap: Vec<NodeId> = self
            .network
            .bootstrap()
            .iter()
            .map(|node| node.id)
            .collect();
        let listed = bootstrap.contains(&own);
        bootstrap
            .into_iter()
            .filter(|peer| *peer != own && (!listed || own < *peer))
            .collect()
    }

    fn addresses(&self, peer: &NodeId) -> &[Address] {
        self.network
            .node(peer)
            .map(|node| node.data.as_slice())
            .unwrap_or_default()
    }

    fn link(&self, mut services: Vec<ServiceId>) -> LinkConfig {
        services.push(ServiceId::CONTROL);
        LinkConfig::new(self.role, services)
    }

    fn check(
        &self,
        wanted: Role,
    ) -> impl Fn(NodeId, &PeerHello) -> Result<(), RoleRefused> + use<> {
        let network = self.network.clone();
        move |peer, hello| {
            granted(&network, peer, hello)?;
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
