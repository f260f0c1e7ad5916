//! A network of real processes on loopback, in a temporary folder that goes with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use pqcnet_client::{Client, ClientConfig};
use pqcnet_crypto::keystore::{self, Unlock, WrappingKey};
use pqcnet_crypto::{MlDsaKeyPair, NodeId, NodeKeys, NodeSecrets};
use pqcnet_log::BrokerConfig;
use pqcnet_messages::{Channel, ChannelName, Role, ShardMap};
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_roles::platform::naming;

use crate::hosts::Host;
pub use crate::node::Node;
use crate::node::PATIENCE;

/// Where a relayer finds its broker's address.
const BROKER: &str = "broker.uri";
/// Where a node on a host of its own has its control plane.
pub const CONTROL_PORT: u16 = 7410;
/// And its data plane.
pub const DATA_PORT: u16 = 7411;
/// Several a relayer, so that each sees traffic.
pub const SHARDS: u16 = 16;

/// A node that is to be.
struct Seat {
    role: Role,
    control: SocketAddr,
    data: SocketAddr,
    host: Option<Host>,
}

/// A client's files.
pub struct Identity {
    /// Where they are.
    pub folder: PathBuf,
    /// Who it is.
    pub id: NodeId,
}

impl Identity {
    /// Network file, key file and unlocking file: the first arguments of every example of the client crate.
    pub fn files(&self) -> [PathBuf; 3] {
        ["network.toml", "client.keys", "unlock.key"].map(|name| self.folder.join(name))
    }
}

/// Where an operator sits, with the root key in the drawer.
pub struct Office {
    /// Holds `network.toml`, `operator.keys`, `root.keys` and `unlock.key`, which opens both.
    pub folder: PathBuf,
}

impl Office {
    /// What commands run in the folder take, to act as the operator.
    pub fn arguments(&self) -> Vec<&'static str> {
        let named = ["--network", "network.toml", "--keys", "operator.keys"];
        [&named[..], &["--key-file", "unlock.key"]].concat()
    }
}

/// What the network file says of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Every node with its addresses, each a bootstrap node.
    Everywhere,
    /// The same, and an operator.
    Operated,
    /// Every node, and an operator; addresses of the first sentry alone, which is the one bootstrap node.
    OneBootstrap,
}

/// The whole network.
pub struct Network {
    /// What everybody has.
    pub file: NetworkFile,
    /// Relayers, then sentries.
    pub nodes: Vec<Node>,
    /// Signs what the network's root orders.
    pub root: MlDsaKeyPair,
    /// May ask every node; listed where the network file is made for it ([`Listing::OneBootstrap`], [`Listing::Operated`]).
    pub operator: Arc<NodeKeys>,
    place: tempfile::TempDir,
}

impl Network {
    /// Keys, files and addresses; nothing runs yet.
    pub fn create(sentries: usize, relayers: usize, admission: Admission) -> Result<Network> {
        Network::listed(sentries, relayers, admission, Listing::Everywhere)
    }

    /// The same with a choice of what the network file says.
    pub fn listed(
        sentries: usize,
        relayers: usize,
        admission: Admission,
        listing: Listing,
    ) -> Result<Network> {
        // All sockets stay open until every port is chosen, so that none is chosen twice.
        let mut held = Vec::new();
        let mut seats = Vec::new();
        for (role, count) in [(Role::Relayer, relayers), (Role::Sentry, sentries)] {
            for _ in 0..count {
                seats.push(Seat {
                    role,
                    control: free_port(&mut held)?,
                    data: free_port(&mut held)?,
                    host: None,
                });
            }
        }
        Network::seated(seats, admission, listing)
    }

