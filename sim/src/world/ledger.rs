//! What happened, in order: a rolling hash, and whoever looks on.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use parking_lot::Mutex;
use pqcnet_actor::Passing;
use pqcnet_actor::hosted::{digest, fold};
use tokio::sync::Notify;

use super::{NodeName, NodeNo, SimTime};

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An actor is about to handle a message.
    Handled,
    /// A link passes on a message, or an answer; length and digest are those of its bytes.
    Passed,
    /// The network has delivered something.
    Network,
    /// Somebody outside of the nodes noted something.
    Noted,
}

impl EventKind {
    fn number(self) -> u64 {
        match self {
            EventKind::Handled => 1,
            EventKind::Passed => 2,
            EventKind::Network => 3,
            EventKind::Noted => 4,
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// Where it comes from.
    pub kind: EventKind,
    /// When.
    pub at: SimTime,
    /// At which node.
    pub node: NodeNo,
    /// Its name.
    pub name: &'a NodeName,
    /// Which actor, or link.
    pub actor: &'a str,
    /// What kind of message.
    pub message: &'a str,
    /// Bytes: on the wire, or in memory for what an actor handles.
    pub len: usize,
    /// Of the bytes on the wire, or of the content that an actor handles (`Message::digest`); 0 where it has none.
    pub digest: u64,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_micros();
        write!(
            f,
            "#{} {}.{:06} s {} {} {:?} {} ({} bytes, {:016x})",
            self.number,
            micros / 1_000_000,
            micros % 1_000_000,
            self.name,
            self.actor,
            self.kind,
            self.message,
            self.len,
            self.digest
        )
    }
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Go,
    /// The actor panics before it sees the message; only for [`EventKind::Handled`].
    Panic,
    /// The link does otherwise with what came; only for [`EventKind::Passed`].
    Tamper(Passing),
    /// The world stops, for this reason.
    Stop(String),
}

/// Looks on. Called for every event while the world runs, so it must be quick, and must not use the world.
pub trait Observer: Send + 'static {
    /// One event.
    fn on_event(&mut self, event: &Event<'_>) -> Verdict;
}

/// The hash over all events of a run so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub u128);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// An event that is remembered for a while.
struct Kept {
    number: u64,
    kind: EventKind,
    at: SimTime,
    node: NodeNo,
    actor: String,
    message: String,
    len: usize,
    digest: u64,
}

/// Takes down what happens.
pub struct Ledger(Mutex<Inner>, Notify);

struct Inner {
    names: Vec<(NodeName, u64)>,
    state: [u64; 2],
    events: u64,
    kinds: [u64; 5],
    observers: Vec<Box<dyn Observer>>,
    last: VecDeque<Kept>,
    keep: usize,
    stop: Option<String>,
    /// Nodes that forward nothing.
    selfish: BTreeSet<NodeNo>,
    /// What they did not forward.
    withheld: u64,
}

/// What is to become of what was taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass(Passing),
    Panic,
}

impl Ledger {
    pub(super) fn new(seed: u64, keep: usize) -> Ledger {
        Ledger(
            Mutex::new(Inner {
                names: Vec::new(),
                state: [seed, !seed],
                events: 0,
                kinds: [0; 5],
                observers: Vec::new(),
                last: VecDeque::new(),
                keep,
                stop: None,
                selfish: BTreeSet::new(),
                withheld: 0,
            }),
            Notify::new(),
        )
    }

    pub(super) fn add(&self, name: NodeName) {
        let hash = digest(name.as_str().as_bytes());
        self.0.lock().names.push((name, hash));
    }

    pub(super) fn observe(&self, observer: Box<dyn Observer>) {
        self.0.lock().observers.push(observer);
    }

    /// Of a node's name.
    pub(crate) fn name_hash(&self, node: NodeNo) -> u64 {
        let inner = self.0.lock();
        inner.names.get(node.index()).map_or(0, |(_, hash)| *hash)
    }

    /// From now on a node forwards nothing that it hears of others, or does so again.
    pub fn set_selfish(&self, node: NodeNo, selfish: bool) {
        let known = &mut self.0.lock().selfish;
        if selfish {
            known.insert(node);
        } else {
            known.remove(&node);
        }
    }

    pub(super) fn forwards(&self, node: NodeNo) -> bool {
        let inner = &mut *self.0.lock();
        let selfish = !inner.selfish.is_empty() && inner.selfish.contains(&node);
        inner.withheld += u64::from(selfish);
        !selfish
    }

