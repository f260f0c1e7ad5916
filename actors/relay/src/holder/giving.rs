//! The side of the relayer that has a shard which is to be another's.

use std::time::Duration;

use pqcnet_actor::{AskError, Cx, Message, On, Promise, Ref, Reply};
use pqcnet_crypto::NodeId;
use pqcnet_messages::moving::{FenceShard, Held, ReadShard, ShardHeld, SurveyShard};
use pqcnet_messages::relay::{ReleaseShard, ShardReleased};
use pqcnet_messages::relay_local::{Fence, Rest};
use pqcnet_messages::{Refusal, ShardId};

use super::{Holder, PAUSE};
use crate::ShardWorker;
use crate::core::tenure::Asked;
use crate::envoy::By;

/// What was admitted is stored by then; a disk that takes longer keeps its shard.
const REST_WITHIN: Duration = Duration::from_secs(10);
/// A read of the log for the next owner.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// A shard that is fenced is stored in again when the one that it is fenced for says nothing for so long, or is not done after so long.
const FENCED_FOR: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// A shard in which nothing more is stored, unless its next owner gives up.
pub(super) struct Fenced {
    to: NodeId,
    since: Duration,
    until: Duration,
    at_most: Duration,
}

impl Holder {
    /// Whether a peer may be shown a shard, and its worker.
    fn shown(
        &mut self,
        shard: ShardId,
        asker: NodeId,
        map_version: u64,
        cx: &mut Cx<Self>,
    ) -> Result<pqcnet_actor::Addr<ShardWorker>, Refusal> {
        match self.tenure.asked(shard, asker, map_version) {
            Asked::Begin => {}
            // It is there, and need only ask for it.
            Asked::Done { .. } => return Err(Refusal::Unavailable),
            Asked::Refuse(refusal) => return Err(refusal),
        }
        let now = cx.now();
        if let Some(fenced) = self.fences.get_mut(&shard) {
            fenced.until = (now + FENCED_FOR.0).min(fenced.at_most);
            self.watch_fences(cx);
        }
        let worker = self.config.workers.get(&shard).cloned();
        worker.ok_or(Refusal::NotOwner(None))
    }

    /// Passes a request of the next owner to the worker, and its answer back.
    fn show_to<M, T>(&mut self, to: &Ref<M>, request: M, cx: &mut Cx<Self>) -> Reply<By<M>>
    where
        M: Message<Reply = Result<T, Refusal>>,
        T: Send + 'static,
    {
        let (promise, reply) = Reply::later();
        cx.ask(to, request, SHOWN_WITHIN, move |_, answer, _| {
            promise.fulfil(match answer {
                Ok(answer) => answer,
                Err(AskError::Busy) => Err(Refusal::Busy),
                Err(_) => Err(Refusal::Unavailable),
            });
        });
        reply
    }

    fn fence(
        &mut self,
        shard: ShardId,
        asker: NodeId,
        worker: &Ref<Fence>,
        promise: Promise<By<FenceShard>>,
        cx: &mut Cx<Self>,
    ) {
        let now = cx.now();
        let at_most = now + FENCED_FOR.1;
        let until = at_most.min(now + FENCED_FOR.0 + REST_WITHIN);
        let fenced = Fenced {
            to: asker,
            since: now,
            until,
            at_most,
        };
        self.fences.insert(shard, fenced);
        self.tenure.leave(shard, asker);
        self.show();
        self.watch_fences(cx);
        cx.ask(
            worker,
            Fence,
            REST_WITHIN,
            move |holder, settled: Result<Result<(), Refusal>, AskError>, cx| {
                let settled = settled.unwrap_or(Err(Refusal::Unavailable));
                if let Err(refusal) = &settled {
                    tracing::debug!(%shard, %asker, %refusal, "a shard is not fenced");
                    holder.stays(shard);
                }
                holder.watch_fences(cx);
                promise.fulfil(settled);
            },
        );
    }

    /// A shard that was on its way to somebody stays.
    fn stays(&mut self, shard: ShardId) {
        self.fences.remove(&shard);
        self.tenure.stay(shard);
        self.show();
        self.wake(shard);
    }

    fn watch_fences(&mut self, cx: &mut Cx<Self>) {
        let next = self.fences.values().map(|fenced| fenced.until).min();
        self.fence_alarm.set(cx, next);
    }

    /// Shards whose next owner has gone quiet are stored in again.
    pub(super) fn unfence(&mut self, cx: &mut Cx<Self>) {
        let now = cx.now();
        if self.busy {
            // It may be just being given.
            return self.fence_alarm.set(cx, Some(now + PAUSE.0));
        }
        let over = self.fences.iter().filter(|(_, fenced)| fenced.until <= now);
        let over: Vec<(ShardId, NodeId)> =
            over.map(|(shard, fenced)| (*shard, fenced.to)).collect();
        for (shard, to) in over {
            tracing::warn!(%shard, %to, "a shard's next owner did not take it in time: it is stored in again");
            self.stays(shard);
        }
        self.watch_fences(cx);
    }

