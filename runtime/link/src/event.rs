//! What a link reports, and how asks end.

use std::time::Duration;

use bytes::Bytes;
use pqcnet_protos::link::v1 as pb;

use crate::config::PeerHello;
use crate::error::DownReason;
use crate::event_log::Position;
use crate::frame;
use crate::ids::{Class, ServiceId, Trace};
pub use crate::outcome::{AckState, DroppedWhy, EndedWhy, Fate, StreamNotice};

/// What a tell or an ask carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Which service; one that this side offered.
    pub service: ServiceId,
    /// Which message of the service; the caller knows which ones there are.
    pub type_id: u32,
    /// Its class.
    pub class: Class,
    /// The sender's trace.
    pub trace: Option<Trace>,
    /// The one incarnation of the receiver that it is for; 0 for any.
    pub incarnation: u64,
    /// The message, sharing the memory it arrived in.
    pub payload: Bytes,
    /// What it cost the sender; give a tell's back with [`Link::grant`](crate::Link::grant).
    pub units: u32,
}

/// How an ask ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With a reply.
    Ok(Bytes),
    /// Mailbox full; nothing was done.
    Busy,
    /// Not answered in time; outcome unknown.
    Timeout,
    /// The actor is gone; nothing was done.
    Closed,
    /// The actor panicked; outcome unknown.
    Panicked,
    /// The actor dropped it unanswered.
    Abandoned,
    /// Access refused.
    Refused(String),
    /// No such message at the peer.
    UnknownType,
    /// The asker cancelled; outcome unknown.
    Cancelled,
    /// The peer's end is closing; nothing was done.
    Draining,
    /// The reply was larger than the asker's largest frame.
    ReplyTooLarge,
    /// The incarnation it was for is over; nothing was done.
    Stale {
        /// The receiver's present incarnation; 0 if it has none.
        present: u64,
    },
}

/// What the caller learns from a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer introduced itself: answer with [`Link::accept`](crate::Link::accept) or [`Link::reject`](crate::Link::reject).
    Hello(PeerHello),
    /// Both sides accepted.
    Open,
    /// A message for one of the services.
    Tell(Inbound),
    /// A question for one of the services; answer once with [`Link::send_reply`](crate::Link::send_reply).
    Ask {
        /// Its id.
        id: u64,
        /// What is left of the asker's time.
        remaining: Duration,
        /// The message.
        message: Inbound,
    },
    /// The asker gave up; its reply is already on the way.
    Cancelled {
        /// The ask's id.
        id: u64,
    },
    /// One of our asks ended, by a reply or because its deadline passed.
    Answer {
        /// The ask's id.
        id: u64,
        /// How.
        answer: Answer,
    },
    /// So many units of the peer's ask window are free again.
    AskUnits(u32),
    /// The peer granted credit.
    Credit {
        /// For this service.
        service: ServiceId,
        /// And this class.
        class: Class,
        /// So much more.
        units: u32,
    },
    /// The peer subscribes: answer with [`Link::begin_subscription`](crate::Link::begin_subscription) or
    /// [`Link::end_subscription`](crate::Link::end_subscription).
    Subscribe {
        /// Its id.
        id: u64,
        /// The service; one that this side offered.
        service: ServiceId,
        /// Which events of the service.
        type_id: u32,
        /// The last event it had; none: from now on.
        after: Option<Position>,
    },
    /// The peer gave a subscription up.
    Unsubscribed {
        /// Its id.
        id: u64,
    },
    /// Something came of a subscription of ours.
    Notice {
        /// Its id.
        id: u64,
        /// What.
        notice: StreamNotice,
    },
    /// The peer watches: answer with [`Link::send_fate`](crate::Link::send_fate).
    Watch {
        /// Its id.
        id: u64,
        /// The service; one that this side offered.
        service: ServiceId,
        /// Which message's receiver.
        type_id: u32,
    },
    /// The peer gave a watch up.
    Unwatched {
        /// Its id.
        id: u64,
    },
    /// Something became of what we watch.
    Fate {
        /// The watch's id.
        id: u64,
        /// What.
        fate: Fate,
    },
    /// A sequenced tell: answer with [`Link::send_ack`](crate::Link::send_ack), and give its units back as a tell's.
    Sequenced {
        /// The sender's stream.
        stream: u64,
        /// Its number there.
        number: u64,
        /// This side's life, as far as the sender knows it.
        life: u64,
        /// The message.
        message: Inbound,
    },
    /// The peer says how far it has a stream of ours.
    Ack {
        /// The stream.
        stream: u64,
        /// What it says.
        state: AckState,
        /// Up to here everything is taken.
        number: u64,
        /// The life of the peer's inbox.
        life: u64,
    },
    /// The peer did not take a tell of ours.
    Dropped {
        /// Its service.
        service: ServiceId,
        /// Its type.
        type_id: u32,
        /// Why.
        why: DroppedWhy,
    },
    /// The link is over. Always the last event.
    Down(DownReason),
}

