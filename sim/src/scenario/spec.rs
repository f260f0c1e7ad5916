//! What a scenario holds, read and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::crypto::Costs;
use crate::geo::Point;

/// Everything about a run but its seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// A word.
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// Simulated time that runs, from the moment all nodes were started.
    pub duration: Duration,
    /// How signatures and encapsulations are made.
    pub crypto: Crypto,
    /// What cryptography costs nodes.
    pub costs: Costs,
    /// Virtual shards of the network.
    pub shards: u32,
    /// How long windows of relayers' meters are; `None`: they do not meter.
    pub metering: Option<Duration>,
    /// All links.
    pub network: Network,
    /// Places of the scenario's own, by name.
    pub places: BTreeMap<String, Point>,
    /// The nodes.
    pub groups: Vec<Group>,
    /// Who publishes to whom.
    pub traffic: Vec<Traffic>,
    /// What the root orders.
    pub maps: Vec<MapOrder>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Who does not play by the rules.
    pub byzantine: Vec<Byzantine>,
    /// What must hold.
    pub invariants: Invariants,
}

/// How cryptography is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// As in production.
    Real,
    /// Really, but each unique verification once in the process.
    Memo,
    /// Sizes and costs only.
    Modelled,
}

impl Crypto {
    /// As written in a scenario.
    pub const WORDS: &[(&'static str, Crypto)] = &[
        ("real", Crypto::Real),
        ("memo", Crypto::Memo),
        ("modelled", Crypto::Modelled),
    ];

    /// As written in a scenario.
    pub fn word(self) -> &'static str {
        match self {
            Crypto::Real => "real",
            Crypto::Memo => "memo",
            Crypto::Modelled => "modelled",
        }
    }
}

/// All links, where a group says nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// How long a packet takes at least.
    pub latency: Latency,
    /// Mean of what comes on top, exponential, as a share of the least.
    pub jitter: f64,
    /// Share of packets that are lost.
    pub loss: f64,
    /// Share of packets that come twice.
    pub duplicate: f64,
    /// Share of packets that come late, behind later ones.
    pub reorder: f64,
    /// Bits a second of each link, each way.
    pub bandwidth: u64,
    /// Bytes that wait for a link, or for a node's own line, before datagrams are dropped.
    pub queue: u64,
}

/// Where base delays come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Latency {
    /// The built-in model.
    Geography,
    /// The same everywhere.
    Fixed(Duration),
    /// Measured round trips.
    Matrix {
        /// The table's file.
        table: String,
        /// The file with its rows' names, if it does not name them.
        names: Option<String>,
    },
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The clients' edge.
    Sentry,
    /// Keeper of shards.
    Relayer,
    /// Publishes and subscribes.
    Client,
    /// A message broker, which relayers have their logs on, each on one, in turn.
    Broker,
}

/// What stands before a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Nothing.
    None,
    /// Lets in whom the node has lately sent to.
    Cone,
    /// Lets in nothing new.
    Symmetric,
}

/// Nodes of one kind, named `<name>-1` and on.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What they are.
    pub role: Role,
    /// How many.
    pub count: u32,
    /// Where: the first node in the first region, the second in the second, and round.
    pub regions: Vec<String>,
    /// Bits a second of a line that all links of a node share, each way.
    pub bandwidth: Option<u64>,
    /// What stands before them: who is behind an address translator can dial and not be dialled.
    pub nat: Nat,
    /// Speed of their processors; 1 is the machine of the calibration run.
    pub cpu: f64,
    /// Size of their disks.
    pub disk: Option<u64>,
}

/// Messages from the clients of one group to those of another. There are as many lanes as the larger group has clients: the
/// k-th publisher writes for the k-th subscriber, and round.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// A group of clients.
    pub publishers: String,
    /// A group of clients.
    pub subscribers: String,
    /// Messages a second on each channel.
    pub rate: f64,
    /// Bytes of a payload.
    pub size: usize,
    /// Channels of each lane.
    pub channels: u32,
    /// All channels are in this shard.
    pub shard: Option<u32>,
    /// When it begins.
    pub start: Duration,
    /// When it ends; the rest of the run is for what is on its way.
    pub stop: Duration,
}

/// A shard map that the root signs.
#[derive(Clone, Debug, PartialEq)]
pub struct MapOrder {
    /// Relayers that are to have the shards, in turn.
    pub owners: Targets,
    /// When.
    pub at: Duration,
}

