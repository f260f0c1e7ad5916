//! Gossip on its way to a verdict: nothing is forwarded before our own code has said so.
//!
//! Each message is judged in a task of its own. A peer has at most [`PENDING`] messages and [`PENDING_BYTES`] bytes there
//! at once; what comes on top is dropped unjudged and not forwarded. Another peer may bring it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_crypto::NodeId;

use super::Offence;

/// Messages of one peer that are being judged at once.
pub const PENDING: usize = 32;
/// Their bytes. gossipsub keeps a second copy of each until it is judged.
pub const PENDING_BYTES: usize = 128 * 1024;
/// A validator that takes longer has ignored the message.
pub const VERDICT: Duration = Duration::from_secs(4);
/// Rejected messages a peer may forward before its connections are closed; one is forgiven each [`FORGIVEN`].
const REJECTS: u32 = 16;
/// An honest node that runs older rules may forward a wrong one now and then.
const FORGIVEN: Duration = Duration::from_secs(30);

/// A message of a topic that this node has not seen, not yet forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Which topic.
    pub topic: String,
    /// Its bytes, signature included.
    pub data: Bytes,
    /// Who forwarded it to us; who wrote it is for its signature to say.
    pub from: NodeId,
}

/// What the validator found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Signed by whoever may; forward it.
    Accept,
    /// Old, or not for us to say; do not forward it.
    Ignore,
    /// Wrong; do not forward it and hold it against its forwarder.
    Reject,
}

/// Judges the messages of a topic, and hands on those it accepts.
///
/// Runs in a task a message, several at once and in no order. A panic, or no verdict within [`VERDICT`], is
/// [`Verdict::Ignore`]. Signatures belong on `Env::offload`.
pub trait Validator: Send + Sync + 'static {
    /// Judges one message.
    fn judge(&self, message: Gossip) -> BoxFuture<'static, Verdict>;
}

impl<F> Validator for F
where
    F: Fn(Gossip) -> BoxFuture<'static, Verdict> + Send + Sync + 'static,
{
    fn judge(&self, message: Gossip) -> BoxFuture<'static, Verdict> {
        self(message)
    }
}

/// What a connected node has done since it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCounters {
    /// Who.
    pub peer: NodeId,
    /// Gossip RPCs it sent.
    pub rpcs: u64,
    /// Messages, subscriptions and control messages in them.
    pub elements: u64,
    /// Bytes of the messages in them.
    pub bytes: u64,
    /// Times it had to wait because its budget was spent.
    pub throttled: u64,
    /// Messages of its that our validators accepted.
    pub accepted: u64,
    /// Ignored.
    pub ignored: u64,
    /// Rejected.
    pub rejected: u64,
    /// Dropped unjudged: too many were being judged, or nobody here judges the topic.
    pub dropped: u64,
    /// Messages for it that it did not read in time.
    pub unread: u64,
}

impl PeerCounters {
    /// Nothing yet.
    pub fn new(peer: NodeId) -> PeerCounters {
        PeerCounters {
            peer,
            rpcs: 0,
            elements: 0,
            bytes: 0,
            throttled: 0,
            accepted: 0,
            ignored: 0,
            rejected: 0,
            dropped: 0,
            unread: 0,
        }
    }
}

/// One peer's messages under judgement.
#[derive(Debug, Default)]
struct Docket {
    messages: usize,
    bytes: usize,
    accepted: u64,
    ignored: u64,
    rejected: u64,
    dropped: u64,
    unread: u64,
    /// Rejected messages not yet forgiven, and when that was last reckoned.
    held: u32,
    reckoned: Duration,
}

impl Docket {
    fn admit(&mut self, size: usize) -> bool {
        let room = self.messages < PENDING && self.bytes + size <= PENDING_BYTES;
        if room {
            self.messages += 1;
            self.bytes += size;
        }
        room
    }
}

/// Who judges what, and how much of each peer is being judged.
#[derive(Default)]
pub struct Court {
    validators: BTreeMap<String, Arc<dyn Validator>>,
    dockets: BTreeMap<NodeId, Docket>,
}

impl Court {
    /// Has a topic's messages judged by this from now on.
    pub fn appoint(&mut self, topic: String, validator: Arc<dyn Validator>) {
        self.validators.insert(topic, validator);
    }

    /// A peer connected.
    pub fn open(&mut self, peer: NodeId) {
        self.dockets.entry(peer).or_default();
    }

    /// Forgets a peer that is gone; verdicts on its messages still count for the messages.
    pub fn close(&mut self, peer: &NodeId) {
        self.dockets.remove(peer);
    }

