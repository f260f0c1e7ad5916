//! Hostile peers against real processes: each does one thing that no honest peer does, is told what and at which stage
//! where it can hear, and is got rid of; the node goes on serving an honest client, in the same process, without a panic.

mod grants;
mod producers;
mod receipts;
mod siege;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use pqcnet_actor::AskError;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_link::{Addressed, DownReason, Reason, Role, ServiceId, Stage};
use pqcnet_messages::control::{Ping, Status};
use pqcnet_messages::edge;
use pqcnet_p2p::control::{ControlConfig, ControlPlane as _, Libp2pControl};
use pqcnet_p2p::handshake::{HandshakeFailed, Security, SecurityConfig};
use pqcnet_p2p::network::Address;
use pqcnet_protos::link::v1::{self as pb, frame::Kind};
use pqcnet_tests::network::Node;
use siege::{PATIENCE, SOON, Siege, ask, connect, frame, hello};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes that are no handshake, a length that lies, half a message, nothing at all, a byte now and then, half a socket: at
/// both doors. Two hundred at once, from one prefix, which is more than its share.
#[tokio::test(flavor = "multi_thread")]
async fn before_the_handshake() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let control = |node: &NodeId| {
        siege
            .network
            .file
            .node(node)
            .map(|node| node.control.clone())
    };
    let mut doors = vec![siege.sentry().data, siege.relayer().data];
    for node in [siege.sentry(), siege.relayer()] {
        let at = control(&node.id).context("listed")?;
        doors.extend(at.iter().filter_map(Address::socket_addr));
    }
    let lies: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[1, 0xff, 0xff, 0xff],
        &[0xff; 64],
        &[1, 0, 4, 0, 1],
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ];
    for at in &doors {
        for lie in lies {
            let mut socket = connect(*at).await?;
            socket.write_all(lie).await?;
            socket.shutdown().await?;
            // Told or not, it is hung up on.
            let mut rest = Vec::new();
            let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
            ensure!(end.is_ok(), "{at} keeps somebody who said {lie:?}");
        }
    }
    siege.still_serves("garbage").await?;

    let mut silent = Vec::new();
    for at in &doors {
        for _ in 0..200 {
            silent.push(connect(*at).await?);
        }
    }
    siege.still_serves("a flood of silent connections").await?;
    // Trickling does not stretch the deadline: all are hung up on while they are still at it.
    let trickle = silent.into_iter().map(|mut socket| async move {
        let mut byte = [0; 64];
        loop {
            if socket.write_all(&[0]).await.is_err() {
                return;
            }
            let read = tokio::time::timeout(Duration::from_millis(500), socket.read(&mut byte));
            if let Ok(Ok(0) | Err(_)) = read.await {
                return;
            }
        }
    });
    let over = tokio::time::timeout(PATIENCE, join_all(trickle)).await;
    ensure!(over.is_ok(), "somebody is still connected");
    siege.still_serves("a trickle").await?;
    siege.lift().await
}

