//! Who a command acts as, and in which network: a local network's folder, or files named one by one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use pqcnet_client::{Client, ClientConfig, ConnectError};
use pqcnet_crypto::{NodeKeys, NodeSecrets};
use pqcnet_p2p::network::NetworkFile;

use super::keys::UnlockArgs;
use super::nodes::Names;
use crate::config::UnlockSource;
use crate::exit::{Exit, Failed};
use crate::local::folder::LocalFolder;
use crate::unlock::Opener;

/// The folder that `pqcnet up` makes unless told otherwise.
pub const STATE: &str = "pqcnet-local";

/// Where the network and the keys are.
#[derive(Debug, Clone, Args)]
pub struct IdentityArgs {
    /// The folder of a network made by `pqcnet up`; it holds everything else.
    #[arg(long, env = "PQCNET_STATE", default_value = STATE)]
    pub state: PathBuf,
    /// Act as this member of that folder: client, reader or operator.
    #[arg(long = "as", value_name = "NAME", value_parser = ["client", "reader", "operator"])]
    pub name: Option<String>,
    /// Instead of --state: the network file.
    #[arg(long, requires = "keys")]
    pub network: Option<PathBuf>,
    /// With --network: the key file.
    #[arg(long, requires = "network")]
    pub keys: Option<PathBuf>,
    /// What opens the key file.
    #[command(flatten)]
    pub unlock: UnlockArgs,
}

/// A network and somebody's keys in it.
pub struct Identity {
    /// The network.
    pub network: NetworkFile,
    /// Who acts.
    pub keys: Arc<NodeKeys>,
    /// What its nodes are called.
    pub names: Names,
}

impl IdentityArgs {
    /// Reads both; `usual` is the member to act as when none is named.
    pub fn open(&self, usual: &str) -> Result<Identity, Failed> {
        let (network, keys, unlock) = self.files(usual)?;
        let names = self.names();
        let network = NetworkFile::load(&network).map_err(Failed::usage)?;
        let opener = Opener::from_source(&unlock)
            .with_context(|| format!("{} stays closed", keys.display()))
            .map_err(Failed::usage)?;
        let secrets: NodeSecrets = opener.open(&keys).map_err(Failed::usage)?;
        Ok(Identity {
            network,
            keys: Arc::new(secrets.keys),
            names,
        })
    }

    /// What the nodes of a network made by `pqcnet up` are called.
    pub fn names(&self) -> Names {
        if self.network.is_some() || !LocalFolder::exists(&self.state) {
            return Names::default();
        }
        match LocalFolder::open(&self.state) {
            Ok(folder) => Names::of_folder(&folder),
            Err(_) => Names::default(),
        }
    }

    /// The network file.
    pub fn network_path(&self) -> Result<PathBuf, Failed> {
        match &self.network {
            Some(network) => Ok(network.clone()),
            None => Ok(self.folder()?.network_path()),
        }
    }

    /// The root key of a network made by `pqcnet up`, and what opens it.
    pub fn root_key(&self) -> Result<Option<(PathBuf, UnlockSource)>, Failed> {
        if self.network.is_some() {
            return Ok(None);
        }
        let folder = self.folder()?;
        Ok(Some((folder.root().join("root.keys"), folder.unlock())))
    }

    fn folder(&self) -> Result<LocalFolder, Failed> {
        if !LocalFolder::exists(&self.state) {
            return Err(Failed::usage(anyhow::anyhow!(
                "{} holds no network: run `pqcnet up`, or name --network and --keys",
                self.state.display()
            )));
        }
        LocalFolder::open(&self.state).map_err(Failed::usage)
    }

    fn files(&self, usual: &str) -> Result<(PathBuf, PathBuf, UnlockSource), Failed> {
        if let (Some(network), Some(keys)) = (&self.network, &self.keys) {
            return Ok((network.clone(), keys.clone(), self.unlock.source()));
        }
        let folder = self.folder()?;
        let keys = folder.keys_of(self.name.as_deref().unwrap_or(usual));
        Ok((folder.network_path(), keys, folder.unlock()))
    }
}

impl Identity {
    /// A client of the network under this identity.
    pub async fn client(&self) -> Result<Client, Failed> {
        let config = ClientConfig::new(self.network.clone(), self.keys.clone());
        Client::connect(config).await.map_err(connect_failed)
    }
}

/// The code that fits why there is no connection.
pub fn connect_failed(error: ConnectError) -> Failed {
    let exit = exit_of(&error);
    Failed::new(exit, error)
}

fn exit_of(error: &ConnectError) -> Exit {
    match error {
        ConnectError::NoSentry | ConnectError::Unusable(_) => Exit::Usage,
        ConnectError::Unreachable { .. } => Exit::Unreachable,
        ConnectError::Rejected { .. } | ConnectError::Refused { .. } => Exit::Refused,
        ConnectError::TimedOut { last, .. } => exit_of(last),
        _ => Exit::Failure,
    }
}
