use super::*;

/// An address of this machine that is not loopback, which mDNS leaves out. Nothing is sent.
fn own_address() -> Address {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .connect("198.51.100.1:9")
        .expect("an IPv4 interface besides loopback, with a route: mDNS has no other to speak on");
    let ip = socket.local_addr().unwrap().ip();
    std::net::SocketAddr::new(ip, 0).into()
}

async fn on_the_lan(lan: bool) -> Node {
    let security = security(config());
    let config = ControlConfig {
        lan,
        ..ControlConfig::new(security.clone(), 4)
    };
    let (plane, events) = Libp2pControl::start(&Env::plain(), config).unwrap();
    let at = plane.listen(&own_address()).await.unwrap();
    Node {
        plane,
        events,
        security,
        at,
    }
}

/// Two nodes on one LAN find each other under their PeerIds, which cover both keys, and can be dialled where they were
/// found; a node that did not turn it on is not found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn found_and_dialled() {
    let quiet = on_the_lan(false).await;
    let (a, mut b) = (on_the_lan(true).await, on_the_lan(true).await);
    let (peer, at) = loop {
        match b.events.next().await.unwrap() {
            // Whoever else is on this machine's LAN is not our business.
            ControlEvent::Found { peer, at } if peer == a.id() => break (peer, at),
            ControlEvent::Found { peer, .. } => assert_ne!(peer, quiet.id()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(at, a.at);
    b.plane.dial(peer, &[at]).await.unwrap();
}
