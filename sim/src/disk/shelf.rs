//! The mesh's files on a disk. Each is replaced whole and synced, so a crash leaves the one or the other.
//!
//! Every node keeps nearly the same peer book: its pieces lie in memory once, for all disks of this thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use pqcnet_actor::hosted::digest;
use pqcnet_mesh::shelf::{Kind, Place};

use super::device::Device;

pub(super) struct Files(pub(super) Arc<Device>);

impl Place for Files {
    fn path(&self, kind: Kind) -> PathBuf {
        PathBuf::from(self.0.name()).join(kind.file())
    }

    fn read(&self, kind: Kind, most: u64) -> io::Result<Option<Vec<u8>>> {
        let found = self.0.file(kind);
        Ok(found.map(|file| {
            let mut bytes = file.pieces.concat();
            bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            bytes
        }))
    }

    fn replace(&self, kind: Kind, pieces: &[Vec<u8>]) -> io::Result<()> {
        match self.0.replace_file(kind, SimFile::new(pieces)) {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// What is in a file.
#[derive(Clone, Debug)]
pub(super) struct SimFile {
    pieces: Vec<Arc<[u8]>>,
    bytes: u64,
}

impl SimFile {
    fn new(pieces: &[Vec<u8>]) -> SimFile {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces = pieces.iter().map(|piece| shared(piece)).collect();
        SimFile { pieces, bytes }
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Pieces that are held, by their digests.
#[derive(Default)]
struct Pieces {
    held: BTreeMap<u64, Weak<[u8]>>,
    sweep_at: usize,
}

/// Fewer are never looked through for those that nobody holds any more.
const SWEEP_AT: usize = 256;

thread_local! {
    static PIECES: RefCell<Pieces> = RefCell::default();
}

fn shared(piece: &[u8]) -> Arc<[u8]> {
    PIECES.with_borrow_mut(|pieces| pieces.get(piece))
}

impl Pieces {
    fn get(&mut self, piece: &[u8]) -> Arc<[u8]> {
        let name = digest(piece);
        let held = self.held.get(&name).and_then(Weak::upgrade);
        if let Some(held) = held.filter(|held| **held == *piece) {
            return held;
        }
        if self.held.len() >= self.sweep_at.max(SWEEP_AT) {
            self.held.retain(|_, held| held.strong_count() > 0);
            let left = self.held.len();
            self.sweep_at = left + left / 4;
        }
        let new: Arc<[u8]> = piece.into();
        self.held.insert(name, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the same piece in two files, a third that differs, then files that come and go.
    #[test]
    fn pieces_are_shared() {
        let file = |pieces: &[&[u8]]| {
            let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
            SimFile::new(&pieces)
        };
        let (one, other) = (file(&[b"head", b"node a"]), file(&[b"tail", b"node a"]));
        assert_eq!(
            (one.bytes(), one.pieces.concat()),
            (10, b"headnode a".to_vec())
        );
        assert!(Arc::ptr_eq(&one.pieces[1], &other.pieces[1]));
        assert!(!Arc::ptr_eq(&one.pieces[0], &other.pieces[0]));
        for n in 0..5_000_u32 {
            drop(file(&[&n.to_be_bytes()]));
        }
        assert!(PIECES.with_borrow(|pieces| pieces.held.len()) <= SWEEP_AT + 4);
        assert!(Arc::ptr_eq(&one.pieces[0], &file(&[b"head"]).pieces[0]));
    }
}
