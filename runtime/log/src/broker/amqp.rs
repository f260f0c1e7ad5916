//! AMQP 0.9.1 through lapin: connections that come back, a shard's channel, its messages, its readers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, ByteArray, FieldTable, LongString, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    Event,
};
use pqcnet_actor::latest;
use pqcnet_actor::{Env, Pause};
use rand_core::Rng as _;

use super::BrokerConfig;
use super::record::{Record, stream_name};
use crate::core::fold::Stamp;
use crate::{ChannelId, ShardNo};

/// A broker that does not answer within this is taken for gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts to connect: the flow is back soon after the broker is.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Attempts that fail before it is said that the broker is not there; the quick ones take less than a second.
const TRIES: u32 = 3;
/// Messages that the broker sends a reader ahead: a stream needs a limit, and this many hide a round trip.
const PREFETCH: u16 = 256;
/// Read messages acknowledged together.
const ACK_EVERY: u64 = 64;

const EPOCH: &str = "writer-epoch";
const SEQUENCE: &str = "writer-sequence";
const RECORD: &str = "record";
const LAST: &str = "last";
const CHANNEL: &str = "channel";
const OFFSET: &str = "offset";
const PRODUCER_EPOCH: &str = "epoch";
const PRODUCER_SEQUENCE: &str = "sequence";

/// Why something did not work with the broker.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AmqpError {
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
    /// The broker does not answer, or says no.
    #[error("{0}")]
    Broker(String),
}

impl From<lapin::Error> for AmqpError {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error.to_string())
    }
}

/// What `work` gives, or that the broker does not answer.
pub(crate) async fn in_time<T>(
    work: impl Future<Output = Result<T, AmqpError>>,
) -> Result<T, AmqpError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(AmqpError::Broker(format!("no answer within {PATIENCE:?}"))),
    }
}

/// The present connection, if there is one, and whether connecting has been tried at all.
#[derive(Clone, Default)]
pub(crate) struct Line {
    pub connection: Option<Arc<Connection>>,
    pub tried: bool,
}

/// Keeps a connection up until nobody listens any more.
pub(crate) async fn keep_connected(
    env: Env,
    config: Arc<BrokerConfig>,
    purpose: &'static str,
    line: latest::Sender<Line>,
) {
    let mut pause = Pause::new(RETRY.0, RETRY.1);
    let mut rng = env.rng(&format!("broker {purpose}"));
    let mut failed = 0_u32;
    while !line.is_closed() {
        match in_time(connect(&config, purpose)).await {
            Ok(connection) => {
                pause.reset();
                failed = 0;
                let connection = Arc::new(connection);
                tracing::info!(purpose, "connected to the broker");
                line.send_replace(Line {
                    connection: Some(connection.clone()),
                    tried: true,
                });
                let why = until_lost(&connection, &line).await;
                tracing::warn!(purpose, %why, "the connection to the broker is lost");
                line.send_replace(Line {
                    connection: None,
                    tried: true,
                });
            }
            Err(error) => {
                failed = failed.saturating_add(1);
                if failed == TRIES {
                    tracing::warn!(purpose, %error, "no connection to the broker; trying on");
                } else {
                    tracing::debug!(purpose, %error, "no connection to the broker");
                }
                if failed >= TRIES {
                    line.send_if_modified(|line| !std::mem::replace(&mut line.tried, true));
                }
            }
        }
        let wait = pause.next(rng.next_u64());
        tokio::select! {
            biased;
            () = line.closed() => {}
            () = env.sleep(wait) => {}
        }
    }
}

async fn connect(config: &BrokerConfig, purpose: &'static str) -> Result<Connection, AmqpError> {
    let name = format!("{} {purpose}", config.prefix);
    let properties =
        ConnectionProperties::default().with_connection_name(LongString::from(name.into_bytes()));
    Ok(Connection::connect_uri(config.uri.clone(), properties).await?)
}

