//! What members of consumer groups ask, on its way to their shard's worker.

use pqcnet_actor::{Cx, Message, On, Reply};
use pqcnet_messages::Refusal;
use pqcnet_messages::relay::{
    RelayCommit, RelayJoinGroup, RelayListDeadLetters, RelayNack, RelaySubscribe,
};
use pqcnet_messages::relay_local::{CommitOffset, DescribeDead, PutAside};

use super::Intake;
use crate::ShardWorker;

impl On<RelayJoinGroup> for Intake {
    fn on(&mut self, msg: RelayJoinGroup, cx: &mut Cx<Self>) -> Reply<RelayJoinGroup> {
        let RelayJoinGroup {
            session,
            subscription,
            channel,
            after,
            window_bytes,
            series,
            membership,
        } = msg;
        let subscribe = RelaySubscribe {
            session,
            subscription,
            channel,
            after,
            window_bytes,
            series,
        };
        self.follow(subscribe, Some(membership), cx)
    }
}

/// A member of a group has its shard with its subscription.
impl Intake {
    fn of_member<M, W, T>(
        &mut self,
        (session, subscription): (u64, u32),
        request: impl FnOnce(u64) -> W,
        cx: &mut Cx<Self>,
    ) -> Reply<M>
    where
        M: Message<Reply = Result<T, Refusal>>,
        W: Message<Reply = Result<T, Refusal>>,
        ShardWorker: On<W>,
        T: Send + 'static,
    {
        if self.draining {
            return Reply::Now(Err(Refusal::Draining));
        }
        let current = self.subscriptions.get(&subscription);
        let Some(found) = current.filter(|s| s.session == session) else {
            return Reply::Now(Err(Refusal::Reassigned));
        };
        let Some(worker) = self.config.domain.workers.get(&found.shard).cloned() else {
            return Reply::Now(Err(Refusal::Unavailable));
        };
        let request = request(self.config.link);
        self.forward(&worker.of(), request, cx)
    }
}

impl On<RelayCommit> for Intake {
    fn on(&mut self, msg: RelayCommit, cx: &mut Cx<Self>) -> Reply<RelayCommit> {
        let RelayCommit {
            session,
            subscription,
            offset,
        } = msg;
        let commit = |link| CommitOffset {
            link,
            subscription,
            offset,
        };
        self.of_member((session, subscription), commit, cx)
    }
}

impl On<RelayNack> for Intake {
    fn on(&mut self, msg: RelayNack, cx: &mut Cx<Self>) -> Reply<RelayNack> {
        let RelayNack {
            session,
            subscription,
            offset,
        } = msg;
        let aside = |link| PutAside {
            link,
            subscription,
            offset,
        };
        self.of_member((session, subscription), aside, cx)
    }
}

impl On<RelayListDeadLetters> for Intake {
    fn on(&mut self, msg: RelayListDeadLetters, cx: &mut Cx<Self>) -> Reply<RelayListDeadLetters> {
        let RelayListDeadLetters {
            session,
            channel,
            group,
            discard,
            remove,
        } = msg;
        match self.route(session, &channel, cx.wall_ms()) {
            Ok((customer, _, worker)) => {
                let describe = DescribeDead {
                    customer,
                    channel,
                    group,
                    discard,
                    remove,
                };
                self.forward(&worker.of(), describe, cx)
            }
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}
