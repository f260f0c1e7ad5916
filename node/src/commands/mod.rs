//! The commands of `pqcnet`. Data goes to standard output, everything else to standard error.
#![allow(
    clippy::print_stdout,
    reason = "a command's data belongs on standard output"
)]

pub mod config;
pub mod keys;
