//! The client crate's examples, each as the process an integrator would start, beside a real network.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pqcnet_tests::network::{Identity, Network};
use pqcnet_tests::process::example;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

/// Only a broken example takes it.
const WITHIN: Duration = Duration::from_secs(90);

fn start(name: &str, who: &Identity, args: &[&str]) -> Result<Child> {
    let mut command = Command::new(example(name)?);
    command.args(who.files()).args(args).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command.stderr(Stdio::piped()).spawn()?)
}

/// Runs an example to its end; what it printed.
async fn run(name: &str, who: &Identity, args: &[&str], input: &str) -> Result<String> {
    let mut child = start(name, who, args)?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let ended = tokio::time::timeout(WITHIN, child.wait_with_output()).await;
    let output = ended.with_context(|| format!("{name} did not end"))??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name}: {}\n{errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The first lines that a `subscribe` prints; it never ends by itself.
async fn read(who: &Identity, args: &[&str], lines: usize) -> Result<Vec<String>> {
    let mut child = start("subscribe", who, args)?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut printed = BufReader::new(stdout).lines();
    let mut read = Vec::new();
    while read.len() < lines {
        let line = tokio::time::timeout(WITHIN, printed.next_line()).await??;
        read.push(line.context("it ended early")?);
    }
    child.kill().await?;
    Ok(read)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// Lines go in by `publish`, come out by `subscribe` from an offset, and another identity reads them once `share` lists it.
#[tokio::test(flavor = "multi_thread")]
async fn publish_subscribe_share() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let (owner, reader) = (network.identity("owner")?, network.identity("reader")?);
    run("publish", &owner, &["orders"], "pears\nplums\nfigs\n").await?;
    let own = read(&owner, &["orders", "1"], 2).await?;
    assert_eq!(own, ["2 plums", "3 figs"]);
    let printed = run("share", &owner, &["orders", &reader.id.to_string()], "").await?;
    assert_eq!(printed.trim(), owner.id.to_string());
    let others = read(&reader, &["orders", "0", printed.trim()], 1).await?;
    assert_eq!(others, ["1 pears"]);
    network.stop().await
}

/// `resume` stops at an offset and goes on from its file as after a crash: each number counts once.
#[tokio::test(flavor = "multi_thread")]
async fn resume_counts_each_once() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let owner = network.identity("owner")?;
    let numbers: String = (1..=100).map(|number| format!("{number}\n")).collect();
    run("publish", &owner, &["numbers"], &numbers).await?;
    let state = owner.folder.join("sum.txt");
    let state = text(&state)?;
    let half = run("resume", &owner, &["numbers", state, "50"], "").await?;
    assert_eq!(half.trim(), "1275");
    let whole = run("resume", &owner, &["numbers", state, "100"], "").await?;
    assert_eq!(whole.trim(), "5050");
    network.stop().await
}

/// `shed` accounts for every reading; what it says is stored is stored.
#[tokio::test(flavor = "multi_thread")]
async fn shed_accounts_for_every_reading() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let owner = network.identity("owner")?;
    let printed = run("shed", &owner, &["readings", "30000"], "").await?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    let [stored, "stored,", dropped, "dropped"] = words.as_slice() else {
        anyhow::bail!("it printed {printed}");
    };
    let (stored, dropped): (u64, u64) = (stored.parse()?, dropped.parse()?);
    assert_eq!(stored + dropped, 30_000);
    let last = read(&owner, &["readings", &(stored - 1).to_string()], 1).await?;
    assert!(
        last[0].starts_with(&format!("{stored} reading ")),
        "{last:?}"
    );
    network.stop().await
}

/// `ask` prints the sentry's answer; with no arguments every example says how it is used and exits 2.
#[tokio::test(flavor = "multi_thread")]
async fn ask_and_usage() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let owner = network.identity("owner")?;
    let printed = run("ask", &owner, &[], "").await?;
    assert!(printed.starts_with("sentry "), "{printed}");
    for name in ["publish", "subscribe", "resume", "share", "shed", "ask"] {
        let output = Command::new(example(name)?).output().await?;
        assert_eq!(output.status.code(), Some(2), "{name}");
        let said = String::from_utf8(output.stderr)?;
        assert!(said.starts_with(&format!("usage: {name} ")), "{said}");
    }
    network.stop().await
}
