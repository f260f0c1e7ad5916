//! Keeps links to the peers a role needs: dialling with jittered backoff.
#![allow(dead_code)]
mod core;
