//! Clients, a sentry and relayers as real processes: the ordinary flow, and everybody who must not get in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use pqcnet_client::{
    ChannelName, Client, ClientConfig, ConnectError, NetworkFile, PublishError, Refusal,
    RequestError, SubscribeError,
};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_messages::control::{Ping, Status};
use pqcnet_p2p::network::{Admission, NetworkParts};
use pqcnet_tests::network::Network;
use pqcnet_tests::proxy::Proxy;

/// Only something broken takes it.
const DEADLINE: Duration = Duration::from_secs(60);

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).expect("a channel's name")
}

/// Messages of one publisher come back in order, with the offsets of their acknowledgements; a second subscription that
/// presents an offset gets the next one, and a time is found where it lies. A stranger may read only once it is listed, and may never publish there.
#[tokio::test(flavor = "multi_thread")]
async fn publish_and_subscribe() -> Result<()> {
    let network = Network::start(1, 2).await?;
    let (owner, stranger) = (
        Arc::new(NodeKeys::generate()),
        Arc::new(NodeKeys::generate()),
    );
    let client = network.client(&owner).await?;
    for channel in network.balanced_channels(owner.node_id(), 4)? {
        let publisher = client.publisher(&channel)?;
        let mut receipts = Vec::new();
        for number in 0..100u32 {
            receipts.push(publisher.send(number.to_be_bytes().to_vec()).await?);
        }
        for (number, receipt) in receipts.into_iter().enumerate() {
            assert_eq!(receipt.await?.offset, Some(number as u64 + 1));
        }
        let own = client.channel(channel);
        let mut records = client.subscribe(&own, 0).await?;
        let mut stamps = Vec::new();
        for number in 0..100u32 {
            let record = records.next().await?;
            stamps.push(record.published_at_ms);
            assert_eq!(record.offset, u64::from(number) + 1);
            assert_eq!(&record.payload[..], number.to_be_bytes());
        }
        // The first stored at the time of the 61st or later, whichever that is: several may have come in one millisecond.
        let older = stamps.iter().filter(|at| **at < stamps[60]).count();
        assert_eq!(client.find_offset(&own, stamps[60]).await?, older as u64);
        assert_eq!(client.find_offset(&own, stamps[99] + 1).await?, 100);
        let mut rest = client.subscribe(&own, 60).await?;
        assert_eq!(rest.next().await?.offset, 61);
    }

    let channel = network.balanced_channels(owner.node_id(), 1)?.remove(0);
    let own = client.channel(channel.clone());
    let other = network.client(&stranger).await?;
    let refused = other.subscribe(&own, 0).await.map(|_| ());
    assert_eq!(refused, Err(SubscribeError::Refused(Refusal::NotAllowed)));
    let refused = other.find_offset(&own, 0).await;
    assert!(
        matches!(refused, Err(RequestError::Refused(Refusal::NotAllowed))),
        "{refused:?}"
    );
    client
        .set_readers(&channel, vec![stranger.node_id()])
        .await?;
    let mut records = other.subscribe(&own, 99).await?;
    assert_eq!(records.next().await?.offset, 100);
    network.stop().await
}

/// The sentry answers control asks on the client's own link; what it does not serve to clients is refused by name.
#[tokio::test(flavor = "multi_thread")]
async fn ask_the_sentry() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let client = network.client(&Arc::new(NodeKeys::generate())).await?;
    let pong = client.ask(Ping { nonce: 7 }, DEADLINE).await?;
    assert_eq!((pong.nonce, pong.role), (7, Role::Sentry));
    // Who else is connected is for nodes and operators to know.
    let refused = client.ask(Status {}, DEADLINE).await;
    assert!(
        matches!(refused, Err(RequestError::Unanswered(_))),
        "{refused:?}"
    );
    let grant = pqcnet_messages::relay::CloseSession { session: 1 };
    let refused = client.ask(grant, DEADLINE).await;
    assert!(
        matches!(refused, Err(RequestError::Unanswered(_))),
        "{refused:?}"
    );
    network.stop().await
}

