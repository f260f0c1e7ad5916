//! Subscriptions, watches and sequenced tells: frames of link version 2.

use pqcnet_protos::link::v1::{self as pb, event, frame::Kind};

mod receive;

use super::{Link, State, To};
use crate::config::{MAX_COST, MAX_WINDOW, cost};
use crate::error::{Fault, SendError};
use crate::event::{AckState, DroppedWhy, EndedWhy, Fate};
use crate::event_log::{Notice, Position};
use crate::frame;
use crate::ids::{Class, ServiceId, Trace};
use crate::reliable::Outgoing;
use crate::streams::{MAX_SUBSCRIPTIONS, MAX_WATCHES};

/// The link version that has these frames.
const SINCE: u32 = 2;
/// Events are queued only while fewer bytes than this wait for the socket: they are the last to be sent anyway, and what
/// is not queued yet can still be skipped.
const EVENTS_AHEAD: usize = 256 * 1024;
/// Bytes of answers to frames that cost the peer nothing, while it reads none of them.
const MAX_UNPAID: usize = 256 * 1024;

impl Link {
    fn may_send_new(&self, service: ServiceId) -> Result<(), SendError> {
        if self.may_send(service)?.version < SINCE {
            return Err(SendError::Unsupported);
        }
        Ok(())
    }

    /// Queues an answer to a frame that cost the peer nothing.
    fn push_unpaid(&mut self, class: Class, kind: Kind) -> Result<(), Fault> {
        let before = self.outbound();
        self.push(class, kind);
        self.unpaid += self.outbound() - before;
        if self.unpaid > MAX_UNPAID {
            return Err(Fault::NotReading);
        }
        Ok(())
    }

