//! What a node keeps of the mesh across restarts: files of directives, adverts and scores, and a relayer's
//! file of shards.
//!
//! A file is replaced whole: written beside, synced, renamed, and its folder synced. It is
//! `"pqcnet/shelf/1 <kind>\n" ‖ number of items u32 ‖ (length u32 ‖ item)* ‖ SHA-256 of all before`. Directives and
//! adverts carry their own signatures, which are checked again after reading: the hash finds accidents, not forgers.

use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pqcnet_crypto::sha256;

/// Largest file: 4,096 items of 16 KiB.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The root's directives.
    Directives,
    /// The peer book.
    Adverts,
    /// How peers behaved.
    Scores,
    /// Which shards a relayer was given and gave away.
    Shards,
}

impl Kind {
    /// The file's name.
    pub fn file(self) -> &'static str {
        match self {
            Kind::Directives => "directives",
            Kind::Adverts => "peers",
            Kind::Scores => "scores",
            Kind::Shards => "shards",
        }
    }
}

/// Where the files lie: a folder, or what a simulator has for one. Its calls block.
pub trait Place: Send + Sync + 'static {
    /// What errors name.
    fn path(&self, kind: Kind) -> PathBuf;
    /// At most `most` bytes of the file; `None` when there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    fn read(&self, kind: Kind, most: u64) -> io::Result<Option<Vec<u8>>>;
    /// Replaces the whole file with these pieces, one behind the other. Once this returns, a crash does not bring the former
    /// one back.
    ///
    /// # Errors
    /// The former file is still there.
    fn replace(&self, kind: Kind, pieces: &[Vec<u8>]) -> io::Result<()>;
}

/// A place for these files, or none: then everything is forgotten at the end of the process.
#[derive(Clone, Default)]
pub struct Shelf {
    place: Option<Arc<dyn Place>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path(Kind::Directives);
        f.debug_tuple("Shelf").field(&path).finish()
    }
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The file system said no; the machine or the operator erred.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged, or of another kind or version.
    #[error("{}: {problem}; restore it from a backup, or remove it and the node asks its peers again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Shelf {
    /// Files in this folder, which is made when something is first kept.
    pub fn at(folder: impl Into<PathBuf>) -> Shelf {
        Shelf::over(Arc::new(Folder(folder.into())))
    }

    /// Files in this place.
    pub fn over(place: Arc<dyn Place>) -> Shelf {
        Shelf { place: Some(place) }
    }

    /// Keeps nothing.
    pub fn none() -> Shelf {
        Shelf::default()
    }

    /// Where a kind is kept.
    pub fn path(&self, kind: Kind) -> Option<PathBuf> {
        Some(self.place.as_ref()?.path(kind))
    }

    /// Reads the items; none when nothing was ever kept. Blocks: call it off the actor's thread.
    ///
    /// # Errors
    /// The file is there and cannot be used.
    pub fn load(&self, kind: Kind) -> Result<Vec<Bytes>, ShelfError> {
        let Some(place) = &self.place else {
            return Ok(Vec::new());
        };
        let path = || place.path(kind);
        let found = place.read(kind, MAX_FILE + 1);
        let found = found.map_err(|source| ShelfError::Io {
            path: path(),
            source,
        })?;
        let Some(bytes) = found else {
            return Ok(Vec::new());
        };
        let damaged = |problem| ShelfError::Damaged {
            path: path(),
            problem,
        };
        if bytes.len() as u64 > MAX_FILE {
            return Err(damaged("too large"));
        }
        items(kind, &Bytes::from(bytes)).map_err(damaged)
    }

    /// Replaces the items. Blocks, also for the disk: call it off the actor's thread.
    ///
    /// # Errors
    /// They are not kept; what was kept before still is.
    pub fn save(&self, kind: Kind, items: &[Bytes]) -> Result<(), ShelfError> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let replaced = place.replace(kind, &pieces(kind, items));
        replaced.map_err(|source| ShelfError::Io {
            path: place.path(kind),
            source,
        })
    }
}

/// Files of the machine.
struct Folder(PathBuf);

impl Place for Folder {
    fn path(&self, kind: Kind) -> PathBuf {
        self.0.join(kind.file())
    }

