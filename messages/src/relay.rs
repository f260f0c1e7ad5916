//! Service `relay`: a sentry and a relayer, and two relayers of whom one has a shard that is to be the other's.
//!
//! One session per client and relayer, opened with the client's own grant. Subscription ids are the sentry's, unique on
//! the link. [`RelayDeliver`] and [`RelaySubscriptionEnded`] come back on the same service.

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::relay::v1::{self as pb, Type};

use crate::channel::{Channel, ChannelName};
use crate::codec::{array, fields, invalid, message, wire};
use crate::edge::{
    Committed, DeadLetters, MAX_READERS, OffsetFound, ProducerOpened, Published, Subscribed,
    check_batch,
};
use crate::flow::PauseCause;
use crate::grant::Grant;
use crate::group::{GroupName, Membership};
use crate::receipt::{Countersigned, Series};
use crate::record::{MAX_BATCH_RECORDS, Record};
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

fields!(RelayCommit => pb::Commit { session, subscription, offset });
fields!(RelayNack => pb::Nack { session, subscription, offset });
fields!(RelayFlow => pb::Flow { session, channel, paused });
fields!(RelayJoinGroup => pb::JoinGroup { session, subscription, channel, after, window_bytes, series }, with membership: Membership { group, member });
fields!(RelayListDeadLetters => pb::ListDeadLetters { session, channel, group, discard, remove });

fields!(SessionOpened => pb::SessionOpened { session });
fields!(CloseSession => pb::CloseSession { session });
fields!(RelayConsumed => pb::Consumed { session, subscription, offset });
fields!(RelayUnsubscribe => pb::Unsubscribe { session, subscription });

fields!(RelayCountersign => pb::Countersign { subscription, window });

fields!(OpenSession => pb::OpenSession { grant });
fields!(RelayOpenProducer => pb::OpenProducer { session, channel, supersedes });
fields!(RelayPublish => pb::Publish { session, channel, epoch, first_seq, payloads }, check RelayPublish::check, bound "payloads" = 5 at MAX_BATCH_RECORDS);
fields!(RelaySetReaders => pb::SetReaders { session, channel, readers }, bound "readers" = 3 at MAX_READERS);
fields!(RelaySubscribe => pb::Subscribe { session, subscription, channel, after, window_bytes, series });
fields!(RelayFindOffset => pb::FindOffset { session, channel, at_ms });
fields!(RelayDeliver => pb::Deliver { subscription, records }, bound "records" = 2 at MAX_BATCH_RECORDS);
fields!(RelaySubscriptionEnded => pb::SubscriptionEnded { subscription, refusal });
wire!(ReleaseShard => pb::ReleaseShard);
wire!(ShardReleased => pb::ShardReleased);

impl RelayPublish {
    fn check(&self) -> Result<(), WireError> {
        check_batch(self.first_seq, &self.payloads)
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
