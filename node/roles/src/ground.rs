//! What every role does before its tree starts: check that the network grants the role, bind both planes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Env, Exit, Ref, Running, Spec, Tree};
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::ServiceId;
use pqcnet_mesh::{Authority, Dialler, DiallerConfig, ShelfError, Standing, User};
use pqcnet_messages::Role;
use pqcnet_messages::control::Plane;
use pqcnet_messages::metering::{CloseWindow, CreateReport, ReadTotals};
use pqcnet_messages::relay_local::Room;
use pqcnet_messages::{Advert, KemAdvert, SubmitDirective};
use pqcnet_p2p::control::{ControlConfig, ControlError, ControlPlane, GossipConfig, LookupConfig};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, NetworkFile, NodeEntry};
use pqcnet_qstp::Suite;
use pqcnet_store::RocksStore;

use crate::caretaker::{Care, Caretaker, CaretakerConfig, Live, Orders, Stores};
use crate::gate::{Doors, Gate, GateConfig, Reception, StewardRefs};
use crate::mesh::{Mesh, MeshRefs, record_check, teach};
use crate::outward::Outward;
use crate::platform::{Platform, PlatformError};
use crate::reach::{Paths, Reach, say_where};
use crate::steward::{self, Accounts, Steward, StewardConfig};
use crate::watchman::{FreeBytes, Watchman, WatchmanConfig};

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
    /// Versions of its keys.
    pub versions: KeyVersions,
    /// Whether to look for nodes on the LAN, and to be found there.
    pub lan: bool,
    /// How it is reached on the control plane.
    pub reach: Reach,
    /// Its upkeep.
    pub care: Care,
}

/// What a node advertises of its keys' versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersions {
    /// How often its identity has been succeeded, from 1.
    pub identity: u32,
    /// The key that tunnels to it are opened with, where it takes tunnels.
    pub kem: Option<KemAdvert>,
}

impl Default for KeyVersions {
    /// A first identity that takes no tunnels.
    fn default() -> KeyVersions {
        KeyVersions {
            identity: 1,
            kem: None,
        }
    }
}

/// Why a role did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `network.toml` does not list this node with this role; the operator erred.
    #[error("network {network} does not grant {} the role {role}; the ids with that role are: {granted}. Where its identity was put into use before the root let it succeed, `pqcnet keys rotate undo` goes back", node.short())]
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
    /// The root has revoked this node, or it was succeeded, or its lease is over; the operator asks whoever keeps the root.
    #[error("network {network} does not let this node in: {standing}")]
    Barred {
        /// The network's name.
        network: String,
        /// Why.
        standing: Standing,
    },
    /// What the root has ordered so far cannot be read: this node would let in who is revoked.
    #[error("directives: {0}")]
    Directives(#[from] ShelfError),
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
    /// What may change while it runs, and what it may be ordered.
    pub live: Live,
    /// Takes the root's directives, as from an operator.
    pub directives: Ref<SubmitDirective>,
    /// A relayer's meter, where it has one.
    pub meter: Option<MeterRefs>,
}

/// What an operator asks of a meter.
#[derive(Clone, Debug)]
pub struct MeterRefs {
    /// Closes a window now.
    pub close: Ref<CloseWindow>,
    /// Makes reports.
    pub report: Ref<CreateReport>,
    /// Says what was counted.
    pub totals: Ref<ReadTotals>,
}

