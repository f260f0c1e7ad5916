//! Shards that change hands: two relayers' holders and workers, real actors, real RocksDB; only the link between them is not there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures::FutureExt as _;
use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Env, Ref, Running, Spec, Strategy, Tree};
use pqcnet_crypto::{NodeId, StorageMasterKey};
use pqcnet_log::ShardNo;
use pqcnet_messages::relay::{ReleaseShard, ShardReleased};
use pqcnet_messages::relay_local::{Admit, IssueEpoch};
use pqcnet_messages::{Channel, ChannelName, Redirect, Refusal, ShardId, ShardMap};
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{
    Holder, HolderConfig, MapInForce, Place, Release, ShardWorker, ShardWorkerConfig, Tenure,
};
use support::{WITHIN, embedded, store_config, with_env};

const SHARD: ShardId = ShardId(0);
const OLD: NodeId = NodeId::from_bytes([1; 32]);
const NEW: NodeId = NodeId::from_bytes([2; 32]);
const CUSTOMER: NodeId = NodeId::from_bytes([9; 32]);

fn map(version: u64, owner: NodeId) -> MapInForce {
    MapInForce {
        map: ShardMap::new(version, vec![owner]).unwrap(),
        until_ms: None,
    }
}

type Peers = Arc<OnceLock<BTreeMap<NodeId, Ref<Release>>>>;
/// What is on a relayer's disk, and whether it is full.
type Disk = Arc<Mutex<(Vec<Bytes>, bool)>>;

struct Side {
    tenure: latest::Receiver<Arc<Tenure>>,
    map: latest::Sender<MapInForce>,
    release: Ref<Release>,
    worker: Addr<ShardWorker>,
    disk: Disk,
    running: Running,
}

impl Side {
    async fn start(env: &Env, me: NodeId, place: &tempfile::TempDir, peers: &Peers) -> Side {
        let folder = place.path().join(me.short());
        let (_, log) = embedded(env, store_config(&folder)).await;
        let first = map(1, OLD).map;
        let disk = Disk::default();
        let (load_from, keep_at, begins) = (disk.clone(), disk.clone(), first.clone());
        let (show, tenure) = latest::channel(Arc::new(Tenure::new(me, first, []).unwrap()));
        let mut tree = Tree::new("relayer", Strategy::OneForOne);
        let config = ShardWorkerConfig {
            shard: ShardNo(SHARD.0),
            log,
            storage_key: Arc::new(StorageMasterKey::generate()),
            limits: ShardLimits::default(),
            tenure: tenure.clone(),
        };
        let worker = tree.child(Spec::new("shard-0", move |_| ShardWorker::new(&config)));
        let (map, follows) = latest::channel(map(1, OLD));
        let peers = peers.clone();
        let config = HolderConfig {
            load: Arc::new(move || {
                let kept = load_from.lock().unwrap().0.clone();
                Tenure::new(me, begins.clone(), kept).map_err(str::to_owned)
            }),
            keep: Arc::new(move |items| {
                let mut disk = keep_at.lock().unwrap();
                if disk.1 {
                    return Err("the disk is full".to_owned());
                }
                disk.0 = items;
                Ok(())
            }),
            map: follows,
            show,
            workers: BTreeMap::from([(SHARD, (worker.of(), worker.of()))]),
            ask: Arc::new(move |whom, request| {
                let to = peers.get().unwrap()[&whom].clone();
                let release = Release { asker: me, request };
                async move {
                    let answer = to.ask(release, WITHIN).await;
                    answer.map_err(|error| error.to_string())
                }
                .boxed()
            }),
            seat: Arc::new(|node| node),
        };
        let holder = tree.child(Spec::new("holder", move |_| Holder::new(config.clone())));
        let running = tree.start(env.clone());
        running.started().await.unwrap();
        Side {
            tenure,
            map,
            release: holder.of(),
            worker,
            disk,
            running,
        }
    }

    async fn until(&self, place: Place) {
        let mut tenure = self.tenure.clone();
        let is_so = |tenure: &Arc<Tenure>| tenure.place(SHARD, 0) == place;
        let waiting = tokio::time::timeout(WITHIN, tenure.wait_for(is_so));
        waiting.await.unwrap().unwrap();
    }

    /// A worker that has the shard may still be opening it.
    async fn epoch(&self) -> Result<u64, Refusal> {
        let issue = || IssueEpoch {
            customer: CUSTOMER,
            channel: channel(),
            supersedes: None,
        };
        let asking = async {
            loop {
                match self.worker.of().ask(issue(), WITHIN).await.unwrap() {
                    Err(Refusal::Unavailable) if self.tenure.borrow().works(SHARD) => {
                        tokio::task::yield_now().await;
                    }
                    answer => return answer.map(|opened| opened.epoch),
                }
            }
        };
        tokio::time::timeout(WITHIN, asking).await.unwrap()
    }

    async fn store(&self, epoch: u64) -> Result<u64, Refusal> {
        let admit = Admit {
            customer: CUSTOMER,
            channel: channel(),
            epoch,
            first_seq: 1,
            payloads: vec![Bytes::from_static(b"a")],
        };
        let stored = self.worker.of().ask(admit, WITHIN).await.unwrap();
        stored.map(|published| published.last_offset)
    }

