//! Publish to delivery through a sentry and a relayer, each a process of its own, on loopback; every message synced to the
//! disk before it is acknowledged or delivered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use pqcnet_client::{ChannelName, Client, Publisher, Subscription};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::network::Network;

use crate::Args;
use crate::cpu::{self, Wall, median};
use crate::row::Row;

const GROUP: &str = "flow";
const PAYLOAD: usize = 1024;
const CHANNELS: usize = 4;
/// Modest: a twentieth or less of what the flow carries, so that the latency is no queue's.
const RATE_PER_SECOND: u64 = 1_000;
/// Messages of a fixed rate come in bursts, one each 10 ms.
const BURSTS_A_SECOND: u64 = 100;

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
    let mut lanes = between(&network, (&publisher, &subscriber), CHANNELS).await?;
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
    // Half of what has just been carried, in the tens that a burst has.
    let half = (rate / 2.0 / BURSTS_A_SECOND as f64) as u64 * BURSTS_A_SECOND;
    let loads = [
        (RATE_PER_SECOND, format!("{RATE_PER_SECOND} messages/s")),
        (half.max(BURSTS_A_SECOND), "half load".to_owned()),
    ];
    for (number, (load, named)) in (1..).zip(loads) {
        let name = format!("latency-{number}").parse()?;
        let latency = latency(&publisher, &subscriber, name, (seconds, load)).await?;
        for (what, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let what = format!("latency at {named}, {what}");
            let micros = latency.value_at_quantile(quantile) as f64;
            rows.push(Row::new(GROUP, what, micros / 1000.0, "ms"));
        }
    }
    drop((publisher, subscriber));
    network.stop().await?;
    rows.extend(metered(args).await?);
    Ok(rows)
}

/// One network, its relayer metering as configured.
struct Metered {
    network: Network,
    lanes: Vec<Lane>,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
    messages: usize,
    /// CPU time of its relayer when the first measured pass began, in all and on the threads that close windows.
    began: (Duration, Duration),
}

/// What closes windows: the pool, where records and receipts are hashed, signed and verified, and the writer of their store.
/// The pool does other things, too, as it does in a relayer without a meter.
const CLOSING: [&str; 2] = ["meter-writer", "offload"];

impl Metered {
    /// With windows so long; 0 is no metering.
    async fn start(window_seconds: u64, warm: usize) -> Result<Metered> {
        let network = Network::create(1, 1, Admission::Any)?;
        let relayer = network.node(Role::Relayer, 1);
        relayer.configure(&format!("[metering]\nwindow_seconds = {window_seconds}\n"))?;
        network.start_all().await?;
        let lanes = lanes(&network, &Arc::new(NodeKeys::generate()), CHANNELS).await?;
        let lanes = pass(lanes, warm).await?;
        let mut metered = Metered {
            network,
            lanes,
            rates: Vec::new(),
            cpu_us: Vec::new(),
            messages: 0,
            began: (Duration::ZERO, Duration::ZERO),
        };
        metered.began = (metered.cpu()?, metered.closing()?);
        Ok(metered)
    }

    fn closing(&self) -> Result<Duration> {
        cpu::of_threads(self.network.node(Role::Relayer, 1).pid()?, &CLOSING)
    }

    /// CPU time of those threads since the first measured pass began.
    fn closed(&self) -> Result<Duration> {
        Ok(self.closing()?.saturating_sub(self.began.1))
    }

    fn cpu(&self) -> Result<Duration> {
        cpu::of(self.network.node(Role::Relayer, 1).pid()?)
    }

    async fn pass(&mut self, each: usize) -> Result<()> {
        let (wall, before) = (Wall::start(), self.cpu()?);
        self.lanes = pass(std::mem::take(&mut self.lanes), each).await?;
        let count = each * CHANNELS;
        self.messages += count;
        self.rates.push(count as f64 / wall.elapsed().as_secs_f64());
        let used = self.cpu()?.saturating_sub(before);
        self.cpu_us.push(micros_of(used) / count as f64);
        Ok(())
    }

    /// CPU time of its relayer a message, with all that it did while others had their turns.
    fn whole(&self) -> Result<f64> {
        let used = self.cpu()?.saturating_sub(self.began.0);
        Ok(micros_of(used) / self.messages as f64)
    }
}

