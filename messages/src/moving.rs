//! Service `relay`, between two relayers: one copies a shard that is to be its own from the one that has it
//! (docs/spec/relay.md, "Owners"). [`ReleaseShard`](crate::relay::ReleaseShard) ends it.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::relay::v1::{self as pb, Type};

use crate::channel::Channel;
use crate::codec::{array, invalid, message, required, wire};
use crate::edge::MAX_READERS;
use crate::record::MAX_PAYLOAD;
use crate::refusal::Refusal;
use crate::shard::{ShardId, shard_id};

/// Most channels in one page of a survey.
pub const MAX_SURVEYED: usize = 256;
/// Most producers of a channel.
pub const MAX_MARKS: usize = 1024;
/// Most stretches in one request.
pub const MAX_STRETCHES: usize = 64;
/// Most texts in one answer.
pub const MAX_TEXTS: usize = 4096;
/// Most bytes of texts in one answer; one text is at most a payload and its time.
pub const MAX_TEXT_BYTES: usize = 512 * 1024;
/// Most bytes of what is stored about a channel's consumer groups.
pub const MAX_GROUPS_BYTES: usize = 64 * 1024;
/// A payload with its time before it.
const MAX_TEXT: usize = 8 + MAX_PAYLOAD;

/// What is stored of a shard, channel by channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SurveyShard {
    /// Which.
    pub shard: ShardId,
    /// Of the map that gives it to the asker.
    pub map_version: u64,
    /// Channels above this one; the log's name of it.
    pub after: Option<[u8; 32]>,
}

/// A page of a shard's channels, ascending by the log's names of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardSurvey {
    /// The generation that stores now.
    pub generation: u32,
    /// At most [`MAX_SURVEYED`].
    pub channels: Vec<ChannelFacts>,
    /// There are more.
    pub more: bool,
}

/// All that is stored of a channel but its entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelFacts {
    /// Owner and name.
    pub channel: Channel,
    /// Who may subscribe besides the owner, ascending.
    pub readers: Vec<NodeId>,
    /// Highest offset; 0 when it has no entry yet.
    pub head: u64,
    /// Bytes of entries ever stored.
    pub bytes: u64,
    /// When the newest entry was written.
    pub newest_ms: u64,
    /// Highest producer epoch ever dropped.
    pub forgotten_epoch: u64,
    /// Its producers, ascending by epoch.
    pub marks: Vec<Mark>,
    /// Its consumer groups, as they are stored; at most [`MAX_GROUPS_BYTES`].
    pub groups: Bytes,
}

/// How far a producer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Producer epoch.
    pub epoch: u64,
    /// Highest sequence stored.
    pub sequence: u64,
    /// Its offset.
    pub offset: u64,
}

/// Entries of a shard that is to be the asker's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadShard {
    /// Which.
    pub shard: ShardId,
    /// Of the map that gives it to the asker.
    pub map_version: u64,
    /// 1 to [`MAX_STRETCHES`].
    pub stretches: Vec<Stretch>,
    /// Of records that groups put aside and the log may have no more: the copy of the one that each stretch begins with.
    pub letters: bool,
}

/// Entries of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// The log's name of the channel.
    pub channel: [u8; 32],
    /// Above this offset.
    pub after: u64,
    /// Up to this one, which is above the other.
    pub up_to: u64,
}

/// Entries in clear: both relayers' disks have keys of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardEntries {
    /// One for each of the first so many stretches; the last may end early.
    pub runs: Vec<Run>,
    /// Over all of them, by whoever has the shard.
    pub digest: [u8; 32],
}

/// Consecutive entries of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Offset of the first; one beyond the stretch when nothing of that is kept.
    pub first: u64,
    /// Each its time (8 bytes, big-endian) and its payload.
    pub texts: Vec<Bytes>,
}

/// Store nothing more in a shard: its new owner has all but the last of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FenceShard {
    /// Which.
    pub shard: ShardId,
    /// Of the map that gives it to the asker.
    pub map_version: u64,
}

/// To whom a shard was given: whether it is on the disk there, so that the former owner's copy may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardHeld {
    /// Which.
    pub shard: ShardId,
    /// How often it had moved, that move included.
    pub moves: u8,
}

/// Whether it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held(pub bool);

message!(SurveyShard, "relay.SurveyShard", RELAY Type::SurveyShard, Request => Result<ShardSurvey, Refusal>);
message!(ReadShard, "relay.ReadShard", RELAY Type::ReadShard, Request => Result<ShardEntries, Refusal>);
message!(FenceShard, "relay.FenceShard", RELAY Type::FenceShard, Request => Result<(), Refusal>);
message!(ShardHeld, "relay.ShardHeld", RELAY Type::ShardHeld, Request => Result<Held, Refusal>);

