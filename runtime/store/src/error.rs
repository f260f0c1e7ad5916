//! What can go wrong with a disk, one enum an operation.

use std::path::PathBuf;

use crate::Batch;

/// Why a store did not open. All but `Engine` and `Corrupt` are for the operator to settle.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has it open.
    #[error("{path} is in use by {}: stop that process or choose another folder",
        .holder.map_or("another process".to_owned(), |p| format!("process {p}")), path = path.display())]
    Locked {
        /// The store's folder.
        path: PathBuf,
        /// Process id that the holder wrote into the lock file.
        holder: Option<u32>,
    },
    /// Written by a newer program.
    #[error("{path} has disk format {found}, this program reads up to {supported}: use the newer program", path = path.display())]
    TooNew {
        /// The store's folder.
        path: PathBuf,
        /// Version in `FORMAT`.
        found: u32,
        /// Newest version this program knows.
        supported: u32,
    },
    /// The folder holds a store of another kind.
    #[error("{path} holds a {found} store, not a {wanted} store", path = path.display())]
    WrongKind {
        /// The store's folder.
        path: PathBuf,
        /// Kind in `FORMAT`.
        found: String,
        /// Kind that was asked for.
        wanted: &'static str,
    },
    /// The folder holds something, but no readable `FORMAT`.
    #[error("{path} is not empty and not a store: choose an empty folder", path = path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What is on disk does not check out; it is left as found.
    #[error("{path} is damaged: {detail}", path = path.display())]
    Corrupt {
        /// The store's folder.
        path: PathBuf,
        /// The engine's words; they name the file.
        detail: String,
    },
    /// Opening writes, and there is no room for that.
    #[error("opening {path} needs {needed} bytes of room on its disk: make room there ({detail})", path = path.display())]
    NoRoom {
        /// The store's folder.
        path: PathBuf,
        /// What is written at most.
        needed: u64,
        /// The system's answer.
        detail: String,
    },
    /// RocksDB refused for another reason.
    #[error("opening {path}: {detail}", path = path.display())]
    Engine {
        /// The store's folder.
        path: PathBuf,
        /// The engine's words.
        detail: String,
    },
}

/// Why a batch did not become durable. Its outcome is unknown: part of a group may be found on disk later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No room. Writing resumes by itself when there is.
    #[error("the disk is full: {detail}")]
    Full {
        /// What was found.
        detail: String,
    },
    /// The disk or the engine failed. The next batch tries again.
    #[error("the disk failed: {detail}")]
    Io {
        /// The engine's words.
        detail: String,
    },
    /// What is on disk does not check out, so nothing is added to it.
    #[error("the store is damaged: {detail}")]
    Corrupt {
        /// The engine's words; they name the file.
        detail: String,
    },
    /// A batch names a family that the schema lacks: a bug of the caller.
    #[error("bug: family {0} is not in the schema")]
    UnknownFamily(&'static str),
    /// The store closed before the batch's turn.
    #[error("the store is closed")]
    Closed,
}

/// Why a batch was not taken; it comes back.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full: wait for an earlier [`Commit`](crate::Commit).
    #[error("the write queue is full")]
    Busy(Batch),
    /// Larger than the queue will ever hold: a bug of the caller.
    #[error("bug: a batch of {} bytes exceeds the queue", .0.byte_len())]
    TooLarge(Batch),
    /// The store is closed.
    #[error("the store is closed")]
    Closed(Batch),
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A stored block does not match its checksum; nothing of it was served.
    #[error("damaged block in {family}: {detail}")]
    Corrupt {
        /// Where.
        family: &'static str,
        /// The engine's words; they name the file.
        detail: String,
    },
    /// The disk or the engine failed.
    #[error("reading {family}: {detail}")]
    Io {
        /// Where.
        family: &'static str,
        /// The engine's words.
        detail: String,
    },
    /// The schema lacks this family: a bug of the caller.
    #[error("bug: family {0} is not in the schema")]
    UnknownFamily(&'static str),
    /// The database could not be reopened after a failed write; the next write tries again.
    #[error("the store is not open")]
    Closed,
}
