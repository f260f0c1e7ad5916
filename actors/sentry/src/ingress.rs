//! What uplinks and sessions tell each other. Local to the process.

use std::hash::{Hash, Hasher};

use pqcnet_actor::{Class, Digest, Message, Ref};
use pqcnet_crypto::NodeId;
use pqcnet_messages::edge::{Committed, Flow, Subscribed};
use pqcnet_messages::{Channel, Countersigned, Grant, Membership, Record, Refusal, Series};

use crate::link::RelayLink;

/// Names one feed of one session, for one relayer subscription: a number the session never uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedTag {
    /// The session.
    pub session: u64,
    /// The session's number for it.
    pub feed: u64,
}

/// Session to uplink: tell me about your link from now on.
#[derive(Clone, Debug, Hash)]
pub struct Join {
    /// Who asks; unique in the process.
    pub session: u64,
    /// Hears of the link.
    pub link: Ref<UplinkChanged>,
    /// Takes deliveries.
    pub forward: Ref<Forward>,
    /// Has the client sign for them.
    pub countersign: Ref<FeedCountersign>,
    /// Hears when a channel's producers are to stop, and to go on.
    pub flow: Ref<Flow>,
}

/// Session to uplink: open a session at the relayer for this customer. One per session and link.
#[derive(Clone, Debug, Hash)]
pub struct OpenRelaySession {
    /// Who asks.
    pub session: u64,
    /// The link meant.
    pub generation: u64,
    /// The customer's leave.
    pub grant: Grant,
}

/// Session to uplink: the customer's later leave, for a relayer where it has a session.
#[derive(Clone, Debug, Hash)]
pub struct ShowGrant {
    /// The link meant.
    pub generation: u64,
    /// The leave.
    pub grant: Grant,
}

/// Session to uplink: subscribe at the relayer.
#[derive(Clone, Debug, Hash)]
pub struct StartFeed {
    /// Names it from now on.
    pub tag: FeedTag,
    /// The link meant.
    pub generation: u64,
    /// The session at the relayer.
    pub relay_session: u64,
    /// What to subscribe to.
    pub channel: Channel,
    /// The last offset had.
    pub after: u64,
    /// Most payload bytes delivered and not consumed.
    pub window_bytes: u32,
    /// Names the client's subscription over all its links.
    pub series: Series,
    /// It shares the channel with others.
    pub membership: Option<Membership>,
}

/// Session to uplink: the client consumed up to here.
#[derive(Clone, Copy, Debug, Hash)]
pub struct FeedConsumed {
    /// Which feed.
    pub tag: FeedTag,
    /// The last offset consumed.
    pub offset: u64,
}

/// Session to uplink: the client's group is so far, or has to put a record aside.
#[derive(Clone, Copy, Debug, Hash)]
pub struct FeedCommit {
    /// Which feed.
    pub tag: FeedTag,
    /// The last offset done, or the record.
    pub offset: u64,
    /// The record is to be put aside.
    pub aside: bool,
}

/// Session to uplink: no more of this.
#[derive(Clone, Copy, Debug, Hash)]
pub struct StopFeed {
    /// Which feed.
    pub tag: FeedTag,
}

/// Uplink to session: its link as it is now. Only the latest one counts.
#[derive(Clone, Debug)]
pub struct UplinkChanged {
    /// The relayer.
    pub relayer: NodeId,
    /// The link and its generation, while it is up.
    pub link: Option<(u64, RelayLink)>,
}

/// The link goes by its generation.
impl Hash for UplinkChanged {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let generation = self.link.as_ref().map(|(generation, _)| *generation);
        (self.relayer, generation).hash(state);
    }
}

/// Uplink to session: records, then perhaps the end. Answered once taken.
#[derive(Debug, Hash)]
pub struct Forward {
    /// Which feed.
    pub tag: FeedTag,
    /// In order; may be empty when it ended.
    pub records: Vec<Record>,
    /// The relayer ended the subscription after these records.
    pub ended: Option<Refusal>,
}

/// Uplink to session: the relayer asks what the client signs for.
#[derive(Clone, Copy, Debug, Hash)]
pub struct FeedCountersign {
    /// Which feed.
    pub tag: FeedTag,
    /// Who asks.
    pub relayer: NodeId,
    /// Its window.
    pub window: u64,
}

macro_rules! local {
    ($ty:ty, $name:literal, $class:ident => $reply:ty) => {
        impl Message for $ty {
            type Reply = $reply;
            const NAME: &'static str = $name;
            const CLASS: Class = Class::$class;

            fn digest(&self, into: &mut Digest) {
                self.hash(into);
            }
        }
    };
}

local!(Join, "sentry.Join", Control => ());
local!(OpenRelaySession, "sentry.OpenRelaySession", Request => Result<u64, Refusal>);
local!(StartFeed, "sentry.StartFeed", Request => Result<Subscribed, Refusal>);
local!(FeedConsumed, "sentry.FeedConsumed", Request => ());
local!(FeedCommit, "sentry.FeedCommit", Request => Result<Committed, Refusal>);
local!(StopFeed, "sentry.StopFeed", Request => ());
local!(UplinkChanged, "sentry.UplinkChanged", Control => ());
local!(ShowGrant, "sentry.ShowGrant", Request => ());
local!(FeedCountersign, "sentry.FeedCountersign", Request => Result<Countersigned, Refusal>);
local!(Forward, "sentry.Forward", Request => ());
