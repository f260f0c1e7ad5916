//! Shards that change hands: two relayers' holders and workers, real actors, real RocksDB; only the link between them is not there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures::FutureExt as _;
use pqcnet_actor::latest;
use pqcnet_actor::{Addr, Behaviour, Cx, Env, On, Reply, Running, Spec, Strategy, Tree};
use pqcnet_crypto::{NodeId, StorageMasterKey};
use pqcnet_log::ShardNo;
use pqcnet_messages::moving::{ReadShard, Stretch, SurveyShard};
use pqcnet_messages::relay::{ReleaseShard, ShardReleased};
use pqcnet_messages::relay_local::{Admit, CountLeft, IssueEpoch, ReplaceReaders};
use pqcnet_messages::{Channel, ChannelName, Redirect, Refusal, ShardId, ShardMap};
use pqcnet_relay::core::channel::channel_id;
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{
    CopyPlace, Counterpart, Envoy, Holder, HolderConfig, MapInForce, Place, ShardWorker,
    ShardWorkerConfig, Tenure,
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

/// How each relayer is reached by the other.
type Peers = Arc<OnceLock<BTreeMap<NodeId, Addr<Line>>>>;
/// What is on a relayer's disk, and whether it is full.
type Disk = Arc<Mutex<(Vec<Bytes>, bool)>>;

/// The link from the other relayer, which is cut at the so-manyth read from now on.
struct Line {
    envoy: Addr<Envoy>,
    reads: Arc<AtomicU64>,
}

impl Behaviour for Line {
    const NAME: &'static str = "Line";
}

impl On<ReadShard> for Line {
    fn on(&mut self, request: ReadShard, cx: &mut Cx<Self>) -> Reply<ReadShard> {
        let left = self.reads.load(SeqCst);
        if left == 0 {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        self.reads.store(left - 1, SeqCst);
        let (promise, reply) = Reply::later();
        cx.ask(&self.envoy.of(), request, WITHIN, move |_, answer, _| {
            promise.fulfil(answer.unwrap());
        });
        reply
    }
}

struct Side {
    tenure: latest::Receiver<Arc<Tenure>>,
    map: latest::Sender<MapInForce>,
    line: Addr<Line>,
    envoy: Addr<Envoy>,
    reads: Arc<AtomicU64>,
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
        let storage_key = Arc::new(StorageMasterKey::generate());
        let config = ShardWorkerConfig {
            shard: ShardNo(SHARD.0),
            log: log.clone(),
            storage_key: storage_key.clone(),
            limits: ShardLimits::default(),
            tenure: tenure.clone(),
            metered: true,
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
            workers: BTreeMap::from([(SHARD, worker.clone())]),
            place: CopyPlace { log, storage_key },
            reach: Arc::new(move |whom| {
                let line = peers.get().unwrap()[&whom].clone();
                async move { reached(&line).await }.boxed()
            }),
            seat: Arc::new(|node| node),
        };
        let holder = tree.child(Spec::new("holder", move |_| Holder::new(config.clone())));
        let other = if me == OLD { NEW } else { OLD };
        let asks = holder.clone();
        let envoy = tree.child(Spec::new("envoy", move |_| {
            Envoy::new(other, asks.clone(), None)
        }));
        let reads = Arc::new(AtomicU64::new(u64::MAX));
        let (of, left) = (envoy.clone(), reads.clone());
        let line = tree.child(Spec::new("line", move |_| Line {
            envoy: of.clone(),
            reads: left.clone(),
        }));
        let running = tree.start(env.clone());
        running.started().await.unwrap();
        Side {
            tenure,
            map,
            line,
            envoy,
            reads,
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
        self.publish(&channel(), epoch, 1, Bytes::from_static(b"a"))
            .await
    }

    /// The offset of the last record that is durable.
    async fn publish(
        &self,
        channel: &Channel,
        epoch: u64,
        first_seq: u64,
        payload: Bytes,
    ) -> Result<u64, Refusal> {
        let admit = Admit {
            customer: CUSTOMER,
            channel: channel.clone(),
            epoch,
            first_seq,
            payloads: vec![payload],
            publisher: None,
        };
        let stored = self.worker.of().ask(admit, WITHIN).await.unwrap();
        stored.map(|published| published.last_offset)
    }

    /// All payloads of a channel, as the next owner would be shown them.
    async fn payloads(&self, channel: &Channel, up_to: u64) -> Vec<Bytes> {
        let mut found = Vec::new();
        while (found.len() as u64) < up_to {
            let stretch = Stretch {
                channel: channel_id(channel).0,
                after: found.len() as u64,
                up_to,
            };
            let read = ReadShard {
                shard: SHARD,
                map_version: 0,
                stretches: vec![stretch],
                letters: false,
            };
            let read = self.worker.of().ask(read, WITHIN).await.unwrap().unwrap();
            assert_eq!(read.runs[0].first, stretch.after + 1);
            found.extend(read.runs[0].texts.iter().map(|text| text.slice(8..)));
        }
        found
    }

    /// Waits until nothing of the shard is stored here.
    async fn discarded(&self) {
        let counting = async {
            while self.worker.of().ask(CountLeft, WITHIN).await.unwrap() != Ok(0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WITHIN, counting).await.unwrap();
    }

    /// Asks as the new owner, under a map of this version.
    async fn asked(&self, map_version: u64) -> Result<ShardReleased, Refusal> {
        loop {
            let release = ReleaseShard {
                shard: SHARD,
                map_version,
                copied: None,
            };
            match self.envoy.of().ask(release, WITHIN).await.unwrap() {
                // It is starting, or a request of the new owner's own is under way.
                Err(Refusal::Busy) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    }
}

async fn reached(line: &Addr<Line>) -> Result<Counterpart, String> {
    let envoy = line.of::<Whose>().ask(Whose, WITHIN).await;
    let envoy = envoy.map_err(|error| error.to_string())?;
    Ok(Counterpart {
        release: envoy.of(),
        survey: envoy.of(),
        read: line.of(),
        fence: envoy.of(),
        held: envoy.of(),
        link: Box::new(()),
    })
}

/// Which envoy is at the other end.
#[derive(Debug)]
struct Whose;

impl pqcnet_actor::Message for Whose {
    type Reply = Addr<Envoy>;
    const NAME: &'static str = "test.Whose";
}

impl On<Whose> for Line {
    fn on(&mut self, _: Whose, _: &mut Cx<Self>) -> Reply<Whose> {
        Reply::Now(self.envoy.clone())
    }
}

fn channel() -> Channel {
    named("a")
}

fn named(name: &str) -> Channel {
    Channel {
        owner: CUSTOMER,
        name: ChannelName::new(name).unwrap(),
    }
}

fn elsewhere(owner: NodeId, map_version: u64) -> Place {
    Place::Elsewhere(Redirect { owner, map_version })
}

async fn both(env: &Env, place: &tempfile::TempDir) -> (Side, Side) {
    let peers = Peers::default();
    let old = Side::start(env, OLD, place, &peers).await;
    let new = Side::start(env, NEW, place, &peers).await;
    let known = [(OLD, old.line.clone()), (NEW, new.line.clone())];
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

/// Scenario: the shard has a record, and whoever is to have it has no copy. It stays where it is, and is served there.
#[test]
fn a_shard_with_records_is_not_given_without_them() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = both(&env, &place).await;
        let epoch = old.epoch().await.unwrap();
        assert_eq!(old.store(epoch).await, Ok(1));
        old.map.send_replace(map(2, NEW));
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
        // Nobody else is shown what is in it.
        let survey = SurveyShard {
            shard: SHARD,
            map_version: 2,
            after: None,
        };
        let shown = old.envoy.of().ask(survey.clone(), WITHIN).await.unwrap();
        assert_eq!(shown.unwrap().channels.len(), 1);
        old.map.send_replace(map(3, OLD));
        let refused = loop {
            match old.envoy.of().ask(survey.clone(), WITHIN).await.unwrap() {
                Ok(_) => tokio::task::yield_now().await,
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refused, Refusal::NotAllowed);
        old.running.stop().await;
        new.running.stop().await;
    });
}

/// Scenario: a shard of two channels and 90 records of 20 KiB moves, over a link that is cut after two answers and then after one
/// more; what was copied is not copied again. At the new owner the producer goes on where it was, a repeat is known, a superseded epoch stays
/// so, readers may read. The old one discards its copy. The next map brings it back with what was added.
#[test]
fn records_move() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = both(&env, &place).await;
        let payload = |number: u64| Bytes::from(vec![number as u8; 20 << 10]);
        let (a, b) = (named("a"), named("b"));
        let epoch = old.epoch().await.unwrap();
        for number in 1..=60 {
            assert_eq!(
                old.publish(&a, epoch, number, payload(number)).await,
                Ok(number)
            );
        }
        let issue = |channel: &Channel, supersedes| IssueEpoch {
            customer: CUSTOMER,
            channel: channel.clone(),
            supersedes,
        };
        let of_b = old.worker.of().ask(issue(&b, None), WITHIN).await.unwrap();
        let of_b = of_b.unwrap().epoch;
        for number in 1..=30 {
            assert_eq!(
                old.publish(&b, of_b, number, payload(number)).await,
                Ok(number)
            );
        }
        let later = old
            .worker
            .of()
            .ask(issue(&b, Some(of_b)), WITHIN)
            .await
            .unwrap();
        let later = later.unwrap().epoch;
        let reader = NodeId::from_bytes([8; 32]);
        let readers = ReplaceReaders {
            channel: b.clone(),
            readers: vec![reader],
        };
        old.worker.of().ask(readers, WITHIN).await.unwrap().unwrap();
        old.reads.store(2, SeqCst);
        for side in [&old, &new] {
            side.map.send_replace(map(2, NEW));
        }
        for more in [1, u64::MAX] {
            let cut = async {
                while old.reads.load(SeqCst) > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(WITHIN, cut).await.unwrap();
            old.until(Place::Here).await;
            old.reads.store(more, SeqCst);
        }
        new.until(Place::Here).await;
        old.until(elsewhere(NEW, 2)).await;
        // 1.8 MB are four answers of at most 512 KiB: none was read twice.
        assert_eq!(u64::MAX - old.reads.load(SeqCst), 1);
        let opened = new.epoch().await.unwrap();
        assert!(opened > later, "epochs rise with moves");
        assert_eq!(old.store(epoch).await, Err(Refusal::Unavailable));
        assert_eq!(new.publish(&a, epoch, 60, payload(60)).await, Ok(60));
        assert_eq!(
            new.publish(&a, epoch, 62, payload(62)).await,
            Err(Refusal::Gap { expected: 61 })
        );
        assert_eq!(new.publish(&a, epoch, 61, payload(61)).await, Ok(61));
        assert_eq!(
            new.publish(&b, of_b, 31, payload(31)).await,
            Err(Refusal::StaleEpoch)
        );
        assert_eq!(
            new.publish(&b, later, 1, payload(31)).await,
            Err(Refusal::UnknownProducer)
        );
        let survey = SurveyShard {
            shard: SHARD,
            map_version: 2,
            after: None,
        };
        let shown = new.worker.of().ask(survey, WITHIN).await.unwrap().unwrap();
        let readers: Vec<_> = shown
            .channels
            .iter()
            .flat_map(|facts| facts.readers.clone())
            .collect();
        assert_eq!((shown.channels.len(), readers), (2, vec![reader]));
        old.discarded().await;

        for side in [&old, &new] {
            side.map.send_replace(map(3, OLD));
        }
        old.until(Place::Here).await;
        new.discarded().await;
        old.epoch().await.unwrap();
        assert_eq!(old.publish(&a, epoch, 62, payload(62)).await, Ok(62));
        let wanted: Vec<Bytes> = (1..=62).map(payload).collect();
        assert_eq!(old.payloads(&a, 62).await, wanted);
        assert_eq!(old.payloads(&b, 30).await, wanted[..30]);
        old.running.stop().await;
        new.running.stop().await;
    });
}

/// Scenario: a producer publishes all the while as its shard moves there, back and there again. Each record is there once, in order.
#[test]
fn a_shard_moves_under_load() {
    with_env(|env| async move {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = both(&env, &place).await;
        let epoch = old.epoch().await.unwrap();
        let payload = |number: u64| Bytes::from(number.to_be_bytes().to_vec());
        assert_eq!(old.publish(&channel(), epoch, 1, payload(1)).await, Ok(1));
        let mut number = 2;
        for (version, owner) in [(2, NEW), (3, OLD), (4, NEW)] {
            for side in [&old, &new] {
                side.map.send_replace(map(version, owner));
            }
            let (to, others) = if owner == NEW {
                (&new, &old)
            } else {
                (&old, &new)
            };
            let (mut refused, mut there) = (0, 0);
            while there < 20 {
                for side in [others, to] {
                    match side
                        .publish(&channel(), epoch, number, payload(number))
                        .await
                    {
                        Ok(offset) => {
                            assert_eq!(offset, number);
                            number += 1;
                            there += u64::from(std::ptr::eq(side, to));
                        }
                        Err(Refusal::Unavailable | Refusal::Draining) => refused += 1,
                        Err(refusal) => panic!("{refusal}"),
                    }
                    tokio::task::yield_now().await;
                }
            }
            assert!(refused > 0);
        }
        let wanted: Vec<Bytes> = (1..number).map(payload).collect();
        assert_eq!(new.payloads(&channel(), number - 1).await, wanted);
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
