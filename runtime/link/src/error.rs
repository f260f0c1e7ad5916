//! How a link ends, and who erred.

use std::fmt;
use std::io;

use pqcnet_protos::link::v1 as pb;

use crate::config::{LINK_VERSION, LINK_VERSION_MIN};
use crate::ids::{Class, ServiceId};

/// How far a link had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Hello and Ready are being exchanged.
    Hello,
    /// Messages flow.
    Open,
}

impl Stage {
    pub(crate) fn to_proto(self) -> pb::Stage {
        match self {
            Stage::Hello => pb::Stage::Hello,
            Stage::Open => pb::Stage::Open,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Hello => "hello",
            Stage::Open => "open",
        })
    }
}

/// Why a link ended, as `Down` says it on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// An ordinary end.
    Closed,
    /// The node goes down.
    Draining,
    /// No common link version.
    Version,
    /// The claimed role is unknown or not the network's.
    Role,
    /// Bytes that are no frame.
    Malformed,
    /// A frame over the limit.
    FrameTooLarge,
    /// A frame that may not come now.
    UnexpectedFrame,
    /// A tell without credit.
    CreditExceeded,
    /// An ask beyond the window.
    AsksExceeded,
    /// An ask id that did not rise.
    BadAskId,
    /// A reply to nothing.
    UnknownReply,
    /// Credit beyond any sensible window.
    CreditOverflow,
    /// A payload that is not its type's encoding.
    BadPayload,
    /// No Hello in time.
    HelloTimeout,
    /// Nothing heard for too long.
    Silent,
    /// The side that says it failed.
    Internal,
    /// The Hello declared limits this version cannot work with.
    Limits,
    /// A frame kind that the agreed version does not have.
    UnknownFrame,
    /// A frame begun and not finished in time.
    SlowFrame,
    /// Bytes that could not be written in time.
    NotReading,
    /// Too many messages that the peer may not send.
    Refused,
    /// A subscription, watch or sequence that breaks its rules.
    BadStream,
    /// A number of a later version.
    Unrecognised(i32),
}

impl Reason {
    pub(crate) fn to_proto(self) -> i32 {
        let reason = match self {
            Reason::Closed => pb::Reason::Closed,
            Reason::Draining => pb::Reason::Draining,
            Reason::Version => pb::Reason::Version,
            Reason::Role => pb::Reason::Role,
            Reason::Malformed => pb::Reason::Malformed,
            Reason::FrameTooLarge => pb::Reason::FrameTooLarge,
            Reason::UnexpectedFrame => pb::Reason::UnexpectedFrame,
            Reason::CreditExceeded => pb::Reason::CreditExceeded,
            Reason::AsksExceeded => pb::Reason::AsksExceeded,
            Reason::BadAskId => pb::Reason::BadAskId,
            Reason::UnknownReply => pb::Reason::UnknownReply,
            Reason::CreditOverflow => pb::Reason::CreditOverflow,
            Reason::BadPayload => pb::Reason::BadPayload,
            Reason::HelloTimeout => pb::Reason::HelloTimeout,
            Reason::Silent => pb::Reason::Silent,
            Reason::Internal => pb::Reason::Internal,
            Reason::Limits => pb::Reason::Limits,
            Reason::UnknownFrame => pb::Reason::UnknownFrame,
            Reason::SlowFrame => pb::Reason::SlowFrame,
            Reason::NotReading => pb::Reason::NotReading,
            Reason::Refused => pb::Reason::Refused,
            Reason::BadStream => pb::Reason::BadStream,
            Reason::Unrecognised(number) => return number,
        };
        reason.into()
    }

