//! What an operator sees of a node: the document behind `/api/v1/snapshot`, `/api/v1/events` and `/ui`.
//!
//! Form and meaning: docs/spec/snapshot.md, its schema beside it (a test holds both together). Everything that changes on
//! its own is a map with stable keys and nothing is ever null, so that two snapshots differ by a JSON Merge Patch (RFC 7396).
//!
//! [`Snapshot::take`] makes one of what the steward has [`Seen`](crate::steward::Seen), the tree's actors and the network file.

mod take;

use std::collections::BTreeMap;

#[cfg(test)]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use take::{KeyFacts, Parts};

/// Rises when a field goes or changes its meaning; a new field does not raise it, and readers ignore fields they do not know.
pub const VERSION: u32 = 1;
/// Links shown: those to nodes first, then the oldest of clients. `totals` tells how many there are.
pub const MAX_LINKS: usize = 256;
/// Actors shown: those that have something waiting or were restarted first. `totals` tells how many there are.
pub const MAX_ACTORS: usize = 256;
/// Nodes shown: this one, those it expects or is linked to, then others of the network file.
pub const MAX_NODES: usize = 256;
/// Shards shown; a network has at most 65,536, and a page of all of them would help nobody.
pub const MAX_SHARDS: usize = 1024;

/// A node, as an operator sees it at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Snapshot {
    /// Version of this form; now 1. Readers ignore fields that they do not know.
    pub version: u32,
    /// When it was taken: milliseconds since 1970 by the node's clock.
    pub taken_at_ms: u64,
    /// The node itself.
    pub node: NodeView,
    /// All in one word.
    pub verdict: Verdict,
    /// What is wrong, the worst first.
    pub problems: Vec<ProblemView>,
    /// How many there are of what is listed below; lists are cut.
    pub totals: Totals,
    /// Nodes of the network by id, this one among them.
    pub nodes: BTreeMap<String, MeshNode>,
    /// This node's open links, by a number that is never used twice in a run of the node.
    pub links: BTreeMap<String, LinkView>,
    /// Shards of the network by number.
    pub shards: BTreeMap<String, ShardView>,
    /// This node's actors by path.
    pub actors: BTreeMap<String, ActorView>,
    /// This node's keys by purpose and version.
    pub keys: BTreeMap<String, KeyView>,
    /// Counts by name, since the node started unless the name says otherwise.
    pub counters: BTreeMap<String, u64>,
}

/// All in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Does its work, and nothing is wrong.
    Ok,
    /// Does its work; something is wrong.
    Degraded,
    /// Does not do its work.
    NotServing,
    /// Was told to stop, and finishes what is in flight.
    Draining,
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct NodeView {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// `sentry`, `relayer`.
    pub role: String,
    /// Name and version of its software.
    pub software: String,
    /// QSTP suites it offers, the preferred first.
    pub suites: Vec<String>,
    /// When it started: milliseconds since 1970 by its clock.
    pub started_at_ms: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ProblemView {
    /// Its stable name, in kebab case.
    pub code: String,
    /// `critical` (some work is not done) or `warning`.
    pub severity: String,
    /// What is seen.
    pub what: String,
    /// The root cause; empty while it is not known.
    pub cause: String,
    /// What mends it.
    pub fix: String,
    /// The node it is about, when that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Symptoms with the same cause.
    #[serde(default)]
    pub explains: Vec<String>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Totals {
    /// Nodes known.
    pub nodes: u64,
    /// Links open.
    pub links: u64,
    /// Of these, links of clients.
    pub clients: u64,
    /// Shards of the network.
    pub shards: u64,
    /// Actors in the tree.
    pub actors: u64,
}

/// A node of the network, from where this one stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct MeshNode {
    /// What the network lets it be, or what it says on a link.
    pub roles: Vec<String>,
    /// How this node stands to it.
    pub state: MeshState,
    /// Planes on which this node wants a link to it: `data`, `control`.
    pub expected: Vec<String>,
    /// Planes on which there is one.
    pub linked: Vec<String>,
    /// Other nodes that it says it is linked to, and itself for this node.
    pub peers: Vec<String>,
    /// Clients linked to it, as it says.
    pub clients: u64,
    /// Problems that it reports of itself.
    pub problems: u64,
    /// When it last told, by this node's clock; absent for one that has not, and for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at_ms: Option<u64>,
}

/// How one node stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MeshState {
    /// It is this node.
    This,
    /// Linked, on every plane that is wanted.
    Linked,
    /// Linked, and a wanted plane is missing.
    Partial,
    /// A link is wanted and there is none.
    Down,
    /// Known from the network file; this node wants no link to it.
    Known,
}

