//! Where what arrived goes: tells and asks into mailboxes, answers to their askers.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::Passing;
use pqcnet_link::{Answer, Class, DroppedWhy, Fault, Inbound, ServiceId, WireError};

use super::{Driver, Waiting};
use crate::typed::Boxed;
use crate::typed::bindings::{Asked, Told, Under};
use crate::typed::shared::Sink;

pub(super) const WRONG_CLASS: WireError = WireError::Invalid {
    field: "class",
    problem: "not this message's",
};

/// What an answer is called where messages have names.
const ANSWER: &str = "answer";

/// The same but for its last byte, which in most messages belongs to what an application sent.
fn altered(payload: &Bytes) -> Bytes {
    let mut altered = payload.to_vec();
    if let Some(last) = altered.last_mut() {
        *last = !*last;
    }
    altered.into()
}

impl Driver {
    pub(super) fn on_tell(&mut self, message: Inbound) {
        let lane = (message.service, message.class);
        let Some(bound) = self.bindings.find(message.service, message.type_id) else {
            self.shared.inner.lock().link.drop_unknown(&message);
            return;
        };
        let of = (message.service, message.type_id);
        let handler = &bound.handler;
        let name = handler.name();
        if let Err(denied) = self.permitted(&bound.access) {
            tracing::debug!(message = name, %denied, "tell refused");
            self.dropped(of, DroppedWhy::Refused);
            return self.grant(lane, message.units);
        }
        let waiting = self.lanes.get(&lane).is_some_and(|lane| !lane.is_empty());
        let under = Under {
            trace: message.trace,
            incarnation: message.incarnation,
        };
        let told = if handler.class() == message.class {
            let (shared, payload) = (&self.shared, message.payload);
            match shared.env().passed_on(shared.path(), name, &payload) {
                Passing::Through => handler.tell(payload, under, waiting),
                Passing::Lost => Ok(Told::Taken),
                Passing::Twice => match handler.tell(payload.clone(), under, waiting) {
                    Ok(Told::Taken) => handler.tell(payload, under, waiting),
                    other => other,
                },
                Passing::Altered => handler.tell(altered(&payload), under, waiting),
            }
        } else {
            Err(WRONG_CLASS)
        };
        match told {
            Ok(Told::Taken) => self.grant(lane, message.units),
            Ok(Told::Parked(posting)) => {
                let queue = self.lanes.entry(lane).or_default();
                queue.push_back(Waiting {
                    posting,
                    units: message.units,
                    sequenced: None,
                });
            }
            Ok(Told::Gone) => {
                tracing::debug!(message = name, "receiver gone, tell dropped");
                if message.incarnation != 0 {
                    self.dropped(of, DroppedWhy::Stale);
                }
                self.grant(lane, message.units);
            }
            Err(problem) => self.fail(name, problem),
        }
    }

    fn grant(&self, (service, class): (ServiceId, Class), units: u32) {
        self.shared.inner.lock().link.grant(service, class, units);
    }

    pub(super) fn fail(&self, message: &'static str, problem: WireError) {
        let fault = Fault::BadPayload { message, problem };
        self.shared.inner.lock().link.fail(fault);
    }

    pub(super) fn on_ask(&mut self, id: u64, remaining: Duration, message: Inbound) {
        let lane = (message.service, message.class);
        let Some(bound) = self.bindings.find(message.service, message.type_id) else {
            self.shared.inner.lock().link.refuse_unknown(id);
            return;
        };
        let handler = &bound.handler;
        let name = handler.name();
        if let Err(denied) = self.permitted(&bound.access) {
            self.answer(id, Answer::Refused(denied.to_string()));
            return self.shared.inner.lock().link.penalise();
        }
        if handler.class() != message.class {
            self.fail(name, WRONG_CLASS);
            return;
        }
        // Tells before it wait for the same mailbox; it must not overtake them.
        if self.lanes.get(&lane).is_some_and(|lane| !lane.is_empty()) {
            self.answer(id, Answer::Busy);
            return;
        }
        let under = Under {
            trace: message.trace,
            incarnation: message.incarnation,
        };
        let (shared, payload) = (&self.shared, message.payload);
        let asked = match shared.env().passed_on(shared.path(), name, &payload) {
            Passing::Through => handler.ask(payload, under, remaining),
            // Nobody ever answers.
            Passing::Lost => Ok(Asked::Taken(Box::pin(std::future::pending()))),
            Passing::Twice => {
                // The first answer is heard by nobody.
                match handler.ask(payload.clone(), under, remaining) {
                    Ok(Asked::Taken(unheard)) => self.unheard(unheard),
                    Ok(Asked::Not(_)) | Err(_) => {}
                }
                handler.ask(payload, under, remaining)
            }
            Passing::Altered => handler.ask(altered(&payload), under, remaining),
        };
        match asked {
            Ok(Asked::Taken(answer)) => self.serving.push(id, answer),
            Ok(Asked::Not(answer)) => self.answer(id, answer),
            Err(problem) => self.fail(name, problem),
        }
    }

    /// Drives an answer that nobody waits for to its end.
    fn unheard(&self, answer: Boxed<Answer>) {
        self.shared.env().spawn(async move {
            drop(answer.await);
        });
    }

    fn answer(&self, id: u64, answer: Answer) {
        self.shared.inner.lock().link.send_reply(id, answer);
    }

    pub(super) fn on_answer(&mut self, sink: Option<Box<dyn Sink>>, answer: Answer) {
        if let Answer::Ok(payload) = &answer {
            let shared = &self.shared;
            // An answer that does not come is one that comes too late: a world loses questions instead.
            let _: Passing = shared.env().passed_on(shared.path(), ANSWER, payload);
        }
        let fault = sink.and_then(|sink| sink.answer(answer).err());
        if let Some(fault) = fault {
            self.shared.inner.lock().link.fail(fault);
        }
    }

    pub(super) fn poll_lanes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut settled = Vec::new();
        let mut any = false;
        for ((service, class), lane) in &mut self.lanes {
            while let Some(waiting) = lane.front_mut() {
                let Poll::Ready(taken) = waiting.posting.as_mut().poll(cx) else {
                    break;
                };
                any = true;
                settled.extend(waiting.sequenced.take().map(|sequenced| (sequenced, taken)));
                self.shared
                    .inner
                    .lock()
                    .link
                    .grant(*service, *class, waiting.units);
                lane.pop_front();
            }
        }
        for ((inbox, arrival), taken) in settled {
            self.settled(&inbox, arrival, taken);
        }
        any
    }

    pub(super) fn poll_served(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some((id, answer)) = self.serving.poll_next(cx) {
            any = true;
            self.answer(id, answer);
        }
        any
    }

    /// Cancels asks whose askers have left.
    pub(super) fn poll_left(&mut self) {
        if !self.shared.take_somebody_left() {
            return;
        }
        let mut inner = self.shared.inner.lock();
        let waker = self.shared.leaver();
        let left = |(id, sink): (&u64, &mut Box<dyn Sink>)| sink.poll_left(waker).then_some(*id);
        let left: Vec<u64> = inner.sinks.iter_mut().filter_map(left).collect();
        for id in left {
            inner.sinks.remove(&id);
            inner.link.cancel(id);
        }
    }
}
