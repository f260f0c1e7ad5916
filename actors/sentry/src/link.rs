//! What the sentry's actors need of a link, whatever carries it.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::Ref;
use pqcnet_messages::edge::{Countersign, Deliver, Flow, SubscriptionEnded};
use pqcnet_messages::relay::{
    CloseSession, OpenSession, RelayCommit, RelayConsumed, RelayFindOffset, RelayJoinGroup,
    RelayListDeadLetters, RelayNack, RelayOpenProducer, RelayPublish, RelaySetReaders,
    RelaySubscribe, RelayUnsubscribe,
};

/// Closes a link; calling it twice does no harm.
pub type Closer = Arc<dyn Fn() + Send + Sync>;

/// Lets a link's requests through until that time of the node's clock ([`pqcnet_actor::Env::now`]): what a verified grant is
/// good for. Before the first call nothing but the attachment is let through.
pub type Permit = Arc<dyn Fn(Duration) + Send + Sync>;

/// The relay service of one relayer.
#[derive(Clone)]
pub struct RelayLink {
    /// Opens a session for a client.
    pub open_session: Ref<OpenSession>,
    /// Closes it.
    pub close_session: Ref<CloseSession>,
    /// Issues a producer epoch.
    pub open_producer: Ref<RelayOpenProducer>,
    /// Stores a batch.
    pub publish: Ref<RelayPublish>,
    /// Replaces an access list.
    pub set_readers: Ref<RelaySetReaders>,
    /// Finds a time in a channel.
    pub find_offset: Ref<RelayFindOffset>,
    /// Starts a subscription.
    pub subscribe: Ref<RelaySubscribe>,
    /// Starts one of a group's member.
    pub join_group: Ref<RelayJoinGroup>,
    /// A member's group is so far.
    pub commit: Ref<RelayCommit>,
    /// A member can not deal with a record.
    pub nack: Ref<RelayNack>,
    /// What a group put aside.
    pub dead_letters: Ref<RelayListDeadLetters>,
    /// Opens its window.
    pub consumed: Ref<RelayConsumed>,
    /// Ends it.
    pub unsubscribe: Ref<RelayUnsubscribe>,
    /// Closes the link.
    pub close: Closer,
}

impl std::fmt::Debug for RelayLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayLink").finish_non_exhaustive()
    }
}

/// A client's end of the edge service.
#[derive(Clone)]
pub struct ClientLink {
    /// Takes deliveries.
    pub deliver: Ref<Deliver>,
    /// Hears that a subscription ended.
    pub ended: Ref<SubscriptionEnded>,
    /// Signs for what it took.
    pub countersign: Ref<Countersign>,
    /// Is told when a channel's producers are to stop, and to go on.
    pub flow: Ref<Flow>,
    /// Lets its requests through.
    pub permit: Permit,
    /// Closes the link.
    pub close: Closer,
}

impl std::fmt::Debug for ClientLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientLink").finish_non_exhaustive()
    }
}