    /// A place for a message and who judges it; `None` drops it.
    pub fn admit(&mut self, message: &Gossip) -> Option<Arc<dyn Validator>> {
        let validator = self.validators.get(&message.topic).cloned();
        let docket = self.dockets.get_mut(&message.from)?;
        validator
            .filter(|_| docket.admit(message.data.len()))
            .or_else(|| {
                docket.dropped += 1;
                None
            })
    }

    /// A place for a record that a peer wants stored.
    pub fn admit_record(&mut self, from: &NodeId, size: usize) -> bool {
        let docket = self.dockets.get_mut(from);
        docket.is_some_and(|docket| {
            let admitted = docket.admit(size);
            docket.dropped += u64::from(!admitted);
            admitted
        })
    }

    /// Books a verdict on a message of this size that was admitted.
    pub fn book(
        &mut self,
        now: Duration,
        from: &NodeId,
        size: usize,
        verdict: Verdict,
    ) -> Result<(), Offence> {
        let Some(docket) = self.dockets.get_mut(from) else {
            return Ok(());
        };
        // A peer that came back meanwhile has a new docket, which these are not in.
        docket.messages = docket.messages.saturating_sub(1);
        docket.bytes = docket.bytes.saturating_sub(size);
        match verdict {
            Verdict::Accept => docket.accepted += 1,
            Verdict::Ignore => docket.ignored += 1,
            Verdict::Reject => {
                docket.rejected += 1;
                let quiet = now.saturating_sub(docket.reckoned);
                let forgiven = quiet.as_secs() / FORGIVEN.as_secs();
                docket.held = docket
                    .held
                    .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
                    + 1;
                docket.reckoned = now;
                if docket.held > REJECTS {
                    docket.held = 0;
                    return Err(Offence::Rejected);
                }
            }
        }
        Ok(())
    }

    /// Messages for a peer were dropped, since it does not read them.
    pub fn unread(&mut self, peer: &NodeId, messages: u64) {
        if let Some(docket) = self.dockets.get_mut(peer) {
            docket.unread += messages;
        }
    }

    /// Adds what was booked to a peer's counters.
    pub fn count(&self, counters: &mut PeerCounters) {
        if let Some(docket) = self.dockets.get(&counters.peer) {
            counters.accepted = docket.accepted;
            counters.ignored = docket.ignored;
            counters.rejected = docket.rejected;
            counters.dropped = docket.dropped;
            counters.unread = docket.unread;
        }
    }

    /// Those connected, in order.
    pub fn peers(&self) -> Vec<NodeId> {
        self.dockets.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn message(from: u8, size: usize) -> Gossip {
        Gossip {
            topic: "adverts".into(),
            data: Bytes::from(vec![0; size]),
            from: NodeId::from_bytes([from; 32]),
        }
    }

    fn court() -> Court {
        let mut court = Court::default();
        let accept = |_: Gossip| async { Verdict::Accept }.boxed();
        court.appoint("adverts".into(), Arc::new(accept));
        court.open(NodeId::from_bytes([1; 32]));
        court.open(NodeId::from_bytes([2; 32]));
        court
    }

    /// A peer's messages under judgement are bounded in number and bytes, each peer for itself; verdicts make room.
    #[test]
    fn bounded_by_peer() {
        let mut court = court();
        for _ in 0..PENDING {
            assert!(court.admit(&message(1, 10)).is_some());
        }
        assert!(court.admit(&message(1, 10)).is_none());
        assert!(court.admit(&message(2, PENDING_BYTES)).is_some());
        assert!(court.admit(&message(2, 1)).is_none());
        let one = NodeId::from_bytes([1; 32]);
        court
            .book(Duration::ZERO, &one, 10, Verdict::Ignore)
            .unwrap();
        assert!(court.admit(&message(1, 10)).is_some());
        let mut counters = PeerCounters::new(one);
        court.count(&mut counters);
        assert_eq!((counters.ignored, counters.dropped), (1, 1));
    }

    /// A topic that nobody judges, and a peer that is gone, are dropped.
    #[test]
    fn nobody_judges() {
        let mut court = court();
        let mut other = message(1, 1);
        other.topic = "weather".into();
        assert!(court.admit(&other).is_none());
        assert!(court.admit(&message(3, 1)).is_none());
    }

    /// Rejected messages add up to an offence; time forgives.
    #[test]
    fn rejects_add_up() {
        let mut court = court();
        let one = NodeId::from_bytes([1; 32]);
        let mut reject = |now: u64| court.book(Duration::from_secs(now), &one, 1, Verdict::Reject);
        for _ in 0..REJECTS {
            assert_eq!(reject(1), Ok(()));
        }
        assert_eq!(reject(1), Err(Offence::Rejected));
        for n in 0..40 {
            assert_eq!(reject(100 + n * 30), Ok(()));
        }
    }
}
