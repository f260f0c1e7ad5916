//! Which nodes a command means, and what they are called.

use std::collections::BTreeMap;

use pqcnet_crypto::{NodeId, keystore};
use pqcnet_p2p::network::{NetworkFile, NodeEntry};

use crate::config::nearest;
use crate::exit::Failed;
use crate::local::folder::LocalFolder;

/// What nodes are called: the names in a local network's folder. A node without one goes by the beginning of its id.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// Of everybody in a folder whose key file can be read; it stays closed.
    pub fn of_folder(folder: &LocalFolder) -> Names {
        let mut names = BTreeMap::new();
        for (name, keys) in folder.members() {
            let Ok(found) = keystore::summary(&keys) else {
                continue;
            };
            // The network file lists a node under the identity that it had first.
            let table = found.versions.clone().unwrap_or_default();
            let versions = table.identities.iter().map(|entry| NodeId::from(entry.id));
            for id in versions.chain(found.node_id()) {
                names.insert(id, name.clone());
            }
        }
        Names(names)
    }

    /// These.
    pub fn new(names: impl IntoIterator<Item = (NodeId, String)>) -> Names {
        Names(names.into_iter().collect())
    }

    /// The name alone, where there is one.
    pub fn name(&self, id: &NodeId) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }

    /// `relayer-1 (0a1b2c3d)`, or `0a1b2c3d`.
    pub fn full(&self, id: &NodeId) -> String {
        match self.name(id) {
            Some(name) => format!("{name} ({})", id.short()),
            None => id.short(),
        }
    }

    /// A text in which nodes stand by the beginnings of their ids, with their names put to them.
    pub fn put_into(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (id, name) in &self.0 {
            let (short, full) = (id.short(), format!("{name} ({})", id.short()));
            if text.contains(&short) && !text.contains(&full) {
                text = text.replace(&short, &full);
            }
        }
        text
    }

    fn means(&self, node: &NodeEntry, wanted: &str) -> bool {
        self.name(&node.id) == Some(wanted) || node.id.to_string().starts_with(wanted)
    }
}

/// Nodes that can be dialled: the one of this name, or those whose id begins so, or all.
pub fn chosen<'a>(
    network: &'a NetworkFile,
    names: &Names,
    wanted: Option<&str>,
) -> Result<Vec<&'a NodeEntry>, Failed> {
    let dialled = || network.nodes().iter().filter(|node| !node.data.is_empty());
    let Some(wanted) = wanted else {
        let mut all: Vec<&NodeEntry> = dialled().collect();
        all.sort_by_cached_key(|node| names.full(&node.id));
        if all.is_empty() {
            return Err(Failed::usage(anyhow::anyhow!(
                "no node of network {} has a data address",
                network.name()
            )));
        }
        return Ok(all);
    };
    let named: Vec<&NodeEntry> = dialled()
        .filter(|node| names.name(&node.id) == Some(wanted))
        .collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let meant: Vec<&NodeEntry> = dialled().filter(|node| names.means(node, wanted)).collect();
    if meant.is_empty() {
        let known: Vec<String> = dialled().map(|node| names.full(&node.id)).collect();
        let near = nearest(wanted, dialled().filter_map(|node| names.name(&node.id)));
        let near = near.map(|name| format!("; did you mean `{name}`?"));
        return Err(Failed::usage(anyhow::anyhow!(
            "no node is called `{wanted}` and no id begins with it{}; nodes with a data address: {}",
            near.unwrap_or_default(),
            known.join(", ")
        )));
    }
    Ok(meant)
}
