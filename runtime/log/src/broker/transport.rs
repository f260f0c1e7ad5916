//! What the log needs of a broker, whoever carries it there: AMQP to a RabbitMQ ([`amqp`](super::amqp)), or a simulated network.
//!
//! A broker keeps streams by name. A writer has a stream's lock, which is its connection's alone, and gets a confirm for each
//! message it publishes; a reader gets a stream's messages in order from a place in it. What a stream's messages amount to is
//! [`core`](crate::core)'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::bundle;
use super::names::Naming;
use crate::core::fold::Stamp;
use crate::core::owner::OwnerLimits;
use crate::{ChannelId, Letter, LetterKeys, Retention};

/// A broker that does not answer within this is taken for gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What is a log's at its broker, and how it goes about it.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// Names of streams and locks begin with this; relayers of one network have it in common.
    pub prefix: String,
    /// Whose they are; without it all shards' streams have the names that have no owner in them.
    pub naming: Option<Naming>,
    /// Of streams that do not exist yet.
    pub retention: Retention,
    /// Limits of each shard's writer.
    pub limits: OwnerLimits,
}

impl BrokerSettings {
    /// Names that begin with this, no retention, usual limits.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            naming: None,
            retention: Retention::default(),
            limits: OwnerLimits::default(),
        }
    }

    /// Limits of a writer. What is in flight together may come to lie in one segment, however long that gets, and would go as one:
    /// no more than a segment ever is.
    pub(super) fn owner_limits(&self) -> OwnerLimits {
        let in_flight = self.limits.bytes_in_flight;
        OwnerLimits {
            bytes_in_flight: segment_bytes(self.retention)
                .map_or(in_flight, |of| of.min(in_flight)),
            ..self.limits
        }
    }
}

/// Bytes at which a broker closes a segment of a new stream. Whole segments go: eight of them keep the limit to an eighth.
pub(super) fn segment_bytes(retention: Retention) -> Option<u64> {
    let kept = retention.bytes?;
    Some((kept / 8).clamp(64 << 10, 500 << 20))
}

/// Why something did not work with the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Another connection has the shard.
    #[error("another connection holds the lock {queue}")]
    Locked {
        /// The lock.
        queue: String,
    },
    /// Somebody else has written to the stream.
    #[error("somebody else has written to {stream} under writer epoch {epoch}")]
    Foreign {
        /// The stream.
        stream: String,
        /// Their writer epoch.
        epoch: u64,
    },
    /// The broker has the stream's name, and does not serve it: not yet, or it forgot what coordinates its streams or where this one is, or the stream does not start.
    #[error(
        "the broker does not serve {stream}, which it has (for longer than half a minute: docs/runbooks/broker-streams-gone.md): {detail}"
    )]
    Asleep {
        /// The stream.
        stream: String,
        /// The broker's words.
        detail: String,
    },
    /// The broker has no such stream, and should.
    #[error(
        "the broker has no stream {stream}, which held this shard's entries: it was deleted, or the broker lost its data"
    )]
    Missing {
        /// The stream.
        stream: String,
    },
    /// The broker does not answer, or says no.
    #[error("{0}")]
    Refused(String),
}

/// What a broker answers.
pub type Answer<T> = BoxFuture<'static, Result<T, BrokerError>>;

/// Whether a message was confirmed; false for a nack or a return.
pub type Confirming = Answer<bool>;

/// A way to one broker.
pub trait Transport: Send + Sync + 'static {
    /// A new connection, for this purpose.
    fn connect(&self, purpose: &'static str) -> Answer<Arc<dyn Connection>>;

    /// Whether this broker has queues beside its streams, for what is put aside.
    fn keeps_letters(&self) -> bool {
        false
    }
}

