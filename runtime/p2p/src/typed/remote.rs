//! The carrier that takes letters to the other end of a link.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use pqcnet_actor::{
    AskError, Carrier, Incarnation, Letter, Message, Path, Posting, ReplyTo, TellError, TraceCx,
    Watch,
};
use pqcnet_link::{
    Addressed, Class, MAX_COST, Notice, Position, SendError, StreamNotice, To, Wire, cost,
};
use tokio::sync::Semaphore;

use super::bindings::{link_class, link_trace};
use super::events::{EventsEnded, Feed};
use super::shared::{AskSink, LinkHandle, Queue, Sink as _};

pub(super) struct RemoteCarrier<M: Message> {
    link: LinkHandle,
    path: Path,
    credit: Arc<Semaphore>,
    of: PhantomData<fn(M)>,
}

/// What did not leave.
enum Unsent<M: Message> {
    /// Later, perhaps.
    Full(Letter<M>),
    /// Never.
    Closed(Letter<M>),
}

impl<M> RemoteCarrier<M>
where
    M: Message + Addressed,
    M::Reply: Wire,
{
    const LINK_CLASS: Class = match M::CLASS {
        pqcnet_actor::Class::Control => Class::Control,
        pqcnet_actor::Class::Request => Class::Request,
        pqcnet_actor::Class::Bulk => Class::Bulk,
    };

    pub(super) fn new(link: LinkHandle) -> Self {
        RemoteCarrier {
            path: link.shared().path().join(M::NAME),
            credit: link.shared().credit(M::SERVICE, link_class(M::CLASS)),
            link,
            of: PhantomData,
        }
    }

    fn units(&self, letter: &Letter<M>) -> &Semaphore {
        match letter.reply {
            Some(_) => &self.link.shared().ask_units,
            None => &self.credit,
        }
    }

    /// Sends a letter whose units are held, unless the link or its buffer says no.
    fn send(&self, letter: Letter<M>, payload: Bytes) -> Result<(), Unsent<M>> {
        let Letter {
            msg,
            trace,
            reply,
            only,
        } = letter;
        match reply {
            None => self.send_tell(msg, trace, only, payload),
            Some(reply) => self.send_ask(msg, trace, reply, only, payload),
        }
    }

    fn to(only: Option<Incarnation>) -> To {
        To {
            incarnation: only.map_or(0, Incarnation::number),
            ..To::any(M::SERVICE, M::TYPE, Self::LINK_CLASS)
        }
    }

    fn send_tell(
        &self,
        msg: M,
        trace: TraceCx,
        only: Option<Incarnation>,
        payload: Bytes,
    ) -> Result<(), Unsent<M>> {
        let shared = self.link.shared();
        let mut inner = shared.inner.lock();
        let link = &mut inner.link;
        let sent = link.send_tell_to(Self::to(only), link_trace(trace), payload);
        drop(inner);
        let reply = None;
        match sent {
            Ok(()) => {
                shared.wake();
                Ok(())
            }
            Err(SendError::NoCredit | SendError::AsksFull | SendError::OutboundFull) => {
                Err(Unsent::Full(Letter {
                    msg,
                    trace,
                    reply,
                    only,
                }))
            }
            Err(
                error @ (SendError::Closed
                | SendError::TooLarge
                | SendError::NotServed(_)
                | SendError::Unsupported
                | SendError::TooMany),
            ) => {
                tracing::debug!(message = M::NAME, %error, "tell not sent");
                Err(Unsent::Closed(Letter {
                    msg,
                    trace,
                    reply,
                    only,
                }))
            }
        }
    }

    fn send_ask(
        &self,
        msg: M,
        trace: TraceCx,
        reply: ReplyTo<M>,
        only: Option<Incarnation>,
        payload: Bytes,
    ) -> Result<(), Unsent<M>> {
        let shared = self.link.shared();
        let mut sink = AskSink(reply, only);
        let now = shared.env().now();
        let mut inner = shared.inner.lock();
        let (to, trace_on_wire, timeout) = (Self::to(only), link_trace(trace), sink.0.timeout());
        let link = &mut inner.link;
        let sent = link.send_ask_to(now, to, trace_on_wire, timeout, payload);
        let letter = |sink: AskSink<M>| Letter {
            msg,
            trace,
            reply: Some(sink.0),
            only,
        };
        match sent {
            Ok(id) => {
                // An asker that has left already is seen at the next look, which this asks for.
                if sink.poll_left(shared.leaver()) {
                    shared.leaver().wake_by_ref();
                }
                inner.sinks.insert(id, Box::new(sink));
                drop(inner);
                shared.wake();
                Ok(())
            }
            Err(SendError::NoCredit | SendError::AsksFull | SendError::OutboundFull) => {
                Err(Unsent::Full(letter(sink)))
            }
            Err(SendError::Closed) => Err(Unsent::Closed(letter(sink))),
            Err(
                error @ (SendError::TooLarge
                | SendError::NotServed(_)
                | SendError::Unsupported
                | SendError::TooMany),
            ) => {
                drop(inner);
                sink.0.send(Err(AskError::Refused(error.to_string())));
                Ok(())
            }
        }
    }
}

