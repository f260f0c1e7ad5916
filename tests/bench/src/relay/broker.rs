//! The log on a RabbitMQ beside a bare lapin loop on the same broker and stream, and from client to subscriber over it. The
//! broker is a private one of Debian's package.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Connection, ConnectionProperties, PublisherConfirm};
use pqcnet_actor::Env;
use pqcnet_crypto::NodeKeys;
use pqcnet_log::broker::local;
use pqcnet_log::{
    AppendBatch, Base, BrokerConfig, BrokerLog, ChannelId, ReadRequest, ShardLog, ShardNo, keys,
};
use pqcnet_p2p::network::Admission;
use pqcnet_store::{RocksStore, Schema, StoreConfig};
use pqcnet_tests::network::Network;
use pqcnet_tests::private_broker::Broker;

use super::GROUP;
use crate::cpu::{Wall, median};
use crate::row::Row;
use crate::{Args, flow};

const PAYLOAD: usize = 1024;
/// Messages without a confirm, on both sides: as many as a shard under full load has on their way.
const IN_FLIGHT: usize = 3000;
/// Payloads in a message of the bare loop that sends as large ones as the log does.
const BUNDLED: usize = 32;
const CHANNEL: ChannelId = ChannelId([7; 32]);
const SHARD: ShardNo = ShardNo(0);

/// The adapter beside the loop, then end to end.
pub async fn rows(env: &Env, args: &Args, broker: &Broker) -> Result<Vec<Row>> {
    let mut rows = adapter(env, args, &broker.uri()).await?;
    rows.push(end_to_end(args, &broker.uri()).await?);
    Ok(rows)
}

async fn adapter(env: &Env, args: &Args, uri: &str) -> Result<Vec<Row>> {
    let (rounds, messages) = if args.quick { (1, 12_000) } else { (5, 60_000) };
    let folder = tempfile::tempdir()?;
    let mut log = Adapter::open(env, uri, folder.path()).await?;
    let bare = Bare::open(uri).await?;
    let (mut theirs, mut alike, mut ours, mut out) = (vec![], vec![], vec![], vec![]);
    let rate = |wall: Wall| messages as f64 / wall.elapsed().as_secs_f64();
    bare.publish(messages / 4, 1).await?;
    bare.publish(messages / 4, BUNDLED).await?;
    log.append(messages / 4).await?;
    for round in 0..rounds {
        for turn in 0..3 {
            let wall = Wall::start();
            match (round + turn) % 3 {
                0 => {
                    bare.publish(messages, 1).await?;
                    theirs.push(rate(wall));
                }
                1 => {
                    bare.publish(messages, BUNDLED).await?;
                    alike.push(rate(wall));
                }
                _ => {
                    log.append(messages).await?;
                    ours.push(rate(wall));
                }
            }
        }
    }
    let into = median(&mut ours);
    for _ in 0..rounds {
        let wall = Wall::start();
        log.read(messages).await?;
        out.push(rate(wall));
    }
    bare.delete().await?;
    Ok(vec![
        Row::new(
            GROUP,
            "RabbitMQ: 1 KiB into the log's stream",
            into,
            "messages/s",
        )
        .beside("bare lapin, 1 KiB a message", median(&mut theirs)),
        Row::new(GROUP, "the same", into, "messages/s").beside(
            "bare lapin, 32 KiB a message, never waiting",
            median(&mut alike),
        ),
        Row::new(
            GROUP,
            "RabbitMQ: 1 KiB out of the log's stream",
            median(&mut out),
            "messages/s",
        ),
    ])
}