/// The message is stored, its acknowledgement is swallowed on the way, then the connection is cut. The client comes back
/// by itself and repeats it under the same numbers; it is there once, and the next message stands right behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_lands_once() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let sentry = network.node(Role::Sentry, 1);
    let proxy = Proxy::start(sentry.data).await?;
    let detour = network.with_addresses(&BTreeMap::from([(sentry.id, proxy.at)]))?;
    let cut_off = Client::connect(ClientConfig::new(detour, keys.clone())).await?;
    let direct = network.client(&keys).await?;
    let channel = name("lost-ack");
    let publisher = cut_off.publisher(&channel)?;
    assert_eq!(publisher.publish("first").await?.offset, Some(1));
    let mut records = direct.subscribe(&direct.channel(channel), 0).await?;
    assert_eq!(&records.next().await?.payload[..], b"first");

    proxy.swallow_answers();
    let receipt = publisher.send("second").await?;
    let stored = records.next().await?;
    assert_eq!((stored.offset, &stored.payload[..]), (2, &b"second"[..]));
    proxy.cut();
    assert_eq!(receipt.await?.offset, Some(2));
    assert_eq!(publisher.publish("third").await?.offset, Some(3));
    let next = records.next().await?;
    assert_eq!((next.offset, &next.payload[..]), (3, &b"third"[..]));
    network.stop().await
}

/// Every relayer is gone: nothing is accepted, and a message fails as never stored when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn no_relayer_no_acknowledgement() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let mut config = ClientConfig::new(network.file.clone(), keys);
    config.publish_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(2);
    let client = loop {
        // What is meant for the subscription is short for a connection on a busy machine.
        match Client::connect(config.clone()).await {
            Err(ConnectError::TimedOut { .. }) => {}
            connected => break connected?,
        }
    };
    let patient = network.client(&Arc::new(NodeKeys::generate())).await?;
    network.node(Role::Relayer, 1).kill().await?;
    let channel = name("nobody-stores");
    let failed = client.publish(&channel, "x").await;
    assert_eq!(failed, Err(PublishError::NotSent));
    let failed = client
        .subscribe(&client.channel(channel.clone()), 0)
        .await
        .map(|_| ());
    assert_eq!(
        failed,
        Err(SubscribeError::TimedOut(Duration::from_secs(2)))
    );
    // The relayer comes back, and so does the service, over a link that the client had all the time.
    network.node(Role::Relayer, 1).start().await?;
    assert_eq!(patient.publish(&channel, "x").await?.offset, Some(1));
    network.stop().await
}

/// A client whose grant holds for ten seconds: it gives its sentry a later one in time, and what it publishes before and
/// after goes over the same session.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_renewed() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let mut config = ClientConfig::new(network.file.clone(), keys);
    config.grant_lifetime = Duration::from_secs(10);
    let client = Client::connect(config).await?;
    let channel = name("renewed");
    assert_eq!(client.publish(&channel, "before").await?.offset, Some(1));
    network.node(Role::Sentry, 1).says("attached anew").await?;
    assert_eq!(client.publish(&channel, "after").await?.offset, Some(2));
    network.stop().await
}

fn expect_rejected(outcome: Result<Client, ConnectError>, words: &str) {
    match outcome {
        Err(ConnectError::Rejected { reason, .. }) => {
            assert!(reason.contains(words), "`{reason}` does not say `{words}`");
        }
        other => panic!("not rejected: {other:?}"),
    }
}

/// The same nodes under another network id: refused in the first message, and both sides name stage and reason.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_network() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let other = NetworkFile::new(NetworkParts {
        name: "another".to_owned(),
        root: network.file.root().clone(),
        shards: network.file.shards(),
        admission: Admission::Any,
        nodes: network.file.nodes().to_vec(),
        bootstrap: Vec::new(),
    })?;
    let keys = Arc::new(NodeKeys::generate());
    let outcome = Client::connect(ClientConfig::new(other, keys)).await;
    expect_rejected(outcome, "network");
    network.node(Role::Sentry, 1).says("network").await?;
    network.stop().await
}

/// Another node answers at the sentry's address: its keys do not hash to the identity that was dialled.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_identity() -> Result<()> {
    let network = Network::start(1, 1).await?;
    let (sentry, relayer) = (
        network.node(Role::Sentry, 1).id,
        network.node(Role::Relayer, 1).data,
    );
    let misled = network.with_addresses(&BTreeMap::from([(sentry, relayer)]))?;
    let keys = Arc::new(NodeKeys::generate());
    let outcome = Client::connect(ClientConfig::new(misled, keys)).await;
    expect_rejected(outcome, "another node");
    network.stop().await
}

/// A network that lists its clients turns a stranger away by its role, with a reason on both sides; the keys of a node that
/// is listed as something else do not make a client either.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_role() -> Result<()> {
    let network = Network::create(1, 1, Admission::Listed)?;
    network.start_all().await?;
    let stranger = NodeKeys::generate();
    let relayer = network.node(Role::Relayer, 1).secrets()?.keys;
    for keys in [stranger, relayer] {
        let config = ClientConfig::new(network.file.clone(), Arc::new(keys));
        expect_rejected(Client::connect(config).await, "role");
    }
    network.node(Role::Sentry, 1).says("does not grant").await?;
    network.stop().await
}
