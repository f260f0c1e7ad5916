use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use pqcnet_crypto::NodeKeys;
use pqcnet_qstp::{FoundBy, HandshakeError, Initiator, Reason, Stage, Suite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::guard::{GuardCounts, Refused};
use crate::network::NetworkId;
use crate::testing::{OddStreams, config, endpoint, loopback, security};

const HERE: FoundBy = FoundBy::Here;
const CLEAR: FoundBy = FoundBy::Peer { sealed: false };
const SEALED: FoundBy = FoundBy::Peer { sealed: true };

fn error(stage: Stage, found_by: FoundBy, reason: Reason) -> HandshakeError {
    HandshakeError {
        stage,
        found_by,
        reason,
    }
}

/// Dials from one endpoint to another and gives what each side learnt of the failure.
async fn failure(
    dialler: &Endpoint,
    listener: &Endpoint,
    expect: NodeId,
) -> (HandshakeError, HandshakeError) {
    let mut incoming = listener.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let (dialled, arrived) = tokio::join!(dialler.dial(&at, expect), incoming.next());
    let (dialled, arrived) = (dialled.unwrap_err(), arrived.unwrap().unwrap_err());
    let protocol = |failed: Option<&HandshakeFailed>| *failed.unwrap().protocol().unwrap();
    (
        protocol(dialled.handshake()),
        protocol(Some(&arrived.failed)),
    )
}

/// Two nodes meet over real sockets: each knows the other's keys, both hold the same binding, bytes flow both ways.
#[tokio::test]
async fn two_nodes_connect() {
    let (a, b) = (endpoint(config()), endpoint(config()));
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let (ours, theirs) = tokio::join!(a.dial(&at, b.node_id()), incoming.next());
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap().unwrap());
    assert_eq!(&ours.peer, b.security().keys().public());
    assert_eq!(&theirs.peer, a.security().keys().public());
    assert_eq!(ours.binding, theirs.binding);
    assert_eq!(
        (ours.account.sent, ours.account.received),
        (theirs.account.received, theirs.account.sent)
    );
    assert_eq!(ours.account.suite, Suite::Aes256Gcm);
    assert!(theirs.from.unwrap().ip().is_loopback());

    ours.stream.write_all(b"ping").await.unwrap();
    ours.stream.close().await.unwrap();
    let mut got = Vec::new();
    theirs.stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"ping");
    theirs.stream.write_all(b"pong").await.unwrap();
    theirs.stream.close().await.unwrap();
    got.clear();
    ours.stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"pong");
    let counts = GuardCounts {
        opened: 1,
        ..GuardCounts::default()
    };
    assert_eq!(b.security().counts(), counts);
}

/// Nodes of two networks part at the first message, and both say why.
#[tokio::test]
async fn another_network() {
    let mut other = config();
    other.network_id = NetworkId([8; 32]);
    let (a, b) = (endpoint(other), endpoint(config()));
    let (ours, theirs) = failure(&a, &b, b.node_id()).await;
    assert_eq!(ours, error(Stage::M1, CLEAR, Reason::WrongNetwork));
    assert_eq!(theirs, error(Stage::M1, HERE, Reason::WrongNetwork));
}

/// No suite in common.
#[tokio::test]
async fn no_common_suite() {
    let (mut ours, mut theirs) = (config(), config());
    ours.suites = vec![Suite::ChaCha20Poly1305];
    theirs.suites = vec![Suite::Aes256Gcm];
    let (a, b) = (endpoint(ours), endpoint(theirs));
    let (ours, theirs) = failure(&a, &b, b.node_id()).await;
    let reason = Reason::NoCommonSuite {
        offered: 0b10,
        supported: 0b01,
    };
    assert_eq!(ours, error(Stage::M1, CLEAR, reason));
    assert_eq!(theirs, error(Stage::M1, HERE, reason));
}

/// A dialler of a later version; its first message differs in the version's byte.
#[tokio::test]
async fn another_version() {
    let forge = OddStreams {
        forge: Some((4, 1 ^ 2)),
        ..OddStreams::default()
    };
    let a = Endpoint::new(security(config()), Arc::new(forge));
    let b = endpoint(config());
    let (ours, theirs) = failure(&a, &b, b.node_id()).await;
    let reason = Reason::Version {
        offered: 2,
        supported: 1,
    };
    assert_eq!(ours, error(Stage::M1, CLEAR, reason));
    assert_eq!(theirs, error(Stage::M1, HERE, reason));
}

/// Whoever answers is not who was dialled. The responder learns that, not whom it was taken for.
#[tokio::test]
async fn another_identity() {
    let (a, b) = (endpoint(config()), endpoint(config()));
    let meant = NodeKeys::generate().node_id();
    let (ours, theirs) = failure(&a, &b, meant).await;
    let (expected, got) = (Some(meant), Some(b.node_id()));
    assert_eq!(
        ours,
        error(Stage::M2, HERE, Reason::Identity { expected, got })
    );
    let nameless = Reason::Identity {
        expected: None,
        got: None,
    };
    assert_eq!(theirs, error(Stage::M2, SEALED, nameless));
}

