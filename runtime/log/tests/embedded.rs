//! The embedded log on a real store: crashes, damage, a full disk, a full queue.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use futures::future::join_all;
use pqcnet_actor::Env;
use pqcnet_log::{
    AppendBatch, AppendError, Base, EmbeddedLog, LogError, ProducerMark, ShardLog, ShardNo, keys,
};
use pqcnet_store::{Batch, RocksStore, Store};
use support::{A, B, batch, config, embedded, gate, head, read};

const S: ShardNo = ShardNo(3);

async fn opened(log: &EmbeddedLog, shard: ShardNo) -> u32 {
    support::soon(log.open(shard, [0; 16]))
        .await
        .unwrap()
        .generation
}

async fn put(store: &RocksStore, fill: impl FnOnce(&mut Batch)) {
    let mut changes = Batch::new();
    fill(&mut changes);
    store.submit(changes).unwrap().await.unwrap();
}

// Eight shards append while the writer is busy: all eight share one synced write.
#[tokio::test]
async fn shards_share_a_synced_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let (arrived, pass) = gate(&mut config);
    let (log, store) = embedded(config);
    let mut generations = Vec::new();
    for shard in 0..8 {
        pass.send(()).unwrap();
        generations.push(opened(&log, ShardNo(shard)).await);
        arrived.recv_timeout(support::SOON).unwrap();
    }
    // Something else is being written.
    let mut other = Batch::new();
    other.put(keys::ABOUT, b"other", b"");
    let other = store.submit(other).unwrap();
    arrived.recv_timeout(support::SOON).unwrap();
    let before = store.stats().groups;
    let appends: Vec<_> = (0..8u16)
        .zip(generations)
        .map(|(shard, g)| log.append(batch(ShardNo(shard), g, A, 0, &["x"])).unwrap())
        .collect();
    drop(pass);
    other.await.unwrap();
    for done in join_all(appends).await {
        done.unwrap();
    }
    assert_eq!(store.stats().groups, before + 2);
}

// The store's queue holds nothing more: the batch comes back and is taken later, unchanged.
#[tokio::test]
async fn a_busy_store_hands_the_batch_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.queue_batches = 1;
    let (arrived, pass) = gate(&mut config);
    let (log, store) = embedded(config);
    pass.send(()).unwrap();
    let generation = opened(&log, S).await;
    arrived.recv_timeout(support::SOON).unwrap();
    let fill = |n: u8| {
        let mut other = Batch::new();
        other.put(keys::ABOUT, &[n], b"");
        store.submit(other).unwrap()
    };
    let first = fill(1);
    arrived.recv_timeout(support::SOON).unwrap();
    let second = fill(2);
    let Err(AppendError::Busy(back)) = log.append(batch(S, generation, A, 0, &["x"])) else {
        panic!("taken by a full queue");
    };
    assert_eq!(log.trim(S, A, 1).await, Ok(()));
    assert_eq!(log.open(ShardNo(9), [0; 16]).await, Err(LogError::Busy));
    drop(pass);
    first.await.unwrap();
    second.await.unwrap();
    log.append(back).unwrap().await.unwrap();
    assert_eq!(read(&log, S, A, 0).await.unwrap(), [(1, "x".to_owned())]);
    let huge = "x".repeat(65 << 20);
    let refused = log
        .append(batch(S, generation, A, 1, &[&huge]))
        .err()
        .unwrap();
    assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused}");
}

// An append is on its way when the shard is opened anew, and ends well before the new generation has its number: its
// writer is fenced off all the same, and what it stored is in the heads that the new one reads.
#[tokio::test]
async fn an_append_that_ends_during_an_open_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let (arrived, pass) = gate(&mut config);
    let (log, _store) = embedded(config);
    pass.send(()).unwrap();
    let generation = opened(&log, ShardNo(1)).await;
    arrived.recv_timeout(support::SOON).unwrap();
    let appending = log
        .append(batch(ShardNo(1), generation, A, 0, &["a"]))
        .unwrap();
    arrived.recv_timeout(support::SOON).unwrap();
    let opening = log.open(ShardNo(1), [2; 16]);
    pass.send(()).unwrap();
    support::soon(appending).await.unwrap();
    let late = log.append(batch(ShardNo(1), generation, A, 1, &["late"]));
    assert!(matches!(late, Err(AppendError::Fenced { .. })));
    pass.send(()).unwrap();
    assert_eq!(
        support::soon(opening).await.unwrap().generation,
        generation + 1
    );
    let heads = log.heads(ShardNo(1)).await.unwrap();
    assert_eq!(heads[0].head, 1);
}