/// Strangers that prove their keys and then say nothing: they get no more places than their prefix may have, whoever
/// comes beyond is told so, and the rest are told that their time is over.
#[tokio::test(flavor = "multi_thread")]
async fn silent_before_hello() -> Result<()> {
    /// Of one prefix.
    const PLACES: usize = 32;
    let mut siege = Siege::lay(1).await?;
    let stranger = || async {
        let keys = Arc::new(NodeKeys::generate());
        siege.stream(&keys, siege.sentry()).await
    };
    let mut held = try_join_all((0..PLACES + 8).map(|_| stranger())).await?;
    // Places come free as the first ones' time ends: on a slow machine it takes more to fill them.
    while !siege.sentry().log().contains("too many links") {
        ensure!(held.len() < 20 * PLACES, "nobody is told that it is full");
        held.push(stranger().await?);
    }
    siege.still_serves("silence before Hello").await?;
    let (mut beyond, mut late) = (0, 0);
    for raw in &mut held {
        let down = raw.down().await?;
        assert_eq!(down.stage(), pb::Stage::Hello);
        match down.reason() {
            pb::Reason::Limits => beyond += 1,
            pb::Reason::HelloTimeout => late += 1,
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(late >= PLACES, "{late} were given a place");
    ensure!(beyond >= 1, "nobody was told that it is full");
    siege.still_serves("silence before Hello").await?;
    siege.lift().await
}

/// Every frame that a peer can get wrong at Hello and on an open link: the Down names stage and reason, the log who erred.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_frames() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let edge = ServiceId::EDGE.0;
    let with = |change: fn(&mut pb::Hello)| {
        let mut hello = hello();
        change(&mut hello);
        frame(Kind::Hello(hello))
    };
    use pb::Reason as R;
    let at_hello = [
        (vec![0xff; 4], R::FrameTooLarge),
        (vec![0, 0, 0, 2, 0xff, 0xff], R::Malformed),
        (frame(Kind::Ready(pb::Ready {})), R::UnexpectedFrame),
        (frame(Kind::Ask(ask(1, edge))), R::UnexpectedFrame),
        (with(|hello| hello.services = (0..900).collect()), R::Limits),
        (with(|hello| hello.max_frame = u32::MAX), R::Limits),
        (with(|hello| hello.ask_window = 0), R::Limits),
        (with(|hello| hello.keepalive_ms = u32::MAX), R::Limits),
        (with(|hello| hello.role = 99), R::Role),
        (with(|hello| hello.role = 1), R::Role),
        (with(|hello| hello.role = 7), R::Role),
        (with(|hello| hello.version_min = 2), R::Version),
    ];
    for (wrong, reason) in at_hello {
        for node in [siege.sentry(), siege.relayer()] {
            let mut raw = siege.stream(&Arc::new(NodeKeys::generate()), node).await?;
            raw.send(&wrong).await?;
            let down = raw.down().await?;
            assert_eq!(
                (down.stage(), down.reason()),
                (pb::Stage::Hello, reason),
                "{down:?}"
            );
        }
    }
    siege.sentry().says("at stage hello").await?;
    siege.still_serves("wrong Hellos").await?;

    // For bulk tells nobody has given it credit.
    let tell = frame(Kind::Tell(pb::Tell {
        service: edge,
        r#type: 4711,
        class: 3,
        ..Default::default()
    }));
    let credit = |service, units| {
        let class = 2;
        frame(Kind::Credit(pb::Credit {
            service,
            class,
            units,
        }))
    };
    let reply = frame(Kind::Reply(pb::Reply {
        id: 9,
        ..Default::default()
    }));
    let reused = [
        frame(Kind::Ask(ask(7, edge))),
        frame(Kind::Ask(ask(7, edge))),
    ]
    .concat();
    let mut attach = ask(2, edge);
    attach.r#type = <edge::Attach as Addressed>::TYPE;
    attach.payload = Bytes::from_static(b"\xff\xff\xff");
    let mut bomb = ask(2, edge);
    bomb.r#type = <edge::Publish as Addressed>::TYPE;
    // Each two bytes of it are an empty payload.
    bomb.payload = [0x22, 0].repeat(500_000).into();
    let bomb = frame(Kind::Ask(bomb));
    let open = [
        (vec![0xff; 4], R::FrameTooLarge),
        (vec![0, 0, 0, 1, 0xff], R::Malformed),
        (frame(Kind::Hello(hello())), R::UnexpectedFrame),
        (frame(Kind::Ready(pb::Ready {})), R::UnexpectedFrame),
        (tell.clone(), R::CreditExceeded),
        (frame(Kind::Ask(ask(0, edge))), R::BadAskId),
        (reused, R::BadAskId),
        (reply, R::UnknownReply),
        (credit(ServiceId::CONTROL.0, u32::MAX), R::CreditOverflow),
        (credit(4711, 1), R::Malformed),
        (frame(Kind::Ask(attach)), R::BadPayload),
        (bomb, R::BadPayload),
    ];
    for (wrong, reason) in open {
        let mut raw = siege.attached().await?;
        raw.send(&wrong).await?;
        let down = raw.down().await.with_context(|| format!("{reason:?}"))?;
        assert_eq!(
            (down.stage(), down.reason()),
            (pb::Stage::Open, reason),
            "{down:?}"
        );
    }
    siege.sentry().says("the peer erred at stage open").await?;
    // Nobody hears the answer, and nothing that follows a Down is read.
    for bytes in [frame(Kind::Down(pb::Down::default())).repeat(1000), tell] {
        let mut raw = siege.open().await?;
        raw.send(&bytes).await?;
        drop(raw);
    }
    // Harmless, however many.
    let mut raw = siege.open().await?;
    let cancels = frame(Kind::Cancel(pb::Cancel { id: 1 })).repeat(20_000);
    let pings = frame(Kind::Ping(pb::Ping {})).repeat(20_000);
    let credits = credit(ServiceId::CONTROL.0, 0).repeat(20_000);
    raw.send(&[cancels, pings, credits].concat()).await?;
    raw.send(&frame(Kind::Ask(ask(1, edge)))).await?;
    while !matches!(raw.read().await?, Kind::Reply(pb::Reply { id: 1, .. })) {}
    siege.still_serves("wrong frames").await?;
    siege.lift().await
}

/// Asks without end by somebody who reads nothing, and does not hang up when told to go: the node's memory does not grow
/// with the asks, and the connection is gone for good.
#[tokio::test(flavor = "multi_thread")]
async fn asks_and_never_reads() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let mut raw = siege.open().await?;
    let before = memory(siege.sentry())?;
    let mut id = 0;
    let flood = async {
        loop {
            let asks: Vec<u8> = (0..1000)
                .flat_map(|_| {
                    id += 1;
                    frame(Kind::Ask(ask(id, 4711)))
                })
                .collect();
            if raw.send(&asks).await.is_err() {
                return;
            }
        }
    };
    let over = tokio::time::timeout(PATIENCE, flood).await;
    ensure!(over.is_ok(), "it takes asks for ever");
    siege.sentry().says("it asked beyond the window").await?;
    let after = memory(siege.sentry())?;
    ensure!(
        after < before + 64 * 1024,
        "{before} KiB before, {after} KiB after"
    );
    siege.still_serves("asks without reading").await?;
    siege.lift().await
}

