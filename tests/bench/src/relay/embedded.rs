//! Through shard worker and log in one process: beside a bare RocksDB, at fixed rates, and what a message costs as shards
//! and stored messages grow.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use pqcnet_actor::Env;
use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::GROUP;
use super::rig::{Burst, Rig};
use crate::Args;
use crate::cpu::{self, Wall, median};
use crate::row::Row;

const SHARDS: u16 = 32;
const PAYLOAD: usize = 1024;
/// Of the rows on cost.
const SMALL: usize = 100;
/// Messages of a publish there: as in the first rows, and few.
const BATCHES: [u64; 2] = [100, 10];
/// Channels of the rows on cost, however many shards they are spread over.
const CHANNELS: usize = 128;
/// What a stored entry is longer than its payload: its time, and what sealing adds.
const OVERHEAD: usize = 8 + pqcnet_relay::core::seal::OVERHEAD;
/// Of a look whether the engine has come to rest, and how many there are at most.
const REST: Duration = Duration::from_millis(250);
const RESTLESS: u32 = 480;
/// Of an entry.
const KEY: usize = 42;

/// Synced messages a second beside a bare RocksDB with the same writes, then latencies.
pub async fn bursts(env: &Env, args: &Args) -> Result<Vec<Row>> {
    let (rounds, messages) = if args.quick {
        (2, 20_000)
    } else {
        (7, 200_000)
    };
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::start(env, &folder.path().join("relay"), SHARDS, SHARDS.into()).await?;
    let mut bare = Bare::open(&folder.path().join("bare"))?;
    let burst = Burst {
        messages,
        size: PAYLOAD,
        batch: 100,
        in_flight: 8,
    };
    // Once unmeasured, so that stores are warm.
    rig.pass(Burst {
        messages: messages / 4,
        ..burst
    })
    .await?;
    let (mut ours, mut theirs, mut costs, mut bare_costs) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        for turn in 0..2 {
            let (wall, spent) = (Wall::start(), cpu::process()?);
            let of = |wall: Wall, before| {
                let cost = cpu::process()?.saturating_sub(before).as_secs_f64() * 1e6;
                let rate = messages as f64 / wall.elapsed().as_secs_f64();
                anyhow::Ok((rate, cost / messages as f64))
            };
            if (round + turn) % 2 == 0 {
                let before = rig.groups();
                rig.pass(burst).await?;
                let (rate, cost) = of(wall, spent)?;
                bare.group = (messages / (rig.groups() - before).max(1)).max(1);
                ours.push(rate);
                costs.push(cost);
            } else {
                bare.write(messages)?;
                let (rate, cost) = of(wall, spent)?;
                theirs.push(rate);
                bare_costs.push(cost);
            }
        }
    }
    let rate = median(&mut ours);
    let mut rows = vec![
        Row::new(
            GROUP,
            "synced 1 KiB, 32 shards, worker, log, reader",
            rate,
            "messages/s",
        )
        .beside("bare RocksDB, the same writes", median(&mut theirs)),
        Row::new(GROUP, "the same: CPU a message", median(&mut costs), "us")
            .beside("bare RocksDB, the same writes", median(&mut bare_costs)),
    ];
    let seconds = if args.quick { 2 } else { 10 };
    for (load, named) in [
        (1_000, "1,000 messages/s"),
        (rate as u64 / 2, "half of that load"),
    ] {
        let latency = rig.latency(seconds, load, PAYLOAD).await?;
        for (what, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let what = format!("publish to delivery at {named}, {what}");
            let micros = latency.value_at_quantile(quantile) as f64;
            rows.push(Row::new(GROUP, what, micros / 1000.0, "ms"));
        }
    }
    rig.stop().await;
    Ok(rows)
}

/// A bare RocksDB: writes of as many messages as the workers' had, one after the other, each synced; keys and values of the
/// log's form and size; the engine's own defaults, without compression, as the log is.
struct Bare {
    db: DB,
    /// Messages a write.
    group: u64,
    next: u64,
}

impl Bare {
    fn open(path: &Path) -> Result<Bare> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        let db = DB::open(&options, path)?;
        Ok(Bare {
            db,
            group: 2_000,
            next: 0,
        })
    }

    fn write(&mut self, messages: u64) -> Result<()> {
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        let value = [7; PAYLOAD + OVERHEAD];
        let end = self.next + messages;
        while self.next < end {
            let mut batch = WriteBatch::default();
            for _ in 0..self.group.min(end - self.next) {
                let mut key = [1; KEY];
                key[..2].copy_from_slice(&((self.next / 100 % 32) as u16).to_be_bytes());
                key[KEY - 8..].copy_from_slice(&self.next.to_be_bytes());
                batch.put(key, value);
                self.next += 1;
            }
            self.db.write_opt(batch, &sync)?;
        }
        Ok(())
    }
}

