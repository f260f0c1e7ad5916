//! Messages of 1 KiB a second through the log on a broker, beside a bare lapin loop on a stream of the same broker in the
//! same run: both with 1,000 messages on their way, one after the other, three rounds each.
//!
//!     cargo run --release -p pqcnet-log --example beside_bare_lapin -- amqp://guest:guest@127.0.0.1:5672/%2f [messages]
#![allow(clippy::print_stdout, reason = "the figures are this program's data")]
#![allow(clippy::unwrap_used, reason = "an example that cannot go on stops")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use pqcnet_actor::Env;
use pqcnet_log::broker::local;
use pqcnet_log::{
    AppendBatch, Base, BrokerConfig, BrokerLog, ChannelId, ReadRequest, ShardLog, ShardNo, keys,
};
use pqcnet_store::{RocksStore, Schema, StoreConfig};

const ROUNDS: usize = 3;
const IN_FLIGHT: usize = 1000;
const PAYLOAD: usize = 1024;
const CHANNEL: ChannelId = ChannelId([7; 32]);
const SHARD: ShardNo = ShardNo(0);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments.next().expect("the broker's address");
    let messages: usize = arguments.next().map_or(60_000, |n| n.parse().unwrap());
    let env = Env::plain();
    let name = format!("example-{}", std::process::id());
    let (mut bare, mut adapter, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let log = Adapter::open(&env, &uri, &name).await;
    let stream = Bare::open(&uri, &name).await;
    for _ in 0..ROUNDS {
        bare.push(rate(&env, messages, stream.publish(messages)).await);
        adapter.push(rate(&env, messages, log.append(messages)).await);
    }
    for _ in 0..ROUNDS {
        out.push(rate(&env, messages, log.read(messages)).await);
    }
    let (bare, adapter, out) = (middle(bare), middle(adapter), middle(out));
    println!("bare lapin loop   {bare:>9.0} messages/s in");
    println!(
        "log on the broker {adapter:>9.0} messages/s in, {:.2} of it",
        adapter / bare
    );
    println!("log on the broker {out:>9.0} messages/s out");
    stream.delete().await;
}

async fn rate(env: &Env, messages: usize, work: impl Future<Output = ()>) -> f64 {
    let began = env.now();
    work.await;
    let took: Duration = env.now() - began;
    messages as f64 / took.as_secs_f64()
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

struct Bare {
    _connection: Connection,
    channel: lapin::Channel,
    stream: String,
    shard: String,
}

impl Bare {
    async fn open(uri: &str, name: &str) -> Bare {
        let connection = Connection::connect(uri, ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let stream = format!("{name}.bare");
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(LongString::from(&b"stream"[..]));
        arguments.insert("x-queue-type".into(), kind);
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(stream.as_str().into(), durable, arguments);
        declared.await.unwrap();
        let confirming = channel.confirm_select(ConfirmSelectOptions::default());
        confirming.await.unwrap();
        Bare {
            _connection: connection,
            channel,
            stream,
            shard: format!("{name}.shard-0"),
        }
    }

    async fn publish(&self, messages: usize) {
        let payload = vec![0x5a; PAYLOAD];
        let mut on_their_way = VecDeque::new();
        for _ in 0..messages {
            if on_their_way.len() == IN_FLIGHT {
                let oldest: lapin::PublisherConfirm = on_their_way.pop_front().unwrap();
                assert!(oldest.await.unwrap().is_ack());
            }
            let properties = BasicProperties::default().with_delivery_mode(2);
            let sent = self.channel.basic_publish(
                "".into(),
                self.stream.as_str().into(),
                BasicPublishOptions::default(),
                &payload,
                properties,
            );
            on_their_way.push_back(sent.await.unwrap());
        }
        for sent in on_their_way {
            assert!(sent.await.unwrap().is_ack());
        }
    }

    async fn delete(&self) {
        for stream in [&self.stream, &self.shard] {
            let deleted = self
                .channel
                .queue_delete(stream.as_str().into(), Default::default());
            deleted.await.unwrap();
        }
    }
}

struct Adapter {
    _folder: tempfile::TempDir,
    log: BrokerLog,
    generation: u32,
}

impl Adapter {
    async fn open(env: &Env, uri: &str, name: &str) -> Adapter {
        let folder = tempfile::tempdir().unwrap();
        let schema = Schema {
            kind: "broker-log",
            version: keys::VERSION,
            families: local::FAMILIES.to_vec(),
        };
        let store = RocksStore::open(env, StoreConfig::new(folder.path(), schema)).unwrap();
        let config = BrokerConfig::new(uri, name).unwrap();
        let log = BrokerLog::new(env, Arc::new(store), config);
        let generation = log.open(SHARD, [1; 16]).await.unwrap().generation;
        Adapter {
            _folder: folder,
            log,
            generation,
        }
    }

    async fn append(&self, messages: usize) {
        let heads = self.log.heads(SHARD).await.unwrap();
        let mut base = heads.first().map_or_else(Base::default, |head| Base {
            head: head.head,
            bytes: head.bytes,
            ..Base::default()
        });
        for _ in 0..messages / IN_FLIGHT {
            let mut batch = AppendBatch::new(SHARD, self.generation);
            let slot = batch.channel(CHANNEL, base);
            for _ in 0..IN_FLIGHT {
                base.head += 1;
                base.bytes += PAYLOAD as u64;
                batch.push(slot, (1, base.head), 0, |_, out| {
                    out.resize(out.len() + PAYLOAD, 0x5a);
                });
            }
            self.log.append(batch).unwrap().await.unwrap();
        }
    }

    async fn read(&self, messages: usize) {
        let mut after = 0;
        while after < messages as u64 {
            let request = ReadRequest {
                shard: SHARD,
                channel: CHANNEL,
                after,
                max_records: 512,
                max_bytes: 256 << 10,
            };
            let found = self.log.read(request).await.unwrap();
            after = found.items.last().unwrap().0;
        }
    }
}
