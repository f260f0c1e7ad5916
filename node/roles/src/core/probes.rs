//! Whether a node can be reached from outside, by what relays have tried at its asking.
//!
//! One address that was reached is enough. One that was not is one less, and only when none is left does the node have
//! itself reached through relays. Nothing is tried twice, so the verdict holds until a new address is heard of.

use std::collections::BTreeSet;

use pqcnet_p2p::network::Address;

/// Addresses remembered: more than are ever tried.
const MAX: usize = 128;

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// No relay has answered yet.
    #[default]
    Unknown,
    /// There, ascending.
    Reachable(Vec<Address>),
    /// Nowhere that was tried.
    Unreachable,
}

/// Addresses that were tried.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    reached: BTreeSet<Address>,
    in_vain: BTreeSet<Address>,
}

impl Probes {
    /// A relay has tried an address.
    pub fn on_probed(&mut self, at: Address, reached: bool) {
        if self.reached.len() + self.in_vain.len() >= MAX {
            return;
        }
        if reached {
            self.in_vain.remove(&at);
            self.reached.insert(at);
        } else if !self.reached.contains(&at) {
            self.in_vain.insert(at);
        }
    }

    /// What follows.
    pub fn verdict(&self) -> Verdict {
        match (self.reached.is_empty(), self.in_vain.is_empty()) {
            (false, _) => Verdict::Reachable(self.reached.iter().cloned().collect()),
            (true, false) => Verdict::Unreachable,
            (true, true) => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    // Scenario: one address is tried in vain, another one is reached, and later by another relay in vain. The verdict goes
    // from unknown to unreachable to reachable there, and stays.
    #[test]
    fn one_way_in_is_enough() {
        let (closed, open) = (at("192.0.2.1:7410"), at("192.0.2.1:7411"));
        let mut probes = Probes::default();
        assert_eq!(probes.verdict(), Verdict::Unknown);
        probes.on_probed(closed, false);
        assert_eq!(probes.verdict(), Verdict::Unreachable);
        probes.on_probed(open.clone(), true);
        let reachable = Verdict::Reachable(vec![open.clone()]);
        assert_eq!(probes.verdict(), reachable);
        probes.on_probed(open, false);
        assert_eq!(probes.verdict(), reachable);
    }

    // Scenario: more addresses than are remembered. Those that came first count.
    #[test]
    fn bounded() {
        let mut probes = Probes::default();
        for port in 1..=MAX {
            probes.on_probed(at(&format!("192.0.2.1:{port}")), false);
        }
        probes.on_probed(at("192.0.2.2:1"), true);
        assert_eq!(probes.verdict(), Verdict::Unreachable);
    }
}
