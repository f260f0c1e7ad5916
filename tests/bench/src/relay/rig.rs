//! Shard workers over a real, synced log in this process: a producer and a subscriber a channel, no network.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use hdrhistogram::Histogram;
use pqcnet_actor::{
    Behaviour, Bounds, Cx, Env, Message, On, Pending, Promise, Ref, Reply, Running, Spec, Strategy,
    TellError, Tree, latest,
};
use pqcnet_crypto::{NodeId, StorageMasterKey};
use pqcnet_log::{EmbeddedLog, ShardLog, ShardNo, keys};
use pqcnet_messages::edge::Published;
use pqcnet_messages::relay::{RelayDeliver, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{Admit, Consume, Follow, IssueEpoch};
use pqcnet_messages::{Channel, ChannelName, Refusal, Series, ShardMap};
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{ShardWorker, ShardWorkerConfig, Tenure};
use pqcnet_store::{RocksStore, Schema, StoreConfig};

const OWNER: [u8; 32] = [1; 32];
const RELAYER: [u8; 32] = [2; 32];
/// Only what is broken takes so long.
const WITHIN: Duration = Duration::from_secs(120);
/// Latencies beyond it count as this.
const LONGEST_MICROS: u64 = 600_000_000;
/// As a client's.
const WINDOW_BYTES: u32 = 4 << 20;
/// The one link over which everything is delivered.
const LINK: u64 = 1;
/// Bursts of a fixed rate.
const BURSTS_A_SECOND: u64 = 100;

/// What is published at a time.
#[derive(Clone, Copy)]
pub struct Burst {
    /// Messages on all lanes together.
    pub messages: u64,
    /// Bytes of each.
    pub size: usize,
    /// Messages a publish.
    pub batch: u64,
    /// Publishes of a lane on their way.
    pub in_flight: usize,
}

/// The workers, and who publishes and reads.
pub struct Rig {
    env: Env,
    store: Arc<RocksStore>,
    lanes: Vec<Lane>,
    reader: Ref<Await>,
    delivered: u64,
    running: Running,
}

/// One channel's producer.
struct Lane {
    admit: Ref<Admit>,
    channel: Channel,
    epoch: u64,
    sent: u64,
}

impl Rig {
    /// So many channels over so many shards, in turn, each with a subscriber.
    pub async fn start(env: &Env, path: &Path, shards: u16, channels: usize) -> Result<Rig> {
        let schema = Schema {
            kind: "relay",
            version: keys::VERSION,
            families: keys::FAMILIES.to_vec(),
        };
        let mut config = StoreConfig::new(path, schema);
        config.growing = keys::GROWING.to_vec();
        let store = Arc::new(RocksStore::open(env, config)?);
        let log: Arc<dyn ShardLog> = Arc::new(EmbeddedLog::new(env, store.clone()));
        let storage_key = Arc::new(StorageMasterKey::generate());
        let me = NodeId::from_bytes(RELAYER);
        let map = ShardMap::from_relayers(shards, [me])?;
        let tenure = Arc::new(Tenure::new(me, map, []).map_err(|error| anyhow!("{error:?}"))?);
        let (_tenure, tenure) = latest::channel(tenure);
        let mut tree = Tree::new("bench", Strategy::OneForOne);
        let mut workers = Vec::new();
        for shard in 0..shards {
            let config = ShardWorkerConfig {
                shard: ShardNo(shard),
                log: log.clone(),
                storage_key: storage_key.clone(),
                limits: ShardLimits::default(),
                tenure: tenure.clone(),
                metered: false,
            };
            let spec = Spec::new(format!("shard-{shard}"), move |_| ShardWorker::new(&config));
            workers.push(tree.child(spec.place(shard.into())));
        }
        let consume = (0..channels).map(|lane| workers[lane % workers.len()].of());
        let consume: Vec<Ref<Consume>> = consume.collect();
        let reader = Spec::new("reader", move |_| Reader::new(consume.clone()));
        let reader = tree.child(reader.mailbox(Bounds::request(4096)));
        let running = tree.start(env.clone());
        let mut lanes = Vec::new();
        for lane in 0..channels {
            let worker = &workers[lane % workers.len()];
            let owner = NodeId::from_bytes(OWNER);
            let name = ChannelName::new(&format!("lane-{lane}"))?;
            let channel = Channel { owner, name };
            let epoch = epoch(&worker.of(), &channel).await?;
            let follow = Follow {
                link: LINK,
                subscription: u32::try_from(lane)?,
                customer: owner,
                channel: channel.clone(),
                after: 0,
                window_bytes: WINDOW_BYTES,
                series: Series::NONE,
                countersign: None,
                deliver: reader.of::<RelayDeliver>(),
                ended: reader.of::<RelaySubscriptionEnded>(),
                membership: None,
            };
            let subscribed = worker.of::<Follow>().ask(follow, WITHIN).await?;
            subscribed.map_err(|refusal| anyhow!("{refusal}"))?;
            lanes.push(Lane {
                admit: worker.of(),
                channel,
                epoch,
                sent: 0,
            });
        }
        Ok(Rig {
            env: env.clone(),
            store,
            lanes,
            reader: reader.of(),
            delivered: 0,
            running,
        })
    }

    /// Publishes, each lane as many, and returns how many were acknowledged and delivered once all are.
    pub async fn pass(&mut self, burst: Burst) -> Result<u64> {
        let each = burst.messages / self.lanes.len() as u64;
        let count = each * self.lanes.len() as u64;
        self.delivered += count;
        let tasks = self.lanes.drain(..).map(|mut lane| {
            self.env.task(async move {
                lane.publish(each, burst).await?;
                anyhow::Ok(lane)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            self.lanes.push(task.await.context("a publisher ended")??);
        }
        self.reader.ask(Await(self.delivered), WITHIN).await?;
        Ok(count)
    }

    /// Microseconds from a publish to its delivery, at a fixed rate, the lanes taking turns.
    pub async fn latency(
        &mut self,
        seconds: u64,
        rate: u64,
        size: usize,
    ) -> Result<Histogram<u64>> {
        self.reader.ask(Await(self.delivered), WITHIN).await?;
        let began = self.env.now();
        let (bursts, burst) = (seconds * BURSTS_A_SECOND, rate / BURSTS_A_SECOND);
        let (lanes, mut answers) = (self.lanes.len() as u64, VecDeque::new());
        for number in 0..bursts {
            let at = began + Duration::from_millis(1000 / BURSTS_A_SECOND) * u32::try_from(number)?;
            self.env.sleep(at.saturating_sub(self.env.now())).await;
            for turn in 0..burst.min(lanes) {
                let place = (number * burst + turn) % lanes;
                let count = burst / lanes + u64::from(turn < burst % lanes);
                let lane = &mut self.lanes[usize::try_from(place)?];
                let payload = stamped(self.env.now(), size);
                answers.push_back(lane.admit(vec![payload; usize::try_from(count)?])?);
            }
            while answers.len() > 65_536 {
                let oldest = answers.pop_front().context("there is one")?;
                oldest.await?.map_err(|refusal| anyhow!("{refusal}"))?;
            }
        }
        for answer in answers {
            answer.await?.map_err(|refusal| anyhow!("{refusal}"))?;
        }
        self.delivered += bursts * burst;
        Ok(self.reader.ask(Await(self.delivered), WITHIN).await?)
    }

    /// Synced writes so far.
    pub fn groups(&self) -> u64 {
        self.store.stats().groups
    }

    /// Ends everything.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

impl Lane {
    fn admit(&mut self, payloads: Vec<Bytes>) -> Result<Pending<Result<Published, Refusal>>> {
        let (count, first_seq) = (payloads.len() as u64, self.sent + 1);
        let admit = Admit {
            customer: self.channel.owner,
            channel: self.channel.clone(),
            epoch: self.epoch,
            first_seq,
            payloads,
            publisher: None,
        };
        let answer = self.admit.try_ask(admit, WITHIN);
        let answer = answer.ok().context("a worker's mailbox is full")?;
        self.sent += count;
        Ok(answer)
    }

    async fn publish(&mut self, wanted: u64, burst: Burst) -> Result<()> {
        let payload = Bytes::from(vec![7; burst.size]);
        let goal = self.sent + wanted;
        let mut waiting = VecDeque::new();
        while self.sent < goal || !waiting.is_empty() {
            if self.sent < goal && waiting.len() < burst.in_flight {
                let count = burst.batch.min(goal - self.sent);
                waiting.push_back(self.admit(vec![payload.clone(); usize::try_from(count)?])?);
            } else if let Some(oldest) = waiting.pop_front() {
                oldest.await?.map_err(|refusal| anyhow!("{refusal}"))?;
            }
        }
        Ok(())
    }
}

async fn epoch(worker: &Ref<IssueEpoch>, channel: &Channel) -> Result<u64> {
    loop {
        let ask = IssueEpoch {
            customer: channel.owner,
            channel: channel.clone(),
            supersedes: None,
        };
        match worker.ask(ask, WITHIN).await? {
            Ok(opened) => return Ok(opened.epoch),
            // The shard opens still.
            Err(Refusal::Unavailable) => tokio::task::yield_now().await,
            Err(refusal) => return Err(anyhow!("{refusal}")),
        }
    }
}

fn stamped(now: Duration, size: usize) -> Bytes {
    let mut payload = micros(now).to_be_bytes().to_vec();
    payload.resize(size, 0);
    payload.into()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// To the reader: answer when so many records have come in all, with the latencies of those since the last answer.
struct Await(u64);

impl Message for Await {
    type Reply = Histogram<u64>;
    const NAME: &'static str = "bench.Await";
}

/// Takes every channel's records and consumes them.
struct Reader {
    consume: Vec<Ref<Consume>>,
    counted: u64,
    latency: Histogram<u64>,
    awaited: Option<(u64, Promise<Await>)>,
}

impl Reader {
    fn new(consume: Vec<Ref<Consume>>) -> Reader {
        Reader {
            consume,
            counted: 0,
            latency: histogram(),
            awaited: None,
        }
    }

    fn settle(&mut self) {
        if let Some((_, promise)) = self.awaited.take_if(|(goal, _)| *goal <= self.counted) {
            promise.fulfil(std::mem::replace(&mut self.latency, histogram()));
        }
    }
}

fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "these are bounds of a histogram")]
    Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("a histogram")
}

impl Behaviour for Reader {
    const NAME: &'static str = "Reader";
}

impl On<Await> for Reader {
    fn on(&mut self, msg: Await, _: &mut Cx<Self>) -> Reply<Await> {
        let (promise, reply) = Reply::later();
        self.awaited = Some((msg.0, promise));
        self.settle();
        reply
    }
}

impl On<RelayDeliver> for Reader {
    fn on(&mut self, msg: RelayDeliver, cx: &mut Cx<Self>) -> Reply<RelayDeliver> {
        let now = micros(cx.now());
        for record in &msg.records {
            if let Some(sent) = record.payload.first_chunk() {
                self.latency
                    .saturating_record(now.saturating_sub(u64::from_be_bytes(*sent)));
            }
        }
        self.counted += msg.records.len() as u64;
        if let Some(last) = msg.records.last() {
            let consumed = Consume {
                link: LINK,
                subscription: msg.subscription,
                offset: last.offset,
            };
            let worker = &self.consume[msg.subscription as usize];
            if let Err(TellError::Full(consumed)) = worker.try_tell(consumed) {
                let worker = worker.clone();
                cx.spawn(
                    async move { worker.tell(consumed).await.is_ok() },
                    |_, _, _| {},
                );
            }
        }
        self.settle();
        Reply::Now(())
    }
}

impl On<RelaySubscriptionEnded> for Reader {
    /// The figure would be of something else: whoever waits learns that the reader is gone.
    fn on(
        &mut self,
        msg: RelaySubscriptionEnded,
        cx: &mut Cx<Self>,
    ) -> Reply<RelaySubscriptionEnded> {
        tracing::error!(refusal = %msg.refusal, "a subscription of the bench ended");
        cx.stop();
        Reply::Now(())
    }
}
