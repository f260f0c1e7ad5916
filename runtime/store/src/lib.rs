//! The disk: atomic batches into column families, written and synced by one thread a store, read on snapshots.
//!
//! ```text
//!   many callers ──submit(Batch)──▶ bounded queue ──group──▶ writer thread ──one synced write──▶ RocksDB
//!        ▲                                                        │
//!        └───────────── Commit (a future) ◀──── settled ──────────┘
//!   readers ──view(|v| v.get / v.scan)──▶ one snapshot, on the caller's thread
//! ```
//!
//! - [`Store`] is the trait that the floors above hold; [`RocksStore`] is the disk, a simulator brings memory.
//! - A batch is atomic. Batches settle in the order they were submitted, so a settled batch is also a barrier: whatever
//!   was submitted before it has settled too.
//! - A [`Commit`] that resolves to `Ok` survives the death of the process and of the machine (not the loss of the disk).
//!   One that resolves to an error is *unknown*: its batch may be found on disk later, or never.
//! - After a failed write the store stays readable. The next batch first tries to bring the disk back, so writing
//!   resumes by itself once there is room.
//! - A store whose writer panicked takes nothing more ([`RocksStore::writer_ended`] says so); whoever owns it must end or
//!   open it anew.
//! - [`Checker`] looks through a store that nobody uses and names what is damaged; [`backup`] copies one and puts it back.
//! - Closures given to [`Store::view`] run on the caller's thread: keep scans bounded, and never call `view` inside one.
//!
//! On disk: `FORMAT` (what this folder is and its version), `LOCK` (held by the one process that has it open, and its
//! process id), `db/` (RocksDB).

mod api;
pub mod backup;
mod batch;
mod check;
mod error;
mod folder;
mod framing;
mod merging;
mod meters;
mod opening;
mod queue;
mod rocks;
mod space;
mod writer;

pub use api::{Commit, Scan, Settle, Span, Store, View, Visit, commit_channel};
pub use batch::{Batch, Family, Op};
pub use check::{Checker, Damage, Looked, MAX_DAMAGE};
pub use error::{OpenError, ReadError, SubmitError, WriteError};
pub use rocks::{RocksStore, Schema, StoreConfig, StoreStats, WriterEnd};
pub use space::{FreeSpace, free_space_of};
