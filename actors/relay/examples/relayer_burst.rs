//! Publishes bursts of 1 KiB messages through real shard workers into a real, synced log, and prints the rate; then the same
//! with what is stored counted for a meter, whose part here is to read every worker's book ten times a second.
//!
//! `cargo run --release -p pqcnet-relay --example relayer_burst -- [messages] [shards] [batch]`
//!
//! One process, no network: what a relayer's disk path can do. Every message is sealed, stored and synced before it
//! counts. Beside it, the same number of messages of the same size straight into the log, without a worker.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::latest;
use pqcnet_actor::{AskError, Env, Ref, Spec, Strategy, Tree};
use pqcnet_crypto::{NodeId, StorageMasterKey};
use pqcnet_log::{AppendBatch, AppendError, Base, ChannelId, EmbeddedLog, ShardLog, ShardNo, keys};
use pqcnet_messages::edge::{ProducerOpened, Published};
use pqcnet_messages::metering::{Reading, TakeVolume};
use pqcnet_messages::relay_local::{Admit, IssueEpoch};
use pqcnet_messages::{Channel, ChannelName, Refusal, ShardMap};
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{ShardWorker, ShardWorkerConfig, Tenure};
use pqcnet_store::{RocksStore, Schema, StoreConfig};

const SIZE: usize = 1024;
/// Publishes of one producer that wait for their answer at a time.
const IN_FLIGHT: usize = 8;
const WITHIN: Duration = Duration::from_secs(60);

fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>().ok());
    let mut number = |default| numbers.next().flatten().unwrap_or(default);
    let (messages, shards, batch) = (number(400_000), number(32), number(100));
    let folder = tempfile::tempdir()?;
    pqcnet_actor::run("relayer_burst", |env| async move {
        let shards = u16::try_from(shards).unwrap_or(32).max(1);
        let (raw, raw_groups) =
            raw(&env, &folder.path().join("raw"), messages, shards, batch).await;
        let path = |name| folder.path().join(name);
        let plain = Load {
            messages,
            shards,
            batch,
            metered: false,
        };
        let (worker, groups) = burst(&env, &path("relay"), plain).await;
        let with_meter = Load {
            metered: true,
            ..plain
        };
        let (metered, _) = burst(&env, &path("metered"), with_meter).await;
        let rate = |took: Duration| messages as f64 / took.as_secs_f64();
        println!("{messages} messages of {SIZE} B, {shards} shards, {batch} a publish, synced");
        println!(
            "log alone:            {:>9.0} messages/s, {raw_groups} synced writes",
            rate(raw)
        );
        println!(
            "shard worker and log: {:>9.0} messages/s, {groups} synced writes",
            rate(worker)
        );
        println!(
            "ratio:                {:>9.2}",
            raw.as_secs_f64() / worker.as_secs_f64()
        );
        println!(
            "the same, metered:    {:>9.0} messages/s, {:+.1} %",
            rate(metered),
            (metered.as_secs_f64() / worker.as_secs_f64() - 1.0) * 100.0
        );
    })
}

fn store(env: &Env, path: &std::path::Path) -> Arc<RocksStore> {
    let schema = Schema {
        kind: "relay",
        version: keys::VERSION,
        families: keys::FAMILIES.to_vec(),
    };
    let mut config = StoreConfig::new(path, schema);
    config.growing = keys::GROWING.to_vec();
    let store = RocksStore::open(env, config);
    Arc::new(store.unwrap_or_else(|error| panic!("{error}")))
}

