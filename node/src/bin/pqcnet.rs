//! `pqcnet`: runs networks on this machine, makes keys and configurations, asks nodes how they are, moves messages.

use std::process::ExitCode;

use clap::Parser as _;
use pqcnet_node::commands::cli::{Cli, run};
use pqcnet_node::exit::finish;

fn main() -> ExitCode {
    finish("pqcnet", run(Cli::parse().command))
}
