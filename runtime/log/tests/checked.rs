//! A log's store is held against itself, and a restored copy is set apart from its original.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use pqcnet_actor::Env;
use pqcnet_log::check::{Finding, LogChecked, Place, check};
use pqcnet_log::{ShardLog as _, ShardNo, keys, restored};
use pqcnet_store::{Batch, Checker, Family, RocksStore, Store as _};
use support::{A, B, batch, config, embedded, soon};

const S: ShardNo = ShardNo(3);

/// Six entries of A and two of B in shard 3, then one change made behind the log's back.
async fn log_with(change: impl FnOnce(&mut Batch)) -> LogChecked {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = embedded(config(dir.path()));
    let generation = log.open(S, [1; 16]).await.unwrap().generation;
    for (channel, texts) in [(A, &["a", "b", "c", "d", "e", "f"][..]), (B, &["x", "y"])] {
        let mut batch = batch(S, generation, channel, 0, texts);
        let slot = batch.channel(channel, Default::default());
        batch.set_about(slot, bytes::Bytes::from_static(b"about"));
        soon(log.append(batch).unwrap()).await.unwrap();
    }
    log.trim(S, A, 2).await.unwrap();
    let mut batch = Batch::new();
    change(&mut batch);
    soon(store.submit(batch).unwrap()).await.unwrap();
    drop((log, store));
    let config = config(dir.path());
    let checker = Checker::open(dir.path(), &config.schema).unwrap();
    assert_eq!(checker.damage, []);
    let mut refuse_z = |_: ShardNo, _: &_, offset: u64, bytes: &[u8]| match bytes {
        b"z" => Err(format!("{offset} is z")),
        _ => Ok(()),
    };
    checker.view(|view| check(view, &mut refuse_z)).unwrap()
}

fn place(channel: pqcnet_log::ChannelId) -> Place {
    let channel = Some(channel);
    Place { shard: S, channel }
}

// Nothing was changed: everything is counted and nothing found, a trimmed front included.
#[tokio::test]
async fn a_sound_log_has_no_findings() {
    let checked = log_with(|_| {}).await;
    assert_eq!(checked.findings, []);
    let counts = (
        checked.shards,
        checked.channels,
        checked.entries,
        checked.marks,
    );
    assert_eq!(counts, (1, 2, 6, 2));
    assert_eq!((checked.entry_bytes, checked.found), (6, 0));
}

