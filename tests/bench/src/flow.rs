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
use crate::compare::Ratio;
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
    let mut rows = Vec::new();
    if args.wants("carried") {
        rows.extend(carried(args).await?);
    }
    if args.wants("metered") {
        rows.extend(metered(args).await?);
    }
    Ok(rows)
}

/// What the flow carries, and how long a message takes.
async fn carried(args: &Args) -> Result<Vec<Row>> {
    let network = Network::start(1, 1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let publisher = network.client(&keys).await?;
    let subscriber = network.client(&keys).await?;
    let messages = if args.quick { 5_000 } else { 100_000 };
    let each = messages / CHANNELS;
    let names = network.balanced_channels(publisher.node_id(), CHANNELS)?;
    let mut lanes = between((&publisher, &subscriber), names).await?;
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
    Ok(rows)
}

/// One network, its relayer metering as configured.
struct Metered {
    network: Network,
    lanes: Vec<Lane>,
}

/// What closes windows: the pool, where records and receipts are hashed, signed and verified, and the writer of their store.
/// The pool does other things, too, as it does in a relayer without a meter.
const CLOSING: [&str; 2] = ["meter-writer", "offload"];
/// Threads that write tables and merge them, seldom and much at a time; the meter's own store, of a few KiB a window, never gives them work here.
const MERGING: &str = "rocksdb:";

/// CPU time of a relayer, in microseconds.
#[derive(Clone, Copy)]
struct Spent {
    /// On all threads but those that merge.
    working: f64,
    /// On all.
    all: f64,
    /// On those that close windows.
    closing: f64,
}

impl Metered {
    /// With windows so long; 0 is no metering.
    async fn start(window_seconds: u64, warm: usize) -> Result<Metered> {
        let network = Network::create(1, 1, Admission::Any)?;
        let relayer = network.node(Role::Relayer, 1);
        relayer.configure(&format!("[metering]\nwindow_seconds = {window_seconds}\n"))?;
        network.start_all().await?;
        let lanes = lanes(&network, &Arc::new(NodeKeys::generate()), CHANNELS).await?;
        let lanes = pass(lanes, warm).await?;
        Ok(Metered { network, lanes })
    }

    fn spent(&self) -> Result<Spent> {
        let pid = self.network.node(Role::Relayer, 1).pid()?;
        let of = |chosen: &dyn Fn(&str) -> bool| {
            let spent = cpu::of_threads(pid, chosen)?;
            anyhow::Ok(spent.as_secs_f64() * 1e6)
        };
        Ok(Spent {
            working: of(&|name| !name.starts_with(MERGING))?,
            all: of(&|_| true)?,
            closing: of(&|name| CLOSING.contains(&name))?,
        })
    }

    /// Of each message of a pass; what closes windows in all.
    async fn pass(&mut self, each: usize) -> Result<Spent> {
        let before = self.spent()?;
        self.lanes = pass(std::mem::take(&mut self.lanes), each).await?;
        let after = self.spent()?;
        let count = (each * CHANNELS) as f64;
        Ok(Spent {
            working: (after.working - before.working) / count,
            all: (after.all - before.all) / count,
            closing: after.closing - before.closing,
        })
    }
}

/// Four relayers in turn, forth and back: without a meter, with the default's windows of a minute, with windows of a second, and
/// without once more, so that what two of the same kind differ by is known too. A pass takes about a second, so most have
/// the end of a window of a second. Each life of a process lays its memory out in its own way: they are started anew
/// several times.
async fn metered(args: &Args) -> Result<Vec<Row>> {
    let (lives, rounds, each) = match args.quick {
        true => (1, 2, 1_250),
        false => (4, 8, 12_500),
    };
    let mut spent: [Vec<Spent>; 4] = Default::default();
    let mut closing_ms = 0.0;
    for _ in 0..lives {
        let mut networks = Vec::new();
        for seconds in [0, 60, 1, 0] {
            networks.push(Metered::start(seconds, each / 2).await?);
        }
        let wall = Wall::start();
        let before = (networks[0].spent()?.closing, networks[2].spent()?.closing);
        for round in 0..rounds {
            for turn in 0..networks.len() {
                let place = match round % 2 {
                    0 => turn,
                    _ => networks.len() - 1 - turn,
                };
                spent[place].push(networks[place].pass(each).await?);
            }
        }
        let of_off = networks[0].spent()?.closing - before.0;
        let of_second = networks[2].spent()?.closing - before.1;
        // Windows end in the others' turns too.
        closing_ms += (of_second - of_off) / 1e3 / wall.elapsed().as_secs_f64() / lives as f64;
        for Metered { network, lanes } in networks {
            drop(lanes);
            network.stop().await?;
        }
    }
    let [off, minute, second, again] = &spent;
    let mut rows = Vec::new();
    let kinds = [
        ("metered each minute", minute),
        ("metered each second", second),
    ];
    for (named, on) in kinds {
        let what = format!("{named}: CPU of the relayer a message");
        rows.push(middles(&what, on, off));
        rows.extend(ratios(named, "not metered", on, &[off, again]));
    }
    rows.extend(ratios("not metered", "another not metered", again, &[off]));
    let what = "closing a window: CPU on threads of its own";
    rows.push(Row::new(GROUP, what, closing_ms, "ms"));
    Ok(rows)
}

fn middles(what: &str, on: &[Spent], off: &[Spent]) -> Row {
    let middle = |of: &[Spent]| median(&mut of.iter().map(|spent| spent.all).collect::<Vec<f64>>());
    Row::new(GROUP, what, middle(on), "us").beside("not metered", middle(off))
}

/// How much more, in per cent: the middle of the rounds' ratios, and between what that lies in 95 of 100 resamples.
fn ratios(named: &str, beside: &str, on: &[Spent], off: &[&Vec<Spent>]) -> Vec<Row> {
    let mut rows = Vec::new();
    type Of = fn(&Spent) -> f64;
    let kinds: [(&str, Of); 2] = [
        ("", |spent| spent.working),
        (", merging too", |spent| spent.all),
    ];
    for (which, of) in kinds {
        let pairs: Vec<(f64, f64)> = (on.iter().enumerate())
            .map(|(round, on)| {
                let off = off.iter().map(|off| of(&off[round])).sum::<f64>() / off.len() as f64;
                (of(on), off)
            })
            .collect();
        let Some(ratio) = Ratio::of(&pairs) else {
            continue;
        };
        for (part, value) in [
            ("", ratio.middle),
            (", from", ratio.from),
            (", to", ratio.to),
        ] {
            let what = format!("{named} against {beside}{which}{part}");
            rows.push(Row::new(GROUP, what, (value - 1.0) * 100.0, "%"));
        }
    }
    rows
}

/// A publisher and a subscriber of each of so many channels, on two connections of their own.
pub async fn lanes(network: &Network, keys: &Arc<NodeKeys>, channels: usize) -> Result<Vec<Lane>> {
    let (publisher, subscriber) = (network.client(keys).await?, network.client(keys).await?);
    let names = network.balanced_channels(publisher.node_id(), channels)?;
    between((&publisher, &subscriber), names).await
}

/// The same of these channels, on two connections that are there.
pub async fn between(
    (publisher, subscriber): (&Client, &Client),
    names: Vec<ChannelName>,
) -> Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for name in names {
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
