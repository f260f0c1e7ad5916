//! Who may be what now: the network file and the root's directives taken together.
//!
//! In this order: a revoked node is nobody; a node that was succeeded is nobody once the overlap is over; a node with a
//! grant of roles has these and no others, as long as the lease holds; otherwise it has what the network file says, and
//! what the identities that it succeeds had. Where the file lets anybody be a client, anybody not refused so far is one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pqcnet_crypto::NodeId;
use pqcnet_messages::{Directive, Order, Role, ShardMap};
use pqcnet_p2p::network::{Admission, NetworkFile};

/// Successions that are followed from one identity back: one that rotates every month for two years.
const MAX_SUCCESSIONS: usize = 24;

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Standing {
    /// The root has revoked the key.
    #[error("{} is revoked: {reason}", node.short())]
    Revoked {
        /// Who.
        node: NodeId,
        /// The root's words.
        reason: String,
    },
    /// Another identity has taken its place, and the overlap is over.
    #[error("{} was succeeded by {}", node.short(), by.short())]
    Succeeded {
        /// Who.
        node: NodeId,
        /// The new identity.
        by: NodeId,
    },
    /// What the root gave, it gave for a time that is over.
    #[error("the lease of {}'s roles is over", node.short())]
    LeaseOver {
        /// Who.
        node: NodeId,
    },
    /// Nobody gave it this role.
    #[error("the network does not grant {} the role {role}", node.short())]
    NotGranted {
        /// Who.
        node: NodeId,
        /// What it wanted to be.
        role: Role,
    },
    /// It misbehaved here, and is not wanted for a while.
    #[error("{} misbehaved and is banned for {left_s} s", node.short())]
    Banned {
        /// Who.
        node: NodeId,
        /// How long still, in seconds.
        left_s: u64,
    },
}

/// Why a map that the root signed is not followed. The root's keeper erred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The number of shards is fixed when a network is created.
    #[error("it has {has} shards, the network {shards}")]
    Shards {
        /// In the map.
        has: usize,
        /// In the network file.
        shards: usize,
    },
    /// Sentries reach the relayers of the network file and their heirs.
    #[error("it names {}, which is no relayer of the network file and heir of none", owner.short())]
    Owner {
        /// Who.
        owner: NodeId,
    },
    /// Version 1 is the network file's own map.
    #[error("its version is {version}: the network file's own map is version 1")]
    Version {
        /// The map's.
        version: u64,
    },
    /// The network file names none.
    #[error("the network file names no relayer")]
    NoRelayers,
}

#[derive(Clone, Debug)]
struct Leased<T> {
    given: T,
    until_ms: Option<u64>,
}

impl<T> Leased<T> {
    fn holds(&self, wall_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| wall_ms < until)
    }
}

#[derive(Clone, Copy, Debug)]
struct Succession {
    old: NodeId,
    new: NodeId,
    overlap_until_ms: u64,
}

/// Who may be what, by the network file and a set of directives.
#[derive(Clone, Debug)]
pub struct Standings {
    network: Arc<NetworkFile>,
    revoked: BTreeMap<NodeId, String>,
    grants: BTreeMap<NodeId, Leased<BTreeSet<Role>>>,
    /// By the old identity.
    successions: BTreeMap<NodeId, Leased<Succession>>,
    shards: Option<Leased<ShardMap>>,
}

