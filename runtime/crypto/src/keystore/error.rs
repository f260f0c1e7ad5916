use std::path::PathBuf;

use super::{Kind, Protection};

/// Why a key file was not created or opened, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// There is a file already; keys are never overwritten.
    #[error(
        "{path} exists already; keys are never overwritten: move it away or choose another path"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{path} does not exist; `pqcnet keys init` creates one")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// A link, folder, pipe or device stands there.
    #[error("{path} is not a regular file; name the key file itself, not a link to it")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody but the owner may read or change the file.
    #[error(
        "{path} is open to others (mode {mode:04o}): run `chmod 600 {path}`, and if others use this machine treat the keys as stolen"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error(
        "{path} belongs to user {owner}, this process runs as user {us}: run it as the owner or `chown` the file"
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// This process's user id.
        us: u32,
    },
    /// Another process changes the file.
    #[error("{path} is being changed by another process; try again when it is done")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is none of ours.
    #[error("{path} is not a PQCNet key file")]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// A later release wrote the file.
    #[error(
        "{path} has format version {found}, this release reads versions up to {known}: use the release that wrote it or a later one"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u16,
        /// The newest version that this release reads.
        known: u16,
    },
    /// A field holds a value that no release writes, or the length is wrong.
    #[error("{path} is damaged ({field}): restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// The file asks for more memory or time than an honest one.
    #[error(
        "{path} asks for {memory_kib} KiB, {passes} passes and {lanes} lanes of Argon2id, outside the bounds of an honest file: restore it from a backup"
    )]
    CostOutOfBounds {
        /// The file.
        path: PathBuf,
        /// Memory asked for, KiB.
        memory_kib: u32,
        /// Passes asked for.
        passes: u32,
        /// Lanes asked for.
        lanes: u32,
    },
    /// The file holds something else than was asked for.
    #[error("{path} holds {found}, needed is {needed}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: Kind,
        /// What was asked for.
        needed: Kind,
    },
    /// A key file was given for a file locked by a passphrase, or the other way round.
    #[error("{path} is locked by {locked_by}; give that to open it")]
    WrongUnlock {
        /// The file.
        path: PathBuf,
        /// What it takes.
        locked_by: Protection,
    },
    /// The passphrase or key file does not fit, or the file was altered; nobody can tell which.
    #[error("cannot unlock {path}: a wrong passphrase or key file, or the file was altered")]
    CannotUnlock {
        /// The file.
        path: PathBuf,
    },
    /// The opened seeds do not make the recorded identity: a bug or a broken machine, never an input.
    #[error("the keys in {path} do not make the identity it records; do not run on this machine")]
    Inconsistent {
        /// The file.
        path: PathBuf,
    },
    /// The wrapping key file has the wrong length.
    #[error("{path} has {got} bytes, a key file has 32 random bytes (`head -c 32 /dev/urandom`)")]
    WrappingKeyLength {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        got: u64,
    },
    /// A passphrase too short to protect anything, or absurdly long.
    #[error("a passphrase has {min} to {max} bytes, this has {got}")]
    PassphraseLength {
        /// Fewest bytes.
        min: usize,
        /// Most bytes.
        max: usize,
        /// Bytes given.
        got: usize,
    },
}
