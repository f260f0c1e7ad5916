//! What groups put aside: copies of entries in a quorum queue beside the shard's stream, `PREFIX.shard-N.letters`, so that they outlive
//! what the stream keeps.
//!
//! A stream has no redelivery, so nothing comes here by itself: the owner of the shard puts a copy here, and only when that is
//! confirmed does it write down that the record was put aside. One that dies in between puts another copy here later; which copies
//! count is said by the list that is stored with the channel, so a copy that no list names is nobody's, and one too many is taken out.
//!
//! A look through the queue takes all its messages and gives them back, which the broker counts as deliveries. Its limit is explicit, since
//! brokers differ in theirs (none in 3.x, 20 in 4.x, and then they drop): a message that comes near it is put here anew. So
//! only what ends its reader again and again reaches it, and the broker moves that, at least once, to `PREFIX.shard-N.letters.spent`.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, ByteArray, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use super::BrokerLog;
use super::amqp::{CHANNEL, OFFSET, has, lock, number};
use super::transport::{BrokerError, Sifted, in_time};
use crate::{ChannelId, Letter, LetterKeys, LogError, ReadRequest, ShardNo};

/// Messages of a queue: a group puts at most 64 aside in a channel, and a look through all of them takes a second or two.
const MESSAGES: u64 = 4_096;
/// Bytes of a queue: the broker holds them on its disk.
const BYTES: u64 = 256 << 20;
/// Deliveries of a message: what so many readers did not survive is for a person to look at.
const DELIVERIES: u64 = 64;
/// A broker notes that it has a queue half a second after it said so, and one that dies before that has none, whatever it confirmed.
const WRITTEN_DOWN: Duration = Duration::from_secs(1);
/// From so many on it is put anew.
const RENEW_FROM: i64 = 32;

impl BrokerLog {
    /// Copies an entry, as it lies sealed, into the queue.
    pub(super) async fn copy_letter(
        &self,
        shard: ShardNo,
        channel: ChannelId,
        offset: u64,
    ) -> Result<(), LogError> {
        let request = ReadRequest {
            shard,
            channel,
            after: offset.saturating_sub(1),
            max_records: 1,
            max_bytes: 1,
        };
        let found = self.read_entries(request).await?;
        let Some((_, sealed)) = found.get(0).filter(|(at, _)| *at == offset) else {
            return Ok(());
        };
        let letter = Letter {
            channel,
            offset,
            sealed: Bytes::copy_from_slice(sealed),
        };
        self.put_letter(shard, letter).await
    }

    /// Puts a copy into the queue.
    pub(super) async fn put_letter(&self, shard: ShardNo, letter: Letter) -> Result<(), LogError> {
        let (connection, stream) = self.queue_of(shard)?;
        match in_time(connection.keep_letter(&stream, letter)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(LogError::Full {
                detail: format!("the broker takes no more into {stream}.letters"),
            }),
            Err(error) => Err(unanswered(shard, &error)),
        }
    }

    pub(super) async fn sifted(
        &self,
        shard: ShardNo,
        listed: LetterKeys,
        wanted: LetterKeys,
    ) -> Result<Sifted, LogError> {
        let (connection, stream) = self.queue_of(shard)?;
        let sifted = in_time(connection.sift_letters(&stream, listed, wanted)).await;
        sifted.map_err(|error| unanswered(shard, &error))
    }

    fn queue_of(
        &self,
        shard: ShardNo,
    ) -> Result<(std::sync::Arc<dyn super::transport::Connection>, String), LogError> {
        let connection = self.0.publishing.borrow().connection.clone();
        Ok((connection.ok_or(LogError::Busy)?, self.stream_of(shard)?))
    }
}

fn unanswered(shard: ShardNo, error: &BrokerError) -> LogError {
    tracing::warn!(shard = shard.0, %error, "the queue of what was put aside is not there");
    LogError::Busy
}

/// Puts a copy into the queue; false when the broker refuses it.
pub(super) async fn keep(
    connection: &Connection,
    stream: &str,
    letter: &Letter,
) -> Result<bool, BrokerError> {
    let queue = Queue::open(connection, stream).await?;
    let kept = queue.put(letter).await?;
    queue.close().await;
    Ok(kept)
}

