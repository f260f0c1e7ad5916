//! The world: makes nodes, starts and ends them, lets time pass.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{System, SystemRunner};
use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_actor::hosted::Hosted;
use pqcnet_crypto::{MlDsaKeyPair, NodeKeys};
use pqcnet_link::Role;
use pqcnet_messages::{Directive, Order, SignedDirective};
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_qstp::Suite;
use pqcnet_roles::{
    Care, KeyVersions, Metering, Reach, Setup, StartError, Started, relayer, sentry,
};

use super::config::{CrashKind, NodeSpec, WorldConfig, WorldError};
use super::cpu::Cpu;
use super::host::NodeHost;
use super::ledger::{Hash, Ledger, Observer};
use super::node::{Life, Node, NodeState, Progress};
use super::platform::SimPlatform;
use super::{NodeName, NodeNo, SimTime, sources, stream_of, tripwire};
use crate::broker::{self, Shelf};
use crate::crypto::{self, Crypto, CryptoCounts};
use crate::disk::{Crashed, Disk};
use crate::net::{Net, SimStreams};

mod access;

/// Where every node's control plane listens, at its own address.
const CONTROL_PORT: u16 = 4_001;
/// Where every node takes direct streams.
const DATA_PORT: u16 = 4_002;
/// What nodes say they run.
const SOFTWARE: &str = concat!("pqcnet-sim/", env!("CARGO_PKG_VERSION"));

/// Why a world stopped before its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, {at:?}: {reason}{}", told(.last))]
pub struct Stopped {
    /// When.
    pub at: SimTime,
    /// The world's seed.
    pub seed: u64,
    /// Why: what an observer said, or what tripped the wire.
    pub reason: String,
    /// The last events, oldest first.
    pub last: Vec<String>,
}

fn told(last: &[String]) -> String {
    if last.is_empty() {
        return String::new();
    }
    format!("\nlast events:\n  {}", last.join("\n  "))
}

/// Whole nodes on this thread. A world is dropped on the thread that made it, before another is made there.
pub struct World {
    seed: u64,
    crypto: Crypto,
    shards: u16,
    yields: u32,
    metering: Option<Metering>,
    clock: Env,
    net: Net,
    ledger: Arc<Ledger>,
    nodes: Vec<Node>,
    names: BTreeSet<NodeName>,
    network: Option<Arc<NetworkFile>>,
    /// The network's root, once that is made.
    root: Option<MlDsaKeyPair>,
    // Last: everything above runs on it, and cryptography is the world's until it is gone.
    runner: SystemRunner,
    _crypto: crypto::Installed,
}

