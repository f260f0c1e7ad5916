//! Service `edge`: a client and its sentry.
//!
//! The client attaches once with a [`Grant`], then publishes and subscribes. [`Deliver`] and [`SubscriptionEnded`] come
//! back from the sentry on the same service.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as common;
use pqcnet_protos::edge::v1::{self as pb, Type};

use crate::channel::{Channel, ChannelName};
use crate::codec::{invalid, message, node_bytes, node_id, required, same_fields, wire};
use crate::flow::PauseCause;
use crate::grant::Grant;
use crate::group::{DeadLetter, GroupName, MAX_DEAD_LETTERS, MemberId, Membership};
use crate::receipt::{Countersigned, Series};
use crate::record::{
    MAX_BATCH_RECORDS, Record, check_payloads, kept_from_proto, records_from_proto,
    records_to_proto,
};
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

same_fields!(Commit => pb::Commit { subscription, offset });
same_fields!(Committed => pb::Committed { offset });
same_fields!(Nack => pb::Nack { subscription, offset });
wire!(Flow => pb::Flow);
wire!(JoinGroup => pb::JoinGroup);
wire!(ListDeadLetters => pb::ListDeadLetters);
wire!(DeadLetters => pb::DeadLetters, bound "letters" = 2 at MAX_DEAD_LETTERS, bound "kept" = 3 at MAX_DEAD_LETTERS);

same_fields!(Attached => pb::Attached { shards });
same_fields!(ProducerOpened => pb::ProducerOpened { epoch });
same_fields!(Published => pb::Published { last_seq, last_offset });
same_fields!(Subscribed => pb::Subscribed { head });
same_fields!(OffsetFound => pb::OffsetFound { after, head });
same_fields!(Consumed => pb::Consumed { subscription, offset });
same_fields!(Unsubscribe => pb::Unsubscribe { subscription });

wire!(Attach => pb::Attach);
wire!(OpenProducer => pb::OpenProducer);
wire!(Publish => pb::Publish, bound "payloads" = 4 at MAX_BATCH_RECORDS);
wire!(SetReaders => pb::SetReaders, bound "readers" = 2 at MAX_READERS);
wire!(Subscribe => pb::Subscribe);
wire!(FindOffset => pb::FindOffset);
wire!(Deliver => pb::Deliver, bound "records" = 2 at MAX_BATCH_RECORDS);
wire!(SubscriptionEnded => pb::SubscriptionEnded);
wire!(Countersign => pb::Countersign);

impl From<&Countersign> for pb::Countersign {
    fn from(ask: &Countersign) -> Self {
        Self {
            subscription: ask.subscription,
            relayer: node_bytes(&ask.relayer),
            window: ask.window,
        }
    }
}

impl TryFrom<pb::Countersign> for Countersign {
    type Error = WireError;

    fn try_from(ask: pb::Countersign) -> Result<Self, WireError> {
        Ok(Countersign {
            subscription: ask.subscription,
            relayer: node_id("relayer", &ask.relayer)?,
            window: ask.window,
        })
    }
}

impl From<&Flow> for pb::Flow {
    fn from(flow: &Flow) -> Self {
        Self {
            channel: Some((&flow.channel).into()),
            paused: PauseCause::to_proto(flow.paused),
        }
    }
}

impl TryFrom<pb::Flow> for Flow {
    type Error = WireError;

    fn try_from(flow: pb::Flow) -> Result<Self, WireError> {
        Ok(Flow {
            channel: required("channel", flow.channel)?.try_into()?,
            paused: PauseCause::from_proto(flow.paused),
        })
    }
}

impl From<&JoinGroup> for pb::JoinGroup {
    fn from(join: &JoinGroup) -> Self {
        Self {
            subscription: join.subscription,
            channel: Some((&join.channel).into()),
            after: join.after,
            window_bytes: join.window_bytes,
            series: join.series.to_proto(),
            group: join.membership.group.as_str().to_owned(),
            member: join.membership.member.to_proto(),
        }
    }
}

impl TryFrom<pb::JoinGroup> for JoinGroup {
    type Error = WireError;

    fn try_from(join: pb::JoinGroup) -> Result<Self, WireError> {
        Ok(JoinGroup {
            subscription: join.subscription,
            channel: required("channel", join.channel)?.try_into()?,
            after: join.after,
            window_bytes: join.window_bytes,
            series: Series::from_proto(&join.series)?,
            membership: Membership {
                group: GroupName::from_proto(&join.group)?,
                member: MemberId::from_proto(&join.member)?,
            },
        })
    }
}

impl From<&ListDeadLetters> for pb::ListDeadLetters {
    fn from(list: &ListDeadLetters) -> Self {
        Self {
            channel: Some((&list.channel).into()),
            group: list.group.as_str().to_owned(),
            discard: list.discard,
            remove: list.remove,
        }
    }
}

impl TryFrom<pb::ListDeadLetters> for ListDeadLetters {
    type Error = WireError;

