//! `pqcnet network`: makes a network file of nodes that have their keys, and shows one.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use pqcnet_crypto::{MlDsaPublic, NodeId};
use pqcnet_messages::Role;
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};

use crate::exit::{Exit, Failed};

/// Longest file with a root key that is read: the key in hexadecimal takes 3,904 characters.
const MAX_ROOT_FILE: usize = 16 << 10;

/// What to do with a network file.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Write network.toml for nodes that have their keys; never over another one. Every node and client gets the same file.
    Init(Init),
    /// Show who is in a network, and its id.
    Show {
        /// The network file.
        #[arg(default_value = "network.toml")]
        file: PathBuf,
    },
}

/// Whom sentries take as clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clients {
    /// Everybody.
    Any,
    /// Nodes that the file lists with the role client.
    Listed,
}

/// Who is in the network.
#[derive(Debug, Args)]
pub struct Init {
    /// Lower-case letters, digits and dashes.
    #[arg(long)]
    name: String,
    /// A file with the line that `pqcnet root init` printed.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Virtual shards, fixed for the life of the network: several for each relayer that there may ever be.
    #[arg(long, default_value_t = 64)]
    shards: u16,
    /// Whom sentries take as clients.
    #[arg(long, value_enum, default_value = "any")]
    clients: Clients,
    /// A node in quotes: its role (sentry, relayer, client or operator; several with `+`), the id that `pqcnet keys init` printed, and its addresses; once for
    /// each: `--node "relayer 0a1b… control=192.0.2.7:7410 data=192.0.2.7:7411"`, `--node "operator 2c3d…"`.
    #[arg(
        long = "node",
        value_name = "ROLE ID [PLANE=ADDRESS]...",
        required = true
    )]
    nodes: Vec<Node>,
    /// The beginning of the id of a node to dial first; without any, all that have a control address.
    #[arg(long, value_name = "ID")]
    bootstrap: Vec<String>,
    /// The file to make.
    #[arg(long, default_value = "network.toml")]
    out: PathBuf,
}

/// A node as it is given.
#[derive(Clone, Debug)]
struct Node(NodeEntry);

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Node, String> {
        let mut words = text.split_whitespace();
        let (Some(roles), Some(id)) = (words.next(), words.next()) else {
            return Err("a role and an id are wanted, then control=… and data=…".to_owned());
        };
        let role = |name: &str| {
            let role = name.parse::<Role>().map_err(|error| error.to_string())?;
            match role {
                Role::Sentry | Role::Relayer | Role::Client | Role::Operator => Ok(role),
                Role::Validator | Role::Watcher | Role::Gateway => Err(format!(
                    "this release has no program for a {role}: a node is a sentry or a relayer; clients and operators can be listed, too"
                )),
            }
        };
        let mut node = NodeEntry {
            id: id.parse().map_err(|error| format!("`{id}`: {error}"))?,
            roles: roles.split('+').map(role).collect::<Result<_, _>>()?,
            control: Vec::new(),
            data: Vec::new(),
        };
        for word in words {
            let address = |text: &str| -> Result<Address, String> {
                text.parse().map_err(|error| format!("`{text}`: {error}"))
            };
            match word.split_once('=') {
                Some(("control", at)) => node.control.push(address(at)?),
                Some(("data", at)) => node.data.push(address(at)?),
                _ => {
                    return Err(format!(
                        "`{word}` is neither control=ADDRESS nor data=ADDRESS"
                    ));
                }
            }
        }
        Ok(Node(node))
    }
}

/// Runs it.
pub fn run(command: &Network) -> Result<Exit, Failed> {
    match command {
        Network::Init(init) => make(init),
        Network::Show { file } => {
            let network = NetworkFile::load(file).map_err(Failed::usage)?;
            print!("{}", shown(&network));
            Ok(Exit::Ok)
        }
    }
}

fn make(init: &Init) -> Result<Exit, Failed> {
    let root = root(&init.root).map_err(Failed::usage)?;
    let nodes: Vec<NodeEntry> = init.nodes.iter().map(|Node(node)| node.clone()).collect();
    let bootstrap = bootstrap(&nodes, &init.bootstrap).map_err(Failed::usage)?;
    let network = NetworkFile::new(NetworkParts {
        name: init.name.clone(),
        root,
        shards: init.shards,
        admission: match init.clients {
            Clients::Any => Admission::Any,
            Clients::Listed => Admission::Listed,
        },
        nodes,
        bootstrap,
    })
    .map_err(Failed::usage)?;
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&init.out);
    made.and_then(|mut file| file.write_all(network.to_toml().as_bytes()))
        .with_context(|| format!("cannot make {}", init.out.display()))
        .map_err(Failed::usage)?;
    say!("{}", network.network_id());
    eprintln!(
        "wrote {}; the line on standard output is the network's id. Every node and client gets this file",
        init.out.display()
    );
    Ok(Exit::Ok)
}