/// Resident KiB of the one process that runs with this node's configuration.
fn memory(node: &Node) -> Result<u64> {
    for entry in std::fs::read_dir("/proc")? {
        let place = entry?.path();
        let Ok(line) = std::fs::read(place.join("cmdline")) else {
            continue;
        };
        let config = node.folder().join("node.toml");
        let mut words = line.split(|byte| *byte == 0);
        if words.any(|word| word == config.as_os_str().as_encoded_bytes()) {
            let status = std::fs::read_to_string(place.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.context("VmRSS")?.trim().trim_end_matches("kB").trim();
            return Ok(kib.parse()?);
        }
    }
    anyhow::bail!("{} has no process", node.name)
}

/// Roles that the network does not grant: told at stage hello on both planes' gates, whichever node is asked.
#[tokio::test(flavor = "multi_thread")]
async fn false_roles() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let sentry = Arc::new(siege.sentry().secrets()?.keys);
    let stranger = Arc::new(NodeKeys::generate());
    let claims = [
        (&stranger, Role::Sentry, siege.relayer()),
        (&stranger, Role::Relayer, siege.relayer()),
        (&stranger, Role::Operator, siege.relayer()),
        (&stranger, Role::Client, siege.relayer()),
        (&stranger, Role::Relayer, siege.sentry()),
        (&stranger, Role::Operator, siege.sentry()),
        (&sentry, Role::Relayer, siege.relayer()),
        (&sentry, Role::Operator, siege.relayer()),
    ];
    for (keys, role, node) in claims {
        let refused = siege.link(keys, role, node).await.map(|_| ());
        let refused = refused
            .expect_err("linked")
            .downcast::<pqcnet_p2p::typed::LinkError>()?;
        let DownReason::Peer { stage, reason, .. } = refused.reason else {
            anyhow::bail!("{refused}");
        };
        assert_eq!((stage, reason), (Stage::Hello, Reason::Role), "{role}");
    }
    siege.relayer().says("role").await?;

    // A client is told nothing of who else is there.
    let client = siege.link(&stranger, Role::Client, siege.sentry()).await?;
    let status = client.remote::<Status>().ask(Status {}, SOON).await;
    assert!(matches!(status, Err(AskError::Refused(_))), "{status:?}");
    siege.still_serves("false roles").await?;
    siege.lift().await
}