// No room: typed, and the generation is over, since the append's fate is unknown. Reads go on. Once there is room a new
// generation opens and continues where the log stands.
#[tokio::test]
async fn a_full_disk_is_typed_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let mut config = config(dir.path());
    config.reserve_bytes = 100;
    let probe = free.clone();
    config.free_space = Arc::new(move |_| Some(probe.load(SeqCst)));
    let (log, _store) = embedded(config);
    let generation = opened(&log, S).await;
    log.append(batch(S, generation, A, 0, &["a"]))
        .unwrap()
        .await
        .unwrap();
    free.store(1, SeqCst);
    let error = log
        .append(batch(S, generation, A, 1, &["b"]))
        .unwrap()
        .await
        .unwrap_err();
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    let refused = log
        .append(batch(S, generation, A, 1, &["b"]))
        .err()
        .unwrap();
    assert!(matches!(refused, AppendError::Fenced { .. }), "{refused}");
    let error = log.open(S, [0; 16]).await.unwrap_err();
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert_eq!(read(&log, S, A, 0).await.unwrap().len(), 1);
    free.store(u64::MAX, SeqCst);
    let generation = opened(&log, S).await;
    log.append(batch(S, generation, A, 1, &["b"]))
        .unwrap()
        .await
        .unwrap();
    assert_eq!(read(&log, S, A, 0).await.unwrap().len(), 2);
}

// Entry 3 of 5 is gone: 1 and 2 are served, then the hole is named, never skipped.
#[tokio::test]
async fn a_missing_entry_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = embedded(config(dir.path()));
    let generation = opened(&log, S).await;
    log.append(batch(S, generation, A, 0, &["a", "b", "c", "d", "e"]))
        .unwrap()
        .await
        .unwrap();
    put(&store, |b| b.delete(keys::ENTRY, &keys::numbered(S, &A, 3))).await;
    assert_eq!(read(&log, S, A, 0).await.unwrap().len(), 2);
    for after in [2, 1] {
        let found = read(&log, S, A, after).await;
        if after == 1 {
            assert_eq!(found.unwrap(), [(2, "b".to_owned())]);
            continue;
        }
        let error = found.unwrap_err();
        assert!(
            matches!(
                error,
                LogError::Damaged {
                    shard: S,
                    channel: A,
                    offset: 3,
                    ..
                }
            ),
            "{error}"
        );
    }
    put(&store, |b| b.delete(keys::ENTRY, &keys::numbered(S, &A, 5))).await;
    let error = read(&log, S, A, 4).await.unwrap_err();
    assert!(
        matches!(error, LogError::Damaged { offset: 5, .. }),
        "{error}"
    );
}

