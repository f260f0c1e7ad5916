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
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::{ChannelName, Role};
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts};
use pqcnet_tests::load::{Load, PATIENCE};
use pqcnet_tests::network::{Identity, Network, Node};
use pqcnet_tests::process::binary;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;

/// The folder of the release before, built if it is not.
async fn previous() -> Result<PathBuf> {
    // Two tests want it, and it is built once.
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    Ok(BUILT.get_or_try_init(build_previous).await?.clone())
}

async fn build_previous() -> Result<PathBuf> {
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

/// Runs `pqcnet keys` of one release or the other in a folder; what it printed.
async fn keys(program: &Path, folder: &Path, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program)
        .arg("keys")
        .args(arguments)
        .args(["--key-file", "unlock.key"])
        .current_dir(folder)
        .output()
        .await?;
    let said = String::from_utf8(done.stderr)?;
    ensure!(done.status.success(), "pqcnet keys {arguments:?}: {said}");
    Ok(String::from_utf8(done.stdout)?)
}

/// Nodes whose keys the release before has made: files that outlive a release are written by the elder.
async fn network(previous: &Path, sentries: usize, relayers: usize) -> Result<Network> {
    let mut network = Network::create(sentries, relayers, Admission::Any)?;
    let mut entries = network.file.nodes().to_vec();
    for node in &mut network.nodes {
        fs::remove_file(node.folder().join("node.keys"))?;
        let make = ["init", "--out", "node.keys"];
        keys(&previous.join("pqcnet"), node.folder(), &make).await?;
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

/// Clients of the release before: what a person types to publish lines and to print them, one process each for the whole
/// of the run.
struct Elders {
    publisher: Child,
    lines: ChildStdin,
    subscriber: Child,
    printed: Lines<BufReader<ChildStdout>>,
    /// Lines handed over, and lines that came back in their order.
    sent: u64,
    seen: u64,
}

impl Elders {
    async fn start(previous: &Path, network: &Network, count: u64) -> Result<Elders> {
        let identity = network.identity("elder")?;
        fs::remove_file(identity.folder.join("client.keys"))?;
        let make = ["init", "--out", "client.keys"];
        keys(&previous.join("pqcnet"), &identity.folder, &make).await?;
        let (mut publisher, mut subscriber) = (
            elder(previous, &identity, &["publish", "elders"]).spawn()?,
            elder(
                previous,
                &identity,
                &[
                    "subscribe",
                    "elders",
                    "--after",
                    "0",
                    "--count",
                    &count.to_string(),
                ],
            )
            .spawn()?,
        );
        let printed = subscriber.stdout.take().context("piped")?;
        Ok(Elders {
            lines: publisher.stdin.take().context("piped")?,
            publisher,
            subscriber,
            printed: BufReader::new(printed).lines(),
            sent: 0,
            seen: 0,
        })
    }

    async fn send(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            self.sent += 1;
            let line = format!("line {}\n", self.sent);
            self.lines.write_all(line.as_bytes()).await?;
        }
        Ok(self.lines.flush().await?)
    }

    /// Until everything sent has come back: each line once, in order.
    async fn seen(&mut self) -> Result<()> {
        while self.seen < self.sent {
            let line = self.printed.next_line().await?.context("no more lines")?;
            self.seen += 1;
            assert_eq!(line, format!("line {}", self.seen));
        }
        Ok(())
    }

    /// Both end well; every line was acknowledged at its own place.
    async fn finish(mut self) -> Result<()> {
        drop(self.lines);
        let mut offsets = String::new();
        let out = self.publisher.stdout.as_mut().context("piped")?;
        out.read_to_string(&mut offsets).await?;
        let status = self.publisher.wait().await?;
        ensure!(
            status.success(),
            "the publisher of the release before: {status}"
        );
        let places: Vec<&str> = offsets.lines().collect();
        assert_eq!(places.len() as u64, self.sent);
        for (place, number) in places.into_iter().zip(1u64..) {
            // A lost acknowledgement leaves the place unnamed; the subscriber had the line at it.
            assert!(
                place == "-" || place == number.to_string(),
                "{place} at {number}"
            );
        }
        assert_eq!(self.printed.next_line().await?, None);
        let status = self.subscriber.wait().await?;
        ensure!(
            status.success(),
            "the subscriber of the release before: {status}"
        );
        Ok(())
    }
}

fn elder(previous: &Path, identity: &Identity, arguments: &[&str]) -> Command {
    let mut command = Command::new(previous.join("pqcnet"));
    let [network, keys, unlock] = identity.files();
    command
        .args(arguments)
        .arg("--network")
        .arg(network)
        .arg("--keys")
        .arg(keys)
        .arg("--key-file")
        .arg(unlock)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Lines of the elder clients in each stretch.
const LINES: u64 = 100;

async fn roll() -> Result<()> {
    let previous = previous().await?;
    let network = Arc::new(network(&previous, 2, 2).await?);
    for node in &network.nodes {
        node.start_from(&previous).await?;
    }
    let lines = LINES * (STEPS.len() as u64 + 1);
    let mut elders = Elders::start(&previous, &network, lines).await?;
    let load = Load::start(network.clone(), 2, 4, MESSAGES).await?;
    let stretch = MESSAGES / (STEPS.len() as u64 + 1);
    let mut in_flight = 0;
    for (step, (role, number, release)) in STEPS.into_iter().enumerate() {
        let before = load.progress.settled.load(Ordering::SeqCst);
        load.allow(stretch);
        // Half of it on its way while a node is replaced, half over links that stand.
        elders.send(LINES / 2).await?;
        elders.seen().await?;
        elders.send(LINES - LINES / 2).await?;
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
    elders.send(LINES).await?;
    elders.seen().await?;
    elders.finish().await?;
    let sent = load.lanes() * MESSAGES;
    let verdict = load.finish().await?;
    println!(
        "{} restarts between releases; unacknowledged at those moments: {in_flight} messages",
        STEPS.len()
    );
    println!("{verdict}; {lines} lines by clients of the release before");
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(
        (verdict.sent, verdict.acked, verdict.failed),
        (sent, sent, 0)
    );
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    assert_eq!(verdict.delivered, sent);
    Ok(())
}

/// Two sentries and two relayers of the release before, 8 channels, 20,800 messages by clients of this release, 1,300 by clients of the one before. One node after the other is stopped in
/// mid-flow and started from the other release's binaries, on the same files, forth and back and forth, so that the releases meet in every pairing, clients included: nothing acknowledged
/// is lost, nothing lands twice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds the release before: make upgrade-test"]
async fn neighbouring_releases_in_one_network() -> Result<()> {
    tokio::time::timeout(2 * PATIENCE, roll()).await?
}

/// A relayer goes over to this release, and its keys are rotated, which makes its key file one that the release before does
/// not read. The way back: a file for the elder, written from it, with which the node is who it was, with what it stored.
/// Then this release takes over again, with the file that has the versions.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds the release before: make upgrade-test"]
async fn a_way_back_after_a_rotation() -> Result<()> {
    let run = async {
        let previous = previous().await?;
        let network = network(&previous, 1, 1).await?;
        network.start_all().await?;
        let relayer = network.node(Role::Relayer, 1);
        let client = network.client(&Arc::new(NodeKeys::generate())).await?;
        let name = ChannelName::new("there-and-back")?;
        assert_eq!(client.publish(&name, "one").await?.offset, Some(1));

        let ours = binary("pqcnet")?;
        let folder = relayer.folder();
        keys(&ours, folder, &["rotate", "kem", "--keys", "node.keys"]).await?;
        let back = ["downgrade", "--keys", "node.keys", "--out", "elder.keys"];
        let id = keys(&ours, folder, &back).await?;
        assert_eq!(id.trim(), relayer.id.to_string());
        relayer.stop().await?;
        let refused = relayer.start_from(&previous).await;
        ensure!(
            refused.is_err(),
            "the release before reads versions: this test has had its time"
        );
        fs::rename(folder.join("node.keys"), folder.join("versions.keys"))?;
        fs::rename(folder.join("elder.keys"), folder.join("node.keys"))?;
        relayer.start_from(&previous).await?;
        assert_eq!(client.publish(&name, "two").await?.offset, Some(2));

        relayer.stop().await?;
        fs::rename(folder.join("versions.keys"), folder.join("node.keys"))?;
        relayer.start().await?;
        assert_eq!(client.publish(&name, "three").await?.offset, Some(3));
        let mut records = client.subscribe(&client.channel(name), 0).await?;
        for expected in ["one", "two", "three"] {
            assert_eq!(&records.next().await?.payload[..], expected.as_bytes());
        }
        network.stop().await
    };
    tokio::time::timeout(2 * PATIENCE, run).await?
}
