//! What a role's tree stands on. The production platform is the machine; the simulator brings its own.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_log::broker::local;
use pqcnet_log::{
    BrokerConfig, BrokerLog, EmbeddedLog, Naming, Retention, ShardLog, ShardNo, keys,
};
use pqcnet_mesh::Shelf;
use pqcnet_messages::ShardMap;
use pqcnet_p2p::control::{
    ControlConfig, ControlError, ControlEvents, ControlPlane, Libp2pControl,
};
use pqcnet_p2p::streams::{Streams, TcpStreams};
use pqcnet_store::{Batch, FreeSpace, OpenError, RocksStore, Schema, Store, StoreConfig};

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
    /// Opens the shard log; only a relayer asks for it, once. On a broker its streams are called like this.
    fn storage(&self, naming: Naming) -> Result<Storage, PlatformError>;
}

/// What the streams of the relayer in this seat are called, where the network file's map is this.
pub fn naming(first: &ShardMap, seat: NodeId) -> Naming {
    Naming {
        owner: seat.to_string(),
        firsts: first.owned_by(seat).map(|shard| ShardNo(shard.0)).collect(),
    }
}

/// A relayer's log, and the disk under it where there is one.
#[derive(Clone)]
pub struct Storage {
    /// The log.
    pub log: Arc<dyn ShardLog>,
    /// Its store; a simulator has none.
    pub store: Option<Arc<RocksStore>>,
    /// Where its meter keeps windows, a store of its own.
    pub meter: Option<Arc<dyn Store>>,
    /// The same where it is on a disk, to be copied.
    pub meter_disk: Option<Arc<RocksStore>>,
}

/// The meter's folder in the store's.
pub(crate) const METER: &str = "meter";
const METER_TABLES_BYTES: usize = 8 << 20;

/// How the store of a shard log is laid out: for relayers, and for whoever checks or copies their stores.
pub fn log_schema() -> Schema {
    Schema {
        kind: "shard-log",
        version: keys::VERSION,
        families: keys::FAMILIES.to_vec(),
    }
}

/// The same of a log whose entries are on a broker: what its store holds makes sense only with those.
pub fn broker_schema() -> Schema {
    Schema {
        kind: "broker-log",
        version: keys::VERSION,
        families: local::FAMILIES.to_vec(),
    }
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
    /// The meter's store opened and took nothing.
    #[error("the meter's store takes nothing: {0}")]
    Meter(String),
}

/// The machine: TCP, libp2p, RocksDB, and a RabbitMQ where it is told of one.
#[derive(Clone)]
pub struct Machine {
    env: Env,
    store: Option<PathBuf>,
    broker: Option<BrokerConfig>,
    shelf: Shelf,
    reserve_bytes: Option<u64>,
    retention: Retention,
    free_space: Option<FreeSpace>,
}

impl Machine {
    /// A platform in this environment, with a folder for its store if the role keeps one.
    pub fn new(env: Env, store: Option<PathBuf>) -> Machine {
        Machine {
            env,
            store,
            broker: None,
            shelf: Shelf::none(),
            reserve_bytes: None,
            retention: Retention::default(),
            free_space: None,
        }
    }

    /// With the shard log on this broker; the store keeps what the log needs beside it.
    #[must_use]
    pub fn with_broker(mut self, broker: BrokerConfig) -> Machine {
        self.broker = Some(broker);
        self
    }

    /// With a store that keeps so many bytes of its disk free.
    #[must_use]
    pub fn with_reserve(mut self, bytes: u64) -> Machine {
        self.reserve_bytes = Some(bytes);
        self
    }

    /// With limits to what the log in its store keeps.
    #[must_use]
    pub fn with_retention(mut self, limits: Retention) -> Machine {
        self.retention = limits;
        self
    }

    /// With another measure of the store's disk than the file system's own.
    #[must_use]
    pub fn with_free_space(mut self, measure: FreeSpace) -> Machine {
        self.free_space = Some(measure);
        self
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
        match hash_of_program() {
            Ok(hash) => hash,
            Err(error) => {
                tracing::warn!(%error, "this program cannot read itself; its advert has no hash");
                [0; 32]
            }
        }
    }

    fn storage(&self, naming: Naming) -> Result<Storage, PlatformError> {
        let path = self.store.as_ref().ok_or(PlatformError::NoStore)?;
        let mut schema = match &self.broker {
            Some(_) => broker_schema(),
            None => log_schema(),
        };
        if self.broker.is_none() && self.retention.is_limited() {
            schema.families.push(keys::SEGMENT);
        }
        let mut config = StoreConfig::new(path, schema);
        if self.broker.is_none() {
            config.growing = keys::GROWING.to_vec();
        }
        if let Some(reserve) = self.reserve_bytes {
            config.reserve_bytes = reserve;
        }
        if let Some(free_space) = &self.free_space {
            config.free_space = free_space.clone();
        }
        let store = Arc::new(RocksStore::open(&self.env, config)?);
        let log: Arc<dyn ShardLog> = match &self.broker {
            Some(broker) => {
                let mut broker = broker.clone();
                broker.settings.naming = Some(naming);
                Arc::new(BrokerLog::new(&self.env, store.clone(), broker))
            }
            None => {
                let log = EmbeddedLog::new(&self.env, store.clone());
                Arc::new(log.retaining(self.retention))
            }
        };
        // Beside the log's own database, so that either can be looked at, copied or begun anew without the other.
        let mut config = StoreConfig::new(path.join(METER), pqcnet_meter::disk::schema());
        config.reserve_bytes = self.reserve_bytes.unwrap_or(config.reserve_bytes);
        if let Some(free_space) = &self.free_space {
            config.free_space = free_space.clone();
        }
        // A window is some kilobytes; most meters never fill this.
        config.tables_bytes = METER_TABLES_BYTES;
        let meter = RocksStore::open(&self.env, config)?;
        // What a broker has may be older than both.
        if store.is_new() && meter.is_new() && self.broker.is_none() {
            let mut batch = Batch::new();
            pqcnet_meter::disk::put_whole(&mut batch);
            let unmade = |error: &dyn std::fmt::Display| PlatformError::Meter(error.to_string());
            let commit = meter.submit(batch).map_err(|error| unmade(&error))?;
            futures::executor::block_on(commit).map_err(|error| unmade(&error))?;
        }
        let meter = Arc::new(meter);
        Ok(Storage {
            log,
            store: Some(store),
            meter: Some(meter.clone()),
            meter_disk: Some(meter),
        })
    }
}

fn hash_of_program() -> std::io::Result<[u8; 32]> {
    let mut program = std::fs::File::open(std::env::current_exe()?)?;
    let (mut hash, mut chunk) = (pqcnet_crypto::Sha256::new(), vec![0; 256 * 1024]);
    loop {
        match program.read(&mut chunk)? {
            0 => return Ok(hash.finish()),
            len => hash.update(&chunk[..len]),
        }
    }
}