async fn until_lost(connection: &Connection, line: &latest::Sender<Line>) -> String {
    let mut events = connection.events_listener();
    loop {
        if !connection.status().connected() {
            return "closed".to_owned();
        }
        let event = tokio::select! {
            biased;
            () = line.closed() => return "nobody needs it".to_owned(),
            event = events.next() => event,
        };
        match event {
            Some(Event::Error(error)) => return error.to_string(),
            None => return "closed".to_owned(),
            // Blocked for lack of room: what is published waits for its confirm, and is spilled in time.
            Some(_) => {}
        }
    }
}

/// A channel that holds a shard's lock and whose claim stands.
pub(crate) struct Seat {
    pub channel: Channel,
    pub epoch: u64,
    /// Where the claim is in the stream.
    pub position: u64,
}

/// A channel in confirm mode on which the shard's lock is held and its stream exists.
pub(crate) async fn sit(
    connection: &Connection,
    config: &BrokerConfig,
    shard: ShardNo,
) -> Result<Channel, AmqpError> {
    let channel = connection.create_channel().await?;
    let stream = stream_name(&config.prefix, shard);
    let lock = format!("{stream}.owner");
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let locked = channel
        .queue_declare(lock.as_str().into(), exclusive, FieldTable::default())
        .await;
    if let Err(error) = locked {
        return Err(if is_locked(&error) {
            AmqpError::Locked { queue: lock }
        } else {
            error.into()
        });
    }
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
    arguments.insert("x-queue-type".into(), text("stream"));
    if let Some(bytes) = config.retention.bytes {
        arguments.insert("x-max-length-bytes".into(), number(bytes));
        // Whole segments go: eight of them keep the limit to an eighth.
        let segment = (bytes / 8).clamp(64 << 10, 500 << 20);
        arguments.insert("x-stream-max-segment-size-bytes".into(), number(segment));
    }
    if let Some(age) = config.retention.age {
        let age = format!("{}s", age.as_secs().max(1));
        arguments.insert("x-max-age".into(), text(&age));
    }
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(stream.as_str().into(), durable, arguments)
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

fn is_locked(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED)
        }
        _ => false,
    }
}

fn number(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(number.cast_signed())
}

fn stamped(stamp: Stamp) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(EPOCH.into(), number(stamp.epoch));
    headers.insert(SEQUENCE.into(), number(stamp.sequence));
    headers.insert(RECORD.into(), number(stamp.record));
    headers.insert(LAST.into(), AMQPValue::Boolean(stamp.last));
    headers
}

/// Whether a message was confirmed; false for a nack or a return.
pub(crate) type Confirming = Pin<Box<dyn Future<Output = Result<bool, AmqpError>> + Send>>;

fn publish(
    channel: &Channel,
    stream: &ShortString,
    body: Bytes,
    headers: FieldTable,
) -> Confirming {
    let (channel, stream) = (channel.clone(), stream.clone());
    async move {
        let options = BasicPublishOptions {
            // A stream that is gone must not swallow anything.
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_delivery_mode(2);
        let sent = channel
            .basic_publish("".into(), stream, options, &body, properties)
            .await?;
        Ok(sent.await? == Confirmation::Ack(None))
    }
    .boxed()
}

/// Claims a writer epoch; resolves once that is confirmed.
pub(crate) async fn claim(
    channel: &Channel,
    config: &BrokerConfig,
    shard: ShardNo,
    epoch: u64,
    body: Bytes,
) -> Result<(), AmqpError> {
    let stream = stream_name(&config.prefix, shard).as_str().into();
    let stamp = Stamp {
        epoch,
        sequence: 0,
        record: 0,
        last: false,
    };
    if publish(channel, &stream, body, stamped(stamp)).await? {
        Ok(())
    } else {
        Err(AmqpError::Broker("the claim was refused".to_owned()))
    }
}

/// Hands a record's messages to the channel, in order, the first with this sequence; the confirm of each.
pub(crate) async fn publish_record(
    seat: &Seat,
    config: &BrokerConfig,
    shard: ShardNo,
    (number_of_record, sequence): (u64, u64),
    record: &Record,
) -> Vec<Confirming> {
    let stream: ShortString = stream_name(&config.prefix, shard).as_str().into();
    let mut confirming = Vec::with_capacity(record.metas.len() + 1);
    let mut stamp = Stamp {
        epoch: seat.epoch,
        sequence,
        record: number_of_record,
        last: false,
    };
    for (run, meta, bytes) in record.entries() {
        let mut headers = stamped(stamp);
        let channel = AMQPValue::ByteArray(ByteArray::from(&run.channel.0[..]));
        headers.insert(CHANNEL.into(), channel);
        headers.insert(OFFSET.into(), number(meta.offset));
        headers.insert(PRODUCER_EPOCH.into(), number(meta.epoch));
        headers.insert(PRODUCER_SEQUENCE.into(), number(meta.sequence));
        confirming.push(publish(&seat.channel, &stream, bytes, headers));
        stamp.sequence += 1;
    }
    stamp.last = true;
    let facts = record.facts.encode().into();
    confirming.push(publish(&seat.channel, &stream, facts, stamped(stamp)));
    // The first poll hands a message to the channel: now, so that they go in this order.
    for confirm in &mut confirming {
        if let std::task::Poll::Ready(early) = futures::poll!(&mut *confirm) {
            *confirm = std::future::ready(early).boxed();
        }
    }
    confirming
}

/// A message of a stream.
#[derive(Debug)]
pub(crate) struct Message {
    /// Where it is in the stream.
    pub position: u64,
    pub stamp: Stamp,
    /// Of an entry: its channel, offset, producer epoch and sequence.
    pub entry: Option<(ChannelId, u64, u64, u64)>,
    pub body: Vec<u8>,
}

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    Position(u64),
}

