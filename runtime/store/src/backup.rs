//! A copy of a store in a folder of its own, and the way back.
//!
//! ```text
//!   BACKUP    pqcnet-backup 1 / store <kind> <version> / file <name> <bytes> <SHA-256> … / sum <SHA-256 of all this>
//!   FORMAT    as in a store
//!   db/       the files
//! ```
//!
//! A backup is made beside its name and renamed when it is whole and synced, so one that is there is complete. Restoring
//! copies it, holds every byte against the sums, and renames in the same way; it never writes into a store that is there.
//! What lies in a backup is as sealed as it was in the store: the keys are elsewhere.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use pqcnet_crypto::Sha256;

use crate::Schema;
use crate::folder::{self, DB_FOLDER, write_stamp};

const MANIFEST_FILE: &str = "BACKUP";
const MAGIC: &str = "pqcnet-backup 1";
/// A store of a terabyte has fifteen thousand tables of 64 MiB; a line each.
const MAX_MANIFEST: u64 = 16 << 20;
const CHUNK: usize = 1 << 20;

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Its name in `db/`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sum: [u8; 32],
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The store's kind.
    pub kind: String,
    /// Its disk format.
    pub version: u32,
    /// Its files, by name.
    pub files: Vec<BackedUp>,
}

/// Why a backup was not made or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already; it is left as found. The operator chooses another place.
    #[error("{path} is there already: nothing is overwritten", path = .0.display())]
    Exists(PathBuf),
    /// The folder is no backup.
    #[error("{path} is no backup: {why}", path = .path.display())]
    NotABackup {
        /// The folder.
        path: PathBuf,
        /// What is missing or odd.
        why: &'static str,
    },
    /// A backup of another kind of store, or by a newer program.
    #[error("{path} is a backup of {found}, this program restores {wanted}", path = .path.display())]
    OtherStore {
        /// The folder.
        path: PathBuf,
        /// Kind and version in it.
        found: String,
        /// Kind and newest version known.
        wanted: String,
    },
    /// A file is not what it was when the backup was made.
    #[error("{file} is not as it was backed up: {why}", file = .file.display())]
    Damaged {
        /// Which.
        file: PathBuf,
        /// How it differs.
        why: &'static str,
    },
    /// The engine made no checkpoint.
    #[error("no checkpoint: {0}")]
    Engine(String),
    /// The operating system refused.
    #[error("{action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn encode(&self) -> String {
        let mut text = format!("{MAGIC}\nstore {} {}\n", self.kind, self.version);
        for BackedUp { name, bytes, sum } in &self.files {
            text += &format!("file {name} {bytes} {}\n", hex::encode(sum));
        }
        let sum = hex::encode(pqcnet_crypto::sha256(&[text.as_bytes()]));
        text + &format!("sum {sum}\n")
    }

    fn decode(text: &str) -> Option<Manifest> {
        let at = text.trim_end().rfind('\n')? + 1;
        let (body, end) = text.split_at(at);
        let sum = hex::encode(pqcnet_crypto::sha256(&[body.as_bytes()]));
        if end.trim_end() != format!("sum {sum}") {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let mut words = lines.next()?.strip_prefix("store ")?.split(' ');
        let (kind, version) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let files = lines.map(|line| {
            let mut words = line.strip_prefix("file ")?.split(' ');
            let name = words.next()?.to_owned();
            // A name and nothing else: it must not lead out of the folder.
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !plain || name.is_empty() || name.starts_with('.') {
                return None;
            }
            let bytes = words.next()?.parse().ok()?;
            let sum = hex::decode(words.next()?).ok()?.try_into().ok()?;
            Some(BackedUp { name, bytes, sum })
        });
        let files = files.collect::<Option<_>>()?;
        Some(Manifest {
            kind,
            version,
            files,
        })
    }

    /// Reads the manifest of a backup.
    pub fn read(backup: &Path) -> Result<Manifest, BackupError> {
        let not = |why| BackupError::NotABackup {
            path: backup.to_owned(),
            why,
        };
        let path = backup.join(MANIFEST_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(not("it has no file BACKUP"));
            }
            Err(e) => return Err(io("opening", &path)(e)),
        };
        let mut text = String::new();
        file.take(MAX_MANIFEST)
            .read_to_string(&mut text)
            .map_err(io("reading", &path))?;
        Manifest::decode(&text).ok_or_else(|| not("its file BACKUP does not check out"))
    }
}