// Each family in turn holds something this code never wrote: the shard, or the channel, is called damaged.
#[tokio::test]
async fn odd_values_are_damage() {
    for family in [
        keys::GENERATION,
        keys::HEAD,
        keys::FIRST,
        keys::MARK,
        keys::ABOUT,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (log, store) = embedded(config(dir.path()));
        let generation = opened(&log, S).await;
        log.append(batch(S, generation, A, 0, &["a"]))
            .unwrap()
            .await
            .unwrap();
        let odd_key = keys::channel(S, &B);
        put(&store, |b| b.put(family, &odd_key, b"odd")).await;
        let result = match family {
            keys::GENERATION => log.open(S, [0; 16]).await.map(|_| ()),
            _ => log.heads(S).await.map(|_| ()),
        };
        let error = result.unwrap_err();
        assert!(
            matches!(&error, LogError::DamagedShard { shard: S, detail } if detail.contains(family.0)),
            "{error}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = embedded(config(dir.path()));
    put(&store, |b| b.put(keys::HEAD, &keys::channel(S, &A), b"odd")).await;
    let error = read(&log, S, A, 0).await.unwrap_err();
    assert!(
        matches!(
            error,
            LogError::Damaged {
                channel: A,
                offset: 1,
                ..
            }
        ),
        "{error}"
    );
}

// A bit flips in the SST that holds the entries: the read names the channel and the first offset it could not serve.
#[tokio::test]
async fn a_flipped_bit_on_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = embedded(config(dir.path()));
    let generation = opened(&log, S).await;
    let text = "x".repeat(1000);
    log.append(batch(S, generation, A, 0, &[&text, &text]))
        .unwrap()
        .await
        .unwrap();
    store.flush().unwrap();
    drop((log, store));
    let entries = std::fs::read_dir(dir.path().join("db"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let largest = entries
        .filter(|p| p.extension().is_some_and(|x| x == "sst"))
        .max_by_key(|p| p.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    let (log, _store) = embedded(config(dir.path()));
    let error = read(&log, S, A, 0).await.unwrap_err();
    let LogError::Damaged {
        shard: S,
        channel: A,
        offset: 1,
        detail,
    } = &error
    else {
        panic!("{error}");
    };
    assert!(detail.contains(".sst"), "{detail}");
}

// The store is gone from under the log: closed, by type.
#[tokio::test]
async fn a_closed_store_is_told() {
    use pqcnet_store::{Commit, ReadError, SubmitError, View, WriteError, commit_channel};
    /// A store whose writer is gone.
    struct Gone;
    impl Store for Gone {
        fn submit(&self, batch: Batch) -> Result<Commit, SubmitError> {
            if batch.families() == [keys::GENERATION] {
                let (settle, commit) = commit_channel();
                settle.settle(Ok(()));
                return Ok(commit);
            }
            Err(SubmitError::Closed(batch))
        }

        fn view(
            &self,
            read: &mut dyn FnMut(&dyn View) -> Result<(), ReadError>,
        ) -> Result<(), ReadError> {
            struct Empty;
            impl View for Empty {
                fn get(
                    &self,
                    _: pqcnet_store::Family,
                    _: &[u8],
                ) -> Result<Option<Vec<u8>>, ReadError> {
                    Err(ReadError::Closed)
                }
                fn scan(
                    &self,
                    _: pqcnet_store::Family,
                    _: pqcnet_store::Scan<'_>,
                    _: &mut pqcnet_store::Visit<'_>,
                ) -> Result<(), ReadError> {
                    Ok(())
                }
            }
            read(&Empty)
        }
    }
    let log = EmbeddedLog::new(&Env::plain(), Arc::new(Gone));
    let generation = opened(&log, S).await;
    let refused = log
        .append(batch(S, generation, A, 0, &["a"]))
        .err()
        .unwrap();
    assert!(matches!(refused, AppendError::Closed), "{refused}");
    assert_eq!(read(&log, S, A, 0).await, Err(LogError::Closed));
    let error = WriteError::Closed;
    assert_eq!(error.to_string(), "the store is closed");
}

const DIR: &str = "PQCNET_LOG_TEST_DIR";
const SHARDS: u16 = 4;

// A child appends to four shards, 3 entries a batch, and says so after each; it is killed in mid-flow, three times over.
// Everything it said is there, whole, without a hole, and each start continues where the last left off.
#[tokio::test]
async fn what_was_appended_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = [0u64; SHARDS as usize];
    for round in 1..=3u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_appends_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ');
            if words.next() == Some("acked") {
                let mut number = || words.next().unwrap().parse::<u64>().unwrap();
                let (shard, offset) = (number(), number());
                acked[shard as usize] = offset;
            }
            if acked.iter().all(|offset| *offset >= round * 60) {
                child.kill().unwrap();
            }
        }
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "it ended by itself: {ended}");
    }
    let (log, _store) = embedded(config(dir.path()));
    for shard in 0..SHARDS {
        let stored = head(&log, ShardNo(shard), A).await.unwrap();
        assert!(stored.head >= acked[usize::from(shard)]);
        let mut offset = 0;
        while offset < stored.head {
            for (at, text) in read(&log, ShardNo(shard), A, offset).await.unwrap() {
                offset += 1;
                assert_eq!((at, text), (offset, format!("{shard}/{offset}")));
            }
        }
        assert_eq!(stored.producers[0].sequence, stored.head);
        assert_eq!(stored.head % 3, 0, "a batch is whole or not there");
    }
}

