use super::*;

/// A node that may relay, may be relayed, and has these addresses tried, if any are given.
async fn node(relays: bool, relayed: bool, probes: Option<Vec<Address>>) -> Node {
    let security = security(config());
    let config = ControlConfig {
        relays,
        relayed,
        probes,
        ..ControlConfig::new(security.clone(), 8)
    };
    let (plane, events) = Libp2pControl::start(&Env::plain(), config).unwrap();
    let at = plane.listen(&loopback()).await.unwrap();
    Node {
        plane,
        events,
        security,
        at,
    }
}

/// Events of a node up to the one that is wanted.
async fn until<T>(node: &mut Node, mut wanted: impl FnMut(ControlEvent) -> Option<T>) -> T {
    loop {
        let event = node.events.next().await.unwrap();
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

async fn until_up(node: &mut Node, other: &Node) {
    let id = other.id();
    until(node, |event| match event {
        ControlEvent::PeerUp { peer } => (peer.node_id() == id).then_some(()),
        ControlEvent::Circuit { .. } => None,
        other => panic!("{other:?}"),
    })
    .await;
}

/// Bytes go from one node to another, with the keys of the first.
async fn talk(a: &Node, b: &mut Node) {
    let mut stream = a.plane.open(b.id()).await.unwrap();
    stream.write_all(b"through").await.unwrap();
    stream.close().await.unwrap();
    let keys = a.security.keys().public();
    let mut substream = until(b, |event| match event {
        ControlEvent::Substream(substream) => Some(substream),
        _ => None,
    })
    .await;
    assert_eq!(&substream.peer, keys);
    let mut heard = Vec::new();
    substream.stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"through");
}

/// A node that only a relay can reach takes a connection through it from one that relays nothing and needs no relay: both prove
/// their keys to each other, not to the relay, and links run on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_relay() {
    let relay = node(true, false, None).await;
    let mut a = node(false, false, None).await;
    let mut b = node(false, true, None).await;
    b.plane.reserve(relay.id(), &relay.at).await.unwrap();
    a.plane
        .dial_through(b.id(), relay.id(), &relay.at)
        .await
        .unwrap();
    until_up(&mut a, &b).await;
    until_up(&mut b, &a).await;
    talk(&a, &mut b).await;
}

/// Through the relay a node hears of another one that it can dial itself. It does, although they are connected; the circuit
/// gives way on both sides, and what is opened from then on needs no relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_connection_takes_the_place_of_a_circuit() {
    let relay = node(true, false, None).await;
    let mut a = node(false, false, None).await;
    let mut b = node(false, true, None).await;
    b.plane.reserve(relay.id(), &relay.at).await.unwrap();
    a.plane
        .dial_through(b.id(), relay.id(), &relay.at)
        .await
        .unwrap();
    let (a_id, b_id) = (a.id(), b.id());
    let from = until(&mut b, |event| match event {
        ControlEvent::Circuit { peer } => Some(peer),
        _ => None,
    });
    assert_eq!(from.await, a_id);
    b.plane
        .dial(a.id(), std::slice::from_ref(&a.at))
        .await
        .unwrap();
    for (node, other) in [(&mut a, b_id), (&mut b, a_id)] {
        let peer = until(node, |event| match event {
            ControlEvent::Direct { peer } => Some(peer),
            _ => None,
        });
        assert_eq!(peer.await, other);
    }
    a.plane.disconnect(relay.id()).await.unwrap();
    b.plane.disconnect(relay.id()).await.unwrap();
    drop(relay);
    talk(&a, &mut b).await;
    talk(&b, &mut a).await;
}

/// A node has a relay try its addresses: the one under which the relay sees it, where it listens; one of its host where nobody
/// listens; and one of another host, which the relay does not even dial for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_tries_addresses() {
    let relay = node(true, false, None).await;
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere: Address = gone.local_addr().unwrap().into();
    drop(gone);
    let other: Address = elsewhere.local_addr().unwrap().into();
    let mut a = node(false, true, Some(vec![nowhere.clone(), other.clone()])).await;
    a.dial(&relay).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 3 {
        let relay = relay.id();
        found.push(
            until(&mut a, |event| match event {
                ControlEvent::Probed { at, by, reached } => {
                    assert_eq!(by, relay);
                    Some((at, reached))
                }
                _ => None,
            })
            .await,
        );
    }
    found.sort();
    let mut expected = vec![(a.at.clone(), true), (nowhere, false), (other, false)];
    expected.sort();
    assert_eq!(found, expected);
    // Whoever would have been dialled would stand in the queue.
    let dialled = tokio::time::timeout(Duration::ZERO, elsewhere.accept()).await;
    assert!(dialled.is_err(), "{dialled:?}");
}

/// A node that does not relay, a node that has no place at the relay, and a relay that is not there say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fails_by_name() {
    let (relay, no_relay) = (
        node(true, false, None).await,
        node(false, false, None).await,
    );
    let (a, b) = (node(false, true, None).await, node(false, true, None).await);
    let refused = a.plane.reserve(no_relay.id(), &no_relay.at).await;
    assert!(
        matches!(refused, Err(ControlError::Listen { .. })),
        "{refused:?}"
    );
    let unknown = a.plane.dial_through(b.id(), relay.id(), &relay.at).await;
    let unknown = dial_failure(unknown.unwrap_err());
    let circuit = matches!(unknown, DialFailure::Upgrade(UpgradeError::Circuit(_)));
    assert!(circuit, "{unknown}");
}
