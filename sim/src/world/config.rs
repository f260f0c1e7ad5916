//! What a world and its nodes are made from.

use pqcnet_link::Role;
use pqcnet_roles::{Metering, StartError};

use super::cpu::CpuSpec;
use super::{NodeName, NodeNo};
use crate::crypto::{Costs, Crypto};
use crate::disk::DiskConfig;
use crate::net::{Bandwidth, LinkModel, Nat, Uniform};

/// What a world is made from.
pub struct WorldConfig {
    /// Everything random follows from it and from names.
    pub seed: u64,
    /// How cryptography is done.
    pub crypto: Crypto,
    /// What it costs.
    pub costs: Costs,
    /// Which links nodes have.
    pub links: Box<dyn LinkModel>,
    /// One poll of a task in so many gives way to others first, by seeded dice: other seeds, other schedules. 0: none.
    pub yields: u32,
    /// Virtual shards of the network.
    pub shards: u16,
    /// How much of what happened an error tells.
    pub last_events: usize,
    /// How relayers meter; `None`: not at all.
    pub metering: Option<Metering>,
}

impl WorldConfig {
    /// Remembered cryptography, 20 ms between all nodes, 16 shards, no yields, windows of a minute.
    pub fn new(seed: u64) -> WorldConfig {
        WorldConfig {
            seed,
            crypto: Crypto::Memo,
            costs: Costs::default(),
            links: Box::new(Uniform::default()),
            yields: 0,
            shards: 16,
            last_events: 64,
            metering: Some(Metering::default()),
        }
    }
}

/// A node to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name; no two nodes of a world have the same.
    pub name: NodeName,
    /// What it is: a relayer or a sentry runs its role's tree, a client has streams and waits for whoever uses them.
    pub role: Role,
    /// Where it stands, in the words of the model of links.
    pub place: String,
    /// Whether others dial it first on the control plane.
    pub bootstrap: bool,
    /// What stands before it.
    pub nat: Nat,
    /// The line that all its links share, each way; `None`: as fast as they are.
    pub access: Option<Bandwidth>,
    /// Its CPU.
    pub cpu: CpuSpec,
    /// Its disk.
    pub disk: DiskConfig,
    /// Of a relayer: its log is on the broker of this node.
    pub broker: Option<NodeName>,
    /// It runs a broker; a client in all else.
    pub serves: bool,
}

impl NodeSpec {
    /// A node that anybody can reach, of two cores.
    pub fn new(name: impl Into<NodeName>, role: Role) -> NodeSpec {
        NodeSpec {
            name: name.into(),
            role,
            place: String::new(),
            bootstrap: false,
            nat: Nat::None,
            access: None,
            cpu: CpuSpec::default(),
            disk: DiskConfig::default(),
            broker: None,
            serves: false,
        }
    }
}

/// How a node ends without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKind {
    /// Its process dies; the machine tells its peers at once. What was written and not synced survives.
    Process,
    /// Its machine loses power; its peers hear nothing. What was not synced is lost.
    Machine,
}

/// What the world was asked and cannot do.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Two nodes of one name; the scenario errs.
    #[error("there is a node {0} already")]
    SameName(NodeName),
    /// Members are listed in the network file, which every node has from its start.
    #[error("{0} is a member of the network and must be added before any node starts")]
    TooLate(NodeName),
    /// The network file cannot be made; the scenario errs.
    #[error("these nodes make no network: {0}")]
    Network(String),
    /// The node runs already.
    #[error("{0} runs already")]
    Running(NodeName),
    /// There is no node of this number.
    #[error("there is no node {0:?}")]
    NoSuchNode(NodeNo),
    /// A relayer's log is to be on the broker of a node that has none; the scenario errs.
    #[error("{name}: {broker} has no broker")]
    NoBroker {
        /// The relayer.
        name: NodeName,
        /// The node.
        broker: NodeName,
    },
    /// The role cannot be simulated: there is no tree for it.
    #[error("{name}: no tree for the role {role}")]
    NoTree {
        /// The node.
        name: NodeName,
        /// Its role.
        role: Role,
    },
    /// A node did not come up.
    #[error("{name} did not start: {error}")]
    Start {
        /// The node.
        name: NodeName,
        /// Why.
        error: StartError,
    },
}
