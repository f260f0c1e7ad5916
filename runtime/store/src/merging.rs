//! How the engine merges its files, and with how much of the processors.
//!
//! Merging by levels writes what a family has on its first level again for each twelve files that come. A family that only grows is
//! merged in tiers instead: files of about the same size become one, so a byte is written again once for each time the store
//! grows twentyfold, and less is looked into by a read. But then a merge may take all there is and needs as much room once more. So it
//! is done while the disk has that, and by levels again when it has not. Files are the same in both.
//!
//! Why, and what was measured: docs/adr/0028-merging-in-tiers.md.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use pqcnet_actor::Env;
use rocksdb::properties::TOTAL_SST_FILES_SIZE;
use rocksdb::{
    ColumnFamily, CompactOptions, DB, DBCompactionStyle, Options, UniversalCompactOptions,
};

use crate::{Span, StoreConfig};

/// Files a family may have that are not merged: when merging begins, when writes are slowed, and when they wait for it.
pub(crate) const UNMERGED: (i32, i32, i32) = (12, 30, 48);
/// The same in tiers, where a file that was merged is not looked into beside those it was made of, so more may wait.
const UNMERGED_IN_TIERS: (i32, i32, i32) = (20, 40, 60);
/// What the engine does at once in the background: a flush and three merges, so that a large one does not keep small ones waiting.
pub(crate) const JOBS: i32 = 4;
/// Threads that merge, of all stores of the process.
const MERGING_THREADS: i32 = 3;
/// Their place in the scheduler's queue, as `nice` counts it: a tenth of what others get there, all that others leave.
const MERGING_NICE: i32 = 10;
/// As good as never, in per cent.
const A_THOUSAND_TIMES: i32 = 100_000;
/// The room is looked at again after so many bytes.
pub(crate) const LOOK_AGAIN: u64 = 32 << 20;

/// How a store's growing families are merged at present.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    in_tiers: AtomicBool,
    /// Bytes of tables that hold nothing any more and were not given back yet.
    dead: AtomicU64,
}

impl Merging {
    /// Decides before an opening: in tiers where the disk has room for all tables twice more.
    pub(crate) fn choose(&self, db: &Path, config: &StoreConfig) -> bool {
        let room = || {
            let free = (config.free_space)(&config.path);
            free.is_some_and(|free| free >= tables_in(db).saturating_mul(2))
        };
        let in_tiers = !config.growing.is_empty() && room();
        self.in_tiers.store(in_tiers, Relaxed);
        in_tiers
    }

    pub(crate) fn in_tiers(&self) -> bool {
        self.in_tiers.load(Relaxed)
    }

    /// Whether a merge of all tables, beside what is in memory, does not fit on the disk any more.
    pub(crate) fn is_short(&self, db: &DB, config: &StoreConfig) -> bool {
        if !self.in_tiers() {
            return false;
        }
        let needed = tables_of(db, config) + config.tables_bytes as u64;
        (config.free_space)(&config.path).is_none_or(|free| free < needed)
    }

