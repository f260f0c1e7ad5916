//! The simulated disk does what every store must: the rules are those that RocksDB runs.

#[macro_use]
#[path = "../../../runtime/store/tests/rules/mod.rs"]
mod rules;

use std::sync::Arc;

use pqcnet_actor::{Env, simulate};
use pqcnet_sim::disk::{Disk, DiskConfig};
use pqcnet_store::{Schema, Store};
use rules::Fixture;

struct InMemory {
    env: Env,
    disk: Disk,
    store: Arc<dyn Store>,
}

fn mount(env: &Env, disk: &Disk) -> Arc<dyn Store> {
    let schema = Schema {
        kind: "test",
        version: 1,
        families: rules::FAMILIES.to_vec(),
    };
    Arc::new(disk.mount(env, &schema).unwrap())
}

impl Fixture for InMemory {
    fn fresh() -> Self {
        let env = Env::simulated(1, "node");
        let config = DiskConfig {
            queue_bytes: rules::QUEUE_BYTES,
            ..DiskConfig::default()
        };
        let disk = Disk::new("node", config, env.rng("disk"));
        let store = mount(&env, &disk);
        InMemory { env, disk, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn reopened(self) -> Self {
        let InMemory { env, disk, store } = self;
        drop(store);
        let store = mount(&env, &disk);
        InMemory { env, disk, store }
    }
}

macro_rules! run {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                simulate(|| async { rules::$name(InMemory::fresh()).await });
            }
        )+
    };
}

every_rule!(run);