/// Counts since the link began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames sent, in all.
    pub frames_out: u64,
    /// Frames received, in all.
    pub frames_in: u64,
    /// Bytes handed out for sending.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Tells of a type that this side does not know, dropped.
    pub unknown_tells: u64,
    /// Asks of a type or service that this side does not know, refused.
    pub unknown_asks: u64,
    /// Messages, subscriptions and watches that the peer may not send, refused.
    pub refused: u64,
    /// Tells of ours that the peer says it did not take.
    pub dropped_by_peer: u64,
}

pub(crate) fn answer_to_proto(id: u64, answer: Answer) -> pb::Reply {
    let mut reply = pb::Reply {
        id,
        ..pb::Reply::default()
    };
    let status = match answer {
        Answer::Ok(payload) => {
            reply.payload = payload;
            pb::Status::Ok
        }
        Answer::Refused(detail) => {
            reply.detail = frame::detail(&detail);
            pb::Status::Refused
        }
        Answer::Stale { present } => {
            reply.incarnation = present;
            pb::Status::Stale
        }
        Answer::Busy => pb::Status::Busy,
        Answer::Timeout => pb::Status::Timeout,
        Answer::Closed => pb::Status::Closed,
        Answer::Panicked => pb::Status::Panicked,
        Answer::Abandoned => pb::Status::Abandoned,
        Answer::UnknownType => pb::Status::UnknownType,
        Answer::Cancelled => pb::Status::Cancelled,
        Answer::Draining => pb::Status::Draining,
        Answer::ReplyTooLarge => pb::Status::ReplyTooLarge,
    };
    reply.status = status.into();
    reply
}

pub(crate) fn answer_from_proto(reply: pb::Reply) -> Answer {
    match pb::Status::try_from(reply.status) {
        Ok(pb::Status::Ok) => Answer::Ok(reply.payload),
        Ok(pb::Status::Busy) => Answer::Busy,
        Ok(pb::Status::Timeout) => Answer::Timeout,
        Ok(pb::Status::Closed) => Answer::Closed,
        Ok(pb::Status::Panicked) => Answer::Panicked,
        Ok(pb::Status::Abandoned) => Answer::Abandoned,
        Ok(pb::Status::Refused) => Answer::Refused(frame::detail(&reply.detail)),
        Ok(pb::Status::UnknownType) => Answer::UnknownType,
        Ok(pb::Status::Cancelled) => Answer::Cancelled,
        Ok(pb::Status::Draining) => Answer::Draining,
        Ok(pb::Status::ReplyTooLarge) => Answer::ReplyTooLarge,
        Ok(pb::Status::Stale) => Answer::Stale {
            present: reply.incarnation,
        },
        // A status of a later version.
        Ok(pb::Status::Unspecified) | Err(_) => Answer::Refused(format!("status {}", reply.status)),
    }
}
