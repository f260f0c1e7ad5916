//! Cross-crate tests: processes, conformance, house rules.
//!
//! The process tests drive the real binaries, so these must be built: `make test` does, as does
//! `cargo build -p pqcnet-node --bins`.

#[path = "../../runtime/log/tests/support/amqp_proxy.rs"]
pub mod amqp_proxy;
pub mod browser;
pub mod command;
pub mod disk;
pub mod hosts;
pub mod load;
pub mod network;
pub mod node;
pub mod otlp;
#[path = "../../runtime/log/tests/support/private_broker.rs"]
pub mod private_broker;
pub mod process;
pub mod proxy;
pub mod report;
pub mod tools;

/// Shared with the simulator.
pub use pqcnet_account as ledger;
