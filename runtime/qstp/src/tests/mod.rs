//! In-crate tests: two cores and a fake clock. What needs no secrets of the crate is tested in `tests/`.

mod handshake;
mod hostile;
mod ledger;
mod misbehaviour;
mod mutation;
mod net;
mod records;
mod retries;
mod vectors;
