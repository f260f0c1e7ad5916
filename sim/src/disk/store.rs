//! The store that an incarnation of a node holds.

use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_store::{Batch, Commit, ReadError, Store, SubmitError, View};
use tokio::sync::Notify;

use super::device::{Device, Next};

/// A [`Store`] on a [`Disk`](super::Disk). Dropping it writes what is queued, unless a crash came first.
pub struct MemStore {
    device: Arc<Device>,
    mount: u64,
}

impl MemStore {
    pub(super) fn new(device: Arc<Device>, mount: u64) -> MemStore {
        MemStore { device, mount }
    }
}

impl Drop for MemStore {
    fn drop(&mut self) {
        self.device.close(self.mount);
    }
}

impl Store for MemStore {
    fn submit(&self, batch: Batch) -> Result<Commit, SubmitError> {
        self.device.submit(self.mount, batch)
    }

    fn view(
        &self,
        read: &mut dyn FnMut(&dyn View) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.device.view(Some(self.mount), read)
    }
}

/// Reads a disk that somebody else may have.
pub(super) struct Reader(pub(super) Arc<Device>);

impl Store for Reader {
    fn submit(&self, batch: Batch) -> Result<Commit, SubmitError> {
        Err(SubmitError::Closed(batch))
    }

    fn view(
        &self,
        read: &mut dyn FnMut(&dyn View) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.0.view(None, read)
    }
}

/// One group after another, until the mount is over.
pub(super) async fn write(device: Arc<Device>, env: Env, mount: u64, news: Arc<Notify>) {
    loop {
        match device.begin(mount) {
            Next::Over => return,
            Next::Wait => news.notified().await,
            Next::Write(takes) => {
                env.sleep(takes).await;
                device.end(mount);
            }
        }
    }
}
