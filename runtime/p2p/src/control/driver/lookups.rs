//! The driver's part in lookups: queries and records to be checked, each by our own code.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{Either, select};
use libp2p::PeerId;
use libp2p::kad::store::RecordStore as _;
use libp2p::kad::{self, InboundRequest, QueryId, QueryResult};
use libp2p::multiaddr::Multiaddr;
use pqcnet_crypto::NodeId;

use super::super::ControlError;
use super::super::handle::Answer;
use super::super::judging::{self, Verdict};
use super::super::lookup::{self, LOOKUPS, Lookup, Next, Query, RecordCheck};
use super::super::upgrade::node_id_of;
use super::{Driver, Judged, reply};

/// Queries under way, and what they leave behind.
pub(super) struct Lookups {
    check: Option<Arc<dyn RecordCheck>>,
    queries: HashMap<QueryId, Query>,
    /// When each began, oldest first; some are over.
    began: VecDeque<(Duration, QueryId)>,
    /// Nodes that only a query dialled: nobody else has used the connection yet.
    errands: BTreeSet<PeerId>,
    max_record: usize,
}

/// What a check was for.
enum For {
    /// A lookup that found it.
    Query(QueryId),
    /// A peer that wants it stored.
    Peer(NodeId),
}

/// A check that is done.
pub(super) struct Checked {
    what: For,
    node: NodeId,
    record: Bytes,
    good: bool,
}

impl Lookups {
    pub(super) fn new(max_record: usize) -> Lookups {
        Lookups {
            check: None,
            queries: HashMap::new(),
            began: VecDeque::new(),
            errands: BTreeSet::new(),
            max_record,
        }
    }

    fn begin(&mut self, now: Duration, id: QueryId, query: Query) {
        self.queries.insert(id, query);
        self.began.push_back((now, id));
    }

    /// How long until a query has taken its time. Kademlia has no clock that would wake it: what waits for a dial without an
    /// answer would wait as long as that.
    pub(super) fn patience(&mut self, now: Duration) -> Option<Duration> {
        while let Some((began, id)) = self.began.front() {
            if self.queries.contains_key(id) {
                return Some((*began + lookup::TIMEOUT).saturating_sub(now));
            }
            self.began.pop_front();
        }
        None
    }

    /// A node was dialled that nobody asked for: by a query, if one is under way.
    pub(super) fn errand(&mut self, peer: PeerId) {
        if !self.queries.is_empty() {
            self.errands.insert(peer);
        }
    }

    /// Somebody else uses the connection, or it is gone.
    pub(super) fn keep(&mut self, peer: &PeerId) {
        self.errands.remove(peer);
    }
}

impl Driver {
    fn kademlia(&mut self) -> Result<&mut lookup::Behaviour, ControlError> {
        let lookup = self.swarm.behaviour_mut().lookup.as_mut();
        Ok(lookup.ok_or(ControlError::NoLookup)?.inner())
    }

    pub(super) fn learn(&mut self, peer: PeerId, at: Vec<Multiaddr>) {
        // A node without lookups has nobody to tell.
        if let Ok(kademlia) = self.kademlia() {
            lookup::learn(kademlia, &peer, at);
        }
    }

    pub(super) fn keep_records(&mut self, check: Arc<dyn RecordCheck>) -> Result<(), ControlError> {
        self.kademlia()?;
        self.lookups.check = Some(check);
        Ok(())
    }

    fn room(&mut self) -> Result<&mut lookup::Behaviour, ControlError> {
        if self.lookups.check.is_none() {
            return Err(ControlError::NoLookup);
        }
        if self.lookups.queries.len() >= LOOKUPS {
            return Err(ControlError::LookupsBusy);
        }
        self.kademlia()
    }

    /// The oldest query has taken its time: whoever asked gets what there is.
    pub(super) fn on_late(&mut self) {
        let Some((_, id)) = self.lookups.began.pop_front() else {
            return;
        };
        match self.lookups.queries.remove(&id) {
            Some(Query::Lookup(lookup)) => lookup.answer(),
            Some(Query::Announce(answer)) => {
                let late = format!("no answer within {} s", lookup::TIMEOUT.as_secs());
                reply(answer, Err(ControlError::NotStored(late)));
            }
            None => {}
        }
        if let Ok(kademlia) = self.kademlia()
            && let Some(mut query) = kademlia.query_mut(&id)
        {
            query.finish();
        }
        self.tidy();
    }

    pub(super) fn announce(&mut self, record: Bytes, answer: Answer<Result<(), ControlError>>) {
        let max = self.lookups.max_record;
        let own = node_id_of(self.swarm.local_peer_id());
        let started = self.room().and_then(|kademlia| {
            let size = record.len();
            if size > max {
                return Err(ControlError::TooLarge { size, max });
            }
            let own = own.ok_or(ControlError::NoLookup)?;
            kademlia
                .put_record(lookup::record(&own, record), lookup::QUORUM)
                .map_err(|error| ControlError::NotStored(error.to_string()))
        });
        match started {
            Ok(query) => {
                let now = self.env.now();
                self.lookups.begin(now, query, Query::Announce(answer));
            }
            Err(error) => reply(answer, Err(error)),
        }
    }

    pub(super) fn look_up(
        &mut self,
        node: NodeId,
        answer: Answer<Result<Option<Bytes>, ControlError>>,
    ) {
        match self.room() {
            Ok(kademlia) => {
                let query = kademlia.get_record(lookup::key(&node));
                let lookup = Query::Lookup(Lookup::new(node, answer));
                let now = self.env.now();
                self.lookups.begin(now, query, lookup);
            }
            Err(error) => reply(answer, Err(error)),
        }
    }