wire!(SurveyShard => pb::SurveyShard);
wire!(ShardSurvey => pb::ShardSurvey, bound "channels" = 2 each 36 at MAX_SURVEYED);
wire!(ReadShard => pb::ReadShard, bound "stretches" = 3 each 36 at MAX_STRETCHES);
wire!(ShardEntries => pb::ShardEntries, bound "texts" = 2 each 8 at MAX_TEXTS);
wire!(FenceShard => pb::FenceShard);
wire!(ShardHeld => pb::ShardHeld);
wire!(Held => pb::Held);

fn bytes_of(id: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(id)
}

impl From<&SurveyShard> for pb::SurveyShard {
    fn from(survey: &SurveyShard) -> Self {
        Self {
            shard: survey.shard.0.into(),
            map_version: survey.map_version,
            after: survey.after.as_ref().map_or_else(Bytes::new, bytes_of),
        }
    }
}

impl TryFrom<pb::SurveyShard> for SurveyShard {
    type Error = WireError;

    fn try_from(survey: pb::SurveyShard) -> Result<Self, WireError> {
        let after = Some(survey.after).filter(|after| !after.is_empty());
        Ok(SurveyShard {
            shard: shard_id(survey.shard)?,
            map_version: survey.map_version,
            after: after.map(|after| array("after", &after)).transpose()?,
        })
    }
}

impl From<&ChannelFacts> for pb::ChannelFacts {
    fn from(facts: &ChannelFacts) -> Self {
        let mut marks = Vec::with_capacity(facts.marks.len() * 24);
        for mark in &facts.marks {
            for number in [mark.epoch, mark.sequence, mark.offset] {
                marks.extend_from_slice(&number.to_be_bytes());
            }
        }
        let readers = facts.readers.iter().flat_map(NodeId::as_bytes);
        Self {
            channel: Some((&facts.channel).into()),
            readers: readers.copied().collect(),
            head: facts.head,
            bytes: facts.bytes,
            newest_ms: facts.newest_ms,
            forgotten_epoch: facts.forgotten_epoch,
            marks: marks.into(),
            groups: facts.groups.clone(),
        }
    }
}

impl TryFrom<pb::ChannelFacts> for ChannelFacts {
    type Error = WireError;

    fn try_from(facts: pb::ChannelFacts) -> Result<Self, WireError> {
        let (readers, odd) = facts.readers.as_chunks::<32>();
        if !odd.is_empty() || readers.len() > MAX_READERS {
            return Err(invalid("readers", "no list of readers"));
        }
        let readers: Vec<NodeId> = readers.iter().map(|id| NodeId::from_bytes(*id)).collect();
        if !readers.is_sorted_by(|a, b| a < b) {
            return Err(invalid("readers", "not ascending"));
        }
        if facts.groups.len() > MAX_GROUPS_BYTES {
            return Err(invalid("groups", "too long"));
        }
        let (numbers, odd) = facts.marks.as_chunks::<8>();
        let (marks, lone) = numbers.as_chunks::<3>();
        if !odd.is_empty() || !lone.is_empty() || marks.len() > MAX_MARKS {
            return Err(invalid("marks", "no list of marks"));
        }
        let marks = marks.iter().map(|numbers| {
            let [epoch, sequence, offset] = numbers.map(u64::from_be_bytes);
            Mark {
                epoch,
                sequence,
                offset,
            }
        });
        let marks: Vec<Mark> = marks.collect();
        if !marks.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err(invalid("marks", "not ascending"));
        }
        let fits = |mark: &Mark| mark.epoch > 0 && mark.sequence > 0 && mark.offset <= facts.head;
        if !marks.iter().all(fits) {
            return Err(invalid("marks", "beyond what is stored"));
        }
        Ok(ChannelFacts {
            channel: required("channel", facts.channel)?.try_into()?,
            readers,
            head: facts.head,
            bytes: facts.bytes,
            newest_ms: facts.newest_ms,
            forgotten_epoch: facts.forgotten_epoch,
            marks,
            groups: facts.groups,
        })
    }
}

impl From<&ShardSurvey> for pb::ShardSurvey {
    fn from(survey: &ShardSurvey) -> Self {
        Self {
            generation: survey.generation,
            channels: survey.channels.iter().map(Into::into).collect(),
            more: survey.more,
        }
    }
}

impl TryFrom<pb::ShardSurvey> for ShardSurvey {
    type Error = WireError;

    fn try_from(survey: pb::ShardSurvey) -> Result<Self, WireError> {
        if survey.more && survey.channels.is_empty() {
            return Err(invalid("channels", "none, and more to come"));
        }
        let channels = survey.channels.into_iter().map(TryInto::try_into);
        Ok(ShardSurvey {
            generation: survey.generation,
            channels: channels.collect::<Result<_, _>>()?,
            more: survey.more,
        })
    }
}

