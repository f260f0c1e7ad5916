//! What one flooding channel does to others, and what memory does while consumers take a third of what is offered: one sentry
//! and one relayer as processes, flooding clients as others, all else in the bench's own.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_tests::network::{Network, Node};
use pqcnet_tests::process::binary;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::GROUP;
use crate::Args;
use crate::compare::Ratio;
use crate::cpu::{self, Wall, median};
use crate::flow::{self, Lane};
use crate::row::Row;

const PAYLOAD: usize = 1024;
/// Where they lie, and where else a flood does.
const QUIET_SHARD: u16 = 3;
const FLOODED_SHARD: u16 = 4;
/// Others' channels, each with its share of their messages.
const OTHERS: usize = 8;
/// Messages of all others together, a second, one each time in turn.
const OTHERS_PER_SECOND: u64 = 400;
/// Between two looks of a consumer that has taken its third.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// After so many without an acknowledgement the producers wait.
const PATIENT_LOOKS: u32 = 200;
/// Seconds at the beginning of a flood that are in the rows of the whole only, not in those of what follows: it is known for one only once
/// it has brought enough.
const BEGINS: u64 = 1;
/// A relayer rests that took less than a fiftieth of a processor for so long.
const REST: Duration = Duration::from_millis(250);
/// Looks at that; after so many it is measured all the same.
const RESTLESS: u32 = 120;

/// Where a flood comes to lie beside the quiet channels.
const BESIDE: [(&str, u16); 2] = [
    ("same shard", QUIET_SHARD),
    ("another shard", FLOODED_SHARD),
];

/// All others' channels are of one shard, so a flood is in theirs or in another. Each flood lies between two spells without, so that what
/// the machine does meanwhile is in both.
pub async fn fairness(args: &Args) -> Result<Vec<Row>> {
    let (rounds, seconds) = if args.quick { (2, 1) } else { (14, 3) };
    // What others left to be written to the disk is not to fall into the first rounds.
    nix::unistd::sync();
    let network = Network::start(1, 1).await?;
    let keys = Arc::new(NodeKeys::generate());
    let names = network.channels_of_shard(keys.node_id(), QUIET_SHARD, OTHERS)?;
    let (publisher, subscriber) = (network.client(&keys).await?, network.client(&keys).await?);
    let mut others = flow::between((&publisher, &subscriber), names).await?;
    let mut floods = Vec::new();
    for (number, (_, shard)) in BESIDE.into_iter().enumerate() {
        floods.push(Flood::start(&network, &format!("flood-{number}"), shard).await?);
    }
    let relayer = network.node(Role::Relayer, 1);
    let mut alone = Vec::new();
    let mut spells = BESIDE.map(|_| Vec::new());
    for (round, turn) in (0..rounds).flat_map(|round| [(round, 0), (round, 1)]) {
        rest(relayer).await?;
        let (lanes, before) = paced(others, seconds).await?;
        alone.push(before);
        let place = (round + turn) % BESIDE.len();
        let wall = Wall::start();
        floods[place].order().await?;
        // Begins to flow; what the first moments do to others belongs to what is measured.
        let (lanes, mut whole) = paced(lanes, BEGINS).await?;
        let (lanes, later) = paced(lanes, seconds).await?;
        let carried = floods[place].end().await?;
        let rate = carried as f64 / wall.elapsed().as_secs_f64();
        whole.add(&later)?;
        spells[place].push(Spell {
            number: alone.len(),
            rate,
            whole,
            later,
        });
        others = lanes;
    }
    rest(relayer).await?;
    let (lanes, after) = paced(others, seconds).await?;
    alone.push(after);
    for flood in floods {
        flood.stop().await?;
    }
    drop((lanes, publisher, subscriber));
    network.stop().await?;
    let mut rows = Vec::new();
    for (named, quantile) in QUANTILES {
        let what = format!("{OTHERS} quiet channels alone, {named}");
        rows.push(Row::new(GROUP, what, middle(&alone, quantile), "ms"));
    }
    for ((beside, _), spells) in BESIDE.into_iter().zip(&spells) {
        let what = format!("a flood in {beside}: it carries, 1 KiB");
        let mut rates: Vec<f64> = spells.iter().map(|spell| spell.rate).collect();
        rows.push(Row::new(GROUP, what, median(&mut rates), "messages/s"));
        let whole = spells.iter().map(|spell| (spell.number, &spell.whole));
        rows.extend(beside_it(beside, "", whole.collect(), &alone));
        let later = spells.iter().map(|spell| (spell.number, &spell.later));
        let when = " from its second second on";
        rows.extend(beside_it(beside, when, later.collect(), &alone));
    }
    Ok(rows)
}

