//! The edge service's messages as protobuf has them, and what is checked on the way in.

use bytes::Bytes;
use pqcnet_link::WireError;
use pqcnet_protos::common::v1 as common;
use pqcnet_protos::edge::v1 as pb;

use super::{
    Attach, Countersign, DeadLetters, Deliver, FindOffset, Flow, JoinGroup, ListDeadLetters,
    OpenProducer, Publish, SetReaders, Subscribe, SubscriptionEnded,
};
use crate::channel::ChannelName;
use crate::codec::{invalid, node_bytes, node_id, required};
use crate::flow::PauseCause;
use crate::group::{DeadLetter, GroupName, MAX_DEAD_LETTERS, MemberId, Membership};
use crate::receipt::Series;
use crate::record::{
    Record, check_payloads, kept_from_proto, records_from_proto, records_to_proto,
};

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
