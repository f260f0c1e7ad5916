//! `pqcnet`: runs networks on this machine, makes keys and configurations, asks nodes how they are, moves messages.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pqcnet_node::commands::{config, keys};
use pqcnet_node::exit::{Exit, Failed, finish};

#[derive(Parser)]
#[command(
    name = "pqcnet",
    version,
    about = "A post-quantum overlay network of supervised actors",
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 unhealthy, 4 unreachable, 5 refused.\n\
                  Data goes to standard output, logs to standard error."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make and show a node's keys.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Write, check and show a node's configuration.
    #[command(subcommand)]
    Config(config::Config),
}

fn main() -> ExitCode {
    finish("pqcnet", run(Cli::parse().command))
}

fn run(command: Command) -> Result<Exit, Failed> {
    match command {
        Command::Keys(command) => keys::run(&command),
        Command::Config(command) => config::run(&command),
    }
}
