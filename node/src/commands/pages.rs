//! `pqcnet completions` and `pqcnet man`: made from the command line itself, so they never lag behind it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::cli::Cli;
use crate::exit::{Exit, Failed};

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell; load its output, or put it where the shell looks for completions.
    #[arg(value_enum)]
    shell: Shell,
}

/// Where the pages go.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for the command and one for each subcommand into this folder, instead of the command's to standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// `pqcnet completions`.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failed> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pqcnet", &mut text);
    print(&text)
}

/// `pqcnet man`.
pub fn man(args: &ManArgs) -> Result<Exit, Failed> {
    match &args.out {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))
                .map_err(Failed::usage)?;
            page_tree(Cli::command(), "pqcnet", folder)?;
            Ok(Exit::Ok)
        }
        None => print(&page(Cli::command(), "pqcnet")?),
    }
}

/// A page, and one for each subcommand that is not hidden.
fn page_tree(command: clap::Command, name: &str, folder: &Path) -> Result<(), Failed> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page_tree(sub.clone(), &format!("{name}-{}", sub.get_name()), folder)?;
    }
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page(command, name)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn page(command: clap::Command, name: &str) -> Result<Vec<u8>, Failed> {
    let mut text = Vec::new();
    let command = command
        .display_name(name.to_owned())
        .version(env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command)
        .title(name)
        .render(&mut text)
        .context("a page in memory")?;
    Ok(text)
}

fn print(text: &[u8]) -> Result<Exit, Failed> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        outcome => outcome
            .context("standard output")
            .map(|()| Exit::Ok)
            .map_err(Failed::from),
    }
}
