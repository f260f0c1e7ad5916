//! The writer thread: takes what waits, writes it as one synced write, tells everyone.

use std::sync::atomic::Ordering::Relaxed;

use rocksdb::properties::BACKGROUND_ERRORS;
use rocksdb::{DB, WriteBatch, WriteOptions};

use crate::merging;
use crate::queue::Queued;
use crate::rocks::{Inner, Slot, WriterEnd, write_error};
use crate::{Op, WriteError};

/// Closes the queue however the writer ends, and says how, so that a panic in it leaves nobody waiting for ever.
struct CloseAtEnd<'a>(&'a Inner);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.queue.abandon();
        self.0.ended.send_replace(Some(if std::thread::panicking() {
            WriterEnd::Panicked
        } else {
            WriterEnd::Closed
        }));
    }
}

/// Runs until the queue is closed and empty.
pub(crate) fn run(inner: &Inner) {
    let _close = CloseAtEnd(inner);
    let mut sync = WriteOptions::default();
    sync.set_sync(true);
    let mut group = Vec::new();
    let mut broken = false;
    let mut written_since = 0;
    while inner.queue.take_group(|| inner.meters.now(), &mut group) {
        settle_unknown_families(inner, &mut group);
        if group.is_empty() {
            continue;
        }
        let began = inner.meters.now();
        let result = write(inner, &group, &sync, broken);
        inner.meters.wrote(began, &group, result.is_ok());
        match &result {
            Ok(Written { bytes, sound }) => {
                broken = !sound;
                inner.counters.groups.fetch_add(1, Relaxed);
                inner
                    .counters
                    .batches
                    .fetch_add(group.len() as u64, Relaxed);
                inner.counters.bytes.fetch_add(*bytes, Relaxed);
                written_since += *bytes;
            }
            Err(error) => {
                // A refusal for lack of room never reached the engine, which is then as good as before.
                broken |= !matches!(error, Failure::NoRoom(_));
                inner.counters.failures.fetch_add(1, Relaxed);
                tracing::warn!(path = %inner.config.path.display(), %error, "a synced write failed");
            }
        }
        let told = result.map(|_| ()).map_err(Failure::into_error);
        for queued in group.drain(..) {
            queued.settle.settle(told.clone());
        }
        if written_since >= merging::LOOK_AGAIN {
            written_since = 0;
            broken |= !keep_room(inner);
        }
    }
}

/// Goes over to merging by levels once a merge in tiers may not fit any more. False: the engine could not be brought back from that.
fn keep_room(inner: &Inner) -> bool {
    let short = match &*inner.slot.read() {
        Slot::Open(db) => inner.merging.is_short(db, &inner.config),
        Slot::ReadOnly(_) | Slot::Closed => false,
    };
    let moved = if short {
        inner.merge_by_levels()
    } else {
        Ok(())
    };
    if let Err(error) = &moved {
        tracing::warn!(path = %inner.config.path.display(), %error, "opening the store again failed");
    }
    moved.is_ok()
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Refused before the engine was asked.
    #[error("{0}")]
    NoRoom(WriteError),
    /// The engine failed, or could not be brought back.
    #[error("{0}")]
    Engine(WriteError),
}

impl Failure {
    fn into_error(self) -> WriteError {
        match self {
            Self::NoRoom(error) | Self::Engine(error) => error,
        }
    }
}

/// What a write came to.
struct Written {
    bytes: u64,
    /// The engine has met no error in what it does by itself. After one it leaves off, and is opened again before the next write.
    sound: bool,
}

/// One synced write.
fn write(
    inner: &Inner,
    group: &[Queued],
    sync: &WriteOptions,
    broken: bool,
) -> Result<Written, Failure> {
    check_space(inner).map_err(Failure::NoRoom)?;
    if broken {
        inner.reopen().map_err(Failure::Engine)?;
    }
    let slot = inner.slot.read();
    let (Slot::Open(db) | Slot::ReadOnly(db)) = &*slot else {
        return Err(Failure::Engine(WriteError::Closed));
    };
    let (batch, bytes) = merge(db, group).map_err(Failure::Engine)?;
    let written = db.write_opt(batch, sync);
    written.map_err(|e| Failure::Engine(write_error(e)))?;
    let errors = db.property_int_value(BACKGROUND_ERRORS);
    let sound = matches!(errors, Ok(Some(0)));
    Ok(Written { bytes, sound })
}

fn check_space(inner: &Inner) -> Result<(), WriteError> {
    let config = &inner.config;
    match (config.free_space)(&config.path) {
        Some(free) if free < config.reserve_bytes => Err(WriteError::Full {
            detail: format!(
                "{free} bytes free in {}, {} are kept in reserve",
                config.path.display(),
                config.reserve_bytes
            ),
        }),
        _ => Ok(()),
    }
}

fn merge(db: &DB, group: &[Queued]) -> Result<(WriteBatch, u64), WriteError> {
    let mut merged = WriteBatch::default();
    let mut bytes = 0;
    for queued in group {
        bytes += queued.batch.byte_len() as u64;
        for op in queued.batch.ops() {
            let (Op::Put { family, .. }
            | Op::Delete { family, .. }
            | Op::DeleteRange { family, .. }) = op;
            let handle = db
                .cf_handle(family.0)
                .ok_or(WriteError::UnknownFamily(family.0))?;
            match op {
                Op::Put { key, value, .. } => merged.put_cf(handle, key, value),
                Op::Delete { key, .. } => merged.delete_cf(handle, key),
                Op::DeleteRange { from, to, .. } => merged.delete_range_cf(handle, from, to),
            }
        }
    }
    Ok((merged, bytes))
}

/// One caller's bug must not fail the batches that happen to share its write.
fn settle_unknown_families(inner: &Inner, group: &mut Vec<Queued>) {
    let known = &inner.config.schema.families;
    let mut kept = Vec::with_capacity(group.len());
    for queued in group.drain(..) {
        match queued.batch.families().iter().find(|f| !known.contains(f)) {
            Some(unknown) => queued
                .settle
                .settle(Err(WriteError::UnknownFamily(unknown.0))),
            None => kept.push(queued),
        }
    }
    *group = kept;
}
