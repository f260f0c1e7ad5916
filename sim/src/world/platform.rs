//! The platform of a simulated node.

use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_log::{BrokerLog, BrokerSettings, EmbeddedLog, Naming, ShardLog};
use pqcnet_mesh::Shelf;
use pqcnet_p2p::control::{ControlConfig, ControlEvents, ControlPlane};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::Streams;
use pqcnet_roles::platform::broker_schema;
use pqcnet_roles::{Platform, PlatformError, Storage, log_schema};
use pqcnet_store::{Batch, Store};

use super::NodeNo;
use crate::broker::SimBroker;
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
    /// Where the broker is that the log is on.
    pub(super) broker: Option<Address>,
}

/// Begins the names of streams.
pub(crate) const PREFIX: &str = "sim";

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

    fn storage(&self, naming: Naming) -> Result<Storage, PlatformError> {
        let log: Arc<dyn ShardLog> = match &self.broker {
            None => {
                let store = self.disk.mount(&self.env, &log_schema())?;
                Arc::new(EmbeddedLog::new(&self.env, Arc::new(store)))
            }
            Some(at) => {
                let store = self.disk.mount(&self.env, &broker_schema())?;
                let broker = SimBroker {
                    env: self.env.clone(),
                    streams: self.streams(),
                    at: at.clone(),
                };
                let (store, broker) = (Arc::new(store), Arc::new(broker));
                let mut settings = BrokerSettings::new(PREFIX);
                settings.naming = Some(naming);
                Arc::new(BrokerLog::over(&self.env, store, broker, settings))
            }
        };
        let mut first = Batch::new();
        if self.broker.is_none() {
            pqcnet_meter::disk::put_whole(&mut first);
        }
        let schema = pqcnet_meter::disk::schema();
        let meter = self.disk.mount_meter(&self.env, &schema, &first)?;
        Ok(Storage {
            log,
            store: None,
            meter: meter.map(|meter| Arc::new(meter) as Arc<dyn Store>),
            meter_disk: None,
        })
    }
}
