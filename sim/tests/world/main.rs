//! Worlds of whole nodes: that they work, that they repeat, and that what would keep them from it is found out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod computing;
mod first_light;
mod lives;
mod paths;
mod randomness;
mod sizes;
mod support;
mod wire;
