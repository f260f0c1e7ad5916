use super::*;

async fn node(relays: bool, relayed: bool) -> Node {
    let security = security(config());
    let config = ControlConfig {
        relays,
        relayed,
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

async fn until_up(node: &mut Node, other: &Node) {
    loop {
        match node.events.next().await.unwrap() {
            ControlEvent::PeerUp { peer } if peer.node_id() == other.id() => return,
            ControlEvent::PeerUp { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A node that only a relay can reach takes a connection through it: both prove their keys to each other, not to the
/// relay, and links run on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_relay() {
    let relay = node(true, false).await;
    let (mut a, mut b) = (node(false, true).await, node(false, true).await);
    b.plane.reserve(relay.id(), &relay.at).await.unwrap();
    a.plane
        .dial_through(b.id(), relay.id(), &relay.at)
        .await
        .unwrap();
    until_up(&mut a, &b).await;
    until_up(&mut b, &a).await;
    let mut stream = a.plane.open(b.id()).await.unwrap();
    stream.write_all(b"through").await.unwrap();
    stream.close().await.unwrap();
    let mut substream = b.substream().await;
    assert_eq!(&substream.peer, a.security.keys().public());
    let mut heard = Vec::new();
    substream.stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"through");
}

/// A node that does not relay, a node that has no place at the relay, and a relay that is not there say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fails_by_name() {
    let (relay, no_relay) = (node(true, false).await, node(false, false).await);
    let (a, b) = (node(false, true).await, node(false, true).await);
    let refused = a.plane.reserve(no_relay.id(), &no_relay.at).await;
    assert!(
        matches!(refused, Err(ControlError::Listen { .. })),
        "{refused:?}"
    );
    let unknown = a.plane.dial_through(b.id(), relay.id(), &relay.at).await;
    let unknown = dial_failure(unknown.unwrap_err());
    let circuit = matches!(unknown, DialFailure::Upgrade(UpgradeError::Circuit(_)));
    assert!(circuit, "{unknown}");
    let without = no_relay.plane.reserve(relay.id(), &relay.at).await;
    assert!(
        matches!(without, Err(ControlError::Listen { .. })),
        "{without:?}"
    );
}
