//! Supervised actors on actix: behaviours, refs, bounded mailboxes, trees, Env.
//!
//! Business code names the traits of this crate; actix stays behind one file of it.
//!
//! ```text
//!   Tree ── starts ──> Cell (a task on an arbiter)
//!                       └─ Behaviour, built by its factory, handles messages one at a time
//!   Ref<M> ── Letter ──> Mail: Control | Request | Bulk, each exactly bounded
//!          <─ Reply ───
//! ```
//!
//! - A message is a type with a reply, a class and a name ([`Message`]). A behaviour implements [`On`] for each.
//! - [`Ref`] reaches whoever handles a message, on this node or over a link ([`Carrier`]).
//! - A panic ends an incarnation; what is queued survives, and whoever waits for an answer learns `Panicked`. The
//!   [`Tree`] above decides whether, when and with whom the actor comes back, and gives up past its [`Intensity`].
//! - [`Cx`] is an actor's way to timers, tasks, other actors and its own randomness; [`Env`] is the node's.
//! - [`simulate`] runs the same actors in virtual time (feature `simulation`).
//!
//! ```
//! use std::time::Duration;
//! use pqcnet_actor::{Behaviour, Cx, Message, On, Reply, Spec, Strategy, Tree};
//!
//! struct Add(u64);
//! impl Message for Add {
//!     type Reply = u64;
//!     const NAME: &'static str = "Add";
//! }
//!
//! struct Sum(u64);
//! impl Behaviour for Sum {
//!     const NAME: &'static str = "Sum";
//! }
//! impl On<Add> for Sum {
//!     fn on(&mut self, add: Add, _: &mut Cx<Self>) -> Reply<Add> {
//!         self.0 += add.0;
//!         Reply::Now(self.0)
//!     }
//! }
//!
//! pqcnet_actor::run("example", |env| async move {
//!     let mut tree = Tree::new("example", Strategy::OneForOne);
//!     let sum = tree.child(Spec::new("sum", |_| Sum(40))).of::<Add>();
//!     let running = tree.start(env);
//!     assert_eq!(sum.ask(Add(2), Duration::from_secs(1)).await, Ok(42));
//!     running.stop().await;
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod addr;
mod cell;
mod counters;
mod cx;
mod digest;
mod env;
mod error;
#[cfg(any(test, feature = "simulation"))]
pub mod hosted;
mod inspect;
pub mod latest;
mod mail;
mod message;
mod meters;
mod order;
mod path;
mod pause;
mod pool;
mod refs;
mod reply;
mod rng;
mod run;
#[cfg(any(test, feature = "simulation"))]
mod stopwatch;
mod supervise;
mod tasks;
mod timeout;
mod timers;
mod trace;
mod watch;

pub use addr::Addr;
pub use counters::CountersSnapshot;
pub use cx::Cx;
pub use digest::Digest;
pub use env::{DedicatedThread, Env, Offloaded, Passing, SIMULATED_WALL_START_MS, Task};
pub use error::{AskError, Exit, MAX_TIMEOUT, NurseryFull, OffloadError, TaskError, TellError};
pub use inspect::{ActorInfo, Inspector};
pub use mail::{Bounds, Life};
pub use message::{Behaviour, Class, Message, On, Stopping};
pub use meters::{
    BUCKETS, Counter, Distribution, Histogram, Labels, MakeMirror, MeterReading, Mirror, Reading,
};
pub use path::Path;
pub use pause::Pause;
pub use refs::{Carrier, Letter, Posting, Ref};
pub use reply::{Later, Pending, Promise, Reply, ReplyTo};
pub use rng::StreamRng;
#[cfg(any(test, feature = "simulation"))]
pub use run::simulate;
pub use run::{Threads, run, run_on};
#[cfg(any(test, feature = "simulation"))]
pub use stopwatch::Stopwatch;
pub use supervise::limiter::{Backoff, Intensity};
pub use supervise::nursery::Nursery;
pub use supervise::policy::{Restart, Strategy};
pub use supervise::spec::Spec;
pub use supervise::tree::{Running, Tree};
pub use timers::{Alarm, TimerId};
pub use trace::{IDS_FIELD, Ids, NoIds, Step, StepKind, TARGET as TRACE_TARGET, TraceCx};
pub use watch::{Down, DownReason, Incarnation, Watch, Watchable, Watcher};