impl<M> Carrier<M> for RemoteCarrier<M>
where
    M: Message + Addressed,
    M::Reply: Wire,
{
    fn post(&self, letter: Letter<M>) -> Result<(), TellError<Letter<M>>> {
        let full = |letter: Letter<M>| match M::CLASS {
            pqcnet_actor::Class::Bulk if letter.reply.is_none() => Ok(()),
            _ => Err(TellError::Full(letter)),
        };
        let units = self.units(&letter);
        if units.is_closed() {
            return Err(TellError::Closed(letter));
        }
        if units.available_permits() == 0 {
            return full(letter);
        }
        let payload = letter.msg.to_wire();
        let Ok(permit) = units.try_acquire_many(cost(payload.len())) else {
            return full(letter);
        };
        match self.send(letter, payload) {
            Ok(()) => {
                permit.forget();
                Ok(())
            }
            Err(Unsent::Full(letter)) => full(letter),
            Err(Unsent::Closed(letter)) => Err(TellError::Closed(letter)),
        }
    }

    fn post_when_free(&self, mut letter: Letter<M>) -> Posting<'_, M> {
        Box::pin(async move {
            let payload = letter.msg.to_wire();
            let units = self.units(&letter);
            let Ok(permit) = units.acquire_many(cost(payload.len())).await else {
                return Err(letter);
            };
            loop {
                // Before the attempt, or a notification in between would be missed.
                let space = self.link.shared().space.notified();
                let mut space = std::pin::pin!(space);
                space.as_mut().enable();
                match self.send(letter, payload.clone()) {
                    Ok(()) => {
                        permit.forget();
                        return Ok(());
                    }
                    Err(Unsent::Closed(back)) => return Err(back),
                    Err(Unsent::Full(back)) => letter = back,
                }
                space.await;
            }
        })
    }

    fn free(&self) -> usize {
        // A message without a reply is told, one with a reply asked.
        if TypeId::of::<M::Reply>() == TypeId::of::<()>() {
            self.credit.available_permits()
        } else {
            self.link.shared().ask_units.available_permits()
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn watch(&self) -> Watch {
        let of = (M::SERVICE, M::TYPE);
        self.link.shared().watch_peer(of, &self.path)
    }
}

/// Units of events that may wait here: one largest event, or so many small ones.
const EVENT_WINDOW: u32 = 2 * MAX_COST;

/// Notices of one subscription at the peer.
pub(super) struct RemoteFeed {
    link: LinkHandle,
    id: u64,
    name: &'static str,
    start: Option<Position>,
}

impl RemoteFeed {
    pub(super) fn open<E: Addressed>(
        link: LinkHandle,
        after: Option<Position>,
    ) -> Result<RemoteFeed, EventsEnded> {
        let name = std::any::type_name::<E>();
        let shared = link.shared();
        let mut inner = shared.inner.lock();
        if let Some(reason) = &inner.down {
            return Err(EventsEnded::LinkLost(reason.to_string()));
        }
        let asked = inner
            .link
            .subscribe(E::SERVICE, E::TYPE, after, EVENT_WINDOW);
        let id = asked.map_err(|error| EventsEnded::from_send(name, error))?;
        inner.followed.insert(id, Queue::default());
        drop(inner);
        shared.wake();
        Ok(RemoteFeed {
            link,
            id,
            name,
            start: None,
        })
    }
}

impl Feed for RemoteFeed {
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Result<Notice, EventsEnded>> {
        let shared = self.link.shared();
        let mut guard = shared.inner.lock();
        let inner = &mut *guard;
        loop {
            let notice = inner.followed.get_mut(&self.id).and_then(|queue| {
                let notice = queue.notices.pop_front();
                if notice.is_none() {
                    queue.reader = Some(cx.waker().clone());
                }
                notice
            });
            match notice {
                Some(StreamNotice::Begun { epoch, next }) => {
                    let number = next - 1;
                    self.start = Some(Position { epoch, number });
                }
                Some(StreamNotice::Notice { notice, units }) => {
                    inner.link.consumed(self.id, units);
                    drop(guard);
                    shared.wake();
                    return Poll::Ready(Ok(notice));
                }
                Some(StreamNotice::Ended { why, detail }) => {
                    inner.followed.remove(&self.id);
                    let ended = EventsEnded::from_wire(self.name, why, detail);
                    return Poll::Ready(Err(ended));
                }
                None => break,
            }
        }
        match &inner.down {
            Some(reason) => Poll::Ready(Err(EventsEnded::LinkLost(reason.to_string()))),
            None if inner.followed.contains_key(&self.id) => Poll::Pending,
            // It has been said before.
            None => Poll::Ready(Err(EventsEnded::Closing)),
        }
    }

    fn start(&self) -> Option<Position> {
        self.start
    }
}

impl Drop for RemoteFeed {
    fn drop(&mut self) {
        let shared = self.link.shared();
        let mut inner = shared.inner.lock();
        inner.followed.remove(&self.id);
        inner.link.unsubscribe(self.id);
        drop(inner);
        shared.wake();
    }
}
