//! What members of consumer groups ask.

use pqcnet_actor::{Cx, On, Reply};
use pqcnet_messages::Refusal;
use pqcnet_messages::relay_local::{CommitOffset, DescribeDead, PutAside};

use super::ShardWorker;
use super::answers::Waiting;
use super::duty::Duty;
use crate::core::channel::channel_id;
use crate::core::subscription::SubscriptionKey;

impl On<CommitOffset> for ShardWorker {
    fn on(&mut self, msg: CommitOffset, cx: &mut Cx<Self>) -> Reply<CommitOffset> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (promise, reply) = Reply::later();
        let (link, subscription) = (msg.link, msg.subscription);
        let key = SubscriptionKey { link, subscription };
        self.core
            .commit(cx.now(), key, msg.offset, Waiting::Commit(promise));
        self.drive(cx);
        reply
    }
}

impl On<PutAside> for ShardWorker {
    fn on(&mut self, msg: PutAside, cx: &mut Cx<Self>) -> Reply<PutAside> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (promise, reply) = Reply::later();
        let (link, subscription) = (msg.link, msg.subscription);
        let key = SubscriptionKey { link, subscription };
        if self.log.keeps_letters() {
            match self.core.may_put_aside(key, msg.offset) {
                Ok(channel) => self.copy_for_member(channel, (key, msg.offset), promise, cx),
                Err(refusal) => promise.fulfil(Err(refusal)),
            }
            return reply;
        }
        let now = (cx.now(), cx.wall_ms());
        self.core
            .put_aside(now, key, msg.offset, Waiting::Aside(promise));
        self.drive(cx);
        reply
    }
}

impl On<DescribeDead> for ShardWorker {
    fn on(&mut self, msg: DescribeDead, cx: &mut Cx<Self>) -> Reply<DescribeDead> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (promise, reply) = Reply::later();
        let whose = (msg.customer, &msg.channel);
        let of = (channel_id(&msg.channel), msg.discard > 0 || msg.remove);
        let waiting = Waiting::Dead(of, promise);
        self.core.dead_letters(
            cx.now(),
            whose,
            msg.group,
            (msg.discard, msg.remove),
            waiting,
        );
        self.drive(cx);
        reply
    }
}