    /// A network whose nodes run on these hosts, one each; it knows the address of the first sentry alone, which is the one
    /// bootstrap node. Each listens at [`CONTROL_PORT`] and [`DATA_PORT`] of `at`, its host's own address or all.
    pub fn on_hosts(
        sentries: &[(Host, Ipv4Addr)],
        relayers: &[(Host, Ipv4Addr)],
    ) -> Result<Network> {
        let seat = |role, (host, at): &(Host, Ipv4Addr)| Seat {
            role,
            control: SocketAddr::from((*at, CONTROL_PORT)),
            data: SocketAddr::from((*at, DATA_PORT)),
            host: Some(host.clone()),
        };
        let relayers = relayers.iter().map(|place| seat(Role::Relayer, place));
        let sentries = sentries.iter().map(|place| seat(Role::Sentry, place));
        let seats = relayers.chain(sentries).collect();
        Network::seated(seats, Admission::Any, Listing::OneBootstrap)
    }

    fn seated(seats: Vec<Seat>, admission: Admission, listing: Listing) -> Result<Network> {
        let place = tempfile::tempdir()?;
        let relayers = (seats.iter()).filter(|seat| seat.role == Role::Relayer);
        let relayers = relayers.count();
        let mut nodes: Vec<Node> = Vec::new();
        let mut entries = Vec::new();
        for seat in seats {
            let Seat {
                role,
                control,
                data,
                host,
            } = seat;
            let number = nodes.iter().filter(|node| node.role == role).count() + 1;
            let name = format!("{role}-{number}");
            let folder = place.path().join(&name);
            fs::create_dir(&folder)?;
            let key = WrappingKey::create(&folder.join("unlock.key"))?;
            let secrets = NodeSecrets::generate();
            let id = secrets.keys.node_id();
            let keys = folder.join("node.keys");
            keystore::create(&keys, &secrets, Unlock::KeyFile(&key))?;
            let public = !control.ip().is_loopback();
            let text = format!(
                "network = \"network.toml\"\nkeys = \"node.keys\"\n\n[unlock]\nkey_file = \"unlock.key\"\n\n\
                 [listen]\ncontrol = \"{control}\"\ndata = \"{data}\"\npublic = {public}\n\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\n\n[store]\npath = \"store\"\n"
            );
            fs::write(folder.join("node.toml"), text)?;
            entries.push(NodeEntry {
                id,
                roles: BTreeSet::from([role]),
                control: vec![control.into()],
                data: vec![data.into()],
            });
            nodes.push(Node {
                name,
                id,
                role,
                data,
                folder,
                host,
                process: Mutex::new(None),
            });
        }
        let mut bootstrap: Vec<NodeId> = entries.iter().map(|entry| entry.id).collect();
        if listing == Listing::OneBootstrap {
            bootstrap = bootstrap.split_off(relayers).into_iter().take(1).collect();
            for entry in entries
                .iter_mut()
                .filter(|entry| !bootstrap.contains(&entry.id))
            {
                entry.control.clear();
                entry.data.clear();
            }
        }
        let root = MlDsaKeyPair::generate();
        let operator = NodeSecrets::generate();
        let office = place.path().join("office");
        fs::create_dir(&office)?;
        let key = WrappingKey::create(&office.join("unlock.key"))?;
        let unlock = Unlock::KeyFile(&key);
        keystore::create(&office.join("operator.keys"), &operator, unlock)?;
        keystore::create(&office.join("root.keys"), &root, unlock)?;
        let operator = Arc::new(operator.keys);
        if listing != Listing::Everywhere {
            entries.push(NodeEntry {
                id: operator.node_id(),
                roles: BTreeSet::from([Role::Operator]),
                control: Vec::new(),
                data: Vec::new(),
            });
        }
        let file = NetworkFile::new(NetworkParts {
            name: "test".to_owned(),
            root: root.public().clone(),
            shards: SHARDS,
            admission,
            nodes: entries,
            bootstrap,
        })?;
        for node in &nodes {
            node.set_network(&file)?;
        }
        file.write(&office.join("network.toml"))?;
        Ok(Network {
            file,
            nodes,
            root,
            operator,
            place,
        })
    }

    /// Puts the logs of all relayers on the broker at this address, from their next start on.
    pub fn put_on_broker(&self, uri: &str) -> Result<()> {
        let relayers = self.nodes.iter().filter(|node| node.role == Role::Relayer);
        for node in relayers {
            self.put_one_on_broker(node, uri)?;
        }
        Ok(())
    }

