//! The production log on the simulated disk does what every shard log must.

#[macro_use]
#[path = "../../../runtime/log/tests/rules/mod.rs"]
mod rules;

use std::sync::Arc;

use pqcnet_actor::{Env, simulate};
use pqcnet_log::{EmbeddedLog, ShardLog};
use pqcnet_roles::log_schema;
use pqcnet_sim::disk::{Disk, DiskConfig};
use rules::Fixture;

struct OnDisk {
    env: Env,
    disk: Disk,
    log: Arc<dyn ShardLog>,
}

fn open(env: &Env, disk: &Disk) -> Arc<dyn ShardLog> {
    let store = disk.mount(env, &log_schema()).unwrap();
    Arc::new(EmbeddedLog::new(env, Arc::new(store)))
}

impl Fixture for OnDisk {
    fn fresh() -> Self {
        let env = Env::simulated(1, "node");
        let disk = Disk::new("node", DiskConfig::default(), env.rng("disk"));
        let log = open(&env, &disk);
        OnDisk { env, disk, log }
    }

    fn log(&self) -> Arc<dyn ShardLog> {
        self.log.clone()
    }

    fn restarted(self) -> Self {
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
