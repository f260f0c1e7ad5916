//! A node of the world, through its starts and ends.

use std::sync::Arc;

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_crypto::{NodeKeys, StorageMasterKey};
use pqcnet_roles::{StartError, Started};

use super::config::NodeSpec;
use super::cpu::Cpu;
use crate::broker::Shelf;
use crate::disk::Disk;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Not running.
    Down,
    /// Its role starts.
    Starting,
    /// It runs.
    Up,
    /// It closes its links and stops.
    Stopping,
    /// Its role did not start, or its tree has given up.
    Failed,
}

/// One start of a node.
pub(super) struct Life {
    pub(super) env: Env,
    pub(super) shared: Arc<Mutex<Progress>>,
}

/// What becomes of a start.
pub(super) struct Progress {
    pub(super) state: NodeState,
    pub(super) started: Option<Started>,
    pub(super) error: Option<StartError>,
}

pub(super) struct Node {
    pub(super) spec: NodeSpec,
    pub(super) keys: Arc<NodeKeys>,
    pub(super) disk: Disk,
    /// What its broker keeps, if it runs one.
    pub(super) shelf: Option<Arc<Mutex<Shelf>>>,
    pub(super) cpu: Arc<Mutex<Cpu>>,
    pub(super) boots: u32,
    pub(super) life: Option<Life>,
}

impl Node {
    pub(super) fn state(&self) -> NodeState {
        match &self.life {
            Some(life) => life.shared.lock().state,
            None => NodeState::Down,
        }
    }

    /// The same key at every start.
    pub(super) fn storage_key(&self, seed: u64) -> StorageMasterKey {
        let name = &self.spec.name;
        let stream = super::stream_of(seed, name, "", "storage key");
        super::sources::lend(stream, StorageMasterKey::generate)
    }
}
