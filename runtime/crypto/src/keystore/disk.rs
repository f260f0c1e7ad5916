//! Secret files: created once, whole, for the owner alone.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::KeystoreError;

/// Permission bits that only an owner's file lacks.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Writes a new file of mode 0600 under `path`: first whole and synced under a passing name, then linked to its own, which
/// fails where something stands already.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    let passing = passing_name(path);
    let written = write_synced(&passing, bytes).and_then(|()| {
        fs::hard_link(&passing, path).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => KeystoreError::Exists {
                path: path.to_owned(),
            },
            _ => failed("create", path)(source),
        })
    });
    let removed = remove(&passing);
    written.and(removed)?;
    sync_folder(path)
}

fn remove(passing: &Path) -> Result<(), KeystoreError> {
    match fs::remove_file(passing) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(failed("remove", passing)(source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<(), KeystoreError> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", folder))
}

/// A file that this process alone is about to replace.
#[derive(Debug)]
pub(super) struct Held<'a> {
    path: &'a Path,
    /// Holds the lock until dropped.
    _file: Flock<File>,
}

impl<'a> Held<'a> {
    /// Takes the lock on the file that stands at `path`, without waiting.
    pub(super) fn lock(path: &'a Path) -> Result<Held<'a>, KeystoreError> {
        let busy = || KeystoreError::Busy {
            path: path.to_owned(),
        };
        let file = open_secret(path)?;
        let file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => busy(),
                    other => failed("lock", path)(other.into()),
                },
            )?;
        // Whoever held the lock before may have put another file there: its lock is not this one.
        let ours = file.metadata().map_err(failed("examine", path))?;
        let now = fs::symlink_metadata(path).map_err(failed("examine", path))?;
        if (ours.dev(), ours.ino()) != (now.dev(), now.ino()) {
            return Err(busy());
        }
        Ok(Held { path, _file: file })
    }

    /// Puts a file of these bytes in the place of the held one: either is there, whole, whenever the machine stops.
    pub(super) fn replace(self, bytes: &[u8]) -> Result<(), KeystoreError> {
        let passing = passing_name(self.path);
        let written = write_synced(&passing, bytes)
            .and_then(|()| fs::rename(&passing, self.path).map_err(failed("replace", self.path)));
        if written.is_err() {
            remove(&passing)?;
        }
        written?;
        sync_folder(self.path)
    }
}

/// Reads a file that only its owner, this process's user, can touch; at most `limit` bytes and one more, so that an
/// overlong file fails its length check without being read whole.
pub(super) fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let file = open_secret(path)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(bytes)
}

/// Opens a file that only its owner, this process's user, can touch.
fn open_secret(path: &Path) -> Result<File, KeystoreError> {
    // Without NONBLOCK, opening a named pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT) => KeystoreError::NotFound {
                path: path.to_owned(),
            },
            Some(libc::ELOOP) => KeystoreError::NotAFile {
                path: path.to_owned(),
            },
            _ => failed("open", path)(source),
        })?;
    let metadata = file.metadata().map_err(failed("examine", path))?;
    if !metadata.is_file() {
        return Err(KeystoreError::NotAFile {
            path: path.to_owned(),
        });
    }
    check_owner(path, metadata.uid(), geteuid().as_raw())?;
    let mode = metadata.mode() & 0o7777;
    if mode & OPEN_TO_OTHERS != 0 {
        return Err(KeystoreError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(file)
}

pub(super) fn check_owner(path: &Path, owner: u32, us: u32) -> Result<(), KeystoreError> {
    if owner == us {
        Ok(())
    } else {
        Err(KeystoreError::ForeignOwner {
            path: path.to_owned(),
            owner,
            us,
        })
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(failed("create", path))?;
    // The umask may have taken bits of the owner away.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed("set the mode of", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

fn passing_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", hex::encode(crate::random::bytes::<8>())));
    folder_of(path).join(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeystoreError {
    let path = path.to_owned();
    move |source| KeystoreError::Io {
        path,
        doing,
        source,
    }
}
