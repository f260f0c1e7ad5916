//! Takes over the shards that the root's map gives to this relayer, and gives away those that it gives to others.
//!
//! Rules: [`crate::core::tenure`]. Spec: docs/spec/relay.md, "Owners". Started by: `roles::relayer`, before whoever serves
//! shards. Hears from: other relayers ([`ReleaseShard`]), the root's map as it comes. Sends to: the other relayers, the
//! [`ShardWorker`](crate::ShardWorker)s, and whoever watches the [`Tenure`]: intakes, workers, reports.
//!
//! ```text
//!   map ─▶ wanted ─ ReleaseShard ─▶ whoever has it ─▶ leaving ─ Rest ─▶ worker ─▶ on the disk ─▶ ShardReleased ─▶ on the disk ─▶ Wake
//! ```
//!
//! Of what it changes it does one thing at a time, and nothing is said before it is on the disk. Mailbox: usual bounds; full
//! means `Busy`, and the asker asks again. A restart reads the file again; a release that was under way is asked for again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_actor::latest;
use pqcnet_actor::{Alarm, AskError, Behaviour, Cx, On, Pause, Promise, Ref, Reply};
use pqcnet_crypto::NodeId;
use pqcnet_messages::relay::{ReleaseShard, ShardReleased};
use pqcnet_messages::relay_local::{Rest, Wake};
use pqcnet_messages::{Refusal, ShardId};
use rand_core::Rng as _;

use crate::core::tenure::{Asked, MapInForce, Tenure};

/// What was admitted is stored by then; a disk that takes longer keeps its shard.
const REST_WITHIN: Duration = Duration::from_secs(10);
/// Between rounds over the shards that are still elsewhere: soon at first, since their owner may only not have heard of the map.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Asks a relayer to release a shard. An error is a reason for the log.
pub type AskShard = Arc<
    dyn Fn(
            NodeId,
            ReleaseShard,
        ) -> BoxFuture<'static, Result<Result<ShardReleased, Refusal>, String>>
        + Send
        + Sync,
>;
/// Reads what was kept of the tenure; blocks.
pub type LoadTenure = Arc<dyn Fn() -> Result<Tenure, String> + Send + Sync>;
/// Keeps it, synced; blocks.
pub type KeepTenure = Arc<dyn Fn(Vec<Bytes>) -> Result<(), String> + Send + Sync>;

/// What a holder is started with.
#[derive(Clone)]
pub struct HolderConfig {
    /// Reads the tenure.
    pub load: LoadTenure,
    /// Keeps it.
    pub keep: KeepTenure,
    /// The root's map, as it changes.
    pub map: latest::Receiver<MapInForce>,
    /// Where the tenure is shown.
    pub show: latest::Sender<Arc<Tenure>>,
    /// The worker of each shard.
    pub workers: BTreeMap<ShardId, (Ref<Rest>, Ref<Wake>)>,
    /// The other relayers.
    pub ask: AskShard,
    /// Who asks over a link is told from its peer; this names the listed identity behind one that succeeded it.
    pub seat: Arc<dyn Fn(NodeId) -> NodeId + Send + Sync>,
}

/// The actor.
pub struct Holder {
    config: HolderConfig,
    /// As shown.
    tenure: Tenure,
    /// Something of it is being changed.
    busy: bool,
    /// A round over what is wanted is under way.
    asking: bool,
    pause: Pause,
    alarm: Alarm<Self>,
}

/// A request to release a shard, by a peer whose keys are known.
#[derive(Debug)]
pub struct Release {
    /// By whom.
    pub asker: NodeId,
    /// What.
    pub request: ReleaseShard,
}

impl pqcnet_actor::Message for Release {
    type Reply = Result<ShardReleased, Refusal>;
    const NAME: &'static str = "relay.Release";
}

