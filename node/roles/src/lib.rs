//! One supervision tree a role, generic over the [`Platform`] it stands on.
//!
//! | module | what |
//! |---|---|
//! | [`core`] | rules, pure |
//! | [`watchman`] | looks at what a node may run out of |
//! | [`caretaker`] | does what operators order: drain, back up |
//! | [`copies`] | a relayer's stores as one copy, and back |
//! | [`platform`] | what a role stands on; [`Machine`] is the real one |
//! | [`ground`] | checks and sockets before a tree starts |
//! | [`mesh`] | the mesh's actors, what peers get of them, gossip |
//! | [`gate`] | takes links in on both planes, checks roles by `network.toml` |
//! | [`outward`] | dials other nodes on both planes |
//! | [`problem`] | what can be wrong, its cause and its remedy |
//! | [`snapshot`] | what an operator sees of a node, its versioned form |
//! | [`steward`] | the node's account of itself; `control` service |
//! | [`sentry`], [`relayer`] | the trees |

pub mod caretaker;
pub mod copies;
pub mod core;
pub mod gate;
pub mod ground;
mod keeper;
pub mod mesh;
pub mod outward;
pub mod platform;
pub mod problem;
mod reach;
mod relayer;
mod sentry;
mod shards;
pub mod snapshot;
pub mod steward;
mod telling;
pub mod watchman;

pub use caretaker::{Care, Live, Metering};
pub use ground::{KeyVersions, MeterRefs, Setup, StartError, Started};
pub use platform::{Machine, Platform, PlatformError, Storage, log_schema};
pub use pqcnet_mesh::{Authority, Standing};
pub use reach::{Reach, UnknownReach};
pub use relayer::{MAX_SENTRIES, relayer};
pub use sentry::{MAX_CLIENTS, sentry};
