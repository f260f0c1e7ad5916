//! Subscriptions, watches and sequenced tells: frames of link version 2.

use pqcnet_protos::link::v1::{self as pb, event, frame::Kind};

use super::{Link, State, To};
use crate::config::{MAX_COST, MAX_WINDOW, cost};
use crate::error::{Fault, SendError};
use crate::event::{AckState, DroppedWhy, EndedWhy, Event, Fate, Inbound, StreamNotice};
use crate::event_log::{Missed, Notice, Position};
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

    /// A frame of link version 2.
    pub(super) fn on_new_frame(&mut self, kind: Kind) -> Result<(), Fault> {
        let version = self.peer.as_ref().map_or(1, |peer| peer.version);
        if version < SINCE {
            let number = frame::number(&kind);
            return Err(Fault::UnknownFrame { number, version });
        }
        match kind {
            Kind::Subscribe(subscribe) => self.on_subscribe(subscribe),
            Kind::Event(event) => self.on_stream_event(event),
            Kind::Consumed(consumed) => self.followed.refill(consumed.subscription, consumed.units),
            Kind::Unsubscribe(unsubscribe) => {
                let id = unsubscribe.subscription;
                if self.followed.close(id)? {
                    self.events.push_back(Event::Unsubscribed { id });
                    let ended = event::Kind::Ended(pb::Ended {
                        why: EndedWhy::Unsubscribed.to_proto(),
                        detail: String::new(),
                    });
                    return self.push_unpaid_event(id, ended);
                }
                Ok(())
            }
            Kind::Watch(watch) => self.on_watch(&watch),
            Kind::Unwatch(unwatch) => {
                let id = unwatch.id;
                self.watched.check(id)?;
                if self.watched.end(id) {
                    self.events.push_back(Event::Unwatched { id });
                }
                Ok(())
            }
            Kind::Fate(told) => {
                let id = told.id;
                self.watching.check(id)?;
                let fate = Fate::from_proto(&told);
                let wanted = match fate {
                    Fate::Present(_) => self.watching.is_open(id),
                    _ => self.watching.end(id),
                };
                if wanted {
                    self.events.push_back(Event::Fate { id, fate });
                }
                Ok(())
            }
            Kind::Sequenced(sequenced) => self.on_sequenced(sequenced),
            Kind::Ack(ack) => {
                let state = AckState::from_proto(&ack);
                self.events.push_back(Event::Ack {
                    stream: ack.stream,
                    state,
                    number: ack.number,
                    life: ack.life,
                });
                Ok(())
            }
            Kind::Dropped(dropped) => {
                self.stats.dropped_by_peer += 1;
                self.events.push_back(Event::Dropped {
                    service: ServiceId(dropped.service),
                    type_id: dropped.r#type,
                    why: DroppedWhy::from_proto(dropped.why),
                });
                Ok(())
            }
            // The caller has taken these.
            Kind::Hello(_)
            | Kind::Ready(_)
            | Kind::Tell(_)
            | Kind::Ask(_)
            | Kind::Reply(_)
            | Kind::Cancel(_)
            | Kind::Credit(_)
            | Kind::Ping(_)
            | Kind::Down(_) => Err(Fault::Malformed),
        }
    }

    fn push_unpaid_event(&mut self, id: u64, kind: event::Kind) -> Result<(), Fault> {
        let kind = Some(kind);
        let event = pb::Event {
            subscription: id,
            kind,
        };
        self.push_unpaid(Class::Bulk, Kind::Event(event))
    }

    fn on_subscribe(&mut self, subscribe: pb::Subscribe) -> Result<(), Fault> {
        let id = subscribe.id;
        let service = ServiceId(subscribe.service);
        let room = self.followed.add(id, subscribe.window)?;
        let refused = if !room {
            Some(EndedWhy::Limit)
        } else if self.state == State::Draining {
            Some(EndedWhy::Draining)
        } else if !self.config.services.contains(&service) {
            Some(EndedWhy::NotServed)
        } else {
            None
        };
        if let Some(why) = refused {
            self.followed.close(id)?;
            let ended = event::Kind::Ended(pb::Ended {
                why: why.to_proto(),
                detail: String::new(),
            });
            return self.push_unpaid_event(id, ended);
        }
        let after = (subscribe.epoch != 0).then_some(Position {
            epoch: subscribe.epoch,
            number: subscribe.after,
        });
        self.events.push_back(Event::Subscribe {
            id,
            service,
            type_id: subscribe.r#type,
            after,
        });
        Ok(())
    }

    fn on_stream_event(&mut self, event: pb::Event) -> Result<(), Fault> {
        let id = event.subscription;
        let notice = match event.kind {
            Some(event::Kind::Begun(begun)) => {
                let (epoch, next) = (begun.epoch, begun.next);
                let wanted = self.following.begun(id, epoch, next)?;
                wanted.then_some(StreamNotice::Begun { epoch, next })
            }
            Some(event::Kind::Item(item)) => {
                let units = cost(item.payload.len());
                let position = self.following.item(id, item.number, units)?;
                let payload = item.payload;
                position.map(|position| StreamNotice::Notice {
                    notice: Notice::Item { position, payload },
                    units,
                })
            }
            Some(event::Kind::Gap(gap)) => {
                let missed = Missed {
                    epoch: gap.epoch,
                    first: gap.first,
                    last: (gap.last != 0).then_some(gap.last),
                };
                let missed = self.following.gap(id, missed)?;
                missed.map(|missed| StreamNotice::Notice {
                    notice: Notice::Missed(missed),
                    units: 1,
                })
            }
            Some(event::Kind::Ended(ended)) => {
                let why = EndedWhy::from_proto(ended.why);
                let detail = frame::detail(&ended.detail);
                let wanted = self.following.ended(id)?;
                wanted.then_some(StreamNotice::Ended { why, detail })
            }
            // A kind of a later version would leave a hole in the numbers.
            None => return Err(Fault::Malformed),
        };
        if let Some(notice) = notice {
            self.events.push_back(Event::Notice { id, notice });
        }
        Ok(())
    }

    fn on_watch(&mut self, watch: &pb::Watch) -> Result<(), Fault> {
        let id = watch.id;
        let service = ServiceId(watch.service);
        let room = self.watched.add(id)?;
        if !room || !self.config.services.contains(&service) {
            self.watched.end(id);
            return self.push_unpaid(Class::Control, Kind::Fate(Fate::NotWatched.to_proto(id)));
        }
        self.unpaid += super::SMALL_ANSWER;
        if self.unpaid > MAX_UNPAID {
            return Err(Fault::NotReading);
        }
        self.events.push_back(Event::Watch {
            id,
            service,
            type_id: watch.r#type,
        });
        Ok(())
    }

    fn on_sequenced(&mut self, sequenced: pb::Sequenced) -> Result<(), Fault> {
        let class = Class::from_number(sequenced.class).ok_or(Fault::Malformed)?;
        let message = Inbound {
            service: ServiceId(sequenced.service),
            type_id: sequenced.r#type,
            class,
            trace: frame::trace_from_proto(sequenced.trace),
            incarnation: 0,
            units: cost(sequenced.payload.len()),
            payload: sequenced.payload,
        };
        self.grants.used((message.service, class), message.units)?;
        self.events.push_back(Event::Sequenced {
            stream: sequenced.stream,
            number: sequenced.number,
            life: sequenced.life,
            message,
        });
        Ok(())
    }
}