/// A last message that was changed on its way: the responder refuses it, and the initiator, which thought itself done,
/// reads that in place of the first record.
#[tokio::test]
async fn a_forged_last_message() {
    const M1: usize = 1_337;
    let forge = OddStreams {
        forge: Some((M1 + 100, 1)),
        ..OddStreams::default()
    };
    let a = Endpoint::new(security(config()), Arc::new(forge));
    let b = endpoint(config());
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let (ours, theirs) = tokio::join!(a.dial(&at, b.node_id()), async {
        // The responder lingers until the initiator has heard.
        incoming.next().await.unwrap().unwrap_err().failed
    });
    let mut ours = ours.unwrap();
    let refused = ours.stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let expected = error(Stage::M3, SEALED, Reason::NotOpened);
    let record = crate::stream::record_error(&refused);
    assert_eq!(record, Some(pqcnet_qstp::RecordError::Rejected(expected)));
    let expected = error(Stage::M3, HERE, Reason::NotOpened);
    assert_eq!(theirs.protocol(), Some(&expected));
}

/// A node does not connect to itself: it does not even send.
#[tokio::test]
async fn oneself() {
    let a = endpoint(config());
    let incoming = a.listen(&loopback()).await.unwrap();
    let failed = a.dial(incoming.local(), a.node_id()).await.unwrap_err();
    let expected = error(Stage::M1, HERE, Reason::SelfConnect);
    assert_eq!(failed.handshake().unwrap().protocol(), Some(&expected));
}

/// Planes cannot be mixed up: their names are in the transcript.
#[tokio::test]
async fn another_plane() {
    let (a, b) = (security(config()), security(config()));
    let (near, far) = crate::testing::pipe(1 << 16);
    let half_open = b.open(None).unwrap();
    let (ours, theirs) = tokio::join!(
        a.initiate(near, b.node_id(), Plane::Control),
        b.respond(far, &half_open, Plane::Data),
    );
    let (ours, theirs) = (ours.err().unwrap(), theirs.err().unwrap());
    assert_eq!(
        ours.protocol(),
        Some(&error(Stage::M2, HERE, Reason::NotOpened))
    );
    // The reject is clear, since the sides hold different keys.
    assert_eq!(
        theirs.protocol(),
        Some(&error(Stage::M2, CLEAR, Reason::NotOpened))
    );
}

/// A peer that speaks something else is told so and shut out; the next one gets in.
#[tokio::test]
async fn garbage() {
    let (a, b) = (endpoint(config()), endpoint(config()));
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let mut raw = TcpStream::connect(at.socket_addr().unwrap()).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = [0; 10];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0, 0, 6, 1, 21, 0, 0, 0, b'G']); // Reject, M1, Unexpected, type
    drop(raw);
    let failed = incoming.next().await.unwrap().unwrap_err().failed;
    let expected = error(Stage::M1, HERE, Reason::Unexpected { got: b'G' });
    assert_eq!(failed.protocol(), Some(&expected));
    let (ours, theirs) = tokio::join!(a.dial(&at, b.node_id()), incoming.next());
    assert_eq!(ours.unwrap().binding, theirs.unwrap().unwrap().binding);
}

/// A peer that leaves in the middle of its first message.
#[tokio::test]
async fn half_a_message() {
    let b = endpoint(config());
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let mut raw = TcpStream::connect(incoming.local().socket_addr().unwrap())
        .await
        .unwrap();
    let keys = NodeKeys::generate().node_id();
    let (_, m1) = Initiator::new(initiator_config(), keys).unwrap();
    raw.write_all(&m1[..100]).await.unwrap();
    drop(raw);
    let failed = incoming.next().await.unwrap().unwrap_err().failed;
    assert!(
        matches!(
            failed,
            HandshakeFailed::Io {
                stage: Stage::M1,
                ..
            }
        ),
        "{failed}"
    );
}

fn initiator_config() -> Arc<pqcnet_qstp::Config> {
    let keys = Arc::new(NodeKeys::generate());
    let config = pqcnet_qstp::Config::new(
        crate::testing::NETWORK.0,
        vec![Suite::Aes256Gcm],
        keys,
        pqcnet_qstp::Profile::Link,
    );
    Arc::new(config.unwrap())
}

/// Peers that say nothing are let go at the deadline, on either side.
#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let mut quick = config();
    quick.deadline = Duration::from_millis(50);
    let b = endpoint(quick.clone());
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let silent = TcpStream::connect(incoming.local().socket_addr().unwrap())
        .await
        .unwrap();
    let failed = incoming.next().await.unwrap().unwrap_err().failed;
    assert!(matches!(failed, HandshakeFailed::Deadline(after) if after == quick.deadline));
    drop(silent);

    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = mute.local_addr().unwrap().into();
    let failed = endpoint(quick)
        .dial(&at, NodeKeys::generate().node_id())
        .await
        .unwrap_err();
    let deadline = failed.handshake();
    assert!(
        matches!(deadline, Some(HandshakeFailed::Deadline(_))),
        "{failed}"
    );
    assert_eq!(b.security().counts().half_open, 0);
}

