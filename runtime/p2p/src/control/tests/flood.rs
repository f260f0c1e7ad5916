//! A hostile peer against one node: what the node holds for it, in heap bytes. The peer is a libp2p connection that has
//! passed QSTP and speaks gossip with its own bytes; it never reads a byte of what it is sent.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::poll_fn;
use libp2p::core::muxing::StreamMuxer as _;
use multistream_select::{Version, dialer_select_proto};
use pqcnet_crypto::NodeKeys;
use tokio::sync::mpsc;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::*;
use crate::control::muxer::{Muxer, STREAMS, Substream as Muxed, Unread};
use crate::handshake::Plane;
use crate::testing::{NETWORK, heap};

/// What the issue allows one peer.
const ALLOWED: isize = 1024 * 1024;
/// How long each flood lasts, unless the node ends it.
const FLOOD: Duration = Duration::from_secs(4);

type Message = (Vec<u8>, tokio::sync::oneshot::Sender<Verdict>);

/// The node under attack, an honest neighbour of it, and threads for the attacker.
struct Field {
    victim: Node,
    honest: Node,
    cases: mpsc::Receiver<Message>,
    _own: tokio::runtime::Runtime,
    hostile: tokio::runtime::Runtime,
}

fn threads(hostile: bool) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || {
            if hostile {
                heap::exempt();
            }
        })
        .enable_all()
        .build()
        .unwrap()
}

impl Field {
    /// The validator of the node hands messages of the honest neighbour to the test; others' it never answers for.
    fn lay() -> Field {
        heap::exempt();
        let (own, hostile) = (threads(false), threads(true));
        let (seen, cases) = mpsc::channel::<Message>(16);
        let honest = hostile.block_on(Node::start(config(), Some(GossipConfig::default())));
        let friend = honest.id();
        let validator = move |message: Gossip| {
            let seen = seen.clone();
            async move {
                if message.from != friend {
                    std::future::pending::<()>().await;
                }
                let (answer, verdict) = tokio::sync::oneshot::channel();
                seen.send((message.data.to_vec(), answer)).await.unwrap();
                verdict.await.unwrap()
            }
            .boxed()
        };
        let victim = own.block_on(own.spawn(async move {
            let node = Node::start(config(), Some(GossipConfig::default())).await;
            node.plane
                .subscribe("adverts", Arc::new(validator))
                .await
                .unwrap();
            node
        }));
        let mut field = Field {
            victim: victim.unwrap(),
            honest,
            cases,
            _own: own,
            hostile,
        };
        field.hostile.block_on(async {
            let accept = |_: Gossip| async { Verdict::Accept }.boxed();
            field
                .honest
                .plane
                .subscribe("adverts", Arc::new(accept))
                .await
                .unwrap();
            field.honest.dial(&field.victim).await.unwrap();
            field.victim.peer_up().await;
        });
        field.still_serves(b"before");
        field
    }

    /// A message of the honest neighbour still comes through, past the flood.
    fn still_serves(&mut self, message: &[u8]) {
        self.hostile.block_on(async {
            let sent = Bytes::copy_from_slice(message);
            while let Err(ControlError::NoPeers) =
                self.honest.plane.publish("adverts", sent.clone()).await
            {
                tokio::task::yield_now().await;
            }
            let (seen, answer) = self.cases.recv().await.unwrap();
            assert_eq!(seen, message);
            answer.send(Verdict::Accept).unwrap();
        });
    }

    /// One hostile peer, on so many connections, sends what `rpcs` makes, over and over.
    fn suffer(&mut self, connections: u64, rpcs: fn(u64) -> Vec<u8>) -> Suffered {
        let before = heap::live();
        heap::restart();
        let (at, id) = (self.victim.at.clone(), self.victim.id());
        let (hostile, closed) = self.hostile.block_on(async move {
            let mut config = SecurityConfig::new(Arc::new(NodeKeys::generate()), NETWORK);
            config.deadline = Duration::from_secs(60);
            let security = security(config);
            let closed = Arc::new(AtomicU64::new(0));
            let mut floods = Vec::new();
            for connection in 0..connections {
                let stream = gossip_stream(&security, id, &at).await;
                let closed = closed.clone();
                floods.push(tokio::spawn(async move {
                    flood(stream, connection, rpcs).await;
                    closed.fetch_add(1, Ordering::Relaxed);
                }));
            }
            let all = futures::future::join_all(floods);
            // Whoever is still held back by then has shown what it costs.
            drop(tokio::time::timeout(FLOOD, all).await);
            (security.node_id(), closed.load(Ordering::Relaxed))
        });
        let cost = heap::peak() - before;
        println!("{cost} bytes at most; {closed} of {connections} connections closed");
        self.still_serves(b"after");
        let mut offence = None;
        let mut told = closed < connections;
        while !told {
            match self.hostile.block_on(self.victim.events.next()).unwrap() {
                ControlEvent::Misbehaved { offence: found, .. } => offence = Some(found),
                ControlEvent::PeerDown { peer, .. } if peer == hostile => told = true,
                _ => {}
            }
        }
        assert!(cost < ALLOWED, "{cost} bytes for one peer");
        Suffered { closed, offence }
    }
}