fn micros_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// No metering, the default's windows of a minute, and windows of a second, taking turns in one run that is longer than a
/// minute. A network has a third of the run's time: what it does in the others' is counted for the default's windows, which
/// so close three times as often a message as they would alone, and not for those of a second.
async fn metered(args: &Args) -> Result<Vec<Row>> {
    let (rounds, each) = if args.quick { (2, 1_250) } else { (30, 12_500) };
    let mut off = Metered::start(0, each / 2).await?;
    let mut minute = Metered::start(60, each / 2).await?;
    let mut second = Metered::start(1, each / 2).await?;
    let wall = Wall::start();
    for round in 0..rounds {
        let mut turns = [&mut off, &mut minute, &mut second];
        turns.rotate_left(round % 3);
        if round % 2 == 1 {
            turns.swap(1, 2);
        }
        for network in turns {
            network.pass(each).await?;
        }
    }
    let whole = (off.whole()?, minute.whole()?);
    let windows = wall.elapsed().as_secs_f64();
    let closing = second.closed()?.saturating_sub(off.closed()?);
    let closing_ms = closing.as_secs_f64() * 1e3 / windows;
    let halves = halves(&off.cpu_us);
    let row = |what: &str, unit, on: &[f64], off: &[f64]| {
        let (mut on, mut off) = (on.to_vec(), off.to_vec());
        Row::new(GROUP, what, median(&mut on), unit).beside("not metered", median(&mut off))
    };
    let rows = vec![
        row(
            "metered each minute, 1 KiB, 4 channels",
            "messages/s",
            &minute.rates,
            &off.rates,
        ),
        row(
            "the same: CPU of the relayer a message, passes",
            "us",
            &minute.cpu_us,
            &off.cpu_us,
        ),
        Row::new(
            GROUP,
            "the same: CPU of the relayer a message, whole run",
            whole.1,
            "us",
        )
        .beside("not metered", whole.0),
        row(
            "metered each second, 1 KiB, 4 channels",
            "messages/s",
            &second.rates,
            &off.rates,
        ),
        row(
            "the same: CPU of the relayer a message",
            "us",
            &second.cpu_us,
            &off.cpu_us,
        ),
        Row::new(
            GROUP,
            "closing a window: CPU on threads of its own",
            closing_ms,
            "ms",
        ),
        // How far two halves of the same agree: what noise there is.
        Row::new(GROUP, "not metered: CPU, odd rounds", halves.0, "us")
            .beside("even rounds", halves.1),
    ];
    for Metered { network, lanes, .. } in [off, minute, second] {
        drop(lanes);
        network.stop().await?;
    }
    Ok(rows)
}

/// Medians of every other sample, and of those between.
fn halves(samples: &[f64]) -> (f64, f64) {
    let half = |first| samples.iter().skip(first).step_by(2).copied();
    let (mut odd, mut even): (Vec<f64>, Vec<f64>) = (half(0).collect(), half(1).collect());
    (median(&mut odd), median(&mut even))
}

/// A publisher and a subscriber of each of so many channels, on two connections of their own.
pub async fn lanes(network: &Network, keys: &Arc<NodeKeys>, channels: usize) -> Result<Vec<Lane>> {
    let (publisher, subscriber) = (network.client(keys).await?, network.client(keys).await?);
    between(network, (&publisher, &subscriber), channels).await
}

async fn between(
    network: &Network,
    (publisher, subscriber): (&Client, &Client),
    channels: usize,
) -> Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for name in network.balanced_channels(publisher.node_id(), channels)? {
        let channel = subscriber.channel(name.clone());
        let records = subscriber.subscribe(&channel, 0).await?;
        lanes.push((publisher.publisher(&name)?, records));
    }
    Ok(lanes)
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
async fn latency(
    publisher: &Client,
    subscriber: &Client,
    name: ChannelName,
    (seconds, load): (u64, u64),
) -> Result<Histogram<u64>> {
    let publisher = publisher.publisher(&name)?;
    let mut records = subscriber.subscribe(&subscriber.channel(name), 0).await?;
    let wall = Arc::new(Wall::start());
    let count = seconds * load;
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
    let burst = load / BURSTS_A_SECOND;
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

/// Whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