/// Bound sockets and everything a tree is made from.
pub(crate) struct Ground {
    pub(crate) env: Env,
    pub(crate) role: Role,
    pub(crate) node_id: NodeId,
    pub(crate) network: Arc<NetworkFile>,
    keys: Arc<NodeKeys>,
    mesh: Mesh,
    versions: KeyVersions,
    software_hash: [u8; 32],
    software: String,
    endpoint: Endpoint,
    control: Arc<dyn ControlPlane>,
    doors: Doors,
    bound: (Address, Address),
    pub(crate) care: Care,
    reach: Reach,
    live: Live,
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
            versions,
            lan,
            reach,
            care,
        } = setup;
        let node_id = keys.node_id();
        let mesh = Mesh::prepare(platform, &network).await?;
        match mesh.authority.admit(node_id, role) {
            Ok(()) => {}
            Err(Standing::NotGranted { .. }) => return Err(not_granted(&network, node_id, role)),
            Err(standing) => {
                let network = network.name().to_owned();
                return Err(StartError::Barred { network, standing });
            }
        }
        let software_hash = platform.software_hash();
        let env = platform.env().clone();
        let mut config = SecurityConfig::new(keys.clone(), network.network_id());
        config.suites = suites;
        config.guard.waiting = care.strangers;
        config.guard.half_open = config.guard.half_open.min(care.strangers);
        config.members = Some(Arc::new(
            network.nodes().iter().map(|node| node.id).collect(),
        ));
        let security = Security::new(env.clone(), config)
            .map_err(|error| StartError::Security(error.to_string()))?;
        let mut config = ControlConfig::new(security.clone(), MAX_PEERS);
        let authority = mesh.authority.clone();
        config.gossip = Some(GossipConfig::default());
        config.lookup = Some(LookupConfig::default());
        config.lan = lan;
        config.relays = reach == Reach::Relay;
        config.relayed = reach.may_be_relayed();
        config.probes = (reach == Reach::Auto).then(|| {
            let own = network.node(&node_id);
            own.map_or(Vec::new(), |entry| entry.control.clone())
        });
        config.gossips_with = Arc::new(move |peer| authority.is_member(*peer));
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
            keys,
            mesh,
            versions,
            software_hash,
            software,
            endpoint,
            control,
            doors: Doors::new(incoming, events),
            bound: (control_bound, data_bound),
            live: Live::new(&care),
            reach,
            care,
        })
    }

    /// The listed identity that this node stands in for: its own, or the one that its line succeeded.
    fn seat(&self) -> NodeId {
        self.mesh.authority.standings().seat(self.node_id)
    }

    /// The steward; it stops before the actors that were added earlier.
    pub(crate) fn steward(
        &self,
        tree: &mut Tree,
        expected: Vec<(NodeId, Plane)>,
        accounts: Arc<dyn Accounts>,
        copied: Option<(Arc<RocksStore>, Option<Arc<RocksStore>>)>,
    ) -> (Addr<Steward>, StewardRefs) {
        let mut expected = expected;
        let seat = self.seat();
        let neighbours = self.network.bootstrap();
        expected.extend(
            neighbours
                .iter()
                .map(|node| (node.id, Plane::Control))
                .filter(|(id, _)| *id != seat),
        );
        let bootstrap = bootstrap(&self.network, seat);
        let mesh = self.mesh.plant(
            tree,
            self.keys.clone(),
            &self.network,
            self.advert(),
            &self.control,
            bootstrap,
        );
        let (linked, linked_with) = latest::channel(Arc::default());
        let config = StewardConfig {
            linked,
            mesh: mesh.clone(),
            authority: self.mesh.authority.clone(),
            view: self.mesh.view.clone(),
            control: self.control.clone(),
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
        let config = CaretakerConfig {
            stores: copied.map(|(store, meter)| Stores {
                log: store,
                meter,
                backups: self.care.backups.clone(),
            }),
            live: self.live.clone(),
        };
        let caretaker = tree.child(Spec::new("caretaker", move |_| {
            Caretaker::new(config.clone())
        }));
        let refs = StewardRefs {
            orders: Orders {
                drain: caretaker.of(),
                back_up: caretaker.of(),
            },
            opened: steward.of(),
            linked: linked_with,
            ping: steward.of(),
            status: steward.of(),
            mesh,
        };
        (steward, refs)
    }

    pub(crate) fn outward(&self, steward: StewardRefs) -> Outward {
        Outward {
            env: self.env.clone(),
            role: self.role,
            network: self.network.clone(),
            authority: self.mesh.authority.clone(),
            view: self.mesh.view.clone(),
            endpoint: self.endpoint.clone(),
            control: self.control.clone(),
            steward,
            missing: Arc::default(),
            own: self.node_id,
        }
    }

    /// What this node says of itself; the herald fills in the rest.
    fn advert(&self) -> Advert {
        let own = self.network.node(&self.node_id);
        let listed = |plane: fn(&NodeEntry) -> &Vec<Address>| own.map(plane);
        let service = match self.role {
            Role::Sentry => Some(ServiceId::EDGE),
            Role::Relayer => Some(ServiceId::RELAY),
            _ => None,
        };
        Advert {
            network_id: self.network.network_id().0,
            node: self.keys.public().clone(),
            roles: BTreeSet::from([self.role]),
            services: service.into_iter().chain([ServiceId::CONTROL]).collect(),
            software: self.software.clone(),
            software_hash: self.software_hash,
            identity_version: self.versions.identity,
            kem: self.versions.kem.clone(),
            // One that may be relayed has no address before a relay has reached it or given it a place.
            control: match self.reach {
                Reach::Relayed | Reach::Auto => Vec::new(),
                Reach::Direct | Reach::Relay => {
                    advertised(&self.bound.0, listed(|entry| &entry.control))
                }
            },
            data: advertised(&self.bound.1, listed(|entry| &entry.data)),
            issued_at_ms: 0,
            lease_ms: 0,
        }
    }

    /// Who signs what this node answers for.
    pub(crate) fn keys(&self) -> &Arc<NodeKeys> {
        &self.keys
    }

    /// Who may be what in this network.
    pub(crate) fn authority(&self) -> &Authority {
        &self.mesh.authority
    }

    /// The dialler of the control plane's neighbours, the gate, then the watchman, who tells it and the workers.
    pub(crate) fn doors(
        &self,
        tree: &mut Tree,
        steward: &Addr<Steward>,
        outward: &Outward,
        reception: Arc<dyn Reception>,
        watched: Watched,
    ) {
        let user = User {
            up: steward.of(),
            down: steward.of(),
        };
        let neighbours = bootstrap(&self.network, self.seat());
        let users = neighbours
            .into_iter()
            .map(|peer| (peer, user.clone()))
            .collect();
        let dialling = outward.clone();
        let mut config = DiallerConfig::new(Arc::new(move |peer| dialling.neighbour(peer)), users);
        config.wanted = Some(self.mesh.wanted.clone());
        config.others = Some(user);
        config.failures = Some(outward.steward.mesh.failures());
        tree.child(Spec::new("neighbours", move |_| {
            Dialler::new(config.clone())
        }));
        let paths = Paths::new(self.reach, outward);
        if self.reach.may_be_relayed() {
            let relays = bootstrap(&self.network, self.seat());
            let announce = outward.steward.mesh.announce();
            say_where(&paths, relays, self.advert(), announce);
        }
        let config = GateConfig {
            role: self.role,
            authority: self.mesh.authority.clone(),
            doors: self.doors.clone(),
            reception,
            steward: outward.steward.clone(),
            paths,
        };
        let gate = tree.child(Spec::new("gate", move |_| Gate::new(config.clone())));
        let config = WatchmanConfig {
            limits: self.live.limits(),
            facts: self.care.facts.clone(),
            disk: watched.disk,
            steward: steward.of(),
            workers: watched.workers,
            gate: gate.of(),
        };
        tree.child(Spec::new("watchman", move |_| {
            Watchman::new(config.clone())
        }));
    }

    pub(crate) async fn start(
        self,
        tree: Tree,
        steward: Addr<Steward>,
        mesh: MeshRefs,
    ) -> Result<Started, StartError> {
        let running = tree.start(self.env.clone());
        running.started().await.map_err(StartError::Tree)?;
        mesh.gossip(&*self.control).await?;
        let check = record_check(&self.env, &self.network, &self.mesh.authority);
        self.control.keep_records(check).await?;
        let taught = teach(self.control.clone(), self.mesh.view.clone());
        self.env.spawn(taught);
        let directives = mesh.submit();
        let (control, data) = self.bound;
        Ok(Started {
            node_id: self.node_id,
            role: self.role,
            running,
            steward,
            control,
            data,
            live: self.live,
            directives,
            meter: None,
        })
    }
}

/// What else a watchman looks at.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) disk: Option<(PathBuf, FreeBytes)>,
    pub(crate) workers: Vec<Ref<Room>>,
}

/// The bootstrap nodes that this one dials, which goes by its listed identity. Of two bootstrap nodes the one with the lower id
/// dials, so that a pair has one link.
fn bootstrap(network: &NetworkFile, own: NodeId) -> Vec<NodeId> {
    let bootstrap: Vec<NodeId> = network.bootstrap().iter().map(|node| node.id).collect();
    let listed = bootstrap.contains(&own);
    bootstrap
        .into_iter()
        .filter(|peer| *peer != own && (!listed || own < *peer))
        .collect()
}

/// Where others find this node: where the network file says, else where it listens, unless that is every interface.
fn advertised(bound: &Address, listed: Option<&Vec<Address>>) -> Vec<String> {
    match listed {
        Some(listed) if !listed.is_empty() => listed.iter().map(Address::to_string).collect(),
        _ => {
            let anywhere = bound.ip().is_some_and(|ip| ip.is_unspecified());
            let own = (!anywhere).then(|| bound.to_string());
            own.into_iter().collect()
        }
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
