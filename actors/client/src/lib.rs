//! The client crate for integrators: connect, publish, subscribe, ask.
