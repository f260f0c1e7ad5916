//! Which shard a channel lives in, and which relayer owns it.

use std::collections::BTreeMap;
use std::fmt;

use pqcnet_crypto::{NodeId, sha256};
use pqcnet_link::WireError;

use crate::channel::Channel;
use crate::codec::invalid;

/// A virtual shard's number. How many there are is fixed when a network is created; only owners move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A shard's number off the wire.
pub(crate) fn shard_id(number: u32) -> Result<ShardId, WireError> {
    let number = u16::try_from(number).map_err(|_| invalid("shard", "too large"))?;
    Ok(ShardId(number))
}

/// The owner of every shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardMap {
    version: u64,
    owners: Vec<NodeId>,
}

/// A map that would own nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardMapError {
    /// No shards at all.
    #[error("a network has at least one shard")]
    NoShards,
    /// More shards than a [`ShardId`] can name.
    #[error("a network has at most 65536 shards, not {0}")]
    TooManyShards(usize),
    /// Nobody to own them.
    #[error("a network has at least one relayer")]
    NoRelayers,
}

impl ShardMap {
    /// The map in which shard `i` belongs to `owners[i]`.
    ///
    /// # Errors
    /// The list is empty or longer than shard ids reach.
    pub fn new(version: u64, owners: Vec<NodeId>) -> Result<ShardMap, ShardMapError> {
        match owners.len() {
            0 => Err(ShardMapError::NoShards),
            n if n > usize::from(u16::MAX) + 1 => Err(ShardMapError::TooManyShards(n)),
            _ => Ok(ShardMap { version, owners }),
        }
    }

    /// The static map of a network file: relayers sorted by id take the shards in turn.
    ///
    /// # Errors
    /// No shards or no relayers.
    pub fn from_relayers(
        shards: u16,
        relayers: impl IntoIterator<Item = NodeId>,
    ) -> Result<ShardMap, ShardMapError> {
        let mut relayers: Vec<NodeId> = relayers.into_iter().collect();
        relayers.sort_unstable();
        relayers.dedup();
        if relayers.is_empty() {
            return Err(ShardMapError::NoRelayers);
        }
        let owners = (0..usize::from(shards))
            .map(|shard| relayers[shard % relayers.len()])
            .collect();
        ShardMap::new(1, owners)
    }

    /// This map with these relayers alone: whose shard it is stays so where it is one of them, and what is left goes to whichever of them has least,
    /// the lowest id first. The same relayers give the same map, so one that leaves and comes back has its shards again.
    ///
    /// # Errors
    /// No relayers.
    pub fn among(
        &self,
        version: u64,
        relayers: impl IntoIterator<Item = NodeId>,
    ) -> Result<ShardMap, ShardMapError> {
        let mut has: BTreeMap<NodeId, usize> =
            relayers.into_iter().map(|relayer| (relayer, 0)).collect();
        for owner in &self.owners {
            has.entry(*owner).and_modify(|shards| *shards += 1);
        }
        let mut owners = self.owners.clone();
        for owner in &mut owners {
            if !has.contains_key(owner) {
                let least = has.iter_mut().min_by_key(|(_, shards)| **shards);
                let (relayer, shards) = least.ok_or(ShardMapError::NoRelayers)?;
                *owner = *relayer;
                *shards += 1;
            }
        }
        ShardMap::new(version, owners)
    }

    /// Rises whenever an owner changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many shards there are; at least 1.
    pub fn shards(&self) -> usize {
        self.owners.len()
    }

    /// Each shard's owner, by shard.
    pub fn owners(&self) -> &[NodeId] {
        &self.owners
    }

    /// The shard of a channel: the first 8 bytes (big-endian) of SHA-256("pqcnet/shard/1" ‖ owner ‖ name), modulo the number
    /// of shards.
    pub fn shard_of(&self, channel: &Channel) -> ShardId {
        let hash = sha256(&[
            b"pqcnet/shard/1",
            channel.owner.as_bytes(),
            channel.name.as_str().as_bytes(),
        ]);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        let shard = u64::from_be_bytes(first) % self.owners.len() as u64;
        ShardId(shard as u16)
    }

    /// The relayer that owns a shard, if the map has it.
    pub fn owner_of(&self, shard: ShardId) -> Option<NodeId> {
        self.owners.get(usize::from(shard.0)).copied()
    }

    /// The relayer that owns a channel's shard.
    pub fn owner_of_channel(&self, channel: &Channel) -> NodeId {
        self.owners[usize::from(self.shard_of(channel).0)]
    }

    /// The shards of one relayer, ascending.
    pub fn owned_by(&self, relayer: NodeId) -> impl Iterator<Item = ShardId> + '_ {
        let owned = move |(shard, owner): (usize, &NodeId)| {
            (*owner == relayer).then_some(ShardId(shard as u16))
        };
        self.owners.iter().enumerate().filter_map(owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelName;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    /// A channel's shard is pinned: a change would strand every stored channel.
    #[test]
    fn shard_of_is_pinned() {
        let map = ShardMap::from_relayers(64, [node(2), node(1)]).unwrap();
        let shard = |name: &str| {
            map.shard_of(&Channel {
                owner: node(7),
                name: ChannelName::new(name).unwrap(),
            })
        };
        assert_eq!(
            ["a", "b", "orders/eu"].map(shard),
            [ShardId(36), ShardId(7), ShardId(34)]
        );
    }

    /// Relayers sorted by id take shards in turn, whatever order they came in; every shard has an owner.
    #[test]
    fn static_map() {
        let map = ShardMap::from_relayers(5, [node(9), node(3), node(9)]).unwrap();
        assert_eq!(map.version(), 1);
        assert_eq!(map.shards(), 5);
        let owners: Vec<_> = (0..6).map(|s| map.owner_of(ShardId(s))).collect();
        let (a, b) = (Some(node(3)), Some(node(9)));
        assert_eq!(owners, [a, b, a, b, a, None]);
        let owned: Vec<_> = map.owned_by(node(9)).collect();
        assert_eq!(owned, [ShardId(1), ShardId(3)]);
        assert_eq!(map.owned_by(node(4)).count(), 0);
    }

    /// Each refused map.
    #[test]
    fn every_error() {
        assert_eq!(
            ShardMap::from_relayers(0, [node(1)]),
            Err(ShardMapError::NoShards)
        );
        assert_eq!(
            ShardMap::from_relayers(4, []),
            Err(ShardMapError::NoRelayers)
        );
        let many = vec![node(1); 65537];
        assert_eq!(
            ShardMap::new(1, many),
            Err(ShardMapError::TooManyShards(65537))
        );
    }

    // Eight shards of four relayers: without the second its two go to the others in turn, and everybody else's stay; with it back the map is
    // the first again, but for its version. One alone has all, and nobody cannot.
    #[test]
    fn among_moves_only_what_has_to() {
        let [a, b, c, d] = [1, 2, 3, 4].map(node);
        let first = ShardMap::from_relayers(8, [a, b, c, d]).unwrap();
        let without = first.among(7, [d, c, a]).unwrap();
        assert_eq!(without.owners(), [a, a, c, d, a, c, c, d]);
        assert_eq!(without.version(), 7);
        let back = first.among(8, [a, b, c, d]).unwrap();
        assert_eq!((back.owners(), back.version()), (first.owners(), 8));
        assert_eq!(first.among(9, [b]).unwrap().owners(), [b; 8]);
        assert_eq!(first.among(9, []), Err(ShardMapError::NoRelayers));
    }
}
