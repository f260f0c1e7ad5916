//! Service `relay`: a sentry and a relayer, and two relayers of whom one has a shard that is to be the other's.
//!
//! One session per client and relayer, opened with the client's own grant. Subscription ids are the sentry's, unique on
//! the link. [`RelayDeliver`] and [`RelaySubscriptionEnded`] come back on the same service.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as common;
use pqcnet_protos::relay::v1::{self as pb, Type};

use crate::channel::{Channel, ChannelName};
use crate::codec::{array, invalid, message, node_bytes, node_id, required, same_fields, wire};
use crate::edge::{
    Committed, DeadLetters, MAX_READERS, OffsetFound, ProducerOpened, Published, Subscribed,
    check_batch,
};
use crate::flow::PauseCause;
use crate::grant::Grant;
use crate::group::{GroupName, MemberId, Membership};
use crate::receipt::{Countersigned, Series};
use crate::record::{MAX_BATCH_RECORDS, Record, records_from_proto, records_to_proto};
use crate::refusal::Refusal;
use crate::shard::{ShardId, shard_id};

/// Opens a client's session at a relayer, which verifies the grant itself.
#[derive(Clone, Debug, Hash)]
pub struct OpenSession {
    /// The client's leave for this sentry.
    pub grant: Grant,
}

/// The session is open; it dies with the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOpened {
    /// The relayer's number for it, unique on the link.
    pub session: u64,
}

/// The client is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseSession {
    /// Which session.
    pub session: u64,
}

/// [`crate::edge::OpenProducer`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayOpenProducer {
    /// Which session.
    pub session: u64,
    /// A channel of the session's customer.
    pub channel: Channel,
    /// An earlier epoch that takes nothing more.
    pub supersedes: Option<u64>,
}

/// [`crate::edge::Publish`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayPublish {
    /// Which session.
    pub session: u64,
    /// A channel of the session's customer.
    pub channel: Channel,
    /// From [`ProducerOpened`].
    pub epoch: u64,
    /// Sequence of the first payload, from 1; the others follow.
    pub first_seq: u64,
    /// 1 to [`MAX_BATCH_RECORDS`] payloads.
    pub payloads: Vec<Bytes>,
}

/// [`crate::edge::SetReaders`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelaySetReaders {
    /// Which session.
    pub session: u64,
    /// The channel's name.
    pub channel: ChannelName,
    /// Who may subscribe besides the owner; at most [`MAX_READERS`].
    pub readers: Vec<NodeId>,
}

/// [`crate::edge::Subscribe`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelaySubscribe {
    /// Which session.
    pub session: u64,
    /// The sentry's number for it, unique on the link.
    pub subscription: u32,
    /// Any channel that lists the customer as a reader, or its own.
    pub channel: Channel,
    /// The last offset the client has; 0 for everything.
    pub after: u64,
    /// Most payload bytes delivered and not yet consumed.
    pub window_bytes: u32,
    /// As in [`crate::edge::Subscribe`].
    pub series: Series,
}

/// [`crate::edge::FindOffset`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayFindOffset {
    /// Which session.
    pub session: u64,
    /// Any channel that lists the customer as a reader, or its own.
    pub channel: Channel,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// [`crate::edge::Consumed`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayConsumed {
    /// Which session.
    pub session: u64,
    /// Which subscription.
    pub subscription: u32,
    /// The last offset dealt with.
    pub offset: u64,
}

/// [`crate::edge::Unsubscribe`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayUnsubscribe {
    /// Which session.
    pub session: u64,
    /// Which subscription.
    pub subscription: u32,
}

/// Records of a subscription, in order, contiguous with the ones before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayDeliver {
    /// Which subscription.
    pub subscription: u32,
    /// 1 to [`MAX_BATCH_RECORDS`] records.
    pub records: Vec<Record>,
}

/// A subscription that the relayer ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelaySubscriptionEnded {
    /// Which subscription.
    pub subscription: u32,
    /// Why.
    pub refusal: Refusal,
}

/// To the relayer that has a shard, from the one whom the root's map gives it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReleaseShard {
    /// Which.
    pub shard: ShardId,
    /// Of the map that says so.
    pub map_version: u64,
    /// Digest of the asker's own copy of the shard, if it has made one.
    pub copied: Option<[u8; 32]>,
}

/// The asker has it now, and the one that was asked has it no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardReleased {
    /// How often the shard has moved, this move included: producer epochs are numbered by it.
    pub moves: u8,
}

