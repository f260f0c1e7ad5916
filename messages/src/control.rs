//! Service `control`: any node to any node on the control plane, and operators.

use pqcnet_crypto::NodeId;
use pqcnet_link::{Role, WireError};
use pqcnet_protos::control::v1::{self as pb, Type};

use crate::channel::{Channel, ChannelName};
use crate::codec::{clip, fields, invalid, message, node_bytes, node_id, wire};
use crate::flow::PauseCause;
use crate::problem::Problem;

/// Most links in a [`StatusReport`]; a node with more reports the first ones.
pub const MAX_REPORTED_LINKS: usize = 4096;
/// Most shards in a [`StatusReport`]; a node with more reports the first ones. An idle shard takes few bytes on the wire
/// and many in memory: so few that a report of empty ones stays within four units of credit.
pub const MAX_REPORTED_SHARDS: usize = 512;
/// Most shards with [`ShardWork`] in a [`StatusReport`]; a node with more reports the first ones'.
pub const MAX_REPORTED_WORK: usize = 32;
/// Most counters in a [`StatusReport`].
pub const MAX_REPORTED_COUNTERS: usize = 1024;
/// Most problems in a [`StatusReport`].
pub const MAX_REPORTED_PROBLEMS: usize = 64;
/// Longest text in a report, in bytes; a longer one is cut.
pub const MAX_REPORT_TEXT: usize = 256;

/// Are you there?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ping {
    /// Comes back in the [`Pong`].
    pub nonce: u64,
}

/// Yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// From the [`Ping`].
    pub nonce: u64,
    /// What the node is.
    pub role: Role,
    /// Name and version of its software.
    pub software: String,
    /// Since it started.
    pub uptime_ms: u64,
}

/// How are you?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {}

/// Which kind of connection a link rides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plane {
    /// libp2p.
    Control,
    /// A direct QSTP stream.
    Data,
}

/// One link of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Who is at the other end.
    pub peer: NodeId,
    /// Its role.
    pub role: Role,
    /// What it rides.
    pub plane: Plane,
}

/// One shard that a relayer owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    /// The shard.
    pub id: u32,
    /// Channels with at least one record.
    pub channels: u64,
    /// Records stored.
    pub records: u64,
    /// Bytes of payloads as they are stored: sealed, each a little longer than it was.
    pub bytes: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Stored records that still wait to be sent to the subscription furthest behind.
    pub lag_records: u64,
    /// Payload bytes admitted and not yet durable.
    pub unwritten_bytes: u64,
    /// What it does beside; none for nothing. Of its own on the wire: part of a [`StatusReport`] only.
    pub work: Option<Box<ShardWork>>,
}

/// What a shard does for producers that wait and for consumer groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardWork {
    /// Channels whose producers are asked to wait.
    pub paused_channels: u64,
    /// The one that waits longest.
    pub paused: Option<PausedChannel>,
    /// Members of consumer groups now.
    pub group_members: u64,
    /// Records that consumer groups put aside.
    pub dead_letters: u64,
}

impl ShardWork {
    /// As a [`ShardStatus`] has it: none if it is nothing.
    pub fn noted(self) -> Option<Box<ShardWork>> {
        (self != ShardWork::default()).then(|| Box::new(self))
    }
}

impl ShardStatus {
    /// What it does beside.
    pub fn work(&self) -> &ShardWork {
        const NOTHING: &ShardWork = &ShardWork {
            paused_channels: 0,
            paused: None,
            group_members: 0,
            dead_letters: 0,
        };
        self.work.as_deref().unwrap_or(NOTHING)
    }
}

/// A channel whose producers are asked to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedChannel {
    /// Which.
    pub channel: Channel,
    /// Why.
    pub cause: PauseCause,
}

/// A node's account of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// Who it is.
    pub node_id: NodeId,
    /// What it is.
    pub role: Role,
    /// Name and version of its software.
    pub software: String,
    /// Since it started.
    pub uptime_ms: u64,
    /// Its open links.
    pub links: Vec<LinkStatus>,
    /// Its shards.
    pub shards: Vec<ShardStatus>,
    /// Named counts.
    pub counters: Vec<(String, u64)>,
    /// What is wrong; empty means healthy.
    pub problems: Vec<Problem>,
}

