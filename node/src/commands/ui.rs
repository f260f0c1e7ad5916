//! `pqcnet ui`: prints the address of a node's page, which only this user can read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::identity::STATE;
use crate::config;
use crate::exit::{Exit, Failed};
use crate::local::folder::LocalFolder;

/// Longest file that is read: an address, `/ui#`, a token.
const MAX_FILE: u64 = 256;

/// Whose page.
#[derive(Debug, Args)]
pub struct UiArgs {
    /// A node of the local network (`sentry-1`); without one, all of them.
    node: Option<String>,
    /// A node's configuration, instead of the local network.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// The local network's folder.
    #[arg(long, env = "PQCNET_STATE", default_value = STATE)]
    state: PathBuf,
}

/// Prints one address a line; whoever has it can see the node.
pub fn run(args: &UiArgs) -> Result<Exit, Failed> {
    if let Some(path) = &args.config {
        say!("{}", address(path)?);
        return Ok(Exit::Ok);
    }
    if !LocalFolder::exists(&args.state) {
        return Err(Failed::usage(anyhow::anyhow!(
            "no network in {}: name a node's configuration with --config, or start one with `pqcnet up`",
            args.state.display()
        )));
    }
    let folder = LocalFolder::open(&args.state).map_err(Failed::usage)?;
    let nodes = folder.nodes()?;
    let wanted = |name: &str| args.node.as_deref().is_none_or(|node| node == name);
    let chosen: Vec<_> = nodes.iter().filter(|node| wanted(&node.name)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failed::usage(anyhow::anyhow!(
            "no such node; there are: {}",
            known.join(", ")
        )));
    }
    for node in chosen {
        say!("{:<10} {}", node.name, address(&node.config)?);
    }
    Ok(Exit::Ok)
}

/// The page's address, with the token behind `/ui#`.
pub(super) fn address(config: &Path) -> Result<String, Failed> {
    let path = config::load(Some(config), &[])
        .map_err(Failed::usage)?
        .page_url;
    let mut text = String::new();
    let file = std::fs::File::open(&path).with_context(|| {
        format!(
            "cannot read {}: the node writes it when it starts, for its own user",
            path.display()
        )
    });
    file.and_then(|file| Ok(file.take(MAX_FILE).read_to_string(&mut text)?))
        .map_err(Failed::usage)?;
    Ok(text.trim_end().to_owned())
}
