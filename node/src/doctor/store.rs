//! The relayer's store and its disk.

use std::path::{Path, PathBuf};

use pqcnet_messages::Role;
use pqcnet_roles::log_schema;
use pqcnet_roles::platform::broker_schema;
use pqcnet_store::{Checker, OpenError, free_space_of};

use super::owner::holder_of;
use super::{Check, Code, Group};
use crate::config::NodeConfig;

/// A store up to this size is read whole; a larger one is `pqcnet db check`'s work.
const READ_WHOLE: u64 = 256 << 20;

pub(super) fn check(config: &NodeConfig, role: Role, file: Option<&Path>) -> Vec<Check> {
    if role != Role::Relayer {
        return vec![Check::skipped(
            Group::Store,
            format!("a {role} stores nothing"),
        )];
    }
    let path = &config.store;
    let mut checks = vec![space(path, config.limits.disk.low)];
    checks.push(match path.is_dir() {
        true => existing(config, file),
        false => future(path),
    });
    checks
}

fn space(path: &Path, low: u64) -> Check {
    let at = standing(path);
    match free_space_of(&at) {
        Some(free) if free < low => {
            let told = format!(
                "{} MiB are free at {}, disk.low_mib is {}",
                free >> 20,
                at.display(),
                low >> 20
            );
            Check::failed(Group::Disk, Code::DiskLow, told)
        }
        Some(free) => Check::ok(
            Group::Disk,
            format!("{} MiB are free at {}", free >> 20, at.display()),
        ),
        None => Check::skipped(
            Group::Disk,
            format!("free space at {} is unknown", at.display()),
        ),
    }
}

/// The nearest folder on the way that exists.
fn standing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|part| part.is_dir());
    match found {
        Some(part) => part.to_owned(),
        None => PathBuf::from("."),
    }
}

fn future(path: &Path) -> Check {
    if path.symlink_metadata().is_ok() {
        let told = format!("{} is no folder", path.display());
        return Check::failed(Group::Store, Code::StoreUnwritable, told);
    }
    let above = path
        .ancestors()
        .skip(1)
        .find(|part| part.symlink_metadata().is_ok());
    let above = above
        .filter(|part| *part != Path::new(""))
        .unwrap_or(Path::new("."));
    match tempfile::tempfile_in(above) {
        Ok(_) => Check::ok(
            Group::Store,
            format!("{} will be made at the first start", path.display()),
        ),
        Err(error) => {
            let told = format!(
                "{} cannot be made: {}: {error}",
                path.display(),
                above.display()
            );
            Check::failed(Group::Store, Code::StoreUnwritable, told)
        }
    }
}

fn existing(config: &NodeConfig, file: Option<&Path>) -> Check {
    let path = &config.store;
    if path
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_none())
    {
        return Check::ok(Group::Store, format!("{} is empty", path.display()));
    }
    let size = size(path);
    if size > READ_WHOLE {
        let told = format!(
            "{}: {} MiB, `pqcnet db check` reads them",
            path.display(),
            size >> 20
        );
        return Check::skipped(Group::Store, told);
    }
    let schema = match config.broker {
        Some(_) => broker_schema(),
        None => log_schema(),
    };
    let failed = |code, told| Check::failed(Group::Store, code, told);
    match Checker::open(path, &schema) {
        Ok(checker) => match checker.damage.first() {
            None => Check::ok(
                Group::Store,
                format!("{}: {} keys, sound", path.display(), checker.looked.keys),
            ),
            Some(first) => {
                let told = format!(
                    "{} damaged files, the first {}: {}",
                    checker.damage.len(),
                    first.file.display(),
                    first.detail
                );
                failed(Code::StoreDamaged, told)
            }
        },
        Err(error) => {
            let code = match &error {
                OpenError::Locked { holder, .. } => {
                    // The node itself holds its store while it runs.
                    let own = holder_of(config.data).filter(|owner| owner.runs(file));
                    if own.is_some_and(|owner| Some(owner.pid) == *holder) {
                        return Check::ok(
                            Group::Store,
                            format!("{}: this node runs and holds it", path.display()),
                        );
                    }
                    Code::StoreLocked
                }
                OpenError::TooNew { .. } => Code::StoreNewer,
                OpenError::NoRoom { .. } => Code::DiskLow,
                OpenError::WrongKind { .. } | OpenError::NotAStore { .. } => Code::StoreForeign,
                OpenError::Io { .. } | OpenError::Corrupt { .. } | OpenError::Engine { .. } => {
                    Code::StoreDamaged
                }
            };
            failed(code, error.to_string())
        }
    }
}

/// Bytes of the files in a store: they stand at most one folder deep.
fn size(path: &Path) -> u64 {
    let files = |folder: &Path| -> u64 {
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let sizes = entries.filter_map(|entry| entry.metadata().ok());
        sizes
            .filter(|meta| meta.is_file())
            .map(|meta| meta.len())
            .sum()
    };
    files(path) + files(&path.join("db"))
}
