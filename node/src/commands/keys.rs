//! `pqcnet keys`: makes and shows key files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pqcnet_crypto::NodeSecrets;
use pqcnet_crypto::keystore::{self, WrappingKey};

use crate::config::UnlockSource;
use crate::exit::{Exit, Failed};
use crate::unlock::Opener;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a node's keys: an encrypted file of mode 0600, never over another one.
    Init(Init),
    /// Show the public parts of a key file: who the node is and how the file is locked.
    Show {
        /// The key file.
        #[arg(default_value = "node.keys")]
        path: PathBuf,
    },
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
        Keys::Init(init) => {
            if let (true, Some(path)) = (init.new_key_file, &init.unlock.key_file) {
                WrappingKey::create(path).map_err(Failed::usage)?;
            } else if let Some(path) = init.unlock.key_file.as_ref().filter(|path| !path.exists()) {
                return Err(Failed::usage(anyhow::anyhow!(
                    "{} does not exist; --new-key-file makes it",
                    path.display()
                )));
            }
            let opener = Opener::for_new_file(&init.unlock.source()).map_err(Failed::usage)?;
            let secrets = NodeSecrets::generate();
            opener.create(&init.out, &secrets).map_err(Failed::usage)?;
            println!("{}", secrets.keys.node_id());
            eprintln!(
                "wrote {}; the line on standard output is the node's id",
                init.out.display()
            );
        }
        Keys::Show { path } => {
            let summary = keystore::summary(path).map_err(Failed::usage)?;
            match summary.node_id() {
                Some(id) => println!("node_id = \"{id}\""),
                None => println!("root = \"{}\"", hex::encode(summary.public_id)),
            }
            println!("holds = \"{}\"", summary.kind);
            println!("locked_by = \"{}\"", summary.protection);
        }
    }
    Ok(Exit::Ok)
}