/// Makes a backup in the new folder `to`; `checkpoint` fills a new folder with the database's files.
pub(crate) fn make(
    to: &Path,
    schema: &Schema,
    checkpoint: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<Manifest, BackupError> {
    let part = begin(to)?;
    or_nothing(&part, || {
        let manifest = gather(&part, schema, checkpoint)?;
        finish(&part, to, schema)?;
        Ok(manifest)
    })
}

/// Fills a backup's folder.
fn gather(
    part: &Path,
    schema: &Schema,
    checkpoint: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<Manifest, BackupError> {
    let db = part.join(DB_FOLDER);
    checkpoint(&db).map_err(BackupError::Engine)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&db).map_err(io("listing", &db))? {
        let name = entry.map_err(io("listing", &db))?.file_name();
        let path = db.join(&name);
        let (bytes, sum) = sum_of(&path, None)?;
        let name = name.to_string_lossy().into_owned();
        files.push(BackedUp { name, bytes, sum });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest {
        kind: schema.kind.to_owned(),
        version: schema.version,
        files,
    };
    let path = part.join(MANIFEST_FILE);
    let mut out = File::create_new(&path).map_err(io("creating", &path))?;
    out.write_all(manifest.encode().as_bytes())
        .and_then(|()| out.sync_all())
        .map_err(io("writing", &path))?;
    Ok(manifest)
}

/// Copies a backup to the new folder `to`, every byte held against its sums. What was there stays as it was.
///
/// # Errors
/// [`BackupError`]; then nothing is at `to`.
pub fn restore(backup: &Path, to: &Path, schema: &Schema) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(backup)?;
    if manifest.kind != schema.kind || manifest.version > schema.version {
        return Err(BackupError::OtherStore {
            path: backup.to_owned(),
            found: format!("{} {}", manifest.kind, manifest.version),
            wanted: format!("{} {}", schema.kind, schema.version),
        });
    }
    let part = begin(to)?;
    or_nothing(&part, || {
        copy(&manifest, backup, &part)?;
        finish(&part, to, schema)
    })?;
    Ok(manifest)
}

/// Copies a backup's files, each held against its sum.
fn copy(manifest: &Manifest, backup: &Path, part: &Path) -> Result<(), BackupError> {
    let db = part.join(DB_FOLDER);
    fs::create_dir(&db).map_err(io("creating", &db))?;
    for file in &manifest.files {
        let from = backup.join(DB_FOLDER).join(&file.name);
        let into = db.join(&file.name);
        let out = File::create_new(&into).map_err(io("creating", &into))?;
        let (bytes, sum) = match sum_of(&from, Some(&out)) {
            Err(BackupError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                let why = "it is missing";
                return Err(BackupError::Damaged { file: from, why });
            }
            other => other?,
        };
        if (bytes, sum) != (file.bytes, file.sum) {
            let why = if bytes == file.bytes {
                "its content differs"
            } else {
                "its length differs"
            };
            return Err(BackupError::Damaged { file: from, why });
        }
    }
    Ok(())
}

/// What did not become whole goes again: it takes as much room as a store, and could be taken for one.
fn or_nothing<T>(
    part: &Path,
    fill: impl FnOnce() -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let filled = fill();
    if filled.is_err()
        && let Err(error) = fs::remove_dir_all(part)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %part.display(), %error, "a folder that is not whole is left behind");
    }
    filled
}

/// A folder beside `to`, which must not be there. One that an attempt left behind is made anew.
fn begin(to: &Path) -> Result<PathBuf, BackupError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let part = to.with_file_name(name);
    match fs::remove_dir_all(&part) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io("removing", &part)(e)),
    }
    folder::create(&part).map_err(io("creating", &part))?;
    Ok(part)
}

/// Stamps, syncs and names it.
fn finish(part: &Path, to: &Path, schema: &Schema) -> Result<(), BackupError> {
    write_stamp(part, schema.kind, schema.version)
        .map_err(|error| BackupError::Engine(error.to_string()))?;
    sync_folder(&part.join(DB_FOLDER))?;
    sync_folder(part)?;
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    fs::rename(part, to).map_err(io("naming", to))?;
    match to.parent() {
        Some(parent) if parent != Path::new("") => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

fn sync_folder(path: &Path) -> Result<(), BackupError> {
    let folder = File::open(path).map_err(io("opening", path))?;
    folder.sync_all().map_err(io("syncing", path))
}

/// A file's length and SHA-256; written to `copy` on the way if there is one. What was written is synced.
fn sum_of(path: &Path, mut copy: Option<&File>) -> Result<(u64, [u8; 32]), BackupError> {
    let mut file = File::open(path).map_err(io("opening", path))?;
    let mut chunk = vec![0; CHUNK];
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    loop {
        let read = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(io("reading", path)(e)),
        };
        hash.update(&chunk[..read]);
        bytes += read as u64;
        if let Some(copy) = &mut copy {
            copy.write_all(&chunk[..read])
                .map_err(io("copying", path))?;
        }
    }
    copy.unwrap_or(&file)
        .sync_all()
        .map_err(io("syncing", path))?;
    Ok((bytes, hash.finish()))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            kind: "relay".to_owned(),
            version: 1,
            files: vec![BackedUp {
                name: "000012.sst".to_owned(),
                bytes: 7,
                sum: [0xab; 32],
            }],
        }
    }

    // The manifest's bytes are a disk format: pinned.
    #[test]
    fn manifest_bytes_are_pinned() {
        let sum = "ab".repeat(32);
        let body = format!("pqcnet-backup 1\nstore relay 1\nfile 000012.sst 7 {sum}\n");
        let end = hex::encode(pqcnet_crypto::sha256(&[body.as_bytes()]));
        assert_eq!(manifest().encode(), format!("{body}sum {end}\n"));
        assert_eq!(manifest().bytes(), 7);
    }

    // What was written reads back; a changed or missing byte anywhere does not, nor does a name that leads elsewhere.
    #[test]
    fn manifests_read_strictly() {
        let text = manifest().encode();
        assert_eq!(Manifest::decode(&text), Some(manifest()));
        for at in 0..text.len() - 1 {
            assert_eq!(Manifest::decode(&text[..at]), None, "{at}");
            let mut other = text.clone().into_bytes();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert_eq!(Manifest::decode(&other), None, "{at}");
        }
        for name in ["../x", "..", "/etc/x", "a b", ""] {
            let mut leading = manifest();
            leading.files[0].name = name.to_owned();
            assert_eq!(Manifest::decode(&leading.encode()), None, "{name}");
        }
    }
}
