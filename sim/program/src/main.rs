//! `pqcnet-sim`: runs scenarios, replays runs, checks scenarios.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
