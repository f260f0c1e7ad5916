//! The network between nodes: one heap of deliveries, one model of links, for ordered streams and for datagrams.
//!
//! ```text
//!   SimStream::poll_write ─┐                        ┌─▶ the other end's poll_read
//!   dial, close, drop ─────┼─▶ link: when does it ──┼─▶ a listener's queue
//!   Net::send (datagrams) ─┘   arrive, if at all    └─▶ a Mailbox
//!                              │
//!                        heap of (time, number)
//! ```
//!
//! What a link does to a **stream**: latency and jitter, never out of order; a lost segment comes one retransmission
//! timeout later, and holds up what is behind it; over a cut path nothing comes, and the sender tries again with doubling
//! pauses until it is whole or a quarter of an hour is over. To a **datagram**: it may be lost, come twice, come late, or
//! not at all. Both queue for the link's bandwidth. Times are exact to the nanosecond in the heap; the clock that nodes see
//! moves by milliseconds, tokio's grain, and a delivery is made at the nearest one.

mod conns;
mod deliver;
mod engine;
mod host;
mod link;
mod mailbox;
mod parcel;
mod stream;
mod streams;

pub use engine::{Net, NetCounts};
pub use host::{Cut, Nat};
pub use link::{Bandwidth, Link, LinkModel, Site, Uniform};
pub use mailbox::{Arrival, Mailbox};
pub use parcel::{Came, Inbox, Parcel};
pub use stream::SimStream;
pub(crate) use streams::SimListener;
pub use streams::SimStreams;
