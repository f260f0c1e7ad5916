//! Nodes that cannot be reached from outside: circuits through a relay, and holes punched for a direct connection.
//!
//! Circuit relay v2 and DCUtR carry PeerIds as bytes and never ask for a public key, so they work with ours; the
//! connection inside a circuit is a QSTP connection like any other, which the relay cannot read. What they usually take
//! from identify, the address under which others see this node and who serves AutoNAT, [`super::seen`] brings.
//! docs/spec/control-plane.md, "Reach".

use std::time::Duration;

use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{PeerId, relay};
use libp2p_autonat::v2::client;
use pqcnet_actor::{Env, StreamRng};

/// Nodes that a relay lets itself be reached for.
pub const RESERVATIONS: usize = 128;
/// Circuits it carries at once.
pub const CIRCUITS: usize = 32;
/// Circuits of one node.
pub const CIRCUITS_EACH: usize = 4;
/// How long one lasts: enough to punch a hole or to find another way.
pub const CIRCUIT: Duration = Duration::from_secs(10 * 60);
/// What it may carry each way. The plane is for control; this is not a way around the data plane.
pub const CIRCUIT_BYTES: u64 = 4 * 1024 * 1024;

pub(super) type Client = client::Behaviour<StreamRng>;

/// Between looks for an address that no relay has tried yet. One that nobody answers takes a relay [`super::upgrade::CONNECT`], so few
/// are under way at once.
const PROBE: Duration = Duration::from_secs(2);

/// Has relays try whether this node can be reached.
pub(super) fn client(env: &Env) -> Client {
    let config = client::Config::default();
    let config = config.with_probe_interval(PROBE).with_max_candidates(1);
    client::Behaviour::new(env.rng("autonat"), config)
}

pub(super) fn server(own: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: RESERVATIONS,
        max_reservations_per_peer: 2,
        max_circuits: CIRCUITS,
        max_circuits_per_peer: CIRCUITS_EACH,
        max_circuit_duration: CIRCUIT,
        max_circuit_bytes: CIRCUIT_BYTES,
        ..relay::Config::default()
    };
    let mut relay = relay::Behaviour::new(own, config);
    // The operator has said so; without identify nobody would ever confirm an address first.
    relay.set_status(Some(relay::Status::Enable));
    relay
}

/// Where a node is that is reached through a relay, or where one listens through it.
pub(super) fn circuit(relay: PeerId, at: Multiaddr) -> Multiaddr {
    at.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
}

/// The relay that an address leads through.
pub(super) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut parts = address.iter().filter(|_| is_circuit(address));
    parts.find_map(|part| match part {
        Protocol::P2p(relay) => Some(relay),
        _ => None,
    })
}

/// Whether an address leads through a relay.
pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}
