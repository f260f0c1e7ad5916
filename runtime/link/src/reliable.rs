//! Sequence, acknowledgement, repetition and dedup over as many links as it takes. Pure.
//!
//! ```text
//!   Sender                                      Inbox (one a node, all its senders' streams)
//!   Sequenced 0, life 0 ──────▶                 begins the stream, or finds it
//!          ◀────────────── Ack taken 0, life L
//!   Sequenced 1, 2, 3 ────────▶ 1 2 3           each once, in order, into its mailbox
//!          ◀────────────── Ack taken 2
//!   ······· the link breaks, another comes ······
//!   Sequenced 0, life L ──────▶
//!          ◀────────────── Ack taken 3, life L  what was taken is not sent again
//! ```
//!
//! A message is kept by its sender until it is acknowledged, within bounds: beyond them the sender is told `Full`. It is
//! acknowledged once it is in its receiver's mailbox, so a reliable tell is as good as a local one. An inbox that lost its memory has
//! another life; a sender that learns so is told which of its messages may or may not have been taken: those sent and not
//! acknowledged, and no others.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::event::AckState;

/// What a sender keeps unacknowledged, and how patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Without a word for this long, what is unacknowledged is sent again; twice as long after each time.
    pub resend_after: Duration,
}

impl Default for SenderLimits {
    /// 4,096 messages, 4 MiB: one window of a link. 5 s: an acknowledgement takes a round trip and a full mailbox's time; only
    /// a frame lost inside a node needs the timer at all, since a link loses nothing while it lives.
    fn default() -> Self {
        SenderLimits {
            messages: 4096,
            bytes: 4 * 1024 * 1024,
            resend_after: Duration::from_secs(5),
        }
    }
}

/// The most doublings of the resend time.
const MAX_BACKOFF: u32 = 6;

/// As much is kept as may be; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many messages are unacknowledged as may be")]
pub struct Full;

/// What a sender wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its stream.
    pub stream: u64,
    /// 0: begins or resumes.
    pub number: u64,
    /// The inbox's life, as far as it is known.
    pub life: u64,
    /// The message; empty for number 0.
    pub payload: Bytes,
}

/// What an acknowledgement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Everything up to here is taken.
    Taken(u64),
    /// The inbox has no memory of the stream: call [`Sender::renew`].
    Forgotten,
    /// The peer will not have it, in these words. The sender is of no use any more.
    Refused(String),
    /// It acknowledges what was never sent: the peer erred.
    Misbehaved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    NoLink,
    /// Number 0 is to be sent, or was and has no answer.
    Asking {
        asked: bool,
    },
    Flowing,
}

/// The sending end of one stream.
#[derive(Debug)]
pub struct Sender {
    limits: SenderLimits,
    stream: u64,
    life: u64,
    standing: Standing,
    /// Messages after this one are held.
    taken: u64,
    /// The last one sent on this link.
    sent: u64,
    /// The last one ever sent.
    furthest: u64,
    held: VecDeque<Bytes>,
    bytes: usize,
    resend_at: Option<Duration>,
    backoff: u32,
}

impl Sender {
    /// Without a link. `stream` is random.
    pub fn new(stream: u64, limits: SenderLimits) -> Sender {
        Sender {
            limits,
            stream,
            life: 0,
            standing: Standing::NoLink,
            taken: 0,
            sent: 0,
            furthest: 0,
            held: VecDeque::new(),
            bytes: 0,
            resend_at: None,
            backoff: 0,
        }
    }

    /// Its stream.
    pub fn stream(&self) -> u64 {
        self.stream
    }