    pub(crate) fn from_proto(number: i32) -> Reason {
        match pb::Reason::try_from(number) {
            Ok(pb::Reason::Closed) => Reason::Closed,
            Ok(pb::Reason::Draining) => Reason::Draining,
            Ok(pb::Reason::Version) => Reason::Version,
            Ok(pb::Reason::Role) => Reason::Role,
            Ok(pb::Reason::Malformed) => Reason::Malformed,
            Ok(pb::Reason::FrameTooLarge) => Reason::FrameTooLarge,
            Ok(pb::Reason::UnexpectedFrame) => Reason::UnexpectedFrame,
            Ok(pb::Reason::CreditExceeded) => Reason::CreditExceeded,
            Ok(pb::Reason::AsksExceeded) => Reason::AsksExceeded,
            Ok(pb::Reason::BadAskId) => Reason::BadAskId,
            Ok(pb::Reason::UnknownReply) => Reason::UnknownReply,
            Ok(pb::Reason::CreditOverflow) => Reason::CreditOverflow,
            Ok(pb::Reason::BadPayload) => Reason::BadPayload,
            Ok(pb::Reason::HelloTimeout) => Reason::HelloTimeout,
            Ok(pb::Reason::Silent) => Reason::Silent,
            Ok(pb::Reason::Internal) => Reason::Internal,
            Ok(pb::Reason::Limits) => Reason::Limits,
            Ok(pb::Reason::UnknownFrame) => Reason::UnknownFrame,
            Ok(pb::Reason::SlowFrame) => Reason::SlowFrame,
            Ok(pb::Reason::NotReading) => Reason::NotReading,
            Ok(pb::Reason::Refused) => Reason::Refused,
            Ok(pb::Reason::BadStream) => Reason::BadStream,
            Ok(pb::Reason::Unspecified) | Err(_) => Reason::Unrecognised(number),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Closed => "closed",
            Reason::Draining => "draining",
            Reason::Version => "no common version",
            Reason::Role => "role refused",
            Reason::Malformed => "malformed frame",
            Reason::FrameTooLarge => "frame too large",
            Reason::UnexpectedFrame => "unexpected frame",
            Reason::CreditExceeded => "credit exceeded",
            Reason::AsksExceeded => "too many asks",
            Reason::BadAskId => "bad ask id",
            Reason::UnknownReply => "reply to nothing",
            Reason::CreditOverflow => "credit overflow",
            Reason::BadPayload => "bad payload",
            Reason::HelloTimeout => "no hello in time",
            Reason::Silent => "silent",
            Reason::Internal => "internal failure",
            Reason::Limits => "unusable limits",
            Reason::UnknownFrame => "unknown frame",
            Reason::SlowFrame => "frame not finished in time",
            Reason::NotReading => "not reading",
            Reason::Refused => "too many refused messages",
            Reason::BadStream => "bad stream",
            Reason::Unrecognised(number) => return write!(f, "reason {number}"),
        })
    }
}

