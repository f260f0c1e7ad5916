//! Nodes on the same LAN, by multicast DNS. Off unless the operator turns it on: it tells everybody on the LAN that this
//! node is there, and believes whoever says the same. What it finds is a hint; whom one reaches there, QSTP proves.

use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::mdns;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

/// Nodes found and not yet expired. Who announces them chooses how long that takes, so beyond this nothing more is heard.
const MAX_FOUND: usize = 1024;

/// mDNS with a bound on what it remembers, and without a say in dials: the role decides whom to dial where.
pub(super) struct Behaviour {
    inner: mdns::tokio::Behaviour,
    full: bool,
}

impl Behaviour {
    pub(super) fn new(own: PeerId) -> std::io::Result<Behaviour> {
        let inner = mdns::tokio::Behaviour::new(mdns::Config::default(), own)?;
        Ok(Behaviour { inner, full: false })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<mdns::tokio::Behaviour>;
    type ToSwarm = Vec<(PeerId, Multiaddr)>;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if self.inner.discovered_nodes().len() >= MAX_FOUND {
                if !self.full {
                    tracing::warn!("mDNS found {MAX_FOUND} nodes and listens no further");
                }
                self.full = true;
                return Poll::Pending;
            }
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(mdns::Event::Discovered(found))) => {
                    return Poll::Ready(ToSwarm::GenerateEvent(found));
                }
                // Nothing else of it concerns the swarm: expired nodes, and addresses for dials that nobody asked for.
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