impl Field {
    /// One hostile peer opens substreams for links, which nobody takes, and sends on each what its window allows.
    fn hoard(&mut self, substreams: usize) {
        let before = heap::live();
        heap::restart();
        let (at, id) = (self.victim.at.clone(), self.victim.id());
        self.hostile.block_on(async move {
            let mut config = SecurityConfig::new(Arc::new(NodeKeys::generate()), NETWORK);
            config.deadline = Duration::from_secs(60);
            let security = security(config);
            let mut muxer = connect(&security, id, &at).await;
            let mut opened = Vec::new();
            for _ in 0..substreams {
                opened.push(open(&mut muxer).await);
            }
            let taken = tokio::spawn(take(muxer));
            let filled = opened.into_iter().map(|stream| async move {
                let name = crate::control::substreams::PROTOCOL;
                let Ok((_, mut stream)) =
                    dialer_select_proto(stream, [name], Version::V1Lazy).await
                else {
                    return;
                };
                while stream.write_all(&[7; 16 * 1024]).await.is_ok() {}
            });
            let all = futures::future::join_all(filled);
            drop(tokio::time::timeout(FLOOD, all).await);
            taken.abort();
        });
        let cost = heap::peak() - before;
        println!("{cost} bytes at most for {substreams} substreams");
        self.still_serves(b"after");
        assert!(cost < ALLOWED, "{cost} bytes for one peer");
    }
}

/// What became of the hostile peer.
#[derive(Debug, PartialEq)]
struct Suffered {
    closed: u64,
    offence: Option<Offence>,
}

const BORNE: Suffered = Suffered {
    closed: 0,
    offence: None,
};

pub(super) type Wire = multistream_select::Negotiated<
    crate::stream::QstpStream<
        multistream_select::Negotiated<tokio_util::compat::Compat<tokio::net::TcpStream>>,
    >,
>;

/// Connects as libp2p does.
pub(super) async fn connect(security: &Arc<Security>, victim: NodeId, at: &Address) -> Muxer<Wire> {
    let socket = tokio::net::TcpStream::connect(at.socket_addr().unwrap())
        .await
        .unwrap();
    let (_, socket) = dialer_select_proto(socket.compat(), [PROTOCOL], Version::V1Lazy)
        .await
        .unwrap();
    let secured = security
        .initiate(socket, victim, Plane::Control)
        .await
        .unwrap();
    let (_, stream) = dialer_select_proto(secured.stream, ["/yamux/1.0.0"], Version::V1Lazy)
        .await
        .unwrap();
    Muxer::new(stream, yamux::Mode::Client, Unread::new(usize::MAX))
}

async fn open(muxer: &mut Muxer<Wire>) -> Muxed {
    let opened = poll_fn(|cx| Pin::new(&mut *muxer).poll_outbound(cx));
    opened.await.unwrap()
}

/// Moves a connection: takes what the node opens and reads none of it.
async fn take(mut muxer: Muxer<Wire>) {
    let mut held = Vec::new();
    while let Ok(stream) = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)).await {
        held.push(stream);
    }
}

/// A connection with a substream for gossip; a task of its own moves it.
async fn gossip_stream(
    security: &Arc<Security>,
    victim: NodeId,
    at: &Address,
) -> multistream_select::Negotiated<Muxed> {
    let mut muxer = connect(security, victim, at).await;
    let stream = gossip_substream(&mut muxer).await;
    tokio::spawn(take(muxer));
    stream
}

/// A substream for gossip on a connection that somebody moves.
pub(super) async fn gossip_substream(
    muxer: &mut Muxer<Wire>,
) -> multistream_select::Negotiated<Muxed> {
    let opened = open(muxer).await;
    let name = crate::control::gossip::PROTOCOL;
    let (_, stream) = dialer_select_proto(opened, [name], Version::V1Lazy)
        .await
        .unwrap();
    stream
}

