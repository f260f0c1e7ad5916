//! Strangers without a place, over real sockets on loopback.

use pqcnet_qstp::{FoundBy, Reason};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::*;
use crate::testing::{config, endpoint, loopback};

/// Whoever finds no place is told that the node is busy, at the stage it was at; whoever says nothing is hung up on.
#[tokio::test]
async fn no_place_is_said() {
    let mut full = config();
    full.guard.half_open_per_prefix = 0;
    let (a, b) = (endpoint(config()), endpoint(full));
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let refused = a.dial(&at, b.node_id()).await.unwrap_err();
    let error = refused.handshake().and_then(HandshakeFailed::protocol);
    let busy = HandshakeError {
        stage: Stage::M1,
        found_by: FoundBy::Peer { sealed: false },
        reason: Reason::Busy,
    };
    assert_eq!(error, Some(&busy), "{refused}");
    let rejected = incoming.next().await.unwrap().unwrap_err().failed;
    assert!(
        matches!(rejected, HandshakeFailed::Refused(_)),
        "{rejected}"
    );

    let mut silent = TcpStream::connect(at.socket_addr().unwrap()).await.unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0; 0]);
    assert_eq!(b.security().counts().refused, 2);
}

/// With every dear place taken by fresh handshakes, a first message is refused as Busy, on both sides by the same words.
#[tokio::test]
async fn no_place_to_compute() {
    let mut full = config();
    full.guard.half_open = 0;
    let (a, b) = (endpoint(config()), endpoint(full));
    let mut incoming = b.listen(&loopback()).await.unwrap();
    let at = incoming.local().clone();
    let (refused, rejected) = tokio::join!(a.dial(&at, b.node_id()), incoming.next());
    let refused = refused.unwrap_err();
    let told = refused.handshake().and_then(HandshakeFailed::protocol);
    let rejected = rejected.unwrap().unwrap_err().failed;
    let found = rejected.protocol();
    for error in [told, found] {
        let error = error.unwrap_or_else(|| panic!("{refused}, {rejected}"));
        assert_eq!((error.stage, &error.reason), (Stage::M1, &Reason::Busy));
    }
}