    /// Tables that lie within what is emptied go at once. The rest goes as what has it is merged: by levels that is `all`; in tiers it is
    /// the family, so that waits until it is worth it, whichever range was emptied.
    pub(crate) fn give_back(
        &self,
        (db, family): (&DB, &ColumnFamily),
        growing: bool,
        (emptied, bytes): (&[Span], u64),
        (from, to): &Span,
    ) {
        for (from, to) in emptied {
            if let Err(error) = db.delete_file_in_range_cf(family, from, to) {
                tracing::warn!(%error, "tables that hold nothing any more stay for now");
                return;
            }
        }
        let mut options = CompactOptions::default();
        // Flushes and the engine's own compactions go on beside it.
        options.set_exclusive_manual_compaction(false);
        if !(growing && self.in_tiers()) {
            db.compact_range_cf_opt(family, Some(from), Some(to), &options);
            return;
        }
        let dead = self.dead.fetch_add(bytes, Relaxed) + bytes;
        let tables = size_of(db, family);
        if worth_merging(dead, tables) {
            self.dead.store(0, Relaxed);
            db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
    }
}

/// A family is written again when a third of it is dead, half of what lives; a small one always.
fn worth_merging(dead: u64, tables: u64) -> bool {
    tables <= LOOK_AGAIN || dead.saturating_mul(3) >= tables
}

/// Makes a family be merged in tiers.
pub(crate) fn in_tiers(family: &mut Options) {
    let mut tiers = UniversalCompactOptions::default();
    // Only what is of about the same size: nothing is merged for what was replaced, since nothing is.
    tiers.set_size_ratio(1);
    tiers.set_max_size_amplification_percent(A_THOUSAND_TIMES);
    family.set_compaction_style(DBCompactionStyle::Universal);
    family.set_universal_compaction_options(&tiers);
    family.set_level_zero_file_num_compaction_trigger(UNMERGED_IN_TIERS.0);
    family.set_level_zero_slowdown_writes_trigger(UNMERGED_IN_TIERS.1);
    family.set_level_zero_stop_writes_trigger(UNMERGED_IN_TIERS.2);
}

fn size_of(db: &DB, family: &ColumnFamily) -> u64 {
    let size = db.property_int_value_cf(family, TOTAL_SST_FILES_SIZE);
    size.ok().flatten().unwrap_or(0)
}

/// Of the growing families: no other is merged as a whole.
fn tables_of(db: &DB, config: &StoreConfig) -> u64 {
    let growing = config.growing.iter().filter_map(|f| db.cf_handle(f.0));
    growing.map(|family| size_of(db, family)).sum()
}

/// Of all tables in a folder.
fn tables_in(db: &Path) -> u64 {
    let entries = fs::read_dir(db).into_iter().flatten().flatten();
    let tables = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "sst"));
    tables
        .filter_map(|table| Some(table.metadata().ok()?.len()))
        .sum()
}

/// Has the engine's merging threads give way to everybody else's. They are the process's, and take the place of the thread that makes
/// them, so one of a lower place makes them before the engine does.
pub(crate) fn lower_threads(env: &Env) {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = env.dedicated_thread("store-threads", || {
            lower_this_thread();
            match rocksdb::Env::new() {
                Ok(mut engine) => engine.set_background_threads(MERGING_THREADS),
                Err(error) => tracing::debug!(%error, "the engine makes its threads itself"),
            }
        });
        if !made.is_ok_and(pqcnet_actor::DedicatedThread::join) {
            tracing::warn!("no thread to make the engine's threads: it makes them itself");
        }
    });
}

#[expect(
    unsafe_code,
    reason = "the C library offers a thread's place in C only"
)]
fn lower_this_thread() {
    // SAFETY: a number goes in and one comes out; it may always be raised, and more than there is counts as the last place.
    unsafe { nix::libc::nice(MERGING_NICE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    // A small family is written again whenever asked, a large one once a third of it is dead.
    #[test]
    fn a_family_is_written_again_when_it_is_worth_it() {
        const GIB: u64 = 1 << 30;
        assert!(worth_merging(0, 0));
        assert!(worth_merging(1, LOOK_AGAIN));
        assert!(!worth_merging(GIB - 1, 3 * GIB));
        assert!(worth_merging(GIB, 3 * GIB));
        assert!(worth_merging(u64::MAX, GIB));
    }

    /// The place of a task of this process: behind the name in brackets, the state is the first field and the place the seventeenth.
    fn nice_of(task: &Path) -> Option<i32> {
        let stat = fs::read_to_string(task.join("stat")).ok()?;
        let place = stat.rsplit(')').next()?.split_whitespace().nth(16)?;
        place.parse().ok()
    }

    // The system tells what place the threads have by whose names merging goes, and that of this one.
    #[tokio::test]
    async fn merging_threads_give_way() {
        lower_threads(&Env::plain());
        let own = nice_of(Path::new("/proc/thread-self")).unwrap();
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let tasks = tasks.map(|task| task.unwrap().path());
        let merging = tasks.filter(|task| {
            let name = fs::read_to_string(task.join("comm"));
            name.is_ok_and(|name| name.starts_with("rocksdb:low"))
        });
        let merging: Vec<i32> = merging.filter_map(|task| nice_of(&task)).collect();
        assert_eq!(merging, [(own + MERGING_NICE).min(19); 3]);
    }
}
