//! A session's subscriptions: feeds that start, are lost and start again, and what goes on to the client.

use std::time::Duration;

use pqcnet_actor::{Cx, Letter, On, Pause, Promise, Ref, Reply, TellError, TraceCx};
use pqcnet_crypto::NodeId;
use pqcnet_messages::edge::{
    Commit, Committed, Consumed, Countersign, Deliver, Flow, JoinGroup, Nack, Subscribe,
    Subscribed, SubscriptionEnded, Unsubscribe,
};
use pqcnet_messages::{Channel, Membership, Refusal, Series};

use super::requests::Request;
use super::{ASK_DEADLINE, ClientSession, MAX_SUBSCRIPTIONS, MAX_WINDOW, MAX_WINDOWS};
use crate::core::feed::Feed;
use crate::ingress::{
    FeedCommit, FeedConsumed, FeedCountersign, FeedTag, Forward, StartFeed, StopFeed,
};
use crate::uplink::{COUNTERSIGN_WITHIN, answer};

/// Pauses before a lost subscription is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How often a subscription that waits for a link looks whether its shard has moved away from there.
const MOVED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The relayer is asked, or will be once a session is open there.
    Starting,
    Running,
    /// Waits for the relayer's link.
    Unlinked,
    /// To be started again at that time.
    Pausing(Duration),
}

pub(super) struct Subscription {
    pub(super) channel: Channel,
    pub(super) relayer: NodeId,
    pub(super) window_bytes: u32,
    pub(super) series: Series,
    pub(super) feed: Feed,
    pub(super) tag: FeedTag,
    pub(super) phase: Phase,
    pub(super) pause: Pause,
    /// The client waits for the answer to its subscribe.
    pub(super) promise: Option<Answer>,
    /// It shares the channel with others. It is not started again: whoever has the channel then begins elsewhere.
    pub(super) membership: Option<Membership>,
}

/// Whom the first answer goes to.
pub(super) enum Answer {
    Subscribe(Promise<Subscribe>),
    Join(Promise<JoinGroup>),
}

impl Answer {
    fn fulfil(self, answer: Result<Subscribed, Refusal>) {
        match self {
            Answer::Subscribe(promise) => promise.fulfil(answer),
            Answer::Join(promise) => promise.fulfil(answer),
        }
    }
}

impl ClientSession {
    pub(super) fn start_feed(
        &mut self,
        relayer: NodeId,
        relay_session: u64,
        subscription: u32,
        cx: &mut Cx<Self>,
    ) {
        let (Some(uplink), Some(generation)) = (
            self.shared.uplinks.get(&relayer),
            self.routes.generation(&relayer),
        ) else {
            return self.on_feed_lost(subscription, Refusal::Unavailable, cx);
        };
        let Some(state) = self.subscriptions.get_mut(&subscription) else {
            return;
        };
        let after = state.feed.restart();
        let start = StartFeed {
            tag: state.tag,
            generation,
            relay_session,
            channel: state.channel.clone(),
            after,
            window_bytes: state.window_bytes,
            series: state.series,
            membership: state.membership.clone(),
        };
        let (tag, shard) = (state.tag, self.shared.map.shard_of(&state.channel));
        cx.ask(
            &uplink.start_feed,
            start,
            ASK_DEADLINE * 2,
            move |this, outcome, cx| {
                // A feed of a link that went meanwhile is no feed, whatever the answer was.
                let outcome = match this.routes.generation(&relayer) {
                    Some(current) if current == generation => {
                        this.outcome(relayer, relay_session, shard, outcome)
                    }
                    Some(_) | None => Err(Refusal::Unavailable),
                };
                this.on_feed_started(tag, after, outcome, cx);
            },
        );
    }

    fn on_feed_started(
        &mut self,
        tag: FeedTag,
        after: u64,
        outcome: Result<Subscribed, Refusal>,
        cx: &mut Cx<Self>,
    ) {
        let Some(subscription) = self.by_feed.get(&tag.feed).copied() else {
            return;
        };
        match outcome {
            Ok(subscribed) => {
                if let Some(state) = self.subscriptions.get_mut(&subscription) {
                    state.phase = Phase::Running;
                    state.pause.reset();
                    // The first records may have come before this answer.
                    if state.membership.is_none() && (after > 0 || state.promise.is_none()) {
                        self.replayed.add(subscribed.head.saturating_sub(after));
                    }
                    if let Some(promise) = state.promise.take() {
                        promise.fulfil(Ok(subscribed));
                    }
                }
            }
            Err(refusal) => self.on_feed_lost(subscription, refusal, cx),
        }
        self.drive(cx);
    }

