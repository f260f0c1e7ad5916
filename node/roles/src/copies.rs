//! A relayer's stores as one copy: the log's, and the meter's in it.
//!
//! ```text
//!   store/ ─────▶ copy/         the log's: BACKUP, FORMAT, db/
//!   store/meter ▶ copy/meter    the meter's: the same
//! ```
//!
//! The meter's is copied first. What it has counted is then in the log's copy too, and what came in between is counted from the log's own
//! numbers after a restoration, as after a kill.

use std::fs;
use std::path::{Path, PathBuf};

use pqcnet_store::RocksStore;
use pqcnet_store::backup::{self, BackupError};

use crate::platform::{METER, log_schema};

/// How much a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Files of both stores.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies a relayer's stores into the new folder `to`. Blocks.
///
/// # Errors
/// Whatever a copy of a store fails with. Nothing is left at `to` then, unless the last step failed, which moves the meter's part in.
pub fn back_up(
    log: &RocksStore,
    meter: Option<&RocksStore>,
    to: &Path,
) -> Result<Copied, BackupError> {
    let Some(meter) = meter else {
        let made = log.back_up(to)?;
        return Ok(copied(&made));
    };
    let aside = beside(to);
    let of_meter = meter.back_up(&aside)?;
    let of_log = log.back_up(to);
    moved_in(of_log, &aside, to).map(|of_log| both(&of_log, &of_meter))
}

/// Puts a copy back at `to`, where nothing is, every byte held against its sums; with the meter's part where the copy has one. Blocks.
///
/// # Errors
/// Whatever a restoration of a store fails with; as of [`back_up`].
pub fn restore(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    let meters = from.join(METER);
    if !meters.is_dir() {
        let made = backup::restore(from, to, &log_schema())?;
        return Ok(copied(&made));
    }
    let aside = beside(to);
    let of_meter = backup::restore(&meters, &aside, &pqcnet_meter::disk::schema())?;
    let of_log = backup::restore(from, to, &log_schema());
    moved_in(of_log, &aside, to).map(|of_log| both(&of_log, &of_meter))
}

/// Where the meter's store lies in a relayer's.
pub fn meter_folder(store: &Path) -> PathBuf {
    store.join(METER)
}

/// Where the meter's part is made.
fn beside(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(METER);
    to.with_file_name(name)
}

/// Moves the meter's part to its place, or removes it if there is none.
fn moved_in(
    of_log: Result<backup::Manifest, BackupError>,
    aside: &Path,
    to: &Path,
) -> Result<backup::Manifest, BackupError> {
    let into = to.join(METER);
    let placed = of_log.and_then(|made| match fs::rename(aside, &into) {
        Ok(()) => Ok(made),
        Err(source) => Err(BackupError::Io {
            action: "moving the meter's part to",
            path: into,
            source,
        }),
    });
    if placed.is_err()
        && let Err(error) = fs::remove_dir_all(aside)
    {
        tracing::warn!(path = %aside.display(), %error, "a copy of the meter's store stays behind");
    }
    placed
}

fn copied(made: &backup::Manifest) -> Copied {
    Copied {
        files: made.files.len(),
        bytes: made.bytes(),
    }
}

fn both(log: &backup::Manifest, meter: &backup::Manifest) -> Copied {
    Copied {
        files: log.files.len() + meter.files.len(),
        bytes: log.bytes() + meter.bytes(),
    }
}
