//! Text to a checked network and back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use pqcnet_crypto::{MlDsaPublic, NodeId};
use pqcnet_link::Role;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    Address, Admission, MAX_FILE, MAX_NAME, MAX_NODES, MAX_SHARDS, NetworkFile, NetworkId,
    NetworkParts, NodeEntry,
};

/// What is wrong with a network, wherever it came from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// A name that is empty, over-long or has other characters.
    #[error("name `{0}`: 1 to {MAX_NAME} of a-z, 0-9 and -")]
    Name(String),
    /// A number of shards out of range.
    #[error("shards = {0}: 1 to {MAX_SHARDS}")]
    Shards(u64),
    /// More nodes than a file may list.
    #[error("{0} nodes: at most {MAX_NODES}")]
    TooManyNodes(usize),
    /// One id twice.
    #[error("node {0} is listed twice")]
    DuplicateNode(NodeId),
    /// A node without a role.
    #[error("node {0} has no role")]
    NoRole(NodeId),
    /// More addresses than are ever tried.
    #[error("node {0} has more than {max} addresses on one plane", max = super::MAX_ADDRESSES)]
    TooManyAddresses(NodeId),
    /// Direct QSTP connections are TCP.
    #[error(
        "node {0} has a ws:// address on the data plane, which has no WebSockets; write host:port"
    )]
    DataOverWebSocket(NodeId),
    /// No relayer: nobody would own a shard.
    #[error("no node has the role relayer, so no shard has an owner")]
    NoRelayer,
    /// One bootstrap id twice.
    #[error("bootstrap {0} is listed twice")]
    DuplicateBootstrap(NodeId),
    /// A bootstrap id that no node has.
    #[error("bootstrap {0} is no node of this file")]
    BootstrapUnlisted(NodeId),
    /// A bootstrap node that cannot be dialled.
    #[error("bootstrap {0} has no control address")]
    BootstrapWithoutAddress(NodeId),
    /// The id written in the file is not the one its contents have.
    #[error("network_id is {written}, but the contents hash to {computed}: was the file edited?")]
    NetworkIdMismatch {
        /// In the file.
        written: NetworkId,
        /// Of its contents.
        computed: NetworkId,
    },
}

/// A network file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFileError {
    /// It could not be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is over [`MAX_FILE`].
    #[error("{path}: over {MAX_FILE} bytes")]
    TooLarge {
        /// Which file.
        path: String,
    },
    /// It says something it may not.
    #[error("{origin}:{line}: {problem}{}", suggestion(.did_you_mean))]
    Invalid {
        /// Which file.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: Box<Problem>,
        /// The nearest word that would have been right.
        did_you_mean: Option<String>,
    },
}

