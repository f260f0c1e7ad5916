//! The conformance suite on RocksDB; `tests/broker.rs` runs it on a RabbitMQ.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod rules;
mod support;

use std::sync::Arc;

use pqcnet_log::ShardLog;
use rules::Fixture;

struct Embedded {
    dir: tempfile::TempDir,
    log: Arc<dyn ShardLog>,
}

impl Embedded {
    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(support::embedded(support::config(dir.path())).0);
        Self { dir, log }
    }
}

impl Fixture for Embedded {
    fn log(&self) -> Arc<dyn ShardLog> {
        self.log.clone()
    }

    async fn restarted(self) -> Self {
        let Self { dir, log } = self;
        drop(log);
        let log = Arc::new(support::embedded(support::config(dir.path())).0);
        Self { dir, log }
    }
}

macro_rules! run {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                support::soon(rules::$name(Embedded::fresh())).await;
            }
        )+
    };
}

every_rule!(run);
