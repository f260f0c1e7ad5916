//! The conformance suite on RocksDB; `tests/broker.rs` runs it on a RabbitMQ.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod rules;
mod support;

use std::path::Path;
use std::sync::Arc;

use pqcnet_log::{Retention, ShardLog, keys};
use rules::Fixture;

struct Embedded {
    dir: tempfile::TempDir,
    limits: Retention,
    log: Arc<dyn ShardLog>,
}

fn open(path: &Path, limits: Retention) -> Arc<dyn ShardLog> {
    let mut config = support::config(path);
    if limits.is_limited() {
        config.schema.families.push(keys::SEGMENT);
    }
    Arc::new(support::embedded(config).0.retaining(limits))
}

impl Embedded {
    fn fresh() -> Self {
        Embedded::keeping(Retention::default())
    }

    fn keeping(limits: Retention) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), limits);
        Self { dir, limits, log }
    }
}

impl Fixture for Embedded {
    fn log(&self) -> Arc<dyn ShardLog> {
        self.log.clone()
    }

    async fn restarted(self) -> Self {
        let Self { dir, limits, log } = self;
        drop(log);
        let log = open(dir.path(), limits);
        Self { dir, limits, log }
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

macro_rules! run_limits {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                support::soon(rules::limits::$name(Embedded::keeping)).await;
            }
        )+
    };
}

every_limit!(run_limits);
