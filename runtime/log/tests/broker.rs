//! The log on a real RabbitMQ: the conformance suite, a broker and writers that die, two would-be owners. One broker serves
//! all of it, since a broker takes longer to start than all of this to run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod rules;
mod support;
#[path = "support/broker.rs"]
mod private;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pqcnet_log::{BrokerLog, ShardLog};
use pqcnet_store::RocksStore;
use private::Broker;
use rules::Fixture;

/// A log on a broker that others use too, under names of its own.
struct OnBroker {
    uri: String,
    prefix: String,
    dir: tempfile::TempDir,
    log: BrokerLog,
    store: Arc<RocksStore>,
}

impl OnBroker {
    fn new(uri: &str) -> Self {
        static LOGS: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("test-{}", LOGS.fetch_add(1, Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let (log, store) = private::log(uri, dir.path(), &prefix);
        Self {
            uri: uri.to_owned(),
            prefix,
            dir,
            log,
            store,
        }
    }

    /// Ends the log and waits until nothing of it holds its store.
    async fn ended(self) -> (String, String, tempfile::TempDir) {
        let Self {
            uri,
            prefix,
            dir,
            log,
            store,
        } = self;
        drop(log);
        let held = Arc::downgrade(&store);
        drop(store);
        while held.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        (uri, prefix, dir)
    }
}

impl Fixture for OnBroker {
    fn log(&self) -> Arc<dyn ShardLog> {
        Arc::new(self.log.clone())
    }

    async fn restarted(self) -> Self {
        let (uri, prefix, dir) = self.ended().await;
        let (log, store) = private::log(&uri, dir.path(), &prefix);
        Self {
            uri,
            prefix,
            dir,
            log,
            store,
        }
    }
}

macro_rules! in_turn {
    ($($name:ident),+ $(,)?) => {
        /// Every rule, each on a log of its own, one after the other.
        async fn all(uri: &str) {
            $(
                eprintln!("{}", stringify!($name));
                support::soon(rules::$name(OnBroker::new(uri))).await;
            )+
        }
    };
}

every_rule!(in_turn);

// The suite, and what only a broker can do to a log.
#[tokio::test]
async fn the_log_on_a_broker_conforms_and_outlives_it() {
    let broker = Broker::start();
    all(&broker.uri()).await;
}
