//! The subscriptions of one uplink: opened at the relayer for a session's feed, delivered into its outbox, committed,
//! countersigned, ended.

use pqcnet_actor::{AskError, Cx, On, Promise, Reply};
use pqcnet_messages::Refusal;
use pqcnet_messages::edge::{Committed, Subscribed};
use pqcnet_messages::relay::{
    RelayCommit, RelayConsumed, RelayCountersign, RelayDeliver, RelayJoinGroup, RelayNack,
    RelaySubscribe, RelaySubscriptionEnded, RelayUnsubscribe,
};

use super::{ASK_DEADLINE, COUNTERSIGN_WITHIN, Feed, Uplink, answer, current, send_when_free};
use crate::core::outbox::{Parcel, allowance};
use crate::ingress::{FeedCommit, FeedConsumed, FeedCountersign, FeedTag, StartFeed, StopFeed};

impl Uplink {
    pub(super) fn stop_feed(&mut self, tag: FeedTag, cx: &mut Cx<Self>) {
        let Some(subscription) = self.by_tag.get(&tag).copied() else {
            return;
        };
        if let (Some((_, link)), Some(feed)) = (&self.link, self.feeds.get(&subscription)) {
            let session = feed.relay_session;
            let message = RelayUnsubscribe {
                session,
                subscription,
            };
            send_when_free(&link.unsubscribe, message, cx);
        }
        self.forget_feed(subscription);
    }

    pub(super) fn forget_feed(&mut self, subscription: u32) {
        let Some(feed) = self.feeds.remove(&subscription) else {
            return;
        };
        self.by_tag.remove(&feed.tag);
        if let Some(member) = self.members.get_mut(&feed.tag.session) {
            member.outbox.narrow(subscription, allowance(feed.window));
        }
    }

    /// What arrives for a subscription that ended here meanwhile is dropped: nobody waits for it.
    fn deliver(&mut self, parcel: Parcel, cx: &mut Cx<Self>) {
        let Some(feed) = self.feeds.get(&parcel.subscription) else {
            return;
        };
        let session = feed.tag.session;
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if member.outbox.push(parcel).is_err() {
            tracing::warn!(relayer = %self.relayer, "relayer exceeds its windows: link closed");
            if let Some((_, link)) = &self.link {
                (link.close)();
            }
            return;
        }
        self.pump(session, cx);
    }

    pub(super) fn next_subscription(&mut self) -> u32 {
        loop {
            self.last_subscription = self.last_subscription.wrapping_add(1);
            if !self.feeds.contains_key(&self.last_subscription) {
                return self.last_subscription;
            }
        }
    }
}

impl On<StartFeed> for Uplink {
    fn on(&mut self, msg: StartFeed, cx: &mut Cx<Self>) -> Reply<StartFeed> {
        let Some(link) = current(&self.link, msg.generation) else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let Some(member) = self.members.get_mut(&msg.tag.session) else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let tag = msg.tag;
        let window = msg.window_bytes as usize;
        member.outbox.widen(allowance(window));
        let subscription = self.next_subscription();
        let feed = Feed {
            tag,
            relay_session: msg.relay_session,
            window,
        };
        self.feeds.insert(subscription, feed);
        self.by_tag.insert(tag, subscription);
        let (promise, later): (Promise<StartFeed>, _) = Reply::later();
        let started = move |uplink: &mut Self, outcome: Result<Subscribed, Refusal>, cx: &mut _| {
            if outcome.is_err() {
                // After a timeout the relayer may have it all the same.
                uplink.stop_feed(tag, cx);
            }
            promise.fulfil(outcome);
        };
        let StartFeed {
            relay_session: session,
            channel,
            after,
            window_bytes,
            series,
            membership,
            ..
        } = msg;
        match membership {
            None => {
                let subscribe = RelaySubscribe {
                    session,
                    subscription,
                    channel,
                    after,
                    window_bytes,
                    series,
                };
                cx.ask(
                    &link.subscribe,
                    subscribe,
                    ASK_DEADLINE,
                    move |uplink, outcome, cx| started(uplink, answer(outcome), cx),
                );
            }
            Some(membership) => {
                let join = RelayJoinGroup {
                    session,
                    subscription,
                    channel,
                    after,
                    window_bytes,
                    series,
                    membership,
                };
                cx.ask(
                    &link.join_group,
                    join,
                    ASK_DEADLINE,
                    move |uplink, outcome, cx| {
                        let outcome = match outcome {
                            // A relayer of an earlier release: no other try will help.
                            Err(AskError::Refused(words)) => Err(Refusal::Invalid(words)),
                            outcome => answer(outcome),
                        };
                        started(uplink, outcome, cx);
                    },
                );
            }
        }
        later
    }
}

