//! What the log's tests share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_log::{
    AppendBatch, Base, ChannelHead, ChannelId, EmbeddedLog, Entries, LogError, ReadRequest,
    ShardLog, ShardNo, keys,
};
use pqcnet_store::{RocksStore, Schema, StoreConfig};

/// Nothing here takes more than some seconds; what takes so long never ends, and must fail instead of hanging.
pub const SOON: Duration = Duration::from_secs(60);

/// What `future` gives, or a failed test.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    let within = tokio::time::timeout(SOON, future).await;
    within.expect("it is over within a minute, or never")
}

pub const A: ChannelId = ChannelId([0xaa; 32]);
pub const B: ChannelId = ChannelId([0xbb; 32]);

pub fn config(path: &Path) -> StoreConfig {
    let schema = Schema {
        kind: "relay",
        version: keys::VERSION,
        families: keys::FAMILIES.to_vec(),
    };
    let mut config = StoreConfig::new(path, schema);
    config.reserve_bytes = 0;
    config.growing = keys::GROWING.to_vec();
    config
}

/// A log, and the store under it.
pub fn embedded(config: StoreConfig) -> (EmbeddedLog, Arc<RocksStore>) {
    let env = Env::plain();
    let store = Arc::new(RocksStore::open(&env, config).unwrap());
    (EmbeddedLog::new(&env, store.clone()), store)
}

/// A probe that lets the store's writer pass only when told.
pub fn gate(config: &mut StoreConfig) -> (mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let (arrived_tx, arrived) = mpsc::sync_channel(1024);
    let (pass, pass_rx) = mpsc::sync_channel(1024);
    let pass_rx = Mutex::new(pass_rx);
    // Whoever asks passes the gate, and an opening would for these.
    config.growing.clear();
    config.free_space = Arc::new(move |_| {
        arrived_tx.send(()).ok();
        // A test that fails closes the store before it lets go of this: the writer must not wait for that for ever.
        pass_rx.lock().recv_timeout(SOON).ok();
        None
    });
    (arrived, pass)
}

/// Texts for one channel under epoch 1, sequences and offsets alike, after `head`.
pub fn batch(
    shard: ShardNo,
    generation: u32,
    channel: ChannelId,
    head: u64,
    texts: &[&str],
) -> AppendBatch {
    let mut batch = AppendBatch::new(shard, generation);
    let slot = batch.channel(
        channel,
        Base {
            head,
            ..Base::default()
        },
    );
    for (sequence, text) in (head + 1..).zip(texts) {
        let at_ms = 1000 + sequence;
        batch.push(slot, (1, sequence), at_ms, |_, out| {
            out.extend_from_slice(text.as_bytes())
        });
    }
    batch
}

pub fn all_of(shard: ShardNo, channel: ChannelId, after: u64) -> ReadRequest {
    ReadRequest {
        shard,
        channel,
        after,
        max_records: 1000,
        max_bytes: 1 << 20,
    }
}

pub fn texts(entries: &Entries) -> Vec<(u64, String)> {
    let count = entries.items.len();
    (0..count)
        .filter_map(|i| entries.get(i))
        .map(|(offset, bytes)| (offset, String::from_utf8_lossy(bytes).into_owned()))
        .collect()
}

pub async fn read(
    log: &dyn ShardLog,
    shard: ShardNo,
    channel: ChannelId,
    after: u64,
) -> Result<Vec<(u64, String)>, LogError> {
    Ok(texts(&log.read(all_of(shard, channel, after)).await?))
}

pub async fn head(log: &dyn ShardLog, shard: ShardNo, channel: ChannelId) -> Option<ChannelHead> {
    let heads = log.heads(shard).await.unwrap();
    heads.into_iter().find(|h| h.channel == channel)
}
