//! The mesh's files on a disk. Each is replaced whole and synced, so a crash leaves the one or the other.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pqcnet_mesh::shelf::{Kind, Place};

use super::device::Device;

pub(super) struct Files(pub(super) Arc<Device>);

impl Place for Files {
    fn path(&self, kind: Kind) -> PathBuf {
        PathBuf::from(self.0.name()).join(kind.file())
    }

    fn read(&self, kind: Kind, most: u64) -> io::Result<Option<Vec<u8>>> {
        let mut found = self.0.file(kind);
        if let Some(bytes) = &mut found {
            bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        }
        Ok(found)
    }

    fn replace(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        match self.0.replace_file(kind, bytes) {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}
