//! A log on a private RabbitMQ.

use std::path::Path;
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_log::broker::local;
use pqcnet_log::{BrokerConfig, BrokerLog, keys};
use pqcnet_store::{RocksStore, Schema, StoreConfig};

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
