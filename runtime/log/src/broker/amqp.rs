//! AMQP 0.9.1 through lapin: what a RabbitMQ is to the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, ByteArray, FieldTable, LongString, ShortString};
use lapin::uri::AMQPUri;
use lapin::{
    BasicProperties, Channel, Confirmation, ConnectionProperties, Consumer, ErrorKind, Event,
};

use super::letters;
use super::transport::{
    Answer, BrokerError, Confirming, Connection, EntryHead, Message, Messages, Outgoing, Sifted,
    Start, Transport, Writer, segment_bytes,
};
use crate::core::fold::Stamp;
use crate::{ChannelId, Letter, LetterKeys, Retention};

/// Messages that the broker sends a reader ahead: a stream needs a limit, this many hide a round trip, and as bundles they are 2 MiB.
const PREFETCH: u16 = 64;
/// Read messages acknowledged together.
const ACK_EVERY: u64 = 16;

/// What the name of a stream's queue of letters ends with.
const LETTERS: &str = ".letters";
/// Before such a queue goes, the broker has so long to begin serving it. One that goes while it begins takes the part of RabbitMQ 3.10 with
/// it that moves messages to another queue at least once, for all queues: from then on, until the broker starts anew, none that is made takes a message.
const LETTERS_BEGIN: Duration = Duration::from_secs(2);
const EPOCH: &str = "writer-epoch";
const SEQUENCE: &str = "writer-sequence";
const RECORD: &str = "record";
const LAST: &str = "last";
const BUNDLED: &str = "entries";
pub(super) const CHANNEL: &str = "channel";
pub(super) const OFFSET: &str = "offset";
const PRODUCER_EPOCH: &str = "epoch";
const PRODUCER_SEQUENCE: &str = "sequence";

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A RabbitMQ at this address.
pub(super) struct Amqp {
    pub uri: AMQPUri,
    /// Begins its connections' names.
    pub prefix: String,
}

impl Transport for Amqp {
    fn connect(&self, purpose: &'static str) -> Answer<Arc<dyn Connection>> {
        let name = format!("{} {purpose}", self.prefix);
        let properties = ConnectionProperties::default()
            .with_connection_name(LongString::from(name.into_bytes()));
        let uri = self.uri.clone();
        async move {
            let connection = lapin::Connection::connect_uri(uri, properties).await?;
            let connection: Arc<dyn Connection> = Arc::new(AmqpConnection(Arc::new(connection)));
            Ok(connection)
        }
        .boxed()
    }

    fn keeps_letters(&self) -> bool {
        true
    }
}

struct AmqpConnection(Arc<lapin::Connection>);

