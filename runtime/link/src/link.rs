//! The state machine of one link.
//!
//! ```text
//!            Hello out                    accept(): Ready out
//!   new ─────────────▶ Hello ── Hello in ──▶ Greeted ── Ready in ──▶ Open ── finish()/fault/Down in ──▶ Down
//!                                 (peer's Ready may come before accept())
//! ```
//!
//! Four kinds of method: getters, `on_*` for what happened (with the time), `send_*`/`grant`/`cancel`/`drain` for what
//! this side wants, `poll_*` for what is to be done about it. What each frame does is in `receive`.

mod receive;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use crate::asks::{Leaving, Received, Sent};
use crate::config::{LinkConfig, MAX_ASK_TIME, MAX_HELLO_FRAME, PeerHello, cost};
use crate::credit::{Granted, Grants};
use crate::error::{DownReason, Fault, Reason, SendError, Stage};
use crate::event::{Answer, Event, Inbound, Stats, answer_to_proto};
use crate::frame::{self, Decoder, PREFIX};
use crate::ids::{Class, ServiceId, Trace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hello,
    /// The peer's Hello came; `accepted` by us, `ready` said the peer.
    Greeted {
        accepted: bool,
        ready: bool,
    },
    Open,
    Draining,
    Down,
}

/// One end of a link. Pure: bytes and time in, bytes and events out.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    state: State,
    peer: Option<PeerHello>,
    decoder: Decoder,
    /// Frames to send, one buffer a class.
    lanes: [BytesMut; 3],
    leaving: [Leaving; 3],
    events: VecDeque<Event>,
    granted: Granted,
    grants: Grants,
    sent: Sent,
    received: Received,
    hello_deadline: Duration,
    last_in: Duration,
    last_out: Duration,
    stats: Stats,
}

impl Link {
    /// A link that starts now; its Hello is ready to be sent.
    pub fn new(config: LinkConfig, now: Duration) -> Link {
        let config = LinkConfig {
            limits: config.limits.clamped(),
            ..config
        };
        let mut link = Link {
            hello_deadline: now + config.limits.hello_timeout,
            state: State::Hello,
            peer: None,
            decoder: Decoder::default(),
            lanes: Default::default(),
            leaving: Default::default(),
            events: VecDeque::new(),
            granted: Granted::default(),
            grants: Grants::default(),
            sent: Sent::default(),
            received: Received::default(),
            last_in: now,
            last_out: now,
            stats: Stats::default(),
            config,
        };
        link.push(Class::Control, frame::hello(&link.config));
        link
    }

    /// What the peer said of itself, once it has.
    pub fn peer(&self) -> Option<&PeerHello> {
        self.peer.as_ref()
    }

