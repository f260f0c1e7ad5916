//! What every role does before its tree starts: check that the network grants the role, bind both planes.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{Addr, Env, Exit, Running, Spec, Tree};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_mesh::{Dialler, DiallerConfig, User};
use pqcnet_messages::Role;
use pqcnet_messages::control::Plane;
use pqcnet_p2p::control::{ControlConfig, ControlError, ControlPlane};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, NetworkFile};
use pqcnet_qstp::Suite;

use crate::gate::{Doors, Gate, GateConfig, Reception, StewardRefs};
use crate::outward::Outward;
use crate::platform::{Platform, PlatformError};
use crate::steward::{self, Accounts, Steward, StewardConfig};

/// Nodes connected at once on the control plane: a local or regional network; larger ones need lookup, not a full mesh.
const MAX_PEERS: usize = 1024;
/// The steward waits for links to answer what they still owe: the link's own limit is 10 s.
const STEWARD_SHUTDOWN: Duration = Duration::from_secs(15);

/// Who a node is and where it listens.
#[derive(Clone)]
pub struct Setup {
    /// Its identity.
    pub keys: Arc<NodeKeys>,
    /// The network it belongs to.
    pub network: Arc<NetworkFile>,
    /// Suites of its channels, best first.
    pub suites: Vec<Suite>,
    /// Where libp2p listens.
    pub control: Address,
    /// Where direct streams are taken.
    pub data: Address,
    /// Name and version of its software.
    pub software: String,
}

/// Why a role did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `network.toml` does not list this node with this role; the operator erred.
    #[error("network {network} does not grant {} the role {role}; the ids with that role are: {granted}", node.short())]
    NotGranted {
        /// The network's name.
        network: String,
        /// This node.
        node: NodeId,
        /// The role it was started as.
        role: Role,
        /// Those that have it.
        granted: String,
    },
    /// The platform lacks something.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The keys and suites make no handshake configuration: a bug.
    #[error("no handshake configuration: {0}")]
    Security(String),
    /// The control plane's address.
    #[error("control plane: {0}")]
    Control(#[from] ControlError),
    /// The data plane's address.
    #[error("data plane: cannot listen at {at}: {source}")]
    Data {
        /// Where.
        at: Address,
        /// Why.
        source: std::io::Error,
    },
    /// A shard map cannot be made from the network.
    #[error("no shard map: {0}")]
    Shards(String),
    /// The tree ended before every actor had started.
    #[error("the role's actors did not start: {0:?}")]
    Tree(Exit),
}

/// A role that runs.
#[derive(Clone)]
pub struct Started {
    /// Who it is.
    pub node_id: NodeId,
    /// What it is.
    pub role: Role,
    /// Its tree.
    pub running: Running,
    /// Its account of itself.
    pub steward: Addr<Steward>,
    /// Where libp2p listens.
    pub control: Address,
    /// Where direct streams are taken.
    pub data: Address,
}

/// Bound sockets and everything a tree is made from.
pub(crate) struct Ground {
    pub(crate) env: Env,
    pub(crate) role: Role,
    pub(crate) node_id: NodeId,
    pub(crate) network: Arc<NetworkFile>,
    software: String,
    endpoint: Endpoint,
    control: Arc<dyn ControlPlane>,
    doors: Doors,
    bound: (Address, Address),
}