message!(Ping, "control.Ping", CONTROL Type::Ping, Control => Pong);
message!(Status, "control.Status", CONTROL Type::Status, Control => StatusReport);

fields!(Ping => pb::Ping { nonce });
wire!(ShardStatus => pb::ShardStatus);
wire!(Status => pb::Status);
wire!(Pong => pb::Pong);
wire!(StatusReport => pb::StatusReport,
    bound "links" = 5 each 34 at MAX_REPORTED_LINKS,
    bound "shards" = 6 at MAX_REPORTED_SHARDS,
    bound "counters" = 7 at MAX_REPORTED_COUNTERS,
    bound "problems" = 8 at MAX_REPORTED_PROBLEMS,
    bound "details" = 9 at MAX_REPORTED_PROBLEMS,
    bound "work" = 20 each 2 at MAX_REPORTED_WORK,
);

fn role(number: i32) -> Result<Role, WireError> {
    Role::from_number(number).ok_or_else(|| invalid("role", "unknown"))
}

impl From<&Status> for pb::Status {
    fn from(_: &Status) -> Self {
        Self {}
    }
}

impl TryFrom<pb::Status> for Status {
    type Error = WireError;

    fn try_from(_: pb::Status) -> Result<Self, WireError> {
        Ok(Status {})
    }
}

impl From<&Pong> for pb::Pong {
    fn from(pong: &Pong) -> Self {
        Self {
            nonce: pong.nonce,
            role: i32::from(pong.role.number()),
            software: clip(&pong.software, MAX_REPORT_TEXT),
            uptime_ms: pong.uptime_ms,
        }
    }
}

impl TryFrom<pb::Pong> for Pong {
    type Error = WireError;

    fn try_from(pong: pb::Pong) -> Result<Self, WireError> {
        Ok(Pong {
            nonce: pong.nonce,
            role: role(pong.role)?,
            software: clip(&pong.software, MAX_REPORT_TEXT),
            uptime_ms: pong.uptime_ms,
        })
    }
}

impl From<&LinkStatus> for pb::LinkStatus {
    fn from(link: &LinkStatus) -> Self {
        let plane = match link.plane {
            Plane::Control => pb::Plane::Control,
            Plane::Data => pb::Plane::Data,
        };
        Self {
            peer: node_bytes(&link.peer),
            role: i32::from(link.role.number()),
            plane: plane.into(),
        }
    }
}

impl TryFrom<pb::LinkStatus> for LinkStatus {
    type Error = WireError;

    fn try_from(link: pb::LinkStatus) -> Result<Self, WireError> {
        Ok(LinkStatus {
            peer: node_id("peer", &link.peer)?,
            role: role(link.role)?,
            plane: match link.plane() {
                pb::Plane::Control => Plane::Control,
                pb::Plane::Data => Plane::Data,
                pb::Plane::Unspecified => return Err(invalid("plane", "unknown")),
            },
        })
    }
}

impl From<&StatusReport> for pb::StatusReport {
    fn from(report: &StatusReport) -> Self {
        let counter = |(name, value): &(String, u64)| pb::Counter {
            name: clip(name, MAX_REPORT_TEXT),
            value: *value,
        };
        let words = |problem: &Problem| clip(&problem.what, MAX_REPORT_TEXT);
        Self {
            node_id: node_bytes(&report.node_id),
            role: i32::from(report.role.number()),
            software: clip(&report.software, MAX_REPORT_TEXT),
            uptime_ms: report.uptime_ms,
            links: first(&report.links, MAX_REPORTED_LINKS, |link| link.into()),
            shards: first(&report.shards, MAX_REPORTED_SHARDS, |shard| shard.into()),
            work: works(&report.shards),
            counters: first(&report.counters, MAX_REPORTED_COUNTERS, counter),
            problems: first(&report.problems, MAX_REPORTED_PROBLEMS, words),
            details: first(&report.problems, MAX_REPORTED_PROBLEMS, |problem| {
                problem.into()
            }),
        }
    }
}