    fn read(&self, kind: Kind, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(kind)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn replace(&self, kind: Kind, pieces: &[Vec<u8>]) -> io::Result<()> {
        replace(&self.path(kind), pieces)
    }
}

fn heading(kind: Kind) -> String {
    format!("pqcnet/shelf/1 {}\n", kind.file())
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// The file: its head, each item with its length, its hash.
fn pieces(kind: Kind, items: &[Bytes]) -> Vec<Vec<u8>> {
    let head = [heading(kind).as_bytes(), &count(items.len())].concat();
    let each = items
        .iter()
        .map(|item| [&count(item.len()), &item[..]].concat());
    let mut pieces: Vec<Vec<u8>> = [head].into_iter().chain(each).collect();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let hash = sha256(&slices);
    pieces.push(hash.to_vec());
    pieces
}

fn items(kind: Kind, bytes: &Bytes) -> Result<Vec<Bytes>, &'static str> {
    let (body, hash) = bytes.split_last_chunk::<32>().ok_or("cut short")?;
    if sha256(&[body]) != *hash {
        return Err("its hash does not match");
    }
    let heading = heading(kind);
    if !body.starts_with(heading.as_bytes()) {
        return Err("of another kind or version");
    }
    let mut rest = bytes.slice(heading.len()..body.len());
    let many = length(&mut rest)?;
    let mut items = Vec::new();
    for _ in 0..many {
        let len = length(&mut rest)?;
        if len > rest.len() {
            return Err("an item is cut short");
        }
        items.push(rest.split_to(len));
    }
    match rest.is_empty() {
        true => Ok(items),
        false => Err("more than its items"),
    }
}

fn length(rest: &mut Bytes) -> Result<usize, &'static str> {
    if rest.len() < 4 {
        return Err("a length is cut short");
    }
    let mut len = [0; 4];
    len.copy_from_slice(&rest.split_to(4));
    usize::try_from(u32::from_be_bytes(len)).map_err(|_| "a length is too large")
}

fn replace(path: &Path, pieces: &[Vec<u8>]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut file = BufWriter::new(File::create(&beside)?);
    for piece in pieces {
        file.write_all(piece)?;
    }
    let file = file.into_inner().map_err(IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things() -> Vec<Bytes> {
        vec![Bytes::from_static(b"one"), Bytes::new()]
    }

    /// Scenario: nothing kept yet, two items, then none; the bytes of a file are pinned.
    #[test]
    fn kept_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(place.path().join("mesh"));
        assert_eq!(shelf.load(Kind::Adverts).unwrap(), Vec::<Bytes>::new());
        shelf.save(Kind::Adverts, &things()).unwrap();
        assert_eq!(shelf.load(Kind::Adverts).unwrap(), things());
        let bytes = fs::read(shelf.path(Kind::Adverts).unwrap()).unwrap();
        let body = b"pqcnet/shelf/1 peers\n\0\0\0\x02\0\0\0\x03one\0\0\0\0";
        assert_eq!(bytes, [body.as_slice(), &sha256(&[body])].concat());
        shelf.save(Kind::Adverts, &[]).unwrap();
        assert_eq!(shelf.load(Kind::Adverts).unwrap(), Vec::<Bytes>::new());
        assert_eq!(shelf.load(Kind::Directives).unwrap(), Vec::<Bytes>::new());
    }

    /// Scenario: a node without a place keeps nothing and misses nothing.
    #[test]
    fn no_shelf() {
        let shelf = Shelf::none();
        shelf.save(Kind::Directives, &things()).unwrap();
        assert_eq!(shelf.load(Kind::Directives).unwrap(), Vec::<Bytes>::new());
    }

    /// Scenario: a file cut anywhere, with any byte changed, or of the other kind is refused, and the error names it.
    #[test]
    fn damage_is_found() {
        let good = pieces(Kind::Directives, &things()).concat();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(items(Kind::Directives, &bad.into()).is_err(), "byte {at}");
            assert!(items(Kind::Directives, &Bytes::copy_from_slice(&good[..at])).is_err());
        }
        assert_eq!(
            items(Kind::Adverts, &good.clone().into()),
            Err("of another kind or version")
        );
        // A matching hash over nonsense.
        for (body, problem) in [
            (&b"\0\0\0\x01\0\0\0\x09x"[..], "an item is cut short"),
            (b"\0\0\0\x01\0\0", "a length is cut short"),
            (b"\0\0\0\0x", "more than its items"),
        ] {
            let body = [heading(Kind::Adverts).as_bytes(), body].concat();
            let whole = [body.as_slice(), &sha256(&[&body])].concat();
            assert_eq!(items(Kind::Adverts, &whole.into()), Err(problem));
        }
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(place.path());
        fs::write(shelf.path(Kind::Directives).unwrap(), b"nonsense").unwrap();
        let told = shelf.load(Kind::Directives).unwrap_err().to_string();
        assert!(told.contains("directives: cut short"), "{told}");
        let file = File::create(shelf.path(Kind::Adverts).unwrap()).unwrap();
        file.set_len(MAX_FILE + 1).unwrap();
        let told = shelf.load(Kind::Adverts).unwrap_err().to_string();
        assert!(told.contains("too large"), "{told}");
    }

    /// Scenario: the folder's place is taken by a file.
    #[test]
    fn no_folder() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("mesh"), b"").unwrap();
        let shelf = Shelf::at(place.path().join("mesh"));
        let failed = shelf.save(Kind::Adverts, &things()).unwrap_err();
        assert!(matches!(failed, ShelfError::Io { .. }), "{failed}");
        let failed = shelf.load(Kind::Adverts).unwrap_err();
        assert!(matches!(failed, ShelfError::Io { .. }), "{failed}");
    }
}
