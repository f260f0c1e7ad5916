//! Looks at what a node may run out of: room on its store's disk, and file descriptors.
//!
//! ```text
//!   every 2 s: measure ─▶ core::levels ─┬─▶ Steward      what is low, as problems, and the figures
//!                                       ├─▶ ShardWorkers Room: without it they refuse what would be stored, and deliver on
//!                                       └─▶ Gate         Crowded: it takes nobody new
//! ```
//!
//! Rules live in [`crate::core::levels`]. Started by: every role, after the gate. A change of level is a line in the log,
//! an error, a warning or good news. The lines may be moved while the node runs ([`Limits`], by SIGHUP).
//! Mailbox: nothing is sent to it. A restart measures anew.

use std::hash::Hash as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use pqcnet_actor::latest;
use pqcnet_actor::{Behaviour, Class, Cx, Digest, Message, Ref, TellError};
use pqcnet_messages::relay_local::Room;

use crate::core::levels::{Gauge, Level, Lines};
use crate::problem::{Code, Problem};

/// Between looks. Two seconds of the fastest disk are less than the space between the usual critical line and nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Where the process's open descriptors are listed.
const OPEN_DESCRIPTORS: &str = "/proc/self/fd";

/// When something counts as low, and when as too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes free on the store's disk.
    pub disk: Lines,
    /// Descriptors that are not open, in percent of those that may be.
    pub descriptors: Lines,
}

impl Default for Limits {
    /// 1 GiB and 256 MiB of disk: seconds of writing at full speed, and twice what the store keeps for itself. A fifth
    /// and a twentieth of the descriptors.
    fn default() -> Self {
        Limits {
            disk: Lines::new(1 << 30, 256 << 20),
            descriptors: Lines::new(20, 5),
        }
    }
}

/// What somebody other than the steward noticed. Replaces everything that the same one said before.
#[derive(Debug, Hash)]
pub struct Noticed {
    /// Who says so.
    pub by: &'static str,
    /// What is wrong now.
    pub problems: Vec<Problem>,
    /// Figures, by name.
    pub counters: Vec<(String, u64)>,
}

impl Message for Noticed {
    type Reply = ();
    const NAME: &'static str = "roles.Noticed";
    const CLASS: Class = Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// To the gate: whether there are descriptors for another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crowded(pub bool);

impl Message for Crowded {
    type Reply = ();
    const NAME: &'static str = "roles.Crowded";
    const CLASS: Class = Class::Control;

    fn digest(&self, into: &mut Digest) {
        self.hash(into);
    }
}

/// Measures the disk; the platform brings it.
pub type FreeBytes = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// What is watched and who hears of it.
#[derive(Clone)]
pub struct WatchmanConfig {
    /// The lines, as they are now.
    pub limits: latest::Receiver<Limits>,
    /// Told with every look.
    pub facts: Vec<(String, u64)>,
    /// The store's folder and its measure, where the role keeps one.
    pub disk: Option<(PathBuf, FreeBytes)>,
    /// Reports it.
    pub steward: Ref<Noticed>,
    /// Store.
    pub workers: Vec<Ref<Room>>,
    /// Lets peers in.
    pub gate: Ref<Crowded>,
}

/// The actor.
pub struct Watchman {
    config: WatchmanConfig,
    disk: Gauge,
    descriptors: Gauge,
}

/// One look.
struct Seen {
    free: Option<u64>,
    /// Open, and how many may be.
    descriptors: Option<(u64, u64)>,
}

impl Watchman {
    /// Has not looked yet.
    pub fn new(config: WatchmanConfig) -> Watchman {
        Watchman {
            config,
            disk: Gauge::default(),
            descriptors: Gauge::default(),
        }
    }

    fn look(&mut self, cx: &mut Cx<Self>) {
        let disk = self
            .config
            .disk
            .as_ref()
            .map(|(_, measure)| measure.clone());
        // A simulated node shares its process with others: its descriptors tell nothing of it.
        let simulated = cx.env().is_simulated();
        let measure = move || Seen {
            free: disk.and_then(|measure| measure()),
            descriptors: if simulated { None } else { descriptors() },
        };
        // A pool without a place for it is busy, not full: the next look is soon.
        cx.offload(measure, |watchman, seen, _| {
            if let Ok(seen) = seen {
                watchman.judge(&seen);
            }
        });
    }

