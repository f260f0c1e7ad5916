//! `pqcnet demo`: a whole network on loopback carries real input, and proves at the far end what arrived.
//!
//! ```text
//!   input ─▶ demo ── lines of each channel ──▶ publisher ══▶ sentry ══▶ relayer 1, 2 ══▶ sentry ══▶ subscriber
//!              │                               (process)    (process)   (processes)                (process)
//!              └── expected count and hash of each channel ── must equal ── what the subscriber saw ──┘
//! ```
//!
//! Every box is a process of its own. Order is proven by the hash: it runs over the channel's payloads with their lengths.
//! Everything lives in a temporary folder and in child processes; both go at the end, also on Ctrl-C and on failure.
#![allow(
    clippy::print_stdout,
    reason = "the account and the parts' words are data"
)]

mod account;
mod input;
mod parts;
pub mod publisher;
mod run;
pub mod subscriber;

use std::path::PathBuf;

use clap::Args;

pub use run::run;

/// What the demo carries.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// A file or folder, a message a line (a line over 64 KiB is several); without it standard input if something is piped in, else the project's own
    /// source files.
    #[arg(long, short)]
    pub input: Option<PathBuf>,
    /// Channels, used in turn.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub channels: u16,
    /// Stop reading after so many messages.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=2_000_000))]
    pub max_messages: u64,
}