const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p99", 0.99)];

/// Others beside a flood.
struct Spell {
    /// It came behind so many spells without.
    number: usize,
    /// Messages a second that the flood carried.
    rate: f64,
    whole: Histogram<u64>,
    /// From its second second on.
    later: Histogram<u64>,
}

fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1000.0
}

fn middle(latencies: &[Histogram<u64>], quantile: f64) -> f64 {
    let each = latencies.iter().map(|latency| millis(latency, quantile));
    median(&mut each.collect::<Vec<f64>>())
}

/// Latencies beside a flood: in the middle, and each over that of the spells right before and after, with how sure the middle of these is.
fn beside_it(
    beside: &str,
    when: &str,
    spells: Vec<(usize, &Histogram<u64>)>,
    alone: &[Histogram<u64>],
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (named, quantile) in QUANTILES {
        let each = spells.iter().map(|(_, latency)| millis(latency, quantile));
        let value = median(&mut each.collect::<Vec<f64>>());
        let what = format!("the quiet beside a flood in {beside}{when}, {named}");
        let row = Row::new(GROUP, what, value, "ms");
        rows.push(row.beside("alone", middle(alone, quantile)));
        let around = |number: usize| {
            let [before, after] = [number - 1, number].map(|at| millis(&alone[at], quantile));
            (before * after).sqrt()
        };
        let pairs = spells
            .iter()
            .map(|(number, latency)| (millis(latency, quantile), around(*number)));
        let Some(ratio) = Ratio::of(&pairs.collect::<Vec<_>>()) else {
            continue;
        };
        let parts = [
            ("", ratio.middle),
            (", from", ratio.from),
            (", to", ratio.to),
        ];
        rows.extend(parts.map(|(part, value)| {
            let what = format!(
                "a flood in {beside}{when}: {named} over that right before and after{part}"
            );
            Row::new(GROUP, what, value, "x")
        }));
    }
    rows
}

/// Returns once the relayer has nothing to do any more.
async fn rest(relayer: &Node) -> Result<()> {
    let pid = relayer.pid()?;
    for _ in 0..RESTLESS {
        let before = cpu::of_threads(pid, |_| true)?;
        tokio::time::sleep(REST).await;
        if cpu::of_threads(pid, |_| true)?.saturating_sub(before) < REST / 50 {
            break;
        }
    }
    Ok(())
}