// Each way in which a log can contradict itself is made once and named, and nothing else with it.
#[tokio::test]
async fn every_contradiction_is_named() {
    let entry = |offset| keys::numbered(S, &A, offset);
    let numbers =
        |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_be_bytes()).collect() };
    let a = keys::channel(S, &A);
    let mark = |why, sequence, offset| Finding::Mark {
        place: place(A),
        epoch: 1,
        sequence,
        offset,
        why,
    };
    let shape = |family: Family, what, key: &[u8]| Finding::Shape {
        family: family.0,
        what,
        key: key.to_vec(),
    };
    type Change = Box<dyn FnOnce(&mut Batch)>;
    let put = |family: Family, key: &[u8], value: &[u8]| -> Change {
        let (key, value) = (key.to_vec(), value.to_vec());
        Box::new(move |batch: &mut Batch| batch.put(family, &key, &value))
    };
    let cut = |family: Family, key: &[u8]| -> Change {
        let key = key.to_vec();
        Box::new(move |batch: &mut Batch| batch.delete(family, &key))
    };
    let no_head = |family: Family| Finding::NoHead {
        place: place(pqcnet_log::ChannelId([0xcc; 32])),
        family: family.0,
    };
    let c = keys::channel(S, &pqcnet_log::ChannelId([0xcc; 32]));
    let c1 = keys::numbered(S, &pqcnet_log::ChannelId([0xcc; 32]), 1);
    let (from, to, first, head) = (4, 4, 3, 6);
    let cases: Vec<(Change, Finding)> = vec![
        (
            cut(keys::ENTRY, &entry(4)),
            Finding::Missing {
                place: place(A),
                from,
                to,
            },
        ),
        (
            cut(keys::ENTRY, &entry(6)),
            Finding::Missing {
                place: place(A),
                from: 6,
                to: 6,
            },
        ),
        (
            put(keys::ENTRY, &entry(7), b""),
            Finding::Outside {
                place: place(A),
                offset: 7,
                first,
                head,
            },
        ),
        (
            put(keys::ENTRY, &entry(1), b""),
            Finding::Outside {
                place: place(A),
                offset: 1,
                first,
                head,
            },
        ),
        (
            put(keys::ENTRY, &entry(4), b"z"),
            Finding::Entry {
                place: place(A),
                offset: 4,
                why: "4 is z".to_owned(),
            },
        ),
        (
            put(keys::ABOUT, &a, b"z"),
            Finding::Entry {
                place: place(A),
                offset: 0,
                why: "0 is z".to_owned(),
            },
        ),
        (
            put(keys::ENTRY, &entry(4), &[0; 9]),
            Finding::Bytes {
                place: place(A),
                found: 12,
                told: 6,
            },
        ),
        (
            put(keys::FIRST, &a, &numbers(&[8])),
            Finding::FirstBeyondHead {
                place: place(A),
                first: 8,
                head,
            },
        ),
        (cut(keys::ABOUT, &a), Finding::NoAbout { place: place(A) }),
        (
            cut(keys::GENERATION, &keys::generation(S, 1)),
            Finding::NoGeneration {
                place: Place {
                    shard: S,
                    channel: None,
                },
            },
        ),
        (
            put(keys::GENERATION, &keys::generation(S, 2), &[1; 16]),
            Finding::SameSalt {
                place: Place {
                    shard: S,
                    channel: None,
                },
                older: 1,
                newer: 2,
            },
        ),
        (
            put(keys::MARK, &entry(1), &numbers(&[0, 1])),
            mark("it counts from 1", 0, 1),
        ),
        (
            put(keys::MARK, &entry(1), &numbers(&[6, 7])),
            mark("its offset is beyond the head", 6, 7),
        ),
        (
            put(keys::MARK, &entry(1), &numbers(&[6, 5])),
            mark("its sequence is beyond its offset", 6, 5),
        ),
        (
            put(keys::HEAD, &a, &numbers(&[6, 1, 6, 0])),
            mark("its epoch was forgotten", 6, 6),
        ),
        (
            put(
                keys::MARK,
                &keys::numbered(S, &A, 2 << 32),
                &numbers(&[1, 1]),
            ),
            Finding::Mark {
                place: place(A),
                epoch: 2 << 32,
                sequence: 1,
                offset: 1,
                why: "its generation was never stored",
            },
        ),
        (put(keys::ENTRY, &c1, b""), no_head(keys::ENTRY)),
        (put(keys::MARK, &c1, &numbers(&[1, 1])), no_head(keys::MARK)),
        (put(keys::FIRST, &c, &numbers(&[1])), no_head(keys::FIRST)),
        (put(keys::ABOUT, &c, b""), no_head(keys::ABOUT)),
        (
            put(keys::GENERATION, b"odd", &[9; 16]),
            shape(keys::GENERATION, "key", b"odd"),
        ),
        (
            put(keys::GENERATION, &keys::generation(S, 2), b"odd"),
            shape(keys::GENERATION, "value", &keys::generation(S, 2)),
        ),
        (
            put(keys::HEAD, b"odd", b""),
            shape(keys::HEAD, "key", b"odd"),
        ),
        (put(keys::HEAD, &c, b"odd"), shape(keys::HEAD, "value", &c)),
        (
            put(keys::FIRST, b"odd", b""),
            shape(keys::FIRST, "key", b"odd"),
        ),
        (
            put(keys::FIRST, &c, b"odd"),
            shape(keys::FIRST, "value", &c),
        ),
        (put(keys::ENTRY, &a, b""), shape(keys::ENTRY, "key", &a)),
        (put(keys::MARK, &a, b""), shape(keys::MARK, "key", &a)),
        (
            put(keys::MARK, &entry(1), b"odd"),
            shape(keys::MARK, "value", &entry(1)),
        ),
        (put(keys::ABOUT, &c1, b""), shape(keys::ABOUT, "key", &c1)),
    ];
    for (change, wanted) in cases {
        let found = log_with(change).await;
        let known_too = found.findings.iter().filter(|finding| {
            // Without its generation a shard's marks are of an unknown one; a front beyond the head leaves entries before it.
            !matches!(
                finding,
                Finding::Mark {
                    why: "its generation was never stored",
                    ..
                } | Finding::Outside { .. }
            ) || **finding == wanted
        });
        assert_eq!(known_too.collect::<Vec<_>>(), [&wanted]);
        assert!(!wanted.to_string().is_empty());
    }
}

// A copy goes on far ahead of its original, under salts that the original does not have; a second copy farther still.
#[expect(
    clippy::disallowed_methods,
    reason = "a command's own thread, without a runtime, and joined"
)]
#[tokio::test]
async fn a_restored_copy_is_set_ahead() {
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, store) = embedded(config(dir.path()));
    let original = log.open(S, [1; 16]).await.unwrap();
    soon(log.append(batch(S, 1, A, 0, &["a", "b"])).unwrap())
        .await
        .unwrap();
    let backup = place.path().join("backup");
    store.back_up(&backup).unwrap();
    // The original goes on: what it adds is not in the copy, nor is its next generation.
    soon(log.append(batch(S, 1, A, 2, &["c"])).unwrap())
        .await
        .unwrap();
    assert_eq!(log.open(S, [2; 16]).await.unwrap().generation, 2);
    let copy = place.path().join("copy");
    let schema = config(&copy).schema;
    pqcnet_store::backup::restore(&backup, &copy, &schema).unwrap();

    let ahead = std::thread::spawn({
        let copy = copy.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let env = runtime.block_on(async { Env::plain() });
            let store = RocksStore::open(&env, config(&copy)).unwrap();
            restored::set_ahead(&store, || [7; 16]).unwrap()
        }
    });
    let ahead = ahead.join().unwrap();
    assert_eq!(ahead.get(&S), Some(&(1 + restored::AHEAD)));
    let (copied, _store) = embedded(config(&copy));
    let opened = copied.open(S, [3; 16]).await.unwrap();
    assert_eq!(opened.generation, 2 + restored::AHEAD);
    assert_eq!(opened.salts[0], original.salts[0]);
    let fresh = opened.salts[1..].iter().map(|(_, salt)| salt[0]);
    assert_eq!(fresh.collect::<Vec<_>>(), [7, 3]);
    assert_eq!(support::read(&copied, S, A, 0).await.unwrap().len(), 2);
}
