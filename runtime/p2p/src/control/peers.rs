//! Whose keys stand behind each open connection. libp2p carries only the PeerId out of an upgrade.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use parking_lot::Mutex;
use pqcnet_crypto::{NodeId, NodePublic};

use super::muxer::{HELD, Unread};

/// Connections of one node at once: two nodes that dial each other have two, and one that reconnects may have one more
/// that is not yet known to be dead.
const CONNECTIONS: usize = 4;
/// Nodes connected at once that are not the network's own. They are told so once they open a link; until then they only
/// hold a connection, and must not hold all.
const STRANGERS: usize = 64;

#[derive(Debug)]
struct Known {
    public: NodePublic,
    connections: usize,
    unread: Unread,
}

/// The keys of every node with an open connection. Bounded by the number of connections that may be open.
#[derive(Clone, Debug)]
pub struct Peers {
    known: Arc<Mutex<BTreeMap<NodeId, Known>>>,
    max: usize,
    members: Option<Arc<BTreeSet<NodeId>>>,
}

impl Peers {
    /// At most so many nodes, of which strangers share a few places where the network's own are known.
    pub fn new(max: usize, members: Option<Arc<BTreeSet<NodeId>>>) -> Peers {
        Peers {
            known: Arc::default(),
            max,
            members,
        }
    }

    fn is_stranger(&self, id: &NodeId) -> bool {
        (self.members.as_ref()).is_some_and(|members| !members.contains(id))
    }

    /// Remembers a node as long as the returned entry lives; `None` when as many are known as may be, or the node has as
    /// many connections as it may.
    pub fn enter(&self, public: &NodePublic) -> Option<Entry> {
        let id = public.node_id();
        let mut known = self.known.lock();
        let full = match known.get(&id) {
            Some(known) => known.connections >= CONNECTIONS,
            None if known.len() >= self.max => true,
            None => {
                self.is_stranger(&id)
                    && known.keys().filter(|id| self.is_stranger(id)).count() >= STRANGERS
            }
        };
        if full {
            return None;
        }
        let entry = known.entry(id).or_insert_with(|| Known {
            public: public.clone(),
            connections: 0,
            unread: Unread::new(HELD),
        });
        entry.connections += 1;
        Some(Entry {
            unread: entry.unread.clone(),
            peers: self.clone(),
            id,
        })
    }

    /// The keys of a connected node.
    pub fn public(&self, id: &NodeId) -> Option<NodePublic> {
        self.known.lock().get(id).map(|known| known.public.clone())
    }
}

/// One connection's share in a [`Peers`] entry.
#[derive(Debug)]
pub struct Entry {
    peers: Peers,
    id: NodeId,
    unread: Unread,
}

impl Entry {
    /// What the node has sent on all its connections and nobody has read.
    pub(super) fn unread(&self) -> Unread {
        self.unread.clone()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut known = self.peers.known.lock();
        if let Some(entry) = known.get_mut(&self.id) {
            entry.connections -= 1;
            if entry.connections == 0 {
                known.remove(&self.id);
            }
        }
    }
}

/// A muxer that keeps its peer known for as long as it lives.
pub(super) struct Owned<M> {
    muxer: M,
    _entry: Entry,
}

impl<M> Owned<M> {
    pub(super) fn new(muxer: M, entry: Entry) -> Owned<M> {
        Owned {
            muxer,
            _entry: entry,
        }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Owned<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll_inbound(cx)
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll_outbound(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll_close(cx)
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pqcnet_crypto::NodeKeys;

    /// A node is known while one of its connections lives, and a full table takes no further node.
    #[test]
    fn known_while_connected() {
        let (a, b) = (NodeKeys::generate(), NodeKeys::generate());
        let peers = Peers::new(1, None);
        let first = peers.enter(a.public()).unwrap();
        let second = peers.enter(a.public()).unwrap();
        assert!(peers.enter(b.public()).is_none());
        drop(first);
        assert_eq!(peers.public(&a.node_id()).as_ref(), Some(a.public()));
        drop(second);
        assert_eq!(peers.public(&a.node_id()), None);
        assert!(peers.enter(b.public()).is_some());
    }

    /// Strangers share a few places and leave the network's own nodes theirs; nobody connects without end.
    #[test]
    fn strangers_and_the_insatiable() {
        let own = NodeKeys::generate();
        let members = Arc::new(BTreeSet::from([own.node_id()]));
        let peers = Peers::new(1024, Some(members));
        let strangers: Vec<NodeKeys> = (0..=STRANGERS).map(|_| NodeKeys::generate()).collect();
        let mut held: Vec<Entry> = (strangers[..STRANGERS].iter())
            .map(|keys| peers.enter(keys.public()).unwrap())
            .collect();
        assert!(peers.enter(strangers[STRANGERS].public()).is_none());
        let several: Vec<Entry> = (0..CONNECTIONS)
            .map(|_| peers.enter(own.public()).unwrap())
            .collect();
        assert!(peers.enter(own.public()).is_none());
        drop(several);
        held.pop();
        assert!(peers.enter(strangers[STRANGERS].public()).is_some());
    }
}
