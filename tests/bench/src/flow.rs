//! Publish to delivery through a sentry and a relayer, each a process of its own, on loopback; every message synced to the
//! disk before it is acknowledged or delivered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use pqcnet_client::{Client, Publisher, Subscription};
use pqcnet_crypto::NodeKeys;
use pqcnet_tests::network::Network;

use crate::Args;
use crate::cpu::Wall;
use crate::row::Row;

const GROUP: &str = "flow";
const PAYLOAD: usize = 1024;
const CHANNELS: usize = 4;
/// Modest: a twentieth or less of what the flow carries, so that the latency is no queue's.
const RATE_PER_SECOND: u64 = 1_000;

/// Every row of the group.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &Args) -> Result<Vec<Row>> {
    let network = Network::start(1, 1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let publisher = network.client(&keys).await?;
    let subscriber = network.client(&keys).await?;
    let messages = if args.quick { 5_000 } else { 100_000 };
    let each = messages / CHANNELS;
    let mut lanes = Vec::new();
    for name in network.balanced_channels(keys.node_id(), CHANNELS)? {
        let records = subscriber
            .subscribe(&subscriber.channel(name.clone()), 0)
            .await?;
        lanes.push((publisher.publisher(&name)?, records));
    }
    // Once unmeasured, so that stores, epochs and windows are warm.
    lanes = pass(lanes, each.div_ceil(10)).await?;
    let wall = Wall::start();
    let lanes = pass(lanes, each).await?;
    let seconds = wall.elapsed().as_secs_f64();
    drop(lanes);

    let rate = (each * CHANNELS) as f64 / seconds;
    let mut rows = vec![Row::new(
        GROUP,
        "1 KiB messages, publish to delivery, 4 channels",
        rate,
        "messages/s",
    )];
    let seconds = if args.quick { 2 } else { 10 };
    let latency = latency(&publisher, &subscriber, seconds).await?;
    for (what, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let what = format!("latency at {RATE_PER_SECOND} messages/s, {what}");
        let micros = latency.value_at_quantile(quantile) as f64;
        rows.push(Row::new(GROUP, what, micros / 1000.0, "ms"));
    }
    drop((publisher, subscriber));
    network.stop().await?;
    Ok(rows)
}

/// One channel's publisher and subscriber.
pub type Lane = (Publisher, Subscription);

/// Sends `each` messages on every lane as fast as they are taken, and returns once all have been delivered.
pub async fn pass(lanes: Vec<Lane>, each: usize) -> Result<Vec<Lane>> {
    let mut running = Vec::new();
    for (publisher, mut records) in lanes {
        let reading = tokio::spawn(async move {
            for _ in 0..each {
                records.next().await?;
            }
            anyhow::Ok(records)
        });
        let writing = tokio::spawn(async move {
            let mut receipts = Vec::with_capacity(each);
            for _ in 0..each {
                receipts.push(publisher.send(vec![0x5a; PAYLOAD]).await?);
            }
            for receipt in receipts {
                receipt.await?;
            }
            anyhow::Ok(publisher)
        });
        running.push((writing, reading));
    }
    let mut lanes = Vec::new();
    for (writing, reading) in running {
        lanes.push((writing.await??, reading.await??));
    }
    Ok(lanes)
}

/// Microseconds from handing a message to the publisher to having it from the subscription, at a fixed rate.
async fn latency(publisher: &Client, subscriber: &Client, seconds: u64) -> Result<Histogram<u64>> {
    let name = "latency".parse()?;
    let publisher = publisher.publisher(&name)?;
    let mut records = subscriber.subscribe(&subscriber.channel(name), 0).await?;
    let wall = Arc::new(Wall::start());
    let count = seconds * RATE_PER_SECOND;
    let reading = tokio::spawn({
        let wall = wall.clone();
        async move {
            let mut histogram = Histogram::<u64>::new(3)?;
            for _ in 0..count {
                let record = records.next().await?;
                let sent = u64::from_be_bytes(record.payload[..8].try_into()?);
                let now = micros(wall.elapsed());
                histogram.record(now.saturating_sub(sent))?;
            }
            anyhow::Ok(histogram)
        }
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let burst = RATE_PER_SECOND / 100;
    let mut receipts = Vec::new();
    for _ in 0..count / burst {
        ticks.tick().await;
        for _ in 0..burst {
            let mut payload = micros(wall.elapsed()).to_be_bytes().to_vec();
            payload.resize(PAYLOAD, 0);
            receipts.push(publisher.send(payload).await?);
        }
    }
    for receipt in receipts {
        receipt.await?;
    }
    reading.await?
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