    /// A subscription has no feed any more. The client hears of it when it waits for its first answer, or when trying
    /// again makes no sense; otherwise it is started again and the client sees nothing but a pause.
    pub(super) fn on_feed_lost(&mut self, subscription: u32, refusal: Refusal, cx: &mut Cx<Self>) {
        let Some(state) = self.subscriptions.get_mut(&subscription) else {
            return;
        };
        self.by_feed.remove(&state.tag.feed);
        if let Refusal::NotOwner(Some(redirect)) = refusal {
            let shard = self.shared.map.shard_of(&state.channel);
            self.shared.map.redirected(shard, redirect);
        }
        if let Some(promise) = state.promise.take() {
            self.subscriptions.remove(&subscription);
            promise.fulfil(Err(refusal));
        } else if !refusal.is_retryable() || state.membership.is_some() {
            self.subscriptions.remove(&subscription);
            self.ended.push_back(SubscriptionEnded {
                subscription,
                refusal,
            });
        } else if self.routes.generation(&state.relayer).is_none() {
            state.phase = Phase::Unlinked;
        } else {
            let random = rand::Rng::next_u64(cx.rng());
            state.phase = Phase::Pausing(state.pause.until(cx.now(), random));
        }
    }

    pub(super) fn begin(&mut self, subscription: u32, cx: &mut Cx<Self>) {
        let Some(state) = self.subscriptions.get_mut(&subscription) else {
            return;
        };
        // Its shard may have moved.
        state.relayer = self.shared.map.owner_of(&state.channel);
        self.last_feed += 1;
        state.tag.feed = self.last_feed;
        state.phase = Phase::Starting;
        self.by_feed.insert(self.last_feed, subscription);
        let channel = state.channel.clone();
        self.submit(&channel, Request::StartFeed(subscription), cx);
    }

    /// Starts what is due, sends what may go, re-arms the timer.
    pub(super) fn drive(&mut self, cx: &mut Cx<Self>) {
        let now = cx.now();
        let map = &self.shared.map;
        let is_due = |state: &Subscription| match state.phase {
            Phase::Pausing(at) => at <= now,
            Phase::Unlinked => map.owner_of(&state.channel) != state.relayer,
            Phase::Starting | Phase::Running => false,
        };
        let due: Vec<u32> = self
            .subscriptions
            .iter()
            .filter(|(_, state)| is_due(state))
            .map(|(subscription, _)| *subscription)
            .collect();
        for subscription in due {
            self.begin(subscription, cx);
        }
        self.flush(cx);
        let next = self
            .subscriptions
            .values()
            .filter_map(|state| match state.phase {
                Phase::Pausing(at) => Some(at),
                Phase::Unlinked => Some(now + MOVED),
                Phase::Starting | Phase::Running => None,
            });
        self.alarm.set(cx, next.min());
    }

    /// Sends to the client what its windows allow, one batch a subscription in turn, until the link has no credit.
    fn flush(&mut self, cx: &mut Cx<Self>) {
        while !self.blocked {
            let Some(deliver) = self.next_delivery() else {
                break;
            };
            let trace = match self.forwarding {
                Some(subscription) if subscription == deliver.subscription => cx.trace(),
                // What waited here came in another trace than the one that runs now.
                Some(_) | None => TraceCx::NONE,
            };
            match trace.scope(|| self.client.deliver.try_tell(deliver)) {
                Ok(()) => {}
                Err(TellError::Full(deliver)) => {
                    let to = self.client.deliver.clone();
                    trace.scope(|| self.wait_for_credit(to, deliver, cx));
                }
                Err(TellError::Closed(_)) => return cx.stop(),
            }
        }
        while !self.blocked
            && let Some(ended) = self.ended.pop_front()
        {
            match self.client.ended.try_tell(ended) {
                Ok(()) => {}
                Err(TellError::Full(ended)) => {
                    let to = self.client.ended.clone();
                    self.wait_for_credit(to, ended, cx);
                }
                Err(TellError::Closed(_)) => return cx.stop(),
            }
        }
    }

