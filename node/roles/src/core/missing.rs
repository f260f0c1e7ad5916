//! When the network is asked where a node is. Gossip and pulls tell of everybody within seconds of a start; a lookup costs a few
//! handshakes. So it is made for a node that is wanted and still missing after [`PATIENCE`], and again only every [`AGAIN`].

use std::collections::BTreeMap;
use std::time::Duration;

use pqcnet_crypto::NodeId;

/// Several times what gossip and pulls take in a network whose nodes all start at once.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two lookups of one node: a node that moved says so at once, and its record follows within half a minute.
pub const AGAIN: Duration = Duration::from_secs(30);
/// Nodes that may be missed at once; a node wants to link with fewer.
const MAX: usize = 4096;

/// The nodes that are missed.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// When each may be asked for.
    due: BTreeMap<NodeId, Duration>,
}

impl Missing {
    /// A node is wanted and nobody has said where it is. Whether to ask for it now.
    pub fn asks(&mut self, node: NodeId, now: Duration) -> bool {
        if self.due.len() >= MAX && !self.due.contains_key(&node) {
            return false;
        }
        let due = self.due.entry(node).or_insert(now + PATIENCE);
        let asks = now >= *due;
        if asks {
            *due = now + AGAIN;
        }
        asks
    }

    /// It is known where it is.
    pub fn found(&mut self, node: &NodeId) {
        self.due.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Scenario: a dialler tries twice a second. Nothing is asked for ten seconds, then once in thirty; a node that was found and
    /// is lost again has its ten seconds anew, whatever became of others.
    #[test]
    fn asked_by_need() {
        let (one, other) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let mut missing = Missing::default();
        let asked = |missing: &mut Missing, node, from: u32, to: u32| -> Vec<u32> {
            let tries = (2 * from..2 * to).filter(|half| missing.asks(node, *half * S / 2));
            tries.map(|half| half / 2).collect()
        };
        assert_eq!(asked(&mut missing, one, 100, 200), [110, 140, 170]);
        assert_eq!(asked(&mut missing, other, 200, 215), [210]);
        missing.found(&one);
        assert_eq!(asked(&mut missing, one, 215, 226), [225]);
        for number in 0..MAX as u64 {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            missing.asks(NodeId::from_bytes(id), 300 * S);
        }
        assert_eq!(missing.due.len(), MAX);
        assert_eq!(asked(&mut missing, other, 300, 301), [300]);
    }
}