impl From<&ReadShard> for pb::ReadShard {
    fn from(read: &ReadShard) -> Self {
        let stretches = read.stretches.iter().map(|stretch| pb::Stretch {
            channel: bytes_of(&stretch.channel),
            after: stretch.after,
            up_to: stretch.up_to,
        });
        Self {
            shard: read.shard.0.into(),
            map_version: read.map_version,
            stretches: stretches.collect(),
            letters: read.letters,
        }
    }
}

impl TryFrom<pb::ReadShard> for ReadShard {
    type Error = WireError;

    fn try_from(read: pb::ReadShard) -> Result<Self, WireError> {
        if read.stretches.is_empty() {
            return Err(invalid("stretches", "none"));
        }
        let stretches = read.stretches.iter().map(|stretch| {
            if stretch.up_to <= stretch.after || stretch.up_to == u64::MAX {
                return Err(invalid("stretch", "holds no offset"));
            }
            Ok(Stretch {
                channel: array("channel", &stretch.channel)?,
                after: stretch.after,
                up_to: stretch.up_to,
            })
        });
        Ok(ReadShard {
            shard: shard_id(read.shard)?,
            map_version: read.map_version,
            stretches: stretches.collect::<Result<_, _>>()?,
            letters: read.letters,
        })
    }
}

impl From<&ShardEntries> for pb::ShardEntries {
    fn from(entries: &ShardEntries) -> Self {
        let mut runs = Vec::with_capacity(entries.runs.len() * 12);
        for run in &entries.runs {
            runs.extend_from_slice(&run.first.to_be_bytes());
            // At most MAX_TEXTS.
            runs.extend_from_slice(&(run.texts.len() as u32).to_be_bytes());
        }
        let texts = entries
            .runs
            .iter()
            .flat_map(|run| run.texts.iter().cloned());
        Self {
            runs: runs.into(),
            texts: texts.collect(),
            digest: bytes_of(&entries.digest),
        }
    }
}

impl TryFrom<pb::ShardEntries> for ShardEntries {
    type Error = WireError;

    fn try_from(entries: pb::ShardEntries) -> Result<Self, WireError> {
        let of_a_text = |text: &Bytes| (8..=MAX_TEXT).contains(&text.len());
        if !entries.texts.iter().all(of_a_text) {
            return Err(invalid("texts", "of a length that none has"));
        }
        let bytes: usize = entries.texts.iter().map(Bytes::len).sum();
        // One text more than the bytes that were full by then.
        if bytes > MAX_TEXT_BYTES + MAX_TEXT {
            return Err(invalid("texts", "too much in one answer"));
        }
        let (heads, odd) = entries.runs.as_chunks::<12>();
        if !odd.is_empty() || heads.len() > MAX_STRETCHES {
            return Err(invalid("runs", "no list of runs"));
        }
        let mut texts = entries.texts.into_iter();
        let mut runs = Vec::with_capacity(heads.len());
        for head in heads {
            let (first, count) = head.split_at(8);
            let first = u64::from_be_bytes(first.try_into().unwrap_or_default());
            let count = u32::from_be_bytes(count.try_into().unwrap_or_default());
            let texts: Vec<Bytes> = texts.by_ref().take(count as usize).collect();
            if texts.len() != count as usize {
                return Err(invalid("texts", "too few for their runs"));
            }
            if first == 0 || first.checked_add(u64::from(count)).is_none() {
                return Err(invalid("first", "no offset"));
            }
            runs.push(Run { first, texts });
        }
        if texts.next().is_some() {
            return Err(invalid("texts", "too many for their runs"));
        }
        Ok(ShardEntries {
            runs,
            digest: array("digest", &entries.digest)?,
        })
    }
}

impl From<&FenceShard> for pb::FenceShard {
    fn from(fence: &FenceShard) -> Self {
        Self {
            shard: fence.shard.0.into(),
            map_version: fence.map_version,
        }
    }
}

impl TryFrom<pb::FenceShard> for FenceShard {
    type Error = WireError;

    fn try_from(fence: pb::FenceShard) -> Result<Self, WireError> {
        Ok(FenceShard {
            shard: shard_id(fence.shard)?,
            map_version: fence.map_version,
        })
    }
}

impl From<&ShardHeld> for pb::ShardHeld {
    fn from(held: &ShardHeld) -> Self {
        Self {
            shard: held.shard.0.into(),
            moves: held.moves.into(),
        }
    }
}

impl TryFrom<pb::ShardHeld> for ShardHeld {
    type Error = WireError;

    fn try_from(held: pb::ShardHeld) -> Result<Self, WireError> {
        let moves = u8::try_from(held.moves).map_err(|_| invalid("moves", "too large"))?;
        Ok(ShardHeld {
            shard: shard_id(held.shard)?,
            moves,
        })
    }
}

impl From<&Held> for pb::Held {
    fn from(held: &Held) -> Self {
        Self { held: held.0 }
    }
}

impl TryFrom<pb::Held> for Held {
    type Error = WireError;

    fn try_from(held: pb::Held) -> Result<Self, WireError> {
        Ok(Held(held.held))
    }
}
