//! What the log in a store keeps by size and by age, on RocksDB: whole fronts go, and the room they took comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::Env;
use pqcnet_log::{AppendBatch, Base, ChannelId, EmbeddedLog, Retention, ShardLog, ShardNo, keys};
use pqcnet_store::RocksStore;

use support::{A, B, head, read, soon};

const S: ShardNo = ShardNo(7);
const ENTRY: usize = 32 << 10;

fn log(path: &Path, limits: Retention) -> (EmbeddedLog, Arc<RocksStore>) {
    log_with(path, limits, true)
}

fn log_with(path: &Path, limits: Retention, room: bool) -> (EmbeddedLog, Arc<RocksStore>) {
    let mut config = support::config(path);
    if !room {
        config.free_space = Arc::new(|_| None);
    }
    if limits.is_limited() {
        config.schema.families.push(keys::SEGMENT);
    }
    config.tables_bytes = 1 << 20;
    let env = Env::plain();
    let store = Arc::new(RocksStore::open(&env, config).unwrap());
    (
        EmbeddedLog::new(&env, store.clone()).retaining(limits),
        store,
    )
}

fn limits(bytes: Option<u64>, age: Option<u64>) -> Retention {
    let age = age.map(Duration::from_secs);
    Retention { bytes, age }
}

async fn opened(log: &EmbeddedLog) -> u32 {
    log.open(S, [0; 16]).await.unwrap().generation
}

/// Appends one entry to each channel, with bytes that do not compress.
async fn append(log: &EmbeddedLog, generation: u32, channels: &[ChannelId], at_ms: u64) {
    let mut batch = AppendBatch::new(S, generation);
    for id in channels {
        let head = head(log, S, *id).await;
        let base = head.map_or_else(Base::default, |head| Base {
            head: head.head,
            bytes: head.bytes,
            newest_ms: head.newest_ms,
            forgotten_epoch: 0,
        });
        let slot = batch.channel(*id, base);
        batch.push(slot, (1, base.head + 1), at_ms, |offset, out| {
            let mut word = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for _ in 0..ENTRY / 8 {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                out.extend_from_slice(&word.to_be_bytes());
            }
        });
    }
    log.append(batch).unwrap().await.unwrap();
}

async fn retain(log: &EmbeddedLog, generation: u32, now_ms: u64) -> u64 {
    let retaining = log.retain(S, generation, now_ms).expect("it has limits");
    retaining.await.unwrap()
}

/// Offsets of a channel from its front on: without a hole up to the head, whatever comes first.
async fn kept(log: &EmbeddedLog, channel: ChannelId) -> std::ops::RangeInclusive<u64> {
    let of = head(log, S, channel).await.unwrap();
    let mut next = of.first;
    while next <= of.head {
        for (offset, _) in offsets(log, channel, next - 1).await {
            assert_eq!(offset, next);
            next += 1;
        }
    }
    let (front, _) = offsets(log, channel, 0)
        .await
        .first()
        .copied()
        .unwrap_or((next, 0));
    assert_eq!(front, of.first, "a reader from the start finds the front");
    of.first..=of.head
}

async fn offsets(log: &EmbeddedLog, channel: ChannelId, after: u64) -> Vec<(u64, usize)> {
    let request = pqcnet_log::ReadRequest {
        shard: S,
        channel,
        after,
        max_records: 64,
        max_bytes: 4 << 20,
    };
    let found = log.read(request).await.unwrap();
    let entry = |(offset, range): &(u64, std::ops::Range<usize>)| (*offset, range.len());
    found.items.iter().map(entry).collect()
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder.join("db")).unwrap();
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

// A shard that keeps 4 MiB takes 32 in two channels, one of them written ten times as often, and is opened anew twice on the way. What it
// keeps is at most that and at least what fits without one segment; of each channel it is what lies above one offset; the rest is
// gone from the disk too, and producers' marks are not: their next goes on.
// Where the disk has room for merging in tiers, and where nobody knows.
#[tokio::test]
async fn a_shard_keeps_so_many_bytes() {
    for room in [true, false] {
        keeps_so_many_bytes(room).await;
    }
}