/// One client that opens link after link: those beyond its share are told so, and a place that it gives up is free again.
#[tokio::test(flavor = "multi_thread")]
async fn one_client_everywhere() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let mut links = Vec::new();
    for _ in 0..128 {
        links.push(siege.link(&keys, Role::Client, siege.sentry()).await?);
    }
    let beyond = siege.link(&keys, Role::Client, siege.sentry()).await?;
    let down = beyond.closed().await;
    assert_eq!(down.reason(), Some(Reason::Limits), "{down}");
    siege.sentry().says("128 links here already").await?;
    let first = links.swap_remove(0);
    first.close(Reason::Closed);
    first.closed().await;
    siege.sentry().says("closed by the peer").await?;
    let mut again = siege.link(&keys, Role::Client, siege.sentry()).await?;
    let ping = || Ping { nonce: 3 };
    while again.remote::<Ping>().ask(ping(), SOON).await.is_err() {
        again = siege.link(&keys, Role::Client, siege.sentry()).await?;
    }
    siege.still_serves("a client everywhere").await?;
    siege.lift().await
}

/// On the control plane: strangers that connect and stay, more than there are places for; one node that opens substream
/// after substream and says nothing on them. The network's own nodes still find each other, a killed one included.
#[tokio::test(flavor = "multi_thread")]
async fn squatters_on_the_control_plane() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let listed = siege.network.file.node(&siege.relayer().id);
    let at = listed.context("listed")?.control.clone();
    let relayer = siege.relayer().id;
    let mut squatters = Vec::new();
    for _ in 0..80 {
        let network = siege.network.file.network_id();
        let config = SecurityConfig::new(Arc::new(NodeKeys::generate()), network);
        let config = ControlConfig::new(Security::new(siege.env.clone(), config)?, 4);
        let (control, events) = Libp2pControl::start(&siege.env, config)?;
        // Beyond the places it is hung up on, during the dial or right after it.
        let dialled = control.dial(relayer, &at).await;
        squatters.push((control, events, dialled.is_ok()));
    }
    siege
        .relayer()
        .says("as many nodes are connected as may be")
        .await?;
    siege.still_serves("squatters").await?;

    let (control, _events, dialled) = &squatters[0];
    ensure!(dialled, "the first one found no place");
    let mut silent = Vec::new();
    for _ in 0..60 {
        let mut stream = control.open(relayer).await?;
        // A quarter of a frame's length: before it is written the other side has not heard of the substream.
        stream.write_all(&[0]).await?;
        stream.flush().await?;
        silent.push(stream);
    }
    siege.still_serves("silent substreams").await?;
    let ended = silent.iter_mut().map(|stream| async move {
        let mut told = Vec::new();
        // Whether in order or cut, it is over.
        stream.read_to_end(&mut told).await.unwrap_or_default();
    });
    let over = tokio::time::timeout(PATIENCE, join_all(ended)).await;
    ensure!(over.is_ok(), "a silent substream is kept");
    // A node of the network finds its place among them.
    siege.sentry().kill().await?;
    siege.sentry().start().await?;
    siege.sentry().says("plane=\"control\"").await?;
    siege.still_serves("squatters and a restart").await?;
    siege.lift().await
}

/// More connections than a prefix may have half open: the rest hear Busy at the first message.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_handshakes() -> Result<()> {
    let mut siege = Siege::lay(1).await?;
    let at = siege.sentry().data;
    let mut silent = Vec::new();
    let keys = Arc::new(NodeKeys::generate());
    let refused = loop {
        ensure!(silent.len() < 128 * 10, "it lets everybody in");
        for _ in 0..128 {
            silent.push(connect(at).await?);
        }
        let endpoint = siege.endpoint(&keys)?;
        match endpoint.dial(&at.into(), siege.sentry().id).await {
            Err(refused) => break refused,
            // The first ones' time was over before the last one came, on a slow machine.
            Ok(_) => continue,
        }
    };
    let reason = refused.handshake().and_then(HandshakeFailed::protocol);
    let reason = reason.with_context(|| refused.to_string())?;
    assert_eq!(reason.stage, pqcnet_qstp::Stage::M1);
    assert_eq!(reason.reason, pqcnet_qstp::Reason::Busy);
    siege
        .sentry()
        .says("too many handshakes are open from this prefix")
        .await?;
    siege.still_serves("a flood of handshakes").await?;
    siege.lift().await
}