    fn release(
        &mut self,
        asker: NodeId,
        request: ReleaseShard,
        promise: Promise<By<ReleaseShard>>,
        cx: &mut Cx<Self>,
    ) {
        let shard = request.shard;
        let Some(worker) = self.config.workers.get(&shard).cloned() else {
            return promise.fulfil(Err(Refusal::NotOwner(None)));
        };
        self.busy = true;
        self.tenure.leave(shard, asker);
        self.show();
        let copied = request.copied;
        cx.ask(
            &worker.of(),
            Rest { copied },
            REST_WITHIN,
            move |holder, rested: Result<Result<(), Refusal>, AskError>, cx| {
                // The map may have changed meanwhile.
                let rested =
                    rested.unwrap_or(Err(Refusal::Unavailable)).and_then(|()| {
                        match holder.tenure.asked(shard, asker, request.map_version) {
                            Asked::Begin => Ok(()),
                            Asked::Done { .. } => Err(Refusal::Busy),
                            Asked::Refuse(refusal) => Err(refusal),
                        }
                    });
                holder.busy = false;
                if let Err(refusal) = rested {
                    tracing::debug!(%shard, %asker, %refusal, "a shard stays here");
                    holder.stays(shard);
                    return promise.fulfil(Err(refusal));
                }
                let since = holder.fences.remove(&shard).map(|fenced| fenced.since);
                let moves = holder.tenure.give(shard, asker);
                holder.keep(cx, move |holder, kept, cx| match kept {
                    Ok(()) => {
                        let fenced = since.map(|since| cx.now().saturating_sub(since));
                        let fenced_ms = fenced.map_or(0, |fenced| fenced.as_millis());
                        tracing::info!(%shard, %asker, moves, fenced_ms, "a shard was given away");
                        if copied.is_some() {
                            holder.left.insert(shard, (asker, moves));
                            holder.soon(cx);
                        }
                        holder.show();
                        promise.fulfil(Ok(ShardReleased { moves }));
                    }
                    Err(error) => {
                        holder.forget(error, cx);
                        promise.fulfil(Err(Refusal::Storage));
                    }
                });
            },
        );
    }
}

impl On<By<ReleaseShard>> for Holder {
    fn on(&mut self, msg: By<ReleaseShard>, cx: &mut Cx<Self>) -> Reply<By<ReleaseShard>> {
        if self.busy {
            return Reply::Now(Err(Refusal::Busy));
        }
        let asker = (self.config.seat)(msg.peer);
        let ReleaseShard {
            shard, map_version, ..
        } = msg.request;
        let verdict = self.tenure.asked(shard, asker, map_version);
        match verdict {
            Asked::Done { moves } => Reply::Now(Ok(ShardReleased { moves })),
            Asked::Refuse(refusal) => {
                // It may have been given here by an answer that was lost.
                let now = cx.now();
                self.alarm.set(cx, Some(now + PAUSE.0));
                Reply::Now(Err(refusal))
            }
            Asked::Begin => {
                let (promise, reply) = Reply::later();
                self.release(asker, msg.request, promise, cx);
                reply
            }
        }
    }
}

impl On<By<SurveyShard>> for Holder {
    fn on(&mut self, msg: By<SurveyShard>, cx: &mut Cx<Self>) -> Reply<By<SurveyShard>> {
        let asker = (self.config.seat)(msg.peer);
        let (shard, version) = (msg.request.shard, msg.request.map_version);
        match self.shown(shard, asker, version, cx) {
            Ok(worker) => self.show_to(&worker.of(), msg.request, cx),
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

impl On<By<ReadShard>> for Holder {
    fn on(&mut self, msg: By<ReadShard>, cx: &mut Cx<Self>) -> Reply<By<ReadShard>> {
        let asker = (self.config.seat)(msg.peer);
        let (shard, version) = (msg.request.shard, msg.request.map_version);
        match self.shown(shard, asker, version, cx) {
            Ok(worker) => self.show_to(&worker.of(), msg.request, cx),
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

impl On<By<FenceShard>> for Holder {
    fn on(&mut self, msg: By<FenceShard>, cx: &mut Cx<Self>) -> Reply<By<FenceShard>> {
        if self.busy {
            return Reply::Now(Err(Refusal::Busy));
        }
        let asker = (self.config.seat)(msg.peer);
        let FenceShard { shard, map_version } = msg.request;
        match self.shown(shard, asker, map_version, cx) {
            Ok(worker) => {
                let (promise, reply) = Reply::later();
                self.fence(shard, asker, &worker.of(), promise, cx);
                reply
            }
            Err(refusal) => Reply::Now(Err(refusal)),
        }
    }
}

/// What is only in memory is not had.
impl On<By<ShardHeld>> for Holder {
    fn on(&mut self, msg: By<ShardHeld>, _cx: &mut Cx<Self>) -> Reply<By<ShardHeld>> {
        if self.busy {
            return Reply::Now(Err(Refusal::Busy));
        }
        let ShardHeld { shard, moves } = msg.request;
        Reply::Now(Ok(Held(self.tenure.has_had(shard, moves))))
    }
}
