//! The commands of `pqcnet`. Data goes to standard output, everything else to standard error.
#![allow(
    clippy::print_stdout,
    reason = "a command's data belongs on standard output"
)]

pub mod bundle;
pub mod cli;
pub mod config;
pub mod db;
pub mod dead_letters;
pub mod doctor;
pub mod identity;
pub mod keys;
pub mod network;
pub mod nodes;
pub mod pages;
pub mod ping;
pub mod publish;
pub mod report;
pub mod root;
pub mod status;
pub mod subscribe;
pub mod top;
pub mod ui;
pub mod up;
pub mod upkeep;
