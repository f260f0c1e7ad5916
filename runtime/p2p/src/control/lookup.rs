//! Where a node is: Kademlia, whose records are the nodes' own signed adverts.
//!
//! A record's key is a NodeId, its value that node's advert. Nothing is stored, and nothing found is handed out, before
//! our own [`RecordCheck`] has found it to be signed by that very node and no older than the one already held. So the worst
//! that a lying node can do is to keep quiet, or to hand out an advert that has not yet run out.
//!
//! | bound | |
//! |---|---|
//! | records held | [`LookupConfig::max_records`], each of a node that may be in the network |
//! | a message | [`PACKET`] bytes, 32 substreams a connection |
//! | records of one peer being checked | with its gossip: [`super::judging::PENDING`] |
//! | nodes known with addresses | 256 buckets of 20, [`ADDRESSES`] each; only what the role tells of, never what a peer says |
//! | whom a query dials | nodes that may take part, the 20 nearest known and those it hears of; closed when the last query ends |
//! | queries under way | [`LOOKUPS`], [`TIMEOUT`] each; no others ([`may_dial`]) |

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{self, BucketInserts, Config, Mode, Quorum, Record, RecordKey, StoreInserts};
use libp2p::swarm::StreamProtocol;
use libp2p::{Multiaddr, PeerId};
use pqcnet_crypto::NodeId;

use super::ControlError;

/// The name of the lookup protocol.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/pqcnet/lookup/1");
/// Largest message.
pub const PACKET: usize = 24 * 1024;
/// Addresses remembered of a node.
pub const ADDRESSES: usize = 8;
/// Lookups and announcements under way at once.
pub const LOOKUPS: usize = 64;
/// Nodes at which a record is put, and whose answers end a walk: adverts bring the same news to all, so records are for those few
/// whom these do not reach. Each is a handshake, unless there is a connection. A walk asks more only where one of the
/// nearest does not answer or is slow: then the next ones, of the 20 nearest that it knows.
pub const REPLICAS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// How long one may take; the driver sees to it. So long Kademlia waits for one node, and asks the next ones meanwhile.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a record is held that nobody renews; adverts are renewed every ten minutes.
pub const HELD: Duration = Duration::from_secs(60 * 60);
/// Good answers after which a lookup asks no further.
const ENOUGH: usize = 3;

/// How this node takes part in lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupConfig {
    /// Records held for others.
    pub max_records: usize,
    /// Largest record, in bytes; below [`PACKET`].
    pub max_record: usize,
}

impl Default for LookupConfig {
    /// A network of a thousand nodes, each known everywhere; an advert is below 16 KiB.
    fn default() -> LookupConfig {
        LookupConfig {
            max_records: 1024,
            max_record: 16 * 1024,
        }
    }
}

/// Checks records: ours, not the library's.
pub trait RecordCheck: Send + Sync + 'static {
    /// Whether this is `node`'s own, validly signed, not run out, and no older than what is held. A panic or no answer
    /// within [`super::judging::VERDICT`] is no.
    fn check(&self, node: NodeId, record: Bytes, held: Option<Bytes>) -> BoxFuture<'static, bool>;
}

impl<F> RecordCheck for F
where
    F: Fn(NodeId, Bytes, Option<Bytes>) -> BoxFuture<'static, bool> + Send + Sync + 'static,
{
    fn check(&self, node: NodeId, record: Bytes, held: Option<Bytes>) -> BoxFuture<'static, bool> {
        self(node, record, held)
    }
}

pub(super) type Behaviour = kad::Behaviour<MemoryStore>;

pub(super) fn behaviour(own: PeerId, config: LookupConfig) -> Behaviour {
    let store = MemoryStoreConfig {
        max_records: config.max_records,
        // The store takes what is shorter than this.
        max_value_bytes: config.max_record + 1,
        max_provided_keys: 0,
        max_providers_per_key: 0,
    };
    let mut kademlia = Config::new(PROTOCOL);
    kademlia
        .set_max_packet_size(PACKET)
        .set_query_timeout(TIMEOUT)
        .set_replication_factor(REPLICAS)
        .set_record_ttl(Some(HELD))
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_kbucket_inserts(BucketInserts::Manual)
        // The role renews its own record and tells of nodes; nothing happens behind its back.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(None);
    let store = MemoryStore::with_config(own, store);
    let mut behaviour = kad::Behaviour::with_config(own, store, kademlia);
    // No autonat decides for us: whoever takes part answers.
    behaviour.set_mode(Some(Mode::Server));
    behaviour
}

/// Ends the walks that Kademlia begins by itself. Whenever it hears of a node it walks, half a second later, through all that it
/// knows (`Bootstrap`, a step for each bucket), and that cannot be turned off: in a network that starts, everybody would dial
/// everybody. What a walk would find, the role knows from adverts.
pub(super) fn end_walks(behaviour: &mut Behaviour) {
    for mut query in behaviour.iter_queries_mut() {
        if matches!(query.info(), kad::QueryInfo::Bootstrap { .. }) {
            query.finish();
        }
    }
}

/// Whether a dial that Kademlia wants may be for somebody who asked. A walk that begins while somebody asks has its first dials,
/// three at most: whose a dial is cannot be told.
pub(super) fn may_dial(behaviour: &mut Behaviour) -> bool {
    let mut queries = behaviour.iter_queries();
    queries.any(|query| !matches!(query.info(), kad::QueryInfo::Bootstrap { .. }))
}

