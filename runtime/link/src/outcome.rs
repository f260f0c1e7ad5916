//! What becomes of subscriptions, watches and sequenced tells, as the wire says it.

use pqcnet_protos::link::v1 as pb;

use crate::event_log::Notice;
use crate::frame;

/// What comes of a subscription of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamNotice {
    /// It began; the first event or gap to come has this number.
    Begun {
        /// The source's epoch.
        epoch: u64,
        /// The number.
        next: u64,
    },
    /// The next event or gap.
    Notice {
        /// It.
        notice: Notice,
        /// What it cost; give it back with [`Link::consumed`](crate::Link::consumed).
        units: u32,
    },
    /// It is over; nothing more comes.
    Ended {
        /// Why.
        why: EndedWhy,
        /// More words of the peer.
        detail: String,
    },
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndedWhy {
    /// The subscriber asked for it.
    Unsubscribed,
    /// Nobody publishes such events there.
    NotServed,
    /// This subscriber may not have them.
    Refused,
    /// As many subscriptions as a link, or a source, may have.
    Limit,
    /// The position lies beyond the source's last event.
    BadPosition,
    /// The publishing side's end of the link is closing.
    Draining,
    /// A number of a later version.
    Unrecognised(i32),
}

impl EndedWhy {
    pub(crate) fn to_proto(self) -> i32 {
        let why = match self {
            EndedWhy::Unsubscribed => pb::EndedWhy::Unsubscribed,
            EndedWhy::NotServed => pb::EndedWhy::NotServed,
            EndedWhy::Refused => pb::EndedWhy::Refused,
            EndedWhy::Limit => pb::EndedWhy::Limit,
            EndedWhy::BadPosition => pb::EndedWhy::BadPosition,
            EndedWhy::Draining => pb::EndedWhy::Draining,
            EndedWhy::Unrecognised(number) => return number,
        };
        why.into()
    }

    pub(crate) fn from_proto(number: i32) -> EndedWhy {
        match pb::EndedWhy::try_from(number) {
            Ok(pb::EndedWhy::Unsubscribed) => EndedWhy::Unsubscribed,
            Ok(pb::EndedWhy::NotServed) => EndedWhy::NotServed,
            Ok(pb::EndedWhy::Refused) => EndedWhy::Refused,
            Ok(pb::EndedWhy::Limit) => EndedWhy::Limit,
            Ok(pb::EndedWhy::BadPosition) => EndedWhy::BadPosition,
            Ok(pb::EndedWhy::Draining) => EndedWhy::Draining,
            Ok(pb::EndedWhy::Unspecified) | Err(_) => EndedWhy::Unrecognised(number),
        }
    }
}

/// What became of something watched. Numbers are incarnations, opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It lives.
    Present(u64),
    /// It stopped.
    Stopped(u64),
    /// It panicked; it may come back as another incarnation.
    Panicked(u64),
    /// It did not stop in time.
    Killed(u64),
    /// It is not watched: gone already, not served to this peer, or watched too often.
    NotWatched,
}

impl Fate {
    pub(crate) fn to_proto(self, id: u64) -> pb::Fate {
        let (kind, incarnation) = match self {
            Fate::Present(incarnation) => (pb::FateKind::Present, incarnation),
            Fate::Stopped(incarnation) => (pb::FateKind::Stopped, incarnation),
            Fate::Panicked(incarnation) => (pb::FateKind::Panicked, incarnation),
            Fate::Killed(incarnation) => (pb::FateKind::Killed, incarnation),
            Fate::NotWatched => (pb::FateKind::NotWatched, 0),
        };
        pb::Fate {
            id,
            kind: kind.into(),
            incarnation,
        }
    }

    /// A kind of a later version ends the watch: whatever it means, it is no life.
    pub(crate) fn from_proto(fate: &pb::Fate) -> Fate {
        let incarnation = fate.incarnation;
        match fate.kind() {
            pb::FateKind::Present => Fate::Present(incarnation),
            pb::FateKind::Stopped => Fate::Stopped(incarnation),
            pb::FateKind::Panicked => Fate::Panicked(incarnation),
            pb::FateKind::Killed => Fate::Killed(incarnation),
            pb::FateKind::NotWatched | pb::FateKind::Unspecified => Fate::NotWatched,
        }
    }
}

/// What the receiving side says of a sequenced stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckState {
    /// Everything up to the number is with its receiver.
    Taken,
    /// The same, and what came after it did not: repeat from there.
    Repeat,
    /// The stream is not known there, or not any more.
    Forgotten,
    /// This peer may not send this, or nobody takes it there.
    Refused(String),
}

impl AckState {
    pub(crate) fn to_proto(&self) -> i32 {
        let state = match self {
            AckState::Taken => pb::AckState::Taken,
            AckState::Repeat => pb::AckState::Repeat,
            AckState::Forgotten => pb::AckState::Forgotten,
            AckState::Refused(_) => pb::AckState::Refused,
        };
        state.into()
    }

    /// A state of a later version ends the stream, its words with it.
    pub(crate) fn from_proto(ack: &pb::Ack) -> AckState {
        match pb::AckState::try_from(ack.state) {
            Ok(pb::AckState::Taken) => AckState::Taken,
            Ok(pb::AckState::Repeat) => AckState::Repeat,
            Ok(pb::AckState::Forgotten) => AckState::Forgotten,
            Ok(pb::AckState::Refused) => AckState::Refused(frame::detail(&ack.detail)),
            Ok(pb::AckState::Unspecified) | Err(_) => {
                AckState::Refused(format!("state {}", ack.state))
            }
        }
    }
}

/// Why the peer did not take a tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DroppedWhy {
    /// It does not know the type, or does not serve it on this link.
    UnknownType,
    /// We may not send it.
    Refused,
    /// It was for an incarnation that is over.
    Stale,
    /// A number of a later version.
    Unrecognised(i32),
}

impl DroppedWhy {
    pub(crate) fn to_proto(self) -> i32 {
        let why = match self {
            DroppedWhy::UnknownType => pb::DroppedWhy::UnknownType,
            DroppedWhy::Refused => pb::DroppedWhy::Refused,
            DroppedWhy::Stale => pb::DroppedWhy::Stale,
            DroppedWhy::Unrecognised(number) => return number,
        };
        why.into()
    }

    pub(crate) fn from_proto(number: i32) -> DroppedWhy {
        match pb::DroppedWhy::try_from(number) {
            Ok(pb::DroppedWhy::UnknownType) => DroppedWhy::UnknownType,
            Ok(pb::DroppedWhy::Refused) => DroppedWhy::Refused,
            Ok(pb::DroppedWhy::Stale) => DroppedWhy::Stale,
            Ok(pb::DroppedWhy::Unspecified) | Err(_) => DroppedWhy::Unrecognised(number),
        }
    }
}
