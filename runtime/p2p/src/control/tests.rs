use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use pqcnet_actor::Env;
use pqcnet_crypto::NodeKeys;
use pqcnet_qstp::{FoundBy, HandshakeError, Reason, Stage};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::handshake::{Security, SecurityConfig};
use crate::network::NetworkId;
use crate::testing::{config, loopback, security};

mod carriers;
mod flood;
mod gossip;
mod lan;
mod lookup;
mod reach;
mod wants;

struct Node {
    plane: Libp2pControl,
    events: ControlEvents,
    security: Arc<Security>,
    at: Address,
}

impl Node {
    fn id(&self) -> NodeId {
        self.security.node_id()
    }

    async fn start(config: SecurityConfig, gossip: Option<GossipConfig>) -> Node {
        Node::limited(config, gossip, 16).await
    }

    async fn limited(
        config: SecurityConfig,
        gossip: Option<GossipConfig>,
        max_peers: usize,
    ) -> Node {
        let security = security(config);
        let config = ControlConfig {
            gossip,
            ..ControlConfig::new(security.clone(), max_peers)
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

    async fn dial(&self, other: &Node) -> Result<(), ControlError> {
        self.plane
            .dial(other.id(), std::slice::from_ref(&other.at))
            .await
    }

    async fn peer_up(&mut self) -> NodePublic {
        match self.events.next().await.unwrap() {
            ControlEvent::PeerUp { peer } => peer,
            other => panic!("{other:?}"),
        }
    }

    async fn substream(&mut self) -> Substream {
        match self.events.next().await.unwrap() {
            ControlEvent::Substream(substream) => substream,
            other => panic!("{other:?}"),
        }
    }

    async fn inbound_failed(&mut self) -> UpgradeError {
        match self.events.next().await.unwrap() {
            ControlEvent::InboundFailed { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }
}

/// Two nodes, connected, both told who the other is.
async fn connected() -> (Node, Node) {
    let (mut a, mut b) = (
        Node::start(config(), None).await,
        Node::start(config(), None).await,
    );
    a.dial(&b).await.unwrap();
    assert_eq!(&a.peer_up().await, b.security.keys().public());
    assert_eq!(&b.peer_up().await, a.security.keys().public());
    (a, b)
}

fn dial_failure(error: ControlError) -> DialFailure {
    match error {
        ControlError::Dial { mut failures, .. } => {
            assert_eq!(failures.len(), 1);
            failures.remove(0).1
        }
        other => panic!("{other}"),
    }
}

/// The PeerId is the NodeId as a SHA-256 multihash, and reads back; a PeerId of an Ed25519 key alone names no node.
#[test]
fn peer_ids() {
    let node = NodeId::from_bytes([0xab; 32]);
    let peer = peer_id_of(&node);
    let mut bytes = vec![0x12, 0x20];
    bytes.extend_from_slice(&[0xab; 32]);
    assert_eq!(peer.to_bytes(), bytes);
    assert_eq!(upgrade::node_id_of(&peer), Some(node));
    let ed25519 = [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], &[7; 32]].concat();
    let ed25519 = libp2p::PeerId::from_bytes(&ed25519).unwrap();
    assert_eq!(upgrade::node_id_of(&ed25519), None);
}

/// Two swarms meet over QSTP; substreams carry bytes both ways and say whose they are; many opened at once all arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn substreams_flow() {
    const MANY: u8 = 40;
    let (a, mut b) = connected().await;
    let mut opened = Vec::new();
    for n in 0..MANY {
        let mut stream = a.plane.open(b.id()).await.unwrap();
        stream.write_all(&[n]).await.unwrap();
        stream.flush().await.unwrap();
        opened.push(stream);
    }
    for _ in 0..MANY {
        let mut substream = b.substream().await;
        assert_eq!(&substream.peer, a.security.keys().public());
        let mut n = [0];
        substream.stream.read_exact(&mut n).await.unwrap();
        substream.stream.write_all(&[n[0], n[0]]).await.unwrap();
        substream.stream.close().await.unwrap();
    }
    for (n, mut stream) in opened.into_iter().enumerate() {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [n as u8; 2]);
    }
}

/// Dialling a connected node is done at once; disconnecting tells both; then no substream can be opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_and_down() {
    let (mut a, mut b) = connected().await;
    a.dial(&b).await.unwrap();
    a.plane.disconnect(b.id()).await.unwrap();
    for (node, other) in [(&mut a, b.id()), (&mut b, NodeId::from_bytes([0; 32]))] {
        match node.events.next().await.unwrap() {
            ControlEvent::PeerDown { peer, .. } => {
                if other != NodeId::from_bytes([0; 32]) {
                    assert_eq!(peer, other);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let refused = a.plane.open(b.id()).await.err().unwrap();
    assert!(matches!(
        refused,
        ControlError::Open(substreams::OpenError::NotConnected)
    ));
    a.dial(&b).await.unwrap();
    assert_eq!(a.peer_up().await.node_id(), b.id());
}

/// Another network: the same stage and reason on both sides, through libp2p.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_network() {
    let mut other = config();
    other.network_id = NetworkId([8; 32]);
    let a = Node::start(other, None).await;
    let mut b = Node::start(config(), None).await;
    let failed = dial_failure(a.dial(&b).await.unwrap_err());
    let error = |found_by| HandshakeError {
        stage: Stage::M1,
        found_by,
        reason: Reason::WrongNetwork,
    };
    let ours = failed.handshake().unwrap().protocol();
    assert_eq!(ours, Some(&error(FoundBy::Peer { sealed: false })));
    let UpgradeError::Handshake(failed) = b.inbound_failed().await else {
        panic!("no handshake")
    };
    assert_eq!(failed.protocol(), Some(&error(FoundBy::Here)));
}

/// Another node answers at the address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity() {
    let a = Node::start(config(), None).await;
    let mut b = Node::start(config(), None).await;
    let meant = NodeKeys::generate().node_id();
    let failed = a
        .plane
        .dial(meant, std::slice::from_ref(&b.at))
        .await
        .unwrap_err();
    let failed = dial_failure(failed);
    let error = |found_by, expected, got| HandshakeError {
        stage: Stage::M2,
        found_by,
        reason: Reason::Identity { expected, got },
    };
    let ours = failed.handshake().unwrap().protocol();
    assert_eq!(ours, Some(&error(FoundBy::Here, Some(meant), Some(b.id()))));
    let UpgradeError::Handshake(failed) = b.inbound_failed().await else {
        panic!("no handshake")
    };
    assert_eq!(
        failed.protocol(),
        Some(&error(FoundBy::Peer { sealed: true }, None, None))
    );
}

/// Peers that speak something else, that say nothing, or that come when the table is full; dials that cannot work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_have_names() {
    let mut quick = config();
    quick.deadline = Duration::from_millis(200);
    let mut b = Node::limited(quick, None, 1).await;
    let at = b.at.socket_addr().unwrap();

    let mut raw = tokio::net::TcpStream::connect(at).await.unwrap();
    raw.write_all(b"\x06hello\n").await.unwrap();
    let mut rest = Vec::new();
    raw.read_to_end(&mut rest).await.unwrap_or_default();
    let garbage = b.inbound_failed().await;
    assert!(
        matches!(
            garbage,
            UpgradeError::Negotiation {
                protocol: PROTOCOL,
                ..
            }
        ),
        "{garbage}"
    );

    let silent = tokio::net::TcpStream::connect(at).await.unwrap();
    let error = b.inbound_failed().await;
    let deadline = matches!(error, UpgradeError::Handshake(HandshakeFailed::Deadline(_)));
    assert!(deadline, "{error}");
    drop(silent);

    let first = Node::start(config(), None).await;
    first.dial(&b).await.unwrap();
    b.peer_up().await;
    let second = Node::start(config(), None).await;
    // The dialler's side of the handshake is done when the listener finds its table full.
    let outcome = second.dial(&b).await;
    let full = b.inbound_failed().await;
    assert!(matches!(full, UpgradeError::Full), "{full}");
    drop(outcome);

    let none = second.plane.dial(first.id(), &[]).await.unwrap_err();
    assert!(
        matches!(none, ControlError::Dial { ref failures, .. } if failures.is_empty()),
        "{none}"
    );
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere: Address = gone.local_addr().unwrap().into();
    drop(gone);
    let refused = second.plane.dial(first.id(), &[nowhere]).await.unwrap_err();
    let refused = dial_failure(refused);
    assert!(
        matches!(refused, DialFailure::Upgrade(UpgradeError::Io(_))),
        "{refused}"
    );
    let unresolved: Address = "host.invalid:1".parse().unwrap();
    let unresolved = dial_failure(
        second
            .plane
            .dial(first.id(), &[unresolved])
            .await
            .unwrap_err(),
    );
    assert!(
        matches!(unresolved, DialFailure::Resolve(_)),
        "{unresolved}"
    );
    let taken = second.plane.listen(&b.at).await.unwrap_err();
    assert!(matches!(taken, ControlError::Listen { .. }), "{taken}");
}
