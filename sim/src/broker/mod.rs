//! A message broker on the simulated network: streams, confirms, locks, and how it dies.
//!
//! ```text
//!   relayer: BrokerLog over SimBroker ── byte stream, frames ([`wire`]) ──▶ serve ──▶ Shelf
//!            (the production keeper,                                        (a node     what it keeps, and
//!             its spill, its readers)                                        of its own)  who holds which lock
//! ```
//!
//! It does to the log what a RabbitMQ does: confirms come late and only once a message is kept; what was not confirmed may
//! be in the stream after a death, or not; a lock goes with its connection; a broker may forget that it has streams until
//! somebody mends it. What it confirmed it has: it stands for three nodes of which a majority survives. It keeps everything.

mod serve;
mod shelf;
mod transport;
mod wire;

pub(crate) use serve::serve;
pub use shelf::Shelf;
pub use transport::SimBroker;

/// Where brokers listen: AMQP's port.
pub(crate) const PORT: u16 = 5_672;
