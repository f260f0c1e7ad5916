//! What a world's nodes have.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_actor::{Env, StreamRng};
use pqcnet_client::ClientConfig;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_log::{BrokerSettings, ShardNo};
use pqcnet_messages::ShardMap;
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::Streams;
use pqcnet_roles::Metering;
use pqcnet_roles::platform::naming;

use super::{DATA_PORT, World};
use crate::broker::Shelf;
use crate::disk::Disk;
use crate::net::SimStreams;
use crate::world::{NodeNo, NodeSpec, PREFIX, WorldError, stream_of};

impl World {
    /// Nodes of this world.
    pub fn nodes(&self) -> impl Iterator<Item = NodeNo> + use<> {
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        (0..count).map(NodeNo)
    }

    /// What a node was made from.
    ///
    /// # Panics
    /// There is no such node.
    pub fn spec(&self, node: NodeNo) -> &NodeSpec {
        &self.nodes[node.index()].spec
    }

    /// The node of this name.
    pub fn find(&self, name: &str) -> Option<NodeNo> {
        self.nodes()
            .find(|node| self.spec(*node).name.as_str() == name)
    }

    /// A node's environment, while it runs.
    pub fn env(&self, node: NodeNo) -> Option<Env> {
        let life = self.nodes.get(node.index())?.life.as_ref()?;
        Some(life.env.clone())
    }

    /// A node's keys.
    ///
    /// # Panics
    /// There is no such node.
    pub fn keys(&self, node: NodeNo) -> Arc<NodeKeys> {
        self.nodes[node.index()].keys.clone()
    }

    /// A node's id.
    ///
    /// # Panics
    /// There is no such node.
    pub fn id(&self, node: NodeNo) -> NodeId {
        self.nodes[node.index()].keys.node_id()
    }

    /// A node's byte streams.
    pub fn streams(&self, node: NodeNo) -> Arc<dyn Streams> {
        Arc::new(SimStreams::new(self.net.clone(), node))
    }

    /// A node's disk.
    ///
    /// # Panics
    /// There is no such node.
    pub fn disk(&self, node: NodeNo) -> &Disk {
        &self.nodes[node.index()].disk
    }

    /// How relayers meter.
    pub fn metering(&self) -> Option<Metering> {
        self.metering
    }

    /// The node with the broker on which this one's log is.
    pub fn broker_of(&self, node: NodeNo) -> Option<NodeNo> {
        self.find(self.spec(node).broker.as_ref()?.as_str())
    }

    /// What a relayer calls its stream of a shard.
    pub fn stream_of(&self, owner: NodeNo, shard: ShardNo) -> String {
        let mut settings = BrokerSettings::new(PREFIX);
        let network = self.network.as_ref();
        settings.naming = network.and_then(|network| {
            let relayers = network.relayers();
            let relayers = relayers.iter().map(|node| node.id);
            let first = ShardMap::from_relayers(network.shards(), relayers).ok()?;
            Some(naming(&first, self.id(owner)))
        });
        settings.stream(shard)
    }

    /// Where a node's broker listens.
    pub fn broker_address(&self, node: NodeNo) -> Address {
        SocketAddr::new(self.net.ip(node), crate::broker::PORT).into()
    }

    /// What a node's broker keeps, if it runs one.
    pub fn shelf(&self, node: NodeNo) -> Option<Arc<Mutex<Shelf>>> {
        self.nodes.get(node.index())?.shelf.clone()
    }

    /// Where a node takes direct streams.
    pub fn data_address(&self, node: NodeNo) -> Address {
        SocketAddr::new(self.net.ip(node), DATA_PORT).into()
    }

    /// What [`pqcnet_client::Client::connect_over`] takes for this node's identity, beside its environment and streams.
    ///
    /// # Errors
    /// The nodes make no network.
    pub fn client_config(&mut self, node: NodeNo) -> Result<ClientConfig, WorldError> {
        let network = self.network()?;
        Ok(ClientConfig::new(network, self.keys(node)))
    }

    /// A stream of the world's own: (seed, node, actor, purpose).
    pub fn rng(&self, node: NodeNo, actor: &str, purpose: &str) -> StreamRng {
        stream_of(self.seed, &self.spec(node).name, actor, purpose)
    }

    /// Runs a task as a node; it ends with this start of the node. False if the node is down.
    pub fn spawn(&self, node: NodeNo, task: impl Future<Output = ()> + Send + 'static) -> bool {
        match self.env(node) {
            Some(env) => {
                self.inside(|| env.enter(|| env.spawn(task)));
                true
            }
            None => false,
        }
    }

    /// From now on a node's computing takes so many times as long as on the machine that was measured.
    pub fn set_slowness(&self, node: NodeNo, slowness: f64) {
        if let Some(known) = self.nodes.get(node.index()) {
            known.cpu.lock().set_slowness(slowness);
        }
    }

    /// Moves a node's wall clock, and lets it run fast by so many millionths; a restart sets it right.
    pub fn move_clock(&self, node: NodeNo, jump_ms: i64, drift_ppm: i32) {
        if let Some(env) = self.env(node) {
            self.inside(|| env.move_wall(jump_ms, drift_ppm));
        }
    }

    /// CPU time that a node has used.
    pub fn cpu_time(&self, node: NodeNo) -> Duration {
        let known = self.nodes.get(node.index());
        Duration::from_nanos(known.map_or(0, |known| known.cpu.lock().busy_ns()))
    }
}
