//! Which links a node may still be without because it has just started.
//!
//! Nodes of a network are started together, and between two dials of one that is not there yet are up to two seconds. So a
//! control link that has not been there yet is *awaited* for [`STARTING`], and a problem after that. One that stood and is
//! gone is a problem at once, and so is a data link that is missing: without it there is no work.

use std::collections::BTreeSet;
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_messages::control::Plane;

/// How long.
pub const STARTING: Duration = Duration::from_secs(10);

/// Whom a node has been linked with on the control plane since its start; as many as it expects at most.
#[derive(Debug, Default)]
pub struct Starting {
    met: BTreeSet<NodeId>,
}

impl Starting {
    /// There is a control link with a node that is expected to have one.
    pub fn meet(&mut self, peer: NodeId) {
        self.met.insert(peer);
    }

    /// Whether a link that is missing is to be waited for, so long after the start.
    pub fn awaits(&self, peer: &NodeId, plane: Plane, up: Duration) -> bool {
        plane == Plane::Control && up < STARTING && !self.met.contains(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: two neighbours are missing right after a start, on both planes. One is met and lost again, which is a problem
    // at once, as is any missing data link; the other is awaited until the node has been up for ten seconds.
    #[test]
    fn awaited_once_and_not_for_long() {
        let [one, other] = [1, 2].map(|byte| NodeId::from_bytes([byte; 32]));
        let mut starting = Starting::default();
        let soon = Duration::from_millis(9_999);
        for peer in [one, other] {
            assert!(starting.awaits(&peer, Plane::Control, soon));
            assert!(!starting.awaits(&peer, Plane::Data, Duration::ZERO));
        }
        starting.meet(one);
        assert!(!starting.awaits(&one, Plane::Control, soon));
        assert!(starting.awaits(&other, Plane::Control, soon));
        assert!(!starting.awaits(&other, Plane::Control, STARTING));
    }
}
