//! A log on a private RabbitMQ.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pqcnet_actor::Env;
use pqcnet_log::broker::local;
use pqcnet_log::{BrokerConfig, BrokerLog, LogError, Retention, ShardLog, ShardNo, keys};
use pqcnet_store::{RocksStore, Scan, Schema, Store as _, StoreConfig};

use crate::rules::Fixture;
use crate::support::{A, batch, read, soon};

/// The local store of a log on a broker.
pub fn store(env: &Env, path: &Path) -> Arc<RocksStore> {
    let schema = Schema {
        kind: "broker-log",
        version: keys::VERSION,
        families: local::FAMILIES.to_vec(),
    };
    let mut config = StoreConfig::new(path, schema);
    config.reserve_bytes = 0;
    Arc::new(RocksStore::open(env, config).unwrap())
}

/// A log on the broker at this address, its names beginning with `prefix`.
pub fn log(uri: &str, path: &Path, prefix: &str) -> (BrokerLog, Arc<RocksStore>) {
    with(BrokerConfig::new(uri, prefix).unwrap(), path)
}

/// A log by this configuration.
pub fn with(config: BrokerConfig, path: &Path) -> (BrokerLog, Arc<RocksStore>) {
    let env = Env::plain();
    let store = store(&env, path);
    (BrokerLog::new(&env, store.clone(), config), store)
}

/// Ends a log and waits until nothing of it holds its store.
pub async fn over(log: BrokerLog, store: Arc<RocksStore>) {
    drop(log);
    let held = Arc::downgrade(&store);
    drop(store);
    while held.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

pub const S: ShardNo = ShardNo(3);
pub const OTHER: ShardNo = ShardNo(4);

/// A log on a broker that others use too, under names of its own.
pub struct OnBroker {
    pub uri: String,
    pub prefix: String,
    pub dir: tempfile::TempDir,
    pub log: BrokerLog,
    pub store: Arc<RocksStore>,
}

impl OnBroker {
    pub fn new(uri: &str) -> Self {
        OnBroker::keeping(uri, Retention::default())
    }

    pub fn keeping(uri: &str, limits: Retention) -> Self {
        static LOGS: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("test-{}", LOGS.fetch_add(1, Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let mut config = BrokerConfig::new(uri, prefix.as_str()).unwrap();
        config.settings.retention = limits;
        OnBroker::at(config, uri, dir)
    }

    fn at(config: BrokerConfig, uri: &str, dir: tempfile::TempDir) -> Self {
        let prefix = config.settings.prefix.clone();
        let (log, store) = with(config, dir.path());
        Self {
            uri: uri.to_owned(),
            prefix,
            dir,
            log,
            store,
        }
    }

    /// The log of an owner with an empty disk, whose broker is at this address.
    pub async fn elsewhere(self, uri: &str) -> Self {
        let (_, prefix, _) = self.ended().await;
        let config = BrokerConfig::new(uri, prefix).unwrap();
        OnBroker::at(config, uri, tempfile::tempdir().unwrap())
    }

    /// Ends the log and waits until nothing of it holds its store.
    pub async fn ended(self) -> (String, String, tempfile::TempDir) {
        let Self {
            uri,
            prefix,
            dir,
            log,
            store,
        } = self;
        over(log, store).await;
        (uri, prefix, dir)
    }
}

impl Fixture for OnBroker {
    fn log(&self) -> Arc<dyn ShardLog> {
        Arc::new(self.log.clone())
    }

    async fn restarted(self) -> Self {
        let (uri, prefix, dir) = self.ended().await;
        let config = BrokerConfig::new(&uri, prefix).unwrap();
        OnBroker::at(config, &uri, dir)
    }
}

/// Appends these texts behind `head`, each in an append of its own.
pub async fn append_each(log: &BrokerLog, generation: u32, head: u64, texts: &[&str]) {
    for (head, text) in (head..).zip(texts) {
        let appended = log.append(batch(S, generation, A, head, &[text])).unwrap();
        soon(appended).await.unwrap();
    }
}

/// Opens the shard; again as long as it fails, as a worker does.
pub async fn opened(log: &BrokerLog) -> u32 {
    opened_of(log, S).await
}

pub async fn opened_of(log: &BrokerLog, shard: ShardNo) -> u32 {
    soon(async {
        loop {
            if let Ok(opened) = log.open(shard, [7; 16]).await {
                return opened.generation;
            }
        }
    })
    .await
}

/// Opens the shard again and again until it is refused in these words.
pub async fn refused(log: &BrokerLog, words: &str) {
    refused_of(log, S, words).await;
}

pub async fn refused_of(log: &BrokerLog, shard: ShardNo, words: &str) {
    soon(async {
        loop {
            let refused = log.open(shard, [0; 16]).await.unwrap_err();
            if refused.to_string().contains(words) {
                return;
            }
        }
    })
    .await;
}

/// What is read from the beginning, made again while the log says that the broker is busy.
pub async fn all_texts(log: &BrokerLog) -> Vec<String> {
    soon(async {
        loop {
            match read(log, S, A, 0).await {
                Err(LogError::Busy) => {}
                found => return found.unwrap().into_iter().map(|(_, text)| text).collect(),
            }
        }
    })
    .await
}

/// Records of the shard that wait for the broker.
pub fn waiting(store: &RocksStore) -> usize {
    let mut count = 0;
    let range = Scan {
        from: &[],
        to: &[0xff; 16],
    };
    let looked = store.view(&mut |view| {
        view.scan(local::SPILL, range, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
    });
    looked.unwrap();
    count
}

/// Waits until everything is with the broker.
pub async fn drained(store: &RocksStore) {
    soon(async {
        while waiting(store) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
