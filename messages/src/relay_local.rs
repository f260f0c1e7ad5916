//! What a relayer's actors tell each other. Local only: nothing here has a form on the wire.

use std::hash::Hash as _;

use bytes::Bytes;
use pqcnet_actor::{Digest, Message, Ref};
use pqcnet_crypto::NodeId;

use crate::channel::Channel;
use crate::control::ShardStatus;
use crate::edge::{Committed, DeadLetters, OffsetFound, ProducerOpened, Published, Subscribed};
use crate::group::{GroupName, Membership};
use crate::receipt::Series;
use crate::refusal::Refusal;
use crate::relay::{RelayCountersign, RelayDeliver, RelayFlow, RelaySubscriptionEnded};

/// To a shard's worker: store these. Answered once they are durable.
#[derive(Debug, Hash)]
pub struct Admit {
    /// Who publishes, as verified.
    pub customer: NodeId,
    /// Where to.
    pub channel: Channel,
    /// Producer epoch.
    pub epoch: u64,
    /// Sequence of the first payload.
    pub first_seq: u64,
    /// Payloads.
    pub payloads: Vec<Bytes>,
    /// Whom to ask to stop when this is too much.
    pub publisher: Option<Publisher>,
}

/// Where a publish came from.
#[derive(Debug, Clone, Hash)]
pub struct Publisher {
    /// The relayer's number of the link.
    pub link: u64,
    /// The session on it.
    pub session: u64,
    /// Where it is told to stop, and to go on.
    pub flow: Ref<RelayFlow>,
}

