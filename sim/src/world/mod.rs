//! Whole nodes on one thread in virtual time.
//!
//! ```text
//!   World ── block_on ──▶ one actix System on a paused current-thread tokio
//!     │                     ├─ node 0: Env (scope of its own) ── role's tree on SimPlatform
//!     │                     ├─ node 1 ...
//!     │                     └─ the network's pump: one heap, one timer
//!     └─ Ledger: every message handled, every delivery ──▶ rolling hash, observers
//! ```
//!
//! - Time is a [`SimTime`], counted from the world's beginning. It jumps to the next timer or delivery when nothing can run.
//! - Randomness goes by name: [`stream_of`] (seed, node, actor, purpose). A node, an actor or a task that is added draws
//!   from a stream of its own and shifts nobody else's.
//! - A node starts, stops in order, is killed, loses its machine, starts again with the disk it had.
//! - What computes charges its node's CPU ([`Cpu`]); offloaded work is answered when its cost is over.
//! - While the world runs, a look at the machine's clock or at its entropy trips a wire, and the run fails ([`tripwire`]).

mod config;
mod cpu;
mod host;
mod ledger;
mod node;
mod platform;
mod run;
mod sources;
mod trace;
pub mod tripwire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use config::{CrashKind, NodeSpec, WorldConfig, WorldError};
pub use cpu::{Cpu, CpuSpec};
pub use ledger::{Event, EventKind, Hash, Ledger, Observer, Verdict};
pub use node::NodeState;
pub(crate) use platform::PREFIX;
pub use platform::SimPlatform;
pub use run::{Stopped, World};
pub(crate) use sources::fill as entropy;
pub use sources::stream_of;
pub use trace::{Difference, Recorded, Trace};

/// Time since the world began.
pub type SimTime = Duration;

/// A node's number, in the order of adding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNo(pub u32);

impl NodeNo {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node's name: what its randomness goes by, so it never changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// A name; lower-case letters, digits and `-` are usual.
    pub fn new(name: impl AsRef<str>) -> NodeName {
        NodeName(Arc::from(name.as_ref()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> NodeName {
        NodeName::new(name)
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> NodeName {
        NodeName(Arc::from(name))
    }
}
