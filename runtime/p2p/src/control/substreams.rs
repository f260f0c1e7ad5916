//! The behaviour that opens and takes substreams "/pqcnet/link/1".
//!
//! An inbound substream goes to the swarm's owner as an event. The connection's event queue is bounded and makes the
//! connection wait, so none is dropped when several come at once (libp2p-stream keeps one and resets the others).

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};

use futures::channel::oneshot;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::ways::Ways;

/// The only protocol of substreams.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/pqcnet/link/1");

/// Opens that wait for their connection's task; beyond it, the caller is told at once.
const MAX_OPENING: usize = 64;

/// Why a substream was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No connection to the peer, or it closed meanwhile.
    #[error("there is no connection to the peer")]
    NotConnected,
    /// Too many are being opened.
    #[error("too many substreams are being opened")]
    Busy,
    /// The peer does not speak [`PROTOCOL`], or did not answer in time.
    #[error("the peer does not take link substreams: {0}")]
    Refused(String),
}

/// An open on its way; dropped without an answer, the caller learns [`OpenError::NotConnected`].
#[derive(Debug)]
pub struct Opening(oneshot::Sender<Result<Stream, OpenError>>);

/// A substream that the peer opened.
#[derive(Debug)]
pub struct Inbound {
    /// By whom.
    pub peer: PeerId,
    /// Its bytes.
    pub stream: Stream,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Behaviour {
    opening: VecDeque<(PeerId, Opening)>,
    inbound: VecDeque<Inbound>,
    ways: BTreeMap<PeerId, Ways>,
}

impl Behaviour {
    /// The connections with a peer, where there are any.
    pub(super) fn ways(&self, peer: &PeerId) -> Option<&Ways> {
        self.ways.get(peer)
    }

    /// Asks for a substream to a connected peer.
    pub fn open(&mut self, peer: PeerId, answer: oneshot::Sender<Result<Stream, OpenError>>) {
        if self.opening.len() < MAX_OPENING {
            self.opening.push_back((peer, Opening(answer)));
        } else if answer.send(Err(OpenError::Busy)).is_err() {
            tracing::trace!("the opener is gone");
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                let ways = self.ways.entry(new.peer_id).or_default();
                ways.add(new.connection_id, new.endpoint.is_relayed());
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(ways) = self.ways.get_mut(&closed.peer_id) {
                    ways.remove(closed.connection_id);
                    if ways.is_empty() {
                        self.ways.remove(&closed.peer_id);
                    }
                }
            }
            // The rest is not about connections that stand. The enum is the library's.
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        stream: THandlerOutEvent<Self>,
    ) {
        self.inbound.push_back(Inbound { peer, stream });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(inbound) = self.inbound.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(inbound));
        }
        match self.opening.pop_front() {
            Some((peer_id, event)) => {
                let best = self.ways.get(&peer_id).and_then(Ways::best);
                let handler = best.map_or(NotifyHandler::Any, NotifyHandler::One);
                Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id,
                    handler,
                    event,
                })
            }
            None => Poll::Pending,
        }
    }
}

/// One connection's half of [`Behaviour`].
#[derive(Debug, Default)]
pub struct Handler {
    requests: VecDeque<Opening>,
    inbound: VecDeque<Stream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Opening;
    type ToBehaviour = Stream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opening, Stream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        match self.requests.pop_front() {
            Some(opening) => {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), opening);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, opening: Opening) {
        self.requests.push_back(opening);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opening>,
    ) {
        let (opening, result) = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => {
                self.inbound.push_back(protocol);
                return;
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => (info, Ok(protocol)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let reason = match error {
                    StreamUpgradeError::Timeout => "no answer in time".to_owned(),
                    StreamUpgradeError::NegotiationFailed => "unknown protocol".to_owned(),
                    StreamUpgradeError::Io(error) => error.to_string(),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                (info, Err(OpenError::Refused(reason)))
            }
            // The rest are about addresses and protocol lists, which links do not use. The enum is the library's.
            _ => return,
        };
        if opening.0.send(result).is_err() {
            tracing::trace!("the opener is gone");
        }
    }
}