/// To the sentry: have the client of this subscription sign for what it took. Asked only of subscriptions with a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayCountersign {
    /// Which subscription.
    pub subscription: u32,
    /// The relayer's window.
    pub window: u64,
}

/// [`crate::edge::Flow`], for the session that publishes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayFlow {
    /// Which session.
    pub session: u64,
    /// A channel of its customer.
    pub channel: Channel,
    /// Why to stop; `None`: go on.
    pub paused: Option<PauseCause>,
}

/// [`crate::edge::JoinGroup`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayJoinGroup {
    /// Which session.
    pub session: u64,
    /// The sentry's number for it, unique on the link.
    pub subscription: u32,
    /// Any channel that lists the customer as a reader, or its own.
    pub channel: Channel,
    /// Where the group begins if it never committed.
    pub after: u64,
    /// Most payload bytes delivered and not yet consumed.
    pub window_bytes: u32,
    /// As in [`crate::edge::Subscribe`].
    pub series: Series,
    /// Which group, and who in it.
    pub membership: Membership,
}

/// [`crate::edge::Commit`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayCommit {
    /// Which session.
    pub session: u64,
    /// Which subscription.
    pub subscription: u32,
    /// Everything up to here is done.
    pub offset: u64,
}

/// [`crate::edge::Nack`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayNack {
    /// Which session.
    pub session: u64,
    /// Which subscription.
    pub subscription: u32,
    /// The record that is to be put aside.
    pub offset: u64,
}

/// [`crate::edge::ListDeadLetters`] of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayListDeadLetters {
    /// Which session.
    pub session: u64,
    /// In which channel.
    pub channel: Channel,
    /// Which group of the customer's.
    pub group: GroupName,
    /// Those up to this offset are forgotten first; 0 for none.
    pub discard: u64,
    /// Then the group itself.
    pub remove: bool,
}

message!(OpenSession, "relay.OpenSession", RELAY Type::OpenSession, Request => Result<SessionOpened, Refusal>);
message!(CloseSession, "relay.CloseSession", RELAY Type::CloseSession, Request => ());
message!(RelayOpenProducer, "relay.OpenProducer", RELAY Type::OpenProducer, Request => Result<ProducerOpened, Refusal>);
message!(RelayPublish, "relay.Publish", RELAY Type::Publish, Request => Result<Published, Refusal>);
message!(RelaySetReaders, "relay.SetReaders", RELAY Type::SetReaders, Request => Result<(), Refusal>);
message!(RelaySubscribe, "relay.Subscribe", RELAY Type::Subscribe, Request => Result<Subscribed, Refusal>);
message!(RelayFindOffset, "relay.FindOffset", RELAY Type::FindOffset, Request => Result<OffsetFound, Refusal>);
message!(RelayConsumed, "relay.Consumed", RELAY Type::Consumed, Request => ());
message!(RelayUnsubscribe, "relay.Unsubscribe", RELAY Type::Unsubscribe, Request => ());
message!(RelayDeliver, "relay.Deliver", RELAY Type::Deliver, Request => ());
message!(RelaySubscriptionEnded, "relay.SubscriptionEnded", RELAY Type::SubscriptionEnded, Request => ());

message!(RelayCountersign, "relay.Countersign", RELAY Type::Countersign, Request => Result<Countersigned, Refusal>);
message!(ReleaseShard, "relay.ReleaseShard", RELAY Type::ReleaseShard, Request => Result<ShardReleased, Refusal>);

message!(RelayFlow, "relay.Flow", RELAY Type::Flow, Request => ());
message!(RelayJoinGroup, "relay.JoinGroup", RELAY Type::JoinGroup, Request => Result<Subscribed, Refusal>);
message!(RelayCommit, "relay.Commit", RELAY Type::Commit, Request => Result<Committed, Refusal>);
message!(RelayNack, "relay.Nack", RELAY Type::Nack, Request => Result<Committed, Refusal>);
message!(RelayListDeadLetters, "relay.ListDeadLetters", RELAY Type::DeadLetters, Request => Result<DeadLetters, Refusal>);

same_fields!(RelayCommit => pb::Commit { session, subscription, offset });
same_fields!(RelayNack => pb::Nack { session, subscription, offset });
wire!(RelayFlow => pb::Flow);
wire!(RelayJoinGroup => pb::JoinGroup);
wire!(RelayListDeadLetters => pb::ListDeadLetters);

same_fields!(SessionOpened => pb::SessionOpened { session });
same_fields!(CloseSession => pb::CloseSession { session });
same_fields!(RelayConsumed => pb::Consumed { session, subscription, offset });
same_fields!(RelayUnsubscribe => pb::Unsubscribe { session, subscription });

