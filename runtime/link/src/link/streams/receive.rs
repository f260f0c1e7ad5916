//! What frames of link version 2 do.

use pqcnet_protos::link::v1::{self as pb, event, frame::Kind};

use super::{MAX_UNPAID, SINCE};
use crate::config::cost;
use crate::error::Fault;
use crate::event::{AckState, DroppedWhy, EndedWhy, Event, Fate, Inbound, StreamNotice};
use crate::event_log::{Missed, Notice, Position};
use crate::frame;
use crate::ids::{Class, ServiceId};
use crate::link::{Link, SMALL_ANSWER, State};

impl Link {
    /// A frame of link version 2.
    pub(in crate::link) fn on_new_frame(&mut self, kind: Kind) -> Result<(), Fault> {
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
        self.unpaid += SMALL_ANSWER;
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
