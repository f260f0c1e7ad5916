//! `pqcnet config`: writes, checks and shows a node's configuration.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use pqcnet_p2p::network::NetworkFile;

use crate::config::{self, NodeConfig};
use crate::exit::{Exit, Failed};

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Write a commented file with every key at its default; never over another one.
    Init {
        /// The file to make; `-` is standard output.
        #[arg(long, default_value = "node.toml")]
        out: PathBuf,
    },
    /// Read a file and the environment as a node would, the network file included; says what is wrong, with file and line.
    Check {
        /// The file.
        #[arg(default_value = "node.toml")]
        file: PathBuf,
        /// Over file and environment: key=value.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Show the effective values, as a file that would set them.
    Show {
        /// The file.
        #[arg(default_value = "node.toml")]
        file: PathBuf,
        /// With each, where it comes from: the default, a line of the file, the environment or a flag; and what is not set.
        #[arg(long)]
        origin: bool,
        /// Over file and environment: key=value.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

/// Runs it.
pub fn run(command: &Config) -> Result<Exit, Failed> {
    match command {
        Config::Init { out } if out.as_os_str() == "-" => say!("{}", config::template().trim_end()),
        Config::Init { out } => {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(out)
                .with_context(|| format!("cannot make {}", out.display()))
                .map_err(Failed::usage)?;
            file.write_all(config::template().as_bytes())
                .with_context(|| format!("cannot write {}", out.display()))?;
            eprintln!("wrote {}", out.display());
        }
        Config::Check { file, set } => {
            let config = config::load(Some(file), set).map_err(Failed::usage)?;
            let network = NetworkFile::load(&config.network).map_err(Failed::usage)?;
            say!(
                "{}: ok, network {} ({})",
                file.display(),
                network.name(),
                network.network_id()
            );
        }
        Config::Show { file, origin, set } => {
            // Paths are read from the file's folder: shown whole, they are right wherever this is written to.
            let file = std::path::absolute(file)
                .context("this folder")
                .map_err(Failed::usage)?;
            let layers = config::gather(Some(&file), set).map_err(Failed::usage)?;
            let shown = config::shown(&layers, *origin);
            NodeConfig::from_layers(layers).map_err(Failed::usage)?;
            say!("{}", shown.trim_end());
        }
    }
    Ok(Exit::Ok)
}