/// Looks through the queue once.
pub(super) async fn sift(
    connection: &Connection,
    stream: &str,
    listed: &LetterKeys,
    wanted: &LetterKeys,
) -> Result<Sifted, BrokerError> {
    let queue = Queue::open(connection, stream).await?;
    let (mut found, mut worn) = (Vec::new(), Vec::new());
    let mut there = BTreeSet::new();
    while let Some(delivery) = queue.next().await? {
        let (tag, deliveries) = (delivery.delivery_tag, deliveries(&delivery));
        let Some(letter) = parsed(delivery) else {
            tracing::warn!(queue = %queue.name, "a message that makes no sense");
            continue;
        };
        let key = (letter.channel, letter.offset);
        if !listed.contains(&key) || !there.insert(key) {
            queue.take_out(tag).await?;
            continue;
        }
        if deliveries >= RENEW_FROM {
            worn.push((tag, letter.clone()));
        }
        if wanted.contains(&key) {
            found.push(letter);
        }
    }
    // Behind all others, so only now: this look must not meet it again.
    for (tag, letter) in worn {
        if queue.put(&letter).await? {
            queue.take_out(tag).await?;
        }
    }
    queue.give_back().await?;
    queue.close().await;
    found.sort_by_key(|letter| (letter.channel, letter.offset));
    Ok(Sifted { found, there })
}

/// The queue of one stream, on a channel of its own.
struct Queue {
    channel: Channel,
    name: String,
}

impl Queue {
    /// Makes it where there is none.
    async fn open(connection: &Connection, stream: &str) -> Result<Queue, BrokerError> {
        let mut channel = connection.create_channel().await?;
        lock(&channel, stream).await?;
        let name = format!("{stream}.letters");
        if !has(&channel, &name).await? {
            // The one on which the broker said no is closed.
            channel = connection.create_channel().await?;
            let spent = format!("{name}.spent");
            declare(&channel, &spent, None).await?;
            declare(&channel, &name, Some(&spent)).await?;
            tokio::time::sleep(WRITTEN_DOWN).await;
        }
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        Ok(Queue { channel, name })
    }

    async fn put(&self, letter: &Letter) -> Result<bool, BrokerError> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut headers = FieldTable::default();
        let channel = AMQPValue::ByteArray(ByteArray::from(&letter.channel.0[..]));
        headers.insert(CHANNEL.into(), channel);
        headers.insert(OFFSET.into(), number(letter.offset));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_delivery_mode(2);
        let queue = self.name.as_str().into();
        let sent =
            self.channel
                .basic_publish("".into(), queue, options, &letter.sealed, properties);
        Ok(sent.await?.await? == Confirmation::Ack(None))
    }

    async fn next(&self) -> Result<Option<Delivery>, BrokerError> {
        let options = BasicGetOptions::default();
        let got = self.channel.basic_get(self.name.as_str().into(), options);
        Ok(got.await?.map(|message| message.delivery))
    }

    async fn take_out(&self, tag: u64) -> Result<(), BrokerError> {
        let one = BasicAckOptions::default();
        Ok(self.channel.basic_ack(tag, one).await?)
    }

    /// All that was looked at and not taken out.
    async fn give_back(&self) -> Result<(), BrokerError> {
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        Ok(self.channel.basic_nack(0, all).await?)
    }

    async fn close(self) {
        if let Err(error) = self.channel.close(200, "done".into()).await {
            tracing::debug!(%error, queue = %self.name, "a channel did not close");
        }
    }
}

async fn declare(channel: &Channel, queue: &str, spent: Option<&str>) -> Result<(), BrokerError> {
    let text = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), number(DELIVERIES));
    arguments.insert("x-max-length".into(), number(MESSAGES));
    arguments.insert("x-max-length-bytes".into(), number(BYTES));
    // A full queue says so, and drops nothing.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    if let Some(spent) = spent {
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(spent));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.into(), durable, arguments)
        .await?;
    Ok(())
}

/// How often the broker gave a message to somebody before.
fn deliveries(delivery: &Delivery) -> i64 {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    match count {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::LongUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortUInt(count)) => i64::from(*count),
        Some(_) | None => 0,
    }
}

fn parsed(delivery: Delivery) -> Option<Letter> {
    let headers = delivery.properties.headers().as_ref()?.inner();
    let channel = headers.get(CHANNEL)?.as_byte_array()?.as_slice();
    let offset = headers.get(OFFSET)?.as_long_long_int()?.cast_unsigned();
    Some(Letter {
        channel: ChannelId(channel.try_into().ok()?),
        offset,
        sealed: Bytes::from(delivery.data),
    })
}
