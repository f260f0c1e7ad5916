//! What each frame of the peer does.

use std::time::Duration;

use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use super::{Link, State};
use crate::config::{MAX_ASK_TIME, cost};
use crate::error::{DownReason, Fault, Reason, Stage};
use crate::event::{Answer, Event, Inbound, answer_from_proto, answer_to_proto};
use crate::frame;
use crate::ids::{Class, ServiceId};

impl Link {
    pub(super) fn on_frame(&mut self, kind: Kind) -> Result<(), Fault> {
        let unexpected = Fault::UnexpectedFrame {
            frame: frame::name(&kind),
            stage: self.stage(),
        };
        match (self.state, kind) {
            (State::Hello, Kind::Hello(hello)) => {
                let peer = frame::check_hello(hello)?;
                let times = &mut self.times;
                times.silent_after = times.silent_after.max(peer.keepalive * 3);
                self.peer = Some(peer.clone());
                self.state = State::Greeted {
                    accepted: false,
                    ready: false,
                };
                self.events.push_back(Event::Hello(peer));
                Ok(())
            }
            (
                State::Greeted {
                    accepted,
                    ready: false,
                },
                Kind::Ready(_),
            ) => {
                self.state = State::Greeted {
                    accepted,
                    ready: true,
                };
                if accepted {
                    self.open();
                }
                Ok(())
            }
            (_, Kind::Down(down)) => {
                let stage = match down.stage() {
                    pb::Stage::Open => Stage::Open,
                    pb::Stage::Hello | pb::Stage::Unspecified => Stage::Hello,
                };
                self.lanes = Default::default();
                self.end(DownReason::Peer {
                    stage,
                    reason: Reason::from_proto(down.reason),
                    detail: frame::detail(&down.detail),
                });
                Ok(())
            }
            (State::Open | State::Draining, kind) => self.on_open_frame(kind, unexpected),
            _ => Err(unexpected),
        }
    }

    fn on_open_frame(&mut self, kind: Kind, unexpected: Fault) -> Result<(), Fault> {
        match kind {
            Kind::Tell(tell) => self.on_tell(tell),
            Kind::Ask(ask) => self.on_ask(ask),
            Kind::Reply(reply) => {
                let (units, wanted) = self.sent.answered(reply.id)?;
                self.events.push_back(Event::AskUnits(units));
                if wanted {
                    let id = reply.id;
                    let answer = answer_from_proto(reply);
                    self.events.push_back(Event::Answer { id, answer });
                }
                Ok(())
            }
            Kind::Cancel(cancel) => {
                // Its reply may have crossed it; then there is nothing to do.
                if let Some((units, class)) = self.received.close(cancel.id) {
                    let id = cancel.id;
                    let reply = answer_to_proto(id, Answer::Cancelled);
                    self.push_reply(class, units, reply);
                    self.events.push_back(Event::Cancelled { id });
                }
                Ok(())
            }
            Kind::Credit(credit) => {
                let class = Class::from_number(credit.class).ok_or(Fault::Malformed)?;
                let (service, units) = (ServiceId(credit.service), credit.units);
                let peer = self.peer.as_ref().ok_or(Fault::Malformed)?;
                if peer.services.binary_search(&service).is_err() {
                    return Err(Fault::Malformed);
                }
                self.granted.add((service, class), units)?;
                self.events.push_back(Event::Credit {
                    service,
                    class,
                    units,
                });
                Ok(())
            }
            Kind::Ping(_) => Ok(()),
            Kind::Hello(_) | Kind::Ready(_) | Kind::Down(_) => Err(unexpected),
            kind => self.on_new_frame(kind),
        }
    }

    fn on_tell(&mut self, tell: pb::Tell) -> Result<(), Fault> {
        let class = Class::from_number(tell.class).ok_or(Fault::Malformed)?;
        let message = Inbound {
            service: ServiceId(tell.service),
            type_id: tell.r#type,
            class,
            trace: frame::trace_from_proto(tell.trace),
            incarnation: tell.incarnation,
            units: cost(tell.payload.len()),
            payload: tell.payload,
        };
        self.grants.used((message.service, class), message.units)?;
        self.events.push_back(Event::Tell(message));
        Ok(())
    }

    fn on_ask(&mut self, ask: pb::Ask) -> Result<(), Fault> {
        let class = Class::from_number(ask.class).ok_or(Fault::Malformed)?;
        let units = cost(ask.payload.len());
        let window = self.config.limits.ask_window;
        self.received.add(ask.id, units, class, window)?;
        let service = ServiceId(ask.service);
        if self.state == State::Draining {
            self.send_reply(ask.id, Answer::Draining);
        } else if !self.config.services.contains(&service) {
            self.refuse_unknown(ask.id);
        } else if self.outbound() >= self.config.limits.max_outbound {
            // The peer asks but does not read: its replies would pile up here.
            self.send_reply(ask.id, Answer::Busy);
        } else {
            let remaining = Duration::from_millis(ask.remaining_ms.into()).min(MAX_ASK_TIME);
            let message = Inbound {
                service,
                type_id: ask.r#type,
                class,
                trace: frame::trace_from_proto(ask.trace),
                incarnation: ask.incarnation,
                payload: ask.payload,
                units,
            };
            self.events.push_back(Event::Ask {
                id: ask.id,
                remaining,
                message,
            });
        }
        Ok(())
    }
}