    /// Subscribes to the events of (service, type): what comes after `after`, or from now on. `window` units of them may be under way
    /// and unconsumed. What comes of it are [`Event::Notice`]s; the last is [`StreamNotice::Ended`], unless the link goes down.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn subscribe(
        &mut self,
        service: ServiceId,
        type_id: u32,
        after: Option<Position>,
        window: u32,
    ) -> Result<u64, SendError> {
        self.may_send_new(service)?;
        if self.following.len() >= MAX_SUBSCRIPTIONS {
            return Err(SendError::TooMany);
        }
        let window = window.clamp(MAX_COST, MAX_WINDOW);
        let id = self.following.add(after, window);
        let (epoch, after) = after.map_or((0, 0), |had| (had.epoch, had.number));
        let subscribe = pb::Subscribe {
            id,
            service: service.0,
            r#type: type_id,
            epoch,
            after,
            window,
        };
        self.push(Class::Control, Kind::Subscribe(subscribe));
        Ok(id)
    }

    /// Events of a subscription have left this side's queue: so many units may be used again.
    pub fn consumed(&mut self, id: u64, units: u32) {
        if self.state == State::Down {
            return;
        }
        if let Some(units) = self.following.consumed(id, units) {
            let consumed = pb::Consumed {
                subscription: id,
                units,
            };
            self.push(Class::Control, Kind::Consumed(consumed));
        }
    }

    /// Gives a subscription up; no more is heard of it.
    pub fn unsubscribe(&mut self, id: u64) {
        if self.following.close(id) && self.state != State::Down {
            let unsubscribe = pb::Unsubscribe { subscription: id };
            self.push(Class::Control, Kind::Unsubscribe(unsubscribe));
        }
    }

    /// The peer's subscription begins, with this number next. The first answer to [`Event::Subscribe`].
    pub fn begin_subscription(&mut self, id: u64, epoch: u64, next: u64) {
        if self.followed.credit(id).is_some() && self.state != State::Down {
            let begun = event::Kind::Begun(pb::Begun { epoch, next });
            self.push_event(id, begun);
        }
    }

    /// Sends the peer's subscription its next notice.
    ///
    /// # Errors
    /// Nothing was sent. `TooLarge`: this event never will be, so its number is a gap.
    pub fn send_notice(&mut self, id: u64, notice: &Notice) -> Result<(), SendError> {
        let max_frame = match (&self.peer, self.state) {
            (Some(peer), State::Open | State::Draining) => peer.max_frame as usize,
            _ => return Err(SendError::Closed),
        };
        if self.followed.credit(id).is_none() {
            return Err(SendError::Closed);
        }
        if self.outbound() >= EVENTS_AHEAD.min(self.config.limits.max_outbound) {
            return Err(SendError::OutboundFull);
        }
        let (units, kind) = match notice {
            Notice::Item { position, payload } => {
                if payload.len() + super::REPLY_OVERHEAD > max_frame {
                    return Err(SendError::TooLarge);
                }
                let item = pb::Item {
                    number: position.number,
                    payload: payload.clone(),
                };
                (cost(payload.len()), event::Kind::Item(item))
            }
            Notice::Missed(missed) => {
                let gap = pb::Gap {
                    epoch: missed.epoch,
                    first: missed.first,
                    last: missed.last.unwrap_or(0),
                };
                (1, event::Kind::Gap(gap))
            }
        };
        if !self.followed.spend(id, units) {
            return Err(SendError::NoCredit);
        }
        self.push_event(id, kind);
        Ok(())
    }

    /// Ends the peer's subscription.
    pub fn end_subscription(&mut self, id: u64, why: EndedWhy, detail: &str) {
        if matches!(self.followed.close(id), Ok(true)) && self.state != State::Down {
            self.push_ended(id, why, detail);
        }
    }

    fn push_ended(&mut self, id: u64, why: EndedWhy, detail: &str) {
        let why = why.to_proto();
        let detail = frame::detail(detail);
        self.push_event(id, event::Kind::Ended(pb::Ended { why, detail }));
    }

    fn push_event(&mut self, id: u64, kind: event::Kind) {
        let kind = Some(kind);
        let event = pb::Event {
            subscription: id,
            kind,
        };
        // All of a subscription in one lane, in order; the last lane, since events are never urgent.
        self.push(Class::Bulk, Kind::Event(event));
    }

    /// Watches whoever serves (service, type) at the peer. What becomes of it are [`Event::Fate`]s: present, then its end.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn watch(&mut self, service: ServiceId, type_id: u32) -> Result<u64, SendError> {
        self.may_send_new(service)?;
        if self.watching.len() >= MAX_WATCHES {
            return Err(SendError::TooMany);
        }
        let id = self.watching.begin();
        let watch = pb::Watch {
            id,
            service: service.0,
            r#type: type_id,
        };
        self.push(Class::Control, Kind::Watch(watch));
        Ok(id)
    }

    /// Gives a watch up; no more is heard of it.
    pub fn unwatch(&mut self, id: u64) {
        if self.watching.end(id) && self.state != State::Down {
            self.push(Class::Control, Kind::Unwatch(pb::Unwatch { id }));
        }
    }

    /// Tells the peer what became of what it watches. All but [`Fate::Present`] end the watch.
    pub fn send_fate(&mut self, id: u64, fate: Fate) {
        if !self.watched.is_open(id) || self.state == State::Down {
            return;
        }
        if !matches!(fate, Fate::Present(_)) {
            self.watched.end(id);
        }
        self.push(Class::Control, Kind::Fate(fate.to_proto(id)));
    }

    /// Whether sequenced tells can be sent to a service of the peer.
    ///
    /// # Errors
    /// Why not.
    pub fn may_sequence(&self, service: ServiceId) -> Result<(), SendError> {
        self.may_send_new(service)
    }

    /// Queues a sequenced tell; it costs [`cost`] of its payload. What becomes of it is an [`Event::Ack`], perhaps on another link.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_sequenced(
        &mut self,
        out: Outgoing,
        to: To,
        trace: Option<Trace>,
    ) -> Result<(), SendError> {
        self.may_send_new(to.service)?;
        let units = cost(out.payload.len());
        let kind = Kind::Sequenced(pb::Sequenced {
            stream: out.stream,
            number: out.number,
            life: out.life,
            service: to.service.0,
            r#type: to.type_id,
            class: to.class as i32,
            trace: frame::trace_to_proto(trace),
            payload: out.payload,
        });
        self.spend_and_put(to.service, to.class, units, kind)
    }

    /// Acknowledges a sequenced stream of the peer. Only the last word counts, so it waits for the next bytes to be sent.
    pub fn send_ack(&mut self, stream: u64, state: AckState, number: u64, life: u64) {
        if self.state != State::Down {
            self.acks.insert(stream, (state, number, life));
        }
    }

    /// Says that a tell of the peer was not taken.
    pub fn send_dropped(&mut self, service: ServiceId, type_id: u32, why: DroppedWhy) {
        let new = self.peer.as_ref().is_some_and(|peer| peer.version >= SINCE);
        let open = matches!(self.state, State::Open | State::Draining);
        if new && open && self.outbound() < self.config.limits.max_outbound {
            let dropped = pb::Dropped {
                service: service.0,
                r#type: type_id,
                why: why.to_proto(),
            };
            self.push(Class::Control, Kind::Dropped(dropped));
        }
    }

    pub(super) fn push_acks(&mut self) {
        while let Some((stream, (state, number, life))) = self.acks.pop_first() {
            let detail = match &state {
                AckState::Refused(detail) => frame::detail(detail),
                AckState::Taken | AckState::Repeat | AckState::Forgotten => String::new(),
            };
            let ack = pb::Ack {
                stream,
                state: state.to_proto(),
                number,
                detail,
                life,
            };
            self.push(Class::Control, Kind::Ack(ack));
        }
    }
}