same_fields!(RelayCountersign => pb::Countersign { subscription, window });

wire!(OpenSession => pb::OpenSession);
wire!(RelayOpenProducer => pb::OpenProducer);
wire!(RelayPublish => pb::Publish, bound "payloads" = 5 at MAX_BATCH_RECORDS);
wire!(RelaySetReaders => pb::SetReaders, bound "readers" = 3 at MAX_READERS);
wire!(RelaySubscribe => pb::Subscribe);
wire!(RelayFindOffset => pb::FindOffset);
wire!(RelayDeliver => pb::Deliver, bound "records" = 2 at MAX_BATCH_RECORDS);
wire!(RelaySubscriptionEnded => pb::SubscriptionEnded);
wire!(ReleaseShard => pb::ReleaseShard);
wire!(ShardReleased => pb::ShardReleased);

impl From<&RelayFlow> for pb::Flow {
    fn from(flow: &RelayFlow) -> Self {
        Self {
            session: flow.session,
            channel: Some((&flow.channel).into()),
            paused: PauseCause::to_proto(flow.paused),
        }
    }
}

impl TryFrom<pb::Flow> for RelayFlow {
    type Error = WireError;

    fn try_from(flow: pb::Flow) -> Result<Self, WireError> {
        Ok(RelayFlow {
            session: flow.session,
            channel: required("channel", flow.channel)?.try_into()?,
            paused: PauseCause::from_proto(flow.paused),
        })
    }
}