    fn next_delivery(&mut self) -> Option<Deliver> {
        let behind = self.subscriptions.range(self.turn.saturating_add(1)..);
        let before = self.subscriptions.range(..=self.turn);
        let mut ready = behind.chain(before).filter(|(_, s)| s.feed.is_ready());
        let subscription = *ready.next()?.0;
        self.turn = subscription;
        let records = self
            .subscriptions
            .get_mut(&subscription)?
            .feed
            .next_batch()?;
        Some(Deliver {
            subscription,
            records,
        })
    }

    fn wait_for_credit<M: pqcnet_actor::Message>(
        &mut self,
        to: Ref<M>,
        message: M,
        cx: &mut Cx<Self>,
    ) {
        self.blocked = true;
        // Made now, in the trace of the delivery.
        let letter = Letter::tell(message);
        cx.spawn(
            async move { to.post_when_free(letter).await.is_ok() },
            |this, sent, cx| {
                this.blocked = false;
                if sent {
                    this.drive(cx);
                } else {
                    cx.stop();
                }
            },
        );
    }

    fn stop_feed(&self, relayer: &NodeId, tag: FeedTag, cx: &mut Cx<Self>) {
        let Some(uplink) = self.shared.uplinks.get(relayer) else {
            return;
        };
        if let Err(TellError::Full(stop)) = uplink.stop_feed.try_tell(StopFeed { tag }) {
            let to = uplink.stop_feed.clone();
            cx.spawn(async move { to.tell(stop).await.is_ok() }, |_, _, _| {});
        }
    }
}

