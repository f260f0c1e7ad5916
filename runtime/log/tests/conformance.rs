//! The embedded log does what every [`ShardLog`] must do: see [`rules`].
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

impl Fixture for Embedded {
    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(support::embedded(support::config(dir.path())).0);
        Self { dir, log }
    }

    fn log(&self) -> Arc<dyn ShardLog> {
        self.log.clone()
    }

    fn restarted(self) -> Self {
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