impl From<&RelayJoinGroup> for pb::JoinGroup {
    fn from(join: &RelayJoinGroup) -> Self {
        Self {
            session: join.session,
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

impl TryFrom<pb::JoinGroup> for RelayJoinGroup {
    type Error = WireError;

    fn try_from(join: pb::JoinGroup) -> Result<Self, WireError> {
        Ok(RelayJoinGroup {
            session: join.session,
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

impl From<&RelayListDeadLetters> for pb::ListDeadLetters {
    fn from(list: &RelayListDeadLetters) -> Self {
        Self {
            session: list.session,
            channel: Some((&list.channel).into()),
            group: list.group.as_str().to_owned(),
            discard: list.discard,
            remove: list.remove,
        }
    }
}

impl TryFrom<pb::ListDeadLetters> for RelayListDeadLetters {
    type Error = WireError;

    fn try_from(list: pb::ListDeadLetters) -> Result<Self, WireError> {
        Ok(RelayListDeadLetters {
            session: list.session,
            channel: required("channel", list.channel)?.try_into()?,
            group: GroupName::from_proto(&list.group)?,
            discard: list.discard,
            remove: list.remove,
        })
    }
}

impl From<&OpenSession> for pb::OpenSession {
    fn from(open: &OpenSession) -> Self {
        Self {
            grant: Some((&open.grant).into()),
        }
    }
}

impl TryFrom<pb::OpenSession> for OpenSession {
    type Error = WireError;

    fn try_from(open: pb::OpenSession) -> Result<Self, WireError> {
        Ok(OpenSession {
            grant: required("grant", open.grant)?.try_into()?,
        })
    }
}

impl From<&RelayOpenProducer> for pb::OpenProducer {
    fn from(open: &RelayOpenProducer) -> Self {
        Self {
            session: open.session,
            channel: Some((&open.channel).into()),
            supersedes: open.supersedes.unwrap_or(0),
        }
    }
}

impl TryFrom<pb::OpenProducer> for RelayOpenProducer {
    type Error = WireError;

    fn try_from(open: pb::OpenProducer) -> Result<Self, WireError> {
        Ok(RelayOpenProducer {
            session: open.session,
            channel: required("channel", open.channel)?.try_into()?,
            supersedes: Some(open.supersedes).filter(|epoch| *epoch > 0),
        })
    }
}

impl From<&RelayPublish> for pb::Publish {
    fn from(publish: &RelayPublish) -> Self {
        Self {
            session: publish.session,
            channel: Some((&publish.channel).into()),
            epoch: publish.epoch,
            first_seq: publish.first_seq,
            payloads: publish.payloads.clone(),
        }
    }
}

impl TryFrom<pb::Publish> for RelayPublish {
    type Error = WireError;

    fn try_from(publish: pb::Publish) -> Result<Self, WireError> {
        check_batch(publish.first_seq, &publish.payloads)?;
        Ok(RelayPublish {
            session: publish.session,
            channel: required("channel", publish.channel)?.try_into()?,
            epoch: publish.epoch,
            first_seq: publish.first_seq,
            payloads: publish.payloads,
        })
    }
}

impl From<&RelaySetReaders> for pb::SetReaders {
    fn from(set: &RelaySetReaders) -> Self {
        Self {
            session: set.session,
            channel: set.channel.as_str().to_owned(),
            readers: set.readers.iter().map(node_bytes).collect(),
        }
    }
}

impl TryFrom<pb::SetReaders> for RelaySetReaders {
    type Error = WireError;

    fn try_from(set: pb::SetReaders) -> Result<Self, WireError> {
        let readers = set.readers.iter().map(|id| node_id("reader", id));
        Ok(RelaySetReaders {
            session: set.session,
            channel: ChannelName::from_proto(&set.channel)?,
            readers: readers.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&RelaySubscribe> for pb::Subscribe {
    fn from(subscribe: &RelaySubscribe) -> Self {
        Self {
            session: subscribe.session,
            subscription: subscribe.subscription,
            channel: Some((&subscribe.channel).into()),
            after: subscribe.after,
            window_bytes: subscribe.window_bytes,
            series: subscribe.series.to_proto(),
        }
    }
}

impl TryFrom<pb::Subscribe> for RelaySubscribe {
    type Error = WireError;

    fn try_from(subscribe: pb::Subscribe) -> Result<Self, WireError> {
        Ok(RelaySubscribe {
            session: subscribe.session,
            subscription: subscribe.subscription,
            channel: required("channel", subscribe.channel)?.try_into()?,
            after: subscribe.after,
            window_bytes: subscribe.window_bytes,
            series: Series::from_proto(&subscribe.series)?,
        })
    }
}

impl From<&RelayFindOffset> for pb::FindOffset {
    fn from(find: &RelayFindOffset) -> Self {
        Self {
            session: find.session,
            channel: Some((&find.channel).into()),
            at_ms: find.at_ms,
        }
    }
}

impl TryFrom<pb::FindOffset> for RelayFindOffset {
    type Error = WireError;

    fn try_from(find: pb::FindOffset) -> Result<Self, WireError> {
        Ok(RelayFindOffset {
            session: find.session,
            channel: required("channel", find.channel)?.try_into()?,
            at_ms: find.at_ms,
        })
    }
}

impl From<&RelayDeliver> for pb::Deliver {
    fn from(deliver: &RelayDeliver) -> Self {
        Self {
            subscription: deliver.subscription,
            records: records_to_proto(&deliver.records),
        }
    }
}

impl TryFrom<pb::Deliver> for RelayDeliver {
    type Error = WireError;

    fn try_from(deliver: pb::Deliver) -> Result<Self, WireError> {
        Ok(RelayDeliver {
            subscription: deliver.subscription,
            records: records_from_proto(deliver.records)?,
        })
    }
}

impl From<&RelaySubscriptionEnded> for pb::SubscriptionEnded {
    fn from(ended: &RelaySubscriptionEnded) -> Self {
        Self {
            subscription: ended.subscription,
            refusal: Some(common::Refusal::from(&ended.refusal)),
        }
    }
}

impl TryFrom<pb::SubscriptionEnded> for RelaySubscriptionEnded {
    type Error = WireError;

    fn try_from(ended: pb::SubscriptionEnded) -> Result<Self, WireError> {
        Ok(RelaySubscriptionEnded {
            subscription: ended.subscription,
            refusal: required("refusal", ended.refusal)?.try_into()?,
        })
    }
}

impl From<&ReleaseShard> for pb::ReleaseShard {
    fn from(release: &ReleaseShard) -> Self {
        Self {
            shard: release.shard.0.into(),
            map_version: release.map_version,
            copied: release
                .copied
                .map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
        }
    }
}

impl TryFrom<pb::ReleaseShard> for ReleaseShard {
    type Error = WireError;

    fn try_from(release: pb::ReleaseShard) -> Result<Self, WireError> {
        let copied = Some(release.copied).filter(|digest| !digest.is_empty());
        Ok(ReleaseShard {
            shard: shard_id(release.shard)?,
            map_version: release.map_version,
            copied: copied.map(|digest| array("copied", &digest)).transpose()?,
        })
    }
}

impl From<&ShardReleased> for pb::ShardReleased {
    fn from(released: &ShardReleased) -> Self {
        Self {
            moves: released.moves.into(),
        }
    }
}

impl TryFrom<pb::ShardReleased> for ShardReleased {
    type Error = WireError;

    fn try_from(released: pb::ShardReleased) -> Result<Self, WireError> {
        let moves = u8::try_from(released.moves).map_err(|_| invalid("moves", "too large"))?;
        Ok(ShardReleased { moves })
    }
}
