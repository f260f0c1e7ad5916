//! What a link serves: message types and the refs they go to, events and their sources, and to whom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::{
    AskError, Incarnation, Letter, Message, Ref, ReplyTo, TellError, TraceCx, Watch, Watchable as _,
};
use pqcnet_link::{Addressed, Answer, Class, ServiceId, Trace, Wire, WireError};

use super::Boxed;
use super::access::Access;
use super::events::{EventSource, Source};
use super::inbox::ReliableInbox;

/// Where incoming messages go. A message that is not bound is unknown to the peer: its asks are refused, its tells dropped
/// and counted.
#[derive(Default)]
pub struct Bindings {
    handlers: BTreeMap<(ServiceId, u32), Bound>,
    sources: BTreeMap<(ServiceId, u32), (Arc<Source>, Access)>,
}

/// A message type that is served, and to whom.
pub(super) struct Bound {
    pub(super) handler: Box<dyn Handler>,
    pub(super) access: Access,
    /// Where its sequenced tells are taken, and this link's number there.
    pub(super) inbox: Option<Box<(ReliableInbox, u64)>>,
}

impl Bindings {
    /// Serves nothing.
    pub fn new() -> Bindings {
        Bindings::default()
    }

    /// Lets the peer tell and ask `M`; `to` gets it.
    #[must_use]
    pub fn serve<M>(self, to: Ref<M>) -> Bindings
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        self.serve_if(Access::anyone(), to)
    }

    /// Lets the peer tell, ask and watch `M` if the rule permits it. What is refused is answered with a typed refusal, and
    /// counted: too many end the link.
    #[must_use]
    pub fn serve_if<M>(self, access: Access, to: Ref<M>) -> Bindings
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        self.bind(access, to, None)
    }

    /// As [`Bindings::serve_if`], and takes `M` sequenced ([`super::Reliable`]) too: each once and in order, whatever becomes of
    /// links. `inbox` is the node's.
    #[must_use]
    pub fn serve_reliably<M>(self, access: Access, inbox: &ReliableInbox, to: Ref<M>) -> Bindings
    where
        M: Message<Reply = ()> + Addressed,
    {
        let link = inbox.next_link();
        self.bind(access, to, Some((inbox.clone(), link)))
    }

    fn bind<M>(
        mut self,
        access: Access,
        to: Ref<M>,
        inbox: Option<(ReliableInbox, u64)>,
    ) -> Bindings
    where
        M: Message + Addressed,
        M::Reply: Wire,
    {
        let bound = Bound {
            handler: Box::new(Served { to }),
            access,
            inbox: inbox.map(Box::new),
        };
        self.handlers.insert((M::SERVICE, M::TYPE), bound);
        self
    }

    /// Lets the peer subscribe to the events `E`.
    #[must_use]
    pub fn publish<E: Addressed>(self, source: &EventSource<E>) -> Bindings {
        self.publish_if(Access::anyone(), source)
    }

    /// Lets the peer subscribe to the events `E` if the rule permits it.
    #[must_use]
    pub fn publish_if<E: Addressed>(mut self, access: Access, source: &EventSource<E>) -> Bindings {
        let source = (source.source(), access);
        self.sources.insert((E::SERVICE, E::TYPE), source);
        self
    }

    pub(super) fn source(
        &self,
        service: ServiceId,
        type_id: u32,
    ) -> Option<&(Arc<Source>, Access)> {
        self.sources.get(&(service, type_id))
    }

    pub(super) fn find(&self, service: ServiceId, type_id: u32) -> Option<&Bound> {
        self.handlers.get(&(service, type_id))
    }

    /// The lanes to open and the most room that any of their receivers has now.
    pub(super) fn lanes(&self) -> BTreeMap<(ServiceId, Class), usize> {
        let mut lanes = BTreeMap::new();
        for ((service, _), Bound { handler, .. }) in &self.handlers {
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
    /// Its mailbox is full; the future puts it in, and says whether it is in.
    Parked(Boxed<bool>),
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
    fn tell(&self, payload: Bytes, under: Under, park: bool) -> Result<Told, WireError>;
    fn ask(&self, payload: Bytes, under: Under, remaining: Duration) -> Result<Asked, WireError>;
    fn watch(&self) -> Watch;
}

/// What a message came under.
#[derive(Clone, Copy)]
pub(super) struct Under {
    pub(super) trace: Option<Trace>,
    /// The one incarnation it is for; 0 for any.
    pub(super) incarnation: u64,
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

    fn tell(&self, payload: Bytes, under: Under, park: bool) -> Result<Told, WireError> {
        let letter = Letter {
            msg: M::from_wire(payload)?,
            trace: actor_trace(under.trace),
            reply: None,
            only: Incarnation::from_number(under.incarnation),
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
            let posted = to.post_when_free(letter).await.is_ok();
            if !posted {
                tracing::debug!(message = M::NAME, "receiver gone, tell dropped");
            }
            posted
        })))
    }

    fn ask(&self, payload: Bytes, under: Under, remaining: Duration) -> Result<Asked, WireError> {
        let msg = M::from_wire(payload)?;
        let (reply, pending) = ReplyTo::pair(remaining);
        let letter = Letter {
            msg,
            trace: actor_trace(under.trace),
            reply: Some(reply),
            only: Incarnation::from_number(under.incarnation),
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

    fn watch(&self) -> Watch {
        self.to.watch()
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
        AskError::Stale { present, .. } => Answer::Stale {
            present: present.map_or(0, Incarnation::number),
        },
        // Remote, when the receiver is itself a ref over another link, and what may be added.
        other => Answer::Refused(other.to_string()),
    }
}
