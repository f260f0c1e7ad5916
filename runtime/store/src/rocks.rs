//! RocksDB as a [`Store`].

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use pqcnet_actor::{DedicatedThread, Env};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, DB, ErrorKind, ReadOptions, SnapshotWithThreadMode};

use crate::backup::{self, BackupError, Manifest};
use crate::folder::{Folder, io};
use crate::merging::{self, Merging};
use crate::meters::Meters;
use crate::opening::{open_db, open_read_only, room_to_open};
use crate::queue::{Limits, Queue};
use crate::space::{FreeSpace, free_space_of};
use crate::{
    Batch, Commit, Family, OpenError, ReadError, Scan, Span, Store, SubmitError, View, Visit,
    WriteError, writer,
};
use pqcnet_actor::latest;

/// What a store holds. A change of `families` or of any key or value layout raises `version`.
#[derive(Debug, Clone)]
pub struct Schema {
    /// One word, stamped into the folder: a relayer's log is not opened as a ledger.
    pub kind: &'static str,
    /// Disk format. Older ones are converted or refused, newer ones refused.
    pub version: u32,
    /// Every family.
    pub families: Vec<Family>,
}

/// Where and how.
#[derive(Clone)]
pub struct StoreConfig {
    /// The store's folder; created when absent.
    pub path: PathBuf,
    /// What it holds.
    pub schema: Schema,
    /// Batches that may wait for the writer.
    pub queue_batches: usize,
    /// Bytes that may wait for the writer.
    pub queue_bytes: usize,
    /// Bytes of batches that share one synced write.
    pub group_bytes: usize,
    /// Writes are refused as [`WriteError::Full`] below this many free bytes. It leaves room to flush what is in memory,
    /// so a full disk never catches the engine halfway.
    pub reserve_bytes: u64,
    /// Asked before each write.
    pub free_space: FreeSpace,
    /// The most that memory tables hold. The engine sets aside as much of the disk for its log, and half as much memory for blocks
    /// that were read.
    pub tables_bytes: usize,
    /// Families in which nothing is replaced and hardly anything removed. Their files are merged in tiers while there is room for it, each
    /// byte a few times in a store's life; [ADR 0028](../../../docs/adr/0028-merging-in-tiers.md).
    pub growing: Vec<Family>,
}

/// What memory tables of all families hold together, unless a store's owner says otherwise.
pub(crate) const TABLES_BYTES: usize = 64 << 20;

impl StoreConfig {
    /// Defaults for a relayer: a queue of 64 MiB, groups of 4 MiB, 128 MiB kept free.
    pub fn new(path: impl Into<PathBuf>, schema: Schema) -> Self {
        Self {
            path: path.into(),
            schema,
            queue_batches: 4096,
            queue_bytes: 64 << 20,
            // Past 4 MiB the cost of the sync itself is noise, while the first batch of the group waits for the last.
            group_bytes: 4 << 20,
            reserve_bytes: 2 * TABLES_BYTES as u64,
            free_space: Arc::new(free_space_of),
            tables_bytes: TABLES_BYTES,
            growing: Vec::new(),
        }
    }
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Synced writes.
    pub groups: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes of keys and values in them.
    pub bytes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Times the database was opened again: after a failure, or to merge in another way.
    pub reopened: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub groups: AtomicU64,
    pub batches: AtomicU64,
    pub bytes: AtomicU64,
    pub failures: AtomicU64,
    pub reopened: AtomicU64,
}

/// How a store's writer thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterEnd {
    /// The store was closed.
    Closed,
    /// It panicked: a bug. Nothing can be written before the store is opened anew.
    Panicked,
}

/// The database, or why there is none.
pub(crate) enum Slot {
    Open(DB),
    /// Reopening for writes failed; reads go on.
    ReadOnly(DB),
    Closed,
}

pub(crate) struct Inner {
    pub queue: Queue,
    pub merging: Merging,
    pub ended: latest::Sender<Option<WriterEnd>>,
    pub counters: Counters,
    pub meters: Meters,
    pub config: StoreConfig,
    pub slot: RwLock<Slot>,
    // After `slot`: the database closes before the folder is let go.
    folder: Folder,
}

/// A folder with a RocksDB database and its writer thread. Dropping it writes what is queued, then closes.
pub struct RocksStore {
    inner: Arc<Inner>,
    writer: Option<DedicatedThread>,
    /// What gives room back, one at a time.
    giver: Mutex<Option<DedicatedThread>>,
    env: Env,
}

