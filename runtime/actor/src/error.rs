//! What a sender and a caller can learn.

use std::fmt;
use std::time::Duration;

use crate::watch::Incarnation;

/// Why a message was not taken; it comes back with the error.
pub enum TellError<M> {
    /// The receiver's lane for this class is full.
    Full(M),
    /// The receiver has stopped for good, or the one incarnation that the message was for has.
    Closed(M),
}

impl<M> TellError<M> {
    /// The message.
    pub fn into_inner(self) -> M {
        match self {
            TellError::Full(msg) | TellError::Closed(msg) => msg,
        }
    }

    /// Whether the receiver is only busy, so a later attempt may succeed.
    pub fn is_full(&self) -> bool {
        matches!(self, TellError::Full(_))
    }

    pub(crate) fn map<N>(self, f: impl FnOnce(M) -> N) -> TellError<N> {
        match self {
            TellError::Full(msg) => TellError::Full(f(msg)),
            TellError::Closed(msg) => TellError::Closed(f(msg)),
        }
    }
}

impl<M> fmt::Debug for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M> fmt::Display for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TellError::Full(_) => "the receiver's mailbox is full",
            TellError::Closed(_) => "the receiver has stopped",
        })
    }
}

impl<M> std::error::Error for TellError<M> {}

/// Why an ask has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Not taken: the receiver's lane was full. Nothing happened.
    #[error("the receiver's mailbox is full")]
    Busy,
    /// No reply in time: whether the request took effect is unknown.
    #[error("no reply in time; the outcome is unknown")]
    Timeout,
    /// The receiver stopped before it handled the request.
    #[error("the receiver has stopped")]
    Closed,
    /// The receiver panicked while it held the request: whether it took effect is unknown.
    #[error("the receiver panicked while it held the request")]
    Panicked,
    /// The receiver dropped its promise to answer.
    #[error("the receiver dropped the request without an answer")]
    Abandoned,
    /// The one incarnation that the request was for is over. Nothing happened.
    #[error("incarnation {held} of the receiver is over")]
    Stale {
        /// The one that it was for.
        held: Incarnation,
        /// The one that receives now, if there is one.
        present: Option<Incarnation>,
    },
    /// The remote node refuses this message from this peer.
    #[error("the remote node refused: {0}")]
    Refused(String),
    /// The link failed, or the remote node answered with something that is no reply.
    #[error("the remote node did not answer: {0}")]
    Remote(String),
}

/// Why an offloaded computation has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The pool's queue is full: nothing ran.
    #[error("the offload queue of {limit} jobs is full")]
    Busy {
        /// The queue's bound.
        limit: usize,
    },
    /// The computation panicked.
    #[error("the offloaded computation panicked")]
    Panicked,
    /// The runtime is going down.
    #[error("the runtime is shutting down")]
    Closed,
}

/// Why a spawned task has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It panicked.
    #[error("the task panicked")]
    Panicked,
    /// It was aborted, or the runtime went down.
    #[error("the task was aborted")]
    Aborted,
}

/// Why a nursery refuses a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NurseryFull {
    /// As many children as it may have.
    #[error("the nursery holds its limit of {limit} children")]
    Full {
        /// The bound it was made with.
        limit: usize,
    },
    /// It is not running.
    #[error("the nursery is not running")]
    Closed,
}

/// How a whole tree ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Asked to, every child within its deadline.
    Stopped,
    /// Asked to, but some children did not end by their deadline and were cut off.
    Overran {
        /// Their paths.
        late: Vec<crate::Path>,
    },
    /// A supervisor's restart limit was exceeded and nothing above it could help.
    Escalated {
        /// The supervisor that gave up.
        at: crate::Path,
        /// The failure that was one too many.
        cause: String,
    },
}

impl Exit {
    /// 0 after a stop that was asked for, 1 after an escalation.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Stopped | Exit::Overran { .. } => 0,
            Exit::Escalated { .. } => 1,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Stopped => f.write_str("stopped"),
            Exit::Overran { late } => {
                write!(f, "stopped; {} actors overran their deadline", late.len())
            }
            Exit::Escalated { at, cause } => write!(f, "{at} gave up: {cause}"),
        }
    }
}

/// No reply may take longer than this; a longer timeout is cut to it, so that deadline sums cannot overflow.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
