//! Streams of events: a source here, subscribers here and at other nodes, and what each of them missed.
//!
//! ```text
//!   EventSource<E> ── backlog ─┬─▶ Subscription<E>   here
//!                              └─▶ Driver ══ link ══▶ Subscription<E>   there
//! ```
//!
//! Publishing never waits: an event gets its number and its place in a bounded backlog. A subscriber takes at its own pace; one that
//! falls behind the backlog, or comes back after a while, is told the exact numbers it missed ([`Missed`]).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_link::{
    Addressed, Backlog, BacklogLimits, BadPosition, Cursor, EndedWhy, Missed, Notice as Raw,
    Position, SendError,
};
use rand_core::Rng as _;

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<E> {
    /// The next event.
    Event {
        /// Its place; to be presented when subscribing again.
        position: Position,
        /// It.
        event: E,
    },
    /// These, and only these, it does not get.
    Missed(Missed),
}

/// Why a subscription is over, or did not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventsEnded {
    /// The peer publishes no such events on this link.
    #[error("the peer does not publish {0}")]
    NotServed(&'static str),
    /// The peer refuses them to this node.
    #[error("the peer refuses: {0}")]
    Refused(String),
    /// As many subscriptions as there may be.
    #[error("as many subscriptions as there may be")]
    Limit,
    /// The position presented lies beyond the source's last event.
    #[error("the position lies beyond the last event")]
    BadPosition,
    /// The peer speaks an earlier link version, without subscriptions.
    #[error("the peer's link version has no subscriptions")]
    Unsupported,
    /// The link is closing, here or there.
    #[error("the link is closing")]
    Closing,
    /// The link is gone; subscribe again on another with the last position.
    #[error("the link is gone: {0}")]
    LinkLost(String),
    /// An event is not its type's encoding; the publisher erred.
    #[error("an event is malformed: {0}")]
    Malformed(pqcnet_link::WireError),
    /// A reason of a later version.
    #[error("reason {0}")]
    Unrecognised(i32),
}

impl EventsEnded {
    pub(super) fn from_wire(name: &'static str, why: EndedWhy, detail: String) -> EventsEnded {
        match why {
            EndedWhy::NotServed => EventsEnded::NotServed(name),
            EndedWhy::Refused => EventsEnded::Refused(detail),
            EndedWhy::Limit => EventsEnded::Limit,
            EndedWhy::BadPosition => EventsEnded::BadPosition,
            // The first is our own wish; nobody listens to its answer.
            EndedWhy::Unsubscribed | EndedWhy::Draining => EventsEnded::Closing,
            EndedWhy::Unrecognised(number) => EventsEnded::Unrecognised(number),
            _ => EventsEnded::Unrecognised(0),
        }
    }

    pub(super) fn from_send(name: &'static str, error: SendError) -> EventsEnded {
        match error {
            SendError::NotServed(_) => EventsEnded::NotServed(name),
            SendError::Unsupported => EventsEnded::Unsupported,
            SendError::TooMany => EventsEnded::Limit,
            SendError::Closed
            | SendError::NoCredit
            | SendError::AsksFull
            | SendError::OutboundFull
            | SendError::TooLarge => EventsEnded::Closing,
        }
    }
}

/// Most subscribers of one source, near and far; more are refused.
const MAX_SUBSCRIBERS: usize = 4096;

#[derive(Debug)]
struct State {
    backlog: Backlog,
    last_key: u64,
    subscribers: usize,
    /// Those that have all there is.
    parked: BTreeMap<u64, Waker>,
}

/// A source, its type forgotten: what a link's task pulls from.
#[derive(Debug)]
pub(super) struct Source {
    state: Mutex<State>,
}

/// One subscriber of a [`Source`].
#[derive(Debug)]
pub(super) struct Tap {
    source: Arc<Source>,
    key: u64,
    cursor: Cursor,
}

/// Why a tap was not made.
pub(super) enum NoTap {
    Limit,
    BadPosition(BadPosition),
}

impl Source {
    pub(super) fn tap(self: &Arc<Self>, after: Option<Position>) -> Result<Tap, NoTap> {
        let mut state = self.state.lock();
        if state.subscribers >= MAX_SUBSCRIBERS {
            return Err(NoTap::Limit);
        }
        let cursor = state.backlog.subscribe(after).map_err(NoTap::BadPosition)?;
        state.subscribers += 1;
        state.last_key += 1;
        Ok(Tap {
            source: Arc::clone(self),
            key: state.last_key,
            cursor,
        })
    }

    fn publish(&self, payload: Bytes) -> Position {
        let mut state = self.state.lock();
        let position = state.backlog.publish(payload);
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        parked.into_values().for_each(Waker::wake);
        position
    }
}

impl Tap {
    /// The source's epoch, and the number of what comes first.
    pub(super) fn begin(&self) -> (u64, u64) {
        let epoch = self.source.state.lock().backlog.head().epoch;
        (epoch, self.cursor.next_number())
    }

