//! The rules of metering, pure: time, keys and what is on the disk come in as arguments.
//!
//! [`ledger`] turns workers' readings into [`record`]s; [`window`] binds those of one stretch of time together, under a
//! [`merkle`] root and one signature, each window naming the one before; [`report`] is the file that carries windows, grants
//! and receipts, and [`verify`] judges one. [`bytes`] reads and writes canonical bytes.

pub mod bytes;
pub mod ledger;
pub mod merkle;
pub mod record;
pub mod report;
pub mod verify;
pub mod window;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's helpers")]
pub(crate) mod testing;
