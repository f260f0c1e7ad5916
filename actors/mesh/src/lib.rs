//! Keeps links to the peers a role needs: dialling with jittered backoff.
//!
//! [`Dialler`] keeps one link to each wanted peer and tells its user when it is up and when it is gone. How to dial is the
//! role's; when to dial is [`core::peers`]'.

pub mod core;
mod dialler;

pub use dialler::{Dial, Dialler, DiallerConfig, Linked, User};
