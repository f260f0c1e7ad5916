//! The production log on the simulated disk does what every shard log must.

use std::sync::Arc;

use pqcnet_actor::{Env, simulate};
use pqcnet_log::{EmbeddedLog, ShardLog};
use pqcnet_roles::log_schema;
use pqcnet_sim::disk::{Disk, DiskConfig};

use crate::log_rules::{self as rules, Fixture};

struct OnDisk {
    env: Env,
    disk: Disk,
    log: Arc<dyn ShardLog>,
}

fn open(env: &Env, disk: &Disk) -> Arc<dyn ShardLog> {
    let store = disk.mount(env, &log_schema()).unwrap();
    Arc::new(EmbeddedLog::new(env, Arc::new(store)))
}

impl OnDisk {
    fn fresh() -> Self {
        let env = Env::simulated(1, "node");
        let disk = Disk::new("node", DiskConfig::default(), env.rng("disk"));
        let log = open(&env, &disk);
        OnDisk { env, disk, log }
    }
}

impl Fixture for OnDisk {
    fn log(&self) -> Arc<dyn ShardLog> {
        self.log.clone()
    }

    async fn restarted(self) -> Self {
        let OnDisk { env, disk, log } = self;
        drop(log);
        let log = open(&env, &disk);
        OnDisk { env, disk, log }
    }
}

macro_rules! run {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                simulate(|| async { rules::$name(OnDisk::fresh()).await });
            }
        )+
    };
}

every_rule!(run);
