//! What a stopped relayer left on its disk, read without it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use pqcnet_actor::Env;
use pqcnet_crypto::{StorageMasterKey, random};
use pqcnet_log::{BrokerConfig, BrokerLog, EmbeddedLog, ReadRequest, ShardLog, ShardNo};
use pqcnet_messages::{Channel, ShardId};
use pqcnet_relay::core::channel::channel_id;
use pqcnet_relay::core::seal::ShardKeys;
use pqcnet_roles::log_schema;
use pqcnet_roles::platform::broker_schema;
use pqcnet_store::{RocksStore, StoreConfig};

/// Records read at once.
const PAGE: usize = 500;
/// A record's text starts with the time it was stored.
const TIME: usize = 8;

/// A relayer's store.
pub struct Disk {
    log: Arc<dyn ShardLog>,
    storage: StorageMasterKey,
    keys: BTreeMap<ShardId, ShardKeys>,
}

impl Disk {
    /// Opens the store in `folder`, which no process may use.
    pub fn open(folder: &Path, storage: StorageMasterKey) -> Result<Disk> {
        let env = Env::plain();
        let config = StoreConfig::new(folder.join("store"), log_schema());
        let store = Arc::new(RocksStore::open(&env, config)?);
        let log = Arc::new(EmbeddedLog::new(&env, store));
        Ok(Disk::of(log, storage))
    }

    /// The same of a relayer whose records are on a broker.
    pub fn on_broker(
        folder: &Path,
        storage: StorageMasterKey,
        broker: BrokerConfig,
    ) -> Result<Disk> {
        let env = Env::plain();
        let config = StoreConfig::new(folder.join("store"), broker_schema());
        let store = Arc::new(RocksStore::open(&env, config)?);
        let log = Arc::new(BrokerLog::new(&env, store, broker));
        Ok(Disk::of(log, storage))
    }

    fn of(log: Arc<dyn ShardLog>, storage: StorageMasterKey) -> Disk {
        Disk {
            log,
            storage,
            keys: BTreeMap::new(),
        }
    }

    /// Every record of a channel: offset and payload, unsealed.
    pub async fn records(
        &mut self,
        shard: ShardId,
        channel: &Channel,
    ) -> Result<Vec<(u64, Bytes)>> {
        let number = ShardNo(shard.0);
        if !self.keys.contains_key(&shard) {
            let opened = self.log.open(number, random::bytes()).await?;
            let mut keys = ShardKeys::new(self.storage.expose(), number);
            keys.begin(opened.generation, &opened.salts);
            self.keys.insert(shard, keys);
        }
        let keys = self.keys.get_mut(&shard).context("opened above")?;
        let id = channel_id(channel);
        let mut records: Vec<(u64, Bytes)> = Vec::new();
        loop {
            let request = ReadRequest {
                shard: number,
                channel: id,
                after: records.last().map_or(0, |(offset, _)| *offset),
                max_records: PAGE,
                max_bytes: 1 << 20,
            };
            let mut entries = self.log.read(request).await?;
            if entries.items.is_empty() {
                return Ok(records);
            }
            for (offset, place) in &entries.items {
                let sealed = &mut entries.buffer[place.clone()];
                let text = keys.open(&id, *offset, sealed)?;
                records.push((*offset, Bytes::copy_from_slice(&sealed[text][TIME..])));
            }
        }
    }
}

/// The files under `folder` that contain `text`.
pub fn files_with(folder: &Path, text: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, text)?);
        } else if fs::read(&path)?
            .windows(text.len())
            .any(|window| window == text)
        {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search that finds nothing proves nothing unless it finds what is there.
    #[test]
    fn text_in_clear_is_found() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("log"), b"..secret..").unwrap();
        fs::write(place.path().join("other"), b"secre").unwrap();
        assert_eq!(
            files_with(place.path(), b"secret").unwrap(),
            [inner.join("log")]
        );
    }
}