impl On<FeedConsumed> for Uplink {
    fn on(&mut self, msg: FeedConsumed, cx: &mut Cx<Self>) -> Reply<FeedConsumed> {
        if let (Some((_, link)), Some(subscription)) = (&self.link, self.by_tag.get(&msg.tag))
            && let Some(feed) = self.feeds.get(subscription)
        {
            let message = RelayConsumed {
                session: feed.relay_session,
                subscription: *subscription,
                offset: msg.offset,
            };
            send_when_free(&link.consumed, message, cx);
        }
        Reply::Now(())
    }
}

impl On<FeedCommit> for Uplink {
    fn on(&mut self, msg: FeedCommit, cx: &mut Cx<Self>) -> Reply<FeedCommit> {
        let subscription = self.by_tag.get(&msg.tag).copied();
        let feed = subscription.and_then(|subscription| {
            let feed = self.feeds.get(&subscription)?;
            Some((subscription, feed.relay_session))
        });
        let (Some((subscription, session)), Some((_, link))) = (feed, self.link.clone()) else {
            return Reply::Now(Err(Refusal::Reassigned));
        };
        let (promise, later): (Promise<FeedCommit>, _) = Reply::later();
        let offset = msg.offset;
        type Outcome = Result<Result<Committed, Refusal>, AskError>;
        let answered = move |_: &mut Self, outcome: Outcome, _: &mut Cx<Self>| {
            promise.fulfil(answer(outcome));
        };
        if msg.aside {
            let nack = RelayNack {
                session,
                subscription,
                offset,
            };
            cx.ask(&link.nack, nack, ASK_DEADLINE, answered);
        } else {
            let commit = RelayCommit {
                session,
                subscription,
                offset,
            };
            cx.ask(&link.commit, commit, ASK_DEADLINE, answered);
        }
        later
    }
}

impl On<StopFeed> for Uplink {
    fn on(&mut self, msg: StopFeed, cx: &mut Cx<Self>) -> Reply<StopFeed> {
        self.stop_feed(msg.tag, cx);
        Reply::Now(())
    }
}

impl On<RelayDeliver> for Uplink {
    fn on(&mut self, msg: RelayDeliver, cx: &mut Cx<Self>) -> Reply<RelayDeliver> {
        let parcel = Parcel {
            subscription: msg.subscription,
            records: msg.records,
            ended: None,
            trace: cx.trace(),
        };
        self.deliver(parcel, cx);
        Reply::Now(())
    }
}

impl On<RelaySubscriptionEnded> for Uplink {
    fn on(
        &mut self,
        msg: RelaySubscriptionEnded,
        cx: &mut Cx<Self>,
    ) -> Reply<RelaySubscriptionEnded> {
        let parcel = Parcel {
            subscription: msg.subscription,
            records: Vec::new(),
            ended: Some(msg.refusal),
            trace: cx.trace(),
        };
        self.deliver(parcel, cx);
        Reply::Now(())
    }
}

impl On<RelayCountersign> for Uplink {
    fn on(&mut self, msg: RelayCountersign, cx: &mut Cx<Self>) -> Reply<RelayCountersign> {
        let feed = self.feeds.get(&msg.subscription);
        let member = feed.and_then(|feed| self.members.get(&feed.tag.session));
        let (Some(feed), Some(member)) = (feed, member) else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let ask = FeedCountersign {
            tag: feed.tag,
            relayer: self.relayer,
            window: msg.window,
        };
        let to = member.countersign.clone();
        let (promise, later) = Reply::later();
        cx.ask(&to, ask, COUNTERSIGN_WITHIN, move |_, outcome, _| {
            promise.fulfil(answer(outcome));
        });
        later
    }
}
