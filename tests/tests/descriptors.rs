//! File descriptors that run out, on real processes: taken by strangers, and none left at all.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pqcnet_client::{ChannelName, Client, ClientConfig, PublishError};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_tests::network::{Network, Node};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

/// Only something broken takes it.
const SOON: Duration = Duration::from_secs(20);
/// Four times so many messages of [`PAYLOAD`] bytes are more than a memory table holds: the store has to write a file.
const MESSAGES: u64 = 150;
const PAYLOAD: usize = 60 << 10;

/// From now on the process of a node may have so many descriptors.
fn limit(node: &Node, descriptors: usize) -> Result<()> {
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", node.pid()?))
        .arg(format!("--nofile={descriptors}:"))
        .output()
        .context("prlimit is missing: install Debian's package `util-linux`")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "prlimit: {said}");
    Ok(())
}

fn open(node: &Node) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", node.pid()?))?.count())
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![7; PAYLOAD];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

/// The numbers in a channel up to `last`, in their order.
async fn stored(client: &Client, channel: &ChannelName, last: u64) -> Result<Vec<u64>> {
    let mut records = client
        .subscribe(&client.channel(channel.clone()), 0)
        .await?;
    let mut found = Vec::new();
    while found.last() != Some(&last) {
        let record = tokio::time::timeout(SOON, records.next()).await??;
        let mut number = [0; 8];
        number.copy_from_slice(&record.payload[..8]);
        found.push(u64::from_be_bytes(number));
    }
    Ok(found)
}

/// Publishes until one is durable, whatever the others meet; each has a number of its own.
async fn one_more(client: &Client, channel: &ChannelName, number: &mut u64) -> Result<()> {
    loop {
        *number += 1;
        match client.publish(channel, payload(*number)).await {
            Ok(_) => return Ok(()),
            Err(
                PublishError::Refused(_) | PublishError::OutcomeUnknown | PublishError::NotSent,
            ) => {}
            Err(other) => return Err(other.into()),
        }
    }
}

/// A stranger with a prefix of its own that connects and says nothing, again as soon as it is sent away, until it is over.
async fn stranger(number: u16, to: SocketAddr, over: Arc<AtomicBool>) {
    let [high, low] = number.to_be_bytes();
    let from = SocketAddr::from((Ipv4Addr::new(127, 100 + high, low, 1), 0));
    while !over.load(Ordering::Relaxed) {
        let connected = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            socket.connect(to).await?.read_u8().await
        };
        // Sent away, reset, or over: all the same to it.
        if tokio::time::timeout(Duration::from_secs(1), connected)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    }
}

/// A relayer that may have 400 descriptors, and 600 strangers, each from a network of its own, who connect and say nothing.
/// The node reports that descriptors are as good as used up, strangers do not get the last ones: its store writes files, its
/// page answers, every message is acknowledged and there. When the strangers are gone it says so, and takes new links.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_leave_the_store_its_descriptors() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let relayer = network.node(Role::Relayer, 1);
    let client = network.client(&Arc::new(NodeKeys::generate())).await?;
    let channel = ChannelName::new("beset")?;
    let publisher = client.publisher(&channel)?;
    let pid = relayer.pid()?;
    let idle = open(relayer)?;
    ensure!(idle < 200, "{idle} descriptors of an idle relayer");
    limit(relayer, 400)?;

    let over = Arc::new(AtomicBool::new(false));
    let strangers =
        (0..600).map(|number| tokio::spawn(stranger(number, relayer.data, over.clone())));
    let strangers: Vec<_> = strangers.collect();
    relayer.says("too little is left").await?;
    relayer
        .tells("of 400 file descriptors are open", true)
        .await?;
    for number in 0..4 * MESSAGES {
        publisher.publish(payload(number)).await?;
    }
    let all: Vec<u64> = (0..4 * MESSAGES).collect();
    assert_eq!(stored(&client, &channel, 4 * MESSAGES - 1).await?, all);
    let crowded = open(relayer)?;
    assert!(crowded < 400, "{crowded}");
    relayer
        .tells("of 400 file descriptors are open", true)
        .await?;

    over.store(true, Ordering::Relaxed);
    for stranger in strangers {
        stranger.await?;
    }
    relayer.says("enough again").await?;
    relayer.tells("file descriptors are open", false).await?;
    let sentry = network.node(Role::Sentry, 1);
    sentry.stop().await?;
    sentry.start().await?;
    let mut last = 4 * MESSAGES;
    one_more(&client, &channel, &mut last).await?;
    assert_eq!(relayer.pid()?, pid);
    network.stop().await
}

/// A relayer may have fewer descriptors than it has open: nothing can be opened at all, not even the list of what is open.
/// It says so, and goes on with what it has. Messages come in until the store needs another file: from then on they are
/// refused. When descriptors may be opened again it reports that, and writes again by itself: everything that was
/// acknowledged is there, once and in order, and it is the process that it was.
#[tokio::test(flavor = "multi_thread")]
async fn without_any_descriptor_a_node_stays_up() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let relayer = network.node(Role::Relayer, 1);
    let mut config = ClientConfig::new(network.file.clone(), Arc::new(NodeKeys::generate()));
    config.publish_timeout = Duration::from_secs(3);
    let client = Client::connect(config).await?;
    let channel = ChannelName::new("starved")?;
    let pid = relayer.pid()?;
    let mut number = 0;
    one_more(&client, &channel, &mut number).await?;
    let mut acked = vec![number];

    limit(relayer, open(relayer)?.saturating_sub(5))?;
    relayer.says("too little is left").await?;
    let publisher = client.publisher(&channel)?;
    let mut refused = None;
    while refused.is_none() && number < 10 * MESSAGES {
        number += 1;
        match publisher.publish(payload(number)).await {
            Ok(_) => acked.push(number),
            Err(error) => refused = Some(error),
        }
    }
    ensure!(
        refused.is_some(),
        "{number} messages of {PAYLOAD} bytes needed no file"
    );
    assert_eq!(relayer.pid()?, pid);

    limit(relayer, 4_096)?;
    relayer.says("enough again").await?;
    // A message of unknown outcome may be there: its number is not used again.
    number += 1_000_000;
    one_more(&client, &channel, &mut number).await?;
    acked.push(number);
    let there = stored(&client, &channel, number).await?;
    let mut once = there.clone();
    once.dedup();
    assert_eq!(once, there, "nothing is there twice");
    assert!(there.is_sorted(), "nothing is out of order");
    let promised: BTreeSet<u64> = acked.iter().copied().collect();
    assert!(
        promised.is_subset(&there.into_iter().collect()),
        "nothing acknowledged is lost"
    );
    relayer.tells("file descriptors are open", false).await?;
    assert_eq!(relayer.pid()?, pid);
    network.stop().await
}