async fn keeps_so_many_bytes(room: bool) {
    let dir = tempfile::tempdir().unwrap();
    let limit = limits(Some(4 << 20), None);
    let (mut log, mut store) = log_with(dir.path(), limit, room);
    assert_eq!(store.merges_in_tiers(), room);
    let mut generation = opened(&log).await;
    for number in 0..1_000_u64 {
        let both = [A, B];
        let channels = if number % 10 == 0 {
            &both[..]
        } else {
            &both[..1]
        };
        append(&log, generation, channels, 1_000 + number).await;
        retain(&log, generation, 1_000 + number).await;
        if number % 400 == 399 {
            drop((log, store));
            (log, store) = log_with(dir.path(), limit, room);
            generation = opened(&log).await;
        }
    }
    let (a, b) = (kept(&log, A).await, kept(&log, B).await);
    assert_eq!((*a.end(), *b.end()), (1_000, 100));
    let entries = (a.end() - a.start() + 1) + (b.end() - b.start() + 1);
    let bytes = entries * ENTRY as u64;
    assert!(bytes <= 4 << 20, "{bytes} bytes are kept: {a:?} {b:?}");
    assert!(
        bytes >= (4 << 20) - (4 << 20) / 8 - 2 * ENTRY as u64,
        "{bytes} bytes are kept"
    );
    let marks = head(&log, S, A).await.unwrap().producers;
    assert_eq!((marks[0].sequence, marks[0].offset), (1_000, 1_000));
    append(&log, generation, &[A], 3_000).await;

    // What went and is not given back yet is at most half of what is kept; beside it there are the engine's log and tables on their way.
    store.flush().unwrap();
    soon(async {
        while size(dir.path()) > 12 << 20 {
            // Given back on a thread of its own.
            append(&log, generation, &[A], 4_000).await;
            retain(&log, generation, 4_000).await;
        }
    })
    .await;
}

// Entries of ten seconds: what is older goes although nothing more is stored, and what was refused to nobody stays: the log under the same
// folder without limits keeps all, and with them again counts what came meanwhile.
#[tokio::test]
async fn a_shard_keeps_so_long() {
    let dir = tempfile::tempdir().unwrap();
    let limit = limits(None, Some(10));
    let (log, store) = self::log(dir.path(), limit);
    let generation = opened(&log).await;
    for second in 1..=20 {
        append(&log, generation, &[A], second * 1_000).await;
        retain(&log, generation, second * 1_000).await;
    }
    // The oldest are of the tenth second, or of the one before, for a segment is as old as its newest.
    let first = *kept(&log, A).await.start();
    assert!((9..=10).contains(&first), "{first}");
    retain(&log, generation, 26_000).await;
    let later = *kept(&log, A).await.start();
    assert!((15..=16).contains(&later), "{later}");
    drop((log, store));

    let (log, store) = self::log(dir.path(), Retention::default());
    let generation = opened(&log).await;
    assert!(log.retain(S, generation, 1 << 40).is_none());
    append(&log, generation, &[A, B], 27_000).await;
    assert_eq!(kept(&log, A).await, later..=21);
    drop((log, store));

    let (log, _store) = self::log(dir.path(), limit);
    let generation = opened(&log).await;
    assert_eq!(kept(&log, A).await, later..=21);
    // The segment that had them all is closed, and then it is over.
    assert_eq!(retain(&log, generation, 36_900).await, later_bytes(later));
    assert_eq!(kept(&log, A).await, 21..=21);
    retain(&log, generation, 60_000).await;
    retain(&log, generation, 60_000).await;
    let (a, b) = (kept(&log, A).await, kept(&log, B).await);
    assert_eq!((a.is_empty(), b.is_empty()), (true, true), "{a:?} {b:?}");
    append(&log, generation, &[A, B], 61_000).await;
    assert_eq!((kept(&log, A).await, kept(&log, B).await), (22..=22, 2..=2));
}

/// Bytes from this offset up to the twentieth.
fn later_bytes(first: u64) -> u64 {
    (21 - first) * ENTRY as u64
}

// A shard is discarded while its front goes, and later generations begin: nothing is left, and what comes then is kept.
#[tokio::test]
async fn a_shard_that_is_discarded_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _store) = self::log(dir.path(), limits(Some(1 << 20), None));
    let generation = opened(&log).await;
    for number in 0..64 {
        append(&log, generation, &[A, B], number + 1).await;
    }
    let retaining = log.retain(S, generation, 100).unwrap();
    let (discarded, retained) = futures::join!(log.discard(S), retaining);
    discarded.unwrap();
    retained.unwrap();
    assert_eq!(log.heads(S).await.unwrap(), []);
    assert_eq!(
        retain(&log, generation, 200).await,
        0,
        "it is nobody's generation any more"
    );
    let next = opened(&log).await;
    append(&log, next, &[A], 300).await;
    assert_eq!(kept(&log, A).await, 1..=1);
    assert_eq!(read(&log, S, A, 0).await.unwrap().len(), 1);
}