/// The key in `root = "…"`, or alone.
fn root(path: &Path) -> anyhow::Result<MlDsaPublic> {
    let about = || format!("{}", path.display());
    let text = std::fs::read(path).with_context(about)?;
    anyhow::ensure!(
        text.len() <= MAX_ROOT_FILE,
        "{}: too long for the line that `pqcnet root init` printed",
        path.display()
    );
    let text = String::from_utf8_lossy(&text);
    let line = text.trim().trim_start_matches("root").trim_start();
    let digits = line.trim_start_matches('=').trim().trim_matches('"');
    let key = hex::decode(digits)
        .ok()
        .and_then(|bytes| MlDsaPublic::from_slice(&bytes).ok());
    key.with_context(|| {
        format!(
            "{}: not the line that `pqcnet root init` printed, root = \"3904 hexadecimal digits\"",
            path.display()
        )
    })
}

/// Those whose ids begin so, or all that can be dialled.
fn bootstrap(nodes: &[NodeEntry], wanted: &[String]) -> anyhow::Result<Vec<NodeId>> {
    if wanted.is_empty() {
        let dialled = nodes.iter().filter(|node| !node.control.is_empty());
        return Ok(dialled.map(|node| node.id).collect());
    }
    let meant = wanted.iter().map(|wanted| {
        let mut meant = nodes
            .iter()
            .filter(|node| node.id.to_string().starts_with(wanted));
        match (meant.next(), meant.next()) {
            (Some(node), None) => Ok(node.id),
            (None, _) => anyhow::bail!("--bootstrap {wanted}: no node's id begins so"),
            (Some(_), Some(_)) => anyhow::bail!("--bootstrap {wanted}: several ids begin so"),
        }
    });
    let meant: anyhow::Result<BTreeSet<NodeId>> = meant.collect();
    Ok(meant?.into_iter().collect())
}

fn shown(network: &NetworkFile) -> String {
    let mut out = format!(
        "network {} ({})\n{} shards, clients: {}\n",
        network.name(),
        network.network_id(),
        network.shards(),
        network.admission().name()
    );
    let first = network.bootstrap();
    for node in network.nodes() {
        let roles: Vec<&str> = node.roles.iter().map(|role| role.name()).collect();
        let mut line = format!("  {}  {}", node.id, roles.join("+"));
        for (plane, list) in [("control", &node.control), ("data", &node.data)] {
            for address in list {
                line.push_str(&format!("  {plane} {address}"));
            }
        }
        if first.iter().any(|bootstrap| bootstrap.id == node.id) {
            line.push_str("  bootstrap");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> String {
        NodeId::from_bytes([byte; 32]).to_string()
    }

    /// Scenario: a node is given with roles, id and addresses of both planes; each way to get it wrong says what was meant.
    #[test]
    fn nodes_as_given() {
        let text = format!(
            "sentry+operator {}  control=192.0.2.7:7410 control=ws://a.example:80 data=[::1]:7411",
            id(7)
        );
        let Node(node) = text.parse().unwrap();
        assert_eq!(node.id, NodeId::from_bytes([7; 32]));
        assert_eq!(node.roles, BTreeSet::from([Role::Sentry, Role::Operator]));
        let shown = |list: &[Address]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            shown(&node.control),
            ["192.0.2.7:7410", "ws://a.example:80"]
        );
        assert_eq!(shown(&node.data), ["[::1]:7411"]);
        let wrong = |text: &str| text.parse::<Node>().unwrap_err();
        assert!(wrong("relayer").contains("a role and an id"));
        assert!(wrong(&format!("relayr {}", id(1))).contains("`relayr` is no role"));
        for role in ["validator", "watcher", "sentry+gateway"] {
            let told = wrong(&format!("{role} {}", id(1)));
            assert!(told.contains("no program for a "), "{told}");
        }
        assert!(wrong("relayer 0a1b").starts_with("`0a1b`: "));
        assert!(wrong(&format!("relayer {} 1.2.3.4:5", id(1))).contains("neither control="));
        assert!(wrong(&format!("relayer {} data=nowhere", id(1))).starts_with("`nowhere`: "));
    }

    /// Scenario: without a word all nodes with a control address are dialled first; else those that are named, each once.
    #[test]
    fn whom_to_dial_first() {
        let node = |byte, control: &str| {
            let Node(node) = format!("relayer {} {control}", id(byte)).parse().unwrap();
            node
        };
        let nodes = [node(1, "control=a:1"), node(2, ""), node(3, "control=c:1")];
        let named = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
            bootstrap(&nodes, &wanted)
        };
        let ids = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|b| NodeId::from_bytes([*b; 32]))
                .collect::<Vec<_>>()
        };
        assert_eq!(named(&[]).unwrap(), ids(&[1, 3]));
        assert_eq!(named(&["03", "0303"]).unwrap(), ids(&[3]));
        assert!(named(&["0"]).unwrap_err().to_string().contains("several"));
        assert!(
            named(&["ff"])
                .unwrap_err()
                .to_string()
                .contains("no node's id")
        );
    }
}