    /// What comes next; `None`: nothing yet, `waker` is woken when there is.
    pub(super) fn peek(&mut self, waker: &Waker) -> Option<Raw> {
        let mut state = self.source.state.lock();
        let notice = self.cursor.peek(&state.backlog);
        if notice.is_none() {
            state.parked.insert(self.key, waker.clone());
        }
        notice
    }

    pub(super) fn advance(&mut self, notice: &Raw) {
        self.cursor.advance(notice);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut state = self.source.state.lock();
        state.parked.remove(&self.key);
        state.subscribers -= 1;
    }
}

/// Publishes events of one type. Cheap to clone; usable from any thread and from a handler, since it never waits.
pub struct EventSource<E> {
    source: Arc<Source>,
    of: PhantomData<fn(E)>,
}

impl<E> Clone for EventSource<E> {
    fn clone(&self) -> Self {
        EventSource {
            source: Arc::clone(&self.source),
            of: PhantomData,
        }
    }
}

impl<E> std::fmt::Debug for EventSource<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = self.source.state.lock().backlog.head();
        f.debug_tuple("EventSource").field(&head).finish()
    }
}

impl<E: Addressed> EventSource<E> {
    /// A source that remembers so much. Its epoch is random, so another life of it is seen as such.
    pub fn new(env: &Env, limits: BacklogLimits) -> EventSource<E> {
        let epoch = env.rng("events").next_u64();
        let state = State {
            backlog: Backlog::new(epoch, limits),
            last_key: 0,
            subscribers: 0,
            parked: BTreeMap::new(),
        };
        EventSource {
            source: Arc::new(Source {
                state: Mutex::new(state),
            }),
            of: PhantomData,
        }
    }

    /// Numbers an event and passes it on to whoever subscribed.
    pub fn publish(&self, event: &E) -> Position {
        self.source.publish(event.to_wire())
    }

    /// The last event's place.
    pub fn head(&self) -> Position {
        self.source.state.lock().backlog.head()
    }

    /// Subscribers, near and far.
    pub fn subscribers(&self) -> usize {
        self.source.state.lock().subscribers
    }

    /// Subscribes on this node: to what came after `after`, or comes from now on.
    ///
    /// # Errors
    /// As many subscribers as may be, or a position that no event has had.
    pub fn subscribe(&self, after: Option<Position>) -> Result<Subscription<E>, EventsEnded> {
        let tap = self.source.tap(after).map_err(|error| match error {
            NoTap::Limit => EventsEnded::Limit,
            NoTap::BadPosition(_) => EventsEnded::BadPosition,
        })?;
        Ok(Subscription::new(Box::new(tap)))
    }

    pub(super) fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }
}

/// Where a subscription's notices come from.
pub(super) trait Feed: Send {
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Result<Raw, EventsEnded>>;

    /// The place before what comes next, once the source has named it.
    fn start(&self) -> Option<Position>;
}

impl Feed for Tap {
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Result<Raw, EventsEnded>> {
        match self.peek(cx.waker()) {
            Some(notice) => {
                self.advance(&notice);
                Poll::Ready(Ok(notice))
            }
            None => Poll::Pending,
        }
    }

    fn start(&self) -> Option<Position> {
        let (epoch, next) = self.begin();
        let number = next - 1;
        Some(Position { epoch, number })
    }
}

/// Events of one source, on this node or another. Dropping it unsubscribes.
pub struct Subscription<E> {
    feed: Box<dyn Feed>,
    position: Option<Position>,
    of: PhantomData<fn() -> E>,
}

impl<E> std::fmt::Debug for Subscription<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<E: Addressed> Subscription<E> {
    pub(super) fn new(feed: Box<dyn Feed>) -> Subscription<E> {
        Subscription {
            feed,
            position: None,
            of: PhantomData,
        }
    }

    /// The next event or gap. May be dropped half-way without losing anything.
    ///
    /// # Errors
    /// It is over; of a source on this node it never is.
    pub async fn next(&mut self) -> Result<Notice<E>, EventsEnded> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Subscription::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Notice<E>, EventsEnded>> {
        let raw = match self.feed.poll_notice(cx) {
            Poll::Ready(Ok(raw)) => raw,
            Poll::Ready(Err(ended)) => return Poll::Ready(Err(ended)),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(match raw {
            Raw::Item { position, payload } => {
                self.position = Some(position);
                let event = E::from_wire(payload).map_err(EventsEnded::Malformed);
                event.map(|event| Notice::Event { position, event })
            }
            Raw::Missed(missed) => {
                self.position = match missed.last {
                    Some(number) => Some(Position {
                        epoch: missed.epoch,
                        number,
                    }),
                    // The present epoch begins after it.
                    None => self.feed.start(),
                };
                Ok(Notice::Missed(missed))
            }
        })
    }

    /// The place of the last event or gap seen, or where the subscription began: where to subscribe again. None while the source has
    /// said nothing.
    pub fn position(&self) -> Option<Position> {
        self.position.or_else(|| self.feed.start())
    }
}