impl Message for Admit {
    type Reply = Result<Published, Refusal>;
    const NAME: &'static str = "relay.Admit";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: issue a producer epoch.
#[derive(Debug, Hash)]
pub struct IssueEpoch {
    /// Who wants it, as verified.
    pub customer: NodeId,
    /// For which channel.
    pub channel: Channel,
    /// An earlier epoch that takes nothing more.
    pub supersedes: Option<u64>,
}

impl Message for IssueEpoch {
    type Reply = Result<ProducerOpened, Refusal>;
    const NAME: &'static str = "relay.IssueEpoch";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: replace the readers of a channel, at its owner's verified wish. Answered once it is durable.
#[derive(Debug, Hash)]
pub struct ReplaceReaders {
    /// The channel.
    pub channel: Channel,
    /// Who may subscribe besides the owner.
    pub readers: Vec<NodeId>,
}

impl Message for ReplaceReaders {
    type Reply = Result<(), Refusal>;
    const NAME: &'static str = "relay.ReplaceReaders";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: deliver a channel over a link until told otherwise, or until the link is down.
#[derive(Debug, Hash)]
pub struct Follow {
    /// The relayer's number of the link.
    pub link: u64,
    /// The sentry's number of the subscription, unique on the link.
    pub subscription: u32,
    /// Who reads, as verified.
    pub customer: NodeId,
    /// What.
    pub channel: Channel,
    /// The last offset the subscriber has.
    pub after: u64,
    /// Most payload bytes delivered and not consumed.
    pub window_bytes: u32,
    /// Names the receiver's subscription over all its links.
    pub series: Series,
    /// Where its receipts are asked for.
    pub countersign: Option<Ref<RelayCountersign>>,
    /// Where records go.
    pub deliver: Ref<RelayDeliver>,
    /// Where it is told that the subscription ended.
    pub ended: Ref<RelaySubscriptionEnded>,
    /// It shares the channel with others.
    pub membership: Option<Membership>,
}

impl Message for Follow {
    type Reply = Result<Subscribed, Refusal>;
    const NAME: &'static str = "relay.Follow";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: a group is done with everything up to `offset`. Answered once that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitOffset {
    /// The relayer's number of the link.
    pub link: u64,
    /// Which subscription on it.
    pub subscription: u32,
    /// The last offset done.
    pub offset: u64,
}

impl Message for CommitOffset {
    type Reply = Result<Committed, Refusal>;
    const NAME: &'static str = "relay.CommitOffset";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: a member of a group can not deal with a record. Answered once it is durably put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PutAside {
    /// The relayer's number of the link.
    pub link: u64,
    /// Which subscription on it.
    pub subscription: u32,
    /// Which record.
    pub offset: u64,
}

impl Message for PutAside {
    type Reply = Result<Committed, Refusal>;
    const NAME: &'static str = "relay.PutAside";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: what a group put aside, after those up to `discard` were forgotten, durably.
#[derive(Debug, Clone, Hash)]
pub struct DescribeDead {
    /// Who asks, as verified.
    pub customer: NodeId,
    /// In which channel.
    pub channel: Channel,
    /// Which group of the asker's.
    pub group: GroupName,
    /// Forgotten first; 0 for none.
    pub discard: u64,
    /// Then the group itself.
    pub remove: bool,
}

impl Message for DescribeDead {
    type Reply = Result<DeadLetters, Refusal>;
    const NAME: &'static str = "relay.DescribeDead";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: where does a time lie in a channel?
#[derive(Debug)]
pub struct Locate {
    /// Who asks, as verified.
    pub customer: NodeId,
    /// In what.
    pub channel: Channel,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Message for Locate {
    type Reply = Result<OffsetFound, Refusal>;
    const NAME: &'static str = "relay.Locate";
}

/// To a shard's worker: a subscriber dealt with everything up to `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Consume {
    /// The relayer's number of the link.
    pub link: u64,
    /// Which subscription on it.
    pub subscription: u32,
    /// The last offset dealt with.
    pub offset: u64,
}

impl Message for Consume {
    type Reply = ();
    const NAME: &'static str = "relay.Consume";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: the subscriber wants no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unfollow {
    /// The relayer's number of the link.
    pub link: u64,
    /// Which subscription on it.
    pub subscription: u32,
}

impl Message for Unfollow {
    type Reply = ();
    const NAME: &'static str = "relay.Unfollow";

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: whether there is room to store more. While there is none it refuses what would be stored, and
/// delivers as ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Room {
    /// There is.
    pub writable: bool,
}

impl Message for Room {
    type Reply = ();
    const NAME: &'static str = "relay.Room";
    const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: store nothing more, and go to rest once what was admitted is stored. Refused, and nothing is
/// changed, while the shard is not open, or has records of which its next owner has no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rest {
    /// Digest of the next owner's copy.
    pub copied: Option<[u8; 32]>,
}

impl Message for Rest {
    type Reply = Result<(), Refusal>;
    const NAME: &'static str = "relay.Rest";
    const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: store nothing more until it is to rest, or to [`Wake`]. Answered once what was admitted is stored.
/// What is stored is delivered on, and shown to the next owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence;

impl Message for Fence {
    type Reply = Result<(), Refusal>;
    const NAME: &'static str = "relay.Fence";
    const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::Control;
}

/// To the worker of a shard that is elsewhere: how many channels of it are still stored here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountLeft;

impl Message for CountLeft {
    type Reply = Result<u64, Refusal>;
    const NAME: &'static str = "relay.CountLeft";
}

/// To the worker of a shard that is elsewhere, durably: remove what is still stored of it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discard;

impl Message for Discard {
    type Reply = Result<(), Refusal>;
    const NAME: &'static str = "relay.Discard";
}

/// To a shard's worker: whether it rests or works is to be as this relayer's tenure says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wake;

impl Message for Wake {
    type Reply = ();
    const NAME: &'static str = "relay.Wake";
    const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To a shard's worker: how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DescribeShard;

impl Message for DescribeShard {
    type Reply = ShardAccount;
    const NAME: &'static str = "relay.DescribeShard";
    const CLASS: pqcnet_actor::Class = pqcnet_actor::Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// A shard's account of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardAccount {
    /// What it holds.
    pub status: ShardStatus,
    /// It stores and serves. False while it opens, drains, or cannot write.
    pub ready: bool,
    /// One word on what it is doing.
    pub phase: &'static str,
    /// Subscriptions now.
    pub subscriptions: u64,
}
