//! The store on a real RocksDB: durability, grouping, failure and damage.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_store::{
    Batch, Family, OpenError, ReadError, RocksStore, Scan, Schema, Store, StoreConfig, SubmitError,
    WriteError, commit_channel,
};

const A: Family = Family("a");
const B: Family = Family("b");
const ABSENT: Family = Family("absent");

fn config(path: &Path) -> StoreConfig {
    let schema = Schema {
        kind: "test",
        version: 1,
        families: vec![A, B],
    };
    let mut config = StoreConfig::new(path, schema);
    // The machine that runs the tests may be fuller than a relayer should be.
    config.reserve_bytes = 0;
    config
}

fn open(path: &Path) -> RocksStore {
    RocksStore::open(&Env::plain(), config(path)).unwrap()
}

fn put(family: Family, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(family, key, value);
    batch
}

async fn write(store: &dyn Store, batch: Batch) -> Result<(), WriteError> {
    store.submit(batch).unwrap().await
}

fn get(store: &dyn Store, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
    let mut found = None;
    store.view(&mut |view| {
        found = view.get(family, key)?;
        Ok(())
    })?;
    Ok(found)
}

fn scan(
    store: &dyn Store,
    family: Family,
    from: &[u8],
    to: &[u8],
) -> Result<Vec<String>, ReadError> {
    let mut keys = Vec::new();
    store.view(&mut |view| {
        view.scan(family, Scan { from, to }, &mut |key, _| {
            keys.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        })
    })?;
    Ok(keys)
}

/// The files of the database with this extension.
fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("db")).unwrap();
    let mut files: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|x| x == extension))
        .filter(|p| p.metadata().unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

// A view does not see what is written while it is held.
#[tokio::test]
async fn views_are_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, put(A, b"a", b"")).await.unwrap();
    let mut first = Vec::new();
    store
        .view(&mut |view| {
            let waiting = store.submit(put(A, b"b", b"")).unwrap();
            // Wait for the write inside the view: the snapshot was taken before.
            std::thread::scope(|s| s.spawn(|| waiting.wait()).join().unwrap()).unwrap();
            let range = Scan {
                from: b"",
                to: b"z",
            };
            view.scan(A, range, &mut |key, _| {
                first.push(key.to_vec());
                ControlFlow::Continue(())
            })
        })
        .unwrap();
    assert_eq!(first, [b"a"]);
    assert_eq!(scan(&store, A, b"", b"z").unwrap(), ["a", "b"]);
}

/// A probe that lets the writer pass only when told, so tests know what waits in the queue.
fn gate(config: &mut StoreConfig) -> (mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let (arrived_tx, arrived) = mpsc::sync_channel(64);
    let (pass, pass_rx) = mpsc::sync_channel(64);
    let pass_rx = Mutex::new(pass_rx);
    config.free_space = Arc::new(move |_| {
        arrived_tx.send(()).ok();
        // An error means that the test let go of the gate: it stands open.
        pass_rx.lock().recv().ok();
        None
    });
    (arrived, pass)
}

// One batch is being written; a hundred more arrive meanwhile: they share the next synced write.
#[tokio::test]
async fn waiting_batches_share_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let (arrived, pass) = gate(&mut config);
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    let first = store.submit(put(A, b"first", b"")).unwrap();
    arrived.recv().unwrap();
    let rest: Vec<_> = (0..100u8)
        .map(|i| store.submit(put(A, &[i], b"")).unwrap())
        .collect();
    drop(pass);
    first.await.unwrap();
    for commit in rest {
        commit.await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.groups, stats.batches), (2, 101));
}

// The queue holds two: the third comes back at once, whole, and is taken once there is room.
#[tokio::test]
async fn a_full_queue_hands_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.queue_batches = 2;
    let (arrived, pass) = gate(&mut config);
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    let first = store.submit(put(A, b"1", b"")).unwrap();
    arrived.recv().unwrap();
    let second = store.submit(put(A, b"2", b"")).unwrap();
    let third = store.submit(put(A, b"3", b"")).unwrap();
    let Err(SubmitError::Busy(back)) = store.submit(put(A, b"4", b"")) else {
        panic!("a third waits in a queue of two");
    };
    drop(pass);
    for commit in [first, second, third] {
        commit.await.unwrap();
    }
    write(&store, back).await.unwrap();
    assert_eq!(scan(&store, A, b"", b"z").unwrap(), ["1", "2", "3", "4"]);
}

