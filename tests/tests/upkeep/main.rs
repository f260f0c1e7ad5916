//! What an operator does to nodes that run, on real processes: a changed configuration, a full disk, a copy and its way
//! back, a damaged file, an orderly end.

mod copies;
mod disks;

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pqcnet_client::{ChannelName, Client, PublishError};
use pqcnet_messages::Role;
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_tests::network::{Identity, Network, Node};
use pqcnet_tests::process::binary;
use tokio::process::Command;

/// Only something broken takes it.
const SOON: Duration = Duration::from_secs(20);

/// A network with an operator, not yet running.
fn with_operator(sentries: usize, relayers: usize) -> Result<(Network, Identity)> {
    let mut network = Network::create(sentries, relayers, Admission::Any)?;
    let operator = network.identity("operator")?;
    let mut nodes = network.file.nodes().to_vec();
    nodes.push(NodeEntry {
        id: operator.id,
        roles: BTreeSet::from([Role::Operator]),
        control: Vec::new(),
        data: Vec::new(),
    });
    network.file = NetworkFile::new(NetworkParts {
        name: network.file.name().to_owned(),
        root: network.file.root().clone(),
        shards: network.file.shards(),
        admission: network.file.admission(),
        nodes,
        bootstrap: network
            .file
            .bootstrap()
            .iter()
            .map(|node| node.id)
            .collect(),
    })?;
    for node in &network.nodes {
        node.set_network(&network.file)?;
    }
    network.file.write(&operator.folder.join("network.toml"))?;
    Ok((network, operator))
}

/// Runs `pqcnet` with these arguments and, for an operator, its files.
async fn pqcnet(args: &[&str], operator: Option<&Identity>) -> Result<Output> {
    let mut command = Command::new(binary("pqcnet")?);
    command.args(args);
    if let Some(operator) = operator {
        let [network, keys, unlock] = operator.files();
        command.arg("--network").arg(network);
        command.arg("--keys").arg(keys);
        command.arg("--key-file").arg(unlock);
    }
    let ended = tokio::time::timeout(SOON, command.output()).await;
    Ok(ended.with_context(|| format!("pqcnet {args:?}"))??)
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{:?}\n{out}\n{err}", output.status.code())
}

fn hang_up(node: &Node) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(node.pid()?)?);
    Ok(kill(pid, Signal::SIGHUP)?)
}

fn configure(node: &Node, more: &str) -> Result<String> {
    let path = node.folder().join("node.toml");
    let before = fs::read_to_string(&path)?;
    fs::write(&path, format!("{before}\n{more}"))?;
    Ok(before)
}

fn number_of(payload: &Bytes) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&payload[..8]);
    u64::from_be_bytes(number)
}

/// Publishes until something is refused, or so many are stored; the refusal, and the messages that were acknowledged.
async fn publish_until_refused(
    client: &Client,
    channel: &ChannelName,
    acked: &mut Vec<u64>,
    most: usize,
) -> Result<Option<PublishError>> {
    let publisher = client.publisher(channel)?;
    for _ in 0..most {
        let number = acked.last().map_or(0, |last| last + 1);
        let mut payload = vec![7; 60 << 10];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        match publisher.publish(payload).await {
            Ok(_) => acked.push(number),
            Err(error) => return Ok(Some(error)),
        }
    }
    Ok(None)
}

/// The numbers in a channel, from its first record to its head.
async fn stored(client: &Client, channel: &ChannelName, last: u64) -> Result<Vec<u64>> {
    let mut records = client
        .subscribe(&client.channel(channel.clone()), 0)
        .await?;
    let mut found = Vec::new();
    while found.last() != Some(&last) {
        let record = tokio::time::timeout(SOON, records.next()).await??;
        assert_eq!(record.offset, found.len() as u64 + 1);
        found.push(number_of(&record.payload));
    }
    Ok(found)
}

/// The log's level changes in a running node. A file with an error changes nothing, and the node says what is wrong and
/// where, in its log and in its account, until a good one comes. What needs a new start is named and left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_takes_over_its_configuration() -> Result<()> {
    let network = Network::create(0, 1, Admission::Any)?;
    let relayer = network.node(Role::Relayer, 1);
    relayer.start().await?;
    let (pid, admin) = (relayer.pid()?, relayer.admin()?);

    let before = configure(relayer, "[log]\nlevel = \"debug\"\n[drain]\nseconds = 7\n")?;
    hang_up(relayer)?;
    relayer.says("log.level: info -> debug").await?;
    relayer.says("drain.seconds: 30 -> 7").await?;

    fs::write(
        relayer.folder().join("node.toml"),
        format!("{before}\n[log]\nlevle = \"info\"\n"),
    )?;
    hang_up(relayer)?;
    relayer
        .says("configuration not reloaded, the old one stays")
        .await?;
    relayer.says("did you mean `log.level`?").await?;
    relayer
        .tells("the changed configuration was not taken over", true)
        .await?;

    let moved = before.replace("127.0.0.1:0", "127.0.0.1:1");
    fs::write(relayer.folder().join("node.toml"), moved)?;
    hang_up(relayer)?;
    relayer.says("takes effect at the next start").await?;
    relayer.says("log.level: debug -> info").await?;
    relayer
        .tells("the changed configuration was not taken over", false)
        .await?;
    assert_eq!((relayer.pid()?, relayer.admin()?), (pid, admin));
    network.stop().await
}

/// An operator drains a relayer: the command ends when the node is gone, and the node has ended well. Asked once more,
/// nobody answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_by_order() -> Result<()> {
    let (network, operator) = with_operator(1, 1)?;
    network.start_all().await?;
    let relayer = network.node(Role::Relayer, 1);
    let id = relayer.id.to_string();
    let sentry = network.node(Role::Sentry, 1);
    let stranger = network.identity("stranger")?;
    let refused = pqcnet(&["drain", &id], Some(&stranger)).await?;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let drained = pqcnet(&["drain", &id], Some(&operator)).await?;
    assert!(drained.status.success(), "{}", said(&drained));
    relayer.ended().await?;
    assert!(relayer.log().contains("an operator's order"));
    let gone = pqcnet(&["drain", &id], Some(&operator)).await?;
    assert_eq!(gone.status.code(), Some(4), "{}", said(&gone));
    assert!(sentry.runs());
    network.stop().await
}