/// Appends straight to the log, every shard on a task of its own.
async fn raw(
    env: &Env,
    path: &std::path::Path,
    messages: u64,
    shards: u16,
    batch: u64,
) -> (Duration, u64) {
    let store = store(env, path);
    let log = EmbeddedLog::new(env, store.clone());
    let start = env.now();
    let tasks = (0..shards).map(|shard| {
        let log = log.clone();
        env.task(async move {
            let (shard, channel) = (ShardNo(shard), ChannelId([1; 32]));
            let generation = log.open(shard, [0; 16]).await.expect("opens").generation;
            let payload = [7; SIZE];
            let mut base = Base::default();
            while base.head < messages / u64::from(shards) {
                // As many as a worker has waiting: what all its producers' publishes in flight hold.
                let mut next = AppendBatch::new(shard, generation);
                let slot = next.channel(channel, base);
                for _ in 0..batch * IN_FLIGHT as u64 {
                    base.head += 1;
                    next.push(slot, (1, base.head), 0, |_, out| {
                        out.extend_from_slice(&payload)
                    });
                }
                append(&log, next).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("ends well");
    }
    (env.now() - start, store.stats().groups)
}

/// Appends, again and again while the store's queue is full.
async fn append(log: &EmbeddedLog, mut batch: AppendBatch) {
    loop {
        match log.append(batch) {
            Ok(appending) => return appending.await.expect("stored"),
            Err(AppendError::Busy(back)) => batch = back,
            Err(other) => panic!("{other}"),
        }
        tokio::task::yield_now().await;
    }
}

/// What a burst is made of.
#[derive(Clone, Copy)]
struct Load {
    messages: u64,
    shards: u16,
    batch: u64,
    metered: bool,
}

/// The same through shard workers, one producer a shard.
async fn burst(env: &Env, path: &std::path::Path, load: Load) -> (Duration, u64) {
    let Load {
        messages,
        shards,
        batch,
        metered,
    } = load;
    let store = store(env, path);
    let log: Arc<dyn ShardLog> = Arc::new(EmbeddedLog::new(env, store.clone()));
    let storage_key = Arc::new(StorageMasterKey::generate());
    let mut tree = Tree::new("burst", Strategy::OneForOne);
    let mut workers = Vec::new();
    // Every shard is here.
    let me = NodeId::from_bytes([2; 32]);
    let map = ShardMap::from_relayers(shards, [me]).expect("a good map");
    let tenure = Tenure::new(me, map, []).expect("nothing was kept");
    let (_, tenure) = latest::channel(Arc::new(tenure));
    for shard in 0..shards {
        let config = ShardWorkerConfig {
            shard: ShardNo(shard),
            log: log.clone(),
            storage_key: storage_key.clone(),
            limits: ShardLimits::default(),
            tenure: tenure.clone(),
            metered,
        };
        let spec = Spec::new(format!("shard-{shard}"), move |_| ShardWorker::new(&config));
        workers.push(tree.child(spec.place(shard.into())));
    }
    let running = tree.start(env.clone());
    let owner = NodeId::from_bytes([1; 32]);
    let name = ChannelName::new("burst").expect("a good name");
    let channel = Channel { owner, name };
    let mut epochs = Vec::new();
    for worker in &workers {
        epochs.push(epoch(&worker.of(), &channel).await);
    }
    let books: Vec<Ref<TakeVolume>> = workers.iter().map(|worker| worker.of()).collect();
    let start = env.now();
    let metering = metered.then(|| env.task(meter(env.clone(), books)));
    let tasks = workers.iter().zip(epochs).map(|(worker, epoch)| {
        let (worker, channel) = (worker.of::<Admit>(), channel.clone());
        let wanted = messages / u64::from(shards);
        env.task(async move { publish(&worker, &channel, epoch, wanted, batch).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("ends well");
    }
    let took = env.now() - start;
    drop(metering);
    running.stop().await;
    (took, store.stats().groups)
}

/// Reads the books until the workers are gone.
async fn meter(env: Env, books: Vec<Ref<TakeVolume>>) {
    let mut kept = vec![Reading::default(); books.len()];
    loop {
        env.sleep(Duration::from_millis(100)).await;
        for (book, kept) in books.iter().zip(&mut kept) {
            match book.ask(TakeVolume { kept: *kept }, WITHIN).await {
                Ok(Ok(taken)) => *kept = taken.reading,
                Ok(Err(_)) => {}
                Err(_) => return,
            }
        }
    }
}

async fn epoch(worker: &Ref<IssueEpoch>, channel: &Channel) -> u64 {
    let customer = channel.owner;
    loop {
        let channel = channel.clone();
        match worker
            .ask(
                IssueEpoch {
                    customer,
                    channel,
                    supersedes: None,
                },
                WITHIN,
            )
            .await
        {
            Ok(Ok(ProducerOpened { epoch })) => return epoch,
            Ok(Err(Refusal::Unavailable)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn publish(worker: &Ref<Admit>, channel: &Channel, epoch: u64, wanted: u64, batch: u64) {
    let payload = Bytes::from(vec![7; SIZE]);
    let mut waiting = VecDeque::new();
    let mut sent = 0;
    while sent < wanted || !waiting.is_empty() {
        if sent < wanted && waiting.len() < IN_FLIGHT {
            let count = batch.min(wanted - sent);
            let admit = Admit {
                customer: channel.owner,
                channel: channel.clone(),
                epoch,
                first_seq: sent + 1,
                payloads: vec![payload.clone(); count as usize],
                publisher: None,
            };
            sent += count;
            waiting.push_back(worker.try_ask(admit, WITHIN).expect("the mailbox has room"));
        } else if let Some(oldest) = waiting.pop_front() {
            let answer: Result<Result<Published, Refusal>, AskError> = oldest.await;
            answer.expect("answered").expect("stored");
        }
    }
}
