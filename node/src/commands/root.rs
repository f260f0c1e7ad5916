//! `pqcnet root`: the key that orders what the network file does not say yet.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pqcnet_crypto::MlDsaKeyPair;
use pqcnet_crypto::keystore::WrappingKey;

use super::cli::on_network;
use super::keys::{UnlockArgs, orders};
use crate::exit::{Exit, Failed};
use crate::unlock::Opener;

/// What to do as the root.
#[derive(Debug, Subcommand)]
pub enum Root {
    /// Make a root key: an encrypted file of mode 0600, never over another one. Keep it away from nodes.
    Init(Init),
    /// Say what a node may be from now on.
    Grant(orders::Grant),
    /// Say which relayers have the shards from now on; records move while traffic flows.
    Shards(orders::Shards),
    /// Hand a directive to a running node that `--out` wrote, here or on the machine with the root key.
    Submit(orders::Submit),
}

/// How to lock the new file.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to make.
    #[arg(long, default_value = "root.keys")]
    out: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
    /// With --key-file: make that file first, from the operating system's randomness.
    #[arg(long, requires = "key_file")]
    new_key_file: bool,
}

/// Runs it.
pub fn run(command: &Root) -> Result<Exit, Failed> {
    match command {
        Root::Init(init) => make(init),
        Root::Grant(grant) => on_network(orders::grant(grant)),
        Root::Shards(shards) => on_network(orders::shards(shards)),
        Root::Submit(submit) => on_network(orders::submit(submit)),
    }
}

fn make(init: &Init) -> Result<Exit, Failed> {
    if let (true, Some(path)) = (init.new_key_file, &init.unlock.key_file) {
        WrappingKey::create(path).map_err(Failed::usage)?;
    }
    let opener = Opener::for_new_file(&init.unlock.source()).map_err(Failed::usage)?;
    let root = MlDsaKeyPair::generate();
    opener.create(&init.out, &root).map_err(Failed::usage)?;
    say!("root = \"{}\"", hex::encode(root.public().as_bytes()));
    eprintln!(
        "wrote {}; the line on standard output belongs into network.toml",
        init.out.display()
    );
    Ok(Exit::Ok)
}