// The disk runs short: writes are refused by type, reads go on, and writing resumes by itself when there is room.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(1000));
    let mut config = config(dir.path());
    config.reserve_bytes = 100;
    let probe = free.clone();
    config.free_space = Arc::new(move |_| Some(probe.load(SeqCst)));
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    write(&store, put(A, b"1", b"")).await.unwrap();
    free.store(99, SeqCst);
    let error = write(&store, put(A, b"2", b"")).await.unwrap_err();
    assert!(matches!(error, WriteError::Full { .. }), "{error}");
    assert_eq!(scan(&store, A, b"", b"z").unwrap(), ["1"]);
    free.store(100, SeqCst);
    write(&store, put(A, b"3", b"")).await.unwrap();
    assert_eq!(scan(&store, A, b"", b"z").unwrap(), ["1", "3"]);
    assert_eq!(store.stats().failures, 1);
}

/// Writes a MiB under each of these numbers, and what is there has every number below the last.
async fn grow(store: &RocksStore, numbers: std::ops::Range<u64>) {
    let end = numbers.end;
    for number in numbers {
        let mut batch = Batch::new();
        for part in 0..16_u64 {
            let key = (number * 16 + part).to_be_bytes();
            batch.put(A, &key, &[number as u8; 64 << 10]);
        }
        write(store, batch).await.unwrap();
    }
    holds(store, end * 16);
}

fn holds(store: &RocksStore, keys: u64) {
    let mut next = 0;
    let range = Scan {
        from: b"",
        to: &[0xff],
    };
    let read = store.view(&mut |view| {
        view.scan(A, range, &mut |key, value| {
            assert_eq!(key, u64::to_be_bytes(next));
            assert_eq!((value[0], value.len()), ((next / 16) as u8, 64 << 10));
            next += 1;
            ControlFlow::Continue(())
        })
    });
    read.unwrap();
    assert_eq!(next, keys);
}

// A family that grows is merged in tiers while the disk has room for the largest merge. Room goes: within 32 MiB the store goes over to merging by levels, and no
// write fails for it. Room comes: the next opening goes back. What a store without growing families wrote, as the former release had none,
// is read in both ways, and the other way about.
#[tokio::test]
async fn room_decides_how_files_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let opened = |growing: &[Family]| {
        let mut config = config(dir.path());
        config.tables_bytes = 1 << 20;
        config.growing = growing.to_vec();
        let probe = free.clone();
        config.free_space = Arc::new(move |_| Some(probe.load(SeqCst)));
        RocksStore::open(&Env::plain(), config).unwrap()
    };
    let store = opened(&[]);
    assert!(!store.merges_in_tiers());
    grow(&store, 0..10).await;
    drop(store);

    let store = opened(&[A]);
    assert!(store.merges_in_tiers());
    holds(&store, 160);
    grow(&store, 10..50).await;
    assert!(store.merges_in_tiers());
    free.store(1 << 20, SeqCst);
    grow(&store, 50..90).await;
    assert!(!store.merges_in_tiers());
    assert_eq!((store.stats().reopened, store.stats().failures), (1, 0));
    drop(store);

    let store = opened(&[A]);
    assert!(!store.merges_in_tiers());
    drop(store);
    free.store(u64::MAX, SeqCst);
    let store = opened(&[A]);
    assert!(store.merges_in_tiers());
    grow(&store, 90..92).await;
    drop(store);
    holds(&opened(&[]), 92 * 16);
}

// Files of a growing family do not pile up: sooner or later there are fewer than before, and all that was in them is read.
#[tokio::test]
async fn tiers_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.growing = vec![A];
    config.free_space = Arc::new(|_| Some(u64::MAX));
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    let (mut number, mut before) = (0, 0);
    loop {
        grow(&store, number..number + 1).await;
        number += 1;
        store.flush().unwrap();
        let now = files(dir.path(), "sst").len();
        if now < before {
            break;
        }
        before = now;
    }
    assert!(number > 18, "{number} files and merged already");
}