async fn flood(
    mut stream: multistream_select::Negotiated<Muxed>,
    connection: u64,
    rpcs: fn(u64) -> Vec<u8>,
) {
    for n in 0.. {
        let rpc = rpcs(connection << 32 | n);
        let mut frame = Vec::new();
        varint(&mut frame, rpc.len());
        frame.extend(rpc);
        if stream.write_all(&frame).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

pub(super) fn varint(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A length-delimited field of a protobuf.
pub(super) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(&mut out, bytes.len());
    out.extend_from_slice(bytes);
    out
}

fn id(n: u64, at: u64) -> [u8; 32] {
    pqcnet_crypto::sha256(&[&n.to_be_bytes(), &at.to_be_bytes()])
}

/// As many elements as fit the limit on control messages.
fn packed(element: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let mut all = Vec::new();
    for at in 0.. {
        let next = element(at);
        if all.len() + next.len() > crate::control::gossip::CONTROL_BYTES - 8 {
            break;
        }
        all.extend(next);
    }
    all
}

fn subscription(topic: &[u8], on: bool) -> Vec<u8> {
    field(1, &[&[1 << 3, u8::from(on)][..], &field(2, topic)].concat())
}

/// SUBSCRIBE: thousands of topics that nobody has, and the network's own on and off.
#[test]
fn subscribe() {
    let rpcs = |n: u64| {
        packed(|at| match at % 3 {
            0 => subscription(hex::encode(id(n, at)).as_bytes(), true),
            one => subscription(b"adverts", one == 1),
        })
    };
    assert_eq!(Field::lay().suffer(1, rpcs), BORNE);
}

/// GRAFT: for the network's topic, right after each PRUNE that it earns by leaving, and for topics that nobody has.
#[test]
fn graft() {
    let rpcs = |n: u64| {
        let topic = field(1, b"adverts");
        let strange = field(1, hex::encode(id(n, 0)).as_bytes());
        let control = [field(4, &topic), field(3, &topic), field(3, &strange)].concat();
        [subscription(b"adverts", true), field(3, &control)].concat()
    };
    let expected = Suffered {
        closed: 1,
        offence: Some(Offence::Grafts),
    };
    assert_eq!(Field::lay().suffer(1, rpcs), expected);
}

/// IHAVE: of messages that do not exist, so that each is asked for and promised.
#[test]
fn ihave() {
    let rpcs = |n: u64| {
        let ids = packed(|at| field(2, &id(n, at)));
        let ids = &ids[..ids.len() - 2 * 34];
        field(3, &field(1, &[field(1, b"adverts"), ids.to_vec()].concat()))
    };
    assert_eq!(Field::lay().suffer(1, rpcs), BORNE);
}

/// The smallest elements there are, of each kind in turn: what decodes to the most.
#[test]
fn crumbs() {
    let rpcs = |n: u64| {
        let kind = [1u8, 2, 4][n as usize % 3];
        field(3, &packed(|_| field(kind, b"")))
    };
    Field::lay().suffer(1, rpcs);
}

/// IDONTWANT, which the negotiated version has not.
#[test]
fn idontwant() {
    let rpcs = |_| field(3, &field(5, &packed(|at| field(1, &id(0, at)[..1]))));
    let expected = Suffered {
        closed: 1,
        offence: Some(Offence::Protocol),
    };
    assert_eq!(Field::lay().suffer(1, rpcs), expected);
}

/// Messages of the largest size, each different, whose validator takes its time.
#[test]
fn publish() {
    let rpcs = |n: u64| {
        let mut data = vec![0; 16 * 1024];
        data[..32].copy_from_slice(&id(n, 0));
        field(2, &[field(2, &data), field(4, b"adverts")].concat())
    };
    Field::lay().suffer(1, rpcs);
}

/// Four connections at once, with everything: the node keeps one that waits, and closes the others.
#[test]
fn on_every_connection() {
    let rpcs = |n: u64| match n % 3 {
        0 => packed(|at| subscription(hex::encode(id(n, at)).as_bytes(), true)),
        1 => field(
            3,
            &field(1, &[field(1, b"adverts"), field(2, &id(n, 0))].concat()),
        ),
        _ => field(2, &[field(2, &id(n, 1)), field(4, b"adverts")].concat()),
    };
    let suffered = Field::lay().suffer(4, rpcs);
    assert_eq!((suffered.closed, suffered.offence), (3, None));
}

/// As many substreams as a connection has, each filled to its window, and nobody to read any: 24 MiB are offered.
#[test]
fn unread_substreams() {
    Field::lay().hoard(STREAMS);
}
