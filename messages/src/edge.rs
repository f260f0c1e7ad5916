//! Service `edge`: a client and its sentry.
//!
//! The client attaches once with a [`Grant`], then publishes and subscribes. [`Deliver`] and [`SubscriptionEnded`] come
//! back from the sentry on the same service.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::edge::v1::{self as pb, Type};

use crate::channel::{Channel, ChannelName};
use crate::codec::{fields, invalid, message, wire};
use crate::flow::PauseCause;
use crate::grant::Grant;
use crate::group::{DeadLetter, GroupName, MAX_DEAD_LETTERS, Membership};
use crate::receipt::{Countersigned, Series};
use crate::record::{MAX_BATCH_RECORDS, Record, check_payloads, kept_from_proto, records_to_proto};
use crate::refusal::Refusal;

/// Most readers on a channel's access list.
pub const MAX_READERS: usize = 1024;

/// Opens the client's session at the sentry; first message of a link.
#[derive(Clone, Debug, Hash)]
pub struct Attach {
    /// The client's leave for this sentry.
    pub grant: Grant,
}

/// The session is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Shards of the network.
    pub shards: u32,
}

/// Asks the shard's owner for a producer epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenProducer {
    /// A channel of the client's own.
    pub channel: Channel,
    /// An earlier epoch of the same producer, which from here on takes nothing more: what is still on its way under it
    /// can not land behind what the new one publishes.
    pub supersedes: Option<u64>,
}

/// A fresh epoch; its sequences start at 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOpened {
    /// Unique on the channel.
    pub epoch: u64,
}

/// Publishes a batch. The same (epoch, sequences) sent again lands once and is answered as the first time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    /// A channel of the client's own.
    pub channel: Channel,
    /// From [`ProducerOpened`].
    pub epoch: u64,
    /// Sequence of the first payload, from 1; the others follow.
    pub first_seq: u64,
    /// 1 to [`MAX_BATCH_RECORDS`] payloads.
    pub payloads: Vec<Bytes>,
}

/// Everything up to here is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Last durable sequence of the epoch.
    pub last_seq: u64,
    /// Its offset in the channel.
    pub last_offset: u64,
}

/// Replaces the access list of a channel of the client's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetReaders {
    /// The channel's name.
    pub channel: ChannelName,
    /// Who may subscribe besides the owner; at most [`MAX_READERS`].
    pub readers: Vec<NodeId>,
}

/// Starts deliveries of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscribe {
    /// The client's number for it, unique on the link.
    pub subscription: u32,
    /// Any channel that lists the client as a reader, or its own.
    pub channel: Channel,
    /// The last offset the client has; 0 for everything.
    pub after: u64,
    /// Most payload bytes delivered and not yet [`Consumed`].
    pub window_bytes: u32,
    /// Stays the same when the subscription is resumed; a client that names one answers [`Countersign`].
    pub series: Series,
}

/// Deliveries follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The channel's last offset at that moment.
    pub head: u64,
}

/// Asks where a time lies in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindOffset {
    /// Any channel that lists the client as a reader, or its own.
    pub channel: Channel,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFound {
    /// The offset to present to get what was stored at that time or later, and nothing else.
    pub after: u64,
    /// The channel's last offset at that moment.
    pub head: u64,
}

/// The client has dealt with everything up to `offset`; opens the window again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumed {
    /// Which subscription.
    pub subscription: u32,
    /// The last offset dealt with.
    pub offset: u64,
}

/// Ends a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unsubscribe {
    /// Which subscription.
    pub subscription: u32,
}

/// Records of a subscription, in order, contiguous with the ones before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deliver {
    /// Which subscription.
    pub subscription: u32,
    /// 1 to [`MAX_BATCH_RECORDS`] records.
    pub records: Vec<Record>,
}

/// A subscription that the service ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionEnded {
    /// Which subscription.
    pub subscription: u32,
    /// Why; a retryable one is worth subscribing again, from the last offset.
    pub refusal: Refusal,
}

