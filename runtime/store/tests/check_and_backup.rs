//! A store is looked through without being changed, copied while it is written, and put back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_store::backup::{self, BackupError, Manifest};
use pqcnet_store::{
    Batch, Checker, Family, OpenError, RocksStore, Schema, Store as _, StoreConfig, WriterEnd,
};

const A: Family = Family("a");
const B: Family = Family("b");

fn schema() -> Schema {
    Schema {
        kind: "test",
        version: 1,
        families: vec![A, B],
    }
}

fn open(path: &Path) -> RocksStore {
    let mut config = StoreConfig::new(path, schema());
    // The machine that runs the tests may be fuller than a relayer should be.
    config.reserve_bytes = 0;
    RocksStore::open(&Env::plain(), config).unwrap()
}

async fn put(store: &RocksStore, family: Family, keys: std::ops::Range<u32>) {
    let mut batch = Batch::new();
    for key in keys {
        batch.put(family, &key.to_be_bytes(), &[7; 1000]);
    }
    store.submit(batch).unwrap().await.unwrap();
}

/// Two tables a family, an overwritten one among them, and a log that holds more.
async fn filled(path: &Path) {
    let store = open(path);
    for round in 0..2 {
        put(&store, A, round * 100..round * 100 + 200).await;
        put(&store, B, round * 100..round * 100 + 100).await;
        store.flush().unwrap();
    }
    put(&store, A, 300..310).await;
}

fn files(path: &Path, is: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is(path.file_name().unwrap().to_str().unwrap()))
        .collect();
    found.sort();
    found
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Every file with its bytes.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = [path.to_owned(), path.join("db")];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn broken(path: &Path) -> Vec<PathBuf> {
    let checker = Checker::open(path, &schema()).unwrap();
    checker
        .damage
        .iter()
        .map(|damage| damage.file.clone())
        .collect()
}

// A sound store, torn log included: everything is counted, nothing found, not a byte of the folder changed. While it is
// open elsewhere it is not looked at; a folder that is no store is refused.
#[tokio::test]
async fn a_sound_store_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let before = contents(dir.path());
    let checker = Checker::open(dir.path(), &schema()).unwrap();
    assert_eq!(checker.damage, []);
    assert!(checker.is_open());
    assert_eq!(
        (checker.looked.tables.0, checker.looked.keys),
        (4, 200 + 200 + 200 + 10 - 100)
    );
    assert!(checker.looked.log_records > 0);
    drop(checker);
    assert_eq!(contents(dir.path()), before);
    let held = open(dir.path());
    let refused = Checker::open(dir.path(), &schema()).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::Locked {
                holder: Some(_),
                ..
            }
        ),
        "{refused}"
    );
    drop(held);
    let empty = tempfile::tempdir().unwrap();
    let refused = Checker::open(empty.path(), &schema()).err().unwrap();
    assert!(matches!(refused, OpenError::NotAStore { .. }), "{refused}");
}

// One byte flips in each table in turn, at three places: the table is named, and no other. Then in two tables at once:
// both are. A table that is gone or cut is named too.
#[tokio::test]
async fn a_broken_table_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let tables = files(dir.path(), |name| name.ends_with(".sst"));
    assert_eq!(tables.len(), 4);
    for table in &tables {
        let len = fs::metadata(table).unwrap().len() as usize;
        for at in [10, len / 2, len - 60] {
            flip(table, at);
            assert_eq!(
                broken(dir.path()),
                std::slice::from_ref(table),
                "byte {at} of {len}"
            );
            flip(table, at);
        }
        let whole = fs::read(table).unwrap();
        fs::write(table, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(broken(dir.path()), std::slice::from_ref(table), "cut");
        fs::remove_file(table).unwrap();
        assert_eq!(broken(dir.path()), std::slice::from_ref(table), "gone");
        fs::write(table, whole).unwrap();
    }
    flip(&tables[0], 10);
    flip(&tables[1], 10);
    assert_eq!(broken(dir.path()), [tables[0].clone(), tables[1].clone()]);
}

// One byte flips in the write-ahead log, then in the manifest: that file is named. A torn end is none of its business.
#[tokio::test]
async fn a_broken_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    for is in [
        |name: &str| name.ends_with(".log"),
        |name: &str| name.starts_with("MANIFEST"),
    ] {
        let file = files(dir.path(), is).pop().unwrap();
        flip(&file, 30);
        assert_eq!(broken(dir.path()), std::slice::from_ref(&file));
        flip(&file, 30);
    }
    let log = files(dir.path(), |name| name.ends_with(".log"))
        .pop()
        .unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 5]).unwrap();
    assert_eq!(broken(dir.path()), [] as [PathBuf; 0]);
}

