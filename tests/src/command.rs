//! `pqcnet` as an operator types it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

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