/// Nodes that a fault or a behaviour hits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// By full name, in order.
    pub nodes: Vec<String>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Whom it hits.
    pub targets: Targets,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts, where it ends by itself.
    pub lasts: Option<Duration>,
    /// What it is.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// Nodes leave and come back.
    Churn {
        /// How long they stay.
        model: ChurnModel,
        /// Mean absence.
        away: Duration,
    },
    /// The process dies and loses what was not synced; it starts again with its disk after `lasts`.
    Crash {
        /// The write under way is torn.
        torn: bool,
    },
    /// As `Crash`, after an orderly stop.
    Restart,
    /// The targets cannot reach the rest, nor, unless one-way, the rest them.
    Partition {
        /// Only what the targets send is lost.
        one_way: bool,
    },
    /// Latency of the targets' links times this.
    Latency(f64),
    /// Share of the targets' packets that is lost, besides the network's.
    Loss(f64),
    /// The targets' processors are so many times slower.
    Slow(f64),
    /// The targets' clocks run so many parts in a million fast.
    Skew(f64),
    /// The targets' wall clocks jump so far ahead (or back).
    Jump {
        /// How far.
        by: Duration,
        /// Back in time.
        back: bool,
    },
    /// An actor panics at its next message.
    Panic {
        /// The actor's path, or how it begins.
        actor: String,
        /// The message's type name, or any.
        message: Option<String>,
    },
    /// The disks take no more.
    DiskFull,
    /// The disks are so many times slower.
    DiskSlow(u32),
    /// The disks begin no write.
    DiskStalled,
    /// The next so many writes fail.
    DiskFails(u32),
    /// The disks say that they have synced what a loss of power takes.
    DiskLies,
    /// Brokers do not know any more that they have the streams that they have.
    BrokerForgets,
}

/// See [`super::churn::Model`].
#[derive(Clone, Debug, PartialEq)]
pub enum ChurnModel {
    /// A model without a file.
    Plain(super::churn::Model),
    /// Statistics in a file.
    Trace {
        /// The file.
        file: String,
        /// Seconds of theirs in one of the simulation.
        speed: f64,
    },
}

/// Nodes with another behaviour on the same messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Byzantine {
    /// Which.
    pub targets: Targets,
    /// Clients that use byzantine sentries and no others; what becomes of their messages is not judged.
    pub victims: Targets,
    /// What they do.
    pub behaviour: Behaviour,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

/// What a byzantine node does with others' messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Loses this share.
    Drop(f64),
    /// Keeps each back for so long.
    Delay(Duration),
    /// Sends so many messages of its own a second.
    Flood(f64),
    /// Sends this share again.
    Replay(f64),
    /// Takes part in gossip and forwards nothing.
    NeverForward,
    /// Alters this share.
    Lie(f64),
}

/// What must hold all along, besides what always must: nothing acknowledged is lost, no delivery at or below a presented
/// offset, order per (customer, channel).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Invariants {
    /// Most messages in any mailbox.
    pub mailbox: Option<u64>,
    /// Most memory of the process, in bytes.
    pub memory: Option<u64>,
    /// Messages are acknowledged, and honest subscribers reached, within this time once no fault stands in the way.
    pub reach: Option<Duration>,
}

impl Group {
    /// Full names of its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = String> {
        (1..=self.count).map(|number| format!("{}-{number}", self.name))
    }

    /// The region of its i-th node, from 0.
    pub fn region(&self, index: usize) -> &str {
        &self.regions[index % self.regions.len()]
    }
}

impl Scenario {
    /// How many nodes there are.
    pub fn node_count(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.count)).sum()
    }

    /// A group by name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Every region that a group names.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        let regions = self.groups.iter().flat_map(|group| &group.regions);
        regions.map(String::as_str)
    }

    /// Where a region is: the scenario's own place, or a built-in one.
    pub fn place(&self, region: &str) -> Option<Point> {
        let own = self.places.get(region).copied();
        own.or_else(|| crate::geo::places::find(region))
    }

    /// Files of statistics that faults name, with their speeds, in order.
    pub fn traces(&self) -> impl Iterator<Item = (&str, f64)> {
        self.faults.iter().filter_map(|fault| match &fault.kind {
            FaultKind::Churn {
                model: ChurnModel::Trace { file, speed },
                ..
            } => Some((file.as_str(), *speed)),
            _ => None,
        })
    }
}
