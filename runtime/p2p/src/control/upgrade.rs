//! TCP, then QSTP, then yamux: how a libp2p connection comes to be.
//!
//! libp2p's own upgrade builder hides from a security upgrade whom the connection was dialled for and whence it came;
//! QSTP needs both (the initiator names its responder, the flood guard counts by prefix). So the transport chains the
//! steps itself, with the same multistream-select negotiation on the wire. One security protocol is offered; its name
//! goes into the transcript, since multistream-select sends it in clear. The lazy version saves a round trip a step.

use std::io;
use std::iter;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::{TransportTimeout, TransportTimeoutError};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::relay::client::Transport as RelayTransport;
use libp2p::{PeerId, Transport as _, relay, tcp};
use multistream_select::{NegotiationError, Version, dialer_select_proto, listener_select_proto};
use pqcnet_crypto::NodeId;

use super::carrier::{self, Carrier};
use super::muxer::Muxer;
use super::peers::{Owned, Peers};
use super::ws;
use crate::handshake::{HandshakeFailed, Plane, Security};
use crate::network::Address;

/// The name of the security upgrade, on the wire and in the transcript.
pub const PROTOCOL: &str = "/pqcnet/qstp/1";
const YAMUX: &str = "/yamux/1.0.0";
/// How long TCP may take to connect: a NAT's or firewall's drops leave a dial without an answer, and whoever asked whether an
/// address leads here waits ten seconds.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long a stranger for whom there is no place has to be told so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// TCP: refused, reset, unreachable.
    #[error("connection: {0}")]
    Io(io::Error),
    /// The relay is not there, does not relay for us, or does not know the node.
    #[error("circuit: {0}")]
    Circuit(String),
    /// The peer does not speak WebSocket where the address says so, or its first words are no HTTP.
    #[error("WebSocket: {0}")]
    WebSocket(io::Error),
    /// The peer does not speak multistream-select, or none of our protocols.
    #[error("negotiating {protocol}: {source}")]
    Negotiation {
        /// What was asked for.
        protocol: &'static str,
        /// What came back.
        source: NegotiationError,
    },
    /// QSTP, with stage and reason.
    #[error(transparent)]
    Handshake(#[from] HandshakeFailed),
    /// The address names no node, so nobody could be authenticated.
    #[error("the dialled address names no node")]
    NoNode,
    /// As many nodes are connected as may be, or as many strangers, or the peer as often.
    #[error("as many nodes are connected as may be")]
    Full,
    /// The swarm refused it: closed meanwhile, or a connection to ourselves.
    #[error("refused: {0}")]
    Swarm(String),
}

impl UpgradeError {
    /// Takes the error out of the wrapping that libp2p's boxed transport puts around it.
    pub(super) fn from_io(error: io::Error) -> UpgradeError {
        match error.downcast::<UpgradeError>() {
            Ok(inner) => inner,
            Err(outer) => UpgradeError::Io(outer),
        }
    }
}

/// The PeerId of a node: its NodeId as a SHA-256 multihash, so it covers both keys.
#[expect(
    clippy::missing_panics_doc,
    reason = "a 32-byte SHA-256 multihash is always a PeerId"
)]
pub fn peer_id_of(node: &NodeId) -> PeerId {
    let mut bytes = [0u8; 34];
    bytes[..2].copy_from_slice(&[0x12, 0x20]);
    bytes[2..].copy_from_slice(node.as_bytes());
    PeerId::from_bytes(&bytes).expect("a 32-byte SHA-256 multihash is a PeerId")
}

/// The node behind a PeerId; `None` for a PeerId of another making.
pub(super) fn node_id_of(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    let digest = bytes.strip_prefix(&[0x12, 0x20])?;
    NodeId::from_slice(digest).ok()
}

/// The TCP address at the start of a multiaddress.
pub(super) fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The address that a multiaddress starts with, with its carrier.
pub(super) fn address(address: &Multiaddr) -> Option<Address> {
    let at = Address::from(socket_addr(address)?);
    Some(if carrier::is_web(address) {
        at.over_web_socket()
    } else {
        at
    })
}

/// A socket address as libp2p writes it.
pub(super) fn carried(at: SocketAddr, web_socket: bool) -> Multiaddr {
    let tcp = Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()));
    if web_socket {
        tcp.with(carrier::ws())
    } else {
        tcp
    }
}

/// An address that is no name, as libp2p writes it.
pub(super) fn multiaddr(at: &Address) -> Option<Multiaddr> {
    at.socket_addr()
        .map(|found| carried(found, at.is_web_socket()))
}

/// How an address is shown to people.
pub(super) fn plain(at: &Multiaddr) -> String {
    address(at).map_or_else(|| at.to_string(), |at| at.to_string())
}

/// TCP, plain or with WebSockets, and circuits through relays.
pub(super) fn transport(
    security: Arc<Security>,
    peers: Peers,
    circuits: RelayTransport,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let carrier = TransportTimeout::with_outgoing_timeout(Carrier::new(), CONNECT);
    (circuits.or_transport(carrier))
        .and_then(move |socket, point| upgraded(security, peers, socket, point))
        .map_err(|error| {
            let circuit = |error: relay::client::transport::Error| error.to_string();
            let carrier = |error: either::Either<_, TransportTimeoutError<io::Error>>| {
                error.either(
                    |error| UpgradeError::Circuit(circuit(error)),
                    |error| UpgradeError::Io(connecting(error)),
                )
            };
            error.either(carrier, |upgrade| upgrade)
        })
        .boxed()
}