/// One connection. Dropped, it ends.
pub trait Connection: Send + Sync + 'static {
    /// Waits until it is lost; why.
    fn lost(&self) -> BoxFuture<'static, String>;

    /// Whether a stream of this name is there.
    ///
    /// # Errors
    /// [`BrokerError::Asleep`]: it is, and the broker does not serve it.
    fn has(&self, stream: &str) -> Answer<bool>;

    /// A way to write to a stream: takes its lock, and makes the stream if there is none and `make` says how long it keeps.
    ///
    /// # Errors
    /// [`BrokerError::Locked`], [`BrokerError::Missing`], [`BrokerError::Asleep`].
    fn write(&self, stream: &str, make: Option<Retention>) -> Answer<Arc<dyn Writer>>;

    /// Reads a stream from a place on.
    ///
    /// # Errors
    /// [`BrokerError::Asleep`].
    fn read(&self, stream: &str, from: Start) -> Answer<Box<dyn Messages>>;

    /// Deletes a stream and the queue beside it, as far as they are there. Takes the lock, and gives it up in the end.
    ///
    /// # Errors
    /// [`BrokerError::Locked`], [`BrokerError::Asleep`].
    fn delete(&self, stream: &str) -> Answer<()>;

    /// Puts a copy into the queue beside a stream, whose lock this connection has or takes; false when the queue has no room.
    fn keep_letter(&self, stream: &str, letter: Letter) -> Answer<bool> {
        drop(letter);
        no_letters(stream)
    }

    /// Gives what is wanted of that queue, and takes out what is not listed and what is there twice. The same lock.
    fn sift_letters(&self, stream: &str, listed: LetterKeys, wanted: LetterKeys) -> Answer<Sifted> {
        drop((listed, wanted));
        no_letters(stream)
    }
}

/// What a look through the queue beside a stream came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sifted {
    /// What was wanted and is there, ascending.
    pub found: Vec<Letter>,
    /// All that is there now.
    pub there: LetterKeys,
}

fn no_letters<T: Send + 'static>(stream: &str) -> Answer<T> {
    let refused = BrokerError::Refused(format!("nothing is put aside beside {stream}"));
    std::future::ready(Err(refused)).boxed()
}

/// Publishes to one stream. Confirms come in any order; what is lost with it may be in the stream all the same.
pub trait Writer: Send + Sync + 'static {
    /// Whether the message is confirmed. The first poll hands it over.
    fn publish(&self, message: Outgoing) -> Confirming;
}

/// Reads a stream's messages in order.
pub trait Messages: Send + 'static {
    /// The next one. What no version of this program writes is passed over.
    fn next(&mut self) -> BoxFuture<'_, Result<Message, BrokerError>>;

    /// Ends the reading.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What a message that is an entry says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    /// Its channel.
    pub channel: ChannelId,
    /// Its offset there.
    pub offset: u64,
    /// Its producer's epoch.
    pub epoch: u64,
    /// Its number in that.
    pub sequence: u64,
}

/// A message on its way to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What it counts for.
    pub stamp: Stamp,
    /// If it is an entry.
    pub entry: Option<EntryHead>,
    /// Entries in its body, with their heads; 0 unless it is a bundle.
    pub bundled: u32,
    /// Its bytes.
    pub body: Bytes,
}

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it is in the stream.
    pub position: u64,
    /// What it counts for.
    pub stamp: Stamp,
    /// If it is an entry.
    pub entry: Option<EntryHead>,
    /// Entries in its body, with their heads; 0 unless it is a bundle.
    pub bundled: u32,
    /// Its bytes.
    pub body: Bytes,
}

impl Message {
    /// The entries that it brings, none if its body makes no sense.
    pub fn entries(&self) -> Vec<(EntryHead, Bytes)> {
        match self.entry {
            Some(head) => vec![(head, self.body.clone())],
            None if self.bundled > 0 => bundle::decode(&self.body).unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first message that is there.
    First,
    /// At this place, or behind it where that is gone.
    Position(u64),
}

/// What `work` gives, or that the broker does not answer.
pub(crate) async fn in_time<T>(
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    within(PATIENCE, work).await
}

/// The same with another patience.
pub(crate) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(BrokerError::Refused(format!(
            "no answer within {patience:?}"
        ))),
    }
}

/// Hands messages to a writer in order; the confirm of each.
pub(crate) async fn hand_over(
    writer: &dyn Writer,
    messages: impl Iterator<Item = Outgoing>,
) -> Vec<Confirming> {
    let mut confirming: Vec<Confirming> = messages.map(|message| writer.publish(message)).collect();
    for confirm in &mut confirming {
        if let std::task::Poll::Ready(early) = futures::poll!(&mut *confirm) {
            *confirm = std::future::ready(early).boxed();
        }
    }
    confirming
}
