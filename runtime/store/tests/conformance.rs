//! RocksDB does what every [`Store`] must do: see [`rules`].
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod rules;

use std::path::Path;
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_store::{RocksStore, Schema, Store, StoreConfig};
use rules::Fixture;

struct Rocks {
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
}

fn open(path: &Path) -> Arc<dyn Store> {
    let schema = Schema {
        kind: "test",
        version: 1,
        families: rules::FAMILIES.to_vec(),
    };
    let mut config = StoreConfig::new(path, schema);
    config.reserve_bytes = 0;
    config.queue_bytes = rules::QUEUE_BYTES;
    Arc::new(RocksStore::open(&Env::plain(), config).unwrap())
}

impl Fixture for Rocks {
    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Rocks { dir, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn reopened(self) -> Self {
        let Rocks { dir, store } = self;
        drop(store);
        let store = open(dir.path());
        Rocks { dir, store }
    }
}

macro_rules! run {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                rules::$name(Rocks::fresh()).await;
            }
        )+
    };
}

every_rule!(run);
