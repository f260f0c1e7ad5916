//! The command line. Data goes to standard output, progress and problems to standard error.

mod pages;
mod run;
mod seeds;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pqcnet_sim::crypto::{self, Costs};
use pqcnet_sim::scenario::{LoadError, Scenario, builtin};

/// The commit that this program was built from, as its build script saw it.
const COMMIT: &str = env!("PQCNET_COMMIT");
/// What `--version` says.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("PQCNET_COMMIT"),
    ")"
);
/// Exit code of a wrong command line or scenario: nothing was run.
const WRONG: u8 = 2;
/// Exit code of a run whose invariant broke, or of a replay that went another way.
const BROKEN: u8 = 3;

#[derive(Parser)]
#[command(
    name = "pqcnet-sim",
    version = VERSION,
    about = "Whole production nodes, deterministic, in one process."
)]
#[command(
    after_help = "Exit codes: 0 done, 1 something failed, 2 a wrong command line or scenario, 3 an invariant broke."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario: a TOML file, or a built-in one by name.
    Run(run::RunArgs),
    /// Run what a folder's run.json says again; tell whether the same came of it.
    Replay(run::ReplayArgs),
    /// Run a scenario with many seeds; name those that break an invariant.
    Seeds(seeds::SeedsArgs),
    /// Read scenarios and say what is wrong in them, by line.
    Check {
        /// TOML files, or built-in scenarios by name.
        #[arg(required = true)]
        scenarios: Vec<String>,
    },
    /// Measure what cryptography costs this machine: a table for scenarios, beside what it costs where they say nothing.
    Calibrate,
    /// List the built-in scenarios.
    List {
        /// Write them as TOML files into this folder, to start from.
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

/// What a command came to.
enum Done {
    Well,
    Broken,
    Wrong,
}

pub(crate) fn main() -> ExitCode {
    let command = Cli::parse().command;
    // Whatever else is over before a heap of size is there.
    if matches!(
        command,
        Command::Run(_) | Command::Replay(_) | Command::Seeds(_)
    ) {
        pages::take();
    }
    let done = match command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => run::replay(&args),
        Command::Seeds(args) => seeds::seeds(&args),
        Command::Check { scenarios } => check(&scenarios),
        Command::Calibrate => calibrate(),
        Command::List { write } => list(write.as_deref()),
    };
    match done {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Broken) => ExitCode::from(BROKEN),
        Ok(Done::Wrong) => ExitCode::from(WRONG),
        Err(error) => {
            complain(&format!("{error:#}"));
            // A scenario's author erred, not the machine.
            let wrong = error.downcast_ref::<LoadError>().is_some();
            ExitCode::from(if wrong { WRONG } else { 1 })
        }
    }
}

/// A line on standard output. A reader that is gone ends the program quietly.
fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

/// A line on standard error.
fn complain(line: &str) {
    writeln!(io::stderr(), "pqcnet-sim: {line}").unwrap_or_default();
}

fn check(scenarios: &[String]) -> anyhow::Result<Done> {
    let mut wrong = false;
    for name in scenarios {
        match Scenario::load(name) {
            Ok(loaded) => {
                let scenario = &loaded.scenario;
                say(&format!(
                    "{name}: sound. {} nodes, {} s, crypto {}, {} faults, {} byzantine",
                    scenario.node_count(),
                    scenario.duration.as_secs_f64(),
                    scenario.crypto.word(),
                    scenario.faults.len(),
                    scenario.byzantine.len()
                ))?;
            }
            Err(error) => {
                wrong = true;
                writeln!(io::stderr(), "{error}").unwrap_or_default();
            }
        }
    }
    Ok(if wrong { Done::Wrong } else { Done::Well })
}

fn calibrate() -> anyhow::Result<Done> {
    let (here, there) = (crypto::calibrate()?, Costs::default());
    say(here.to_toml().trim_end())?;
    say(
        "\n# This machine's time over the reference machine's, which scenarios without the table have:",
    )?;
    for (word, byte_word, op) in Costs::WORDS {
        let ((each, byte), (its_each, its_byte)) = (here.get(op), there.get(op));
        say(&format!("# {word} {:.2}", each as f64 / its_each as f64))?;
        if let Some(word) = byte_word {
            say(&format!("# {word} {:.2}", byte as f64 / its_byte as f64))?;
        }
    }
    Ok(Done::Well)
}

fn list(write: Option<&std::path::Path>) -> anyhow::Result<Done> {
    for name in builtin::names() {
        let loaded = Scenario::load(name)?;
        let scenario = &loaded.scenario;
        say(&format!(
            "{name:16} {:>5} nodes {:>5} s  {}",
            scenario.node_count(),
            scenario.duration.as_secs(),
            scenario.about
        ))?;
        if let Some(folder) = write {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("{name}.toml")), &loaded.text)?;
        }
    }
    Ok(Done::Well)
}
