//! A rolling upgrade: the binaries of the release before and those of this one in one network, under load.
//!
//! The release before is built from this repository's own history (tests/upgrade/previous.sh), which takes minutes: `make upgrade-test`,
//! and part of `make soak`.
#![allow(
    clippy::print_stdout,
    reason = "the counts of a run are worth reading beside its verdict"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use pqcnet_messages::Role;
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts};
use pqcnet_tests::load::{Load, PATIENCE};
use pqcnet_tests::network::{Network, Node};

/// The folder of the release before, built if it is not.
async fn previous() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrade/previous.sh");
    let built = tokio::process::Command::new(&script).output().await?;
    let said = String::from_utf8(built.stderr)?;
    ensure!(built.status.success(), "{}: {said}", script.display());
    let folder = PathBuf::from(String::from_utf8(built.stdout)?.trim());
    ensure!(
        folder.join("pqcnet-relayer").exists(),
        "no binaries in {}",
        folder.display()
    );
    Ok(folder)
}

/// Two sentries and two relayers whose keys the release before has made: files that outlive a release are written by the elder.
async fn network(previous: &Path) -> Result<Network> {
    let mut network = Network::create(2, 2, Admission::Any)?;
    let mut entries = network.file.nodes().to_vec();
    for node in &mut network.nodes {
        let keys = node.folder().join("node.keys");
        fs::remove_file(&keys)?;
        let made = tokio::process::Command::new(previous.join("pqcnet"))
            .args(["keys", "init", "--out"])
            .arg(&keys)
            .arg("--key-file")
            .arg(node.folder().join("unlock.key"))
            .output()
            .await?;
        let said = String::from_utf8(made.stderr)?;
        ensure!(made.status.success(), "pqcnet keys init: {said}");
        let id = node.secrets()?.keys.node_id();
        let entry = entries.iter_mut().find(|entry| entry.id == node.id);
        entry.context("a node of the network")?.id = id;
        node.id = id;
    }
    let bootstrap = entries.iter().map(|entry| entry.id).collect();
    network.file = NetworkFile::new(NetworkParts {
        name: network.file.name().to_owned(),
        root: network.file.root().clone(),
        shards: network.file.shards(),
        admission: network.file.admission(),
        nodes: entries,
        bootstrap,
    })?;
    for node in &network.nodes {
        node.set_network(&network.file)?;
    }
    Ok(network)
}

/// What is upgraded, or taken back, one after the other.
#[derive(Clone, Copy, Debug)]
enum Release {
    Previous,
    Present,
}

const STEPS: [(Role, usize, Release); 12] = [
    (Role::Relayer, 1, Release::Present),
    (Role::Sentry, 1, Release::Present),
    // Somebody thinks better of it, and of that.
    (Role::Relayer, 1, Release::Previous),
    (Role::Sentry, 1, Release::Previous),
    (Role::Sentry, 2, Release::Present),
    (Role::Relayer, 2, Release::Present),
    (Role::Relayer, 1, Release::Present),
    (Role::Relayer, 2, Release::Previous),
    (Role::Sentry, 1, Release::Present),
    (Role::Sentry, 2, Release::Previous),
    (Role::Relayer, 2, Release::Present),
    (Role::Sentry, 2, Release::Present),
];

const MESSAGES: u64 = 2_600;

async fn replace(node: &Node, release: Release, previous: &Path) -> Result<()> {
    node.stop().await.context("stopping")?;
    match release {
        Release::Previous => node.start_from(previous).await,
        Release::Present => node.start().await,
    }
}

async fn roll() -> Result<()> {
    let previous = previous().await?;
    let network = Arc::new(network(&previous).await?);
    for node in &network.nodes {
        node.start_from(&previous).await?;
    }
    let load = Load::start(network.clone(), 2, 4, MESSAGES).await?;
    let stretch = MESSAGES / (STEPS.len() as u64 + 1);
    let mut in_flight = 0;
    for (step, (role, number, release)) in STEPS.into_iter().enumerate() {
        let before = load.progress.settled.load(Ordering::SeqCst);
        load.allow(stretch);
        // Each time at another point of the stretch.
        let part = stretch * load.lanes() * (step as u64 % 4) / 8;
        load.progress
            .reach(&load.progress.settled, before + 1 + part)
            .await;
        let node = network.node(role, number);
        let sent = load.progress.sent.load(Ordering::SeqCst);
        in_flight += sent - load.progress.settled.load(Ordering::SeqCst);
        replace(node, release, &previous)
            .await
            .with_context(|| format!("{} to {release:?}", node.name))?;
    }
    load.allow(MESSAGES - stretch * STEPS.len() as u64);
    let sent = load.lanes() * MESSAGES;
    let verdict = load.finish().await?;
    println!(
        "{} restarts between releases; unacknowledged at those moments: {in_flight} messages",
        STEPS.len()
    );
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(
        (verdict.sent, verdict.acked, verdict.failed),
        (sent, sent, 0)
    );
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    assert_eq!(verdict.delivered, sent);
    Ok(())
}

/// Two sentries and two relayers of the release before, 8 channels, 20,800 messages by clients of this release. One node after the other is stopped in mid-flow and
/// started from the other release's binaries, on the same files, forth and back and forth, so that the releases meet in every pairing: nothing acknowledged is lost, nothing lands twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds the release before: make upgrade-test"]
async fn neighbouring_releases_in_one_network() -> Result<()> {
    tokio::time::timeout(2 * PATIENCE, roll()).await?
}