    pub(super) fn on_lookup(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request:
                    InboundRequest::PutRecord {
                        source,
                        record: Some(record),
                        ..
                    },
            } => {
                if let Some((from, node)) = node_id_of(&source).zip(lookup::about(&record)) {
                    self.offered(from, node, record.value.into());
                }
            }
            kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            } => self.progressed(id, result, step.last),
            // Questions answered, nodes come and gone in buckets. The enum is the library's.
            _ => {}
        }
    }

    /// A peer wants a record stored.
    fn offered(&mut self, from: NodeId, node: NodeId, record: Bytes) {
        let small = record.len() <= self.lookups.max_record;
        let Some(check) = self.lookups.check.clone().filter(|_| small) else {
            return;
        };
        let held = self.held(&node);
        if held.as_ref() != Some(&record) && self.court.admit_record(&from, record.len()) {
            self.check(check, For::Peer(from), node, record, held);
        }
    }

    fn held(&mut self, node: &NodeId) -> Option<Bytes> {
        let kademlia = self.kademlia().ok()?;
        let record = kademlia.store_mut().get(&lookup::key(node))?;
        Some(Bytes::copy_from_slice(&record.value))
    }

    fn check(
        &mut self,
        check: Arc<dyn RecordCheck>,
        what: For,
        node: NodeId,
        record: Bytes,
        held: Option<Bytes>,
    ) {
        let (env, verdicts) = (self.env.clone(), self.verdicts.clone());
        self.env.spawn(async move {
            let copy = record.clone();
            let checking = async move { check.check(node, copy, held).await };
            let checking = AssertUnwindSafe(checking).catch_unwind();
            let timeout = pin!(env.sleep(judging::VERDICT));
            let good = match select(pin!(checking), timeout).await {
                Either::Left((Ok(good), _)) => good,
                Either::Left((Err(_), _)) => {
                    tracing::error!("a check of records panicked");
                    false
                }
                Either::Right(_) => false,
            };
            let checked = Checked {
                what,
                node,
                record,
                good,
            };
            if verdicts.send(Judged::Record(checked)).await.is_err() {
                tracing::trace!("the plane has stopped");
            }
        });
    }

    pub(super) fn on_checked(&mut self, checked: Checked) {
        let Checked {
            what,
            node,
            record,
            good,
        } = checked;
        match what {
            For::Peer(from) => {
                let verdict = if good {
                    Verdict::Accept
                } else {
                    // It may be old, and whoever brings it may not know.
                    Verdict::Ignore
                };
                let booked = self
                    .court
                    .book(self.env.now(), &from, record.len(), verdict);
                debug_assert!(booked.is_ok(), "nobody offends by being ignored");
                if good
                    && let Ok(kademlia) = self.kademlia()
                    && let Err(error) = kademlia.store_mut().put(lookup::record(&node, record))
                {
                    tracing::debug!(%node, %error, "no place for a record");
                }
            }
            For::Query(query) => {
                if let Some(Query::Lookup(lookup)) = self.lookups.queries.get_mut(&query) {
                    let next = lookup.checked(good);
                    self.go_on(query, next);
                }
            }
        }
    }

    fn progressed(&mut self, id: QueryId, result: QueryResult, last: bool) {
        match (self.lookups.queries.get_mut(&id), result) {
            (Some(Query::Lookup(lookup)), QueryResult::GetRecord(result)) => {
                let mut next = Next::Wait;
                if let Ok(kad::GetRecordOk::FoundRecord(found)) = result
                    && lookup::about(&found.record) == Some(lookup.node)
                    && found.record.value.len() <= self.lookups.max_record
                {
                    next = lookup.found(found.record.value.into());
                }
                if last {
                    match lookup.ended() {
                        Next::Wait => {}
                        other => next = other,
                    }
                }
                self.go_on(id, next);
            }
            (Some(Query::Announce(_)), QueryResult::PutRecord(result)) if last => {
                if let Some(Query::Announce(answer)) = self.lookups.queries.remove(&id) {
                    let done = result.map(|_| ());
                    let refused = |error: kad::PutRecordError| error.to_string();
                    reply(
                        answer,
                        done.map_err(|error| ControlError::NotStored(refused(error))),
                    );
                }
            }
            // A query that was answered early.
            _ => {}
        }
        self.tidy();
    }

    fn go_on(&mut self, query: QueryId, next: Next) {
        match next {
            Next::Wait => {}
            Next::Check(record, held) => {
                let Some(Query::Lookup(lookup)) = self.lookups.queries.get(&query) else {
                    return;
                };
                let node = lookup.node;
                if let Some(check) = self.lookups.check.clone() {
                    self.check(check, For::Query(query), node, record, held);
                }
            }
            Next::Answer => {
                if let Ok(kademlia) = self.kademlia()
                    && let Some(mut query) = kademlia.query_mut(&query)
                {
                    query.finish();
                }
                if let Some(Query::Lookup(lookup)) = self.lookups.queries.remove(&query) {
                    lookup.answer();
                }
                self.tidy();
            }
        }
    }

    /// Closes what only queries dialled, once none is under way.
    fn tidy(&mut self) {
        if self.lookups.queries.is_empty() {
            for peer in std::mem::take(&mut self.lookups.errands) {
                if self.swarm.disconnect_peer_id(peer).is_err() {
                    tracing::trace!("it had closed already");
                }
            }
        }
    }
}