// Copied while writing goes on, put back elsewhere: what was settled before is there, in a prefix of what was written.
#[expect(
    clippy::disallowed_methods,
    reason = "the copy is made beside the test's own writing, and joined"
)]
#[tokio::test]
async fn a_backup_is_consistent_while_writing_goes_on() {
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(open(dir.path()));
    put(&store, A, 0..50).await;
    let (to, copying) = (place.path().join("nested/backup"), store.clone());
    let copied = std::thread::spawn(move || copying.back_up(&to).map(|made| (to, made)));
    // Each batch writes to both families: a copy that holds one half of it is torn.
    let mut last = 50u32;
    while !copied.is_finished() || last < 60 {
        let mut batch = Batch::new();
        for family in [A, B] {
            batch.put(family, &last.to_be_bytes(), b"x");
        }
        store.submit(batch).unwrap().await.unwrap();
        last += 1;
    }
    let (backup, made) = copied.join().unwrap().unwrap();
    assert_eq!(Manifest::read(&backup).unwrap(), made);
    assert_eq!(broken(&backup), [] as [PathBuf; 0]);
    let restored = place.path().join("restored");
    assert_eq!(
        backup::restore(&backup, &restored, &schema()).unwrap(),
        made
    );
    let copy = open(&restored);
    let held = |family, key: u32| {
        let mut found = false;
        let get = copy.view(&mut |view| {
            found = view.get(family, &key.to_be_bytes())?.is_some();
            Ok(())
        });
        get.map(|()| found).unwrap()
    };
    assert!((0..50).all(|key| held(A, key)));
    let upto = (50..last).take_while(|key| held(A, *key)).count();
    for key in 50..last {
        let there = key < 50 + upto as u32;
        assert_eq!((held(A, key), held(B, key)), (there, there), "{key}");
    }
}

// Nothing is written over: neither by a backup nor by a restoration, not even into an empty folder that is there.
// A flipped, cut or missing file, a manifest of something else and no manifest at all are each refused by name, and leave
// nothing behind at the place that was to be restored to.
#[tokio::test]
async fn a_backup_that_is_not_whole_is_refused() {
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(dir.path()).await;
    let store = open(dir.path());
    let backup = place.path().join("backup");
    store.back_up(&backup).unwrap();
    let again = store.back_up(&backup).unwrap_err();
    assert!(matches!(again, BackupError::Exists(_)), "{again}");
    let there = place.path().join("there");
    fs::create_dir(&there).unwrap();
    let over = backup::restore(&backup, &there, &schema()).unwrap_err();
    assert!(matches!(over, BackupError::Exists(_)), "{over}");

    let to = place.path().join("to");
    let file = files(&backup, |name| name.ends_with(".sst")).pop().unwrap();
    // Tables are hard links to the store's: a copy stands in for the one that is spoilt.
    let whole = fs::read(&file).unwrap();
    let spoil = |bytes: Option<&[u8]>| {
        fs::remove_file(&file).ok();
        if let Some(bytes) = bytes {
            fs::write(&file, bytes).unwrap();
        }
        let refused = backup::restore(&backup, &to, &schema()).unwrap_err();
        assert!(!to.exists());
        match refused {
            BackupError::Damaged { file: named, why } => {
                assert_eq!(named, file);
                why
            }
            other => panic!("{other}"),
        }
    };
    let mut flipped = whole.clone();
    flipped[500] ^= 1;
    assert_eq!(spoil(Some(&flipped)), "its content differs");
    assert_eq!(spoil(Some(&whole[..500])), "its length differs");
    assert_eq!(spoil(None), "it is missing");
    fs::write(&file, &whole).unwrap();
    let other = Schema {
        kind: "other",
        ..schema()
    };
    let refused = backup::restore(&backup, &to, &other).unwrap_err();
    assert!(
        matches!(refused, BackupError::OtherStore { .. }),
        "{refused}"
    );
    backup::restore(&backup, &to, &schema()).unwrap();
    fs::write(backup.join("BACKUP"), "pqcnet-backup 1\n").unwrap();
    let last = place.path().join("last");
    let refused = backup::restore(&backup, &last, &schema()).unwrap_err();
    assert!(
        matches!(refused, BackupError::NotABackup { .. }),
        "{refused}"
    );
    fs::remove_file(backup.join("BACKUP")).unwrap();
    let refused = backup::restore(&backup, &last, &schema()).unwrap_err();
    assert!(
        matches!(refused, BackupError::NotABackup { .. }),
        "{refused}"
    );
    assert!(!last.exists());
}

// Whoever owns a store hears how its writer ended: closed in order, or by a panic.
#[tokio::test]
async fn the_writers_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ended = store.writer_ended();
    drop(store);
    assert_eq!(ended.await, WriterEnd::Closed);
    let mut config = StoreConfig::new(dir.path(), schema());
    config.free_space = Arc::new(|_| panic!("meant to"));
    let store = RocksStore::open(&Env::plain(), config).unwrap();
    let ended = store.writer_ended();
    let mut batch = Batch::new();
    batch.put(A, b"k", b"v");
    store.submit(batch).unwrap().await.unwrap_err();
    assert_eq!(ended.await, WriterEnd::Panicked);
    assert_eq!(store.writer_ended().await, WriterEnd::Panicked);
}