impl Standings {
    /// What these directives, one for each subject, make of the network file.
    pub fn new<'a>(
        network: Arc<NetworkFile>,
        directives: impl IntoIterator<Item = &'a Directive>,
    ) -> Standings {
        let mut standings = Standings {
            network,
            revoked: BTreeMap::new(),
            grants: BTreeMap::new(),
            successions: BTreeMap::new(),
            shards: None,
        };
        for directive in directives {
            standings.apply(directive);
        }
        standings
    }

    fn apply(&mut self, directive: &Directive) {
        let until_ms = directive.expires_at_ms();
        match &directive.order {
            Order::Revoke { node, reason } => {
                self.revoked.insert(*node, reason.clone());
            }
            Order::GrantRole { node, roles } => {
                let given = roles.clone();
                self.grants.insert(*node, Leased { given, until_ms });
            }
            Order::Succeed {
                old,
                new,
                overlap_until_ms,
            } => {
                let given = Succession {
                    old: *old,
                    new: new.node_id(),
                    overlap_until_ms: *overlap_until_ms,
                };
                self.successions.insert(*old, Leased { given, until_ms });
            }
            Order::ShardMap(map) => {
                let given = map.clone();
                self.shards = Some(Leased { given, until_ms });
            }
        }
    }

    /// Whether a node may be what it claims.
    ///
    /// # Errors
    /// Why not; the first rule that refuses it.
    pub fn admit(&self, node: NodeId, role: Role, wall_ms: u64) -> Result<(), Standing> {
        self.valid(node, wall_ms)?;
        if role == Role::Client && self.network.admission() == Admission::Any {
            return Ok(());
        }
        let roles = self.roles(node, wall_ms)?;
        if roles.contains(&role) {
            Ok(())
        } else {
            Err(Standing::NotGranted { node, role })
        }
    }

    /// Whether a key is good at all, whatever for: neither revoked nor succeeded.
    ///
    /// # Errors
    /// [`Standing::Revoked`] or [`Standing::Succeeded`].
    pub fn valid(&self, node: NodeId, wall_ms: u64) -> Result<(), Standing> {
        if let Some(reason) = self.revoked.get(&node) {
            let reason = reason.clone();
            return Err(Standing::Revoked { node, reason });
        }
        match self.successions.get(&node) {
            Some(leased) if leased.given.overlap_until_ms <= wall_ms => {
                let by = leased.given.new;
                Err(Standing::Succeeded { node, by })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What a node may be, whether or not its key is still good: an heir of a revoked key keeps what it inherited.
    ///
    /// # Errors
    /// [`Standing::LeaseOver`] when all that it was given is over.
    pub fn roles(&self, node: NodeId, wall_ms: u64) -> Result<BTreeSet<Role>, Standing> {
        let mut roles = BTreeSet::new();
        let (mut line, mut next, mut lapsed) = (BTreeSet::new(), vec![node], false);
        while let Some(one) = next.pop() {
            if line.len() >= MAX_SUCCESSIONS || !line.insert(one) {
                continue;
            }
            match self.grants.get(&one) {
                Some(grant) if grant.holds(wall_ms) => roles.extend(grant.given.iter().copied()),
                Some(_) => lapsed = true,
                None => {
                    let listed = self.network.node(&one);
                    roles.extend(listed.iter().flat_map(|entry| entry.roles.iter().copied()));
                    for leased in self.successions.values() {
                        match leased.given.new == one {
                            true if leased.holds(wall_ms) => next.push(leased.given.old),
                            true => lapsed = true,
                            false => {}
                        }
                    }
                }
            }
        }
        if roles.is_empty() && lapsed {
            return Err(Standing::LeaseOver { node });
        }
        Ok(roles)
    }

    /// Whether a node may be anything but a client: only these advertise themselves.
    pub fn is_member(&self, node: NodeId, wall_ms: u64) -> bool {
        self.valid(node, wall_ms).is_ok()
            && (self.roles(node, wall_ms))
                .is_ok_and(|roles| roles.iter().any(|role| *role != Role::Client))
    }

    /// The identity that a node has now: itself, or whoever succeeded it last.
    pub fn successor(&self, node: NodeId) -> NodeId {
        let mut now = node;
        for _ in 0..MAX_SUCCESSIONS {
            match self.successions.get(&now) {
                Some(leased) => now = leased.given.new,
                None => break,
            }
        }
        now
    }

    /// The listed identity that a node stands in for: itself, or the first that its line succeeded.
    pub fn seat(&self, node: NodeId) -> NodeId {
        let mut seat = node;
        for _ in 0..MAX_SUCCESSIONS {
            if self.network.node(&seat).is_some() {
                break;
            }
            let mut successions = self.successions.values();
            match successions.find(|leased| leased.given.new == seat) {
                Some(leased) => seat = leased.given.old,
                None => return node,
            }
        }
        seat
    }

    /// The shard map that holds, by listed identities, and the end of its lease where it has one: the root's, whether its lease is
    /// over or not, else the network file's.
    ///
    /// # Errors
    /// The root's map cannot be that of this network; the network file's holds instead.
    pub fn map_in_force(&self) -> Result<(ShardMap, Option<u64>), Unusable> {
        let shards = usize::from(self.network.shards());
        let Some(leased) = &self.shards else {
            return self.first_map().map(|map| (map, None));
        };
        let map = &leased.given;
        if map.shards() != shards {
            let has = map.shards();
            return Err(Unusable::Shards { has, shards });
        }
        let owners: Vec<NodeId> = map.owners().iter().map(|owner| self.seat(*owner)).collect();
        let is_relayer = |owner: &NodeId| {
            let listed = self.network.node(owner);
            listed.is_some_and(|entry| entry.roles.contains(&Role::Relayer))
        };
        if let Some(owner) = owners.iter().find(|owner| !is_relayer(owner)) {
            return Err(Unusable::Owner { owner: *owner });
        }
        let map = ShardMap::new(map.version(), owners);
        let map = map.map_err(|_| Unusable::Shards { has: 0, shards })?;
        if map.version() <= self.first_map()?.version() {
            let version = map.version();
            return Err(Unusable::Version { version });
        }
        Ok((map, leased.until_ms))
    }

    /// The network file's map.
    ///
    /// # Errors
    /// The file names no relayer; its reader refuses such a file.
    pub fn first_map(&self) -> Result<ShardMap, Unusable> {
        let relayers = self.network.relayers();
        let relayers = relayers.iter().map(|node| node.id);
        ShardMap::from_relayers(self.network.shards(), relayers).map_err(|_| Unusable::NoRelayers)
    }

    /// The root's shard map, while its lease holds.
    pub fn shard_map(&self, wall_ms: u64) -> Option<&ShardMap> {
        let leased = self.shards.as_ref()?;
        leased.holds(wall_ms).then_some(&leased.given)
    }

    /// Leases that are over: what is gone with them, for reports. At most a handful at once in a network that is looked after.
    pub fn lapsed(&self, wall_ms: u64) -> Vec<String> {
        let mut lapsed = Vec::new();
        for (node, grant) in &self.grants {
            if !grant.holds(wall_ms) {
                lapsed.push(format!("the roles granted to {}", node.short()));
            }
        }
        for leased in self.successions.values() {
            if !leased.holds(wall_ms) {
                lapsed.push(format!("what {} inherited", leased.given.new.short()));
            }
        }
        if self.shards.as_ref().is_some_and(|map| !map.holds(wall_ms)) {
            lapsed.push("the shard map".to_owned());
        }
        lapsed
    }

    /// The network file.
    pub fn network(&self) -> &NetworkFile {
        &self.network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{directive, network, node, public};

    const NOW: u64 = 1_000_000;

    fn grant(who: u8, roles: &[Role], lease_ms: u64) -> Directive {
        let order = Order::GrantRole {
            node: node(who),
            roles: roles.iter().copied().collect(),
        };
        Directive {
            issued_at_ms: NOW,
            lease_ms,
            ..directive(1, order)
        }
    }

    fn revoke(who: NodeId) -> Directive {
        let reason = "key lost".to_owned();
        directive(1, Order::Revoke { node: who, reason })
    }

    fn succeed(old: NodeId, new: u8, overlap_until_ms: u64) -> Directive {
        let new = public(new);
        let order = Order::Succeed {
            old,
            new,
            overlap_until_ms,
        };
        directive(1, order)
    }

    fn standings(admission: Admission, directives: &[Directive]) -> Standings {
        Standings::new(network(admission), directives)
    }

    /// Scenario: no directives. The file decides: node 1 is a sentry, node 2 a relayer, node 3 a client; anybody may be a
    /// client where the file says so.
    #[test]
    fn the_file_alone() {
        let any = standings(Admission::Any, &[]);
        let refused = |who, role| Err(Standing::NotGranted { node: who, role });
        assert_eq!(any.admit(node(1), Role::Sentry, NOW), Ok(()));
        assert_eq!(
            any.admit(node(1), Role::Relayer, NOW),
            refused(node(1), Role::Relayer)
        );
        assert_eq!(any.admit(node(9), Role::Client, NOW), Ok(()));
        let listed = standings(Admission::Listed, &[]);
        assert_eq!(
            listed.admit(node(9), Role::Client, NOW),
            refused(node(9), Role::Client)
        );
        assert_eq!(listed.admit(node(3), Role::Client, NOW), Ok(()));
        assert!(listed.is_member(node(1), NOW) && !listed.is_member(node(3), NOW));
        assert_eq!(listed.successor(node(1)), node(1));
    }

    /// Scenario: a revoked node is nobody, not even a client that anybody may be, and it does not come back by time.
    #[test]
    fn revoked() {
        let standings = standings(Admission::Any, &[revoke(node(1)), revoke(node(9))]);
        for (who, role) in [(node(1), Role::Sentry), (node(9), Role::Client)] {
            let reason = "key lost".to_owned();
            let expected = Err(Standing::Revoked { node: who, reason });
            for wall in [0, NOW, u64::MAX] {
                assert_eq!(standings.admit(who, role, wall), expected);
            }
        }
        assert!(!standings.is_member(node(1), NOW));
        assert_eq!(standings.admit(node(2), Role::Relayer, NOW), Ok(()));
    }

    /// Scenario: a grant replaces what the file says, for its lease; when that is over the node is nothing, and stays a
    /// client where anybody is one.
    #[test]
    fn granted_for_a_time() {
        let standings = standings(
            Admission::Any,
            &[
                grant(1, &[Role::Watcher], 100),
                grant(8, &[Role::Sentry], 0),
            ],
        );
        assert_eq!(standings.admit(node(1), Role::Watcher, NOW + 99), Ok(()));
        assert_eq!(
            standings.admit(node(1), Role::Sentry, NOW),
            Err(Standing::NotGranted {
                node: node(1),
                role: Role::Sentry
            })
        );
        let over = Err(Standing::LeaseOver { node: node(1) });
        assert_eq!(standings.admit(node(1), Role::Watcher, NOW + 100), over);
        assert_eq!(standings.admit(node(1), Role::Sentry, NOW + 100), over);
        assert_eq!(standings.admit(node(1), Role::Client, NOW + 100), Ok(()));
        assert_eq!(standings.admit(node(8), Role::Sentry, u64::MAX), Ok(()));
        assert_eq!(standings.lapsed(NOW), Vec::<String>::new());
        assert_eq!(standings.lapsed(NOW + 100).len(), 1);
    }

    /// Scenario: identity 1 is succeeded by 11, that by 12, each with an overlap. Each heir has the first one's role; an old
    /// one is refused once its overlap is over, and the heirs stay when the old key is revoked.
    #[test]
    fn succession() {
        let (first, second) = (public(11).node_id(), public(12).node_id());
        let directives = [
            succeed(node(1), 11, NOW + 10),
            succeed(first, 12, NOW + 20),
            revoke(node(1)),
        ];
        let before = standings(Admission::Listed, &directives[..2]);
        for who in [node(1), first, second] {
            assert_eq!(before.admit(who, Role::Sentry, NOW), Ok(()));
        }
        assert_eq!(before.successor(node(1)), second);
        assert_eq!(before.seat(second), node(1));
        assert_eq!(
            (before.seat(node(2)), before.seat(node(9))),
            (node(2), node(9))
        );
        let gone = |node, by| Err(Standing::Succeeded { node, by });
        assert_eq!(
            before.admit(node(1), Role::Sentry, NOW + 10),
            gone(node(1), first)
        );
        assert_eq!(
            before.admit(first, Role::Sentry, NOW + 20),
            gone(first, second)
        );
        let after = standings(Admission::Listed, &directives);
        assert!(matches!(
            after.admit(node(1), Role::Sentry, NOW),
            Err(Standing::Revoked { .. })
        ));
        assert_eq!(after.admit(second, Role::Sentry, NOW + 99), Ok(()));
        assert!(after.admit(second, Role::Relayer, NOW).is_err());
    }

    /// Scenario: what was inherited for a time lapses; two identities that succeed each other are no endless loop.
    #[test]
    fn inheritance_lapses_and_circles_end() {
        let heir = public(11).node_id();
        let leased = Directive {
            issued_at_ms: NOW,
            lease_ms: 5,
            ..succeed(node(1), 11, NOW + 10)
        };
        let lapsing = standings(Admission::Listed, &[leased]);
        assert_eq!(lapsing.admit(heir, Role::Sentry, NOW), Ok(()));
        assert_eq!(
            lapsing.admit(heir, Role::Sentry, NOW + 5),
            Err(Standing::LeaseOver { node: heir })
        );
        assert_eq!(lapsing.lapsed(NOW + 5).len(), 1);
        let (one, other) = (public(11).node_id(), public(12).node_id());
        let circle = standings(
            Admission::Listed,
            &[succeed(one, 12, u64::MAX), succeed(other, 11, u64::MAX)],
        );
        assert!(circle.admit(one, Role::Sentry, NOW).is_err());
        assert!([one, other].contains(&circle.successor(one)));
    }

    /// Scenario: a shard map holds for its lease.
    #[test]
    fn shard_map() {
        let map = ShardMap::new(7, vec![node(2)]).unwrap();
        let order = Order::ShardMap(map.clone());
        let ordered = Directive {
            issued_at_ms: NOW,
            lease_ms: 10,
            ..directive(1, order)
        };
        let standings = standings(Admission::Any, &[ordered]);
        assert_eq!(standings.shard_map(NOW), Some(&map));
        assert_eq!(standings.shard_map(NOW + 10), None);
        assert_eq!(standings.lapsed(NOW + 10), ["the shard map"]);
        assert_eq!(standings.network().name(), "mesh");
    }
}
