//! Records of nodes: held for others, announced, looked up.
//!
//! As production's Kademlia does it where the role has told it of every node, which it does: the nodes that are nearest to
//! a record's key are asked or told directly, a few at a time. Which further nodes they would name is not modelled. Checks,
//! bounds and how a lookup weighs what it finds are production's code.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use pqcnet_crypto::NodeId;
use pqcnet_p2p::control::judging::VERDICT;
use pqcnet_p2p::control::lookup::{ADDRESSES, HELD, LOOKUPS, Lookup, Next, TIMEOUT};
use pqcnet_p2p::control::{ControlError, LookupConfig, RecordCheck};
use pqcnet_p2p::network::Address;

use super::connect;
use super::peers::{Shared, State, Word};
use crate::gossip::ENVELOPE;
use crate::net::Parcel;

/// Nodes that a record is put at and asked of (Kademlia's k, libp2p's default).
const NEAREST: usize = 20;
/// Asked at once (Kademlia's alpha, libp2p's default).
const AT_ONCE: usize = 3;
/// A request without its record: key and type, twice over in protobuf.
const REQUEST: usize = 80;

/// What one node asks another.
pub(super) enum Question {
    /// Its record of a node.
    Get(NodeId),
    /// To hold a node's record.
    Put(NodeId, Bytes),
}

/// What it is told.
pub(super) enum Reply {
    /// The record, if it holds one.
    Got(Option<Bytes>),
    /// It has the record, and may hold it.
    Put,
}

struct Held {
    record: Bytes,
    until: Duration,
}

/// A plane's part in lookups.
pub(super) struct Lookups {
    config: Option<LookupConfig>,
    check: Option<Arc<dyn RecordCheck>>,
    known: BTreeMap<NodeId, Vec<Address>>,
    held: BTreeMap<NodeId, Held>,
    asked: BTreeMap<(NodeId, u64), oneshot::Sender<Reply>>,
    last: u64,
    running: usize,
    /// Nodes that only a lookup dialled.
    pub(super) errands: BTreeSet<NodeId>,
}

impl Lookups {
    pub(super) fn new(config: Option<LookupConfig>) -> Lookups {
        Lookups {
            config,
            check: None,
            known: BTreeMap::new(),
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: 0,
            running: 0,
            errands: BTreeSet::new(),
        }
    }

    pub(super) fn learn(&mut self, node: NodeId, at: &[Address]) {
        if self.config.is_none() || at.is_empty() {
            self.known.remove(&node);
        } else {
            let at = at.iter().take(ADDRESSES).cloned().collect();
            self.known.insert(node, at);
        }
    }

    pub(super) fn appoint(&mut self, check: Arc<dyn RecordCheck>) -> Result<(), ControlError> {
        self.config.ok_or(ControlError::NoLookup)?;
        self.check = Some(check);
        Ok(())
    }

    /// A peer is gone, and with it what it was asked.
    pub(super) fn gone(&mut self, peer: &NodeId) {
        self.asked.retain(|(of, _), _| of != peer);
    }

    pub(super) fn replied(&mut self, from: &NodeId, number: u64, reply: Reply) {
        if let Some(waiting) = self.asked.remove(&(*from, number))
            && waiting.send(reply).is_err()
        {
            tracing::trace!("nobody waits for it any more");
        }
    }

    fn begin(&mut self) -> Result<(LookupConfig, Arc<dyn RecordCheck>), ControlError> {
        let ready = self.config.zip(self.check.clone());
        let ready = ready.ok_or(ControlError::NoLookup)?;
        if self.running >= LOOKUPS {
            return Err(ControlError::LookupsBusy);
        }
        self.running += 1;
        Ok(ready)
    }

    fn nearest(&self, to: &NodeId) -> Vec<(NodeId, Vec<Address>)> {
        let mut all: Vec<&NodeId> = self.known.keys().collect();
        all.sort_by_cached_key(|node| distance(node, to));
        let nearest = all.into_iter().take(NEAREST);
        let known = |node: &NodeId| self.known.get(node).cloned().unwrap_or_default();
        nearest.map(|node| (*node, known(node))).collect()
    }

