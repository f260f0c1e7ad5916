//! What can go wrong for an integrator, and whether trying again makes sense.

use std::time::Duration;

use pqcnet_actor::AskError;
use pqcnet_crypto::NodeId;
use pqcnet_crypto::keystore::KeystoreError;
use pqcnet_messages::Refusal;
use pqcnet_p2p::network::NetworkFileError;

/// Why [`crate::ClientConfig::from_files`] has nothing to start a client with. Each names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The network file cannot be used.
    #[error(transparent)]
    Network(#[from] NetworkFileError),
    /// The keys or the file that unlocks them cannot be used.
    #[error(transparent)]
    Keys(#[from] KeystoreError),
}

/// Why there is no connection to the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The network file names no sentry with an address, or none of those asked for (local).
    #[error("the network file has no such sentry with an address")]
    NoSentry,
    /// The keys or the network cannot be used for a handshake (local).
    #[error("{0}")]
    Unusable(String),
    /// No sentry answered, or the way broke before it did.
    #[error("sentry {sentry}: {reason}")]
    Unreachable {
        /// Which sentry was tried last.
        sentry: NodeId,
        /// What happened.
        reason: String,
    },
    /// The handshake or the link's Hello was refused: wrong network, identity, version, suite or role.
    #[error("sentry {sentry}: {reason}")]
    Rejected {
        /// Which sentry.
        sentry: NodeId,
        /// Stage and reason.
        reason: String,
    },
    /// The sentry refused the session.
    #[error("sentry {sentry} refused the session: {refusal}")]
    Refused {
        /// Which sentry.
        sentry: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// No sentry took the client in within the time allowed.
    #[error("no sentry within {after:?}; the last attempt: {last}")]
    TimedOut {
        /// The time allowed.
        after: Duration,
        /// What the last attempt met.
        last: Box<ConnectError>,
    },
}

impl ConnectError {
    /// Whether the same attempt can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. } => true,
            ConnectError::Refused { refusal, .. } => refusal.is_retryable(),
            ConnectError::NoSentry | ConnectError::Unusable(_) | ConnectError::Rejected { .. } => {
                false
            }
        }
    }
}

/// Why a message was not published, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The network refused it; it is not stored.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It may or may not be stored: the time allowed is over, or the shard's owner no longer knows the producer. Published
    /// again it may land twice.
    #[error("no definite answer: the message may or may not be stored")]
    OutcomeUnknown,
    /// It was never sent within the time allowed; it is not stored.
    #[error("not sent within the time allowed")]
    NotSent,
    /// The payload is larger than a message may be (local).
    #[error("payload of {len} bytes; a message has at most {max}")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The publisher's window is full: the network takes less than is offered (local). Nothing was handed over.
    #[error("no room for {needed} bytes; {free} are free until earlier messages are acknowledged")]
    NoRoom {
        /// What the message counts against the window, in bytes.
        needed: usize,
        /// What is free, in bytes.
        free: usize,
    },
    /// More channels than one client publishes to (local).
    #[error("publishing to {0} channels already")]
    TooManyChannels(usize),
    /// The client is closed (local).
    #[error("the client is closed")]
    Closed,
}

impl PublishError {
    /// Whether publishing the same payload again is worth a try and cannot store it twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            PublishError::Refused(refusal) => refusal.is_retryable(),
            PublishError::NotSent | PublishError::NoRoom { .. } => true,
            PublishError::OutcomeUnknown
            | PublishError::TooLarge { .. }
            | PublishError::TooManyChannels(_)
            | PublishError::Closed => false,
        }
    }
}

/// Why a subscription did not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The network refused it.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It did not start within the time allowed.
    #[error("not started within {0:?}")]
    TimedOut(Duration),
    /// A delivery did not continue the channel: something is missing or came again.
    #[error("the sentry delivered offset {got} where {expected} had to come")]
    NotContiguous {
        /// The offset that had to come.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// The sentry sent more than the subscription's window allows.
    #[error("the sentry sent more than the window allows")]
    WindowExceeded,
    /// The client is closed (local).
    #[error("the client is closed")]
    Closed,
}

impl SubscribeError {
    /// Whether subscribing again from the last offset is worth a try.
    pub fn is_retryable(&self) -> bool {
        match self {
            SubscribeError::Refused(refusal) => refusal.is_retryable(),
            SubscribeError::TimedOut(_) => true,
            SubscribeError::NotContiguous { .. }
            | SubscribeError::WindowExceeded
            | SubscribeError::Closed => false,
        }
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The network refused it; nothing was done.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// No answer: the link went or time ran out. Whether it took effect is unknown.
    #[error("no answer: {0}")]
    Unanswered(AskError),
    /// There was no connection within the time allowed; nothing was done.
    #[error("not connected")]
    NotConnected,
}

impl RequestError {
    /// Whether the same request can succeed later. After [`RequestError::Unanswered`] it may then take effect twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            RequestError::Refused(refusal) => refusal.is_retryable(),
            RequestError::Unanswered(AskError::Refused(_)) => false,
            RequestError::Unanswered(_) | RequestError::NotConnected => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an integrator's retry loop does with each error.
    #[test]
    fn what_is_retryable() {
        let sentry = NodeId::from_bytes([1; 32]);
        let reason = String::new;
        let busy = || Refusal::Busy;
        let never = || Refusal::NotAllowed;
        let after = Duration::from_secs(1);
        let last = Box::new(ConnectError::NoSentry);
        let connect = [
            (ConnectError::NoSentry, false),
            (ConnectError::Unusable(reason()), false),
            (
                ConnectError::Unreachable {
                    sentry,
                    reason: reason(),
                },
                true,
            ),
            (
                ConnectError::Rejected {
                    sentry,
                    reason: reason(),
                },
                false,
            ),
            (
                ConnectError::Refused {
                    sentry,
                    refusal: busy(),
                },
                true,
            ),
            (
                ConnectError::Refused {
                    sentry,
                    refusal: never(),
                },
                false,
            ),
            (ConnectError::TimedOut { after, last }, true),
        ];
        for (error, retryable) in connect {
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
        let publish = [
            (PublishError::Refused(busy()), true),
            (PublishError::Refused(never()), false),
            (PublishError::OutcomeUnknown, false),
            (PublishError::NotSent, true),
            (PublishError::TooLarge { len: 2, max: 1 }, false),
            (PublishError::NoRoom { needed: 2, free: 1 }, true),
            (PublishError::TooManyChannels(1), false),
            (PublishError::Closed, false),
        ];
        for (error, retryable) in publish {
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
        let subscribe = [
            (SubscribeError::Refused(busy()), true),
            (SubscribeError::Refused(never()), false),
            (SubscribeError::TimedOut(after), true),
            (
                SubscribeError::NotContiguous {
                    expected: 1,
                    got: 2,
                },
                false,
            ),
            (SubscribeError::WindowExceeded, false),
            (SubscribeError::Closed, false),
        ];
        for (error, retryable) in subscribe {
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
        let request = [
            (RequestError::Refused(busy()), true),
            (RequestError::Refused(never()), false),
            (RequestError::Unanswered(AskError::Timeout), true),
            (RequestError::Unanswered(AskError::Refused(reason())), false),
            (RequestError::NotConnected, true),
        ];
        for (error, retryable) in request {
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
    }
}
