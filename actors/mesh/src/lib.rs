//! The mesh: how nodes of a network find each other, judge each other, and learn what its root orders.
//!
//! ```text
//!            gossip, peers' pulls, operators                    links up and down, offences (steward)
//!                 │                │                                  │
//!            Registrar          Herald ◀──────────────────────────────┘
//!      directives, standings    adverts, peer book, scores, circle
//!                 │                │          │
//!             Authority ◀── bans ──┘      wanted ──▶ Dialler ── dials ── links ──▶ steward
//! ```
//!
//! - [`Registrar`] keeps the root's directives; what follows from them stands in the node's [`Authority`].
//! - [`Herald`] says what this node is, hears what others are, keeps peer book and scores, and chooses whom to link with.
//! - [`Dialler`] keeps one link to each wanted peer and tells its user when it is up and when it is gone.
//!
//! How to dial and to gossip is the role's; every rule is in [`core`]. Spec: docs/spec/control.md.

mod authority;
pub mod core;
mod dialler;
pub mod gossip;
mod herald;
mod registrar;
pub mod shelf;

pub use authority::{Authority, Bans, Rulings};
pub use core::book::{Route, Routes};
pub use core::standing::{Standing, Standings, Unusable};
pub use dialler::{Dial, Dialler, DiallerConfig, Linked, NotLinked, User, Wanted};
pub use herald::{Announce, Herald, HeraldConfig, View};
pub use registrar::{Registrar, RegistrarConfig, load_directives};
pub use shelf::{Shelf, ShelfError};
