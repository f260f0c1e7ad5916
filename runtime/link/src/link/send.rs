//! What this side sends: tells, asks, replies.

use std::time::Duration;

use bytes::Bytes;
use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use super::{Link, REPLY_OVERHEAD, State};
use crate::config::{MAX_ASK_TIME, PeerHello, cost};
use crate::error::SendError;
use crate::event::{Answer, answer_to_proto};
use crate::frame;
use crate::ids::{Class, ServiceId, Trace};

/// Whom a tell or an ask is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// The service.
    pub service: ServiceId,
    /// The message's number there.
    pub type_id: u32,
    /// Its class.
    pub class: Class,
    /// The one incarnation of the receiver that it is for; 0 for any. A peer of link version 1 would not look at it, so nothing is sent
    /// to one.
    pub incarnation: u64,
}

impl To {
    /// Any incarnation.
    pub fn any(service: ServiceId, type_id: u32, class: Class) -> To {
        To {
            service,
            type_id,
            class,
            incarnation: 0,
        }
    }
}

impl Link {
    pub(super) fn may_send(&self, service: ServiceId) -> Result<&PeerHello, SendError> {
        let peer = match (&self.peer, self.state) {
            (Some(peer), State::Open) => peer,
            _ => return Err(SendError::Closed),
        };
        if peer.services.binary_search(&service).is_err() {
            return Err(SendError::NotServed(service));
        }
        Ok(peer)
    }

    fn may_send_to(&self, to: To) -> Result<&PeerHello, SendError> {
        let peer = self.may_send(to.service)?;
        if to.incarnation != 0 && peer.version < 2 {
            return Err(SendError::Unsupported);
        }
        Ok(peer)
    }

    /// Queues a tell for any incarnation; it costs [`cost`] of its payload.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_tell(
        &mut self,
        service: ServiceId,
        type_id: u32,
        class: Class,
        trace: Option<Trace>,
        payload: Bytes,
    ) -> Result<(), SendError> {
        self.send_tell_to(To::any(service, type_id, class), trace, payload)
    }

    /// Queues a tell; it costs [`cost`] of its payload.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_tell_to(
        &mut self,
        to: To,
        trace: Option<Trace>,
        payload: Bytes,
    ) -> Result<(), SendError> {
        self.may_send_to(to)?;
        let units = cost(payload.len());
        let kind = Kind::Tell(pb::Tell {
            service: to.service.0,
            r#type: to.type_id,
            class: to.class as i32,
            trace: frame::trace_to_proto(trace),
            payload,
            incarnation: to.incarnation,
        });
        self.spend_and_put(to.service, to.class, units, kind)
    }

    /// Queues a frame that costs credit of a service and class.
    pub(super) fn spend_and_put(
        &mut self,
        service: ServiceId,
        class: Class,
        units: u32,
        kind: Kind,
    ) -> Result<(), SendError> {
        let max_frame = self.may_send(service)?.max_frame;
        let frame = frame::of(kind);
        let len = frame::len(&frame);
        if len > max_frame as usize {
            return Err(SendError::TooLarge);
        }
        if self.outbound() >= self.config.limits.max_outbound {
            return Err(SendError::OutboundFull);
        }
        if !self.granted.spend((service, class), units) {
            return Err(SendError::NoCredit);
        }
        self.put(class, &frame, len);
        Ok(())
    }

    /// Queues an ask for any incarnation; see [`Link::send_ask_to`].
    ///
    /// # Errors
    /// Nothing was sent.
    #[expect(clippy::too_many_arguments, reason = "the fields of the frame")]
    pub fn send_ask(
        &mut self,
        now: Duration,
        service: ServiceId,
        type_id: u32,
        class: Class,
        trace: Option<Trace>,
        timeout: Duration,
        payload: Bytes,
    ) -> Result<u64, SendError> {
        let to = To::any(service, type_id, class);
        self.send_ask_to(now, to, trace, timeout, payload)
    }

    /// Queues an ask; returns its id. It ends with exactly one [`Event::Answer`](crate::Event::Answer), unless cancelled or the link
    /// goes down.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_ask_to(
        &mut self,
        now: Duration,
        to: To,
        trace: Option<Trace>,
        timeout: Duration,
        payload: Bytes,
    ) -> Result<u64, SendError> {
        let peer = self.may_send_to(to)?;
        let (max_frame, window) = (peer.max_frame, peer.ask_window);
        let timeout = timeout.min(MAX_ASK_TIME);
        let units = cost(payload.len());
        let frame = frame::of(Kind::Ask(pb::Ask {
            id: self.sent.next_id(),
            service: to.service.0,
            r#type: to.type_id,
            class: to.class as i32,
            remaining_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            trace: frame::trace_to_proto(trace),
            payload,
            incarnation: to.incarnation,
        }));
        let len = frame::len(&frame);
        if len > max_frame as usize {
            return Err(SendError::TooLarge);
        }
        if self.outbound() >= self.config.limits.max_outbound {
            return Err(SendError::OutboundFull);
        }
        if self.sent.used().saturating_add(units) > window {
            return Err(SendError::AsksFull);
        }
        let id = self.sent.add(units, now + timeout);
        self.put(to.class, &frame, len);
        Ok(id)
    }

    /// Gives an ask up; its answer will not be heard of.
    pub fn cancel(&mut self, id: u64) {
        if self.sent.forget(id) && self.state != State::Down {
            self.push(Class::Control, Kind::Cancel(pb::Cancel { id }));
        }
    }

    /// Answers an ask of the peer. Nothing happens if it was cancelled, or answered before.
    pub fn send_reply(&mut self, id: u64, answer: Answer) {
        let Some((units, class)) = self.received.close(id) else {
            return;
        };
        if self.state == State::Down {
            return;
        }
        let mut reply = answer_to_proto(id, answer);
        let limit = self.peer.as_ref().map_or(0, |peer| peer.max_frame) as usize;
        if reply.payload.len() + REPLY_OVERHEAD > limit {
            reply.status = pb::Status::ReplyTooLarge.into();
            reply.payload = Bytes::new();
        }
        self.push_reply(class, units, reply);
    }
}