    /// The same of one relayer.
    pub fn put_one_on_broker(&self, node: &Node, uri: &str) -> Result<()> {
        let file = node.folder.join(BROKER);
        fs::write(&file, format!("{uri}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let config = node.folder.join("node.toml");
        let text = fs::read_to_string(&config)?;
        let text = text.replace("[store]\n", &format!("[store]\nbroker = \"{BROKER}\"\n"));
        Ok(fs::write(config, text)?)
    }

    /// The broker that has a relayer's log, if one has.
    pub fn broker_of(&self, node: &Node) -> Result<Option<BrokerConfig>> {
        let file = node.folder.join(BROKER);
        if !file.exists() {
            return Ok(None);
        }
        let id = hex::encode(&self.file.network_id().0[..8]);
        let uri = fs::read_to_string(file)?;
        let mut config = BrokerConfig::new(uri.trim(), format!("pqcnet.{id}"))?;
        let relayers = self.file.relayers();
        let relayers = relayers.iter().map(|relayer| relayer.id);
        let first = ShardMap::from_relayers(self.file.shards(), relayers)?;
        config.settings.naming = Some(naming(&first, node.id));
        Ok(Some(config))
    }

    /// A network in which any client is admitted, all running.
    pub async fn start(sentries: usize, relayers: usize) -> Result<Network> {
        let network = Network::create(sentries, relayers, Admission::Any)?;
        network.start_all().await?;
        Ok(network)
    }

    /// Starts every node that does not run.
    pub async fn start_all(&self) -> Result<()> {
        for node in self.nodes.iter().filter(|node| !node.runs()) {
            node.start().await?;
        }
        Ok(())
    }

    /// Starts every node that does not run, all at once.
    pub async fn start_together(&self) -> Result<()> {
        let idle = self.nodes.iter().filter(|node| !node.runs());
        futures::future::try_join_all(idle.map(Node::start)).await?;
        Ok(())
    }

    /// Where a node of this role stands in [`Network::nodes`]; `number` from 1.
    pub fn index(&self, role: Role, number: usize) -> usize {
        let name = format!("{role}-{number}");
        let found = self.nodes.iter().position(|node| node.name == name);
        found.expect("a node of the network")
    }

    /// A node by role and number, from 1.
    pub fn node(&self, role: Role, number: usize) -> &Node {
        &self.nodes[self.index(role, number)]
    }

    /// Stops everything that runs, the last started first.
    pub async fn stop(&self) -> Result<()> {
        for node in self.nodes.iter().rev() {
            if node.runs() {
                node.stop().await.with_context(|| node.name.clone())?;
            }
        }
        Ok(())
    }

    /// Lists more nodes, which are nobody's to start. Before anything runs: it is another network then.
    pub fn list(&mut self, more: impl IntoIterator<Item = NodeEntry>) -> Result<()> {
        let mut nodes = self.file.nodes().to_vec();
        nodes.extend(more);
        self.file = NetworkFile::new(NetworkParts {
            name: self.file.name().to_owned(),
            root: self.file.root().clone(),
            shards: self.file.shards(),
            admission: self.file.admission(),
            nodes,
            bootstrap: self.file.bootstrap().iter().map(|node| node.id).collect(),
        })?;
        for node in &self.nodes {
            node.set_network(&self.file)?;
        }
        self.file
            .write(&self.office().folder.join("network.toml"))?;
        Ok(())
    }

    /// The network file with other data addresses for some nodes: what a client gets that is to go through a proxy.
    pub fn with_addresses(&self, at: &BTreeMap<NodeId, SocketAddr>) -> Result<NetworkFile> {
        let mut nodes = self.file.nodes().to_vec();
        for node in &mut nodes {
            if let Some(address) = at.get(&node.id) {
                node.data = vec![Address::from(*address)];
            }
        }
        Ok(NetworkFile::new(NetworkParts {
            name: self.file.name().to_owned(),
            root: self.file.root().clone(),
            shards: self.file.shards(),
            admission: self.file.admission(),
            nodes,
            bootstrap: self.file.bootstrap().iter().map(|node| node.id).collect(),
        })?)
    }

    /// The operator's and the root's files, one beside the other.
    pub fn office(&self) -> Office {
        Office {
            folder: self.place.path().join("office"),
        }
    }

    /// A client of this network with these keys. It is patient: on a busy machine everything takes longer, and only what is
    /// broken takes so long.
    pub async fn client(&self, keys: &Arc<NodeKeys>) -> Result<Client> {
        let mut config = ClientConfig::new(self.file.clone(), keys.clone());
        config.connect_timeout = PATIENCE;
        config.attempt_timeout = PATIENCE / 2;
        config.request_timeout = PATIENCE / 2;
        config.publish_timeout = 2 * PATIENCE;
        Ok(Client::connect(config).await?)
    }

    /// Files of a new client identity in the network's folder, as `pqcnet up` writes them.
    pub fn identity(&self, name: &str) -> Result<Identity> {
        let folder = self.place.path().join(name);
        fs::create_dir(&folder)?;
        self.file.write(&folder.join("network.toml"))?;
        let key = WrappingKey::create(&folder.join("unlock.key"))?;
        let secrets = NodeSecrets::generate();
        let keys = folder.join("client.keys");
        keystore::create(&keys, &secrets, Unlock::KeyFile(&key))?;
        let id = secrets.keys.node_id();
        Ok(Identity { folder, id })
    }

    /// Names of `count` channels of `owner`, the relayers taking turns.
    pub fn balanced_channels(&self, owner: NodeId, count: usize) -> Result<Vec<ChannelName>> {
        let relayers: Vec<NodeId> = self.file.relayers().iter().map(|node| node.id).collect();
        self.channels(owner, count, |map, channel, found| {
            map.owner_of_channel(channel) == relayers[found % relayers.len()]
        })
    }

    /// Names of `count` channels of `owner` that lie in this shard.
    pub fn channels_of_shard(
        &self,
        owner: NodeId,
        shard: u16,
        count: usize,
    ) -> Result<Vec<ChannelName>> {
        self.channels(owner, count, |map, channel, _| {
            map.shard_of(channel).0 == shard
        })
    }

    /// Names of the first `count` channels that are wanted, each judged by how many were found before it.
    fn channels(
        &self,
        owner: NodeId,
        count: usize,
        wanted: impl Fn(&ShardMap, &Channel, usize) -> bool,
    ) -> Result<Vec<ChannelName>> {
        let relayers = self.file.relayers();
        let relayers = relayers.iter().map(|relayer| relayer.id);
        let map = ShardMap::from_relayers(self.file.shards(), relayers)?;
        let mut names = Vec::new();
        for number in 0.. {
            if names.len() == count {
                break;
            }
            let name = ChannelName::new(&format!("channel-{number}"))?;
            let channel = Channel { owner, name };
            if wanted(&map, &channel, names.len()) {
                names.push(channel.name);
            }
        }
        Ok(names)
    }
}

/// The loopback address of this process's networks. Tests run in many processes at once, and a port that is free when it
/// is chosen, or while its node is down for a restart, must not be another process's by then: every address below
/// 127.0.0.0/8 is this machine's, so each process has one of its own.
fn own_loopback() -> Ipv4Addr {
    // Process ids have 22 bits; the lower half of the net is for those who are to come from elsewhere.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (high & 0x3f), middle, low)
}

/// A free port below those that the kernel gives to outgoing connections: one of those could be taken by a neighbour's
/// connection between this choice and the node's start.
fn free_port(held: &mut Vec<TcpListener>) -> Result<SocketAddr> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    const PORTS: std::ops::Range<u32> = 10_000..30_000;
    let own = own_loopback();
    for _ in PORTS {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(PORTS.start + step % (PORTS.end - PORTS.start))?;
        if let Ok(listener) = TcpListener::bind((own, port)) {
            let at = listener.local_addr()?;
            held.push(listener);
            return Ok(at);
        }
    }
    anyhow::bail!(
        "no free port of {own} from {} to {}",
        PORTS.start,
        PORTS.end - 1
    )
}
