//! Tells peers under which address they are seen, and hears the same: what identify is otherwise used for.
//!
//! A relay opens one substream on each connection that somebody made to it and writes the address from which it came, as
//! `ip:port`. Whoever dialled from its listening port takes that for a place where others may find it: an address to
//! punch a hole at, and one that AutoNAT tries. Who says how it sees others also serves AutoNAT, so that it is asked.
//!
//! | bound | |
//! |---|---|
//! | substreams | one a connection, [`ADDRESS`] bytes, the upgrade's ten seconds |
//! | addresses heard | [`HEARD`] different ones; from nodes that may take part, on connections made from here |
//!
//! Spec: docs/spec/control-plane.md, "Reach".

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::option;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, ProtocolSupport};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::reach::is_circuit;
use super::upgrade::{carried, socket_addr};

/// The name of the protocol.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/pqcnet/seen/1");
/// Longest address, as text.
pub const ADDRESS: u64 = 64;
/// Different addresses heard: a NAT that gives each connection a port of its own has one each time.
pub const HEARD: usize = 64;

/// What a peer that speaks our protocol serves besides: libp2p's name for AutoNAT v2.
const AUTONAT: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// See the module.
pub(super) struct Behaviour {
    says: bool,
    hears: bool,
    heard: BTreeSet<SocketAddr>,
    news: VecDeque<Multiaddr>,
}

impl Behaviour {
    /// Says, hears, or both. Under `known` this node may be found too, as far as its operator knows.
    pub(super) fn new(says: bool, hears: bool, known: &[SocketAddr]) -> Behaviour {
        let mut behaviour = Behaviour {
            says,
            hears,
            heard: BTreeSet::new(),
            news: VecDeque::new(),
        };
        for at in known {
            behaviour.hear(*at);
        }
        behaviour
    }

    fn hear(&mut self, at: SocketAddr) {
        let usable = !at.ip().is_unspecified() && at.port() != 0;
        if usable && self.heard.len() < HEARD && self.heard.insert(at) {
            self.news.push_back(carried(at, false));
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let told = (self.says && !is_circuit(local)).then(|| socket_addr(from));
        Ok(Handler::new(told.flatten(), false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        at: &Multiaddr,
        _: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // From a port of its own, the address leads nowhere.
        let hears = self.hears && !is_circuit(at) && port == PortUse::Reuse;
        Ok(Handler::new(None, hears))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        at: THandlerOutEvent<Self>,
    ) {
        self.hear(at);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.news.pop_front() {
            Some(at) => Poll::Ready(ToSwarm::NewExternalAddrCandidate(at)),
            None => Poll::Pending,
        }
    }
}

/// Writes an address and ends the substream.
#[derive(Debug)]
pub struct Say(SocketAddr);

impl UpgradeInfo for Say {
    type Info = StreamProtocol;
    type InfoIter = option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        Some(PROTOCOL).into_iter()
    }
}

impl OutboundUpgrade<Stream> for Say {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.write_all(self.0.to_string().as_bytes()).await?;
            stream.close().await
        })
    }
}

/// Reads an address, where this node wants to hear one.
#[derive(Debug)]
pub struct Hear(bool);

impl UpgradeInfo for Hear {
    type Info = StreamProtocol;
    type InfoIter = option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.then_some(PROTOCOL).into_iter()
    }
}

impl InboundUpgrade<Stream> for Hear {
    type Output = SocketAddr;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<SocketAddr>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let mut text = String::new();
            stream.take(ADDRESS).read_to_string(&mut text).await?;
            text.parse()
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no address"))
        })
    }
}

/// One connection's half of [`Behaviour`].
#[derive(Debug)]
pub struct Handler {
    hears: bool,
    actions: VecDeque<ConnectionHandlerEvent<Say, (), SocketAddr>>,
}

impl Handler {
    fn new(told: Option<SocketAddr>, hears: bool) -> Handler {
        let saying = told.map(|at| ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(Say(at), ()),
        });
        Handler {
            hears,
            actions: saying.into_iter().collect(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = SocketAddr;
    type InboundProtocol = Hear;
    type OutboundProtocol = Say;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(Hear(self.hears), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), SocketAddr>> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            // The first alone: a peer sees a connection from one address.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: at,
                ..
            }) if self.hears => {
                self.hears = false;
                self.actions.extend([
                    ConnectionHandlerEvent::NotifyBehaviour(at),
                    ConnectionHandlerEvent::ReportRemoteProtocols(ProtocolSupport::Added(
                        HashSet::from([AUTONAT]),
                    )),
                ]);
            }
            ConnectionEvent::DialUpgradeError(error) => {
                tracing::trace!(error = %error.error, "the peer does not hear how it is seen");
            }
            // Said, heard again, or not understood. The enum is the library's.
            _ => {}
        }
    }
}
