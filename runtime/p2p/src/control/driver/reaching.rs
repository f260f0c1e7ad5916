//! The driver's part in how nodes reach each other: circuits give way to direct connections, relays say who is reachable.

use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::{PeerId, dcutr};
use libp2p_autonat::v2::client;

use super::super::ControlEvent;
use super::super::upgrade::{self, node_id_of};
use super::Driver;

impl Driver {
    /// A connection has come. Beside a direct one, circuits end: what runs on them begins anew on it. It is for the side that
    /// answered the direct one's handshake to close them, since it is the last to know that it stands.
    pub(super) fn straighten(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        let Some(node) = node_id_of(&peer) else {
            return;
        };
        let ways = self.swarm.behaviour().substreams.ways(&peer);
        let useless = ways.map_or(Vec::new(), |ways| ways.useless().to_vec());
        if endpoint.is_relayed() && endpoint.is_listener() {
            self.queue.push_back(ControlEvent::Circuit { peer: node });
        } else if endpoint.is_relayed() {
            tracing::info!(peer = %node, "connected through a relay");
        } else if !useless.is_empty() {
            self.queue.push_back(ControlEvent::Direct { peer: node });
        }
        if answered(endpoint) {
            for circuit in useless {
                self.swarm.close_connection(circuit);
            }
        }
    }

    pub(super) fn on_probed(&mut self, probed: client::Event) {
        let by = node_id_of(&probed.server);
        let Some((by, at)) = by.zip(upgrade::address(&probed.tested_addr)) else {
            return;
        };
        if let Err(error) = &probed.result {
            tracing::debug!(%by, %at, %error, "not reached there");
        }
        let reached = probed.result.is_ok();
        self.queue
            .push_back(ControlEvent::Probed { at, by, reached });
    }
}

/// Whether this side answered the handshake: of two that dial each other through their NATs, one does.
fn answered(endpoint: &ConnectedPoint) -> bool {
    match endpoint {
        ConnectedPoint::Listener { .. } => true,
        ConnectedPoint::Dialer { role_override, .. } => *role_override == Endpoint::Listener,
    }
}

/// What comes of a hole shows as a connection.
pub(super) fn on_punched(punched: dcutr::Event) {
    let peer = punched.remote_peer_id;
    match punched.result {
        Ok(_) => tracing::debug!(%peer, "hole punched"),
        Err(error) => tracing::info!(%peer, %error, "no hole punched"),
    }
}
