//! What a link serves: message types and the refs they go to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{AskError, Letter, Message, Ref, ReplyTo, TellError, TraceCx};
use pqcnet_link::{Addressed, Answer, Class, ServiceId, Trace, Wire, WireError};

use super::Boxed;

/// Where incoming messages go. A message that is not bound is unknown to the peer: its asks are refused, its tells dropped
/// and counted.
#[derive(Default)]
pub struct Bindings {
    handlers: BTreeMap<(ServiceId, u32), Box<dyn Handler>>,
}

impl Bindings {
    /// Serves nothing.
    pub fn new() -> Bindings {
        Bindings::default()
    }

    /// Lets the peer tell and ask `M`; `to` gets it.
    #[must_use]
    pub fn serve<M>(mut self, to: Ref<M>) -> Bindings
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        let key = (M::SERVICE, M::TYPE);
        self.handlers.insert(key, Box::new(Served { to }));
        self
    }

    pub(super) fn find(&self, service: ServiceId, type_id: u32) -> Option<&dyn Handler> {
        self.handlers.get(&(service, type_id)).map(AsRef::as_ref)
    }

    /// The lanes to open and the most room that any of their receivers has now.
    pub(super) fn lanes(&self) -> BTreeMap<(ServiceId, Class), usize> {
        let mut lanes = BTreeMap::new();
        for ((service, _), handler) in &self.handlers {
            let room: &mut usize = lanes.entry((*service, handler.class())).or_default();
            *room = (*room).max(handler.free());
        }
        lanes
    }
}

pub(super) fn link_class(class: pqcnet_actor::Class) -> Class {
    match class {
        pqcnet_actor::Class::Control => Class::Control,
        pqcnet_actor::Class::Request => Class::Request,
        pqcnet_actor::Class::Bulk => Class::Bulk,
    }
}

pub(super) fn link_trace(trace: TraceCx) -> Option<Trace> {
    let TraceCx {
        trace_id,
        span_id,
        sampled,
    } = trace;
    (trace != TraceCx::NONE).then_some(Trace {
        trace_id,
        span_id,
        sampled,
    })
}

fn actor_trace(trace: Option<Trace>) -> TraceCx {
    trace.map_or(TraceCx::NONE, |trace| TraceCx {
        trace_id: trace.trace_id,
        span_id: trace.span_id,
        sampled: trace.sampled,
    })
}

/// What became of a tell.
pub(super) enum Told {
    /// In its mailbox.
    Taken,
    /// Its mailbox is full; the future puts it in.
    Parked(Boxed<()>),
    /// The receiver is gone.
    Gone,
}

/// What became of an ask.
pub(super) enum Asked {
    /// In its mailbox; the future is the answer.
    Taken(Boxed<Answer>),
    /// Not taken.
    Not(Answer),
}

/// One served message type.
pub(super) trait Handler: Send + Sync {
    fn name(&self) -> &'static str;
    fn class(&self) -> Class;
    fn free(&self) -> usize;
    fn tell(&self, payload: Bytes, trace: Option<Trace>, park: bool) -> Result<Told, WireError>;
    fn ask(
        &self,
        payload: Bytes,
        trace: Option<Trace>,
        remaining: Duration,
    ) -> Result<Asked, WireError>;
}

struct Served<M: Message> {
    to: Ref<M>,
}

impl<M> Handler for Served<M>
where
    M: Message + Addressed,
    M::Reply: Wire,
{
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn class(&self) -> Class {
        link_class(M::CLASS)
    }

    fn free(&self) -> usize {
        self.to.free()
    }

    fn tell(&self, payload: Bytes, trace: Option<Trace>, park: bool) -> Result<Told, WireError> {
        let letter = Letter {
            msg: M::from_wire(payload)?,
            trace: actor_trace(trace),
            reply: None,
        };
        let letter = if park {
            letter
        } else {
            match self.to.post(letter) {
                Ok(()) => return Ok(Told::Taken),
                Err(TellError::Closed(_)) => return Ok(Told::Gone),
                Err(TellError::Full(letter)) => letter,
            }
        };
        let to = self.to.clone();
        Ok(Told::Parked(Box::pin(async move {
            if to.post_when_free(letter).await.is_err() {
                tracing::debug!(message = M::NAME, "receiver gone, tell dropped");
            }
        })))
    }

    fn ask(
        &self,
        payload: Bytes,
        trace: Option<Trace>,
        remaining: Duration,
    ) -> Result<Asked, WireError> {
        let msg = M::from_wire(payload)?;
        let (reply, pending) = ReplyTo::pair(remaining);
        let letter = Letter {
            msg,
            trace: actor_trace(trace),
            reply: Some(reply),
        };
        Ok(match self.to.post(letter) {
            Ok(()) => Asked::Taken(Box::pin(async move {
                match pending.await {
                    Ok(reply) => Answer::Ok(reply.to_wire()),
                    Err(error) => answer_of(error),
                }
            })),
            Err(TellError::Full(_)) => Asked::Not(Answer::Busy),
            Err(TellError::Closed(_)) => Asked::Not(Answer::Closed),
        })
    }
}

fn answer_of(error: AskError) -> Answer {
    match error {
        AskError::Busy => Answer::Busy,
        AskError::Timeout => Answer::Timeout,
        AskError::Closed => Answer::Closed,
        AskError::Panicked => Answer::Panicked,
        AskError::Abandoned => Answer::Abandoned,
        AskError::Refused(why) => Answer::Refused(why),
        // Remote, when the receiver is itself a ref over another link, and what may be added.
        other => Answer::Refused(other.to_string()),
    }
}
