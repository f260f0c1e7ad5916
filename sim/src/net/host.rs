//! A node's place in the network: its address, what listens there, who gets through to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::link::{Bandwidth, on_wire};
use crate::world::NodeNo;

/// What stands before a node that others cannot simply dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Nat {
    /// Nothing: it is reachable.
    #[default]
    None,
    /// Lets in whom the node has lately sent to, from whatever port: holes can be punched.
    Cone,
    /// Lets in nothing that the node has not asked for on that very connection.
    Symmetric,
}

/// How long a NAT remembers whom its node has sent to: what RFC 4787 asks of UDP mappings at the least.
pub(super) const MAPPING: Duration = Duration::from_secs(120);

/// Between which nodes nothing passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// From any of the first to any of the second, not back.
    OneWay {
        /// Senders.
        from: Vec<NodeNo>,
        /// Receivers.
        to: Vec<NodeNo>,
    },
    /// Neither way between members of different groups. Who is in no group is cut from nobody.
    Groups(Vec<Vec<NodeNo>>),
}

/// One node.
pub(super) struct Host {
    pub(super) ip: IpAddr,
    /// Its machine answers: with a refusal where nothing listens.
    pub(super) up: bool,
    pub(super) nat: Nat,
    /// By port: the listener's number.
    pub(super) listeners: BTreeMap<u16, u64>,
    /// By port: the mailbox's number.
    pub(super) mailboxes: BTreeMap<u16, u64>,
    pub(super) next_port: u16,
    /// Whom it has sent to, and when last.
    pub(super) sent: BTreeMap<NodeNo, Duration>,
    /// Everything to and from it takes so much longer.
    pub(super) slower: Duration,
    /// What all its links share, each way; `None` is as fast as they are.
    pub(super) access: Option<Access>,
    /// Its connections, for its end.
    pub(super) conns: BTreeSet<u64>,
}

/// A node's own line to the network, which everything that it sends and gets goes over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) bandwidth: Bandwidth,
    /// When the last byte that waits has passed, ns.
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Access {
    pub(super) fn new(bandwidth: Bandwidth) -> Access {
        Access {
            bandwidth,
            up: 0,
            down: 0,
        }
    }
}

impl Bandwidth {
    /// When the last of so many bytes has passed a line that is taken until `busy`, and how many bytes wait before them.
    pub(super) fn pass(&self, busy: u64, now: u64, bytes: usize) -> (u64, u64) {
        let rate = u128::from(self.bytes_per_second.max(1));
        let begins = busy.max(now);
        let waits = u128::from(begins - now) * rate / 1_000_000_000;
        let takes = u128::from(on_wire(bytes)) * 1_000_000_000 / rate;
        let passed = begins.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        (passed, u64::try_from(waits).unwrap_or(u64::MAX))
    }
}

/// First port that is given to whoever asks for any (RFC 6335, section 6).
const EPHEMERAL: u16 = 49_152;

/// The n-th node's address: each in a /24 of its own, as nodes of different owners have.
pub(super) fn address(node: NodeNo) -> IpAddr {
    let [_, b, c, d] = node.0.to_be_bytes();
    // 11.0.0.0/8 and up; 2^24 nodes before it would reach 12.0.0.0/8.
    IpAddr::V4(Ipv4Addr::new(11 + b, c, d, 1))
}

impl Host {
    pub(super) fn new(node: NodeNo, nat: Nat) -> Host {
        Host {
            ip: address(node),
            up: false,
            nat,
            listeners: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            next_port: EPHEMERAL,
            sent: BTreeMap::new(),
            slower: Duration::ZERO,
            access: None,
            conns: BTreeSet::new(),
        }
    }

    /// A port that nothing has.
    pub(super) fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(EPHEMERAL);
            if !self.listeners.contains_key(&port) && !self.mailboxes.contains_key(&port) {
                return port;
            }
        }
    }

    /// Whether its NAT lets something new in from `peer`.
    pub(super) fn lets_in(&self, peer: NodeNo, now: Duration) -> bool {
        match self.nat {
            Nat::None => true,
            Nat::Symmetric => false,
            Nat::Cone => {
                let sent = self.sent.get(&peer);
                sent.is_some_and(|sent| now.saturating_sub(*sent) < MAPPING)
            }
        }
    }

    /// Its machine is gone, or comes back with nothing of before.
    pub(super) fn forget(&mut self) {
        self.listeners.clear();
        self.mailboxes.clear();
        self.sent.clear();
        self.next_port = EPHEMERAL;
    }
}

/// The rules of all cuts that hold now.
#[derive(Default)]
pub(super) struct Cuts {
    cuts: BTreeMap<u64, Rule>,
    last: u64,
}

enum Rule {
    OneWay {
        from: Vec<NodeNo>,
        to: Vec<NodeNo>,
    },
    /// The group of each node.
    Groups(BTreeMap<NodeNo, usize>),
}

impl Cuts {
    pub(super) fn add(&mut self, cut: Cut) -> u64 {
        let rule = match cut {
            Cut::OneWay { mut from, mut to } => {
                from.sort();
                to.sort();
                Rule::OneWay { from, to }
            }
            Cut::Groups(groups) => {
                let numbered = groups.into_iter().enumerate();
                let members =
                    numbered.flat_map(|(n, group)| group.into_iter().map(move |m| (m, n)));
                Rule::Groups(members.collect())
            }
        };
        self.last += 1;
        self.cuts.insert(self.last, rule);
        self.last
    }

    pub(super) fn remove(&mut self, number: u64) -> bool {
        self.cuts.remove(&number).is_some()
    }

    pub(super) fn between(&self, from: NodeNo, to: NodeNo) -> bool {
        self.cuts.values().any(|rule| match rule {
            Rule::OneWay {
                from: senders,
                to: receivers,
            } => senders.binary_search(&from).is_ok() && receivers.binary_search(&to).is_ok(),
            Rule::Groups(groups) => match (groups.get(&from), groups.get(&to)) {
                (Some(a), Some(b)) => a != b,
                _ => false,
            },
        })
    }
}