pub(super) fn key(node: &NodeId) -> RecordKey {
    RecordKey::new(node.as_bytes())
}

/// The node a record is about.
pub(super) fn about(record: &Record) -> Option<NodeId> {
    NodeId::from_slice(record.key.as_ref()).ok()
}

pub(super) fn record(node: &NodeId, value: Bytes) -> Record {
    Record::new(key(node), value.to_vec())
}

pub(super) const QUORUM: Quorum = Quorum::One;

/// Replaces what is known of a node's addresses.
pub(super) fn learn(behaviour: &mut Behaviour, peer: &PeerId, at: Vec<Multiaddr>) {
    behaviour.remove_peer(peer);
    for address in at.into_iter().take(ADDRESSES) {
        behaviour.add_address(peer, address);
    }
}

/// A query under way. Pure: what is found goes in, what is to be checked comes out.
pub(super) enum Query {
    /// Of another node's record.
    Lookup(Lookup),
    /// Of places for our own.
    Announce(oneshot::Sender<Result<(), ControlError>>),
}

/// A lookup under way.
pub struct Lookup {
    pub(super) node: NodeId,
    answer: oneshot::Sender<Result<Option<Bytes>, ControlError>>,
    best: Option<Bytes>,
    /// Found and not yet checked; the first is being checked.
    unchecked: Vec<Bytes>,
    checking: bool,
    good: usize,
    ended: bool,
}

/// What is to be done about a lookup.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Wait,
    /// Have this checked, against the best so far.
    Check(Bytes, Option<Bytes>),
    /// It is over.
    Answer,
}

impl Lookup {
    /// Nobody has been asked yet.
    pub fn new(
        node: NodeId,
        answer: oneshot::Sender<Result<Option<Bytes>, ControlError>>,
    ) -> Lookup {
        Lookup {
            node,
            answer,
            best: None,
            unchecked: Vec::new(),
            checking: false,
            good: 0,
            ended: false,
        }
    }

    /// A peer had this record.
    pub fn found(&mut self, record: Bytes) -> Next {
        if self.best.as_ref() == Some(&record) {
            self.good += 1;
            return self.next();
        }
        // As many as there may be replicas; a peer that has others adds nothing.
        if self.unchecked.len() < kad::K_VALUE.get() && !self.unchecked.contains(&record) {
            self.unchecked.push(record);
        }
        self.next()
    }

    /// What the check of the first unchecked record found.
    pub fn checked(&mut self, good: bool) -> Next {
        self.checking = false;
        if !self.unchecked.is_empty() {
            let record = self.unchecked.remove(0);
            if good {
                self.good += 1;
                self.best = Some(record);
            }
        }
        self.next()
    }

    /// Nobody else will answer.
    pub fn ended(&mut self) -> Next {
        self.ended = true;
        self.next()
    }

    fn next(&mut self) -> Next {
        if self.good >= ENOUGH {
            return Next::Answer;
        }
        match self.unchecked.first() {
            Some(first) if !self.checking => {
                self.checking = true;
                Next::Check(first.clone(), self.best.clone())
            }
            None if self.ended => Next::Answer,
            _ => Next::Wait,
        }
    }

    /// Tells the asker.
    pub fn answer(self) {
        if self.answer.send(Ok(self.best)).is_err() {
            tracing::trace!("the asker is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup() -> (
        Lookup,
        oneshot::Receiver<Result<Option<Bytes>, ControlError>>,
    ) {
        let (answer, answered) = oneshot::channel();
        let node = NodeId::from_bytes([1; 32]);
        (Lookup::new(node, answer), answered)
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// Records are checked one after the other, each against the best; the newest good one is the answer.
    #[test]
    fn newest_good_one() {
        let (mut lookup, mut answered) = lookup();
        let check = |new, held: Option<&'static str>| Next::Check(bytes(new), held.map(bytes));
        assert_eq!(lookup.found(bytes("old")), check("old", None));
        assert_eq!(lookup.found(bytes("forged")), Next::Wait);
        assert_eq!(lookup.found(bytes("old")), Next::Wait);
        assert_eq!(lookup.ended(), Next::Wait);
        assert_eq!(lookup.checked(true), check("forged", Some("old")));
        assert_eq!(lookup.found(bytes("new")), Next::Wait);
        assert_eq!(lookup.checked(false), check("new", Some("old")));
        assert_eq!(lookup.checked(true), Next::Answer);
        lookup.answer();
        let answer = answered.try_recv().unwrap().unwrap().unwrap();
        assert_eq!(answer, Some(bytes("new")));
    }

    /// A few nodes that agree are enough; nobody who knows is an answer too.
    #[test]
    fn enough_or_nothing() {
        let (mut some, _) = lookup();
        some.found(bytes("it"));
        assert_eq!(some.checked(true), Next::Wait);
        assert_eq!(some.found(bytes("it")), Next::Wait);
        assert_eq!(some.found(bytes("it")), Next::Answer);

        let (mut none, mut answered) = lookup();
        assert_eq!(none.ended(), Next::Answer);
        none.answer();
        assert_eq!(answered.try_recv().unwrap().unwrap().unwrap(), None);
    }
}