    fn judge(&mut self, seen: &Seen) {
        let limits = *self.config.limits.borrow();
        let (mut problems, mut counters) = (Vec::new(), self.config.facts.clone());
        if let (Some((path, _)), Some(free)) = (&self.config.disk, seen.free) {
            counters.push(("disk_free_bytes".to_owned(), free));
            let what = format!(
                "{} MiB are free on the disk of {}",
                free >> 20,
                path.display()
            );
            if let Some(before) = self.disk.measure(limits.disk, free) {
                told(before, self.disk.level(), &what);
            }
            let line = |bytes: u64| format!("the line is at {} MiB", bytes >> 20);
            match self.disk.level() {
                Level::Fine => {}
                Level::Low => {
                    problems.push(Code::DiskLow.problem(what).because(line(limits.disk.low)))
                }
                Level::Critical => {
                    let why = format!(
                        "{}: nothing more is stored, deliveries go on",
                        line(limits.disk.critical)
                    );
                    problems.push(Code::DiskFull.problem(what).because(why));
                }
            }
            let writable = self.disk.level() < Level::Critical;
            for worker in &self.config.workers {
                tell(worker, Room { writable });
            }
        }
        if let Some((open, most)) = seen.descriptors {
            counters.push(("descriptors_open".to_owned(), open));
            counters.push(("descriptors_limit".to_owned(), most));
            let left = most.saturating_sub(open).saturating_mul(100) / most.max(1);
            let what = format!("{open} of {most} file descriptors are open");
            if let Some(before) = self.descriptors.measure(limits.descriptors, left) {
                told(before, self.descriptors.level(), &what);
            }
            match self.descriptors.level() {
                Level::Fine => {}
                Level::Low => problems.push(Code::DescriptorsLow.problem(what)),
                Level::Critical => {
                    let why = "no new links are taken, those that stand go on";
                    problems.push(Code::DescriptorsOut.problem(what).because(why));
                }
            }
            tell(
                &self.config.gate,
                Crowded(self.descriptors.level() == Level::Critical),
            );
        }
        let by = "watchman";
        tell(
            &self.config.steward,
            Noticed {
                by,
                problems,
                counters,
            },
        );
    }
}

/// Said again at the next look, so a full mailbox loses nothing that lasts.
fn tell<M: Message>(to: &Ref<M>, message: M) {
    match to.try_tell(message) {
        Ok(()) => {}
        Err(TellError::Full(_) | TellError::Closed(_)) => {
            tracing::debug!(to = to.path().as_str(), "did not hear what was seen");
        }
    }
}

fn told(before: Level, now: Level, what: &str) {
    match now {
        Level::Critical => tracing::error!(what, "too little is left"),
        Level::Low if before == Level::Critical => {
            tracing::warn!(what, "low, and no longer critical")
        }
        Level::Low => tracing::warn!(what, "low"),
        Level::Fine => tracing::info!(what, "enough again"),
    }
}

/// Whether the process, or the whole system, may open nothing more.
fn is_used_up(error: &std::io::Error) -> bool {
    let used_up = [Errno::EMFILE, Errno::ENFILE].map(|errno| errno as i32);
    error
        .raw_os_error()
        .is_some_and(|errno| used_up.contains(&errno))
}

/// Open descriptors and the soft limit; `None` where the system does not tell.
fn descriptors() -> Option<(u64, u64)> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let open = match std::fs::read_dir(OPEN_DESCRIPTORS) {
        // The listing itself is one of them.
        Ok(listed) => u64::try_from(listed.count().saturating_sub(1)).ok()?,
        // None was left for the listing.
        Err(error) if is_used_up(&error) => soft,
        Err(_) => return None,
    };
    Some((open, soft))
}

impl Behaviour for Watchman {
    const NAME: &'static str = "Watchman";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.look(cx);
        cx.every(LOOK_EVERY, Self::look);
    }

    fn describe(&self) -> String {
        let (disk, descriptors) = (self.disk.level(), self.descriptors.level());
        format!("disk {disk:?}, descriptors {descriptors:?}")
    }
}
