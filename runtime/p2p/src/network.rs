//! `network.toml`: who is in a network and what each may do. Authority before there is a ledger.
//!
//! Spec: docs/spec/network-file.md. A file is read strictly: an unknown key, a wrong type or a value that cannot be
//! meant stops the reader with the line and, where a known word is near, a suggestion.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use pqcnet_crypto::{MlDsaPublic, NodeId};
pub use pqcnet_link::Role;

mod address;
mod parse;

pub use address::{Address, AddressError};
pub use parse::{NetworkFileError, Problem};

/// Longest network name, in bytes: it stands in logs and file names.
pub const MAX_NAME: usize = 64;
/// Most virtual shards: one worker actor each, and ShardId is 16 bits wide.
pub const MAX_SHARDS: u16 = 4096;
/// Most nodes a file lists; beyond that a ledger, not a file, has to say who is in.
pub const MAX_NODES: usize = 4096;
/// Most addresses a plane of one node: they are tried one after another.
pub const MAX_ADDRESSES: usize = 8;
/// Largest file that is read, in bytes: 4,096 nodes with their addresses fit.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The hash of everything in the file but addresses. Every handshake carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkId(pub [u8; 32]);

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

/// Which clients a sentry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every NodeId that completes a handshake and presents a grant of its own.
    Any,
    /// Only a NodeId that the file lists with the role `client`.
    Listed,
}

impl Admission {
    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Admission::Any => "any",
            Admission::Listed => "listed",
        }
    }
}

/// One node of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Who it is.
    pub id: NodeId,
    /// What it may claim to be; never empty.
    pub roles: BTreeSet<Role>,
    /// Where its control plane (libp2p) listens. Hints: the handshake proves who answers.
    pub control: Vec<Address>,
    /// Where it takes direct QSTP streams. Hints as well.
    pub data: Vec<Address>,
}

/// The parsed and checked file.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkFile {
    name: String,
    root: MlDsaPublic,
    shards: u16,
    admission: Admission,
    nodes: Vec<NodeEntry>,
    bootstrap: Vec<NodeId>,
    network_id: NetworkId,
}

impl fmt::Debug for NetworkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkFile")
            .field("name", &self.name)
            .field("network_id", &self.network_id)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

/// What a network is made from; [`NetworkFile::new`] checks it.
#[derive(Clone)]
pub struct NetworkParts {
    /// Lower-case letters, digits and `-`.
    pub name: String,
    /// The key that will sign shard maps and directives.
    pub root: MlDsaPublic,
    /// Virtual shards, fixed for the life of the network.
    pub shards: u16,
    /// Which clients sentries take.
    pub admission: Admission,
    /// Every node.
    pub nodes: Vec<NodeEntry>,
    /// Nodes to dial first on the control plane.
    pub bootstrap: Vec<NodeId>,
}