impl Connection for AmqpConnection {
    fn lost(&self) -> BoxFuture<'static, String> {
        let connection = self.0.clone();
        async move {
            let mut events = connection.events_listener();
            let mut why = "closed".to_owned();
            while connection.status().connected() {
                match events.next().await {
                    // Also of a channel alone, which is its user's: a stream that is not there, a lock that another has.
                    Some(Event::Error(error)) => why = error.to_string(),
                    None => return why,
                    // What is published waits for its confirm, and is spilled in time.
                    Some(Event::ConnectionBlocked(reason)) => tracing::warn!(
                        %reason,
                        "the broker takes nothing for lack of room (rabbitmq-diagnostics alarms): records wait in the store"
                    ),
                    Some(Event::ConnectionUnblocked) => tracing::info!("the broker has room again"),
                    Some(_) => {}
                }
            }
            why
        }
        .boxed()
    }

    fn has(&self, stream: &str) -> Answer<bool> {
        let (connection, stream) = (self.0.clone(), stream.to_owned());
        async move {
            let channel = connection.create_channel().await?;
            has(&channel, &stream).await
        }
        .boxed()
    }

    fn write(&self, stream: &str, make: Option<Retention>) -> Answer<Arc<dyn Writer>> {
        let (connection, stream) = (self.0.clone(), stream.to_owned());
        async move {
            let mut channel = connection.create_channel().await?;
            lock(&channel, &stream).await?;
            if !has(&channel, &stream).await? {
                let Some(retention) = make else {
                    return Err(BrokerError::Missing { stream });
                };
                // The one on which the broker said no is closed.
                channel = connection.create_channel().await?;
                declare(&channel, &stream, retention).await?;
            }
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let stream = stream.as_str().into();
            let writer: Arc<dyn Writer> = Arc::new(AmqpWriter { channel, stream });
            Ok(writer)
        }
        .boxed()
    }

    fn read(&self, stream: &str, from: Start) -> Answer<Box<dyn Messages>> {
        let (connection, stream) = (self.0.clone(), stream.to_owned());
        async move {
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
            let options = BasicConsumeOptions::default();
            let consumer = channel
                .basic_consume(stream.as_str().into(), "".into(), options, arguments)
                .await;
            let consumer = match consumer {
                Ok(consumer) => consumer,
                // `… does not have a replica on the local node`: it is to have one, and does not start.
                Err(error) if is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED) => {
                    let detail = error.to_string();
                    return Err(BrokerError::Asleep { stream, detail });
                }
                Err(error) => return Err(error.into()),
            };
            let messages: Box<dyn Messages> = Box::new(AmqpMessages {
                channel,
                consumer,
                stream,
                unacked: 0,
            });
            Ok(messages)
        }
        .boxed()
    }

    fn delete(&self, stream: &str) -> Answer<()> {
        let (connection, stream) = (self.0.clone(), stream.to_owned());
        async move {
            let locking = connection.create_channel().await?;
            lock(&locking, &stream).await?;
            // The lock goes last: until then nobody else may make them anew.
            for queue in ["", LETTERS, ".owner"].map(|end| format!("{stream}{end}")) {
                let channel = connection.create_channel().await?;
                // One that the broker has and does not serve would stay without a word.
                if has(&channel, &queue).await? {
                    if queue.ends_with(LETTERS) {
                        tokio::time::sleep(LETTERS_BEGIN).await;
                    }
                    let any = QueueDeleteOptions::default();
                    channel.queue_delete(queue.as_str().into(), any).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn keep_letter(&self, stream: &str, letter: Letter) -> Answer<bool> {
        let (connection, stream) = (self.0.clone(), stream.to_owned());
        async move { letters::keep(&connection, &stream, &letter).await }.boxed()
    }

    fn sift_letters(&self, stream: &str, listed: LetterKeys, wanted: LetterKeys) -> Answer<Sifted> {
        let (connection, stream) = (self.0.clone(), stream.to_owned());
        async move { letters::sift(&connection, &stream, &listed, &wanted).await }.boxed()
    }
}

/// Takes a stream's lock for the channel's connection.
pub(super) async fn lock(channel: &Channel, stream: &str) -> Result<(), BrokerError> {
    let queue = format!("{stream}.owner");
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let locked = channel
        .queue_declare(queue.as_str().into(), exclusive, FieldTable::default())
        .await;
    match locked {
        Ok(_) => Ok(()),
        Err(error) if is_soft(&error, &AMQPSoftError::RESOURCELOCKED) => {
            Err(BrokerError::Locked { queue })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a stream is there. If not, the broker closes the channel.
pub(super) async fn has(channel: &Channel, stream: &str) -> Result<bool, BrokerError> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel
        .queue_declare(stream.into(), passive, FieldTable::default())
        .await;
    match found {
        Ok(_) => Ok(true),
        Err(error) if is_soft(&error, &AMQPSoftError::NOTFOUND) => {
            let detail = error.to_string();
            // `no queue 'x' in vhost '/'`, or else `home node 'y' of durable queue 'x' … is down or inaccessible`.
            if detail.contains("no queue") {
                return Ok(false);
            }
            let stream = stream.to_owned();
            Err(BrokerError::Asleep { stream, detail })
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a stream.
async fn declare(channel: &Channel, stream: &str, retention: Retention) -> Result<(), BrokerError> {
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
    arguments.insert("x-queue-type".into(), text("stream"));
    if let Some(bytes) = retention.bytes {
        arguments.insert("x-max-length-bytes".into(), number(bytes));
    }
    if let Some(segment) = segment_bytes(retention) {
        arguments.insert("x-stream-max-segment-size-bytes".into(), number(segment));
    }
    if let Some(age) = retention.age {
        let age = format!("{}s", age.as_secs().max(1));
        arguments.insert("x-max-age".into(), text(&age));
    }
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(stream.into(), durable, arguments)
        .await?;
    Ok(())
}

fn is_soft(error: &lapin::Error, wanted: &AMQPSoftError) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            matches!(error.kind(), AMQPErrorKind::Soft(found) if found == wanted)
        }
        _ => false,
    }
}

pub(super) fn number(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(number.cast_signed())
}

struct AmqpWriter {
    channel: Channel,
    stream: ShortString,
}

impl Writer for AmqpWriter {
    fn publish(&self, message: Outgoing) -> Confirming {
        let (channel, stream) = (self.channel.clone(), self.stream.clone());
        async move {
            let options = BasicPublishOptions {
                // A stream that is gone must not swallow anything.
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let properties = BasicProperties::default()
                .with_headers(headers(&message))
                .with_delivery_mode(2);
            let sent = channel
                .basic_publish("".into(), stream, options, &message.body, properties)
                .await?;
            Ok(sent.await? == Confirmation::Ack(None))
        }
        .boxed()
    }
}

fn headers(message: &Outgoing) -> FieldTable {
    let stamp = message.stamp;
    let mut headers = FieldTable::default();
    headers.insert(EPOCH.into(), number(stamp.epoch));
    headers.insert(SEQUENCE.into(), number(stamp.sequence));
    headers.insert(RECORD.into(), number(stamp.record));
    headers.insert(LAST.into(), AMQPValue::Boolean(stamp.last));
    if message.bundled > 0 {
        headers.insert(BUNDLED.into(), number(message.bundled.into()));
    }
    if let Some(entry) = message.entry {
        let channel = AMQPValue::ByteArray(ByteArray::from(&entry.channel.0[..]));
        headers.insert(CHANNEL.into(), channel);
        headers.insert(OFFSET.into(), number(entry.offset));
        headers.insert(PRODUCER_EPOCH.into(), number(entry.epoch));
        headers.insert(PRODUCER_SEQUENCE.into(), number(entry.sequence));
    }
    headers
}

struct AmqpMessages {
    channel: Channel,
    consumer: Consumer,
    stream: String,
    unacked: u64,
}

impl Messages for AmqpMessages {
    fn next(&mut self) -> BoxFuture<'_, Result<Message, BrokerError>> {
        async move {
            loop {
                let delivery = match self.consumer.next().await {
                    Some(delivery) => delivery?,
                    None => {
                        let detail = "the consumer was cancelled".to_owned();
                        return Err(BrokerError::Refused(detail));
                    }
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
        .boxed()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            if let Err(error) = self.channel.close(200, "done".into()).await {
                tracing::debug!(%error, "a reader's channel did not close");
            }
        }
        .boxed()
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
            Some(EntryHead {
                channel: ChannelId(channel),
                offset: number(OFFSET)?,
                epoch: number(PRODUCER_EPOCH)?,
                sequence: number(PRODUCER_SEQUENCE)?,
            })
        }
    };
    let bundled = match headers.get(BUNDLED) {
        None => 0,
        Some(_) => u32::try_from(number(BUNDLED)?).ok()?,
    };
    Some(Message {
        position: number("x-stream-offset")?,
        stamp,
        entry,
        bundled,
        body: Bytes::from(body),
    })
}