impl RocksStore {
    /// Opens or creates the store and starts its writer thread.
    pub fn open(env: &Env, config: StoreConfig) -> Result<Self, OpenError> {
        let folder = Folder::open(&config.path, config.schema.kind, config.schema.version)?;
        if let Err((needed, detail)) = room_to_open(&folder.db) {
            let path = config.path;
            return Err(OpenError::NoRoom {
                path,
                needed,
                detail,
            });
        }
        merging::lower_threads(env);
        let merging = Merging::default();
        let db = open_db(&folder.db, &config, &merging, true)?;
        let inner = Arc::new(Inner {
            merging,
            queue: Queue::new(Limits {
                batches: config.queue_batches,
                bytes: config.queue_bytes,
                group_bytes: config.group_bytes,
            }),
            ended: latest::channel(None).0,
            counters: Counters::default(),
            meters: Meters::new(env),
            slot: RwLock::new(Slot::Open(db)),
            config,
            folder,
        });
        let (for_writer, path) = (inner.clone(), inner.config.path.clone());
        let writer_name = format!("{}-writer", inner.config.schema.kind);
        let writer = env
            .dedicated_thread(&writer_name, move || writer::run(&for_writer))
            .map_err(io("starting the writer of", &path))?;
        Ok(Self {
            inner,
            writer: Some(writer),
            giver: Mutex::new(None),
            env: env.clone(),
        })
    }

    /// Whether this opening made it: nothing was ever stored in it before.
    pub fn is_new(&self) -> bool {
        self.inner.folder.new
    }

    /// Counts so far.
    pub fn stats(&self) -> StoreStats {
        let c = &self.inner.counters;
        StoreStats {
            groups: c.groups.load(Relaxed),
            batches: c.batches.load(Relaxed),
            bytes: c.bytes.load(Relaxed),
            failures: c.failures.load(Relaxed),
            reopened: c.reopened.load(Relaxed),
        }
    }

    /// Resolves when the writer thread has ended: from then on nothing is written any more. It keeps no store open.
    pub fn writer_ended(&self) -> impl Future<Output = WriterEnd> + Send + 'static {
        let mut ended = self.inner.ended.subscribe();
        async move {
            let told = ended.wait_for(Option::is_some).await;
            // Gone without a word: the store was dropped.
            told.ok().and_then(|end| *end).unwrap_or(WriterEnd::Closed)
        }
    }

    /// Bytes free where the store lies, as its writer sees it; `None` when unknown.
    pub fn free_bytes(&self) -> Option<u64> {
        (self.inner.config.free_space)(&self.inner.config.path)
    }

    /// Copies what is settled, consistently, into a new folder while writing goes on; see [`crate::backup`]. Blocks.
    pub fn back_up(&self, to: &Path) -> Result<Manifest, BackupError> {
        let schema = &self.inner.config.schema;
        backup::make(to, schema, |db| match &*self.inner.slot.read() {
            Slot::Open(open) => checkpoint(open, db),
            Slot::ReadOnly(_) | Slot::Closed => Err("the store cannot be written now".to_owned()),
        })
    }

    /// Whether the growing families are merged in tiers now: there is room for it.
    pub fn merges_in_tiers(&self) -> bool {
        self.inner.merging.in_tiers()
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        &self.inner.config.path
    }

    /// Moves what is in memory tables to SST files: for tests and checks that look at those.
    pub fn flush(&self) -> Result<(), WriteError> {
        match &*self.inner.slot.read() {
            Slot::Open(db) => self.inner.config.schema.families.iter().try_for_each(|f| {
                let family = db.cf_handle(f.0).ok_or(WriteError::UnknownFamily(f.0))?;
                db.flush_cf(family).map_err(write_error)
            }),
            Slot::ReadOnly(_) | Slot::Closed => Err(WriteError::Closed),
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        self.inner.queue.close();
        if let Some(writer) = self.writer.take()
            && !writer.join()
        {
            tracing::error!(path = %self.path().display(), "the store's writer panicked");
        }
        if let Some(giver) = self.giver.get_mut().take() {
            if let Slot::Open(db) = &*self.inner.slot.read() {
                // Compactions end where they are; nothing is lost by that.
                db.cancel_all_background_work(false);
            }
            if !giver.join() {
                tracing::error!(path = %self.path().display(), "giving room back panicked");
            }
        }
    }
}

impl Store for RocksStore {
    fn submit(&self, batch: Batch) -> Result<Commit, SubmitError> {
        self.inner.queue.push(self.env.now(), batch)
    }

    fn view(
        &self,
        read: &mut dyn FnMut(&dyn View) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        match &*self.inner.slot.read() {
            Slot::Open(db) | Slot::ReadOnly(db) => read(&RocksView::of(db)),
            Slot::Closed => Err(ReadError::Closed),
        }
    }

    /// Tables that lie within what is emptied go at once; of the rest, what is emptied goes as the range is compacted, on a thread of its
    /// own. What comes while that is under way is left to the next time.
    fn give_back(&self, family: Family, (emptied, bytes): (&[Span], u64), all: Span) {
        let mut giver = self.giver.lock();
        if giver.as_ref().is_some_and(|giver| !giver.is_finished()) {
            return;
        }
        let (inner, emptied) = (self.inner.clone(), emptied.to_vec());
        let began = self.env.dedicated_thread("store-giver", move || {
            inner.give_back(family, (&emptied, bytes), &all);
        });
        match began {
            Ok(began) => *giver = Some(began),
            Err(error) => tracing::warn!(%error, "no thread to give room back"),
        }
    }
}

