//! How a link ends: in order, because of the peer, or because the peer said so.

use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use super::{Link, State};
use crate::error::{DownReason, Fault, Reason, Stage};
use crate::event::Event;
use crate::frame::{self, Decoder};
use crate::ids::Class;

impl Link {
    /// The first half of an orderly close: no new tells or asks in either direction, while open asks of the peer may still
    /// be answered. [`Link::finish`] ends it.
    pub fn drain(&mut self) {
        if self.state == State::Open {
            self.state = State::Draining;
        }
    }

    /// Ends the link in order: what is queued goes out first, then a Down.
    pub fn finish(&mut self, reason: Reason, detail: &str) {
        if self.state == State::Down {
            return;
        }
        let stage = self.stage();
        let detail = frame::detail(detail);
        self.push_down(stage, reason, &detail);
        self.end(DownReason::Local {
            stage,
            reason,
            detail,
        });
    }

    /// Ends the link because of what the peer did: what is queued is dropped, a Down names the fault.
    pub fn fail(&mut self, fault: Fault) {
        if self.state == State::Down {
            return;
        }
        let stage = self.stage();
        self.lanes = Default::default();
        self.push_down(stage, fault.reason(), &frame::detail(&fault.to_string()));
        self.end(DownReason::Misbehaved { stage, fault });
    }

    fn push_down(&mut self, stage: Stage, reason: Reason, detail: &str) {
        let down = pb::Down {
            stage: stage.to_proto().into(),
            reason: reason.to_proto(),
            detail: detail.to_owned(),
        };
        // The last lane, so that it is the last frame.
        self.push(Class::Bulk, Kind::Down(down));
    }

    pub(super) fn end(&mut self, reason: DownReason) {
        if self.state != State::Down {
            self.state = State::Down;
            self.decoder = Decoder::default();
            self.events.push_back(Event::Down(reason));
        }
    }
}
