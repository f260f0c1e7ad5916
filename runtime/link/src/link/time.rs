//! What a link does when time passes.

use std::time::Duration;

use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use super::{Link, State};
use crate::error::Fault;
use crate::event::{Answer, Event};
use crate::ids::Class;

impl Link {
    /// Time has come to [`Link::next_deadline`].
    pub fn on_deadline(&mut self, now: Duration) {
        match self.state {
            State::Down => return,
            State::Hello | State::Greeted { .. } => {
                if now >= self.times.hello_deadline {
                    self.fail(Fault::HelloTimeout);
                }
                return;
            }
            State::Open | State::Draining => {}
        }
        while let Some(id) = self.sent.expired(now) {
            self.push(Class::Control, Kind::Cancel(pb::Cancel { id }));
            let answer = Answer::Timeout;
            self.events.push_back(Event::Answer { id, answer });
        }
        if self
            .frame_deadline()
            .is_some_and(|deadline| now >= deadline)
        {
            self.fail(Fault::SlowFrame);
        } else if now >= self.times.last_in + self.times.silent_after {
            self.fail(Fault::Silent);
        } else if now >= self.times.last_out + self.times.keepalive && self.outbound() == 0 {
            self.push(Class::Control, Kind::Ping(pb::Ping {}));
        }
    }

    /// When [`Link::on_deadline`] wants to be called.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.state {
            State::Down => None,
            State::Hello | State::Greeted { .. } => Some(self.times.hello_deadline),
            State::Open | State::Draining => {
                let silent = self.times.last_in + self.times.silent_after;
                // While bytes wait for a slow socket, a Ping would only wait behind them.
                let ping = if self.outbound() == 0 {
                    self.times.last_out + self.times.keepalive
                } else {
                    silent
                };
                let ask = self.sent.next_deadline().unwrap_or(silent);
                let frame = self.frame_deadline().unwrap_or(silent);
                Some(silent.min(ping).min(ask).min(frame))
            }
        }
    }

    /// When the frame that is being received must be whole, or 64 KiB longer. Bytes that trickle in keep no peer alive beyond it.
    fn frame_deadline(&self) -> Option<Duration> {
        let (since, _) = self.times.frame_since?;
        Some(since + self.times.frame_timeout)
    }
}
