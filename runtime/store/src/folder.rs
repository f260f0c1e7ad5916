//! The store's folder: who holds it and what is in it, settled before RocksDB touches anything.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::OpenError;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
pub(crate) const DB_FOLDER: &str = "db";
const MAGIC: &str = "pqcnet-store";

/// A folder held exclusively; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Folder {
    pub db: PathBuf,
    // The lock lives as long as this file is open. A crash closes it, so no stale lock survives.
    /// Whether this opening made the store.
    pub new: bool,
    _lock: File,
}

/// Makes a folder that only its owner enters, and those above it: records are sealed, but who else is on the machine need not
/// see how many there are, nor when they came.
pub(crate) fn create(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Folder {
    /// Creates or checks the folder at `path`, takes its lock, and checks or writes its stamp.
    pub(crate) fn open(path: &Path, kind: &'static str, version: u32) -> Result<Self, OpenError> {
        create(path).map_err(io("creating", path))?;
        let stamp = read_stamp(path)?;
        if stamp.is_none() && holds_anything_else(path)? {
            return Err(OpenError::NotAStore { path: path.into() });
        }
        let lock = take_lock(path)?;
        let new = stamp.is_none();
        match stamp {
            None => write_stamp(path, kind, version)?,
            Some(found) => found.suits(path, kind, version)?,
        }
        Ok(Self {
            db: path.join(DB_FOLDER),
            new,
            _lock: lock,
        })
    }
}

/// A folder that is only read: no node may have it open meanwhile, other readers may.
#[derive(Debug)]
pub(crate) struct Reading {
    _lock: Option<File>,
}

impl Reading {
    /// Checks what the folder holds and that nobody writes to it. Creates and changes nothing.
    pub(crate) fn open(path: &Path, kind: &'static str, version: u32) -> Result<Self, OpenError> {
        let stamp = read_stamp(path)?.ok_or_else(|| OpenError::NotAStore { path: path.into() })?;
        stamp.suits(path, kind, version)?;
        let name = path.join(LOCK_FILE);
        let lock = match File::open(&name) {
            Ok(file) => file,
            // A backup has none.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self { _lock: None }),
            Err(e) => return Err(io("opening", &name)(e)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self { _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(held(path, lock)),
            Err(TryLockError::Error(e)) => Err(io("locking", &name)(e)),
        }
    }
}

struct Stamp {
    kind: String,
    version: u32,
}

impl Stamp {
    /// Version 1 is the first, so there is none below it to convert from.
    fn suits(&self, path: &Path, kind: &'static str, version: u32) -> Result<(), OpenError> {
        let path = path.to_owned();
        if self.kind != kind {
            let (found, wanted) = (self.kind.clone(), kind);
            return Err(OpenError::WrongKind {
                path,
                found,
                wanted,
            });
        }
        if self.version > version {
            return Err(OpenError::TooNew {
                path,
                found: self.version,
                supported: version,
            });
        }
        Ok(())
    }
}

fn read_stamp(path: &Path) -> Result<Option<Stamp>, OpenError> {
    let file = path.join(FORMAT_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("reading", &file)(e)),
    };
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next().map(str::parse)) {
        (Some(MAGIC), Some(kind), Some(Ok(version))) => Ok(Some(Stamp {
            kind: kind.to_owned(),
            version,
        })),
        _ => Err(OpenError::NotAStore { path: path.into() }),
    }
}

/// Written beside and renamed, so a crash leaves either no stamp or a whole one.
pub(crate) fn write_stamp(path: &Path, kind: &str, version: u32) -> Result<(), OpenError> {
    let (file, fresh) = (path.join(FORMAT_FILE), path.join("FORMAT.new"));
    let mut out = File::create(&fresh).map_err(io("creating", &fresh))?;
    writeln!(out, "{MAGIC} {kind} {version}").map_err(io("writing", &fresh))?;
    out.sync_all().map_err(io("syncing", &fresh))?;
    fs::rename(&fresh, &file).map_err(io("naming", &file))?;
    let folder = File::open(path).map_err(io("opening", path))?;
    folder.sync_all().map_err(io("syncing", path))
}

fn holds_anything_else(path: &Path) -> Result<bool, OpenError> {
    for entry in fs::read_dir(path).map_err(io("listing", path))? {
        let name = entry.map_err(io("listing", path))?.file_name();
        if name != LOCK_FILE && name != "FORMAT.new" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&name)
        .map_err(io("opening", &name))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(path, file)),
        Err(TryLockError::Error(e)) => return Err(io("locking", &name)(e)),
    }
    file.set_len(0).map_err(io("writing", &name))?;
    file.rewind().map_err(io("writing", &name))?;
    writeln!(file, "{}", std::process::id()).map_err(io("writing", &name))?;
    Ok(file)
}

/// Somebody else holds the lock; the file says who.
fn held(path: &Path, mut lock: File) -> OpenError {
    let mut text = String::new();
    let holder = match lock.read_to_string(&mut text) {
        Ok(_) => text.trim().parse().ok(),
        Err(_) => None,
    };
    OpenError::Locked {
        path: path.into(),
        holder,
    }
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The stamp's bytes are the disk format: pinned.
    #[test]
    fn stamp_bytes_are_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), "relay", 1).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("FORMAT")).unwrap(),
            "pqcnet-store relay 1\n"
        );
        assert_eq!(folder.db, dir.path().join("db"));
    }

    // A second holder learns who has the folder; once the first lets go it gets in.
    #[test]
    fn second_holder_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path(), "relay", 1).unwrap();
        let error = Folder::open(dir.path(), "relay", 1).unwrap_err();
        let OpenError::Locked { holder, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*holder, Some(std::process::id()));
        assert!(
            error
                .to_string()
                .contains(&format!("in use by process {}", std::process::id()))
        );
        drop(first);
        Folder::open(dir.path(), "relay", 1).unwrap();
    }

    // A newer version, another kind, a torn stamp and a folder of someone's holiday pictures are each refused by name.
    #[test]
    fn foreign_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = dir.path().join("FORMAT");
        fs::write(&stamp, "pqcnet-store relay 9\n").unwrap();
        let error = Folder::open(dir.path(), "relay", 1).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::TooNew {
                    found: 9,
                    supported: 1,
                    ..
                }
            ),
            "{error}"
        );
        fs::write(&stamp, "pqcnet-store ledger 1\n").unwrap();
        let error = Folder::open(dir.path(), "relay", 1).unwrap_err();
        assert!(
            matches!(&error, OpenError::WrongKind { found, wanted: "relay", .. } if found == "ledger"),
            "{error}"
        );
        fs::write(&stamp, "pqcnet-st").unwrap();
        let error = Folder::open(dir.path(), "relay", 1).unwrap_err();
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
        fs::remove_file(&stamp).unwrap();
        fs::write(dir.path().join("beach.jpg"), "").unwrap();
        let error = Folder::open(dir.path(), "relay", 1).unwrap_err();
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    }

    // The path is a file: the system's answer comes with what was tried and where.
    #[test]
    fn a_file_in_the_way_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let error = Folder::open(&path, "relay", 1).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Io {
                    action: "creating",
                    ..
                }
            ),
            "{error}"
        );
    }
}