// A caller's unknown family fails its own batch and nobody else's; reading one is an error too.
#[tokio::test]
async fn an_unknown_family_is_the_callers_bug() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let (arrived, pass) = gate(&mut config);
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    let first = store.submit(put(A, b"1", b"")).unwrap();
    arrived.recv().unwrap();
    let good = store.submit(put(A, b"2", b"")).unwrap();
    let bad = store.submit(put(ABSENT, b"3", b"")).unwrap();
    drop(pass);
    first.await.unwrap();
    good.await.unwrap();
    assert_eq!(bad.await, Err(WriteError::UnknownFamily("absent")));
    assert_eq!(
        get(&store, ABSENT, b""),
        Err(ReadError::UnknownFamily("absent"))
    );
    assert_eq!(
        scan(&store, ABSENT, b"", b"z"),
        Err(ReadError::UnknownFamily("absent"))
    );
}

// A second opener is told who has the store; an implementor that drops its handle closes the commit.
#[tokio::test]
async fn one_process_holds_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = RocksStore::open(&Env::plain(), config(dir.path()));
    let Err(OpenError::Locked { holder, .. }) = second else {
        panic!("opened twice");
    };
    assert_eq!(holder, Some(std::process::id()));
    let (settle, commit) = commit_channel();
    drop(settle);
    assert_eq!(commit.await, Err(WriteError::Closed));
}

// A file lies where the database should be: RocksDB's own words come with the path.
#[tokio::test]
async fn the_engines_refusal_is_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db"), "").unwrap();
    let error = RocksStore::open(&Env::plain(), config(dir.path()))
        .err()
        .unwrap();
    assert!(matches!(error, OpenError::Engine { .. }), "{error}");
}

// One bit flips in the block of an SST that holds k0: reading it is refused as damage that names the file.
#[tokio::test]
async fn a_flipped_bit_in_an_sst_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, put(A, b"k0", &[7; 1000])).await.unwrap();
    store.flush().unwrap();
    drop(store);
    let sst = files(dir.path(), "sst");
    assert_eq!(sst.len(), 1);
    flip(&sst[0], 500);
    let store = open(dir.path());
    let error = get(&store, A, b"k0").unwrap_err();
    let ReadError::Corrupt {
        family: "a",
        detail,
    } = &error
    else {
        panic!("{error}");
    };
    assert!(detail.contains(".sst"), "{detail}");
    assert!(matches!(
        scan(&store, A, b"", b"z"),
        Err(ReadError::Corrupt { .. })
    ));
}

// The write-ahead log holds three synced batches. Its last bytes torn off: the first two are served. A bit flipped in
// the first: the store refuses to open rather than forget what it acknowledged.
#[tokio::test]
async fn the_write_ahead_log_is_torn_or_flipped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for key in ["1", "2", "3"] {
        write(&store, put(A, key.as_bytes(), &[7; 100]))
            .await
            .unwrap();
    }
    drop(store);
    let wal = files(dir.path(), "log").pop().unwrap();
    let whole = fs::read(&wal).unwrap();
    fs::write(&wal, &whole[..whole.len() - 20]).unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_store(dir.path(), copy.path());
    let store = open(copy.path());
    assert_eq!(scan(&store, A, b"", b"z").unwrap(), ["1", "2"]);
    drop(store);
    fs::write(&wal, &whole).unwrap();
    flip(&wal, 40);
    let error = RocksStore::open(&Env::plain(), config(dir.path()))
        .err()
        .unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

fn copy_store(from: &Path, to: &Path) {
    fs::create_dir(to.join("db")).unwrap();
    fs::copy(from.join("FORMAT"), to.join("FORMAT")).unwrap();
    for entry in fs::read_dir(from.join("db")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join("db").join(entry.file_name())).unwrap();
    }
}

const DIR: &str = "PQCNET_STORE_TEST_DIR";

/// This test binary again, running only `test`, as a process of its own.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command.env(DIR, dir);
    command
}

