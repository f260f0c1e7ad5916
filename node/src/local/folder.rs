//! The folder of a local network: keys of everybody in it, `network.toml`, one configuration a node.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use pqcnet_crypto::keystore::{Contents, WrappingKey};
use pqcnet_crypto::{MlDsaKeyPair, NodeId, NodeSecrets};
use pqcnet_messages::Role;
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};

use crate::clock::wall_ms;
use crate::config::UnlockSource;
use crate::unlock::Opener;

/// Virtual shards of a local network: several a relayer, few enough that each sees traffic.
pub const SHARDS: u16 = 16;
/// Most relayers of a local network; each is a process with its own store.
pub const MAX_RELAYERS: usize = 16;

const NETWORK: &str = "network.toml";
const UNLOCK: &str = "unlock.key";
const LOCK: &str = "up.lock";

/// A local network's folder.
#[derive(Debug, Clone)]
pub struct LocalFolder {
    root: PathBuf,
    network: NetworkFile,
}

/// One node of it.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// `relayer-1`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Who it is.
    pub id: NodeId,
    /// Where its configuration is.
    pub config: PathBuf,
    /// Its control plane.
    pub control: Address,
    /// Its data plane.
    pub data: Address,
}

impl LocalFolder {
    /// Makes a network of one sentry and some relayers with fresh keys, on free ports of loopback.
    pub fn create(root: &Path, relayers: usize) -> Result<LocalFolder> {
        ensure!(
            (1..=MAX_RELAYERS).contains(&relayers),
            "1 to {MAX_RELAYERS} relayers, not {relayers}"
        );
        make_folder(root)?;
        WrappingKey::create(&root.join(UNLOCK))?;
        let opener = opener(root)?;
        let names = std::iter::once(("sentry-1".to_owned(), Role::Sentry))
            .chain((1..=relayers).map(|n| (format!("relayer-{n}"), Role::Relayer)));
        // All sockets stay open until every port is chosen, so that none is chosen twice.
        let mut held = Vec::new();
        let mut nodes = Vec::new();
        for (name, role) in names {
            let folder = root.join(&name);
            make_folder(&folder)?;
            let id = new_node_keys(&opener, &folder.join("node.keys"))?;
            let (control, data) = (free_port(&mut held)?, free_port(&mut held)?);
            write_config(&folder, control, data)?;
            let roles = BTreeSet::from([role]);
            nodes.push(NodeEntry {
                id,
                roles,
                control: vec![control.into()],
                data: vec![data.into()],
            });
        }
        let bootstrap = nodes.iter().map(|node| node.id).collect();
        for (name, role) in [
            ("operator", Role::Operator),
            ("client", Role::Client),
            ("reader", Role::Client),
        ] {
            let id = new_node_keys(&opener, &root.join(format!("{name}.keys")))?;
            let roles = BTreeSet::from([role]);
            nodes.push(NodeEntry {
                id,
                roles,
                control: Vec::new(),
                data: Vec::new(),
            });
        }
        let root_key = MlDsaKeyPair::generate();
        create(&opener, &root.join("root.keys"), &root_key)?;
        let network = NetworkFile::new(NetworkParts {
            name: "local".to_owned(),
            root: root_key.public().clone(),
            shards: SHARDS,
            admission: Admission::Listed,
            nodes,
            bootstrap,
        })?;
        network
            .write(&root.join(NETWORK))
            .with_context(|| format!("cannot write {NETWORK}"))?;
        Ok(LocalFolder {
            root: root.to_owned(),
            network,
        })
    }

    /// Opens one made before.
    pub fn open(root: &Path) -> Result<LocalFolder> {
        let network = NetworkFile::load(&root.join(NETWORK))?;
        Ok(LocalFolder {
            root: root.to_owned(),
            network,
        })
    }

    /// Whether a network was made here.
    pub fn exists(root: &Path) -> bool {
        root.join(NETWORK).exists()
    }

