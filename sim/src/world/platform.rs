//! The platform of a simulated node.

use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_log::EmbeddedLog;
use pqcnet_mesh::Shelf;
use pqcnet_p2p::control::{ControlConfig, ControlEvents, ControlPlane};
use pqcnet_p2p::streams::Streams;
use pqcnet_roles::{Platform, PlatformError, Storage, log_schema};

use super::NodeNo;
use crate::control::SimControl;
use crate::disk::Disk;
use crate::net::{Net, SimStreams};

/// What one start of a node stands on.
#[derive(Clone)]
pub struct SimPlatform {
    pub(super) env: Env,
    pub(super) node: NodeNo,
    pub(super) net: Net,
    pub(super) disk: Disk,
}

impl SimPlatform {
    /// The node's place in the network.
    pub fn net(&self) -> &Net {
        &self.net
    }
}

impl Platform for SimPlatform {
    fn env(&self) -> &Env {
        &self.env
    }

    fn streams(&self) -> Arc<dyn Streams> {
        Arc::new(SimStreams::new(self.net.clone(), self.node))
    }

    fn control(
        &self,
        config: ControlConfig,
    ) -> Result<(Arc<dyn ControlPlane>, ControlEvents), PlatformError> {
        let (plane, events) = SimControl::start(&self.env, self.net.clone(), self.node, config)?;
        Ok((Arc::new(plane), events))
    }

    fn shelf(&self) -> Shelf {
        self.disk.shelf()
    }

    fn software_hash(&self) -> [u8; 32] {
        // A simulated node is no program on a disk.
        [0; 32]
    }

    fn storage(&self) -> Result<Storage, PlatformError> {
        let store = Arc::new(self.disk.mount(&self.env, &log_schema())?);
        Ok(Storage {
            log: Arc::new(EmbeddedLog::new(&self.env, store)),
            store: None,
            meter: None,
        })
    }
}