    /// What nodes that forward nothing have heard of others and kept to themselves.
    pub fn withheld(&self) -> u64 {
        self.0.lock().withheld
    }

    /// Takes an event down.
    #[expect(clippy::too_many_arguments, reason = "an event is what it is")]
    pub(crate) fn record(
        &self,
        kind: EventKind,
        at: SimTime,
        node: NodeNo,
        actor: &str,
        message: &str,
        len: usize,
        event_digest: u64,
    ) -> Fate {
        let inner = &mut *self.0.lock();
        inner.events += 1;
        let Some((name, name_hash)) = inner.names.get(node.index()) else {
            return Fate::Pass(Passing::Through);
        };
        let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let words = [
            at_ns,
            *name_hash,
            digest(actor.as_bytes()),
            digest(message.as_bytes()),
            u64::try_from(len).unwrap_or(u64::MAX) ^ (kind.number() << 56),
            event_digest,
        ];
        let [mut a, mut b] = inner.state;
        for word in words {
            a = fold(a, word);
            b = fold(b.wrapping_add(a), word.rotate_left(32));
        }
        inner.state = [a, b];
        let counted = usize::try_from(kind.number()).unwrap_or(0);
        if let Some(count) = inner.kinds.get_mut(counted) {
            *count += 1;
        }
        let event = Event {
            number: inner.events,
            kind,
            at,
            node,
            name,
            actor,
            message,
            len,
            digest: event_digest,
        };
        // What is told ends with what stopped the world.
        if inner.keep > 0 && inner.stop.is_none() {
            keep(&mut inner.last, inner.keep, &event);
        }
        let mut fate = Fate::Pass(Passing::Through);
        for observer in &mut inner.observers {
            match observer.on_event(&event) {
                Verdict::Go => {}
                Verdict::Panic if kind == EventKind::Handled => fate = Fate::Panic,
                Verdict::Tamper(how) if kind == EventKind::Passed => fate = Fate::Pass(how),
                Verdict::Panic | Verdict::Tamper(_) => {}
                Verdict::Stop(reason) => {
                    inner.stop.get_or_insert(reason);
                    self.1.notify_one();
                }
            }
        }
        fate
    }

    /// The last events, oldest first, a line each.
    pub fn last_events(&self) -> Vec<String> {
        let inner = self.0.lock();
        let told = inner.last.iter().map(|kept| {
            let unknown = NodeName::new("?");
            let name = inner.names.get(kept.node.index());
            let event = Event {
                number: kept.number,
                kind: kept.kind,
                at: kept.at,
                node: kept.node,
                name: name.map_or(&unknown, |(name, _)| name),
                actor: &kept.actor,
                message: &kept.message,
                len: kept.len,
                digest: kept.digest,
            };
            event.to_string()
        });
        told.collect()
    }

    /// Stops the world at the end of the present tick.
    pub fn stop(&self, reason: impl Into<String>) {
        self.0.lock().stop.get_or_insert_with(|| reason.into());
        self.1.notify_one();
    }

    /// Resolves when the world is to stop.
    pub(super) async fn halted(&self) {
        self.1.notified().await;
    }

    /// Why the world is to stop, if it is.
    pub fn stopped(&self) -> Option<String> {
        self.0.lock().stop.clone()
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> Hash {
        let inner = self.0.lock();
        let [a, b] = inner.state.map(u128::from);
        Hash(a << 64 | b)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.0.lock().events
    }

    /// How many events of a kind there were.
    pub fn events_of(&self, kind: EventKind) -> u64 {
        let at = usize::try_from(kind.number()).unwrap_or(0);
        self.0.lock().kinds.get(at).copied().unwrap_or(0)
    }
}

/// Remembers an event in the place of the oldest, whose memory it takes over.
fn keep(last: &mut VecDeque<Kept>, most: usize, event: &Event<'_>) {
    let (mut actor, mut message) = (String::new(), String::new());
    if last.len() >= most
        && let Some(oldest) = last.pop_front()
    {
        (actor, message) = (oldest.actor, oldest.message);
        actor.clear();
        message.clear();
    }
    actor.push_str(event.actor);
    message.push_str(event.message);
    last.push_back(Kept {
        number: event.number,
        kind: event.kind,
        at: event.at,
        node: event.node,
        actor,
        message,
        len: event.len,
        digest: event.digest,
    });
}