// A child writes synced batches and says so after each; it is killed in mid-flow. All it said is there, without a hole.
#[tokio::test]
async fn what_was_settled_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child("child_writes_until_killed", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut settled = 0u64;
    for line in lines.map_while(Result::ok) {
        if let Some(number) = line.strip_prefix("settled ") {
            settled = number.parse().unwrap();
        }
        if settled == 200 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(settled >= 200);
    let store = open(dir.path());
    let keys = scan(&store, A, b"", b"z").unwrap();
    assert!(keys.len() as u64 >= settled);
    let wanted: Vec<_> = (1..=keys.len()).map(|i| format!("{i:08}")).collect();
    assert_eq!(keys, wanted);
}

#[tokio::test]
#[ignore = "the child of what_was_settled_survives_kill_9"]
async fn child_writes_until_killed() {
    use std::io::Write as _;
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    for number in 1u64.. {
        let key = format!("{number:08}");
        write(&store, put(A, key.as_bytes(), &[0; 512]))
            .await
            .unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "settled {number}").unwrap();
        out.flush().unwrap();
    }
}

// A child meets its file-size limit in the middle of a write: the engine itself fails. Reads go on, the database is
// reopened once the limit is lifted, and everything acknowledged before and after is found by the parent.
#[tokio::test]
async fn a_write_that_fails_in_the_engine_heals() {
    let dir = tempfile::tempdir().unwrap();
    let binary = child("child_meets_its_limit", dir.path());
    // A shell ignores the signal that a limit would send; ignored signals stay so over exec.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    shell.arg(binary.get_program()).args(binary.get_args());
    let output = shell.env(DIR, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let settled = text
        .lines()
        .find_map(|l| l.strip_prefix("settled "))
        .unwrap();
    let store = open(dir.path());
    let keys = scan(&store, A, b"", b"z").unwrap();
    for key in settled.split(',') {
        assert!(
            keys.iter().any(|k| k == key),
            "{key} was acknowledged and is gone"
        );
    }
}

#[tokio::test]
#[ignore = "the child of a_write_that_fails_in_the_engine_heals"]
async fn child_meets_its_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use std::io::Write as _;
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 300 << 10, hard).unwrap();
    let mut settled = Vec::new();
    let mut number = 0;
    let error = loop {
        number += 1;
        let key = format!("{number:04}");
        match write(&store, put(A, key.as_bytes(), &[1; 32 << 10])).await {
            Ok(()) => settled.push(key),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::Full { .. }), "{error}");
    assert!(!settled.is_empty());
    // Still limited: another try fails too, and what was settled is served throughout.
    for _ in 0..2 {
        let again = write(&store, put(A, b"again", &[1; 400 << 10]))
            .await
            .unwrap_err();
        assert!(matches!(again, WriteError::Full { .. }), "{again}");
        for key in &settled {
            assert!(get(&store, A, key.as_bytes()).unwrap().is_some());
        }
    }
    // The folder is gone for a while, so nothing can be opened: writes and reads say so, and nothing empty is made.
    let (db, away) = (Path::new(&dir).join("db"), Path::new(&dir).join("away"));
    fs::rename(&db, &away).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert!(write(&store, put(A, b"lost", b"")).await.is_err());
    assert_eq!(get(&store, A, b"0001"), Err(ReadError::Closed));
    if db.exists() {
        fs::remove_dir_all(&db).unwrap();
    }
    fs::rename(&away, &db).unwrap();
    write(&store, put(A, b"after", b"")).await.unwrap();
    settled.push("after".to_owned());
    assert!(store.stats().reopened >= 1);
    for key in &settled {
        assert!(get(&store, A, key.as_bytes()).unwrap().is_some());
    }
    writeln!(std::io::stdout().lock(), "\nsettled {}", settled.join(",")).unwrap();
}

// The writer panics in its first group, with a second batch waiting: both are told that the store is closed, and so is
// whoever comes later. Nobody waits for ever. Reads go on.
#[tokio::test]
async fn a_panic_of_the_writer_closes_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (pass, passed) = mpsc::sync_channel::<()>(1);
    let passed = Mutex::new(passed);
    let mut config = config(dir.path());
    config.group_bytes = 1;
    config.free_space = Arc::new(move |_| {
        passed.lock().recv().unwrap();
        panic!("pulled");
    });
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    let first = store.submit(put(A, b"1", b"x")).unwrap();
    let second = store.submit(put(A, b"2", b"x")).unwrap();
    pass.send(()).unwrap();
    assert_eq!(first.await, Err(WriteError::Closed));
    assert_eq!(second.await, Err(WriteError::Closed));
    let late = store.submit(put(A, b"3", b"x"));
    assert!(matches!(late, Err(SubmitError::Closed(_))));
    assert_eq!(get(&store, A, b"1"), Ok(None));
}
