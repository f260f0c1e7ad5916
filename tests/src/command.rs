//! `pqcnet` as an operator types it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::network::Identity;
use crate::process::binary;

/// Runs `pqcnet …` in a folder; its code and what it printed.
pub fn run(folder: &Path, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary("pqcnet")?)
        .args(arguments)
        .current_dir(folder)
        .output()?;
    let told = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(told)?))
}

/// The same of a command that must end well; what it printed as data.
pub fn pqcnet(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary("pqcnet")?)
        .args(arguments)
        .current_dir(folder)
        .output()?;
    let printed = String::from_utf8(output.stdout)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "{arguments:?}: {:?}\n{printed}\n{told}",
        output.status.code()
    );
    Ok(printed)
}

/// A command of a client's, in its folder and with its files; it ends with whoever drops it.
pub fn of_client(who: &Identity, arguments: &[&str]) -> Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new(binary("pqcnet")?);
    command
        .current_dir(&who.folder)
        .args(arguments)
        .args(["--network", "network.toml", "--keys", "client.keys"])
        .args(["--key-file", "unlock.key"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}