fn suggestion(word: &Option<String>) -> String {
    word.as_ref()
        .map(|word| format!(" (did you mean `{word}`?)"))
        .unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: Spanned<String>,
    #[serde(default, deserialize_with = "hex_id")]
    network_id: Option<NetworkId>,
    #[serde(deserialize_with = "root_key")]
    root: MlDsaPublic,
    shards: Spanned<u64>,
    #[serde(default)]
    admission: RawAdmission,
    #[serde(default)]
    node: Vec<Spanned<RawNode>>,
    #[serde(default)]
    bootstrap: Vec<Spanned<RawBootstrap>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmission {
    #[serde(default)]
    clients: RawClients,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawClients {
    #[default]
    Any,
    Listed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    #[serde(deserialize_with = "node_id")]
    id: NodeId,
    roles: Vec<RawRole>,
    #[serde(default)]
    control: Vec<Address>,
    #[serde(default)]
    data: Vec<Address>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawRole {
    Sentry,
    Relayer,
    Validator,
    Watcher,
    Gateway,
    Client,
    Operator,
}

impl From<RawRole> for Role {
    fn from(raw: RawRole) -> Role {
        match raw {
            RawRole::Sentry => Role::Sentry,
            RawRole::Relayer => Role::Relayer,
            RawRole::Validator => Role::Validator,
            RawRole::Watcher => Role::Watcher,
            RawRole::Gateway => Role::Gateway,
            RawRole::Client => Role::Client,
            RawRole::Operator => Role::Operator,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBootstrap {
    #[serde(deserialize_with = "node_id")]
    id: NodeId,
}

fn node_id<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
    let text = String::deserialize(from)?;
    text.parse()
        .map_err(|_| de::Error::custom(format!("`{text}` is no node id: 64 lower-case hex digits")))
}

fn hex_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NetworkId>, D::Error> {
    let text = String::deserialize(from)?;
    let mut id = [0; 32];
    hex::decode_to_slice(&text, &mut id)
        .map_err(|_| de::Error::custom(format!("`{text}` is no network id: 64 hex digits")))?;
    Ok(Some(NetworkId(id)))
}

fn root_key<'de, D: Deserializer<'de>>(from: D) -> Result<MlDsaPublic, D::Error> {
    let text = String::deserialize(from)?;
    let bytes =
        hex::decode(&text).map_err(|_| de::Error::custom("the root key is not written in hex"))?;
    MlDsaPublic::from_slice(&bytes)
        .map_err(|_| de::Error::custom("the root key is no ML-DSA-65 public key (1,952 bytes)"))
}

pub(super) fn load(path: &Path) -> Result<NetworkFile, NetworkFileError> {
    let origin = path.display().to_string();
    let read = |source| NetworkFileError::Read {
        path: origin.clone(),
        source,
    };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if text.len() as u64 > MAX_FILE {
        return Err(NetworkFileError::TooLarge { path: origin });
    }
    parse(&origin, &text)
}

pub(super) fn parse(origin: &str, text: &str) -> Result<NetworkFile, NetworkFileError> {
    let invalid = |at: usize, problem, did_you_mean| NetworkFileError::Invalid {
        origin: origin.to_owned(),
        line: text.as_bytes()[..at.min(text.len())]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1,
        problem: Box::new(problem),
        did_you_mean,
    };
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().to_owned();
        let near = nearest(&message);
        invalid(at, Problem::Syntax(message), near)
    })?;
    let spans = Spans::of(&raw);
    let shards = *raw.shards.get_ref();
    let parts = NetworkParts {
        name: raw.name.into_inner(),
        root: raw.root,
        // Out of range becomes 0, which the check below refuses by the same rule.
        shards: u16::try_from(shards).unwrap_or(0),
        admission: match raw.admission.clients {
            RawClients::Any => Admission::Any,
            RawClients::Listed => Admission::Listed,
        },
        nodes: raw
            .node
            .into_iter()
            .map(|node| entry(node.into_inner()))
            .collect(),
        bootstrap: raw
            .bootstrap
            .into_iter()
            .map(|entry| entry.into_inner().id)
            .collect(),
    };
    let network = NetworkFile::new(parts).map_err(|problem| {
        let problem = match problem {
            Problem::Shards(_) => Problem::Shards(shards),
            other => other,
        };
        invalid(spans.at(&problem), problem, None)
    })?;
    match raw.network_id {
        Some(written) if written != network.network_id => {
            let problem = Problem::NetworkIdMismatch {
                written,
                computed: network.network_id,
            };
            let at = text.find("network_id").unwrap_or(0);
            Err(invalid(at, problem, None))
        }
        _ => Ok(network),
    }
}

fn entry(raw: RawNode) -> NodeEntry {
    NodeEntry {
        id: raw.id,
        roles: raw
            .roles
            .into_iter()
            .map(Role::from)
            .collect::<BTreeSet<_>>(),
        control: raw.control,
        data: raw.data,
    }
}

/// Where each thing that a check may complain about begins.
struct Spans {
    name: usize,
    shards: usize,
    nodes: Vec<(NodeId, usize)>,
    bootstrap: Vec<(NodeId, usize)>,
}

impl Spans {
    fn of(raw: &RawFile) -> Spans {
        Spans {
            name: raw.name.span().start,
            shards: raw.shards.span().start,
            nodes: raw
                .node
                .iter()
                .map(|n| (n.get_ref().id, n.span().start))
                .collect(),
            bootstrap: raw
                .bootstrap
                .iter()
                .map(|b| (b.get_ref().id, b.span().start))
                .collect(),
        }
    }

    fn at(&self, problem: &Problem) -> usize {
        // Of two entries with one id the later is the one to look at.
        let last = |list: &[(NodeId, usize)], id: &NodeId| {
            list.iter()
                .rev()
                .find(|(other, _)| other == id)
                .map_or(0, |(_, at)| *at)
        };
        match problem {
            Problem::Name(_) => self.name,
            Problem::Shards(_) => self.shards,
            Problem::DuplicateNode(id)
            | Problem::NoRole(id)
            | Problem::TooManyAddresses(id)
            | Problem::DataOverWebSocket(id) => last(&self.nodes, id),
            Problem::DuplicateBootstrap(id)
            | Problem::BootstrapUnlisted(id)
            | Problem::BootstrapWithoutAddress(id) => last(&self.bootstrap, id),
            Problem::Syntax(_)
            | Problem::TooManyNodes(_)
            | Problem::NoRelayer
            | Problem::NetworkIdMismatch { .. } => 0,
        }
    }
}

/// The known word nearest to the unknown one in serde's "unknown field `x`, expected one of `y`, `z`".
fn nearest(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    words
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(3) / 2)
        .min()
        .map(|(_, known)| known.to_owned())
}

pub(super) fn render(network: &NetworkFile) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    render_to(&mut out, network).unwrap_or_default();
    out
}

fn render_to(out: &mut String, network: &NetworkFile) -> std::fmt::Result {
    writeln!(
        out,
        "# A PQCNet network. Every node and client of it has the same file; addresses may differ."
    )?;
    writeln!(out, "name = \"{}\"", network.name)?;
    writeln!(out, "network_id = \"{}\"", network.network_id)?;
    writeln!(out, "shards = {}", network.shards)?;
    writeln!(out, "root = \"{}\"", hex::encode(network.root.as_bytes()))?;
    writeln!(
        out,
        "\n[admission]\nclients = \"{}\"",
        network.admission.name()
    )?;
    for node in &network.nodes {
        let roles: Vec<String> = node
            .roles
            .iter()
            .map(|role| format!("\"{role}\""))
            .collect();
        writeln!(
            out,
            "\n[[node]]\nid = \"{}\"\nroles = [{}]",
            node.id,
            roles.join(", ")
        )?;
        for (key, addresses) in [("control", &node.control), ("data", &node.data)] {
            if !addresses.is_empty() {
                let list: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
                writeln!(out, "{key} = [{}]", list.join(", "))?;
            }
        }
    }
    for id in &network.bootstrap {
        writeln!(out, "\n[[bootstrap]]\nid = \"{id}\"")?;
    }
    Ok(())
}
