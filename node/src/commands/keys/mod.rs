//! `pqcnet keys`: makes, shows, rotates and revokes keys.

pub(super) mod orders;
mod rotate;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pqcnet_crypto::NodeSecrets;
use pqcnet_crypto::keystore::WrappingKey;

use super::cli::on_network;
use crate::clock::wall_ms;
use crate::config::UnlockSource;
use crate::exit::{Exit, Failed};
use crate::unlock::Opener;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a node's keys: an encrypted file of mode 0600, never over another one.
    Init(Init),
    /// Show the public parts of a key file: who the node is, every version with its age, how the file is locked.
    Show(show::Show),
    /// Make the next version of a key; the one before stays valid until the overlap ends.
    #[command(subcommand)]
    Rotate(rotate::Rotate),
    /// Write a key file for a release from before key versions: the identity in use and the storage key.
    Downgrade(Downgrade),
    /// With the network's root key: let a prepared identity succeed the one in use.
    Succeed(orders::Succeed),
    /// With the network's root key: revoke a node; it is refused everywhere from then on.
    Revoke(orders::Revoke),
}

/// How to lock the new file.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to make.
    #[arg(long, default_value = "node.keys")]
    out: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
    /// With --key-file: make that file first, from the operating system's randomness.
    #[arg(long, requires = "key_file")]
    new_key_file: bool,
}

/// Which file, and where to.
#[derive(Debug, Args)]
pub struct Downgrade {
    /// The key file; it stays as it is.
    #[arg(long, default_value = "node.keys")]
    keys: PathBuf,
    /// The file to make, locked in the same way.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

/// How a key file opens; without either, PQCNET_PASSPHRASE or a prompt.
#[derive(Debug, Clone, Default, Args)]
pub struct UnlockArgs {
    /// A file with the passphrase, mode 0600.
    #[arg(long, conflicts_with = "key_file")]
    pub passphrase_file: Option<PathBuf>,
    /// A file of 32 random bytes, mode 0600, instead of a passphrase.
    #[arg(long)]
    pub key_file: Option<PathBuf>,
}

impl UnlockArgs {
    /// As the configuration would say it.
    pub fn source(&self) -> UnlockSource {
        match (&self.passphrase_file, &self.key_file) {
            (Some(path), _) => UnlockSource::PassphraseFile(path.clone()),
            (None, Some(path)) => UnlockSource::KeyFile(path.clone()),
            (None, None) => UnlockSource::Ask,
        }
    }
}

/// Runs it.
pub fn run(command: &Keys) -> Result<Exit, Failed> {
    match command {
        Keys::Init(init) => make(init),
        Keys::Show(show) => show::run(show, wall_ms()),
        Keys::Rotate(rotate) => rotate::run(rotate, wall_ms()),
        Keys::Downgrade(downgrade) => downgrade.run(),
        Keys::Succeed(succeed) => on_network(orders::succeed(succeed)),
        Keys::Revoke(revoke) => on_network(orders::revoke(revoke)),
    }
}

fn make(init: &Init) -> Result<Exit, Failed> {
    if let (true, Some(path)) = (init.new_key_file, &init.unlock.key_file) {
        WrappingKey::create(path).map_err(Failed::usage)?;
    } else if let Some(path) = init.unlock.key_file.as_ref().filter(|path| !path.exists()) {
        return Err(Failed::usage(anyhow::anyhow!(
            "{} does not exist; --new-key-file makes it",
            path.display()
        )));
    }
    let opener = Opener::for_new_file(&init.unlock.source()).map_err(Failed::usage)?;
    let secrets = NodeSecrets::generate_at(wall_ms());
    opener.create(&init.out, &secrets).map_err(Failed::usage)?;
    say!("{}", secrets.keys.node_id());
    eprintln!(
        "wrote {}; the line on standard output is the node's id",
        init.out.display()
    );
    Ok(Exit::Ok)
}

impl Downgrade {
    fn run(&self) -> Result<Exit, Failed> {
        let opener = Opener::from_source(&self.unlock.source()).map_err(Failed::usage)?;
        let secrets: NodeSecrets = opener.open(&self.keys).map_err(Failed::usage)?;
        let made = opener.create_format_1(&self.out, &secrets);
        made.map_err(Failed::usage)?;
        say!("{}", secrets.keys.node_id());
        eprintln!(
            "wrote {}: KEM keys and other versions of the identity are in {} alone",
            self.out.display(),
            self.keys.display()
        );
        Ok(Exit::Ok)
    }
}

pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;

/// An overlap in days, as a command takes it.
fn days(text: &str) -> Result<u64, String> {
    let most = pqcnet_crypto::keystore::MAX_OVERLAP_MS / DAY_MS;
    match text.parse::<u64>() {
        Ok(days) if days <= most => Ok(days * DAY_MS),
        _ => Err(format!("a number of days, 0 to {most}")),
    }
}