/// A checkpoint holds everything settled so far: tables by hard link where it can, logs by copy.
fn checkpoint(db: &DB, to: &Path) -> Result<(), String> {
    let made = Checkpoint::new(db).and_then(|checkpoint| checkpoint.create_checkpoint(to));
    made.map_err(rocksdb::Error::into_string)
}

pub(crate) struct RocksView<'a> {
    db: &'a DB,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl<'a> RocksView<'a> {
    pub(crate) fn of(db: &'a DB) -> Self {
        let snapshot = db.snapshot();
        Self { db, snapshot }
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, ReadError> {
        let handle = self.db.cf_handle(family.0);
        handle.ok_or(ReadError::UnknownFamily(family.0))
    }
}

impl View for RocksView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let handle = self.family(family)?;
        let found = self.snapshot.get_cf(handle, key);
        found.map_err(|e| read_error(family, e))
    }

    fn scan(
        &self,
        family: Family,
        range: Scan<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        let handle = self.family(family)?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.to);
        let mut cursor = self.snapshot.raw_iterator_cf_opt(handle, options);
        cursor.seek(range.from);
        while let Some((key, value)) = cursor.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            cursor.next();
        }
        cursor.status().map_err(|e| read_error(family, e))
    }
}

impl Inner {
    fn give_back(&self, family: Family, emptied: (&[Span], u64), all: &Span) {
        if let Slot::Open(db) = &*self.slot.read()
            && let Some(handle) = db.cf_handle(family.0)
        {
            let growing = self.config.growing.contains(&family);
            self.merging.give_back((db, handle), growing, emptied, all);
        }
    }

    /// A merge of all there is may not fit on the disk any more: from here on by levels, if there is room to open the database again.
    pub(crate) fn merge_by_levels(&self) -> Result<(), WriteError> {
        match room_to_open(&self.folder.db) {
            Ok(()) => {
                if let Slot::Open(db) = &*self.slot.read() {
                    // Whoever gives room back would keep it from being closed.
                    db.cancel_all_background_work(false);
                }
                self.reopen()
            }
            Err(_) => Ok(()),
        }
    }

    /// Closes the database and opens it again, for reading only when writing is not possible. Without room for that it stays as it is:
    /// all that was ever settled is read from it.
    pub(crate) fn reopen(&self) -> Result<(), WriteError> {
        if let Err((needed, detail)) = room_to_open(&self.folder.db) {
            let detail = format!("{detail}; opening the database again needs {needed} bytes");
            return Err(WriteError::Full { detail });
        }
        let mut slot = self.slot.write();
        *slot = Slot::Closed;
        // It was there, so it is never made anew: an empty one in its place would be a silent loss.
        match open_db(&self.folder.db, &self.config, &self.merging, false) {
            Ok(db) => {
                *slot = Slot::Open(db);
                self.counters.reopened.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                if let Ok(db) = open_read_only(&self.folder.db, &self.config) {
                    *slot = Slot::ReadOnly(db);
                }
                Err(match error {
                    OpenError::Corrupt { detail, .. } => WriteError::Corrupt { detail },
                    OpenError::Engine { detail, .. } => typed(&detail),
                    other => WriteError::Io {
                        detail: other.to_string(),
                    },
                })
            }
        }
    }
}

pub(crate) fn write_error(error: rocksdb::Error) -> WriteError {
    typed(&error.into_string())
}

/// RocksDB's C interface hands over only the status' text, so the text is what there is to go by.
fn typed(detail: &str) -> WriteError {
    // The system's words for ENOSPC, EDQUOT and EFBIG: a full disk, a full quota, a full file-size limit.
    const NO_ROOM: [&str; 3] = ["No space left", "quota exceeded", "File too large"];
    let detail = detail.to_owned();
    if NO_ROOM.iter().any(|words| detail.contains(words)) {
        WriteError::Full { detail }
    } else if detail.starts_with("Corruption") {
        WriteError::Corrupt { detail }
    } else {
        WriteError::Io { detail }
    }
}

fn read_error(family: Family, error: rocksdb::Error) -> ReadError {
    let family = family.0;
    match error.kind() {
        ErrorKind::Corruption => ReadError::Corrupt {
            family,
            detail: error.into_string(),
        },
        _ => ReadError::Io {
            family,
            detail: error.into_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The texts RocksDB 7.8 gives for each kind of trouble, and what callers are told.
    #[test]
    fn engine_texts_map_to_types() {
        let full = "IO error: No space left on device: While appending to file: /x/db/000004.log";
        assert!(matches!(typed(full), WriteError::Full { .. }));
        let limit = "IO error: File too large: While appending to file: /x/db/000004.log";
        assert!(matches!(typed(limit), WriteError::Full { .. }));
        let io = "IO error: Input/output error: While fdatasync: /x/db/000004.log";
        assert!(matches!(typed(io), WriteError::Io { .. }));
        let corrupt = "Corruption: block checksum mismatch: stored = 1, computed = 2";
        assert!(matches!(typed(corrupt), WriteError::Corrupt { .. }));
    }
}