#[tokio::test]
#[ignore = "the child of what_was_appended_survives_kill_9"]
async fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (log, _store) = embedded(config(Path::new(&dir)));
    let shards = (0..SHARDS).map(|shard| {
        let log = log.clone();
        async move {
            let shard = ShardNo(shard);
            let generation = opened(&log, shard).await;
            let mut at = head(&log, shard, A).await.map_or(0, |h| h.head);
            loop {
                let texts: Vec<_> = (at + 1..=at + 3)
                    .map(|o| format!("{}/{o}", shard.0))
                    .collect();
                let texts: Vec<_> = texts.iter().map(String::as_str).collect();
                let appending = log.append(batch(shard, generation, A, at, &texts));
                support::soon(appending.unwrap()).await.unwrap();
                at += 3;
                let mut out = std::io::stdout().lock();
                writeln!(out, "acked {} {at}", shard.0).unwrap();
                out.flush().unwrap();
            }
        }
    });
    join_all(shards).await;
}

// A channel that was trimmed elsewhere is copied: it begins at what is kept, its producers' marks and numbers are as told, and what a
// producer stores next goes on from there. The log's check finds nothing wrong. Discarded, nothing is left but generations, which go on
// rising; whoever had the shard may append no more.
#[tokio::test]
async fn a_shard_is_copied_and_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = embedded(config(dir.path()));
    let generation = support::soon(log.open_above(S, [1; 16], 41))
        .await
        .unwrap()
        .generation;
    assert_eq!(generation, 42);
    let mut copy = AppendBatch::new(S, generation);
    let base = Base {
        head: 4,
        ..Base::default()
    };
    let slot = copy.channel(A, base);
    copy.skip_to_base(slot);
    for text in ["e", "f"] {
        copy.push_copy(slot, 9, |_, out| out.extend_from_slice(text.as_bytes()));
    }
    let mark = ProducerMark {
        epoch: 41 << 32 | 1,
        sequence: 6,
        offset: 6,
    };
    copy.mark(slot, mark);
    copy.set_about(slot, Bytes::from_static(b"about"));
    let told = Base {
        head: 6,
        bytes: 6,
        forgotten_epoch: 3,
        newest_ms: 8,
    };
    copy.settle_as(slot, told);
    support::soon(log.append(copy).unwrap()).await.unwrap();
    let found = head(&log, S, A).await.unwrap();
    assert_eq!((found.first, found.head, found.bytes), (5, 6, 6));
    assert_eq!((found.forgotten_epoch, found.newest_ms), (3, 8));
    assert_eq!(found.producers, [mark]);
    assert_eq!(
        read(&log, S, A, 0).await.unwrap(),
        [(5, "e".to_owned()), (6, "f".to_owned())]
    );
    let mut checked = None;
    let checking = store.view(&mut |view| {
        checked = Some(pqcnet_log::check::check(view, &mut |_, _, _, _| Ok(())));
        Ok(())
    });
    checking.unwrap();
    assert_eq!(checked.unwrap().findings, []);
    // A hole without word that it is one is refused as ever.
    let mut hole = AppendBatch::new(S, generation);
    let base = Base {
        head: 9,
        ..Base::default()
    };
    let slot = hole.channel(A, base);
    hole.push_copy(slot, 9, |_, _| {});
    let refused = log.append(hole).err().unwrap();
    assert!(
        matches!(
            refused,
            AppendError::NotNext {
                expected: 7,
                got: 10,
                ..
            }
        ),
        "{refused}"
    );

    let kept = log.append(batch(S, generation, B, 0, &["x"])).unwrap();
    support::soon(kept).await.unwrap();
    let other = ShardNo(S.0 + 1);
    let of_other = opened(&log, other).await;
    support::soon(log.append(batch(other, of_other, A, 0, &["y"])).unwrap())
        .await
        .unwrap();
    support::soon(log.discard(S)).await.unwrap();
    assert_eq!(support::soon(log.heads(S)).await.unwrap(), []);
    assert_eq!(read(&log, S, A, 0).await.unwrap(), []);
    assert_eq!(
        read(&log, other, A, 0).await.unwrap(),
        [(1, "y".to_owned())]
    );
    let late = log
        .append(batch(S, generation, B, 1, &["z"]))
        .err()
        .unwrap();
    assert!(matches!(late, AppendError::Fenced { .. }), "{late}");
    assert_eq!(opened(&log, S).await, 43);
}
