//! Where a node takes sequenced tells: one memory for all links, so that a message that comes again over another link is known.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_link::AckState;
use pqcnet_link::reliable::{Inbox, Verdict};
use rand_core::Rng as _;

use super::Boxed;
use super::bindings::Told;

/// Streams remembered, and of one peer: a peer has one a message type it sends reliably.
const MAX_STREAMS: usize = 4096;
const MAX_STREAMS_EACH: usize = 64;

/// Remembers how far each sender's stream was taken. One a node; cheap to clone. A node that restarts has a new one, and senders
/// learn which of their messages it may or may not have taken.
#[derive(Clone, Debug)]
pub struct ReliableInbox {
    inbox: Arc<Mutex<Inbox<NodeId>>>,
    links: Arc<AtomicU64>,
}

/// One sequenced tell, and the link that brought it.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) link: u64,
    pub(super) peer: NodeId,
    pub(super) stream: u64,
    pub(super) number: u64,
}

/// What became of a sequenced tell.
pub(super) enum Outcome {
    /// Say this.
    Say(AckState, u64),
    /// It waits for its mailbox; the future says whether it is in.
    Parked(Boxed<bool>),
}

impl ReliableInbox {
    /// Remembers nothing.
    pub fn new(env: &Env) -> ReliableInbox {
        let life = env.rng("inbox").next_u64();
        ReliableInbox {
            inbox: Arc::new(Mutex::new(Inbox::new(life, MAX_STREAMS, MAX_STREAMS_EACH))),
            links: Arc::default(),
        }
    }

    /// The number of a link that comes up now.
    pub(super) fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the link that brought it still has its stream.
    pub(super) fn has(&self, arrival: Arrival) -> bool {
        let Arrival {
            link, peer, stream, ..
        } = arrival;
        self.inbox.lock().has(link, peer, stream)
    }

    pub(super) fn life(&self) -> u64 {
        self.inbox.lock().life()
    }

    /// Takes it, once; `tell` puts it into its mailbox. Both happen under one lock, so that no other link can bring it in between.
    pub(super) fn arrived<E>(
        &self,
        arrival: Arrival,
        life: u64,
        tell: impl FnOnce() -> Result<Told, E>,
    ) -> Result<Outcome, E> {
        let Arrival {
            link,
            peer,
            stream,
            number,
        } = arrival;
        let mut inbox = self.inbox.lock();
        match inbox.arrived(link, peer, stream, number, life) {
            Verdict::Say(state, number) => Ok(Outcome::Say(state, number)),
            Verdict::Take => Ok(match tell()? {
                Told::Taken => {
                    inbox.taken(link, peer, stream, number);
                    Outcome::Say(AckState::Taken, number)
                }
                Told::Parked(posting) => Outcome::Parked(self.guarded(arrival, posting)),
                Told::Gone => Outcome::Say(gone(), number - 1),
            }),
        }
    }

    /// Puts it into its mailbox only while its link has the stream.
    fn guarded(&self, arrival: Arrival, mut posting: Boxed<bool>) -> Boxed<bool> {
        let inbox = Arc::clone(&self.inbox);
        let Arrival {
            link,
            peer,
            stream,
            number,
        } = arrival;
        Box::pin(poll_fn(move |cx| {
            let mut inbox = inbox.lock();
            if !inbox.has(link, peer, stream) {
                return Poll::Ready(false);
            }
            let posted = posting.as_mut().poll(cx);
            if posted == Poll::Ready(true) {
                inbox.taken(link, peer, stream, number);
            }
            posted
        }))
    }
}

/// What to say of a receiver that has stopped.
pub(super) fn gone() -> AckState {
    AckState::Refused("its receiver has stopped".to_owned())
}
