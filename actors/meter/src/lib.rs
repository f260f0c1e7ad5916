//! Metering: what a relayer stored and delivered for whom, in signed windows, with receivers' receipts.
//!
//! Spec: docs/spec/metering.md.
//!
//! ```text
//!   ShardWorkers ◀── TakeVolume ── Meter ── RelayCountersign ──▶ sentry ──▶ receiver
//!   Intakes ── NoteGrant ────────▶  │  └─ one synced batch a window ──▶ store
//!                                   └── CreateReport ──▶ a file that `core::verify` judges alone
//! ```
//!
//! - [`core`] has the rules: windows, receipts, reports and what is wrong with one; [`disk`] what is kept, [`restored`] what sets a
//!   restored copy of it apart.
//! - [`Meter`]: one a relayer, permanent. What it was told and had not kept comes again after a restart.

mod closing;
pub mod core;
pub mod disk;
mod meter;
pub mod restored;

pub use closing::{Identity, MAX_REPORT};
pub use meter::{BOUNDS, MAX_CUSTOMERS, Meter, MeterConfig};