    fn record(&self, now: Duration, node: &NodeId) -> Option<Bytes> {
        let held = self.held.get(node).filter(|held| now < held.until);
        held.map(|held| held.record.clone())
    }

    fn hold(&mut self, now: Duration, node: NodeId, record: Bytes) {
        self.held.retain(|_, held| now < held.until);
        let most = self.config.map_or(0, |config| config.max_records);
        if self.held.len() < most || self.held.contains_key(&node) {
            let until = now + HELD;
            self.held.insert(node, Held { record, until });
        }
    }
}

/// Kademlia's distance: the keys' hashes, one over the other.
fn distance(a: &NodeId, b: &NodeId) -> [u8; 32] {
    let hash = |node: &NodeId| pqcnet_crypto::sha256(&[node.as_bytes()]);
    let (mut a, b) = (hash(a), hash(b));
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= b;
    }
    a
}

/// A lookup or announcement under way; the last one closes what only such dialled.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.lookups.running -= 1;
        if state.lookups.running == 0 {
            for peer in std::mem::take(&mut state.lookups.errands) {
                self.0.disconnect(&mut state, &peer);
            }
        }
    }
}

/// Puts this node's own record at the nearest nodes.
pub(super) async fn announce(shared: Arc<Shared>, record: Bytes) -> Result<(), ControlError> {
    let own = shared.config.security.node_id();
    let (running, nearest) = {
        let mut state = shared.lock();
        let (config, _) = state.lookups.begin()?;
        let running = Running(shared.clone());
        let (size, max) = (record.len(), config.max_record);
        let nearest = state.lookups.nearest(&own);
        drop(state);
        if size > max {
            return Err(ControlError::TooLarge { size, max });
        }
        (running, nearest)
    };
    let puts = nearest.into_iter().map(|(node, at)| {
        let question = Question::Put(own, record.clone());
        ask(shared.clone(), node, at, question)
    });
    let mut puts: FuturesUnordered<_> = puts.collect();
    let all = async {
        let mut took = 0;
        while let Some(reply) = puts.next().await {
            took += usize::from(reply.is_some());
        }
        took
    };
    let timeout = pin!(shared.env.sleep(TIMEOUT));
    let took = match select(pin!(all), timeout).await {
        Either::Left((took, _)) => took,
        Either::Right(_) => 0,
    };
    drop(running);
    if took == 0 {
        let why = "no node that is known has answered".to_owned();
        return Err(ControlError::NotStored(why));
    }
    Ok(())
}

/// A node's newest record.
pub(super) async fn look_up(
    shared: Arc<Shared>,
    node: NodeId,
) -> Result<Option<Bytes>, ControlError> {
    let (running, max, check, nearest, here) = {
        let mut state = shared.lock();
        let (config, check) = state.lookups.begin()?;
        let running = Running(shared.clone());
        let here = state.lookups.record(shared.env.now(), &node);
        let nearest = state.lookups.nearest(&node);
        (running, config.max_record, check, nearest, here)
    };
    let (answer, mut answered) = oneshot::channel();
    let mut lookup = Lookup::new(node, answer);
    let mut rest = nearest.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut timeout = pin!(shared.env.sleep(TIMEOUT));
    let mut next = here.map_or(Next::Wait, |record| lookup.found(record));
    let mut over = false;
    loop {
        while let Next::Check(record, held) = next {
            let good = judged(&shared, check.as_ref(), node, record, held).await;
            next = lookup.checked(good);
        }
        if next == Next::Answer || over {
            lookup.answer();
            break;
        }
        while asked.len() < AT_ONCE
            && let Some((peer, at)) = rest.next()
        {
            asked.push(ask(shared.clone(), peer, at, Question::Get(node)));
        }
        next = match select(asked.next(), timeout.as_mut()).await {
            Either::Left((Some(Some(Reply::Got(Some(record)))), _)) if record.len() <= max => {
                lookup.found(record)
            }
            Either::Left((Some(_), _)) => Next::Wait,
            Either::Left((None, _)) | Either::Right(_) => {
                over = true;
                lookup.ended()
            }
        };
    }
    drop(asked);
    drop(running);
    match answered.try_recv() {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => Ok(None),
    }
}

