//! The side of the relayer that is to have a shard; and what becomes of copies of shards that it gave away.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{AskError, Cx};
use pqcnet_crypto::NodeId;
use pqcnet_log::Salt;
use pqcnet_messages::moving::{Held, ShardHeld};
use pqcnet_messages::relay::{ReleaseShard, ShardReleased};
use pqcnet_messages::relay_local::{CountLeft, Discard};
use pqcnet_messages::{Refusal, ShardId};
use rand_core::Rng as _;

use super::{Holder, PAUSE};
use crate::copy::{Copy, CopyError, Counterpart, Place};

/// A relayer answers once what it admitted is stored and it has said so on its disk.
const RELEASED_WITHIN: Duration = Duration::from_secs(20);
/// The same for what it knows without its disk.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// A discard is one synced write.
const DISCARDED_WITHIN: Duration = Duration::from_secs(30);

/// How asking for a shard ended.
enum Outcome {
    Released(ShardReleased),
    Refused(Refusal),
    Failed(String),
}

impl From<Result<ShardReleased, Refusal>> for Outcome {
    fn from(answer: Result<ShardReleased, Refusal>) -> Outcome {
        match answer {
            Ok(released) => Outcome::Released(released),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

/// Asks for a shard; copies it first if it has records.
async fn ask_for(
    from: Counterpart,
    env: pqcnet_actor::Env,
    place: Place,
    (shard, map_version): (ShardId, u64),
    salt: Salt,
) -> Result<Outcome, AskError> {
    let release = |copied| ReleaseShard {
        shard,
        map_version,
        copied,
    };
    let answer = from.release.ask(release(None), RELEASED_WITHIN).await?;
    if answer != Err(Refusal::HoldsRecords) {
        return Ok(answer.into());
    }
    let copy = Copy {
        env: &env,
        place: &place,
        from: &from,
        shard,
        map_version,
    };
    match copy.run(salt).await {
        Ok((digest, records)) => {
            tracing::info!(%shard, records, "a shard is copied");
            let answer = from.release.ask(release(Some(digest)), RELEASED_WITHIN);
            Ok(answer.await?.into())
        }
        Err(CopyError::Refused(refusal)) => Ok(Outcome::Refused(refusal)),
        Err(error) => Ok(Outcome::Failed(error.to_string())),
    }
}

impl Holder {
    /// A round is made soon.
    pub(super) fn soon(&mut self, cx: &mut Cx<Self>) {
        self.pause.reset();
        let soon = cx.now() + PAUSE.0;
        self.alarm.set(cx, Some(soon));
    }

    /// Asks for every shard that is to be here, one after the other; then whether what was given away may go.
    pub(super) fn round(&mut self, cx: &mut Cx<Self>) {
        if self.asking {
            return;
        }
        if self.busy {
            let again = cx.now() + PAUSE.0;
            return self.alarm.set(cx, Some(again));
        }
        let wanted = self.tenure.wanted(cx.wall_ms());
        let left: Vec<ShardId> = self.left.keys().copied().collect();
        if !wanted.is_empty() || !left.is_empty() {
            self.asking = true;
            self.ask_next(wanted, left, cx);
        }
    }

    fn ask_next(
        &mut self,
        mut wanted: Vec<(ShardId, NodeId)>,
        left: Vec<ShardId>,
        cx: &mut Cx<Self>,
    ) {
        let Some((shard, whom)) = wanted.pop() else {
            return self.sweep(left, cx);
        };
        let map_version = self.tenure.map().version();
        let mut salt: Salt = [0; 16];
        cx.rng().fill_bytes(&mut salt);
        let (reach, place) = (Arc::clone(&self.config.reach), self.config.place.clone());
        let env = cx.env().clone();
        let asked = async move {
            let from = reach(whom).await?;
            let asked = ask_for(from, env, place, (shard, map_version), salt);
            asked.await.map_err(|error| error.to_string())
        };
        cx.spawn(asked, move |holder, answer: Result<Outcome, String>, cx| {
            match answer.unwrap_or_else(Outcome::Failed) {
                Outcome::Released(released) => {
                    return holder.take(shard, released, (wanted, left), cx);
                }
                Outcome::Refused(Refusal::NotOwner(redirect)) => {
                    let owner = redirect.map(|redirect| redirect.owner);
                    holder.tenure.told(shard, owner);
                    holder.show();
                }
                Outcome::Refused(refusal) => {
                    tracing::debug!(%shard, %whom, %refusal, "a shard is not released yet");
                    holder.tenure.refused(shard);
                }
                Outcome::Failed(reason) => {
                    tracing::debug!(%shard, %whom, reason, "a shard was not taken over");
                }
            }
            holder.ask_next(wanted, left, cx);
        });
    }

    fn take(
        &mut self,
        shard: ShardId,
        released: ShardReleased,
        (wanted, left): (Vec<(ShardId, NodeId)>, Vec<ShardId>),
        cx: &mut Cx<Self>,
    ) {
        if self.busy {
            // It stays released: the next round gets the same answer.
            return self.ask_next(wanted, left, cx);
        }
        self.tenure.take(shard, released.moves);
        self.left.remove(&shard);
        self.keep(cx, move |holder, kept, cx| {
            match kept {
                Ok(()) => {
                    tracing::info!(%shard, moves = released.moves, "a shard is here now");
                    holder.pause.reset();
                    holder.show();
                    holder.wake(shard);
                }
                Err(error) => holder.forget(error, cx),
            }
            holder.ask_next(wanted, left, cx);
        });
    }

    // ---- what was given away ----

    /// One after the other: is anything of it stored here, is it on the other's disk, then it goes.
    fn sweep(&mut self, mut left: Vec<ShardId>, cx: &mut Cx<Self>) {
        let Some(shard) = left.pop() else {
            return self.round_over(cx);
        };
        let Some((to, moves)) = self.left.get(&shard).copied() else {
            return self.sweep(left, cx);
        };
        // One that is to come back is copied onto what is here.
        let comes_back = self
            .tenure
            .wanted(cx.wall_ms())
            .iter()
            .any(|(of, _)| *of == shard);
        let Some(worker) = self.config.workers.get(&shard).filter(|_| !comes_back) else {
            return self.sweep(left, cx);
        };
        let (count, discard) = (worker.of::<CountLeft>(), worker.of::<Discard>());
        let reach = Arc::clone(&self.config.reach);
        let asked = async move {
            let error = |error: AskError| error.to_string();
            let stored = count.ask(CountLeft, ANSWERED_WITHIN).await.map_err(error)?;
            if stored.map_err(|refusal| refusal.to_string())? == 0 {
                return Ok(true);
            }
            let there = reach(to).await?;
            let held = there.held.ask(ShardHeld { shard, moves }, ANSWERED_WITHIN);
            let Held(held) = held
                .await
                .map_err(error)?
                .map_err(|refusal| refusal.to_string())?;
            if held {
                let discarded = discard
                    .ask(Discard, DISCARDED_WITHIN)
                    .await
                    .map_err(error)?;
                discarded.map_err(|refusal| refusal.to_string())?;
            }
            Ok(held)
        };
        cx.spawn(asked, move |holder, gone: Result<bool, String>, cx| {
            match gone {
                Ok(true) => {
                    tracing::info!(%shard, %to, "nothing of a shard that was given away is stored here any more");
                    holder.left.remove(&shard);
                }
                Ok(false) => {}
                Err(reason) => tracing::debug!(%shard, %to, reason, "what was given away is kept"),
            }
            holder.sweep(left, cx);
        });
    }

    fn round_over(&mut self, cx: &mut Cx<Self>) {
        self.asking = false;
        if !self.tenure.wanted(cx.wall_ms()).is_empty() || !self.left.is_empty() {
            let random = cx.rng().next_u64();
            let again = self.pause.until(cx.now(), random);
            self.alarm.set(cx, Some(again));
        }
    }
}