impl Ground {
    pub(crate) async fn prepare(
        platform: &dyn Platform,
        setup: Setup,
        role: Role,
    ) -> Result<Ground, StartError> {
        let Setup {
            keys,
            network,
            suites,
            control: control_at,
            data: data_at,
            software,
        } = setup;
        let node_id = keys.node_id();
        if !network.grants(&node_id, role) {
            return Err(not_granted(&network, node_id, role));
        }
        let env = platform.env().clone();
        let mut config = SecurityConfig::new(keys, network.network_id());
        config.suites = suites;
        config.members = Some(Arc::new(
            network.nodes().iter().map(|node| node.id).collect(),
        ));
        let security = Security::new(env.clone(), config)
            .map_err(|error| StartError::Security(error.to_string()))?;
        let config = ControlConfig::new(security.clone(), MAX_PEERS);
        let (control, events) = platform.control(config)?;
        let control_bound = control.listen(&control_at).await?;
        let endpoint = Endpoint::new(security, platform.streams());
        let incoming = endpoint
            .listen(&data_at)
            .await
            .map_err(|source| StartError::Data {
                at: data_at,
                source,
            })?;
        let data_bound = incoming.local().clone();
        Ok(Ground {
            env,
            role,
            node_id,
            network,
            software,
            endpoint,
            control,
            doors: Doors::new(incoming, events),
            bound: (control_bound, data_bound),
        })
    }

    /// The steward; it stops before the actors that were added earlier.
    pub(crate) fn steward(
        &self,
        tree: &mut Tree,
        expected: Vec<(NodeId, Plane)>,
        accounts: Arc<dyn Accounts>,
    ) -> (Addr<Steward>, StewardRefs) {
        let mut expected = expected;
        let neighbours = self.network.bootstrap();
        expected.extend(
            neighbours
                .iter()
                .map(|node| (node.id, Plane::Control))
                .filter(|(id, _)| *id != self.node_id),
        );
        let config = StewardConfig {
            node_id: self.node_id,
            role: self.role,
            software: self.software.clone(),
            expected,
            accounts,
        };
        let steward = tree.child(
            Spec::new("steward", move |_| Steward::new(config.clone()))
                .mailbox(steward::BOUNDS)
                .shutdown(STEWARD_SHUTDOWN),
        );
        let refs = StewardRefs {
            opened: steward.of(),
            ping: steward.of(),
            status: steward.of(),
        };
        (steward, refs)
    }

    pub(crate) fn outward(&self, steward: StewardRefs) -> Outward {
        Outward {
            env: self.env.clone(),
            role: self.role,
            network: self.network.clone(),
            endpoint: self.endpoint.clone(),
            control: self.control.clone(),
            steward,
        }
    }

    /// The dialler of the control plane's neighbours, then the gate.
    pub(crate) fn doors(
        &self,
        tree: &mut Tree,
        steward: &Addr<Steward>,
        outward: &Outward,
        reception: Arc<dyn Reception>,
    ) {
        let user = User {
            up: steward.of(),
            down: steward.of(),
        };
        let neighbours = outward.neighbours(self.node_id);
        let users = neighbours
            .into_iter()
            .map(|peer| (peer, user.clone()))
            .collect();
        let dialling = outward.clone();
        let config = DiallerConfig::new(Arc::new(move |peer| dialling.neighbour(peer)), users);
        tree.child(Spec::new("neighbours", move |_| {
            Dialler::new(config.clone())
        }));
        let config = GateConfig {
            role: self.role,
            network: self.network.clone(),
            doors: self.doors.clone(),
            reception,
            steward: outward.steward.clone(),
        };
        tree.child(Spec::new("gate", move |_| Gate::new(config.clone())));
    }

    pub(crate) async fn start(
        self,
        tree: Tree,
        steward: Addr<Steward>,
    ) -> Result<Started, StartError> {
        let running = tree.start(self.env.clone());
        running.started().await.map_err(StartError::Tree)?;
        let (control, data) = self.bound;
        Ok(Started {
            node_id: self.node_id,
            role: self.role,
            running,
            steward,
            control,
            data,
        })
    }
}

fn not_granted(network: &NetworkFile, node: NodeId, role: Role) -> StartError {
    let granted: Vec<String> = network
        .with_role(role)
        .take(4)
        .map(|entry| entry.id.short().to_string())
        .collect();
    StartError::NotGranted {
        network: network.name().to_owned(),
        node,
        role,
        granted: if granted.is_empty() {
            "none".to_owned()
        } else {
            granted.join(", ")
        },
    }
}
