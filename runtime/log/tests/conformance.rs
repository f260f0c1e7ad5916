//! The conformance suite on RocksDB; `tests/broker.rs` runs it on a RabbitMQ.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use pqcnet_log::ShardLog;
use support::conformance::{Fixture, all};

struct Embedded {
    dir: tempfile::TempDir,
    log: Arc<dyn ShardLog>,
}

impl Embedded {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(support::embedded(support::config(dir.path())).0);
        Self { dir, log }
    }
}

impl Fixture for Embedded {
    fn fresh(&self) -> Self {
        Self::new()
    }

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

// The suite on RocksDB.
#[tokio::test]
async fn the_embedded_log_conforms() {
    all(Embedded::new()).await;
}