/// One sentry and one relayer, processes, whose log is on the broker.
async fn end_to_end(args: &Args, uri: &str) -> Result<Row> {
    let (rounds, each) = if args.quick { (1, 1_250) } else { (5, 12_500) };
    let network = Network::create(1, 1, Admission::Any)?;
    network.put_on_broker(uri)?;
    network.start_all().await?;
    let keys = Arc::new(NodeKeys::generate());
    let mut lanes = flow::lanes(&network, &keys, 4).await?;
    lanes = flow::pass(lanes, each / 4).await?;
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let wall = Wall::start();
        lanes = flow::pass(lanes, each).await?;
        rates.push((each * lanes.len()) as f64 / wall.elapsed().as_secs_f64());
    }
    drop(lanes);
    network.stop().await?;
    Ok(Row::new(
        GROUP,
        "RabbitMQ: 1 KiB, client to subscriber, 4 channels",
        median(&mut rates),
        "messages/s",
    ))
}

/// A stream of its own, and nothing but lapin.
struct Bare {
    _connection: Connection,
    channel: lapin::Channel,
    stream: &'static str,
}

impl Bare {
    async fn open(uri: &str) -> Result<Bare> {
        let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let stream = "bench.bare";
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(LongString::from(&b"stream"[..]));
        arguments.insert("x-queue-type".into(), kind);
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(stream.into(), durable, arguments)
            .await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Bare {
            _connection: connection,
            channel,
            stream,
        })
    }

    /// So many payloads of 1 KiB, `together` in a message; as soon as one message is confirmed the next goes out.
    async fn publish(&self, messages: usize, together: usize) -> Result<()> {
        let payload = vec![0x5a; PAYLOAD * together];
        let properties = BasicProperties::default().with_delivery_mode(2);
        let mut on_their_way: VecDeque<PublisherConfirm> = VecDeque::new();
        for _ in 0..messages / together {
            if on_their_way.len() == IN_FLIGHT / together {
                let oldest = on_their_way.pop_front().context("they wait")?;
                ensure!(oldest.await?.is_ack(), "the broker refused a message");
            }
            let sent = self.channel.basic_publish(
                "".into(),
                self.stream.into(),
                BasicPublishOptions::default(),
                &payload,
                properties.clone(),
            );
            on_their_way.push_back(sent.await?);
        }
        for sent in on_their_way {
            ensure!(sent.await?.is_ack(), "the broker refused a message");
        }
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        let options = QueueDeleteOptions::default();
        self.channel
            .queue_delete(self.stream.into(), options)
            .await?;
        Ok(())
    }
}

/// One shard of the log on the broker, appended to as a worker does: the next batch when the last one is durable.
struct Adapter {
    log: BrokerLog,
    generation: u32,
    base: Base,
}

impl Adapter {
    async fn open(env: &Env, uri: &str, folder: &Path) -> Result<Adapter> {
        let schema = Schema {
            kind: "broker-log",
            version: keys::VERSION,
            families: local::FAMILIES.to_vec(),
        };
        let store = RocksStore::open(env, StoreConfig::new(folder, schema))?;
        let config = BrokerConfig::new(uri, "bench")?;
        let log = BrokerLog::new(env, Arc::new(store), config);
        let generation = log.open(SHARD, [1; 16]).await?.generation;
        Ok(Adapter {
            log,
            generation,
            base: Base::default(),
        })
    }

    async fn append(&mut self, messages: usize) -> Result<()> {
        for _ in 0..messages / IN_FLIGHT {
            let mut batch = AppendBatch::new(SHARD, self.generation);
            let slot = batch.channel(CHANNEL, self.base);
            for _ in 0..IN_FLIGHT {
                self.base.head += 1;
                self.base.bytes += PAYLOAD as u64;
                batch.push(slot, (1, self.base.head), 0, |_, out| {
                    out.resize(out.len() + PAYLOAD, 0x5a);
                });
            }
            let appended = self.log.append(batch);
            appended.ok().context("the log is busy")?.await?;
        }
        Ok(())
    }

    async fn read(&self, messages: usize) -> Result<()> {
        let mut after = 0;
        while after < messages as u64 {
            let request = ReadRequest {
                shard: SHARD,
                channel: CHANNEL,
                after,
                max_records: 512,
                max_bytes: 256 << 10,
            };
            let found = self.log.read(request).await?;
            after = found.items.last().context("the stream is short")?.0;
        }
        Ok(())
    }
}
