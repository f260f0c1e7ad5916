//! Where what arrived goes: tells and asks into mailboxes, answers to their askers.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{AbortHandle, Abortable};
use futures::stream::StreamExt as _;
use pqcnet_link::{Answer, Class, Fault, Inbound, ServiceId, WireError};

use super::Driver;
use crate::typed::Boxed;
use crate::typed::bindings::{Asked, Told};
use crate::typed::shared::Sink;

const WRONG_CLASS: WireError = WireError::Invalid {
    field: "class",
    problem: "not this message's",
};

impl Driver {
    pub(super) fn on_tell(&mut self, message: Inbound) {
        let lane = (message.service, message.class);
        let Some(handler) = self.bindings.find(message.service, message.type_id) else {
            self.shared.inner.lock().link.drop_unknown(&message);
            return;
        };
        let name = handler.name();
        let waiting = self.lanes.get(&lane).is_some_and(|lane| !lane.is_empty());
        let told = if handler.class() == message.class {
            handler.tell(message.payload, message.trace, waiting)
        } else {
            Err(WRONG_CLASS)
        };
        match told {
            Ok(Told::Taken) => self.grant(lane, message.units),
            Ok(Told::Parked(posting)) => {
                let queue = self.lanes.entry(lane).or_default();
                queue.push_back((posting, message.units));
            }
            Ok(Told::Gone) => {
                tracing::debug!(message = name, "receiver gone, tell dropped");
                self.grant(lane, message.units);
            }
            Err(problem) => self.fail(name, problem),
        }
    }

    fn grant(&self, (service, class): (ServiceId, Class), units: u32) {
        self.shared.inner.lock().link.grant(service, class, units);
    }

    fn fail(&self, message: &'static str, problem: WireError) {
        let fault = Fault::BadPayload { message, problem };
        self.shared.inner.lock().link.fail(fault);
    }

    pub(super) fn on_ask(&mut self, id: u64, remaining: Duration, message: Inbound) {
        let lane = (message.service, message.class);
        let Some(handler) = self.bindings.find(message.service, message.type_id) else {
            self.shared.inner.lock().link.refuse_unknown(id);
            return;
        };
        let name = handler.name();
        if handler.class() != message.class {
            self.fail(name, WRONG_CLASS);
            return;
        }
        // Tells before it wait for the same mailbox; it must not overtake them.
        if self.lanes.get(&lane).is_some_and(|lane| !lane.is_empty()) {
            self.answer(id, Answer::Busy);
            return;
        }
        match handler.ask(message.payload, message.trace, remaining) {
            Ok(Asked::Taken(answer)) => {
                let answered: Boxed<(u64, Answer)> = Box::pin(async move { (id, answer.await) });
                let (abort, registration) = AbortHandle::new_pair();
                self.aborts.insert(id, abort);
                self.served.push(Abortable::new(answered, registration));
            }
            Ok(Asked::Not(answer)) => self.answer(id, answer),
            Err(problem) => self.fail(name, problem),
        }
    }

    fn answer(&self, id: u64, answer: Answer) {
        self.shared.inner.lock().link.send_reply(id, answer);
    }

    pub(super) fn on_answer(&mut self, sink: Option<Box<dyn Sink>>, answer: Answer) {
        let fault = sink.and_then(|sink| sink.answer(answer).err());
        if let Some(fault) = fault {
            self.shared.inner.lock().link.fail(fault);
        }
    }

    pub(super) fn poll_lanes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        for ((service, class), lane) in &mut self.lanes {
            while let Some((posting, units)) = lane.front_mut() {
                if posting.as_mut().poll(cx).is_pending() {
                    break;
                }
                any = true;
                self.shared
                    .inner
                    .lock()
                    .link
                    .grant(*service, *class, *units);
                lane.pop_front();
            }
        }
        any
    }

    pub(super) fn poll_served(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(done)) = self.served.poll_next_unpin(cx) {
            any = true;
            // An aborted one was answered when it was cancelled.
            if let Ok((id, answer)) = done {
                self.aborts.remove(&id);
                self.answer(id, answer);
            }
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