impl NetworkFile {
    /// Checks the parts and computes the network id. Nodes and bootstrap ids are kept sorted.
    pub fn new(parts: NetworkParts) -> Result<NetworkFile, Problem> {
        let NetworkParts {
            name,
            root,
            shards,
            admission,
            mut nodes,
            mut bootstrap,
        } = parts;
        check_name(&name)?;
        if shards == 0 || shards > MAX_SHARDS {
            return Err(Problem::Shards(u64::from(shards)));
        }
        if nodes.len() > MAX_NODES {
            return Err(Problem::TooManyNodes(nodes.len()));
        }
        nodes.sort_by_key(|node| node.id);
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Problem::DuplicateNode(pair[0].id));
        }
        for node in &nodes {
            check_node(node)?;
        }
        if !nodes.iter().any(|node| node.roles.contains(&Role::Relayer)) {
            return Err(Problem::NoRelayer);
        }
        bootstrap.sort();
        if let Some(pair) = bootstrap.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Problem::DuplicateBootstrap(pair[0]));
        }
        for id in &bootstrap {
            match nodes.binary_search_by_key(id, |node| node.id) {
                Ok(at) if !nodes[at].control.is_empty() => {}
                Ok(_) => return Err(Problem::BootstrapWithoutAddress(*id)),
                Err(_) => return Err(Problem::BootstrapUnlisted(*id)),
            }
        }
        let network_id = network_id(&name, &root, shards, admission, &nodes, &bootstrap);
        Ok(NetworkFile {
            name,
            root,
            shards,
            admission,
            nodes,
            bootstrap,
            network_id,
        })
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<NetworkFile, NetworkFileError> {
        parse::load(path)
    }

    /// Reads and checks text; `origin` names it in errors.
    pub fn parse(origin: &str, text: &str) -> Result<NetworkFile, NetworkFileError> {
        parse::parse(origin, text)
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash that names this network in every handshake.
    pub fn network_id(&self) -> NetworkId {
        self.network_id
    }

    /// The key that signs shard maps and directives.
    pub fn root(&self) -> &MlDsaPublic {
        &self.root
    }

    /// How many virtual shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Which clients sentries take.
    pub fn admission(&self) -> Admission {
        self.admission
    }

    /// Every node, by id.
    pub fn nodes(&self) -> &[NodeEntry] {
        &self.nodes
    }

    /// The node with this id.
    pub fn node(&self, id: &NodeId) -> Option<&NodeEntry> {
        let at = self.nodes.binary_search_by_key(id, |node| node.id).ok()?;
        self.nodes.get(at)
    }

    /// What this node may claim to be; empty when the file does not list it.
    pub fn roles_of(&self, id: &NodeId) -> BTreeSet<Role> {
        self.node(id)
            .map(|node| node.roles.clone())
            .unwrap_or_default()
    }

    /// Whether this node may claim this role. A client need not be listed where admission is `any`; an operator
    /// is always listed.
    pub fn grants(&self, id: &NodeId, role: Role) -> bool {
        match self.node(id) {
            Some(node) if node.roles.contains(&role) => true,
            _ => role == Role::Client && self.admission == Admission::Any,
        }
    }

    /// Every node with a role, by id.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &NodeEntry> {
        self.nodes
            .iter()
            .filter(move |node| node.roles.contains(&role))
    }

    /// Every relayer, by id. Never empty. The shard map is derived from this order.
    pub fn relayers(&self) -> Vec<&NodeEntry> {
        self.with_role(Role::Relayer).collect()
    }

    /// Every sentry, by id.
    pub fn sentries(&self) -> Vec<&NodeEntry> {
        self.with_role(Role::Sentry).collect()
    }

    /// The nodes to dial first on the control plane, by id.
    pub fn bootstrap(&self) -> Vec<&NodeEntry> {
        self.bootstrap
            .iter()
            .filter_map(|id| self.node(id))
            .collect()
    }

    /// The file's text, with its network id. Reading it back gives an equal network.
    pub fn to_toml(&self) -> String {
        parse::render(self)
    }

    /// Writes the text to a new file or over an old one.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.to_toml())
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fits = (1..=MAX_NAME).contains(&name.len());
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits && plain {
        Ok(())
    } else {
        Err(Problem::Name(name.to_owned()))
    }
}

fn check_node(node: &NodeEntry) -> Result<(), Problem> {
    if node.roles.is_empty() {
        return Err(Problem::NoRole(node.id));
    }
    if node.control.len() > MAX_ADDRESSES || node.data.len() > MAX_ADDRESSES {
        return Err(Problem::TooManyAddresses(node.id));
    }
    if node.data.iter().any(Address::is_web_socket) {
        return Err(Problem::DataOverWebSocket(node.id));
    }
    Ok(())
}

/// docs/spec/network-file.md, "Network id". `nodes` and `bootstrap` are sorted.
fn network_id(
    name: &str,
    root: &MlDsaPublic,
    shards: u16,
    admission: Admission,
    nodes: &[NodeEntry],
    bootstrap: &[NodeId],
) -> NetworkId {
    let mut bytes = Vec::with_capacity(2200 + nodes.len() * 48);
    bytes.extend_from_slice(b"pqcnet/network/1");
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(root.as_bytes());
    bytes.extend_from_slice(&shards.to_be_bytes());
    bytes.push(match admission {
        Admission::Any => 1,
        Admission::Listed => 2,
    });
    bytes.extend_from_slice(&(nodes.len() as u32).to_be_bytes());
    for node in nodes {
        bytes.extend_from_slice(node.id.as_bytes());
        bytes.push(node.roles.len() as u8);
        bytes.extend(node.roles.iter().map(|role| role.number()));
    }
    bytes.extend_from_slice(&(bootstrap.len() as u32).to_be_bytes());
    for id in bootstrap {
        bytes.extend_from_slice(id.as_bytes());
    }
    NetworkId(pqcnet_crypto::hash::sha256(&[&bytes]))
}

#[cfg(test)]
mod tests;
