//! Typed links, pure: frames, credits, asks, the [`Wire`] and [`Addressed`] traits.

pub mod ids;
pub mod wire;

pub use ids::{Class, Role, ServiceId, Trace, UnknownRole};
pub use wire::{Addressed, Wire, WireError};