fn small(messages: u64, batch: u64) -> Burst {
    Burst {
        messages,
        size: SMALL,
        batch,
        in_flight: 1,
    }
}

/// CPU a message of 100 B, published, stored, delivered: the same channels and publishes, spread over more and more shards.
pub async fn by_shards(env: &Env, args: &Args) -> Result<Vec<Row>> {
    let (rounds, messages) = if args.quick {
        (2, 25_600)
    } else {
        (5, 256_000)
    };
    let folder = tempfile::tempdir()?;
    let mut rigs = Vec::new();
    for shards in [1, 8, 32, 128] {
        let path = folder.path().join(shards.to_string());
        let mut rig = Rig::start(env, &path, shards, CHANNELS).await?;
        rig.pass(small(messages / 4, 10)).await?;
        rigs.push((shards, rig, [Vec::new(), Vec::new()]));
    }
    for _ in 0..rounds {
        for (_, rig, costs) in &mut rigs {
            for (batch, costs) in BATCHES.into_iter().zip(costs) {
                costs.push(cost(rig, small(messages, batch)).await?);
            }
        }
    }
    let mut costs = Vec::new();
    for (shards, rig, mut of) in rigs {
        rig.stop().await;
        costs.push((shards, [median(&mut of[0]), median(&mut of[1])]));
    }
    let mut rows = Vec::new();
    for (place, batch) in BATCHES.into_iter().enumerate() {
        let one = costs.first().map_or(0.0, |(_, of)| of[place]);
        for (shards, of) in &costs {
            let what = format!("CPU a message of 100 B, {batch} a publish, shards: {shards}");
            rows.push(Row::new(GROUP, what, of[place], "us").beside("one shard", one));
        }
    }
    Ok(rows)
}

/// What a message costs when so many are stored: the next half of that, merging of files included, also of what is left to merge when
/// the last is delivered; what the messages before left is waited for.
pub async fn by_level(env: &Env, args: &Args) -> Result<Vec<Row>> {
    let levels: &[u64] = match args.quick {
        true => &[10_000, 100_000],
        false => &[10_000, 100_000, 1_000_000, 10_000_000],
    };
    let mut costs = vec![Vec::new(); levels.len()];
    // The first levels take milliseconds: stores of their own repeat them, the last one goes on.
    let rounds = 5;
    for round in 1..=rounds {
        let folder = tempfile::tempdir()?;
        let mut rig = Rig::start(env, folder.path(), SHARDS, CHANNELS).await?;
        let mut stored = 0;
        for (level, costs) in levels.iter().zip(&mut costs) {
            if *level > 100_000 && round < rounds {
                break;
            }
            stored += rig.pass(small(level - stored, 100)).await?;
            rest(env).await?;
            let more = small((level / 2).max(10_000), BATCHES[0]);
            costs.push(settled_cost(env, &mut rig, more).await?);
            stored += more.messages;
        }
        rig.stop().await;
    }
    let costs: Vec<f64> = costs.iter_mut().map(|costs| median(costs)).collect();
    let rows = levels.iter().zip(&costs).map(|(level, cost)| {
        let what = format!("CPU a message of 100 B, 10^{} stored", level.ilog10());
        Row::new(GROUP, what, *cost, "us").beside("10^4 stored", costs[0])
    });
    Ok(rows.collect())
}

/// The engine merges no more: the process took less than a fiftieth of a processor for a moment.
async fn rest(env: &Env) -> Result<()> {
    for _ in 0..RESTLESS {
        let before = cpu::process()?;
        env.sleep(REST).await;
        if cpu::process()?.saturating_sub(before) < REST / 50 {
            return Ok(());
        }
    }
    anyhow::bail!("the engine does not come to rest")
}

async fn settled_cost(env: &Env, rig: &mut Rig, burst: Burst) -> Result<f64> {
    let before = cpu::process()?;
    let count = rig.pass(burst).await?;
    rest(env).await?;
    let spent = cpu::process()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / count as f64)
}

async fn cost(rig: &mut Rig, burst: Burst) -> Result<f64> {
    let before = cpu::process()?;
    let count = rig.pass(burst).await?;
    let spent = cpu::process()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / count as f64)
}