/// To the client: sign for what this subscription took, for the relayer that delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Countersign {
    /// Which subscription.
    pub subscription: u32,
    /// Who asks.
    pub relayer: NodeId,
    /// Its window.
    pub window: u64,
}

/// To a publisher: stop sending to the channel, or go on. What is on its way is taken all the same; nobody has to obey, but
/// what goes far beyond is [`Refusal::Busy`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// A channel of the client's own.
    pub channel: Channel,
    /// Why to stop; `None`: go on.
    pub paused: Option<PauseCause>,
}

/// Subscribes as a member of a group. The channel's records come once it is this member's, from the one after the group's
/// last commit; that it is another's from now on is told by [`SubscriptionEnded`] with [`Refusal::Reassigned`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JoinGroup {
    /// The client's number for it, unique on the link.
    pub subscription: u32,
    /// Any channel that lists the client as a reader, or its own.
    pub channel: Channel,
    /// Where the group begins if it never committed.
    pub after: u64,
    /// Most payload bytes delivered and not yet [`Consumed`].
    pub window_bytes: u32,
    /// As in [`Subscribe`].
    pub series: Series,
    /// Which group, and who in it.
    pub membership: Membership,
}

/// The group is done with everything up to `offset`; answered when that is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Which subscription: of a member that has the channel.
    pub subscription: u32,
    /// One that was delivered to it.
    pub offset: u64,
}

/// How far the group is, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Everything up to here is done.
    pub offset: u64,
}

/// The record can not be dealt with: it is put aside, durably, and no more. It is committed like any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nack {
    /// Which subscription: of a member that has the channel.
    pub subscription: u32,
    /// One that was delivered to it and is not committed.
    pub offset: u64,
}

/// Asks what a group of the client's put aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListDeadLetters {
    /// In which channel.
    pub channel: Channel,
    /// Which group.
    pub group: GroupName,
    /// Those up to this offset are forgotten first; 0 for none.
    pub discard: u64,
    /// Then the group itself is forgotten, with its commit, if no member is there.
    pub remove: bool,
}

/// What it put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// How far the group is.
    pub committed: u64,
    /// Ascending by offset; at most [`MAX_DEAD_LETTERS`].
    pub letters: Vec<DeadLetter>,
    /// Records of these that the channel no longer keeps, from where they were kept apart from it; ascending, those that fit into a batch.
    pub kept: Vec<Record>,
    /// The group was to be removed, and is not there any more. A relayer or sentry that removes none says nothing of it.
    pub removed: bool,
}

message!(Attach, "edge.Attach", EDGE Type::Attach, Request => Result<Attached, Refusal>);
message!(OpenProducer, "edge.OpenProducer", EDGE Type::OpenProducer, Request => Result<ProducerOpened, Refusal>);
message!(Publish, "edge.Publish", EDGE Type::Publish, Request => Result<Published, Refusal>);
message!(SetReaders, "edge.SetReaders", EDGE Type::SetReaders, Request => Result<(), Refusal>);
message!(Subscribe, "edge.Subscribe", EDGE Type::Subscribe, Request => Result<Subscribed, Refusal>);
message!(FindOffset, "edge.FindOffset", EDGE Type::FindOffset, Request => Result<OffsetFound, Refusal>);
message!(Consumed, "edge.Consumed", EDGE Type::Consumed, Request => ());
message!(Unsubscribe, "edge.Unsubscribe", EDGE Type::Unsubscribe, Request => ());
message!(Deliver, "edge.Deliver", EDGE Type::Deliver, Request => ());
message!(SubscriptionEnded, "edge.SubscriptionEnded", EDGE Type::SubscriptionEnded, Request => ());
message!(Countersign, "edge.Countersign", EDGE Type::Countersign, Request => Result<Countersigned, Refusal>);

