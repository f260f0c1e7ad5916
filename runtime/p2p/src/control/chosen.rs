//! A behaviour that only some peers take part in. With the others it has no handler, so no substream, and costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, ready};

use either::Either;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::handle::GossipsWith;
use super::upgrade::node_id_of;

/// A connected peer.
#[derive(Debug)]
struct Peer {
    takes_part: bool,
    connections: usize,
}

/// See the module.
pub(super) struct Chosen<B> {
    inner: B,
    with: GossipsWith,
    may_dial: fn(&mut B) -> bool,
    tend: fn(&mut B),
    peers: BTreeMap<PeerId, Peer>,
    /// Connections that the behaviour does not know of.
    mute: BTreeSet<ConnectionId>,
}

impl<B> Chosen<B> {
    pub(super) fn new(inner: B, with: GossipsWith) -> Chosen<B> {
        Chosen {
            inner,
            with,
            may_dial: |_| true,
            tend: |_| (),
            peers: BTreeMap::new(),
            mute: BTreeSet::new(),
        }
    }

    /// Asked for each dial that the behaviour wants.
    pub(super) fn dialling(self, may_dial: fn(&mut B) -> bool) -> Chosen<B> {
        Chosen { may_dial, ..self }
    }

    /// Called before each look at what the behaviour wants.
    pub(super) fn tended(self, tend: fn(&mut B)) -> Chosen<B> {
        Chosen { tend, ..self }
    }

    pub(super) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    fn chooses(&self, peer: &PeerId) -> bool {
        node_id_of(peer).is_some_and(|node| (self.with)(&node))
    }

    /// Decided when the first connection comes, so that a peer's connections agree.
    fn takes_part(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let takes_part = match self.peers.get(&peer) {
            Some(known) => known.takes_part,
            None => self.chooses(&peer),
        };
        self.peers.entry(peer).or_insert(Peer {
            takes_part,
            connections: 0,
        });
        if !takes_part {
            self.mute.insert(connection);
        }
        takes_part
    }

    fn gone(&mut self, peer: &PeerId, was_established: bool) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.connections -= usize::from(was_established && known.connections > 0);
            if known.connections == 0 {
                self.peers.remove(peer);
            }
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Chosen<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        (self.inner).handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.takes_part(peer, connection) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        (self.inner)
            .handle_established_inbound_connection(connection, peer, local, remote)
            .map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        at: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.takes_part(peer, connection) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        (self.inner)
            .handle_established_outbound_connection(connection, peer, at, role, port)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let known = match &event {
            FromSwarm::ConnectionEstablished(established) => {
                if let Some(peer) = self.peers.get_mut(&established.peer_id) {
                    peer.connections += 1;
                }
                !self.mute.contains(&established.connection_id)
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.gone(&closed.peer_id, true);
                !self.mute.remove(&closed.connection_id)
            }
            FromSwarm::AddressChange(change) => !self.mute.contains(&change.connection_id),
            // Another behaviour may have refused the connection after it got its handler here.
            FromSwarm::ListenFailure(failed) => {
                self.mute.remove(&failed.connection_id);
                if let Some(peer) = failed.peer_id {
                    self.gone(&peer, false);
                }
                true
            }
            FromSwarm::DialFailure(failed) => {
                self.mute.remove(&failed.connection_id);
                if let Some(peer) = failed.peer_id {
                    self.gone(&peer, false);
                }
                true
            }
            // The rest is not about one connection. The enum is the library's.
            _ => true,
        };
        if known {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self
                .inner
                .on_connection_handler_event(peer, connection, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            (self.tend)(&mut self.inner);
            match ready!(self.inner.poll(cx)) {
                // Whom a peer names is not whom we dial, unless it may take part.
                ToSwarm::Dial { opts }
                    if !(opts.get_peer_id().is_some_and(|to| self.chooses(&to))
                        && (self.may_dial)(&mut self.inner)) =>
                {
                    let failure = DialFailure {
                        peer_id: opts.get_peer_id(),
                        error: &DialError::Aborted,
                        connection_id: opts.connection_id(),
                    };
                    self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
                }
                action => return Poll::Ready(action.map_in(Either::Left)),
            }
        }
    }
}