/// A client in a process of its own that floods a channel when told.
struct Flood {
    process: Child,
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Flood {
    async fn start(network: &Network, name: &str, shard: u16) -> Result<Flood> {
        let identity = network.identity(name)?;
        let names = network.channels_of_shard(identity.id, shard, 1)?;
        let channel = names.first().context("no channel")?;
        let mut process = Command::new(binary("pqcnet-bench-flood")?)
            .args(identity.files())
            .arg(channel.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().context("no input")?;
        let told = process.stdout.take().context("no output")?;
        let told = BufReader::new(told).lines();
        let mut flood = Flood {
            process,
            orders,
            told,
        };
        flood.says().await?;
        Ok(flood)
    }

    async fn says(&mut self) -> Result<String> {
        let line = self.told.next_line().await?;
        line.context("the flooding client ended")
    }

    async fn order(&mut self) -> Result<()> {
        Ok(self.orders.write_all(b"\n").await?)
    }

    /// Ends the flood; what it carried.
    async fn end(&mut self) -> Result<u64> {
        self.order().await?;
        Ok(self.says().await?.parse()?)
    }

    async fn stop(mut self) -> Result<()> {
        drop(self.orders);
        let ended = self.process.wait().await?;
        anyhow::ensure!(ended.success(), "the flooding client failed");
        Ok(())
    }
}

/// Publishes at a fixed rate, the lanes taking turns: microseconds from publish to delivery.
async fn paced(lanes: Vec<Lane>, seconds: u64) -> Result<(Vec<Lane>, Histogram<u64>)> {
    let wall = Arc::new(Wall::start());
    let each = seconds * OTHERS_PER_SECOND / lanes.len() as u64;
    let pause =
        Duration::from_secs(1) * u32::try_from(lanes.len())? / u32::try_from(OTHERS_PER_SECOND)?;
    let running: Vec<_> = (lanes.into_iter().enumerate())
        .map(|(lane, (publisher, mut records))| {
            let first = pause * u32::try_from(lane).unwrap_or(0) / OTHERS as u32;
            let writing = tokio::spawn({
                let wall = wall.clone();
                async move {
                    let mut receipts = Vec::new();
                    for number in 0..u32::try_from(each)? {
                        let at = first + pause * number;
                        tokio::time::sleep(at.saturating_sub(wall.elapsed())).await;
                        let mut payload = flow::micros(wall.elapsed()).to_be_bytes().to_vec();
                        payload.resize(PAYLOAD, 0);
                        receipts.push(publisher.send(payload).await?);
                    }
                    for receipt in receipts {
                        receipt.await?;
                    }
                    anyhow::Ok(publisher)
                }
            });
            let wall = wall.clone();
            let reading = tokio::spawn(async move {
                let mut histogram = Histogram::<u64>::new(3)?;
                for _ in 0..each {
                    let record = records.next().await?;
                    let sent = u64::from_be_bytes(record.payload[..8].try_into()?);
                    histogram.record(flow::micros(wall.elapsed()).saturating_sub(sent))?;
                }
                anyhow::Ok((records, histogram))
            });
            (writing, reading)
        })
        .collect();
    let (mut lanes, mut all) = (Vec::new(), Histogram::<u64>::new(3)?);
    for (writing, reading) in running {
        let publisher = writing.await??;
        let (records, histogram) = reading.await??;
        all.add(histogram)?;
        lanes.push((publisher, records));
    }
    Ok((lanes, all))
}

/// Resident memory of both nodes while consumers take a third.
pub async fn memory(args: &Args) -> Result<Vec<Row>> {
    let messages: u64 = if args.quick { 20_000 } else { 1_200_000 };
    let network = Network::start(1, 1).await?;
    let lanes = flow::lanes(&network, &Arc::new(NodeKeys::generate()), 4).await?;
    let each = messages / lanes.len() as u64;
    let acked = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for (publisher, mut records) in lanes {
        let counted = acked.clone();
        running.push(tokio::spawn(async move {
            for _ in 0..each / 500 {
                let mut receipts = Vec::new();
                for _ in 0..500 {
                    receipts.push(publisher.send(vec![0x5a; PAYLOAD]).await?);
                }
                for receipt in receipts {
                    receipt.await?;
                }
                counted.fetch_add(500, Relaxed);
            }
            anyhow::Ok(())
        }));
        let counted = acked.clone();
        let own = (each / 500 * 500) / 3;
        running.push(tokio::spawn(async move {
            let (mut taken, mut before, mut looks) = (0, 0, 0);
            while taken < own {
                let acked = counted.load(Relaxed);
                if acked != before {
                    (before, looks) = (acked, 0);
                }
                // A quarter of all that is acknowledged is of this channel, and of that it takes a third; but no producer
                // that was asked to wait for it may wait in vain.
                if taken * 12 < acked || looks > PATIENT_LOOKS {
                    records.next().await?;
                    taken += 1;
                } else {
                    looks += 1;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
            anyhow::Ok(())
        }));
    }
    let nodes = [
        network.node(Role::Relayer, 1),
        network.node(Role::Sentry, 1),
    ];
    let goal = each / 500 * 500 * 4;
    // Resident bytes whenever another hundredth is acknowledged.
    let mut samples = [Vec::new(), Vec::new()];
    let mut next = 0;
    while next < goal {
        next = (next + goal / 100).min(goal);
        while acked.load(Relaxed) < next
            && !running.iter().any(tokio::task::JoinHandle::is_finished)
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for (node, samples) in nodes.iter().zip(&mut samples) {
            samples.push(resident(node)?);
        }
    }
    for task in running {
        task.await??;
    }
    let rows = nodes.iter().zip(samples).map(|(node, mut samples)| {
        // The first quarter fills the store's memory tables and caches.
        let mut late = samples.split_off(samples.len() * 3 / 4);
        let mut early = samples.split_off(samples.len() / 3);
        early.truncate(late.len());
        let what = format!("{}: resident at a third taken, last quarter", node.role);
        Row::new(GROUP, what, median(&mut late), "MiB").beside("second quarter", median(&mut early))
    });
    let rows = rows.collect();
    network.stop().await?;
    Ok(rows)
}

/// In MiB.
fn resident(node: &Node) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = kib.context("no resident size")?.parse()?;
    Ok(kib / 1024.0)
}
