//! Subscribers' links: what goes out over each, and what waits for its room.

use std::time::Duration;

use pqcnet_actor::{Cx, Letter, On, Ref, Reply, TellError, TraceCx};
use pqcnet_log::ChannelId;
use pqcnet_messages::Record;
use pqcnet_messages::edge::Subscribed;
use pqcnet_messages::relay::{RelayCountersign, RelayDeliver, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{Consume, Follow, Unfollow};

use super::ShardWorker;
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
                    worker.on_told(link, sent);
                    worker.drive(cx);
                });
            }
            Err(TellError::Closed(_)) => self.drop_link(link),
        }
    }

    /// A message that waited is on its way, or never will be.
    pub(super) fn on_told(&mut self, link: u64, sent: bool) {
        if !sent {
            return self.drop_link(link);
        }
        if let Some(state) = self.links.get_mut(&link) {
            state.waiting = state.waiting.saturating_sub(1);
            if state.waiting == 0 {
                self.core.link_ready(link);
            }
        }
    }

    pub(super) fn drop_link(&mut self, link: u64) {
        self.core.drop_link(link);
        self.links.remove(&link);
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
        let subscribed = self.core.subscribe(
            key,
            msg.customer,
            &msg.channel,
            msg.after,
            window,
            msg.series,
        );
        if subscribed.is_ok() && !self.links.contains_key(&link) {
            cx.watch(&msg.deliver, move |worker, _, cx| {
                worker.drop_link(link);
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
        self.core
            .unsubscribe(SubscriptionKey { link, subscription });
        self.drive(cx);
        Reply::Now(())
    }
}