/// What the peer did that the protocol forbids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No link version in common.
    #[error("speaks link versions {min} to {max}, not {LINK_VERSION_MIN} to {LINK_VERSION}")]
    Version {
        /// Lowest it speaks.
        min: u32,
        /// Highest it speaks.
        max: u32,
    },
    /// A role that does not exist.
    #[error("claims role number {0}, which is none")]
    UnknownRole(i32),
    /// Bytes that are no frame.
    #[error("sent bytes that are no frame")]
    Malformed,
    /// A length prefix over the limit.
    #[error("announced a frame of {len} bytes, the limit is {limit}")]
    FrameTooLarge {
        /// What the prefix says.
        len: u32,
        /// The largest allowed at that moment.
        limit: u32,
    },
    /// A frame that may not come now.
    #[error("sent {frame} while at stage {stage}")]
    UnexpectedFrame {
        /// The frame's kind.
        frame: &'static str,
        /// Where the link stood.
        stage: Stage,
    },
    /// A tell without credit for it.
    #[error("told {service} ({class:?}) without credit")]
    CreditExceeded {
        /// The service.
        service: ServiceId,
        /// The class.
        class: Class,
    },
    /// More unanswered asks than the window.
    #[error("asked beyond the window of {window} units")]
    AsksExceeded {
        /// The declared window.
        window: u32,
    },
    /// An ask id not above the one before.
    #[error("used ask id {id} after {last}")]
    BadAskId {
        /// The id.
        id: u64,
        /// The highest before.
        last: u64,
    },
    /// A reply to an ask that is not open.
    #[error("replied to ask {id}, which is not open")]
    UnknownReply {
        /// The id.
        id: u64,
    },
    /// Credit that adds up to more than any window.
    #[error("granted more than {limit} units")]
    CreditOverflow {
        /// The most units a sender may hold.
        limit: u32,
    },
    /// A payload that is not its type's encoding.
    #[error("sent a bad payload for {message}: {problem}")]
    BadPayload {
        /// The message's name.
        message: &'static str,
        /// What is wrong.
        problem: crate::wire::WireError,
    },
    /// A Hello whose limits cannot be worked with.
    #[error("declared an unusable `{field}`")]
    Limits {
        /// The Hello's field.
        field: &'static str,
    },
    /// Hello or Ready did not come in time.
    #[error("did not finish the hello in time")]
    HelloTimeout,
    /// Nothing came for too long.
    #[error("was silent for too long")]
    Silent,
    /// A frame kind that the agreed version does not have.
    #[error("sent a frame of kind {number}, which link version {version} does not have")]
    UnknownFrame {
        /// Its number in `Frame`.
        number: u32,
        /// The agreed version.
        version: u32,
    },
    /// It began a frame and did not finish it in time.
    #[error("did not finish a frame in time")]
    SlowFrame,
    /// It does not read what it is sent.
    #[error("does not read")]
    NotReading,
    /// It goes on sending what it may not send.
    #[error("sent {limit} messages that it may not send")]
    TooManyRefused {
        /// The most that are borne.
        limit: u32,
    },
    /// A Reply says that an incarnation is over, but none in particular was asked.
    #[error("called an ask stale that was for any incarnation")]
    UnaskedStale,
    /// A subscription, a watch or a sequenced stream that breaks its rules.
    #[error("{what} {id} {problem}")]
    BadStream {
        /// Which of them.
        what: &'static str,
        /// Its id.
        id: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Fault {
    /// The reason named to the peer.
    pub fn reason(&self) -> Reason {
        match self {
            Fault::Version { .. } => Reason::Version,
            Fault::UnknownRole(_) => Reason::Role,
            Fault::Malformed => Reason::Malformed,
            Fault::FrameTooLarge { .. } => Reason::FrameTooLarge,
            Fault::UnexpectedFrame { .. } => Reason::UnexpectedFrame,
            Fault::CreditExceeded { .. } => Reason::CreditExceeded,
            Fault::AsksExceeded { .. } => Reason::AsksExceeded,
            Fault::BadAskId { .. } => Reason::BadAskId,
            Fault::UnknownReply { .. } => Reason::UnknownReply,
            Fault::CreditOverflow { .. } => Reason::CreditOverflow,
            Fault::BadPayload { .. } => Reason::BadPayload,
            Fault::Limits { .. } => Reason::Limits,
            Fault::HelloTimeout => Reason::HelloTimeout,
            Fault::Silent => Reason::Silent,
            Fault::UnknownFrame { .. } => Reason::UnknownFrame,
            Fault::SlowFrame => Reason::SlowFrame,
            Fault::NotReading => Reason::NotReading,
            Fault::TooManyRefused { .. } => Reason::Refused,
            Fault::BadStream { .. } | Fault::UnaskedStale => Reason::BadStream,
        }
    }
}

/// How a link ended, seen from here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// This side ended it.
    #[error("closed here at stage {stage}: {reason}{}", paren(detail))]
    Local {
        /// Where the link stood.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// More words; may be empty.
        detail: String,
    },
    /// The peer broke the protocol; this side told it so and closed.
    #[error("the peer erred at stage {stage}: it {fault}")]
    Misbehaved {
        /// Where the link stood.
        stage: Stage,
        /// What it did.
        fault: Fault,
    },
    /// The peer ended it.
    #[error("closed by the peer at stage {stage}: {reason}{}", paren(detail))]
    Peer {
        /// Where the peer stood.
        stage: Stage,
        /// Why, in the peer's words.
        reason: Reason,
        /// More words of the peer; may be empty.
        detail: String,
    },
    /// The connection broke without a word (`UnexpectedEof`: it just ended).
    #[error("connection lost at stage {stage}: {kind}")]
    Lost {
        /// Where the link stood.
        stage: Stage,
        /// What the carrier said.
        kind: io::ErrorKind,
    },
}

fn paren(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

impl DownReason {
    /// Where the link stood.
    pub fn stage(&self) -> Stage {
        match self {
            DownReason::Local { stage, .. }
            | DownReason::Misbehaved { stage, .. }
            | DownReason::Peer { stage, .. }
            | DownReason::Lost { stage, .. } => *stage,
        }
    }

    /// The reason in one word; none for a lost connection.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            DownReason::Local { reason, .. } | DownReason::Peer { reason, .. } => Some(*reason),
            DownReason::Misbehaved { fault, .. } => Some(fault.reason()),
            DownReason::Lost { .. } => None,
        }
    }

    /// Whether both sides wanted this: nothing went wrong.
    pub fn is_ordinary(&self) -> bool {
        matches!(self.reason(), Some(Reason::Closed | Reason::Draining))
    }
}

/// Why something was not sent; nobody erred but for `TooLarge` and `NotServed`, which are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is not open, or not any more.
    #[error("the link is closed")]
    Closed,
    /// The peer has not granted enough credit yet.
    #[error("no credit")]
    NoCredit,
    /// Too many unanswered asks.
    #[error("the peer's ask window is full")]
    AsksFull,
    /// Too many bytes wait for the socket.
    #[error("too many bytes wait for the socket")]
    OutboundFull,
    /// The peer takes no frame of this size.
    #[error("larger than the peer's largest frame")]
    TooLarge,
    /// The peer does not serve the service.
    #[error("the peer does not serve {0}")]
    NotServed(ServiceId),
    /// The agreed link version does not have this.
    #[error("the peer speaks an earlier link version, which does not have this")]
    Unsupported,
    /// As many subscriptions or watches as a link may have.
    #[error("as many as a link may have")]
    TooMany,
}
