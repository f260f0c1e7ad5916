//! Opening a store's database: with what options, which families, and only where there is room for it.

use std::fs;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBPath,
    DBRecoveryMode, ErrorKind, LogLevel, Options,
};

use crate::OpenError;
use crate::folder::DB_FOLDER;
use crate::merging::{self, Merging, UNMERGED};
use crate::rocks::{Schema, StoreConfig, TABLES_BYTES};
use crate::space::free_space_of;

/// A table goes to the disk in pieces of so many bytes.
const TABLE_PIECE: u64 = 128 << 10;

pub(crate) fn open_db(
    path: &Path,
    config: &StoreConfig,
    merging: &Merging,
    create: bool,
) -> Result<DB, OpenError> {
    let (mut options, family) = options(config.tables_bytes);
    options.create_if_missing(create);
    // Twice the same folder, and never the second: with more than one the engine leaves off resuming by itself after a full disk, which
    // would write the rest of a log record behind the part of it that was written. Here a database that failed is opened again.
    let all = || DBPath::new(path, u64::MAX);
    if let (Ok(first), Ok(second)) = (all(), all()) {
        options.set_db_paths(&[first, second]);
    }
    let families = families_of(path, &config.schema).into_iter();
    let in_tiers = merging.choose(path, config);
    let families = families.map(|name| {
        let mut family = family.clone();
        if in_tiers && config.growing.iter().any(|growing| growing.0 == name) {
            merging::in_tiers(&mut family);
        }
        ColumnFamilyDescriptor::new(name, family)
    });
    DB::open_cf_descriptors(&options, path, families).map_err(|e| open_error(config, e))
}

/// What opening writes beside what is in the engine's log: lists of files, options, its account of them, and set-aside blocks of each.
const OPENING: u64 = 16 << 20;

/// Whether the disk has what opening may write: the records of the engine's log once more, as tables, and [`OPENING`]. If not, how much that
/// is and what the system says. It is tried and not asked, since quotas do not show in a file system's free blocks.
pub(crate) fn room_to_open(db: &Path) -> Result<(), (u64, String)> {
    let mut needed = OPENING;
    for entry in fs::read_dir(db).into_iter().flatten().flatten() {
        let is_log = entry.path().extension().is_some_and(|end| end == "log");
        if let (true, Ok(found)) = (is_log, entry.metadata()) {
            needed += found.len();
        }
    }
    let folder = db.parent().unwrap_or(db);
    // Without a name, so it is gone with the handle.
    let tried = tempfile::tempfile_in(folder).and_then(|file| {
        let len = i64::try_from(needed).unwrap_or(i64::MAX);
        fallocate(&file, FallocateFlags::empty(), 0, len).map_err(Into::into)
    });
    match tried {
        Ok(()) => Ok(()),
        Err(error) if no_room(&error) => Err((needed, error.to_string())),
        // A file system that sets nothing aside is asked.
        Err(_) => match free_space_of(folder) {
            Some(free) if free < needed => Err((needed, format!("{free} bytes are free"))),
            Some(_) | None => Ok(()),
        },
    }
}

fn no_room(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

pub(crate) fn open_read_only(path: &Path, config: &StoreConfig) -> Result<DB, OpenError> {
    let (options, family) = options(config.tables_bytes);
    let families = families_of(path, &config.schema).into_iter();
    let families = families.map(|name| (name, family.clone()));
    DB::open_cf_with_opts_for_read_only(&options, path, families, false)
        .map_err(|e| open_error(config, e))
}

/// Opens for reading and writes nothing, not even the engine's own log, into the folder. The error is the engine's words.
pub(crate) fn open_to_check(path: &Path, schema: &Schema) -> Result<DB, String> {
    let aside = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (mut options, mut family) = options(TABLES_BYTES);
    options.create_missing_column_families(false);
    options.set_db_log_dir(aside.path());
    // Every version of a key is stepped over, none jumped: what is behind it is read too.
    family.set_max_sequential_skip_in_iterations(u64::MAX);
    let db = path.join(DB_FOLDER);
    let families = families_of(&db, schema).into_iter();
    let families = families.map(|name| (name, family.clone()));
    DB::open_cf_with_opts_for_read_only(&options, db, families, false)
        .map_err(rocksdb::Error::into_string)
}

/// The families of the schema, and those that are there beside them: the engine opens all or nothing, and what an option of the node
/// once needed stays.
fn families_of(db: &Path, schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = schema.families.iter().map(|f| f.0.to_owned()).collect();
    // There is none before the first opening, and whatever else is wrong the opening says.
    for name in DB::list_cf(&Options::default(), db).unwrap_or_default() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Options of the database and of each of its families.
fn options(tables_bytes: usize) -> (Options, Options) {
    let mut db = Options::default();
    db.create_missing_column_families(true);
    // A torn last record is what a power cut leaves of an unsynced write. Damage anywhere else means that something
    // acknowledged is gone, and must stop the start instead of being skipped.
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    db.set_paranoid_checks(true);
    db.set_max_background_jobs(merging::JOBS);
    db.set_max_open_files(512);
    // Memory tables of all families together, and the log that must be replayed after a crash (about a second).
    db.set_db_write_buffer_size(tables_bytes);
    db.set_max_total_wal_size(2 * tables_bytes as u64);
    // Spreads write-back, so a sync never waits for a whole memory table that the kernel held back, nor for much of one: the engine writes a
    // table, and has it written back, a buffer at a time, and a MiB at once is as long as several syncs.
    db.set_bytes_per_sync(TABLE_PIECE);
    db.set_writable_file_max_buffer_size(TABLE_PIECE);
    db.set_wal_bytes_per_sync(1 << 20);
    // The engine's own log, which takes no line any more once it could not be written: an assertion ends the process at the next. So only
    // opening writes to it, with room ([`room_to_open`]); what happens later comes with each operation's error.
    db.set_log_level(LogLevel::Header);
    db.set_keep_log_file_num(2);
    let mut family = Options::default();
    family.set_write_buffer_size(tables_bytes / 2);
    // What is stored comes at the end of its channel and is hardly ever replaced, so merging early buys readers little, and
    // every merge writes again what it takes in: figures in docs/performance.md.
    family.set_level_zero_file_num_compaction_trigger(UNMERGED.0);
    family.set_level_zero_slowdown_writes_trigger(UNMERGED.1);
    family.set_level_zero_stop_writes_trigger(UNMERGED.2);
    family.set_max_bytes_for_level_base(16 * tables_bytes as u64);
    // Nearly everything stored is sealed, and sealed bytes do not compress.
    family.set_compression_type(DBCompressionType::None);
    let mut table = BlockBasedOptions::default();
    if let Ok(cache) = Cache::new_lru_cache(tables_bytes / 2) {
        table.set_block_cache(&cache);
    }
    table.set_block_size(16 << 10);
    family.set_block_based_table_factory(&table);
    (db, family)
}

fn open_error(config: &StoreConfig, error: rocksdb::Error) -> OpenError {
    let path = config.path.clone();
    let kind = error.kind();
    let detail = error.into_string();
    match kind {
        ErrorKind::Corruption => OpenError::Corrupt { path, detail },
        _ => OpenError::Engine { path, detail },
    }
}
