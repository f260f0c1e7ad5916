//! What callers are told, in this crate's words.

use libp2p::TransportError;
use libp2p::gossipsub::PublishError;
use libp2p::swarm::DialError;

use super::super::handle::Answer;
use super::super::upgrade::{self, UpgradeError};
use super::super::{ControlError, DialFailure};

/// A caller that went away does not need its answer.
pub(super) fn reply<T>(answer: Answer<T>, value: T) {
    if answer.send(value).is_err() {
        tracing::trace!("the caller is gone");
    }
}

pub(super) fn publish_error(error: PublishError) -> ControlError {
    match error {
        PublishError::Duplicate => ControlError::Duplicate,
        PublishError::NoPeersSubscribedToTopic => ControlError::NoPeers,
        other => ControlError::Publish(other.to_string()),
    }
}

pub(super) fn dial_failures(error: DialError) -> Vec<(String, DialFailure)> {
    match error {
        DialError::Transport(tried) => tried
            .into_iter()
            .map(|(address, error)| {
                let failure = match error {
                    TransportError::Other(error) => {
                        DialFailure::Upgrade(UpgradeError::from_io(error))
                    }
                    TransportError::MultiaddrNotSupported(address) => {
                        DialFailure::NotTried(format!("{address} is not supported"))
                    }
                };
                (upgrade::plain(&address), failure)
            })
            .collect(),
        other => not_tried(&other.to_string()),
    }
}

pub(super) fn not_tried(reason: &str) -> Vec<(String, DialFailure)> {
    let failure = DialFailure::NotTried(reason.to_owned());
    vec![("any address".to_owned(), failure)]
}
