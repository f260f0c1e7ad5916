//! Relayers' reports: made and judged by `pqcnet report`, as a person does.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::network::Node;
use crate::process::binary;

async fn pqcnet(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("pqcnet")?);
    Ok(command.args(arguments).output().await?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of UTF-8")
}

/// Has a relayer report everything into a file of its folder; it closes a window first.
pub async fn create(node: &Node, name: &str) -> Result<PathBuf> {
    let (config, out) = (node.folder().join("node.toml"), node.folder().join(name));
    let made = pqcnet(&["report", "create", "-c", text(&config)?, "-f", text(&out)?]).await?;
    ensure!(made.status.success(), "{made:?}");
    Ok(out)
}

/// What the command says of a report.
pub async fn verify(network: &Path, report: &Path) -> Result<Output> {
    let (network, report) = (text(network)?, text(report)?);
    let judge = ["report", "verify", report, "--network", network];
    pqcnet(&[&judge[..], &["-o", "json"]].concat()).await
}

/// What a report that stands says.
pub async fn verified(network: &Path, report: &Path) -> Result<Value> {
    let judged = verify(network, report).await?;
    ensure!(judged.status.success(), "{judged:?}");
    let said: Value = serde_json::from_slice(&judged.stdout)?;
    ensure!(said["verified"] == true);
    Ok(said)
}

/// Frames and bytes of a volume in it.
pub fn pair(value: &Value) -> (u64, u64) {
    let number = |name: &str| value[name].as_u64().unwrap_or(u64::MAX);
    (number("frames"), number("bytes"))
}