/// Reads a stream's messages in order.
pub(crate) struct Messages {
    channel: Channel,
    consumer: Consumer,
    stream: String,
    unacked: u64,
}

impl Messages {
    pub(crate) async fn open(
        connection: &Connection,
        config: &BrokerConfig,
        shard: ShardNo,
        from: Start,
    ) -> Result<Self, AmqpError> {
        let channel = connection.create_channel().await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let mut arguments = FieldTable::default();
        let from = match from {
            Start::First => AMQPValue::LongString(LongString::from(&b"first"[..])),
            Start::Position(position) => number(position),
        };
        arguments.insert("x-stream-offset".into(), from);
        let stream = stream_name(&config.prefix, shard);
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(stream.as_str().into(), "".into(), options, arguments)
            .await?;
        Ok(Self {
            channel,
            consumer,
            stream,
            unacked: 0,
        })
    }

    /// The next message. What no version of this program writes is passed over.
    pub(crate) async fn next(&mut self) -> Result<Message, AmqpError> {
        loop {
            let delivery = match self.consumer.next().await {
                Some(delivery) => delivery?,
                None => return Err(AmqpError::Broker("the consumer was cancelled".to_owned())),
            };
            self.unacked += 1;
            if self.unacked >= ACK_EVERY {
                self.unacked = 0;
                let multiple = BasicAckOptions { multiple: true };
                self.channel
                    .basic_ack(delivery.delivery_tag, multiple)
                    .await?;
            }
            match parsed(&delivery.properties, delivery.data) {
                Some(message) => return Ok(message),
                None => tracing::warn!(stream = %self.stream, "a message that makes no sense"),
            }
        }
    }

    /// Ends the reading.
    pub(crate) async fn close(self) {
        if let Err(error) = self.channel.close(200, "done".into()).await {
            tracing::debug!(%error, "a reader's channel did not close");
        }
    }
}

fn parsed(properties: &BasicProperties, body: Vec<u8>) -> Option<Message> {
    let headers = properties.headers().as_ref()?.inner();
    let number = |name: &str| Some(headers.get(name)?.as_long_long_int()?.cast_unsigned());
    let stamp = Stamp {
        epoch: number(EPOCH)?,
        sequence: number(SEQUENCE)?,
        record: number(RECORD)?,
        last: headers.get(LAST)?.as_bool()?,
    };
    let entry = match headers.get(CHANNEL) {
        None => None,
        Some(channel) => {
            let channel = channel.as_byte_array()?.as_slice().try_into().ok()?;
            Some((
                ChannelId(channel),
                number(OFFSET)?,
                number(PRODUCER_EPOCH)?,
                number(PRODUCER_SEQUENCE)?,
            ))
        }
    };
    Some(Message {
        position: number("x-stream-offset")?,
        stamp,
        entry,
        body,
    })
}
