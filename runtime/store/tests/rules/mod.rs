//! What every [`Store`] must do, written against the trait. RocksDB and the simulator's disk run every rule.
#![allow(dead_code, reason = "each test binary runs its rules")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_store::{Batch, Family, ReadError, Scan, Store, SubmitError, WriteError};

/// Families of the store under test.
pub const FAMILIES: [Family; 2] = [A, B];
/// A batch of more bytes is too large for the store under test.
pub const QUEUE_BYTES: usize = 1 << 20;
const A: Family = Family("a");
const B: Family = Family("b");
const ABSENT: Family = Family("absent");

/// Hands the name of every rule to a macro.
macro_rules! every_rule {
    ($with:ident) => {
        $with! {
            a_batch_is_durable,
            scans_end_where_they_are_told,
            an_unknown_family_is_the_callers_bug,
            batches_settle_in_order,
            dropping_writes_what_is_queued,
            who_may_wait_waits_no_longer_than_that,
            too_large_comes_back,
        }
    };
}

/// An implementation under test, with [`FAMILIES`] and a queue of [`QUEUE_BYTES`].
pub trait Fixture {
    /// A fresh, empty store.
    fn fresh() -> Self;
    /// The store.
    fn store(&self) -> Arc<dyn Store>;
    /// The same after it was closed and opened again.
    fn reopened(self) -> Self;
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

/// The first so many keys of a range.
fn keys(store: &dyn Store, from: &[u8], to: &[u8], most: usize) -> Vec<String> {
    let mut keys = Vec::new();
    store
        .view(&mut |view| {
            view.scan(A, Scan { from, to }, &mut |key, _| {
                keys.push(String::from_utf8_lossy(key).into_owned());
                match keys.len() == most {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
        })
        .unwrap();
    keys
}

// Puts, deletes and a range in one batch over two families; all of it is there after closing and opening again.
pub async fn a_batch_is_durable(fixture: impl Fixture) {
    let store = fixture.store();
    for key in ["k1", "k2", "k3", "k4"] {
        write(&*store, put(A, key.as_bytes(), b"old"))
            .await
            .unwrap();
    }
    let mut batch = Batch::new();
    batch.put(B, b"x", b"1");
    batch.delete(A, b"k1");
    batch.delete(A, b"never");
    batch.delete_range(A, b"k2", b"k4");
    batch.put(A, b"k4", b"new");
    write(&*store, batch).await.unwrap();
    drop(store);
    let fixture = fixture.reopened();
    let store = fixture.store();
    assert_eq!(keys(&*store, b"", b"z", 9), ["k4"]);
    assert_eq!(get(&*store, A, b"k4"), Ok(Some(b"new".to_vec())));
    assert_eq!(get(&*store, B, b"x"), Ok(Some(b"1".to_vec())));
    assert_eq!(get(&*store, B, b"y"), Ok(None));
}

// Four keys: a range has its first and not its last, an empty range nothing, and the visitor may end it sooner. What is
// submitted inside a view is not in it.
pub async fn scans_end_where_they_are_told(fixture: impl Fixture) {
    let store = fixture.store();
    for key in ["a", "b", "c", "d"] {
        write(&*store, put(A, key.as_bytes(), b"")).await.unwrap();
    }
    assert_eq!(keys(&*store, b"b", b"d", 9), ["b", "c"]);
    assert_eq!(keys(&*store, b"b", b"z", 2), ["b", "c"]);
    assert_eq!(keys(&*store, b"b", b"b", 9), [""; 0]);
    let mut commit = None;
    let mut seen = 0;
    store
        .view(&mut |view| {
            commit = Some(store.submit(put(A, b"bb", b"")).unwrap());
            let range = Scan {
                from: b"b",
                to: b"c",
            };
            view.scan(A, range, &mut |_, _| {
                seen += 1;
                ControlFlow::Continue(())
            })
        })
        .unwrap();
    assert_eq!(seen, 1);
    commit.unwrap().await.unwrap();
    assert_eq!(keys(&*store, b"b", b"c", 9), ["b", "bb"]);
}

// A caller's unknown family fails its own batch and nobody else's; reading one is an error too.
pub async fn an_unknown_family_is_the_callers_bug(fixture: impl Fixture) {
    let store = fixture.store();
    let submit = |family, key: &[u8]| store.submit(put(family, key, b"")).unwrap();
    let (first, bad, last) = (submit(A, b"1"), submit(ABSENT, b"2"), submit(A, b"3"));
    assert_eq!(first.await, Ok(()));
    assert_eq!(bad.await, Err(WriteError::UnknownFamily("absent")));
    assert_eq!(last.await, Ok(()));
    assert_eq!(keys(&*store, b"", b"z", 9), ["1", "3"]);
    assert_eq!(
        get(&*store, ABSENT, b""),
        Err(ReadError::UnknownFamily("absent"))
    );
}

// A hundred batches, each over the same key and one of its own; when the last has settled, so have all before it.
pub async fn batches_settle_in_order(fixture: impl Fixture) {
    let store = fixture.store();
    let mut last = None;
    for number in 0..100u8 {
        let mut batch = put(A, b"same", &[number]);
        batch.put(A, &[b'x', number], b"");
        last = Some(store.submit(batch).unwrap());
    }
    last.unwrap().await.unwrap();
    assert_eq!(get(&*store, A, b"same"), Ok(Some(vec![99])));
    assert_eq!(keys(&*store, b"x", b"y", 1000).len(), 100);
}

// Nobody waits for the batch, and the store is closed at once: it is there when opened again.
pub async fn dropping_writes_what_is_queued(fixture: impl Fixture) {
    let store = fixture.store();
    drop(store.submit(put(A, b"k", b"v")).unwrap());
    drop(store);
    let fixture = fixture.reopened();
    let store = fixture.store();
    assert_eq!(get(&*store, A, b"k"), Ok(Some(b"v".to_vec())));
}

// One that may wait an hour is durable with the next that does not wait, and before it: it changed the same key. One that may wait a
// millisecond is durable though nobody else comes, and one that may wait an hour when the store is closed.
pub async fn who_may_wait_waits_no_longer_than_that(fixture: impl Fixture) {
    let hour = Duration::from_secs(3600);
    let waits = |value: &[u8], patience| {
        let mut batch = put(A, b"same", value);
        batch.may_wait(patience);
        batch
    };
    let store = fixture.store();
    let first = store.submit(waits(b"1", hour)).unwrap();
    write(&*store, put(A, b"same", b"2")).await.unwrap();
    first.await.unwrap();
    assert_eq!(get(&*store, A, b"same"), Ok(Some(b"2".to_vec())));
    write(&*store, waits(b"3", Duration::from_millis(1)))
        .await
        .unwrap();
    assert_eq!(get(&*store, A, b"same"), Ok(Some(b"3".to_vec())));
    drop(store.submit(waits(b"4", hour)).unwrap());
    drop(store);
    let fixture = fixture.reopened();
    assert_eq!(get(&*fixture.store(), A, b"same"), Ok(Some(b"4".to_vec())));
}

// A batch above the queue's bytes comes back whole.
pub async fn too_large_comes_back(fixture: impl Fixture) {
    let store = fixture.store();
    let huge = vec![0; QUEUE_BYTES + 1];
    let Err(SubmitError::TooLarge(back)) = store.submit(put(A, b"", &huge)) else {
        panic!("it was taken");
    };
    assert_eq!(back.byte_len(), QUEUE_BYTES + 1);
}