message!(Flow, "edge.Flow", EDGE Type::Flow, Request => ());
message!(JoinGroup, "edge.JoinGroup", EDGE Type::JoinGroup, Request => Result<Subscribed, Refusal>);
message!(Commit, "edge.Commit", EDGE Type::Commit, Request => Result<Committed, Refusal>);
message!(Nack, "edge.Nack", EDGE Type::Nack, Request => Result<Committed, Refusal>);
message!(ListDeadLetters, "edge.ListDeadLetters", EDGE Type::DeadLetters, Request => Result<DeadLetters, Refusal>);

fields!(Commit => pb::Commit { subscription, offset });
fields!(Committed => pb::Committed { offset });
fields!(Nack => pb::Nack { subscription, offset });
fields!(Flow => pb::Flow { channel, paused });
fields!(JoinGroup => pb::JoinGroup { subscription, channel, after, window_bytes, series }, with membership: Membership { group, member });
fields!(ListDeadLetters => pb::ListDeadLetters { channel, group, discard, remove });
wire!(DeadLetters => pb::DeadLetters, bound "letters" = 2 at MAX_DEAD_LETTERS, bound "kept" = 3 at MAX_DEAD_LETTERS);

fields!(Attached => pb::Attached { shards });
fields!(ProducerOpened => pb::ProducerOpened { epoch });
fields!(Published => pb::Published { last_seq, last_offset });
fields!(Subscribed => pb::Subscribed { head });
fields!(OffsetFound => pb::OffsetFound { after, head });
fields!(Consumed => pb::Consumed { subscription, offset });
fields!(Unsubscribe => pb::Unsubscribe { subscription });

fields!(Attach => pb::Attach { grant });
fields!(OpenProducer => pb::OpenProducer { channel, supersedes });
fields!(Publish => pb::Publish { channel, epoch, first_seq, payloads }, check Publish::check, bound "payloads" = 4 at MAX_BATCH_RECORDS);
fields!(SetReaders => pb::SetReaders { channel, readers }, bound "readers" = 2 at MAX_READERS);
fields!(Subscribe => pb::Subscribe { subscription, channel, after, window_bytes, series });
fields!(FindOffset => pb::FindOffset { channel, at_ms });
fields!(Deliver => pb::Deliver { subscription, records }, bound "records" = 2 at MAX_BATCH_RECORDS);
fields!(SubscriptionEnded => pb::SubscriptionEnded { subscription, refusal });
fields!(Countersign => pb::Countersign { subscription, relayer, window });

impl Publish {
    fn check(&self) -> Result<(), WireError> {
        check_batch(self.first_seq, &self.payloads)
    }
}

impl From<&DeadLetters> for pb::DeadLetters {
    fn from(dead: &DeadLetters) -> Self {
        Self {
            committed: dead.committed,
            letters: dead.letters.iter().map(Into::into).collect(),
            kept: records_to_proto(&dead.kept),
            removed: dead.removed,
        }
    }
}

impl TryFrom<pb::DeadLetters> for DeadLetters {
    type Error = WireError;

    fn try_from(dead: pb::DeadLetters) -> Result<Self, WireError> {
        let letters: Vec<DeadLetter> = dead.letters.into_iter().map(Into::into).collect();
        if letters.len() > MAX_DEAD_LETTERS || !letters.is_sorted_by(|a, b| a.offset < b.offset) {
            return Err(invalid("letters", "not ascending, or too many"));
        }
        let kept = kept_from_proto(dead.kept)?;
        let listed = |record: &Record| {
            let at = letters.binary_search_by_key(&record.offset, |letter| letter.offset);
            at.is_ok()
        };
        if !kept.iter().all(listed) {
            return Err(invalid("kept", "not of the letters"));
        }
        Ok(DeadLetters {
            committed: dead.committed,
            letters,
            kept,
            removed: dead.removed,
        })
    }
}

/// A batch within its limits whose sequences start at 1 or later and do not overflow.
pub(crate) fn check_batch(first_seq: u64, payloads: &[Bytes]) -> Result<(), WireError> {
    check_payloads(payloads.iter())?;
    if first_seq == 0 || first_seq.checked_add(payloads.len() as u64).is_none() {
        return Err(invalid("first_seq", "out of range"));
    }
    Ok(())
}
