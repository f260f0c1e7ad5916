use super::*;

fn web() -> Address {
    "ws://127.0.0.1:0".parse().unwrap()
}

/// A WebSocket carries the same upgrade: two nodes prove their keys to each other and exchange more than its buffers hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_web_socket() {
    const MUCH: usize = 3 * 1024 * 1024;
    let (mut a, mut b) = (
        Node::start(config(), None).await,
        Node::start(config(), None).await,
    );
    b.at = b.plane.listen(&web()).await.unwrap();
    assert!(b.at.is_web_socket() && b.at.port() != 0, "{}", b.at);
    a.dial(&b).await.unwrap();
    assert_eq!(&a.peer_up().await, b.security.keys().public());
    assert_eq!(&b.peer_up().await, a.security.keys().public());
    let stream = a.plane.open(b.id()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let sending = async {
        write.write_all(&vec![7; MUCH]).await.unwrap();
        write.close().await.unwrap();
    };
    let echoing = async {
        let stream = b.substream().await.stream;
        let (read, mut write) = stream.split();
        futures::io::copy(read, &mut write).await.unwrap();
        write.close().await.unwrap();
    };
    let mut back = Vec::new();
    let hearing = read.read_to_end(&mut back);
    let ((), (), heard) = futures::join!(sending, echoing, hearing);
    assert_eq!(heard.unwrap(), MUCH);
    assert!(back.iter().all(|byte| *byte == 7));
}

/// Another network, and another node at the address, are refused with the same names as over TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_refusals() {
    let mut other = config();
    other.network_id = NetworkId([8; 32]);
    let a = Node::start(other, None).await;
    let mut b = Node::start(config(), None).await;
    b.at = b.plane.listen(&web()).await.unwrap();
    let failed = dial_failure(a.dial(&b).await.unwrap_err());
    let reason = &failed.handshake().unwrap().protocol().unwrap().reason;
    assert_eq!(reason, &Reason::WrongNetwork);
    let failed = b.inbound_failed().await;
    assert!(matches!(failed, UpgradeError::Handshake(_)), "{failed}");
}

/// Plain TCP at a WebSocket's door, a WebSocket at TCP's, HTTP that asks for something else, and silence: each by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_door() {
    let mut quick = config();
    quick.deadline = Duration::from_millis(300);
    let mut b = Node::start(quick, None).await;
    let tcp = b.at.clone();
    let at = b.plane.listen(&web()).await.unwrap();
    let a = Node::start(config(), None).await;
    let plain: Address = at.socket_addr().unwrap().into();
    let dialled = a.plane.dial(b.id(), &[plain]).await.unwrap_err();
    let ours = dial_failure(dialled);
    assert!(matches!(ours, DialFailure::Upgrade(_)), "{ours}");
    let theirs = b.inbound_failed().await;
    assert!(matches!(theirs, UpgradeError::WebSocket(_)), "{theirs}");

    let dialled = a.plane.dial(b.id(), &[tcp.over_web_socket()]).await;
    let ours = dial_failure(dialled.unwrap_err());
    let web_socket = matches!(ours, DialFailure::Upgrade(UpgradeError::WebSocket(_)));
    assert!(web_socket, "{ours}");
    let theirs = b.inbound_failed().await;
    assert!(
        matches!(theirs, UpgradeError::Negotiation { .. }),
        "{theirs}"
    );

    for words in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""] {
        let at = at.socket_addr().unwrap();
        let mut raw = tokio::net::TcpStream::connect(at).await.unwrap();
        raw.write_all(words.as_bytes()).await.unwrap();
        let theirs = b.inbound_failed().await;
        match words {
            "" => assert!(matches!(theirs, UpgradeError::Handshake(_)), "{theirs}"),
            _ => assert!(matches!(theirs, UpgradeError::WebSocket(_)), "{theirs}"),
        }
    }
}
