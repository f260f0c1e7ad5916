//! What a role's tree stands on. The production platform is the machine; the simulator brings its own.

use std::path::PathBuf;
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_log::{EmbeddedLog, ShardLog, keys};
use pqcnet_p2p::control::{
    ControlConfig, ControlError, ControlEvents, ControlPlane, Libp2pControl,
};
use pqcnet_p2p::streams::{Streams, TcpStreams};
use pqcnet_store::{OpenError, RocksStore, Schema, StoreConfig};

/// Clock and threads, streams, a control plane, a log.
pub trait Platform: Send + Sync + 'static {
    /// The node's surroundings.
    fn env(&self) -> &Env;
    /// Byte streams for the data plane.
    fn streams(&self) -> Arc<dyn Streams>;
    /// Starts the control plane.
    fn control(
        &self,
        config: ControlConfig,
    ) -> Result<(Arc<dyn ControlPlane>, ControlEvents), PlatformError>;
    /// Opens the shard log; only a relayer asks for it, once.
    fn log(&self) -> Result<Arc<dyn ShardLog>, PlatformError>;
}

/// What a platform could not bring; the machine's or the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The control plane did not start.
    #[error("the control plane does not start: {0}")]
    Control(#[from] ControlError),
    /// The store did not open.
    #[error("the shard log does not open: {0}")]
    Store(#[from] OpenError),
    /// This node was given no place for a log.
    #[error("this node has no store")]
    NoStore,
}

/// The machine: TCP, libp2p, RocksDB.
#[derive(Clone, Debug)]
pub struct Machine {
    env: Env,
    store: Option<PathBuf>,
}

impl Machine {
    /// A platform in this environment, with a folder for its store if the role keeps one.
    pub fn new(env: Env, store: Option<PathBuf>) -> Machine {
        Machine { env, store }
    }
}

impl Platform for Machine {
    fn env(&self) -> &Env {
        &self.env
    }

    fn streams(&self) -> Arc<dyn Streams> {
        Arc::new(TcpStreams)
    }

    fn control(
        &self,
        config: ControlConfig,
    ) -> Result<(Arc<dyn ControlPlane>, ControlEvents), PlatformError> {
        let (plane, events) = Libp2pControl::start(&self.env, config)?;
        Ok((Arc::new(plane), events))
    }

    fn log(&self) -> Result<Arc<dyn ShardLog>, PlatformError> {
        let path = self.store.as_ref().ok_or(PlatformError::NoStore)?;
        let schema = Schema {
            kind: "shard-log",
            version: keys::VERSION,
            families: keys::FAMILIES.to_vec(),
        };
        let config = StoreConfig::new(path, schema);
        let store = RocksStore::open(&self.env, config)?;
        Ok(Arc::new(EmbeddedLog::new(&self.env, Arc::new(store))))
    }
}