impl World {
    /// An empty world.
    ///
    /// # Panics
    /// If the operating system refuses a runtime, or another world lives on this thread.
    pub fn new(config: WorldConfig) -> World {
        let WorldConfig {
            seed,
            crypto,
            costs,
            links,
            yields,
            shards,
            last_events,
            metering,
        } = config;
        let installed = crypto::install(crypto, costs);
        // Drawn now, so that the wire is not tripped by the first map of this thread.
        drop(std::hash::RandomState::new());
        let runner = System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap_or_else(|error| panic!("no runtime for a world: {error}"))
        });
        let ledger = Arc::new(Ledger::new(seed, last_events));
        let (clock, net) = runner.block_on(async {
            let clock = sources::clock(seed);
            let net = Net::new(clock.clone(), seed, links, ledger.clone());
            clock.spawn(net.clone().pump());
            (clock, net)
        });
        World {
            seed,
            crypto,
            shards,
            yields,
            metering,
            clock,
            net,
            ledger,
            nodes: Vec::new(),
            names: BTreeSet::new(),
            network: None,
            root: None,
            runner,
            _crypto: installed,
        }
    }

    // ---- nodes ----

    /// Adds a node, which is down. Members of the network (all but clients) only before any node starts.
    ///
    /// # Errors
    /// Its name is taken, or it comes too late.
    pub fn add(&mut self, spec: NodeSpec) -> Result<NodeNo, WorldError> {
        if self.network.is_some() && spec.role != Role::Client {
            return Err(WorldError::TooLate(spec.name));
        }
        if !self.names.insert(spec.name.clone()) {
            return Err(WorldError::SameName(spec.name));
        }
        let node = self
            .net
            .add(spec.name.clone(), spec.place.clone(), spec.nat);
        self.net.set_access(node, spec.access);
        self.ledger.add(spec.name.clone());
        let rng = |purpose| stream_of(self.seed, &spec.name, "", purpose);
        let keys = sources::lend(rng("keys"), NodeKeys::generate);
        let mut disk = Disk::new(spec.name.as_str(), spec.disk, rng("disk"));
        if spec.role == Role::Relayer && self.metering.is_some() {
            disk = disk.with_meter(spec.disk, rng("meter's disk"));
        }
        self.nodes.push(Node {
            keys: Arc::new(keys),
            disk,
            shelf: spec
                .serves
                .then(|| Arc::new(Mutex::new(Shelf::new(rng("broker"))))),
            cpu: Arc::new(Mutex::new(Cpu::new(spec.cpu))),
            boots: 0,
            life: None,
            spec,
        });
        Ok(node)
    }

    /// The network file of all members. Made at the first call, after which no member can be added.
    ///
    /// # Errors
    /// The nodes make no network: there is no relayer, say.
    pub fn network(&mut self) -> Result<Arc<NetworkFile>, WorldError> {
        if let Some(network) = &self.network {
            return Ok(network.clone());
        }
        let members = self.nodes.iter().enumerate();
        let members = members.filter(|(_, node)| node.spec.role != Role::Client);
        let (mut nodes, mut bootstrap) = (Vec::new(), Vec::new());
        for (at, node) in members {
            let ip = self.net.ip(NodeNo(u32::try_from(at).unwrap_or(u32::MAX)));
            let id = node.keys.node_id();
            nodes.push(NodeEntry {
                id,
                roles: BTreeSet::from([node.spec.role]),
                control: vec![SocketAddr::new(ip, CONTROL_PORT).into()],
                data: vec![SocketAddr::new(ip, DATA_PORT).into()],
            });
            if node.spec.bootstrap {
                bootstrap.push(id);
            }
        }
        let world = NodeName::new("network");
        let root = stream_of(self.seed, &world, "", "root key");
        let root = sources::lend(root, MlDsaKeyPair::generate);
        let network = NetworkFile::new(NetworkParts {
            name: "sim".to_owned(),
            root: root.public().clone(),
            shards: self.shards,
            admission: Admission::Any,
            nodes,
            bootstrap,
        });
        let network = network.map_err(|problem| WorldError::Network(problem.to_string()))?;
        let network = Arc::new(network);
        self.network = Some(network.clone());
        self.root = Some(root);
        Ok(network)
    }

    /// What the root orders, signed; `None` before there is a network. Signing takes nobody's time.
    pub fn signed(&self, version: u64, order: Order) -> Option<SignedDirective> {
        let (network, root) = (self.network.as_ref()?, self.root.as_ref()?);
        let directive = Directive {
            network_id: network.network_id().0,
            version,
            issued_at_ms: self.inside(|| self.clock.wall_ms()),
            lease_ms: 0,
            order,
        };
        let rng = stream_of(
            self.seed,
            &NodeName::new("network"),
            "",
            &format!("order {version}"),
        );
        sources::lend(rng, || directive.sign(root).ok())
    }

    /// Switches a node on: its role's tree starts while time passes ([`World::state`]); a client is up at once.
    ///
    /// # Errors
    /// It runs already, or has no tree.
    pub fn start(&mut self, node: NodeNo) -> Result<(), WorldError> {
        let network = self.network()?;
        let (seed, yields, metering) = (self.seed, self.yields, self.metering);
        let (net, clock) = (self.net.clone(), self.clock.clone());
        let at = SocketAddr::new(net.ip(node), CONTROL_PORT);
        let (broker, serves_at) = (self.broker_at(node)?, self.broker_address(node));
        let known = self.nodes.get_mut(node.index());
        let known = known.ok_or(WorldError::NoSuchNode(node))?;
        let name = known.spec.name.clone();
        if !matches!(known.state(), NodeState::Down | NodeState::Failed) {
            return Err(WorldError::Running(name));
        }
        let role = known.spec.role;
        if !matches!(role, Role::Relayer | Role::Sentry | Role::Client) {
            return Err(WorldError::NoTree { name, role });
        }
        if let Some(last) = known.life.take() {
            last.env.kill();
        }
        net.switch_on(node);
        let (message_ns, cpu) = (known.spec.cpu.message_ns, known.cpu.clone());
        let host = Arc::new(NodeHost::new(node, clock, net.clone(), message_ns, cpu));
        let boot = known.boots;
        known.boots += 1;
        let env = self.runner.block_on(async move {
            Env::hosted(Hosted {
                seed,
                name: name.to_string(),
                boot,
                host,
                yields,
            })
        });
        let is_client = role == Role::Client;
        let shared = Arc::new(Mutex::new(Progress {
            state: if is_client {
                NodeState::Up
            } else {
                NodeState::Starting
            },
            started: None,
            error: None,
        }));
        if let Some(shelf) = known.shelf.clone() {
            let streams = Arc::new(SimStreams::new(net.clone(), node));
            let serving = broker::serve(env.clone(), streams, serves_at, shelf);
            let _inside = self.runner.runtime().tokio_runtime().enter();
            env.enter(|| env.spawn(serving));
        }
        if !is_client {
            let platform = SimPlatform {
                env: env.clone(),
                node,
                net,
                disk: known.disk.clone(),
                broker,
            };
            let setup = Setup {
                keys: known.keys.clone(),
                network,
                suites: vec![Suite::Aes256Gcm],
                control: at.into(),
                data: SocketAddr::new(at.ip(), DATA_PORT).into(),
                software: SOFTWARE.to_owned(),
                versions: KeyVersions::default(),
                lan: false,
                reach: Reach::Direct,
                care: Care {
                    metering,
                    ..Care::default()
                },
            };
            let storage = known.storage_key(seed);
            let (progress, dying) = (shared.clone(), platform.clone());
            let start = async move {
                let outcome = match role {
                    Role::Relayer => relayer(&platform, setup, storage).await,
                    _ => sentry(&platform, setup).await,
                };
                if follow(&progress, outcome).await {
                    // Its program ends, and what it had open with it.
                    dying.net().process_ended(node, true);
                    dying.env.kill();
                }
            };
            let _inside = self.runner.runtime().tokio_runtime().enter();
            env.enter(|| env.spawn(start));
        }
        known.life = Some(Life { env, shared });
        Ok(())
    }

    /// Where the broker is on which a node's log is.
    fn broker_at(&self, node: NodeNo) -> Result<Option<Address>, WorldError> {
        let known = self.nodes.get(node.index());
        let Some((spec, broker)) =
            known.and_then(|known| Some((&known.spec, known.spec.broker.clone()?)))
        else {
            return Ok(None);
        };
        let found = self
            .find(broker.as_str())
            .filter(|found| self.spec(*found).serves);
        let name = spec.name.clone();
        let found = found.ok_or(WorldError::NoBroker { name, broker })?;
        Ok(Some(self.broker_address(found)))
    }

    /// Has a node close its links and stop, as an operator would. It is down when its state says so.
    pub fn stop(&mut self, node: NodeNo) {
        let Some(known) = self.nodes.get(node.index()) else {
            return;
        };
        let Some(life) = &known.life else {
            return;
        };
        let (env, shared, net) = (life.env.clone(), life.shared.clone(), self.net.clone());
        let running = {
            let mut progress = shared.lock();
            if !matches!(progress.state, NodeState::Up | NodeState::Starting) {
                return;
            }
            progress.state = NodeState::Stopping;
            progress.started.take().map(|started| started.running)
        };
        let (ended, rest) = (env, self.clock.clone());
        let _inside = self.runner.runtime().tokio_runtime().enter();
        self.clock.spawn(async move {
            if let Some(running) = running {
                running.stop().await;
            }
            // A crash may have come before the end, and another start after it: what that has open is not this one's.
            if shared.lock().state != NodeState::Stopping {
                return;
            }
            ended.kill();
            net.process_ended(node, true);
            // What they hold is dropped in their turns.
            rest.sleep(Duration::from_millis(1)).await;
            shared.lock().state = NodeState::Down;
        });
    }

    /// Ends a node without a word; says what became of what it was writing.
    pub fn crash(&mut self, node: NodeNo, kind: CrashKind) -> Option<Crashed> {
        let known = self.nodes.get_mut(node.index())?;
        let life = known.life.take()?;
        let _inside = self.runner.runtime().tokio_runtime().enter();
        life.shared.lock().state = NodeState::Down;
        life.env.kill();
        self.net.process_ended(node, kind == CrashKind::Process);
        Some(known.disk.crash())
    }

    /// How a node is.
    pub fn state(&self, node: NodeNo) -> NodeState {
        let known = self.nodes.get(node.index());
        known.map_or(NodeState::Down, Node::state)
    }

    /// Why a node did not start, if that is so; told once.
    pub fn failure(&self, node: NodeNo) -> Option<StartError> {
        let life = self.nodes.get(node.index())?.life.as_ref()?;
        life.shared.lock().error.take()
    }

    /// What a node runs, once it is up; `None` for a client.
    pub fn started(&self, node: NodeNo) -> Option<Started> {
        let life = self.nodes.get(node.index())?.life.as_ref()?;
        life.shared.lock().started.clone()
    }

    // ---- time ----

    /// Time since the world began.
    pub fn now(&self) -> SimTime {
        self.inside(|| self.clock.now())
    }

    /// Runs `f` where tokio's clock is the world's.
    fn inside<T>(&self, f: impl FnOnce() -> T) -> T {
        let _inside = self.runner.runtime().tokio_runtime().enter();
        f()
    }

    /// Lets time pass until then.
    ///
    /// # Errors
    /// An observer stopped the world, or something tripped the wire.
    pub fn run_until(&mut self, until: SimTime) -> Result<(), Stopped> {
        self.run_for(until.saturating_sub(self.now()))
    }

    /// Lets so much time pass.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn run_for(&mut self, time: Duration) -> Result<(), Stopped> {
        let (clock, ledger) = (self.clock.clone(), self.ledger.clone());
        self.block_on(async move {
            tokio::select! {
                biased;
                () = ledger.halted() => {}
                () = clock.sleep(time) => {}
            }
        });
        self.check()
    }

    /// Runs the world until a future of its own is done, and returns what it gives.
    ///
    /// # Errors
    /// As [`World::run_until`].
    pub fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Stopped> {
        let output = self.block_on(future);
        self.check().map(|()| output)
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let _armed = tripwire::arm();
        self.runner.block_on(future)
    }

    fn check(&self) -> Result<(), Stopped> {
        let Some(reason) = tripwire::take().or_else(|| self.ledger.stopped()) else {
            return Ok(());
        };
        Err(Stopped {
            at: self.now(),
            seed: self.seed,
            reason,
            last: self.ledger.last_events(),
        })
    }

    // ---- what happened ----

    /// Has somebody look on.
    pub fn observe(&self, observer: impl Observer) {
        self.ledger.observe(Box::new(observer));
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> Hash {
        self.ledger.hash()
    }

    /// Takes down what happens.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The network between the nodes.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The world's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How cryptography is done.
    pub fn crypto(&self) -> Crypto {
        self.crypto
    }

    /// What cryptography has done on this thread, in this world.
    pub fn crypto_counts(&self) -> CryptoCounts {
        crypto::counts()
    }
}

/// Takes down how a role started, and when its tree gives up. Whether the node has failed.
async fn follow(progress: &Mutex<Progress>, outcome: Result<Started, StartError>) -> bool {
    let running = {
        let mut progress = progress.lock();
        match outcome {
            Ok(started) => {
                let running = started.running.clone();
                if progress.state == NodeState::Starting {
                    progress.state = NodeState::Up;
                    progress.started = Some(started);
                }
                running
            }
            Err(error) => {
                let starts = progress.state == NodeState::Starting;
                if starts {
                    progress.state = NodeState::Failed;
                    progress.error = Some(error);
                }
                return starts;
            }
        }
    };
    running.wait().await;
    let mut progress = progress.lock();
    let failed = progress.state == NodeState::Up;
    if failed {
        progress.state = NodeState::Failed;
    }
    failed
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(life) = node.life.take() {
                life.env.kill();
            }
        }
        // Their tasks are dropped in their turns.
        let clock = self.clock.clone();
        self.runner
            .block_on(async move { clock.sleep(Duration::from_millis(1)).await });
    }
}
