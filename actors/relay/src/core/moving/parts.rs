//! What a copy is made of, and what can be wrong with it.

use bytes::Bytes;
use pqcnet_log::{Base, ChannelId};
use pqcnet_messages::moving::{ChannelFacts, Mark, Stretch};

use crate::core::channel::About;
use crate::core::groups;

/// What the owner showed can not be copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// This store has something of the shard that its owner has not: it was not copied from there.
    #[error("channel {channel} of the shard is stored here beyond what its owner has")]
    Ahead {
        /// Which channel.
        channel: ChannelId,
    },
    /// The owner's fault: channels out of order.
    #[error("the owner's survey is out of order")]
    Order,
    /// The owner's fault: entries that were not asked for, or none.
    #[error("the owner's entries of channel {channel} do not continue at {expected}")]
    Entries {
        /// Which channel.
        channel: ChannelId,
        /// The next offset.
        expected: u64,
    },
    /// The owner has started anew since: the copy's generation must be above its.
    #[error("the owner is in generation {theirs}, this copy in {own}")]
    Generation {
        /// Its own.
        theirs: u32,
        /// Of the copy.
        own: u32,
    },
    /// What was stored is not what was read.
    #[error("entries that were copied do not have the digest that their owner told")]
    Digest,
}

/// What is on this store's disk of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
    /// Its numbers.
    pub base: Base,
    /// Whose it is and who may read it; `None` when that does not open.
    pub about: Option<About>,
    /// Its producers, ascending by epoch.
    pub marks: Vec<Mark>,
}

impl Copied {
    /// As its owner would tell it.
    pub fn facts(&self) -> Option<ChannelFacts> {
        let about = self.about.as_ref()?;
        Some(ChannelFacts {
            channel: about.channel.clone(),
            readers: about.readers.clone(),
            head: self.base.head,
            bytes: self.base.bytes,
            newest_ms: self.base.newest_ms,
            forgotten_epoch: self.base.forgotten_epoch,
            marks: self.marks.clone(),
            groups: groups::encode(&about.groups).into(),
        })
    }
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a page of channels above this one, then [`Copying::surveyed`](super::Copying::surveyed).
    Survey(Option<[u8; 32]>),
    /// Ask for these, then [`Copying::entries`](super::Copying::entries).
    Read(Vec<Stretch>),
    /// Append these, then [`Copying::stored`](super::Copying::stored).
    Store(Vec<Piece>),
    /// Ask the owner to store nothing more, then [`Copying::fenced`](super::Copying::fenced).
    Fence,
    /// All of it is here.
    Done,
}

/// What one append brings of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which channel.
    pub channel: ChannelId,
    /// Where it stands before.
    pub base: Base,
    /// Entries at or below the base are not kept.
    pub skips: bool,
    /// Entries, each its time and payload.
    pub texts: Vec<Bytes>,
    /// To be stored about it, if that changes.
    pub about: Option<About>,
    /// Marks to be dropped.
    pub drops: Vec<u64>,
    /// Where it stands afterwards, when that is as its owner told.
    pub settles: Option<Copied>,
}

impl Piece {
    /// Offset of the first entry.
    pub fn first(&self) -> u64 {
        self.base.head + 1
    }

    pub(super) fn head(&self) -> u64 {
        self.base.head + self.texts.len() as u64
    }
}