impl ClientSession {
    /// Whether one more subscription has a place.
    fn may_subscribe(&self, msg: &Subscribe) -> Result<(), Refusal> {
        if self.grant.is_none() {
            return Err(Refusal::UnknownSession);
        }
        if self.subscriptions.contains_key(&msg.subscription) {
            let detail = "the subscription number is in use".to_owned();
            return Err(Refusal::Invalid(detail));
        }
        let windows = self.subscriptions.values().map(|s| s.window_bytes as usize);
        if msg.window_bytes as usize > MAX_WINDOW
            || windows.sum::<usize>() + msg.window_bytes as usize > MAX_WINDOWS
            || self.subscriptions.len() + self.ended.len() >= MAX_SUBSCRIPTIONS
        {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        msg: Subscribe,
        membership: Option<Membership>,
        promise: Answer,
        cx: &mut Cx<Self>,
    ) {
        let feed = Feed::new(msg.after, msg.window_bytes as usize);
        let feed = match &membership {
            Some(_) => feed.floating(),
            None => feed,
        };
        let state = Subscription {
            relayer: self.shared.map.owner_of(&msg.channel),
            channel: msg.channel,
            window_bytes: msg.window_bytes,
            series: msg.series,
            feed,
            tag: FeedTag {
                session: self.id,
                feed: 0,
            },
            phase: Phase::Starting,
            pause: Pause::new(PAUSE.0, PAUSE.1),
            promise: Some(promise),
            membership,
        };
        self.subscriptions.insert(msg.subscription, state);
        self.begin(msg.subscription, cx);
    }

    /// A member's word goes to whoever has the channel's shard, for as long as it has the subscription.
    fn commit<M>(
        &mut self,
        subscription: u32,
        (offset, aside): (u64, bool),
        cx: &mut Cx<Self>,
    ) -> Reply<M>
    where
        M: pqcnet_actor::Message<Reply = Result<Committed, Refusal>>,
    {
        let state = self.subscriptions.get(&subscription);
        let Some(state) = state.filter(|state| state.membership.is_some()) else {
            return Reply::Now(Err(Refusal::Reassigned));
        };
        let Some(uplink) = self.shared.uplinks.get(&state.relayer) else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let tag = state.tag;
        let commit = FeedCommit { tag, offset, aside };
        let (promise, later) = Reply::later();
        cx.ask(
            &uplink.commit,
            commit,
            ASK_DEADLINE,
            move |_, outcome, _| {
                promise.fulfil(answer(outcome));
            },
        );
        later
    }
}

impl On<Subscribe> for ClientSession {
    fn on(&mut self, msg: Subscribe, cx: &mut Cx<Self>) -> Reply<Subscribe> {
        if let Err(refusal) = self.may_subscribe(&msg) {
            return Reply::Now(Err(refusal));
        }
        let (promise, later) = Reply::later();
        self.subscribe(msg, None, Answer::Subscribe(promise), cx);
        later
    }
}

impl On<JoinGroup> for ClientSession {
    fn on(&mut self, msg: JoinGroup, cx: &mut Cx<Self>) -> Reply<JoinGroup> {
        let subscribe = Subscribe {
            subscription: msg.subscription,
            channel: msg.channel,
            after: msg.after,
            window_bytes: msg.window_bytes,
            series: msg.series,
        };
        if let Err(refusal) = self.may_subscribe(&subscribe) {
            return Reply::Now(Err(refusal));
        }
        let (promise, later) = Reply::later();
        self.subscribe(subscribe, Some(msg.membership), Answer::Join(promise), cx);
        later
    }
}

impl On<Commit> for ClientSession {
    fn on(&mut self, msg: Commit, cx: &mut Cx<Self>) -> Reply<Commit> {
        self.commit(msg.subscription, (msg.offset, false), cx)
    }
}

impl On<Nack> for ClientSession {
    fn on(&mut self, msg: Nack, cx: &mut Cx<Self>) -> Reply<Nack> {
        self.commit(msg.subscription, (msg.offset, true), cx)
    }
}

/// On to the client: it is told as far as its link takes it, and told again when it publishes into the pause.
impl On<Flow> for ClientSession {
    fn on(&mut self, msg: Flow, cx: &mut Cx<Self>) -> Reply<Flow> {
        match self.client.flow.try_tell(msg) {
            Ok(()) | Err(TellError::Closed(_)) => {}
            Err(TellError::Full(msg)) => {
                if msg.paused.is_none() {
                    let to = self.client.flow.clone();
                    cx.spawn(async move { to.tell(msg).await.is_ok() }, |_, _, _| {});
                }
            }
        }
        Reply::Now(())
    }
}

impl On<Consumed> for ClientSession {
    fn on(&mut self, msg: Consumed, cx: &mut Cx<Self>) -> Reply<Consumed> {
        if let Some(state) = self.subscriptions.get_mut(&msg.subscription)
            && let Some(offset) = state.feed.on_consumed(msg.offset)
            && let Some(uplink) = self.shared.uplinks.get(&state.relayer)
        {
            let tag = state.tag;
            let consumed = FeedConsumed { tag, offset };
            if let Err(TellError::Full(consumed)) = uplink.consumed.try_tell(consumed) {
                let to = uplink.consumed.clone();
                cx.spawn(async move { to.tell(consumed).await.is_ok() }, |_, _, _| {});
            }
        }
        self.drive(cx);
        Reply::Now(())
    }
}

impl On<Unsubscribe> for ClientSession {
    fn on(&mut self, msg: Unsubscribe, cx: &mut Cx<Self>) -> Reply<Unsubscribe> {
        if let Some(state) = self.subscriptions.remove(&msg.subscription) {
            self.by_feed.remove(&state.tag.feed);
            self.stop_feed(&state.relayer, state.tag, cx);
            if let Some(promise) = state.promise {
                promise.fulfil(Err(Refusal::Draining));
            }
        }
        Reply::Now(())
    }
}

impl On<Forward> for ClientSession {
    fn on(&mut self, msg: Forward, cx: &mut Cx<Self>) -> Reply<Forward> {
        // What an ended feed still had under way is for nobody.
        let Some(subscription) = self.by_feed.get(&msg.tag.feed).copied() else {
            return Reply::Now(());
        };
        let Some(state) = self.subscriptions.get_mut(&subscription) else {
            return Reply::Now(());
        };
        if let Err(fault) = state.feed.on_records(msg.records) {
            let relayer = state.relayer;
            tracing::error!(%relayer, ?fault, "a relayer's delivery is refused");
            let tag = state.tag;
            self.stop_feed(&relayer, tag, cx);
            self.on_feed_lost(subscription, Refusal::Unavailable, cx);
        } else if let Some(refusal) = msg.ended {
            self.on_feed_lost(subscription, refusal, cx);
        }
        self.forwarding = Some(subscription);
        self.drive(cx);
        self.forwarding = None;
        Reply::Now(())
    }
}

impl On<FeedCountersign> for ClientSession {
    fn on(&mut self, msg: FeedCountersign, cx: &mut Cx<Self>) -> Reply<FeedCountersign> {
        let Some(subscription) = self.by_feed.get(&msg.tag.feed).copied() else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let ask = Countersign {
            subscription,
            relayer: msg.relayer,
            window: msg.window,
        };
        let to = self.client.countersign.clone();
        let (promise, later) = Reply::later();
        cx.ask(&to, ask, COUNTERSIGN_WITHIN, move |_, outcome, _| {
            promise.fulfil(answer(outcome));
        });
        later
    }
}