    /// Takes the folder for a running network; it is free again when the file is closed, by whatever end of the process.
    pub fn lock(&self) -> Result<File> {
        let path = self.root.join(LOCK);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                bail!(
                    "a network already runs in {}, process {}: `pqcnet status --state {}` shows it; to run another, name another --state",
                    self.root.display(),
                    holder.trim(),
                    self.root.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(file)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `network.toml`, read.
    pub fn network(&self) -> &NetworkFile {
        &self.network
    }

    /// Where `network.toml` is.
    pub fn network_path(&self) -> PathBuf {
        self.root.join(NETWORK)
    }

    /// The key file of somebody who is no node: `client`, `reader`, `operator`.
    pub fn keys_of(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.keys"))
    }

    /// Everybody with keys here and where they are: nodes by their folders, then those who are no nodes.
    pub fn members(&self) -> Vec<(String, PathBuf)> {
        let mut members = Vec::new();
        for role in [Role::Relayer, Role::Sentry] {
            for n in 1..=MAX_RELAYERS {
                let keys = self.root.join(format!("{role}-{n}")).join("node.keys");
                if keys.exists() {
                    members.push((format!("{role}-{n}"), keys));
                }
            }
        }
        for name in ["operator", "client", "reader"] {
            members.push((name.to_owned(), self.keys_of(name)));
        }
        members
    }

    /// What opens every key file here.
    pub fn unlock(&self) -> UnlockSource {
        UnlockSource::KeyFile(self.root.join(UNLOCK))
    }

    /// The nodes in the order in which they are started: relayers, then sentries.
    pub fn nodes(&self) -> Result<Vec<LocalNode>> {
        let mut nodes = Vec::new();
        for role in [Role::Relayer, Role::Sentry] {
            for n in 1.. {
                let name = format!("{role}-{n}");
                let folder = self.root.join(&name);
                if !folder.exists() {
                    break;
                }
                let summary = pqcnet_crypto::keystore::summary(&folder.join("node.keys"))?;
                let id = summary
                    .node_id()
                    .context("node.keys holds no node's keys")?;
                // A node that rotated its identity is listed under an earlier one.
                let table = summary.versions.unwrap_or_default();
                let earlier = table.identities.iter().map(|entry| NodeId::from(entry.id));
                let entry = std::iter::once(id)
                    .chain(earlier)
                    .find_map(|id| self.network.node(&id))
                    .with_context(|| format!("{name} is not in {NETWORK}"))?;
                let address =
                    |at: &[Address]| at.first().cloned().context("a node without an address");
                nodes.push(LocalNode {
                    role,
                    id,
                    config: folder.join("node.toml"),
                    control: address(&entry.control)?,
                    data: address(&entry.data)?,
                    name,
                });
            }
        }
        Ok(nodes)
    }
}

fn opener(root: &Path) -> Result<Opener> {
    Ok(Opener::from_source(&UnlockSource::KeyFile(
        root.join(UNLOCK),
    ))?)
}

fn new_node_keys(opener: &Opener, path: &Path) -> Result<NodeId> {
    let secrets = NodeSecrets::generate_at(wall_ms());
    create(opener, path, &secrets)?;
    Ok(secrets.keys.node_id())
}

fn create<C: Contents>(opener: &Opener, path: &Path, contents: &C) -> Result<()> {
    Ok(opener.create(path, contents)?)
}

fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn free_port(held: &mut Vec<TcpListener>) -> Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    let at = listener.local_addr().context("no free port on loopback")?;
    held.push(listener);
    Ok(at)
}

fn write_config(folder: &Path, control: SocketAddr, data: SocketAddr) -> Result<()> {
    let text = format!(
        "network = \"../{NETWORK}\"\nkeys = \"node.keys\"\n\n[unlock]\nkey_file = \"../{UNLOCK}\"\n\n\
         [listen]\ncontrol = \"{control}\"\ndata = \"{data}\"\n\n\
         # Port 0: the system chooses, and the node says which.\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [store]\npath = \"store\"\n"
    );
    let path = folder.join("node.toml");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    // Scenario: a folder is made, read back, and its nodes' configurations are what a node accepts.
    use super::*;
    use crate::config::{Layers, NodeConfig};

    #[test]
    fn a_folder_is_made_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("net");
        assert!(!LocalFolder::exists(&root));
        let made = LocalFolder::create(&root, 2).unwrap();
        let opened = LocalFolder::open(&root).unwrap();
        assert_eq!(made.network(), opened.network());
        let nodes = opened.nodes().unwrap();
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["relayer-1", "relayer-2", "sentry-1"]);
        for node in &nodes {
            let text = fs::read_to_string(&node.config).unwrap();
            let layers = Layers::gather(Some((&node.config, &text)), [], &[]);
            let config = NodeConfig::from_layers(layers).unwrap();
            assert_eq!(Address::from(config.data), node.data);
            let opener = Opener::from_source(&config.unlock).unwrap();
            let secrets: NodeSecrets = opener.open(&config.keys).unwrap();
            assert_eq!(secrets.keys.node_id(), node.id);
            assert!(opened.network().grants(&node.id, node.role));
        }
    }

    // Scenario: a relayer rotated its identity; the network file names the earlier one, and its addresses are still found.
    #[test]
    fn a_rotated_node_is_found_by_its_earlier_identity() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("net");
        let made = LocalFolder::create(&root, 1).unwrap();
        let before = made.nodes().unwrap();
        let opener = Opener::from_source(&made.unlock()).unwrap();
        let rotate = |secrets: &mut NodeSecrets| {
            secrets.prepare_identity(1)?;
            secrets.use_prepared(1, 1_000)
        };
        let keys = root.join("relayer-1/node.keys");
        let new = opener.update(&keys, rotate).unwrap().unwrap();
        let after = LocalFolder::open(&root).unwrap().nodes().unwrap();
        assert_eq!((after[0].id, &after[0].data), (new, &before[0].data));
        assert_ne!(new, before[0].id);
    }

    #[test]
    fn numbers_of_relayers_are_bounded() {
        let place = tempfile::tempdir().unwrap();
        for relayers in [0, MAX_RELAYERS + 1] {
            let error = LocalFolder::create(place.path(), relayers).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("1 to 16 relayers, not {relayers}")
            );
        }
    }
}