impl Holder {
    /// Begins with what is shown.
    pub fn new(config: HolderConfig) -> Holder {
        let tenure = (**config.show.borrow()).clone();
        Holder {
            tenure,
            busy: true,
            asking: false,
            pause: Pause::new(PAUSE.0, PAUSE.1),
            alarm: Alarm::new(Self::round),
            config,
        }
    }

    /// Shows what has changed, and wakes whom it concerns.
    fn show(&mut self) {
        let tenure = Arc::new(self.tenure.clone());
        self.config.show.send_replace(tenure);
    }

    fn wake(&self, shard: ShardId) {
        if let Some((_, wake)) = self.config.workers.get(&shard)
            && let Err(error) = wake.try_tell(Wake)
        {
            tracing::error!(%shard, %error, "a shard's worker was not woken");
        }
    }

    fn follow(&mut self, mut map: latest::Receiver<MapInForce>, cx: &mut Cx<Self>) {
        let force = map.borrow_and_update().clone();
        if *self.tenure.map() != force.map {
            let version = force.map.version();
            tracing::info!(version, "the shard map that holds");
        }
        self.tenure.enforce(force);
        self.pause.reset();
        if !self.busy {
            self.show();
        }
        let now = cx.now();
        self.alarm.set(cx, Some(now));
        let changed = async move { map.changed().await.map(|()| map) };
        cx.spawn(changed, |holder, map, cx| {
            if let Ok(map) = map {
                holder.follow(map, cx);
            }
        });
    }

    // ---- taking over ----

    /// Asks for every shard that is to be here, one after the other.
    fn round(&mut self, cx: &mut Cx<Self>) {
        if self.asking {
            return;
        }
        if self.busy {
            let again = cx.now() + PAUSE.0;
            return self.alarm.set(cx, Some(again));
        }
        let wanted = self.tenure.wanted(cx.wall_ms());
        if !wanted.is_empty() {
            self.asking = true;
            self.ask_next(wanted, cx);
        }
    }

    fn ask_next(&mut self, mut wanted: Vec<(ShardId, NodeId)>, cx: &mut Cx<Self>) {
        let Some((shard, whom)) = wanted.pop() else {
            self.asking = false;
            if !self.tenure.wanted(cx.wall_ms()).is_empty() {
                let random = cx.rng().next_u64();
                let again = self.pause.until(cx.now(), random);
                self.alarm.set(cx, Some(again));
            }
            return;
        };
        let map_version = self.tenure.map().version();
        let asked = (self.config.ask)(whom, ReleaseShard { shard, map_version });
        cx.spawn(asked, move |holder, answer, cx| {
            match answer {
                Ok(Ok(released)) => return holder.take(shard, released, wanted, cx),
                Ok(Err(Refusal::NotOwner(redirect))) => {
                    holder
                        .tenure
                        .told(shard, redirect.map(|redirect| redirect.owner));
                    holder.show();
                }
                Ok(Err(refusal)) => {
                    tracing::debug!(%shard, %whom, %refusal, "a shard is not released yet");
                    holder.tenure.refused(shard);
                }
                Err(reason) => tracing::debug!(%shard, %whom, reason, "a shard was not asked for"),
            }
            holder.ask_next(wanted, cx);
        });
    }