    /// Asks as the new owner, under a map of this version.
    async fn asked(&self, map_version: u64) -> Result<ShardReleased, Refusal> {
        loop {
            let request = ReleaseShard {
                shard: SHARD,
                map_version,
            };
            let release = Release {
                asker: NEW,
                request,
            };
            match self.release.ask(release, WITHIN).await.unwrap() {
                // It is starting, or a request of the new owner's own is under way.
                Err(Refusal::Busy) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    }
}

fn channel() -> Channel {
    Channel {
        owner: CUSTOMER,
        name: ChannelName::new("a").unwrap(),
    }
}

fn elsewhere(owner: NodeId, map_version: u64) -> Place {
    Place::Elsewhere(Redirect { owner, map_version })
}

async fn both(env: &Env, place: &tempfile::TempDir) -> (Side, Side) {
    let peers = Peers::default();
    let old = Side::start(env, OLD, place, &peers).await;
    let new = Side::start(env, NEW, place, &peers).await;
    let known = [(OLD, old.release.clone()), (NEW, new.release.clone())];
    peers.set(BTreeMap::from(known)).ok().unwrap();
    (old, new)
}

/// Scenario: the new owner hears of a map before the old one does, and waits; then the empty shard moves. Only the new one stores
/// now, under epochs that the old one never issued, and both know it on their disks. The next map brings it back.
#[test]
fn an_empty_shard_moves() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = both(&env, &place).await;
        let before = old.epoch().await.unwrap();
        assert_eq!(new.epoch().await, Err(Refusal::Unavailable));
        new.map.send_replace(map(2, NEW));
        new.until(elsewhere(OLD, 2)).await;
        assert_eq!(old.asked(2).await, Err(Refusal::Unavailable));
        old.map.send_replace(map(2, NEW));
        new.until(Place::Here).await;
        old.until(elsewhere(NEW, 2)).await;
        assert_eq!(old.epoch().await, Err(Refusal::Unavailable));
        assert_eq!(old.store(before).await, Err(Refusal::Unavailable));
        let after = new.epoch().await.unwrap();
        let moves = |epoch: u64| epoch >> 24 & 0xff;
        assert_eq!((moves(before), moves(after)), (0, 1));
        for (side, me) in [(&old, OLD), (&new, NEW)] {
            let kept = side.disk.lock().unwrap().0.clone();
            let mut again = Tenure::new(me, map(1, OLD).map, kept).unwrap();
            again.enforce(map(2, NEW));
            assert_eq!(again.place(SHARD, 0) == Place::Here, me == NEW);
        }
        new.map.send_replace(map(3, OLD));
        old.map.send_replace(map(3, OLD));
        old.until(Place::Here).await;
        assert_eq!(new.epoch().await, Err(Refusal::Unavailable));
        let again = old.epoch().await.unwrap();
        assert_eq!(old.store(again).await, Ok(1));
        old.running.stop().await;
        new.running.stop().await;
    });
}

/// Scenario: the shard has a record. It stays where it is, whoever asks under whatever map, and is served there.
#[test]
fn a_shard_with_records_stays() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = both(&env, &place).await;
        let epoch = old.epoch().await.unwrap();
        assert_eq!(old.store(epoch).await, Ok(1));
        old.map.send_replace(map(2, NEW));
        new.map.send_replace(map(2, NEW));
        let refused = loop {
            match old.asked(2).await {
                // The map is not there yet.
                Err(Refusal::Unavailable) => tokio::task::yield_now().await,
                other => break other,
            }
        };
        assert_eq!(refused, Err(Refusal::HoldsRecords));
        old.until(Place::Here).await;
        let overdue: Vec<_> = old.tenure.borrow().overdue().collect();
        assert_eq!(overdue, [(SHARD, NEW)]);
        assert!(old.epoch().await.is_ok());
        assert_eq!(old.store(epoch).await, Ok(1));
        assert_eq!(new.epoch().await, Err(Refusal::Unavailable));
        old.running.stop().await;
        new.running.stop().await;
    });
}

/// Scenario: the old owner cannot write down that it gave the shard away: it has not, and goes on by itself. When its disk takes
/// it, the shard moves.
#[test]
fn what_is_not_on_the_disk_did_not_happen() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = both(&env, &place).await;
        old.epoch().await.unwrap();
        old.disk.lock().unwrap().1 = true;
        old.map.send_replace(map(2, NEW));
        let refused = loop {
            match old.asked(2).await {
                Err(Refusal::Unavailable) => tokio::task::yield_now().await,
                other => break other,
            }
        };
        assert_eq!(refused, Err(Refusal::Storage));
        old.until(Place::Here).await;
        assert!(old.epoch().await.is_ok());
        assert_eq!(new.epoch().await, Err(Refusal::Unavailable));
        old.disk.lock().unwrap().1 = false;
        new.map.send_replace(map(2, NEW));
        new.until(Place::Here).await;
        old.running.stop().await;
        new.running.stop().await;
    });
}