    /// Messages offered and not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.held.len()
    }

    /// Where a message stands among those that are unacknowledged; none for number 0.
    pub fn index_of(&self, number: u64) -> Option<usize> {
        let after = number.checked_sub(self.taken + 1)?;
        usize::try_from(after).ok()
    }

    /// Messages that would be taken now, if they are small.
    pub fn room(&self) -> usize {
        if self.bytes >= self.limits.bytes {
            return 0;
        }
        self.limits.messages.saturating_sub(self.held.len())
    }

    /// Takes a message to be sent; returns its number.
    ///
    /// # Errors
    /// It is beyond the bounds.
    pub fn offer(&mut self, payload: Bytes) -> Result<u64, Full> {
        let bytes = self.bytes + payload.len();
        // One message always goes, however large: the link has a limit for that.
        let fits = bytes <= self.limits.bytes || self.held.is_empty();
        if self.held.len() >= self.limits.messages || !fits {
            return Err(Full);
        }
        self.bytes = bytes;
        self.held.push_back(payload);
        Ok(self.taken + self.held.len() as u64)
    }

    /// A link is there. What was sent on an earlier one may have been lost.
    pub fn on_up(&mut self) {
        self.standing = Standing::Asking { asked: false };
        self.resend_at = None;
        self.backoff = 0;
    }

    /// The link is gone.
    pub fn on_down(&mut self) {
        self.standing = Standing::NoLink;
        self.resend_at = None;
    }

    /// What is to be sent next. It stays next until [`Sender::on_sent`].
    pub fn next(&self) -> Option<Outgoing> {
        let outgoing = |number, payload| Outgoing {
            stream: self.stream,
            number,
            life: self.life,
            payload,
        };
        match self.standing {
            Standing::NoLink | Standing::Asking { asked: true } => None,
            // A stream in which nothing was ever said needs no beginning.
            Standing::Asking { asked: false } => {
                let silent = self.held.is_empty() && self.life == 0;
                (!silent).then(|| outgoing(0, Bytes::new()))
            }
            Standing::Flowing => {
                let index = usize::try_from(self.sent.checked_sub(self.taken)?).ok()?;
                let payload = self.held.get(index)?.clone();
                Some(outgoing(self.sent + 1, payload))
            }
        }
    }

    /// What was next has left.
    pub fn on_sent(&mut self, now: Duration) {
        match self.standing {
            Standing::NoLink => return,
            Standing::Asking { .. } => self.standing = Standing::Asking { asked: true },
            Standing::Flowing => {
                self.sent += 1;
                self.furthest = self.furthest.max(self.sent);
            }
        }
        if self.resend_at.is_none() {
            self.arm(now);
        }
    }

    fn arm(&mut self, now: Duration) {
        self.resend_at = Some(now + self.limits.resend_after * (1 << self.backoff));
    }

    /// The peer says how far it is.
    pub fn on_ack(&mut self, now: Duration, state: AckState, number: u64, life: u64) -> Heard {
        match state {
            AckState::Taken | AckState::Repeat => {}
            AckState::Forgotten => return Heard::Forgotten,
            AckState::Refused(words) => return Heard::Refused(words),
        }
        if number > self.furthest {
            return Heard::Misbehaved;
        }
        if self.life != 0 && life != self.life {
            return Heard::Forgotten;
        }
        self.life = life;
        let progress = number > self.taken;
        while self.taken < number {
            if let Some(payload) = self.held.pop_front() {
                self.bytes -= payload.len();
            }
            self.taken += 1;
        }
        match self.standing {
            Standing::NoLink => {}
            Standing::Asking { .. } => {
                self.standing = Standing::Flowing;
                self.sent = self.taken;
            }
            Standing::Flowing if state == AckState::Repeat => self.sent = self.taken,
            Standing::Flowing => self.sent = self.sent.max(self.taken),
        }
        if progress {
            self.backoff = 0;
        }
        self.resend_at = None;
        if self.sent > self.taken {
            self.arm(now);
        }
        Heard::Taken(self.taken)
    }

    /// Begins another stream, after [`Heard::Forgotten`]. What was sent and not acknowledged is dropped: the numbers, if
    /// any, of messages that may or may not have been taken. What was never sent goes on in the new stream, numbered from 1.
    pub fn renew(&mut self, stream: u64) -> Option<RangeInclusive<u64>> {
        let unknown = self.taken + 1..=self.furthest;
        for _ in unknown.clone() {
            if let Some(payload) = self.held.pop_front() {
                self.bytes -= payload.len();
            }
        }
        self.stream = stream;
        (self.life, self.taken, self.sent, self.furthest) = (0, 0, 0, 0);
        if self.standing != Standing::NoLink {
            self.on_up();
        }
        (!unknown.is_empty()).then_some(unknown)
    }

    /// When [`Sender::on_deadline`] wants to be called.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.resend_at
    }

    /// Time has come to [`Sender::next_deadline`]: what is unacknowledged is to be sent again.
    pub fn on_deadline(&mut self, now: Duration) {
        if self.resend_at.is_none_or(|at| now < at) {
            return;
        }
        match self.standing {
            Standing::NoLink => {}
            Standing::Asking { .. } => self.standing = Standing::Asking { asked: false },
            Standing::Flowing => self.sent = self.taken,
        }
        self.resend_at = None;
        self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
    }
}

