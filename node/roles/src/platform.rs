//! What a role's tree stands on. The production platform is the machine; the simulator brings its own.

use std::path::PathBuf;
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_log::{EmbeddedLog, ShardLog, keys};
use pqcnet_mesh::Shelf;
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
    /// Where the mesh keeps directives and its peer book.
    fn shelf(&self) -> Shelf;
    /// SHA-256 of the program that runs; zeros where there is none.
    fn software_hash(&self) -> [u8; 32];
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
    shelf: Shelf,
}

impl Machine {
    /// A platform in this environment, with a folder for its store if the role keeps one.
    pub fn new(env: Env, store: Option<PathBuf>) -> Machine {
        Machine {
            env,
            store,
            shelf: Shelf::none(),
        }
    }

    /// With a folder for what the mesh keeps.
    #[must_use]
    pub fn with_mesh(mut self, folder: impl Into<PathBuf>) -> Machine {
        self.shelf = Shelf::at(folder);
        self
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

    fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    fn software_hash(&self) -> [u8; 32] {
        let read = std::env::current_exe().and_then(std::fs::read);
        match read {
            Ok(program) => pqcnet_crypto::sha256(&[&program]),
            Err(error) => {
                tracing::warn!(%error, "this program cannot read itself; its advert has no hash");
                [0; 32]
            }
        }
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
