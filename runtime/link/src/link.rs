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

mod close;
mod receive;
mod send;
mod streams;
mod time;

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pqcnet_protos::link::v1::{self as pb, frame::Kind};

use crate::asks::{Leaving, Received, Sent};
use crate::config::{LinkConfig, MAX_HELLO_FRAME, PeerHello};
use crate::credit::{Granted, Grants};
use crate::error::{DownReason, Fault, Reason, Stage};
use crate::event::{AckState, Answer, DroppedWhy, Event, Inbound, Stats};
use crate::frame::{self, Decoder, PREFIX};
use crate::ids::{Class, ServiceId};
use crate::streams::{Followed, Following, Watches};

pub use send::To;

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
    /// What each buffer has room for to begin with: as much as it held the last time.
    rooms: [usize; 3],
    leaving: [Leaving; 3],
    events: VecDeque<Event>,
    granted: Granted,
    grants: Grants,
    sent: Sent,
    received: Received,
    /// Our subscriptions, and the peer's.
    following: Following,
    followed: Followed,
    /// Our watches, and the peer's.
    watching: Watches,
    watched: Watches,
    /// What is to be said of the peer's sequenced streams.
    acks: BTreeMap<u64, (AckState, u64, u64)>,
    /// Bytes of answers to frames that cost the peer nothing, since it last read all there was.
    unpaid: usize,
    times: Times,
    stats: Stats,
}

/// What a link's next deadline is made of, in one place: every turn of every link asks for it.
#[derive(Debug)]
struct Times {
    hello_deadline: Duration,
    last_in: Duration,
    /// Since when an incomplete frame has not come to so many bytes.
    frame_since: Option<(Duration, usize)>,
    last_out: Duration,
    /// Of the limits.
    frame_timeout: Duration,
    keepalive: Duration,
    /// Of the limits, and of what the peer promised.
    silent_after: Duration,
}

impl Link {
    /// A link that starts now; its Hello is ready to be sent.
    pub fn new(config: LinkConfig, now: Duration) -> Link {
        let config = LinkConfig {
            limits: config.limits.clamped(),
            ..config
        };
        let mut link = Link {
            times: Times {
                hello_deadline: now + config.limits.hello_timeout,
                last_in: now,
                frame_since: None,
                last_out: now,
                frame_timeout: config.limits.frame_timeout,
                keepalive: config.limits.keepalive,
                silent_after: config.limits.silent_after,
            },
            state: State::Hello,
            peer: None,
            decoder: Decoder::default(),
            lanes: Default::default(),
            rooms: [LEAST_ROOM; 3],
            leaving: Default::default(),
            events: VecDeque::new(),
            granted: Granted::default(),
            grants: Grants::default(),
            sent: Sent::default(),
            received: Received::default(),
            following: Following::default(),
            followed: Followed::default(),
            watching: Watches::default(),
            watched: Watches::default(),
            acks: BTreeMap::new(),
            unpaid: 0,
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
        self.times.last_in = now;
        self.stats.bytes_in += bytes.len() as u64;
        self.decoder.feed(bytes);
        while self.state != State::Down {
            let limit = match self.state {
                State::Hello | State::Greeted { ready: false, .. } => MAX_HELLO_FRAME,
                _ => self.config.limits.max_frame,
            };
            let handled = match self.decoder.next(limit) {
                Ok(None) => {
                    self.times.frame_since = match (self.decoder.buffered(), self.times.frame_since)
                    {
                        (0, _) => None,
                        (held, Some((since, mark))) if held < mark => Some((since, mark)),
                        (held, _) => Some((now, held + FRAME_STEP)),
                    };
                    return;
                }
                Ok(Some(kind)) => self.on_frame(kind),
                Err(fault) => Err(fault),
            };
            self.times.frame_since = None;
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

    /// Counts a tell of an unknown type, says so and gives its units back.
    pub fn drop_unknown(&mut self, message: &Inbound) {
        self.stats.unknown_tells += 1;
        self.send_dropped(message.service, message.type_id, DroppedWhy::UnknownType);
        self.grant(message.service, message.class, message.units);
    }

    /// Counts something that the peer may not send; the caller answers it. One too many ends the link.
    pub fn penalise(&mut self) {
        self.stats.refused += 1;
        let limit = self.config.limits.max_refusals;
        if self.stats.refused > u64::from(limit) {
            self.fail(Fault::TooManyRefused { limit });
        }
    }

    /// Refuses an ask of an unknown type, and counts it.
    pub fn refuse_unknown(&mut self, id: u64) {
        self.stats.unknown_asks += 1;
        self.send_reply(id, Answer::UnknownType);
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if self.events.is_empty() && !KEPT_EVENTS.contains(&self.events.capacity()) {
            self.events = VecDeque::new();
        }
        Some(event)
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
            self.push_acks();
        }
        let Some(at) = self.lanes.iter().position(|lane| !lane.is_empty()) else {
            self.unpaid = 0;
            return None;
        };
        let bytes = frame::take(&mut self.lanes[at], max);
        self.rooms[at] = bytes.len().next_power_of_two().clamp(LEAST_ROOM, MOST_ROOM);
        self.received.replied(self.leaving[at].take(bytes.len()));
        self.times.last_out = now;
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
            lane.reserve((PREFIX + len).max(self.rooms[class.index()]));
        }
        frame::put(lane, frame, len);
    }
}

/// Bytes of a frame that have a frame's time.
const FRAME_STEP: usize = 64 * 1024;
/// Room for events that a link keeps when there are none: a busy one need not make it anew at every read, and one of very many that
/// rest holds none.
const KEPT_EVENTS: RangeInclusive<usize> = 8..=64;
/// First allocation of a lane, bytes: a small frame or two, and some tens of them.
const LEAST_ROOM: usize = 256;
const MOST_ROOM: usize = 4 * 1024;
/// More than a Reply's other fields can take, or an Event's.
const REPLY_OVERHEAD: usize = 512;
/// More than a Fate takes on the wire.
const SMALL_ANSWER: usize = 32;