/// What to do with a sequenced message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Put it into its mailbox, then say [`Inbox::taken`].
    Take,
    /// Drop it and say this.
    Say(AckState, u64),
}

#[derive(Debug)]
struct Stream {
    /// Up to here it is in its mailbox.
    done: u64,
    /// Of the link that has the stream now: the next number that it will bring.
    expected: u64,
    link: u64,
    /// When it was last heard of, in turns.
    heard: u64,
}

/// The receiving ends of all streams of a node. `P` names a peer.
#[derive(Debug)]
pub struct Inbox<P> {
    life: u64,
    max_streams: usize,
    max_each: usize,
    turn: u64,
    streams: BTreeMap<(P, u64), Stream>,
}

impl<P: Ord + Copy> Inbox<P> {
    /// No streams. `life` is random and not 0. At most `max_streams` are remembered, of one peer at most `max_each`; the one
    /// heard of least recently is forgotten first.
    pub fn new(life: u64, max_streams: usize, max_each: usize) -> Inbox<P> {
        Inbox {
            life: life.max(1),
            max_streams: max_streams.max(1),
            max_each: max_each.max(1),
            turn: 0,
            streams: BTreeMap::new(),
        }
    }

    /// This life of its memory.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Streams remembered.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A sequenced message came over `link`; links are numbered in the order they came up. Of two links with one stream
    /// the later one has it, so that what still waits on the earlier one cannot come twice.
    pub fn arrived(&mut self, link: u64, peer: P, stream: u64, number: u64, life: u64) -> Verdict {
        self.turn += 1;
        let key = (peer, stream);
        if !self.streams.contains_key(&key) {
            if number != 0 || life != 0 {
                return Verdict::Say(AckState::Forgotten, 0);
            }
            self.make_room(peer);
            let stream = Stream {
                done: 0,
                expected: 1,
                link,
                heard: self.turn,
            };
            self.streams.insert(key, stream);
        }
        let turn = self.turn;
        let Some(stream) = self.streams.get_mut(&key) else {
            return Verdict::Say(AckState::Forgotten, 0);
        };
        stream.heard = turn;
        if link > stream.link {
            stream.link = link;
            stream.expected = stream.done + 1;
        }
        if link < stream.link || number < stream.expected {
            return Verdict::Say(AckState::Taken, stream.done);
        }
        if number > stream.expected {
            return Verdict::Say(AckState::Repeat, stream.done);
        }
        stream.expected += 1;
        Verdict::Take
    }

    /// Whether `link` still has the stream: only then may what it brought be put into a mailbox.
    pub fn has(&self, link: u64, peer: P, stream: u64) -> bool {
        let stream = self.streams.get(&(peer, stream));
        stream.is_some_and(|stream| stream.link == link)
    }

    /// A message that was to be taken is in its mailbox.
    pub fn taken(&mut self, link: u64, peer: P, stream: u64, number: u64) {
        if let Some(stream) = self.streams.get_mut(&(peer, stream))
            && stream.link == link
        {
            stream.done = stream.done.max(number);
        }
    }

    fn make_room(&mut self, peer: P) {
        let each = self.streams.range((peer, 0)..=(peer, u64::MAX)).count();
        let oldest = |of: Option<P>| {
            let streams = self.streams.iter();
            let of_peer = streams.filter(|((owner, _), _)| of.is_none_or(|of| *owner == of));
            let oldest = of_peer.min_by_key(|(_, stream)| stream.heard);
            oldest.map(|(key, _)| *key)
        };
        let victim = if each >= self.max_each {
            oldest(Some(peer))
        } else if self.streams.len() >= self.max_streams {
            oldest(None)
        } else {
            None
        };
        if let Some(victim) = victim {
            self.streams.remove(&victim);
        }
    }
}

#[cfg(test)]
mod tests;