async fn judged(
    shared: &Shared,
    check: &dyn RecordCheck,
    node: NodeId,
    record: Bytes,
    held: Option<Bytes>,
) -> bool {
    let checking = async { check.check(node, record, held).await };
    let checking = AssertUnwindSafe(checking).catch_unwind();
    let timeout = pin!(shared.env.sleep(VERDICT));
    match select(pin!(checking), timeout).await {
        Either::Left((Ok(good), _)) => good,
        Either::Left((Err(_), _)) => {
            tracing::error!("a check of records panicked");
            false
        }
        Either::Right(_) => false,
    }
}

/// Asks a node, which is dialled if it must be.
async fn ask(
    shared: Arc<Shared>,
    node: NodeId,
    at: Vec<Address>,
    question: Question,
) -> Option<Reply> {
    if !shared.lock().known.contains_key(&node) {
        connect::dial(&shared, node, &at).await.ok()?;
        shared.lock().lookups.errands.insert(node);
    }
    let waiting = {
        let mut state = shared.lock();
        state.lookups.last += 1;
        let number = state.lookups.last;
        let (reply, waiting) = oneshot::channel();
        let (what, carried) = match &question {
            Question::Get(_) => ("get record", 0),
            Question::Put(_, record) => ("put record", record.len()),
        };
        let parcel = Parcel {
            bytes: ENVELOPE + REQUEST + carried,
            what,
            digest: number,
            body: Box::new(Word::Ask(number, question)),
        };
        if !shared.post(&state, &node, parcel) {
            return None;
        }
        state.lookups.asked.insert((node, number), reply);
        waiting
    };
    waiting.await.ok()
}

/// A peer asks.
pub(super) fn asked(
    shared: &Arc<Shared>,
    state: &mut State,
    from: NodeId,
    number: u64,
    question: Question,
) {
    let takes_part = state.known.get(&from).is_some_and(|known| known.gossips);
    if !takes_part || state.lookups.config.is_none() {
        return;
    }
    let (reply, carried) = match question {
        Question::Get(node) => {
            let found = state.lookups.record(shared.env.now(), &node);
            let carried = found.as_ref().map_or(0, Bytes::len);
            (Reply::Got(found), carried)
        }
        Question::Put(node, record) => {
            let carried = record.len();
            offered(shared, state, from, node, record);
            (Reply::Put, carried)
        }
    };
    let parcel = Parcel {
        bytes: ENVELOPE + REQUEST + carried,
        what: "record",
        digest: number,
        body: Box::new(Word::Reply(number, reply)),
    };
    shared.post(state, &from, parcel);
}

/// A peer wants a record stored.
fn offered(shared: &Arc<Shared>, state: &mut State, from: NodeId, node: NodeId, record: Bytes) {
    let small = state
        .lookups
        .config
        .is_some_and(|config| record.len() <= config.max_record);
    let Some(check) = state.lookups.check.clone().filter(|_| small) else {
        return;
    };
    let held = state.lookups.record(shared.env.now(), &node);
    if held.as_ref() == Some(&record) || !shared.admit_record(state, &from, record.len()) {
        return;
    }
    let shared = shared.clone();
    let env = shared.env.clone();
    env.spawn(async move {
        let good = judged(&shared, check.as_ref(), node, record.clone(), held).await;
        let mut state = shared.lock();
        shared.book_record(&mut state, &from, record.len(), good);
        if good {
            state.lookups.hold(shared.env.now(), node, record);
        }
    });
}
