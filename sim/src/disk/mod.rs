//! A node's disk in memory: it survives its node, and loses in a crash what was not synced.
//!
//! ```text
//!   node (one incarnation)                          the world
//!   EmbeddedLog ─submit─▶ MemStore ─┐                crash, fill, slow down, stall, fail, lie
//!   Herald, Registrar ─▶ Shelf ─────┤                    │
//!                                   ▼                    ▼
//!                       queue ─ one write under way ─ Disk ─── what is durable
//! ```
//!
//! - [`Disk`] is the disk. [`Disk::mount`] gives one incarnation of its node a [`MemStore`], on which the production log
//!   runs; [`Disk::shelf`] is where the mesh keeps its files. Times are virtual, to tokio's millisecond. A relayer's disk has a
//!   second store with a writer of its own, its meter's: what befalls the disk befalls both; each has all of its room.
//! - A **crash** loses what waits for the writer. Of the group that is being written some bytes have reached the disk: the
//!   batches that lie wholly in them survive, the batch that is torn does not, as a checksum in a write-ahead log would
//!   have it. RocksDB writes a group as one record, and so keeps all of it or nothing: what happens here is harder, and
//!   within what [`Store`](pqcnet_store::Store) promises.
//! - A **failed** write leaves the same behind and tells its callers, to whom its fate is unknown.
//! - A **full** disk refuses a group before anything of it is written, as the production store does. Its room is counted in
//!   bytes of keys and values that are live: no write amplification, no compaction.
//! - A disk that **lies** says that it synced and did not: a crash brings back how it was when it began to lie. No promise
//!   of the network holds on such a disk; tests have it to see that this is noticed.
//! - Not modelled: bits that flip at rest, and reads that take time or fail.

mod data;
mod device;
mod handle;
mod shelf;
mod store;

pub use device::{Crashed, DiskConfig, DiskCounts, Speed};
pub use handle::Disk;
pub use store::MemStore;
