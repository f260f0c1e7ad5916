//! Fails with the store's writer, so that a node whose store can never be written again does not go on as if it could.
//!
//! A panic of the writer thread is a bug, and the store takes nothing more. This actor then panics too, each time it is
//! started again, until its supervisors give up: the process ends with code 1, the service manager starts it anew, and the
//! log is recovered from the disk. Started by: the relayer, first. Mailbox: nothing is sent to it.

use std::sync::Arc;

use pqcnet_actor::{Behaviour, Cx};
use pqcnet_store::{RocksStore, WriterEnd};

/// The actor.
pub struct StoreKeeper {
    store: Arc<RocksStore>,
}

impl StoreKeeper {
    /// Keeps a store that is open.
    pub fn new(store: Arc<RocksStore>) -> StoreKeeper {
        StoreKeeper { store }
    }
}

impl Behaviour for StoreKeeper {
    const NAME: &'static str = "StoreKeeper";

    fn started(&mut self, cx: &mut Cx<Self>) {
        cx.spawn(self.store.writer_ended(), |keeper, end, _| match end {
            WriterEnd::Closed => {}
            WriterEnd::Panicked => panic!(
                "the writer of {} panicked: nothing can be stored before a restart",
                keeper.store.path().display()
            ),
        });
    }

    fn describe(&self) -> String {
        let stats = self.store.stats();
        let (groups, failures) = (stats.groups, stats.failures);
        format!(
            "{}: {groups} synced writes, {failures} failed",
            self.store.path().display()
        )
    }
}
