//! The connections with one peer: made directly, or through a relay.

use libp2p::swarm::ConnectionId;

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Ways {
    direct: Vec<ConnectionId>,
    circuits: Vec<ConnectionId>,
}

impl Ways {
    pub(super) fn add(&mut self, connection: ConnectionId, is_circuit: bool) {
        match is_circuit {
            true => self.circuits.push(connection),
            false => self.direct.push(connection),
        }
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.direct.retain(|known| *known != connection);
        self.circuits.retain(|known| *known != connection);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.circuits.is_empty()
    }

    /// The one for new substreams: the oldest of the direct ones, since others may have been made for a moment only.
    pub(super) fn best(&self) -> Option<ConnectionId> {
        self.direct.first().or(self.circuits.first()).copied()
    }

    /// Whether the peer is reached through relays alone.
    pub(super) fn is_relayed(&self) -> bool {
        self.direct.is_empty() && !self.circuits.is_empty()
    }

    /// The circuits that a direct connection makes useless.
    pub(super) fn useless(&self) -> &[ConnectionId] {
        match self.direct.is_empty() {
            true => &[],
            false => &self.circuits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: a circuit, then two direct connections. Substreams go over the circuit while there is nothing else, then over
    // the first direct one; the circuit is useless only beside one of those.
    #[test]
    fn direct_before_circuits() {
        let [circuit, first, second] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let mut ways = Ways::default();
        assert!(ways.is_empty() && !ways.is_relayed() && ways.best().is_none());
        ways.add(circuit, true);
        assert!(ways.is_relayed() && ways.useless().is_empty());
        assert_eq!(ways.best(), Some(circuit));
        ways.add(first, false);
        ways.add(second, false);
        assert_eq!((ways.best(), ways.useless()), (Some(first), &[circuit][..]));
        ways.remove(first);
        assert_eq!((ways.best(), ways.is_relayed()), (Some(second), false));
        ways.remove(second);
        assert_eq!((ways.best(), ways.is_relayed()), (Some(circuit), true));
        ways.remove(circuit);
        assert!(ways.is_empty());
    }
}