/// Nobody listens there.
#[tokio::test]
async fn nobody_there() {
    let a = endpoint(config());
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: Address = gone.local_addr().unwrap().into();
    drop(gone);
    let failed = a
        .dial(&at, NodeKeys::generate().node_id())
        .await
        .unwrap_err();
    assert!(failed.handshake().is_none());
    assert!(matches!(failed, DialError::Connect { at: tried, .. } if tried == at));
}

/// Silent peers keep nobody out: of more than may wait, the one that is silent longest is hung up on, and whoever speaks
/// gets in.
#[tokio::test]
async fn silent_peers_make_room() {
    let mut small = config();
    small.guard.waiting = 2;
    let (a, b) = (endpoint(config()), endpoint(small));
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(at.socket_addr().unwrap()).await.unwrap());
    }
    for _ in 0..3 {
        let displaced = incoming.next().await.unwrap().unwrap_err().failed;
        assert!(
            matches!(displaced, HandshakeFailed::Refused(Refused::Displaced)),
            "{displaced}"
        );
    }
    assert_eq!(b.security().counts().half_open, 2);
    // The first three are closed, and the dialler displaces the fourth.
    for gone in &mut silent[..3] {
        assert_eq!(gone.read(&mut [0]).await.unwrap(), 0);
    }
    let ours = a.dial(&at, b.node_id()).await.unwrap();
    let theirs = loop {
        if let Ok(theirs) = incoming.next().await.unwrap() {
            break theirs;
        }
    };
    assert_eq!(ours.binding, theirs.binding);
    assert_eq!(b.security().counts().displaced, 4);
}

/// A prefix over its budget gets Retry; whoever solves the puzzle gets in, from there too, and other prefixes are
/// not asked at all.
#[tokio::test]
async fn flood_from_one_prefix() {
    let mut tight = config();
    tight.guard.starts_burst = 1;
    tight.guard.starts_per_s = 0;
    tight.guard.puzzle_bits_min = 4;
    tight.guard.puzzle_bits_max = 8;
    let b = endpoint(tight);
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let mut answers = Vec::new();
    for _ in 0..4 {
        let mut raw = TcpStream::connect(at.socket_addr().unwrap()).await.unwrap();
        let (_, m1) = Initiator::new(initiator_config(), b.node_id()).unwrap();
        raw.write_all(&m1).await.unwrap();
        let mut kind = [0];
        raw.read_exact(&mut kind).await.unwrap();
        answers.push(kind[0]);
        drop(raw);
        let gone = incoming.next().await.unwrap().unwrap_err().failed;
        assert!(matches!(gone, HandshakeFailed::Io { .. }), "{gone}");
    }
    assert_eq!(answers, [3, 2, 2, 2]); // M2, then Retry each time
    assert_eq!(b.security().counts().challenged, 3);

    let same_prefix = endpoint(config());
    let (ours, theirs) = tokio::join!(same_prefix.dial(&at, b.node_id()), incoming.next());
    assert_eq!(ours.unwrap().binding, theirs.unwrap().unwrap().binding);
    assert_eq!(b.security().counts().challenged, 4);

    let from = OddStreams {
        from: "127.9.9.9".parse().ok(),
        ..OddStreams::default()
    };
    let elsewhere = Endpoint::new(security(config()), Arc::new(from));
    let (ours, theirs) = tokio::join!(elsewhere.dial(&at, b.node_id()), incoming.next());
    assert_eq!(ours.unwrap().binding, theirs.unwrap().unwrap().binding);
    assert_eq!(b.security().counts().challenged, 4);
}

/// Once handshakes have eaten the CPU budget, a stranger of any prefix has to work first, and gets in.
#[tokio::test]
async fn over_the_cpu_budget() {
    let mut spent = config();
    spent.guard.cpu_per_s = Duration::ZERO;
    spent.guard.cpu_burst = Duration::from_nanos(1);
    spent.guard.puzzle_bits_max = 4;
    spent.guard.puzzle_bits_min = 4;
    let (a, b) = (endpoint(config()), endpoint(spent));
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    for challenged in 0..3 {
        let (ours, theirs) = tokio::join!(a.dial(&at, b.node_id()), incoming.next());
        assert_eq!(ours.unwrap().binding, theirs.unwrap().unwrap().binding);
        assert_eq!(b.security().counts().challenged, challenged);
    }
}

/// Dropping `Incoming` frees the port, and a listener can be bound again at once.
#[tokio::test]
async fn listening_again() {
    let (a, b) = (endpoint(config()), endpoint(config()));
    let first = b.listen(&loopback()).await.unwrap();
    let at = first.local().clone();
    drop(first);
    let mut second = loop {
        // The accept task ends at its next poll.
        match b.listen(&at).await {
            Ok(incoming) => break incoming,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
        }
        tokio::task::yield_now().await;
    };
    let (ours, theirs) = tokio::join!(a.dial(&at, b.node_id()), second.next());
    assert_eq!(ours.unwrap().binding, theirs.unwrap().unwrap().binding);
}