    fn take(
        &mut self,
        shard: ShardId,
        released: ShardReleased,
        wanted: Vec<(ShardId, NodeId)>,
        cx: &mut Cx<Self>,
    ) {
        if self.busy {
            // It stays released: the next round gets the same answer.
            return self.ask_next(wanted, cx);
        }
        self.tenure.take(shard, released.moves);
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
            holder.ask_next(wanted, cx);
        });
    }

    // ---- giving away ----

    fn release(
        &mut self,
        asker: NodeId,
        request: ReleaseShard,
        promise: Promise<Release>,
        cx: &mut Cx<Self>,
    ) {
        let shard = request.shard;
        let Some(rest) = self
            .config
            .workers
            .get(&shard)
            .map(|(rest, _)| rest.clone())
        else {
            return promise.fulfil(Err(Refusal::NotOwner(None)));
        };
        self.busy = true;
        self.tenure.leave(shard);
        self.show();
        cx.ask(
            &rest,
            Rest,
            REST_WITHIN,
            move |holder, rested: Result<Result<(), Refusal>, AskError>, cx| {
                // The map may have changed meanwhile.
                let rested = rested.unwrap_or(Err(Refusal::Unavailable)).and_then(|()| {
                    holder.tenure.stay(shard);
                    match holder.tenure.asked(shard, asker, request.map_version) {
                        Asked::Begin => Ok(()),
                        Asked::Done { .. } => Err(Refusal::Busy),
                        Asked::Refuse(refusal) => Err(refusal),
                    }
                });
                if let Err(refusal) = rested {
                    tracing::debug!(%shard, %asker, %refusal, "a shard stays here");
                    holder.tenure.stay(shard);
                    holder.busy = false;
                    holder.show();
                    holder.wake(shard);
                    return promise.fulfil(Err(refusal));
                }
                let moves = holder.tenure.give(shard, asker);
                holder.keep(cx, move |holder, kept, cx| match kept {
                    Ok(()) => {
                        tracing::info!(%shard, %asker, moves, "a shard was given away");
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

    // ---- disk ----

    fn keep(
        &mut self,
        cx: &mut Cx<Self>,
        then: impl FnOnce(&mut Self, Result<(), String>, &mut Cx<Self>) + 'static,
    ) {
        self.busy = true;
        let (keep, items) = (self.config.keep.clone(), self.tenure.to_keep());
        cx.offload(
            move || keep(items),
            move |holder, kept, cx| {
                holder.busy = false;
                let kept = kept.map_err(|error| error.to_string());
                then(holder, kept.and_then(|kept| kept), cx);
            },
        );
    }

    /// What is on the disk is not known: nothing more is changed before it has been read again.
    fn forget(&mut self, error: String, cx: &mut Cx<Self>) {
        tracing::error!(error, "whose shards are whose is not kept");
        self.read(cx);
    }

    fn read(&mut self, cx: &mut Cx<Self>) {
        self.busy = true;
        let load = self.config.load.clone();
        cx.offload(
            move || load(),
            |holder, loaded, cx| {
                let loaded = loaded.map_err(|error| error.to_string());
                match loaded.and_then(|loaded| loaded) {
                    Ok(tenure) => holder.begin(tenure, cx),
                    Err(error) => {
                        tracing::error!(
                            error,
                            "this relayer does not know which shards are its own"
                        );
                        cx.stop();
                    }
                }
            },
        );
    }

    fn begin(&mut self, tenure: Tenure, cx: &mut Cx<Self>) {
        let force = self.config.map.borrow().clone();
        self.tenure = tenure;
        self.tenure.enforce(force);
        self.busy = false;
        self.show();
        let shards: Vec<ShardId> = self.config.workers.keys().copied().collect();
        for shard in shards {
            self.wake(shard);
        }
        let soon = cx.now() + PAUSE.0;
        self.alarm.set(cx, Some(soon));
    }
}

impl Behaviour for Holder {
    const NAME: &'static str = "Holder";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.follow(self.config.map.clone(), cx);
        self.read(cx);
    }

    fn describe(&self) -> String {
        let (here, overdue) = (self.tenure.held().count(), self.tenure.overdue().count());
        let version = self.tenure.map().version();
        format!("map {version}: {here} shards here, {overdue} of them to be elsewhere")
    }
}

impl On<Release> for Holder {
    fn on(&mut self, msg: Release, cx: &mut Cx<Self>) -> Reply<Release> {
        if self.busy {
            return Reply::Now(Err(Refusal::Busy));
        }
        let asker = (self.config.seat)(msg.asker);
        let ReleaseShard { shard, map_version } = msg.request;
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
