//! What the binaries share: configuration, keys, start-up, admin pages, and the commands of `pqcnet`.

#[macro_use]
mod output;

pub mod admin;
pub mod clock;
pub mod commands;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod local;
pub mod notify;
pub mod observe;
pub mod operator;
pub mod ready;
pub mod reload;
pub mod service;
pub mod signals;
pub mod succession;
pub mod unlock;

pub use pqcnet_messages::Role;

/// Name and version, as links and reports carry it.
pub const SOFTWARE: &str = concat!("pqcnet/", env!("CARGO_PKG_VERSION"));