    fn try_from(list: pb::ListDeadLetters) -> Result<Self, WireError> {
        Ok(ListDeadLetters {
            channel: required("channel", list.channel)?.try_into()?,
            group: GroupName::from_proto(&list.group)?,
            discard: list.discard,
            remove: list.remove,
        })
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

impl From<&Attach> for pb::Attach {
    fn from(attach: &Attach) -> Self {
        Self {
            grant: Some((&attach.grant).into()),
        }
    }
}

impl TryFrom<pb::Attach> for Attach {
    type Error = WireError;

    fn try_from(attach: pb::Attach) -> Result<Self, WireError> {
        Ok(Attach {
            grant: required("grant", attach.grant)?.try_into()?,
        })
    }
}

impl From<&OpenProducer> for pb::OpenProducer {
    fn from(open: &OpenProducer) -> Self {
        Self {
            channel: Some((&open.channel).into()),
            supersedes: open.supersedes.unwrap_or(0),
        }
    }
}

impl TryFrom<pb::OpenProducer> for OpenProducer {
    type Error = WireError;

    fn try_from(open: pb::OpenProducer) -> Result<Self, WireError> {
        Ok(OpenProducer {
            channel: required("channel", open.channel)?.try_into()?,
            supersedes: Some(open.supersedes).filter(|epoch| *epoch > 0),
        })
    }
}

impl From<&Publish> for pb::Publish {
    fn from(publish: &Publish) -> Self {
        Self {
            channel: Some((&publish.channel).into()),
            epoch: publish.epoch,
            first_seq: publish.first_seq,
            payloads: publish.payloads.clone(),
        }
    }
}

impl TryFrom<pb::Publish> for Publish {
    type Error = WireError;

    fn try_from(publish: pb::Publish) -> Result<Self, WireError> {
        check_batch(publish.first_seq, &publish.payloads)?;
        Ok(Publish {
            channel: required("channel", publish.channel)?.try_into()?,
            epoch: publish.epoch,
            first_seq: publish.first_seq,
            payloads: publish.payloads,
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

impl From<&SetReaders> for pb::SetReaders {
    fn from(set: &SetReaders) -> Self {
        Self {
            channel: set.channel.as_str().to_owned(),
            readers: set.readers.iter().map(node_bytes).collect(),
        }
    }
}

impl TryFrom<pb::SetReaders> for SetReaders {
    type Error = WireError;

    fn try_from(set: pb::SetReaders) -> Result<Self, WireError> {
        let readers = set.readers.iter().map(|id| node_id("reader", id));
        Ok(SetReaders {
            channel: ChannelName::from_proto(&set.channel)?,
            readers: readers.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Subscribe> for pb::Subscribe {
    fn from(subscribe: &Subscribe) -> Self {
        Self {
            subscription: subscribe.subscription,
            channel: Some((&subscribe.channel).into()),
            after: subscribe.after,
            window_bytes: subscribe.window_bytes,
            series: subscribe.series.to_proto(),
        }
    }
}

impl TryFrom<pb::Subscribe> for Subscribe {
    type Error = WireError;

    fn try_from(subscribe: pb::Subscribe) -> Result<Self, WireError> {
        Ok(Subscribe {
            subscription: subscribe.subscription,
            channel: required("channel", subscribe.channel)?.try_into()?,
            after: subscribe.after,
            window_bytes: subscribe.window_bytes,
            series: Series::from_proto(&subscribe.series)?,
        })
    }
}

impl From<&FindOffset> for pb::FindOffset {
    fn from(find: &FindOffset) -> Self {
        Self {
            channel: Some((&find.channel).into()),
            at_ms: find.at_ms,
        }
    }
}

impl TryFrom<pb::FindOffset> for FindOffset {
    type Error = WireError;

    fn try_from(find: pb::FindOffset) -> Result<Self, WireError> {
        Ok(FindOffset {
            channel: required("channel", find.channel)?.try_into()?,
            at_ms: find.at_ms,
        })
    }
}

impl From<&Deliver> for pb::Deliver {
    fn from(deliver: &Deliver) -> Self {
        Self {
            subscription: deliver.subscription,
            records: records_to_proto(&deliver.records),
        }
    }
}

impl TryFrom<pb::Deliver> for Deliver {
    type Error = WireError;

    fn try_from(deliver: pb::Deliver) -> Result<Self, WireError> {
        Ok(Deliver {
            subscription: deliver.subscription,
            records: records_from_proto(deliver.records)?,
        })
    }
}

impl From<&SubscriptionEnded> for pb::SubscriptionEnded {
    fn from(ended: &SubscriptionEnded) -> Self {
        Self {
            subscription: ended.subscription,
            refusal: Some(common::Refusal::from(&ended.refusal)),
        }
    }
}

impl TryFrom<pb::SubscriptionEnded> for SubscriptionEnded {
    type Error = WireError;

    fn try_from(ended: pb::SubscriptionEnded) -> Result<Self, WireError> {
        Ok(SubscriptionEnded {
            subscription: ended.subscription,
            refusal: required("refusal", ended.refusal)?.try_into()?,
        })
    }
}
