//! How many links there may be: of one peer, and in all.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pqcnet_crypto::NodeId;

/// No place for another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// This peer has as many as one may have.
    #[error("{limit} links of this node are open already")]
    Peer {
        /// The most of one peer.
        limit: usize,
    },
    /// All are taken.
    #[error("{limit} links are open already")]
    Total {
        /// The most of all peers.
        limit: usize,
    },
}

/// The places of one kind of link. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    total: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// By peer; none at zero.
    peers: BTreeMap<NodeId, usize>,
}

impl Places {
    /// So many in all, and of each peer.
    pub fn new(total: usize, each: usize) -> Places {
        let taken = Mutex::default();
        Places {
            inner: Arc::new(Inner { total, each, taken }),
        }
    }

    /// A place for a link of `peer`, free again when it is dropped.
    ///
    /// # Errors
    /// Which limit is reached; the peer's own first, so that it is told of what it can change.
    pub fn take(&self, peer: NodeId) -> Result<Place, NoPlace> {
        let mut taken = self.inner.taken.lock();
        let (each, total) = (self.inner.each, self.inner.total);
        let own = taken.peers.get(&peer).copied().unwrap_or(0);
        if own >= each {
            return Err(NoPlace::Peer { limit: each });
        }
        if taken.total >= total {
            return Err(NoPlace::Total { limit: total });
        }
        taken.total += 1;
        taken.peers.insert(peer, own + 1);
        Ok(Place {
            inner: Arc::clone(&self.inner),
            peer,
        })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.inner.taken.lock().total
    }
}

/// One link's place.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    peer: NodeId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.inner.taken.lock();
        taken.total -= 1;
        if let Some(own) = taken.peers.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three places, two a peer: the peer's own limit is named before everybody's, and a dropped place is free again.
    #[test]
    fn both_limits() {
        let places = Places::new(3, 2);
        let node = |byte| NodeId::from_bytes([byte; 32]);
        let first = places.take(node(1)).unwrap();
        let _second = places.take(node(1)).unwrap();
        let peer = NoPlace::Peer { limit: 2 };
        assert_eq!(places.take(node(1)).unwrap_err(), peer);
        let _third = places.take(node(2)).unwrap();
        assert_eq!(places.take(node(1)).unwrap_err(), peer);
        let total = NoPlace::Total { limit: 3 };
        assert_eq!(places.take(node(3)).unwrap_err(), total);
        assert_eq!(places.taken(), 3);
        drop(first);
        let _again = places.take(node(3)).unwrap();
        assert_eq!(places.inner.taken.lock().peers.len(), 3);
    }
}
