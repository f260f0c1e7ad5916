//! A node's disk, as the node and the world have it.

use std::sync::Arc;

use pqcnet_actor::{Env, StreamRng};
use pqcnet_mesh::Shelf;
use pqcnet_store::{Batch, OpenError, Schema, Store};

use super::device::{Crashed, Device, DiskConfig, DiskCounts};
use super::shelf::Files;
use super::store::{MemStore, Reader};

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    log: Arc<Device>,
    /// A second store beside the log's, with a writer of its own. What befalls the disk befalls both.
    meter: Option<Arc<Device>>,
}

impl Disk {
    /// An empty disk. `name` stands in errors; `rng` is its dice.
    pub fn new(name: impl Into<String>, config: DiskConfig, rng: StreamRng) -> Disk {
        Disk {
            log: Device::new(name.into(), config, rng),
            meter: None,
        }
    }

    /// With room for a meter's store beside the log's; `rng` is its own dice.
    #[must_use]
    pub fn with_meter(mut self, config: DiskConfig, rng: StreamRng) -> Disk {
        let name = format!("{}/meter", self.log.name());
        self.meter = Some(Device::new(name, config, rng));
        self
    }

    fn both(&self) -> impl Iterator<Item = &Arc<Device>> {
        [&self.log].into_iter().chain(&self.meter)
    }

    /// Opens the store on it, for one incarnation of its node; the writer runs on `env`.
    ///
    /// # Errors
    /// Another incarnation has it open, or it holds another kind or version.
    pub fn mount(&self, env: &Env, schema: &Schema) -> Result<MemStore, OpenError> {
        self.log.mount(env, schema, None)
    }

    /// Opens the meter's store, if there is one; a new one begins with what is in `first`.
    ///
    /// # Errors
    /// As [`Disk::mount`].
    pub fn mount_meter(
        &self,
        env: &Env,
        schema: &Schema,
        first: &Batch,
    ) -> Result<Option<MemStore>, OpenError> {
        let meter = self.meter.as_ref();
        meter
            .map(|meter| meter.mount(env, schema, Some(first)))
            .transpose()
    }

    /// Where the mesh keeps its files.
    pub fn shelf(&self) -> Shelf {
        Shelf::over(Arc::new(Files(self.log.clone())))
    }

    /// Takes the disk away from its node in mid-flow; says what became of the log's store. The stores mounted before are closed
    /// from now on.
    pub fn crash(&self) -> Crashed {
        if let Some(meter) = &self.meter {
            meter.crash();
        }
        self.log.crash()
    }

    /// Reads what is durable, whoever has the disk: for checks.
    pub fn reader(&self) -> Arc<dyn Store> {
        Arc::new(Reader(self.log.clone()))
    }

    /// The same of the meter's store.
    pub fn meter_reader(&self) -> Option<Arc<dyn Store>> {
        let meter = self.meter.clone()?;
        Some(Arc::new(Reader(meter)))
    }

    /// Writes fail for lack of room while more than this is in use; see [`DiskConfig::capacity`].
    pub fn set_capacity(&self, bytes: u64) {
        self.both().for_each(|device| device.set_capacity(bytes));
    }

    /// Leaves no room at all, or what its configuration says.
    pub fn set_full(&self, full: bool) {
        self.both().for_each(|device| device.set_full(full));
    }

    /// Every write takes so many times as long; 1 as made.
    pub fn set_slowdown(&self, times: u32) {
        self.both().for_each(|device| device.set_slowdown(times));
    }

    /// Begins no write while stalled; one that is under way ends.
    pub fn set_stalled(&self, stalled: bool) {
        self.both().for_each(|device| device.set_stalled(stalled));
    }

    /// The next so many synced writes fail, of each store.
    pub fn fail_writes(&self, writes: u32) {
        self.both().for_each(|device| device.fail_writes(writes));
    }

    /// Says from now on that it synced, and does not; or tells the truth again, and has synced everything.
    pub fn set_lying(&self, lying: bool) {
        self.both().for_each(|device| device.set_lying(lying));
    }

    /// Bytes that may still be written, the reserve among them.
    pub fn free_bytes(&self) -> u64 {
        self.log.free_bytes()
    }

    /// Bytes in use, but for the meter's.
    pub fn used_bytes(&self) -> u64 {
        self.log.used_bytes()
    }

    /// Batches and bytes that wait for the log's writer.
    pub fn backlog(&self) -> (usize, usize) {
        self.log.backlog()
    }

    /// Counts of the log's store so far.
    pub fn counts(&self) -> DiskCounts {
        self.log.counts()
    }
}