/// An open link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct LinkView {
    /// Who is at the other end.
    pub peer: String,
    /// Its role.
    pub role: String,
    /// `data` (a direct QSTP stream) or `control` (libp2p).
    pub plane: String,
    /// Name and version of its software, as it says.
    pub software: String,
    /// When it opened, by this node's clock.
    pub opened_at_ms: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes that wait for the socket.
    pub outbound_bytes: u64,
    /// Asks of this node's that the peer has not answered.
    pub open_asks: u64,
    /// Asks of the peer's that this node has not answered.
    pub unanswered: u64,
    /// Smallest credit held on it, in units of 16 KiB: at 0 the peer takes nothing more of a kind for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u32>,
    /// Round trip of the last ping, in microseconds; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// The last ping was not answered in time.
    pub silent: bool,
}

/// A shard. What it holds is known for this relayer's own, and for those of linked relayers as they last told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ShardView {
    /// The relayer that owns it.
    pub owner: String,
    /// Where the figures come from; `none` means there are none.
    pub source: ShardSource,
    /// Channels with at least one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u64>,
    /// Records stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Payload bytes stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Subscriptions now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u64>,
    /// Stored records that still wait to be sent to the subscription furthest behind, whose window is full or who reads the past;
    /// 0 without subscriptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Payload bytes admitted and not yet durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten_bytes: Option<u64>,
    /// Channels whose publishers are asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_channels: Option<u64>,
    /// Of these the one that waits longest; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedView>,
}

/// A channel whose publishers are asked to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct PausedView {
    /// Its owner and name: `OWNER:NAME`.
    pub channel: String,
    /// `lag` (a subscriber that keeps up falls behind), `memory` (too much waits for the disk), `mailbox` (too many requests wait for the
    /// shard's worker); others may come.
    pub cause: String,
}

/// Where a shard's figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ShardSource {
    /// This node's own worker.
    Here,
    /// Its owner told over a link; `nodes[owner].told_at_ms` says when.
    Told,
    /// Nobody: the owner is not linked, or has not told yet.
    None,
}

/// An actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct ActorView {
    /// Its behaviour's name.
    pub behaviour: String,
    /// `waiting`, `running`, `draining`, `held` (between incarnations) or `ended`.
    pub life: String,
    /// Messages waiting, by class.
    pub depth: Lanes,
    /// How many may wait, by class.
    pub bounds: Lanes,
    /// Incarnations after the first.
    pub restarts: u32,
    /// Messages handled.
    pub handled: u64,
    /// Time spent handling, in microseconds, estimated from a sample.
    pub busy_us: u64,
    /// What it says of itself; absent when it did not answer in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
}

/// One figure for each class of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Lanes {
    /// Served first, never dropped.
    pub control: u64,
    /// A full lane is an answer: `Busy`.
    pub request: u64,
    /// The newest is dropped and counted when full.
    pub bulk: u64,
}

/// A key, never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct KeyView {
    /// `identity`, `storage`, `kem`.
    pub purpose: String,
    /// Rises with each rotation, from 1.
    pub version: u64,
    /// What is told of it in public: a NodeId for an identity, else the beginning of a hash; absent for storage keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// `current`, `overlap` (still valid beside its successor), `prepared` (waits to be put into use) or `revoked`.
    pub state: String,
    /// When it was made; absent when nobody wrote it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// When its overlap ends; absent for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

#[cfg(test)]
mod tests;