fn first<T, P>(list: &[T], limit: usize, convert: impl FnMut(&T) -> P) -> Vec<P> {
    list.iter().take(limit).map(convert).collect()
}

impl TryFrom<pb::StatusReport> for StatusReport {
    type Error = WireError;

    fn try_from(report: pb::StatusReport) -> Result<Self, WireError> {
        let links = report.links.into_iter().map(TryInto::try_into);
        // Of the right size at once: a list that grows holds up to three times what it has at the end.
        let mut shards = Vec::with_capacity(report.shards.len());
        for shard in report.shards {
            shards.push(ShardStatus::try_from(shard)?);
        }
        for of in report.work {
            let shard = shards.iter_mut().find(|shard| shard.id == of.shard);
            if let Some(shard) = shard {
                shard.work = work(of)?.noted();
            }
        }
        let counters = report.counters.into_iter().map(|c| (c.name, c.value));
        let problems: Result<Vec<Problem>, WireError> = if report.details.is_empty() {
            let words = report.problems.into_iter();
            words
                .map(|what| Ok(Problem::unnamed(clip(&what, MAX_REPORT_TEXT))))
                .collect()
        } else {
            let details = report.details.into_iter();
            details.map(TryInto::try_into).collect()
        };
        Ok(StatusReport {
            node_id: node_id("node id", &report.node_id)?,
            role: role(report.role)?,
            software: clip(&report.software, MAX_REPORT_TEXT),
            uptime_ms: report.uptime_ms,
            links: links.collect::<Result<_, _>>()?,
            shards,
            counters: counters.collect(),
            problems: problems?,
        })
    }
}

fn works(shards: &[ShardStatus]) -> Vec<pb::ShardWork> {
    let reported = shards.iter().take(MAX_REPORTED_SHARDS);
    let works = reported.filter_map(|shard| {
        shard.work.as_ref().map(|work| pb::ShardWork {
            shard: shard.id,
            paused_channels: work.paused_channels,
            paused: work.paused.as_ref().map(|paused| pb::PausedChannel {
                owner: node_bytes(&paused.channel.owner),
                name: paused.channel.name.as_str().to_owned(),
                cause: PauseCause::to_proto(Some(paused.cause)),
            }),
            group_members: work.group_members,
            dead_letters: work.dead_letters,
        })
    });
    works.take(MAX_REPORTED_WORK).collect()
}

fn work(work: pb::ShardWork) -> Result<ShardWork, WireError> {
    let paused = work.paused.map(|paused| {
        Ok::<_, WireError>(PausedChannel {
            channel: Channel {
                owner: node_id("owner", &paused.owner)?,
                name: ChannelName::from_proto(&paused.name)?,
            },
            cause: PauseCause::from_proto(paused.cause).ok_or_else(|| invalid("cause", "none"))?,
        })
    });
    Ok(ShardWork {
        paused_channels: work.paused_channels,
        paused: paused.transpose()?,
        group_members: work.group_members,
        dead_letters: work.dead_letters,
    })
}

impl From<&ShardStatus> for pb::ShardStatus {
    fn from(status: &ShardStatus) -> Self {
        Self {
            id: status.id,
            channels: status.channels,
            records: status.records,
            bytes: status.bytes,
            subscriptions: status.subscriptions,
            lag_records: status.lag_records,
            unwritten_bytes: status.unwritten_bytes,
        }
    }
}

impl TryFrom<pb::ShardStatus> for ShardStatus {
    type Error = WireError;

    fn try_from(status: pb::ShardStatus) -> Result<Self, WireError> {
        Ok(ShardStatus {
            id: status.id,
            channels: status.channels,
            records: status.records,
            bytes: status.bytes,
            subscriptions: status.subscriptions,
            lag_records: status.lag_records,
            unwritten_bytes: status.unwritten_bytes,
            work: None,
        })
    }
}
