//! Tries whether others can be reached, as they ask: AutoNAT v2's server, on a leash.
//!
//! The library dials whatever address a client names. Here a client has only addresses of the very host from which it is
//! connected tried, [`EACH`] at a time, [`PROBES`] of all clients; and the connection that was made for it is closed when it
//! has served. What is refused the client takes for not reached: an honest one has fewer under way.
//!
//! Spec: docs/spec/control-plane.md, "Reach".

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm,
    NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use libp2p_autonat::v2::server;

use super::reach::is_circuit;
use super::upgrade::socket_addr;

/// Addresses tried at once; each is a handshake.
pub const PROBES: usize = 64;
/// The same for one client. Ours asks every two seconds, and five decide.
pub const EACH: usize = 4;

/// The client is not connected from there.
#[derive(Debug, thiserror::Error)]
#[error("a client has only its own host's addresses tried")]
struct NotItsOwn;

/// A try.
#[derive(Debug)]
struct Probe {
    client: PeerId,
    /// Known once it is dialled.
    at: Option<SocketAddr>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Behaviour {
    inner: server::Behaviour,
    /// Whence each connection to this node came.
    from: BTreeMap<ConnectionId, (PeerId, IpAddr)>,
    /// Connections that are being made, or were made, to try an address.
    probes: BTreeMap<ConnectionId, Probe>,
    closing: VecDeque<(PeerId, ConnectionId)>,
}

impl Behaviour {
    /// A request is answered: what was made for it is of no more use.
    fn served(&mut self, client: &PeerId, tested: &Multiaddr) {
        let tested = socket_addr(tested);
        let of_it = |probe: &Probe| probe.client == *client && probe.at == tested;
        let done = self.probes.iter().filter(|(_, probe)| of_it(probe));
        let done: Vec<ConnectionId> = done.map(|(connection, _)| *connection).collect();
        for connection in done {
            self.probes.remove(&connection);
            self.closing.push_back((*client, connection));
        }
    }

    fn may_probe(&self, client: &PeerId) -> bool {
        let of_client = self.probes.values().filter(|probe| probe.client == *client);
        of_client.count() < EACH && self.probes.len() < PROBES
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<server::Behaviour>;
    type ToSwarm = server::Event;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(probe) = self.probes.get_mut(&connection) {
            let mut hosts = self.from.values().filter(|(of, _)| *of == probe.client);
            let at = match addresses {
                [at] if !is_circuit(at) => socket_addr(at),
                _ => None,
            };
            let is_own = at.is_some_and(|at| hosts.any(|(_, host)| *host == at.ip()));
            if !is_own {
                return Err(ConnectionDenied::new(NotItsOwn));
            }
            probe.at = at;
        }
        (self.inner).handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(at) = socket_addr(remote).filter(|_| !is_circuit(local)) {
            self.from.insert(connection, (peer, at.ip()));
        }
        (self.inner).handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        at: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        (self.inner).handle_established_outbound_connection(connection, peer, at, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let over = match &event {
            FromSwarm::ConnectionClosed(closed) => Some(closed.connection_id),
            FromSwarm::ListenFailure(failed) => Some(failed.connection_id),
            FromSwarm::DialFailure(failed) => Some(failed.connection_id),
            // The rest is not about the end of one connection. The enum is the library's.
            _ => None,
        };
        if let Some(connection) = over {
            self.from.remove(&connection);
            self.probes.remove(&connection);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        (self.inner).on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some((peer_id, connection)) = self.closing.pop_front() {
                return Poll::Ready(ToSwarm::CloseConnection {
                    peer_id,
                    connection: CloseConnection::One(connection),
                });
            }
            match std::task::ready!(self.inner.poll(cx)) {
                ToSwarm::Dial { opts } => {
                    let connection = opts.connection_id();
                    let client = opts.get_peer_id();
                    if let Some(client) = client.filter(|client| self.may_probe(client)) {
                        self.probes.insert(connection, Probe { client, at: None });
                        return Poll::Ready(ToSwarm::Dial { opts });
                    }
                    // Of a client that has as many under way, some may have been left open by it.
                    let left = self.probes.iter();
                    let left = left.filter(|(_, probe)| Some(probe.client) == client);
                    self.closing
                        .extend(left.map(|(connection, probe)| (probe.client, *connection)));
                    self.inner
                        .on_swarm_event(FromSwarm::DialFailure(DialFailure {
                            peer_id: client,
                            error: &DialError::Aborted,
                            connection_id: connection,
                        }));
                }
                ToSwarm::GenerateEvent(event) => {
                    self.served(&event.client, &event.tested_addr);
                    return Poll::Ready(ToSwarm::GenerateEvent(event));
                }
                other => return Poll::Ready(other),
            }
        }
    }
}
