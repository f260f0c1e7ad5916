//! Supervision: who starts whom, in which order, how often again, and who learns when it cannot go on.
//!
//! ```text
//!   Running ── orders ──> supervisor task ── orders ──> Member: a cell, or a supervisor again
//!           <── exit ───    policy (pure)  <─ reports ──
//! ```
//!
//! Decisions are in [`plan`] (fixed children, ordered) and [`crowd`] (a nursery), both pure; [`driver`] carries
//! reports in and orders out.

pub(crate) mod crowd;
pub(crate) mod driver;
pub(crate) mod limiter;
pub(crate) mod member;
pub(crate) mod nursery;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod spec;
pub(crate) mod tree;

#[cfg(test)]
mod model;
