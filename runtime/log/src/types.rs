//! The trait and its nouns.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::{AppendBatch, AppendError, LogError};

/// Number of a virtual shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardNo(pub u16);

/// What the log calls a channel: a hash of (customer, name) that its writer chose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub [u8; 32]);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Random bytes of a generation, for its writer to derive keys with.
pub type Salt = [u8; 16];

/// A result under way.
pub type Pending<T> = BoxFuture<'static, Result<T, LogError>>;

/// A copy of an entry that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Channel of the entry.
    pub channel: ChannelId,
    /// Its offset there.
    pub offset: u64,
    /// Its sealed bytes.
    pub sealed: Bytes,
}

/// Names entries that were put aside: channel and offset.
pub type LetterKeys = BTreeSet<(ChannelId, u64)>;

/// How long a log keeps what is in it. Whole segments of a shard's oldest entries go once a limit is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Bytes of entries a shard.
    pub bytes: Option<u64>,
    /// Age of a segment's newest entry.
    pub age: Option<Duration>,
}

impl Retention {
    /// Whether anything ever goes.
    pub fn is_limited(&self) -> bool {
        self.bytes.is_some() || self.age.is_some()
    }
}

/// What a shard's next batch is to be held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The most bytes of entries.
    pub bytes: u64,
    /// The shard crowds out others; if not, it is only not to begin to.
    pub crowds: bool,
    /// How long a batch that waits for nobody takes lately until it is durable; zero where none has yet.
    pub write: Duration,
}

/// A durable, ordered log of sealed entries for many shards.
pub trait ShardLog: Send + Sync + 'static {
    /// Starts a new generation of `shard`: refuses every earlier one from this call on, waits until what those had
    /// under way has settled, and stores the new number and its salt durably.
    fn open(&self, shard: ShardNo, salt: Salt) -> Pending<Opened> {
        self.open_above(shard, salt, 0)
    }

    /// The same, with a number above `floor`: for a shard that had generations elsewhere.
    fn open_above(&self, shard: ShardNo, salt: Salt, floor: u32) -> Pending<Opened>;

    /// What is stored for `shard`, channel by channel, ascending.
    fn heads(&self, shard: ShardNo) -> Pending<Vec<ChannelHead>>;

    /// Appends a batch, whole or not at all. Resolves once it is durable. One append a shard may be under way.
    fn append(&self, batch: AppendBatch) -> Result<Pending<()>, AppendError>;

    /// What the shard's next batch is to be held to, so that other shards' writes stay short. `None`: as much as there is.
    fn share(&self, _shard: ShardNo) -> Option<Share> {
        None
    }

    /// The entries of one channel above an offset.
    fn read(&self, request: ReadRequest) -> Pending<Entries>;

    /// Removes the entries of `channel` up to and including `up_to`, durably. The offsets of the others stay.
    fn trim(&self, shard: ShardNo, channel: ChannelId, up_to: u64) -> Pending<()>;

    /// Whether [`retain`](Self::retain) has anything to do.
    fn is_limited(&self) -> bool {
        false
    }

    /// Removes what is over of the shard that is open in this generation, durably, oldest first, and gives its bytes. `None` where nothing is
    /// ever over, or the log sees to that by itself.
    fn retain(&self, _shard: ShardNo, _generation: u32, _now_ms: u64) -> Option<Pending<u64>> {
        None
    }

    /// Whether entries that are put aside are copied to where they outlive what this log keeps of its channels.
    fn keeps_letters(&self) -> bool {
        false
    }

    /// Copies an entry there; resolves once the copy is durable. Again, there are two for a while, of which one is ever told of. An entry
    /// that is no longer kept is not copied.
    fn keep_letter(&self, _shard: ShardNo, _channel: ChannelId, _offset: u64) -> Pending<()> {
        std::future::ready(Ok(())).boxed()
    }

    /// Gives those copies that are `wanted` and there, ascending, and lets go of all that are not `listed`. Only the shard's owner asks,
    /// and not while it has a copy made.
    fn sift_letters(
        &self,
        _shard: ShardNo,
        _listed: LetterKeys,
        _wanted: LetterKeys,
    ) -> Pending<Vec<Letter>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }

    /// Which of these entries have a copy there; lets go of all others, as [`sift_letters`](Self::sift_letters).
    fn letters_there(&self, _shard: ShardNo, _listed: LetterKeys) -> Pending<LetterKeys> {
        std::future::ready(Ok(LetterKeys::new())).boxed()
    }

    /// Puts a copy there of an entry that was put aside elsewhere, sealed for here; resolves once it is durable.
    fn bring_letter(&self, _shard: ShardNo, _letter: Letter) -> Pending<()> {
        std::future::ready(Ok(())).boxed()
    }

    /// Removes everything of `shard` but its generations, durably. Refuses every generation from this call on. One that failed is
    /// gone on with by the next, or by the next open; as long as heads are told it is not done.
    fn discard(&self, shard: ShardNo) -> Pending<()>;
}

/// A generation that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its number; higher than every earlier one of the shard.
    pub generation: u32,
    /// Number and salt of every generation of the shard, this one last.
    pub salts: Vec<(u32, Salt)>,
}

/// What is stored of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelHead {
    /// Which channel.
    pub channel: ChannelId,
    /// Lowest offset still stored (or the next one, when none is).
    pub first: u64,
    /// Highest offset ever stored; 0 when none.
    pub head: u64,
    /// Highest producer epoch whose mark was dropped; 0 when none.
    pub forgotten_epoch: u64,
    /// Bytes of entries ever stored.
    pub bytes: u64,
    /// When the newest entry was written, milliseconds since the Unix epoch; 0 when none.
    pub newest_ms: u64,
    /// Producers and how far each got, by epoch.
    pub producers: Vec<ProducerMark>,
    /// What the writer last stored about the channel, opaque.
    pub about: Option<Bytes>,
}

/// How far a producer got: the highest sequence stored and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerMark {
    /// Producer epoch, unique in its channel.
    pub epoch: u64,
    /// Highest sequence stored.
    pub sequence: u64,
    /// Where.
    pub offset: u64,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// Shard of the channel.
    pub shard: ShardNo,
    /// Channel.
    pub channel: ChannelId,
    /// Entries above this offset.
    pub after: u64,
    /// At most so many.
    pub max_records: usize,
    /// At most so many bytes, but always one entry.
    pub max_bytes: usize,
}

/// Consecutive entries of a channel in one buffer, which the reader may open where they lie.
#[derive(Debug, Default)]
pub struct Entries {
    /// The sealed bytes of all entries.
    pub buffer: BytesMut,
    /// Offset and place in `buffer`, ascending without holes. The first is above the requested offset; higher than the
    /// next only where the front was trimmed.
    pub items: Vec<(u64, Range<usize>)>,
}

impl Entries {
    /// An entry's sealed bytes.
    pub fn get(&self, index: usize) -> Option<(u64, &[u8])> {
        let (offset, range) = self.items.get(index)?;
        Some((*offset, &self.buffer[range.clone()]))
    }
}
