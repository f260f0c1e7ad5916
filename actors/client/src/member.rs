//! Reading a channel together with the other members of a group.

use pqcnet_actor::Ref;
use pqcnet_messages::edge::{Commit, Committed, Nack};
use pqcnet_messages::{Record, Refusal};

use crate::connection::Edge;
use crate::error::{RequestError, SubscribeError};
use crate::subscription::Subscription;

/// One member of a consumer group, for one channel.
///
/// The network gives a channel to one member at a time, from the group's last commit on: what one had and did not commit
/// comes again, to it or to another. So every record is dealt with at least once. Members of one group that join several
/// channels share those among them; who comes or goes moves as few as can be.
#[derive(Debug)]
pub struct Member {
    subscription: Subscription,
}

impl Member {
    pub(crate) fn new(subscription: Subscription) -> Member {
        Member { subscription }
    }

    /// Waits for the next record; while another member has the channel, there is none. After one with a lower offset than the
    /// last one's, or one that is not its next, this member was given the channel anew.
    ///
    /// # Errors
    /// The membership has ended; what had arrived before is handed out first.
    pub async fn next(&mut self) -> Result<Record, SubscribeError> {
        self.subscription.next().await
    }

    /// The next record if it has arrived.
    pub fn try_next(&mut self) -> Option<Record> {
        self.subscription.try_next()
    }

    /// The group is done with everything up to `offset`. Returns how far it is when that is durable.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with [`Refusal::Reassigned`]: another member has the channel by now, and gets what was not
    /// committed. Any other error leaves open whether it is committed; it may be tried again.
    pub async fn commit(&self, offset: u64) -> Result<u64, RequestError> {
        let commit = |subscription| Commit {
            subscription,
            offset,
        };
        self.ask(commit, |edge| edge.commit.clone()).await
    }

    /// A record that can not be dealt with is put aside, durably: `Client::dead_letters` lists it. It is committed like any
    /// other.
    ///
    /// # Errors
    /// As of [`Member::commit`]; [`Refusal::Quota`] when as many are put aside as may be; [`Refusal::Unavailable`] while a relayer's broker
    /// is away, for its log is copied from there: nothing is put aside then, and it may be tried again.
    pub async fn refuse(&self, offset: u64) -> Result<(), RequestError> {
        let nack = |subscription| Nack {
            subscription,
            offset,
        };
        self.ask(nack, |edge| edge.nack.clone()).await.map(|_| ())
    }

    async fn ask<M>(
        &self,
        message: impl FnOnce(u32) -> M,
        to: fn(&Edge) -> Ref<M>,
    ) -> Result<u64, RequestError>
    where
        M: pqcnet_actor::Message<Reply = Result<Committed, Refusal>>,
    {
        let Some((subscription, live)) = self.subscription.served() else {
            return Err(RequestError::Refused(Refusal::Reassigned));
        };
        let within = self.subscription.client().shared().config.request_timeout;
        let answer = to(&live.edge).ask(message(subscription), within).await;
        let committed = answer.map_err(RequestError::Unanswered)?;
        committed
            .map(|committed| committed.offset)
            .map_err(RequestError::Refused)
    }
}
