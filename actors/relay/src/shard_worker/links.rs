//! Subscribers' links: what goes out over each, and what waits for its room.

use std::time::Duration;

use pqcnet_actor::{Cx, Letter, On, Ref, Reply, TellError, TraceCx};
use pqcnet_log::ChannelId;
use pqcnet_messages::edge::Subscribed;
use pqcnet_messages::relay::{RelayCountersign, RelayDeliver, RelayFlow, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{Consume, Follow, Publisher, Unfollow};
use pqcnet_messages::{Channel, Membership, Record};

use super::ShardWorker;
use crate::core::flow::{Listener, Signal};
use crate::core::groups::{GroupKey, Joining};
use crate::core::subscription::SubscriptionKey;

pub(super) struct Link {
    pub(super) deliver: Ref<RelayDeliver>,
    pub(super) ended: Ref<RelaySubscriptionEnded>,
    pub(super) countersign: Option<Ref<RelayCountersign>>,
    /// Messages that wait for room. The link is ready again only when none does, or one could be overtaken.
    pub(super) waiting: usize,
}

impl ShardWorker {
    /// Sends over a link, or waits for its room and gives it nothing else meanwhile.
    pub(super) fn send<M: pqcnet_actor::Message>(
        &mut self,
        link: u64,
        to: Option<Ref<M>>,
        message: M,
        cx: &mut Cx<Self>,
    ) {
        let Some(to) = to else {
            return; // the link went down while this was on its way
        };
        match to.try_tell(message) {
            Ok(()) => {}
            Err(TellError::Full(message)) => {
                self.core.link_blocked(link);
                if let Some(link) = self.links.get_mut(&link) {
                    link.waiting += 1;
                }
                // Made now, under the trace of the delivery.
                let letter = Letter::tell(message);
                let telling = async move { to.post_when_free(letter).await.is_ok() };
                cx.spawn(telling, move |worker, sent, cx| {
                    worker.on_told(link, sent, cx);
                    worker.drive(cx);
                });
            }
            Err(TellError::Closed(_)) => self.drop_link(link, cx),
        }
    }

    /// A message that waited is on its way, or never will be.
    pub(super) fn on_told(&mut self, link: u64, sent: bool, cx: &Cx<Self>) {
        if !sent {
            return self.drop_link(link, cx);
        }
        if let Some(state) = self.links.get_mut(&link) {
            state.waiting = state.waiting.saturating_sub(1);
            if state.waiting == 0 {
                self.core.link_ready(link);
            }
        }
    }

    pub(super) fn drop_link(&mut self, link: u64, cx: &Cx<Self>) {
        self.core.drop_link((cx.now(), cx.wall_ms()), link);
        self.links.remove(&link);
        self.publishers.remove(&link);
    }

    /// Remembers where a publisher is told to stop.
    pub(super) fn listens(&mut self, publisher: Publisher) -> Listener {
        let Publisher {
            link,
            session,
            flow,
        } = publisher;
        self.publishers.entry(link).or_insert(flow);
        Listener { link, session }
    }

    /// Tells a publisher to stop, or to go on.
    pub(super) fn signal(&mut self, signal: Signal, channel: Channel, cx: &mut Cx<Self>) {
        let Signal { to, paused, .. } = signal;
        let Some(flow) = self.publishers.get(&to.link) else {
            return; // its link went down
        };
        tracing::debug!(shard = self.shard.0, %channel, ?paused, "producers are told");
        if paused.is_some() {
            self.meters.pauses.add(1);
        }
        let session = to.session;
        let message = RelayFlow {
            session,
            channel,
            paused,
        };
        match flow.try_tell(message) {
            Ok(()) => {}
            // It is told when it publishes again.
            Err(TellError::Full(_)) if paused.is_some() => self.core.untold(signal),
            Err(TellError::Full(message)) => {
                let flow = flow.clone();
                cx.spawn(
                    async move { flow.tell(message).await.is_ok() },
                    |_, _, _| {},
                );
            }
            Err(TellError::Closed(_)) => {
                self.publishers.remove(&to.link);
            }
        }
    }

    /// Counts a delivery, and finds the trace that it goes on with.
    pub(super) fn delivering(
        &self,
        channel: &ChannelId,
        records: &[Record],
        late: bool,
        cx: &Cx<Self>,
    ) -> TraceCx {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return TraceCx::NONE;
        };
        if !late {
            let took = cx.wall_ms().saturating_sub(last.published_at_ms);
            self.meters.delivery.observe(Duration::from_millis(took));
        }
        self.traces.of(channel, first.offset..=last.offset)
    }
}

impl On<Follow> for ShardWorker {
    fn on(&mut self, msg: Follow, cx: &mut Cx<Self>) -> Reply<Follow> {
        let (link, subscription) = (msg.link, msg.subscription);
        let key = SubscriptionKey { link, subscription };
        let window = msg.window_bytes;
        let subscribed = match msg.membership {
            None => self.core.subscribe(
                key,
                msg.customer,
                &msg.channel,
                msg.after,
                window,
                msg.series,
            ),
            Some(Membership { group, member }) => {
                let of = GroupKey {
                    customer: msg.customer,
                    name: group,
                };
                let joining = Joining {
                    key,
                    member,
                    after: msg.after,
                    window: window as usize,
                    series: msg.series,
                };
                self.core.join(cx.now(), &msg.channel, of, joining)
            }
        };
        if subscribed.is_ok() && !self.links.contains_key(&link) {
            cx.watch(&msg.deliver, move |worker, _, cx| {
                worker.drop_link(link, cx);
                worker.drive(cx);
            });
            let (deliver, ended) = (msg.deliver, msg.ended);
            self.links.insert(
                link,
                Link {
                    deliver,
                    ended,
                    countersign: msg.countersign,
                    waiting: 0,
                },
            );
        }
        self.drive(cx);
        Reply::Now(subscribed.map(|head| Subscribed { head }))
    }
}

impl On<Consume> for ShardWorker {
    fn on(&mut self, msg: Consume, cx: &mut Cx<Self>) -> Reply<Consume> {
        let (link, subscription) = (msg.link, msg.subscription);
        self.core
            .consumed(SubscriptionKey { link, subscription }, msg.offset);
        self.drive(cx);
        Reply::Now(())
    }
}

impl On<Unfollow> for ShardWorker {
    fn on(&mut self, msg: Unfollow, cx: &mut Cx<Self>) -> Reply<Unfollow> {
        let (link, subscription) = (msg.link, msg.subscription);
        let key = SubscriptionKey { link, subscription };
        self.core.unsubscribe((cx.now(), cx.wall_ms()), key);
        self.drive(cx);
        Reply::Now(())
    }
}