fn connecting(error: TransportTimeoutError<io::Error>) -> io::Error {
    match error {
        TransportTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
        TransportTimeoutError::TimerError(error) | TransportTimeoutError::Other(error) => error,
    }
}

type Upgraded = Result<(PeerId, StreamMuxerBox), UpgradeError>;

fn upgraded(
    security: Arc<Security>,
    peers: Peers,
    socket: Carried,
    point: ConnectedPoint,
) -> BoxFuture<'static, Upgraded> {
    async move {
        match point {
            // Both sides dial through their NATs at the same time, and one of them plays the listener.
            ConnectedPoint::Dialer {
                address,
                role_override: Endpoint::Listener,
                ..
            } => {
                let steps = inbound(&security, &peers, socket, &address);
                security.before_deadline(steps).await?
            }
            ConnectedPoint::Dialer { address, .. } => {
                let steps = outbound(&security, &peers, socket, &address);
                security.before_deadline(steps).await?
            }
            ConnectedPoint::Listener { send_back_addr, .. } => {
                let steps = inbound(&security, &peers, socket, &send_back_addr);
                security.before_deadline(steps).await?
            }
        }
    }
    .boxed()
}

async fn outbound(
    security: &Security,
    peers: &Peers,
    socket: Carried,
    address: &Multiaddr,
) -> Upgraded {
    let expect = match address.iter().last() {
        Some(Protocol::P2p(peer)) => node_id_of(&peer).ok_or(UpgradeError::NoNode)?,
        _ => return Err(UpgradeError::NoNode),
    };
    let socket = if carrier::is_web(address) {
        let host = socket_addr(address).map_or_else(|| "localhost".into(), |at| at.to_string());
        let connected = ws::connect(&host, socket).await;
        Either::Left(connected.map_err(UpgradeError::WebSocket)?)
    } else {
        Either::Right(socket)
    };
    let (_, socket) = dialer_select_proto(socket, iter::once(PROTOCOL), Version::V1Lazy)
        .await
        .map_err(|source| UpgradeError::Negotiation {
            protocol: PROTOCOL,
            source,
        })?;
    let secured = security.initiate(socket, expect, Plane::Control).await?;
    let entry = peers.enter(&secured.peer).ok_or(UpgradeError::Full)?;
    let (_, stream) = dialer_select_proto(secured.stream, iter::once(YAMUX), Version::V1Lazy)
        .await
        .map_err(|source| UpgradeError::Negotiation {
            protocol: YAMUX,
            source,
        })?;
    let muxer = Muxer::new(stream, yamux::Mode::Client, entry.unread());
    Ok((
        peer_id_of(&expect),
        StreamMuxerBox::new(Owned::new(muxer, entry)),
    ))
}

async fn inbound(
    security: &Security,
    peers: &Peers,
    socket: Carried,
    from: &Multiaddr,
) -> Upgraded {
    let half_open = match security.open(socket_addr(from).map(|at| at.ip())) {
        Ok(half_open) => half_open,
        Err(refused) => {
            farewell(security, socket, from).await;
            return Err(HandshakeFailed::from(refused).into());
        }
    };
    let socket = accepted(socket, from).await?;
    let (_, socket) = listener_select_proto(socket, iter::once(PROTOCOL))
        .await
        .map_err(|source| UpgradeError::Negotiation {
            protocol: PROTOCOL,
            source,
        })?;
    let secured = security.respond(socket, &half_open, Plane::Control).await?;
    let entry = peers.enter(&secured.peer).ok_or(UpgradeError::Full)?;
    let peer = peer_id_of(&secured.peer.node_id());
    let (_, stream) = listener_select_proto(secured.stream, iter::once(YAMUX))
        .await
        .map_err(|source| UpgradeError::Negotiation {
            protocol: YAMUX,
            source,
        })?;
    let muxer = Muxer::new(stream, yamux::Mode::Server, entry.unread());
    Ok((peer, StreamMuxerBox::new(Owned::new(muxer, entry))))
}

/// A circuit through a relay, or a socket.
type Carried = Either<relay::client::Connection, tcp::tokio::TcpStream>;
type Socket = Either<ws::WebSocket<Carried>, Carried>;

async fn accepted(socket: Carried, from: &Multiaddr) -> Result<Socket, UpgradeError> {
    if !carrier::is_web(from) {
        return Ok(Either::Right(socket));
    }
    let accepted = ws::accept(socket).await;
    Ok(Either::Left(accepted.map_err(UpgradeError::WebSocket)?))
}

/// Tells a stranger that there is no place for it, where it says anything in time.
async fn farewell(security: &Security, socket: Carried, from: &Multiaddr) {
    let steps = async {
        let Ok(socket) = accepted(socket, from).await else {
            return;
        };
        let negotiated = listener_select_proto(socket, iter::once(PROTOCOL)).await;
        if let Ok((_, socket)) = negotiated {
            security.turn_away(socket, Plane::Control).await;
        }
    };
    let timeout = security.env().sleep(FAREWELL);
    futures::future::select(pin!(steps), pin!(timeout)).await;
}
