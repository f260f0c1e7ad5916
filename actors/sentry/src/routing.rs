//! Who has which shard, as far as this sentry knows: the map that holds, and what relayers said of shards that they have not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pqcnet_actor::latest;
use pqcnet_crypto::NodeId;
use pqcnet_messages::{Channel, Redirect, ShardId, ShardMap};

/// The routing of one sentry, shared by its sessions. A map that has just changed is ahead of the shards, and one that has not
/// come yet is behind them: whoever is asked in vain says who has the shard, and that counts until the next map.
#[derive(Debug)]
pub struct Routing {
    map: latest::Receiver<Arc<ShardMap>>,
    moved: Mutex<Moved>,
}

#[derive(Debug, Default)]
struct Moved {
    version: u64,
    /// At most one a shard.
    owners: BTreeMap<ShardId, NodeId>,
}

impl Routing {
    /// By this map, as it changes.
    pub fn new(map: latest::Receiver<Arc<ShardMap>>) -> Routing {
        Routing {
            map,
            moved: Mutex::default(),
        }
    }

    /// By this map for ever.
    pub fn fixed(map: ShardMap) -> Routing {
        Routing::new(latest::channel(Arc::new(map)).1)
    }

    /// The map that holds.
    pub fn map(&self) -> Arc<ShardMap> {
        self.map.borrow().clone()
    }

    /// The shard of a channel.
    pub fn shard_of(&self, channel: &Channel) -> ShardId {
        self.map.borrow().shard_of(channel)
    }

    /// The relayer to ask about a channel.
    pub fn owner_of(&self, channel: &Channel) -> NodeId {
        let map = self.map.borrow();
        let moved = self.moved(map.version());
        let told = moved.owners.get(&map.shard_of(channel)).copied();
        told.unwrap_or_else(|| map.owner_of_channel(channel))
    }

    /// A relayer says who has a shard.
    pub fn redirected(&self, shard: ShardId, to: Redirect) {
        let map = self.map.borrow();
        if map.owner_of(shard).is_some() {
            let before = self.moved(map.version()).owners.insert(shard, to.owner);
            if before != Some(to.owner) {
                tracing::info!(%shard, owner = %to.owner.short(), "a shard is asked for where it is said to be");
            }
        }
    }

    /// Shards that are asked of a relayer, ascending.
    pub fn owned_by(&self, relayer: NodeId) -> Vec<ShardId> {
        let map = self.map.borrow();
        let moved = self.moved(map.version());
        let shards = (0..map.shards()).filter_map(|shard| u16::try_from(shard).ok());
        let of = |shard: &ShardId| moved.owners.get(shard).copied().or(map.owner_of(*shard));
        (shards.map(ShardId))
            .filter(|shard| of(shard) == Some(relayer))
            .collect()
    }

    fn moved(&self, version: u64) -> std::sync::MutexGuard<'_, Moved> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.version != version {
            moved.version = version;
            moved.owners.clear();
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pqcnet_messages::ChannelName;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    /// Scenario: a shard is asked of whom the map names, then of whom that one names, and of whom the next map names.
    #[test]
    fn maps_and_words() {
        let map = |version, owner| Arc::new(ShardMap::new(version, vec![node(owner)]).unwrap());
        let (next, maps) = latest::channel(map(1, 1));
        let routing = Routing::new(maps);
        let name = ChannelName::new("a").unwrap();
        let channel = Channel {
            owner: node(9),
            name,
        };
        let shard = routing.shard_of(&channel);
        assert_eq!((shard, routing.owner_of(&channel)), (ShardId(0), node(1)));
        let redirect = |owner| Redirect {
            owner: node(owner),
            map_version: 7,
        };
        routing.redirected(shard, redirect(2));
        assert_eq!(routing.owner_of(&channel), node(2));
        assert_eq!(
            (routing.owned_by(node(1)), routing.owned_by(node(2))),
            (vec![], vec![shard])
        );
        routing.redirected(ShardId(1), redirect(2));
        routing.redirected(shard, redirect(3));
        assert_eq!(routing.owner_of(&channel), node(3));
        next.send_replace(map(2, 4));
        assert_eq!(
            (routing.owner_of(&channel), routing.map().version()),
            (node(4), 2)
        );
    }
}
