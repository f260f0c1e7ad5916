//! `pqcnet keys rotate`: the next version of a key, in the key file.
//!
//! ```text
//!   KEM key    rotate kem ─▶ in use at the node's next start; the one before opens until its overlap ends
//!
//!   identity   rotate identity ─▶ prepared, and a request ─▶ root: keys succeed ─▶ the network knows the successor
//!              rotate use ─▶ in use at the node's next start; the old one counts until the overlap ends
//!              rotate undo ─▶ until then: the old one in use at the node's next start, the new one prepared again
//! ```

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pqcnet_crypto::NodeSecrets;
use pqcnet_crypto::keystore::RotateError;
use pqcnet_p2p::network::NetworkFile;

use super::{UnlockArgs, days};
use crate::exit::{Exit, Failed};
use crate::succession::Succession;
use crate::unlock::Opener;

/// Which key.
#[derive(Debug, Subcommand)]
pub enum Rotate {
    /// Make the next KEM key and put it into use.
    Kem(Kem),
    /// Prepare the next identity, and write the request that the network's root answers with `keys succeed`.
    Identity(Identity),
    /// Put the prepared identity into use, once the root let it succeed.
    Use(Use),
    /// Put the identity before back into use, while the network still knows it; the new one is prepared again.
    Undo(Which),
    /// Erase the prepared identity.
    Discard(Which),
}

/// Whose key file.
#[derive(Debug, Args)]
pub struct Which {
    /// The key file.
    #[arg(long, default_value = "node.keys")]
    keys: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

/// The next KEM key.
#[derive(Debug, Args)]
pub struct Kem {
    #[command(flatten)]
    which: Which,
    /// How many days the key before still opens what was sealed to it.
    #[arg(long, value_name = "DAYS", default_value = "7", value_parser = days)]
    overlap: u64,
}

/// The next identity.
#[derive(Debug, Args)]
pub struct Identity {
    #[command(flatten)]
    which: Which,
    /// The network that the request is for.
    #[arg(long, default_value = "network.toml")]
    network: PathBuf,
    /// Where the request is written; holds nothing secret.
    #[arg(long, default_value = "succession.toml")]
    out: PathBuf,
}

/// Into use.
#[derive(Debug, Args)]
pub struct Use {
    #[command(flatten)]
    which: Which,
    /// How many days the identity before stays in the file. The network refuses it when the root's overlap ends.
    #[arg(long, value_name = "DAYS", default_value = "30", value_parser = days)]
    overlap: u64,
}

/// Runs it.
pub fn run(rotate: &Rotate, now_ms: u64) -> Result<Exit, Failed> {
    match rotate {
        Rotate::Kem(kem) => {
            let version = kem.which.change(|s| s.rotate_kem(now_ms, kem.overlap))?;
            say!("kem = {version}");
            eprintln!("the node advertises it from its next start");
        }
        Rotate::Identity(identity) => return prepare(identity, now_ms),
        Rotate::Use(into_use) => {
            let until = now_ms.saturating_add(into_use.overlap);
            let id = into_use.which.change(|s| s.use_prepared(now_ms, until))?;
            say!("{id}");
            eprintln!(
                "the node is this one from its next start, which the network refuses unless the root let it succeed \
                 (`pqcnet keys succeed`); `pqcnet keys rotate undo` goes back"
            );
        }
        Rotate::Undo(which) => {
            let id = which.change(|s| s.undo_use(now_ms))?;
            say!("{id}");
            eprintln!(
                "the node is this one again from its next start; `pqcnet keys rotate use` goes on"
            );
        }
        Rotate::Discard(which) => {
            let version = which.change(NodeSecrets::discard_prepared)?;
            eprintln!("identity version {version} is erased");
        }
    }
    Ok(Exit::Ok)
}

impl Which {
    /// Changes the file, or leaves it as it is and says why.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut NodeSecrets) -> Result<T, RotateError>,
    ) -> Result<T, Failed> {
        let opener = Opener::from_source(&self.unlock.source()).map_err(Failed::usage)?;
        let changed = opener.update(&self.keys, change).map_err(Failed::usage)?;
        changed.map_err(Failed::usage)
    }
}

fn prepare(identity: &Identity, now_ms: u64) -> Result<Exit, Failed> {
    let network = NetworkFile::load(&identity.network).map_err(Failed::usage)?;
    // A request that cannot be written must not leave a prepared identity behind.
    if identity.out.exists() {
        return Err(Failed::usage(anyhow::anyhow!(
            "{} exists already; move it away or name another with --out",
            identity.out.display()
        )));
    }
    let request = identity.which.change(|secrets| {
        // A request that got lost is written again: the prepared identity stays.
        if secrets.versions.prepared().is_none() {
            secrets.prepare_identity(now_ms)?;
        }
        let prepared = secrets.versions.prepared();
        let next = prepared.ok_or(RotateError::NothingPrepared)?;
        Ok(Succession::ask(
            network.network_id().0,
            &secrets.keys,
            &next.key,
            now_ms,
        ))
    })?;
    std::fs::write(&identity.out, request.to_text())
        .map_err(|error| Failed::usage(anyhow::anyhow!("{}: {error}", identity.out.display())))?;
    say!("{}", request.new.node_id());
    eprintln!(
        "wrote {}: whoever holds the root key runs `pqcnet keys succeed --request {}`, then this node's operator `pqcnet keys rotate use`",
        identity.out.display(),
        identity.out.display()
    );
    Ok(Exit::Ok)
}
