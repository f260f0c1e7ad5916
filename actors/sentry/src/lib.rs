//! The sentry: one session a client link, one uplink a relayer.
#![allow(dead_code)]
mod core;