    /// This side's configuration, its limits within their ranges.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Where the link stands.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Hello | State::Greeted { .. } => Stage::Hello,
            State::Open | State::Draining | State::Down => Stage::Open,
        }
    }

    /// Whether tells and asks can be sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether it is over.
    pub fn is_down(&self) -> bool {
        self.state == State::Down
    }

    /// Counts since the link began.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Asks the peer still waits for.
    pub fn unanswered(&self) -> usize {
        self.received.len()
    }

    /// Our asks whose slot is still taken.
    pub fn open_asks(&self) -> usize {
        self.sent.len()
    }

    /// Credit held for a service and class.
    pub fn credit(&self, service: ServiceId, class: Class) -> u32 {
        self.granted.held((service, class))
    }

    /// The smallest credit held of all services and classes that the peer opened a window for.
    pub fn least_credit(&self) -> Option<u32> {
        self.granted.least()
    }

    /// Bytes that wait for the socket.
    pub fn outbound(&self) -> usize {
        self.lanes.iter().map(BytesMut::len).sum()
    }

    /// Bytes arrived. Everything they mean is in [`Link::poll_event`] afterwards; feed at most some 64 KiB between polls.
    pub fn on_bytes(&mut self, now: Duration, bytes: &[u8]) {
        if self.state == State::Down {
            return;
        }
        self.last_in = now;
        self.stats.bytes_in += bytes.len() as u64;
        self.decoder.feed(bytes);
        while self.state != State::Down {
            let limit = match self.state {
                State::Hello | State::Greeted { ready: false, .. } => MAX_HELLO_FRAME,
                _ => self.config.limits.max_frame,
            };
            let handled = match self.decoder.next(limit) {
                Ok(None) => return,
                Ok(Some(kind)) => self.on_frame(kind),
                Err(fault) => Err(fault),
            };
            self.stats.frames_in += 1;
            if let Err(fault) = handled {
                self.fail(fault);
            }
        }
    }

    /// The connection ended or broke without a Down.
    pub fn on_lost(&mut self, kind: std::io::ErrorKind) {
        let stage = self.stage();
        self.end(DownReason::Lost { stage, kind });
    }

    /// Time has come to [`Link::next_deadline`].
    pub fn on_deadline(&mut self, now: Duration) {
        match self.state {
            State::Down => return,
            State::Hello | State::Greeted { .. } => {
                if now >= self.hello_deadline {
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
        if now >= self.last_in + self.silent_after() {
            self.fail(Fault::Silent);
        } else if now >= self.last_out + self.config.limits.keepalive && self.outbound() == 0 {
            self.push(Class::Control, Kind::Ping(pb::Ping {}));
        }
    }

    /// When [`Link::on_deadline`] wants to be called.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.state {
            State::Down => None,
            State::Hello | State::Greeted { .. } => Some(self.hello_deadline),
            State::Open | State::Draining => {
                let silent = self.last_in + self.silent_after();
                // While bytes wait for a slow socket, a Ping would only wait behind them.
                let ping = if self.outbound() == 0 {
                    self.last_out + self.config.limits.keepalive
                } else {
                    silent
                };
                let ask = self.sent.next_deadline().unwrap_or(silent);
                Some(silent.min(ping).min(ask))
            }
        }
    }

    fn silent_after(&self) -> Duration {
        let promised = self.peer.as_ref().map_or(Duration::ZERO, |p| p.keepalive);
        self.config.limits.silent_after.max(promised * 3)
    }

    /// The peer is who it may be; Ready goes out. Only after [`Event::Hello`].
    pub fn accept(&mut self) {
        if let State::Greeted { accepted, ready } = &mut self.state
            && !*accepted
        {
            *accepted = true;
            let ready = *ready;
            self.push(Class::Control, Kind::Ready(pb::Ready {}));
            if ready {
                self.open();
            }
        }
    }

    /// The peer may not have this link (its role, most likely): a Down names the reason, and the link is over.
    pub fn reject(&mut self, reason: Reason, detail: &str) {
        self.finish(reason, detail);
    }

    fn open(&mut self) {
        self.state = State::Open;
        self.events.push_back(Event::Open);
    }

    /// Opens a window for a service and class: the peer may tell so much at once.
    pub fn open_window(&mut self, service: ServiceId, class: Class, units: u32) {
        let size = units.clamp(crate::config::MAX_COST, self.config.limits.tell_window);
        self.grants.open((service, class), size);
    }

    /// A tell has left this side's queue: its units may be used again.
    pub fn grant(&mut self, service: ServiceId, class: Class, units: u32) {
        self.grants.give_back((service, class), units);
    }

    /// Counts a tell of an unknown type and gives its units back.
    pub fn drop_unknown(&mut self, message: &Inbound) {
        self.stats.unknown_tells += 1;
        self.grant(message.service, message.class, message.units);
    }

    /// Refuses an ask of an unknown type, and counts it.
    pub fn refuse_unknown(&mut self, id: u64) {
        self.stats.unknown_asks += 1;
        self.send_reply(id, Answer::UnknownType);
    }

    fn may_send(&self, service: ServiceId) -> Result<&PeerHello, SendError> {
        let peer = match (&self.peer, self.state) {
            (Some(peer), State::Open) => peer,
            _ => return Err(SendError::Closed),
        };
        if peer.services.binary_search(&service).is_err() {
            return Err(SendError::NotServed(service));
        }
        Ok(peer)
    }

    /// Queues a tell; it costs [`cost`] of its payload.
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
        let max_frame = self.may_send(service)?.max_frame;
        let units = cost(payload.len());
        let frame = frame::of(Kind::Tell(pb::Tell {
            service: service.0,
            r#type: type_id,
            class: class as i32,
            trace: frame::trace_to_proto(trace),
            payload,
        }));
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

    /// Queues an ask; returns its id. It ends with exactly one [`Event::Answer`], unless cancelled or the link goes down.
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
        let peer = self.may_send(service)?;
        let (max_frame, window) = (peer.max_frame, peer.ask_window);
        let timeout = timeout.min(MAX_ASK_TIME);
        let units = cost(payload.len());
        let frame = frame::of(Kind::Ask(pb::Ask {
            id: self.sent.next_id(),
            service: service.0,
            r#type: type_id,
            class: class as i32,
            remaining_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            trace: frame::trace_to_proto(trace),
            payload,
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
        self.put(class, &frame, len);
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
        let (status, detail, payload) = answer_to_proto(answer);
        let mut reply = pb::Reply {
            id,
            status: status.into(),
            detail,
            payload,
        };
        let limit = self.peer.as_ref().map_or(0, |peer| peer.max_frame) as usize;
        if reply.payload.len() + REPLY_OVERHEAD > limit {
            reply.status = pb::Status::ReplyTooLarge.into();
            reply.payload = Bytes::new();
        }
        self.push_reply(class, units, reply);
    }

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

    fn end(&mut self, reason: DownReason) {
        if self.state != State::Down {
            self.state = State::Down;
            self.decoder = Decoder::default();
            self.events.push_back(Event::Down(reason));
        }
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() && self.events.capacity() > 64 {
            self.events = VecDeque::new();
        }
        event
    }

    /// The next bytes for the socket: whole frames, the most urgent class first, about `max` bytes. None: flush now.
    pub fn poll_transmit(&mut self, now: Duration, max: usize) -> Option<Bytes> {
        if matches!(self.state, State::Open | State::Draining) {
            while let Some(((service, class), units)) = self.grants.next_due() {
                let credit = pb::Credit {
                    service: service.0,
                    class: class as i32,
                    units,
                };
                self.push(Class::Control, Kind::Credit(credit));
            }
        }
        let mut lanes = self.lanes.iter_mut().zip(&mut self.leaving);
        let (lane, leaving) = lanes.find(|(lane, _)| !lane.is_empty())?;
        let bytes = frame::take(lane, max);
        self.received.replied(leaving.take(bytes.len()));
        self.last_out = now;
        self.stats.bytes_out += bytes.len() as u64;
        Some(bytes)
    }

    fn push(&mut self, class: Class, kind: Kind) {
        let frame = frame::of(kind);
        let len = frame::len(&frame);
        self.put(class, &frame, len);
    }

    fn push_reply(&mut self, class: Class, units: u32, reply: pb::Reply) {
        self.push(class, Kind::Reply(reply));
        self.leaving[class.index()].reply(units);
    }

    fn put(&mut self, class: Class, frame: &pb::Frame, len: usize) {
        self.stats.frames_out += 1;
        self.leaving[class.index()].put(PREFIX + len);
        let lane = &mut self.lanes[class.index()];
        if lane.capacity() == 0 {
            lane.reserve((PREFIX + len).max(LANE_START));
        }
        frame::put(lane, frame, len);
    }
}

/// First allocation of a lane: a few small frames.
const LANE_START: usize = 4 * 1024;
/// More than a Reply's other fields can take.
const REPLY_OVERHEAD: usize = 512;
