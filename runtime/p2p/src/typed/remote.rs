//! The carrier that takes letters to the other end of a link.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use pqcnet_actor::{
    AskError, Carrier, Letter, Message, Path, Posting, ReplyTo, TellError, TraceCx, Watch,
};
use pqcnet_link::{Addressed, Class, SendError, Wire, cost};
use tokio::sync::Semaphore;

use super::bindings::{link_class, link_trace};
use super::shared::{AskSink, LinkHandle, Sink as _};

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

    fn units(&self, letter: &Letter<M>) -> &Arc<Semaphore> {
        match letter.reply {
            Some(_) => &self.link.shared().ask_units,
            None => &self.credit,
        }
    }

    /// Sends a letter whose units are held, unless the link or its buffer says no.
    fn send(&self, letter: Letter<M>, payload: Bytes) -> Result<(), Unsent<M>> {
        let Letter { msg, trace, reply } = letter;
        match reply {
            None => self.send_tell(msg, trace, payload),
            Some(reply) => self.send_ask(msg, trace, reply, payload),
        }
    }

    fn send_tell(&self, msg: M, trace: TraceCx, payload: Bytes) -> Result<(), Unsent<M>> {
        let shared = self.link.shared();
        let (service, class) = (M::SERVICE, Self::LINK_CLASS);
        let sent =
            shared
                .inner
                .lock()
                .link
                .send_tell(service, M::TYPE, class, link_trace(trace), payload);
        let reply = None;
        match sent {
            Ok(()) => {
                shared.wake();
                Ok(())
            }
            Err(SendError::NoCredit | SendError::AsksFull | SendError::OutboundFull) => {
                Err(Unsent::Full(Letter { msg, trace, reply }))
            }
            Err(error @ (SendError::Closed | SendError::TooLarge | SendError::NotServed(_))) => {
                tracing::debug!(message = M::NAME, %error, "tell not sent");
                Err(Unsent::Closed(Letter { msg, trace, reply }))
            }
        }
    }

    fn send_ask(
        &self,
        msg: M,
        trace: TraceCx,
        reply: ReplyTo<M>,
        payload: Bytes,
    ) -> Result<(), Unsent<M>> {
        let shared = self.link.shared();
        let mut sink = AskSink(reply);
        let now = shared.env().now();
        let mut inner = shared.inner.lock();
        let sent = inner.link.send_ask(
            now,
            M::SERVICE,
            M::TYPE,
            Self::LINK_CLASS,
            link_trace(trace),
            sink.0.timeout(),
            payload,
        );
        let letter = |sink: AskSink<M>| Letter {
            msg,
            trace,
            reply: Some(sink.0),
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
            Err(error @ (SendError::TooLarge | SendError::NotServed(_))) => {
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
            let units = Arc::clone(self.units(&letter));
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
        self.link.shared().watch()
    }
}
