//! The client crate for integrators: connect, publish, subscribe, ask.
#![allow(dead_code)]
mod core;
