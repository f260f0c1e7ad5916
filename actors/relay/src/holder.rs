//! Takes over the shards that the root's map gives to this relayer, and gives away those that it gives to others.
//!
//! Rules: [`crate::core::tenure`], [`crate::core::moving`]. Spec: docs/spec/relay.md, "Owners". Started by: `roles::relayer`, before whoever
//! serves shards. Hears from: other relayers, by their [`Envoy`](crate::Envoy)s; the root's map as it comes. Sends to: the other relayers, the
//! [`ShardWorker`]s, and whoever watches the [`Tenure`]: intakes, workers, reports.
//!
//! ```text
//!   map ─▶ wanted ─ ReleaseShard ─▶ whoever has it ─▶ leaving ─ Rest ─▶ worker ─▶ on the disk ─▶ ShardReleased ─▶ on the disk ─▶ Wake
//!               └─ it has records: copy (SurveyShard, ReadShard, FenceShard), then ReleaseShard with the copy's digest
//!   given ─ ShardHeld ─▶ whoever it was given to ─▶ on its disk ─▶ Discard
//! ```
//!
//! Of what it changes it does one thing at a time, and nothing is said before it is on the disk. Mailbox: usual bounds; full
//! means `Busy`, and the asker asks again. A restart reads the file again; a release that was under way is asked for again, a
//! copy gone on with.

mod giving;
mod taking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Alarm, Behaviour, Cx, Pause};
use pqcnet_crypto::NodeId;
use pqcnet_messages::ShardId;
use pqcnet_messages::relay_local::Wake;

use crate::ShardWorker;
use crate::copy::{Place, Reach};
use crate::core::tenure::{MapInForce, Tenure};

/// Between rounds over the shards that are still elsewhere: soon at first, since their owner may only not have heard of the map.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

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
    pub workers: BTreeMap<ShardId, Addr<ShardWorker>>,
    /// Where copies are made.
    pub place: Place,
    /// The other relayers.
    pub reach: Reach,
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
    /// A round over what is wanted, and over what may be discarded, is under way.
    asking: bool,
    pause: Pause,
    alarm: Alarm<Self>,
    /// Shards in which nothing is stored for a while: for whom, and until when.
    fences: BTreeMap<ShardId, giving::Fenced>,
    fence_alarm: Alarm<Self>,
    /// Shards given away of which something is stored here, as far as is known.
    left: BTreeMap<ShardId, (NodeId, u8)>,
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
            fences: BTreeMap::new(),
            fence_alarm: Alarm::new(Self::unfence),
            left: BTreeMap::new(),
            config,
        }
    }

    /// Shows what has changed, and wakes whom it concerns.
    fn show(&mut self) {
        let tenure = Arc::new(self.tenure.clone());
        self.config.show.send_replace(tenure);
    }

    fn wake(&self, shard: ShardId) {
        if let Some(worker) = self.config.workers.get(&shard)
            && let Err(error) = worker.of().try_tell(Wake)
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
        self.fences.clear();
        self.left = (self.tenure.given())
            .map(|(shard, to, moves)| (shard, (to, moves)))
            .collect();
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
        let left = self.left.len();
        format!(
            "map {version}: {here} shards here, {overdue} of them to be elsewhere; {left} given away and not discarded"
        )
    }
}
