//! Whether a shard's worker works: taking a shard up, letting it go, and what is left of one that is elsewhere.

use pqcnet_actor::{Cx, On, Promise, Reply};
use pqcnet_log::LogError;
use pqcnet_messages::metering::Reading;
use pqcnet_messages::relay_local::{CountLeft, Discard, Fence, Rest, Wake};
use pqcnet_messages::{Refusal, ShardId};
use rand_core::Rng as _;

use super::{ShardWorker, fresh};

/// Whether a worker works.
pub(super) enum Duty {
    Works,
    /// It stores what was admitted, then says so.
    Settles(Settling),
    /// It stores nothing more, and delivers what is stored.
    Fenced,
    Rests,
}

/// Why it settles.
pub(super) enum Settling {
    /// To rest, if whoever is next has a copy with this digest.
    ToRest(Promise<Rest>, Option<[u8; 32]>),
    ToFence(Promise<Fence>),
}

impl ShardWorker {
    /// Works from here on, or rests, as the relayer's tenure has it.
    pub(super) fn look(&mut self, cx: &mut Cx<Self>) {
        let works = (self.config.tenure.borrow()).works(ShardId(self.shard.0));
        match (&self.duty, works) {
            (Duty::Rests, true) => {
                self.core = fresh(&self.config);
                self.run = cx.rng().next_u64() | 1;
                self.moves = (self.config.tenure.borrow()).moves(ShardId(self.shard.0));
                self.duty = Duty::Works;
                self.drive(cx);
            }
            (Duty::Settles(_), true) => self.settled(Err(Refusal::Unavailable), cx),
            (Duty::Fenced, true) => self.resume(cx),
            (Duty::Works, _) | (Duty::Settles(_) | Duty::Fenced | Duty::Rests, false) => {}
        }
    }

    pub(super) fn resume(&mut self, cx: &mut Cx<Self>) {
        self.core.resume();
        self.duty = Duty::Works;
        self.drive(cx);
    }

    /// What was admitted is stored. Something may have been stored that was on its way when the rest was ordered.
    pub(super) fn settled(&mut self, mut outcome: Result<(), Refusal>, cx: &mut Cx<Self>) {
        if outcome.is_ok() && self.core.phase() != "draining" {
            // The log failed meanwhile: what is stored is not known.
            outcome = Err(Refusal::Unavailable);
        }
        let Duty::Settles(settling) = std::mem::replace(&mut self.duty, Duty::Fenced) else {
            return;
        };
        match settling {
            Settling::ToFence(promise) if outcome.is_ok() => promise.fulfil(outcome),
            Settling::ToFence(promise) => {
                promise.fulfil(outcome);
                self.resume(cx);
            }
            Settling::ToRest(promise, copied) => {
                let outcome = outcome.and_then(|()| self.may_leave(copied));
                let rests = outcome.is_ok();
                promise.fulfil(outcome);
                if rests {
                    self.duty = Duty::Rests;
                    self.parting = self.volume(Reading::default());
                    self.core = fresh(&self.config);
                    self.links.clear();
                    self.alarm.set(cx, None);
                } else {
                    self.resume(cx);
                }
            }
        }
    }

    /// Nothing is stored of which whoever is next has no copy.
    pub(super) fn may_leave(&self, copied: Option<[u8; 32]>) -> Result<(), Refusal> {
        if self.core.holdings().channels == 0 {
            return Ok(());
        }
        let digest = self.core.digest().ok_or(Refusal::Unavailable)?;
        match copied {
            Some(copied) if copied == digest => Ok(()),
            Some(_) => {
                tracing::warn!(
                    shard = self.shard.0,
                    "the next owner's copy of a shard is not what is stored"
                );
                Err(Refusal::HoldsRecords)
            }
            None => Err(Refusal::HoldsRecords),
        }
    }
}

impl On<Rest> for ShardWorker {
    fn on(&mut self, msg: Rest, cx: &mut Cx<Self>) -> Reply<Rest> {
        match self.duty {
            // It has not looked what is stored.
            Duty::Rests => return Reply::Now(Err(Refusal::Unavailable)),
            Duty::Settles(_) => return Reply::Now(Err(Refusal::Busy)),
            Duty::Works if self.core.phase() != "ready" => {
                return Reply::Now(Err(Refusal::Unavailable));
            }
            Duty::Works if msg.copied.is_none() && self.core.holdings().channels > 0 => {
                return Reply::Now(Err(Refusal::HoldsRecords));
            }
            Duty::Works | Duty::Fenced => {}
        }
        let (promise, reply) = Reply::later();
        self.core.drain();
        self.duty = Duty::Settles(Settling::ToRest(promise, msg.copied));
        self.drive(cx);
        reply
    }
}

impl On<Fence> for ShardWorker {
    fn on(&mut self, _: Fence, cx: &mut Cx<Self>) -> Reply<Fence> {
        match self.duty {
            Duty::Fenced => return Reply::Now(Ok(())),
            Duty::Settles(_) => return Reply::Now(Err(Refusal::Busy)),
            Duty::Works if self.core.phase() == "ready" => {}
            Duty::Works | Duty::Rests => return Reply::Now(Err(Refusal::Unavailable)),
        }
        let (promise, reply) = Reply::later();
        self.core.drain();
        self.duty = Duty::Settles(Settling::ToFence(promise));
        self.drive(cx);
        reply
    }
}

impl On<CountLeft> for ShardWorker {
    fn on(&mut self, _: CountLeft, cx: &mut Cx<Self>) -> Reply<CountLeft> {
        if !matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Busy));
        }
        let (promise, reply) = Reply::later();
        cx.spawn(self.log.heads(self.shard), |_, heads, _| {
            promise.fulfil(match heads {
                Ok(heads) => Ok(heads.len() as u64),
                Err(LogError::Busy) => Err(Refusal::Busy),
                Err(_) => Err(Refusal::Storage),
            });
        });
        reply
    }
}

impl On<Discard> for ShardWorker {
    fn on(&mut self, _: Discard, cx: &mut Cx<Self>) -> Reply<Discard> {
        let works = (self.config.tenure.borrow()).works(ShardId(self.shard.0));
        if works || !matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Busy));
        }
        let (promise, reply) = Reply::later();
        let shard = self.shard.0;
        cx.spawn(self.log.discard(self.shard), move |_, discarded, _| {
            if let Err(error) = &discarded {
                tracing::warn!(shard, %error, "what is left of a shard that was given away stays");
            }
            promise.fulfil(discarded.map_err(|_| Refusal::Storage));
        });
        reply
    }
}

impl On<Wake> for ShardWorker {
    fn on(&mut self, _: Wake, cx: &mut Cx<Self>) -> Reply<Wake> {
        self.look(cx);
        Reply::Now(())
    }
}
