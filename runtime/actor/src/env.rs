//! What an actor may ask of the world: time, randomness, tasks, threads, and where it runs.
//!
//! | kind       | clock             | randomness           | offload   | actors                   |
//! |------------|-------------------|----------------------|-----------|--------------------------|
//! | production | the machine's     | seeded by the OS     | a pool    | on the System's arbiters |
//! | plain      | the machine's     | seeded by the OS     | a pool    | none: any tokio runtime  |
//! | simulated  | tokio's, paused   | from the seed        | inline    | all on one thread        |
//!
//! A simulated node may be *hosted* by a world (`hosted`, feature `simulation`): then everything of it runs as a scope of its
//! own, offloaded work takes as long as it is charged, and the node can be killed.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
#[cfg(any(test, feature = "simulation"))]
use std::hash::Hasher as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix_rt::{ArbiterHandle, System};
use rand::rngs::SysRng;
use rand_core::TryRng;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::counters::{Counters, CountersSnapshot};
#[cfg(any(test, feature = "simulation"))]
use crate::digest::Digest;
#[cfg(any(test, feature = "simulation"))]
use crate::error::OffloadError;
#[cfg(any(test, feature = "simulation"))]
use crate::hosted::{Handled, Hosted, Node, Scope, Scoped};
#[cfg(any(test, feature = "simulation"))]
use crate::message::Message;
use crate::meters::{Counter, Histogram, Labels, MeterReading, Meters, Mirror};
use crate::path::Path;
use crate::pool::{self, Pool};
use crate::rng::StreamRng;
use crate::trace::{Step, StepKind, TraceCx, Tracer};

mod handles;

pub use handles::{DedicatedThread, Offloaded, Task};

/// The wall clock of every simulation at its start: 2026-01-01T00:00:00Z.
pub const SIMULATED_WALL_START_MS: u64 = 1_767_225_600_000;

/// A node's surroundings. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

struct Inner {
    node: Arc<str>,
    kind: Kind,
    seed: [u8; 32],
    /// Streams opened so far; part of each key, so that no stream is ever handed out twice.
    streams: Arc<AtomicU64>,
    started: Instant,
    wall_start_ms: u64,
    runtime: Handle,
    arbiters: Arc<[ArbiterHandle]>,
    pool: Arc<Pool>,
    counters: Arc<Counters>,
    meters: Arc<Meters>,
    tracer: Arc<Tracer>,
    /// The scope of the node itself, where a world hosts it.
    #[cfg(any(test, feature = "simulation"))]
    hosted: Option<Arc<Scope>>,
}

/// What a link does with a message that came. Other than [`Passing::Through`] only in a simulated world that has its node
/// break the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// Passes it on.
    Through,
    /// Loses it.
    Lost,
    /// Passes it on twice.
    Twice,
    /// Passes on something else of the same length.
    Altered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Production,
    Plain,
    Simulated,
}

impl Env {
    /// The environment of a production node, on the actix System of this thread. [`crate::run`] makes it with
    /// arbiters of its own; made directly, every actor runs on this thread.
    ///
    /// # Panics
    /// Outside an actix System, or when the operating system has no randomness.
    pub fn production(node: &str) -> Env {
        let main = System::current().arbiter().clone();
        Env::with_arbiters(node, vec![main])
    }

    pub(crate) fn with_arbiters(node: &str, arbiters: Vec<ArbiterHandle>) -> Env {
        Env::build(node, Kind::Production, os_seed(), arbiters)
    }

    /// Clock, randomness, tasks, threads and sleep on the ambient tokio runtime; actors cannot be started in it.
    ///
    /// # Panics
    /// Outside a tokio runtime, or when the operating system has no randomness.
    pub fn plain() -> Env {
        Env::build("plain", Kind::Plain, os_seed(), Vec::new())
    }

    /// The environment of one simulated node. Call it inside [`crate::simulate`], or in any actix System on a
    /// paused current-thread tokio. The same seed and node name give the same streams.
    ///
    /// # Panics
    /// Outside an actix System.
    pub fn simulated(seed: u64, node: &str) -> Env {
        let main = System::current().arbiter().clone();
        Env::build(node, Kind::Simulated, seed_bytes(seed), vec![main])
    }

    /// The environment of one start of a node in a simulated world; as [`Env::simulated`] otherwise.
    ///
    /// # Panics
    /// Outside an actix System.
    #[cfg(any(test, feature = "simulation"))]
    pub fn hosted(hosted: Hosted) -> Env {
        let main = System::current().arbiter().clone();
        let seed = seed_bytes(hosted.seed);
        let mut inner = Env::inner(&hosted.name, Kind::Simulated, seed, vec![main]);
        let node = Node::new(hosted, seed, SIMULATED_WALL_START_MS);
        inner.hosted = Some(Scope::named(&node, ""));
        Env(Arc::new(inner))
    }

    fn build(node: &str, kind: Kind, seed: [u8; 32], arbiters: Vec<ArbiterHandle>) -> Env {
        Env(Arc::new(Env::inner(node, kind, seed, arbiters)))
    }

    fn inner(node: &str, kind: Kind, seed: [u8; 32], arbiters: Vec<ArbiterHandle>) -> Inner {
        let threads = match kind {
            Kind::Simulated => 1,
            // Disk reads share the pool with CPU work, so two more than there are cores.
            Kind::Production | Kind::Plain => cores() + 2,
        };
        let (started, wall_start_ms) = match kind {
            Kind::Simulated => (simulation_start(), SIMULATED_WALL_START_MS),
            Kind::Production | Kind::Plain => (monotonic(), wall_clock_ms()),
        };
        Inner {
            node: Arc::from(node),
            kind,
            seed,
            streams: Arc::default(),
            started,
            wall_start_ms,
            runtime: Handle::current(),
            arbiters: arbiters.into(),
            pool: Arc::new(Pool::new(threads, pool::QUEUE)),
            counters: Arc::default(),
            meters: Arc::default(),
            tracer: Arc::new(Tracer::new(&seed, node)),
            #[cfg(any(test, feature = "simulation"))]
            hosted: None,
        }
    }

    /// The same environment under another node name.
    pub fn named(&self, node: &str) -> Env {
        let inner = &*self.0;
        Env(Arc::new(Inner {
            node: Arc::from(node),
            kind: inner.kind,
            seed: inner.seed,
            streams: Arc::clone(&inner.streams),
            started: inner.started,
            wall_start_ms: inner.wall_start_ms,
            runtime: inner.runtime.clone(),
            arbiters: Arc::clone(&inner.arbiters),
            pool: Arc::clone(&inner.pool),
            counters: Arc::clone(&inner.counters),
            meters: Arc::clone(&inner.meters),
            tracer: Arc::clone(&inner.tracer),
            #[cfg(any(test, feature = "simulation"))]
            hosted: inner.hosted.clone(),
        }))
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Whether this is a simulation.
    pub fn is_simulated(&self) -> bool {
        self.0.kind == Kind::Simulated
    }

    /// Monotonic time since an arbitrary start.
    #[inline]
    pub fn now(&self) -> Duration {
        monotonic().saturating_duration_since(self.0.started)
    }

    pub(crate) fn instant_of(&self, now: Duration) -> Instant {
        // A time beyond the clock's range is never: a century is far enough.
        let century = Duration::from_secs(100 * 365 * 86_400);
        self.0.started + now.min(century)
    }

    /// Milliseconds since the Unix epoch. In production this follows the machine's clock, which may jump.
    pub fn wall_ms(&self) -> u64 {
        match self.0.kind {
            Kind::Production | Kind::Plain => wall_clock_ms(),
            Kind::Simulated => {
                #[cfg(any(test, feature = "simulation"))]
                if let Some(root) = &self.0.hosted {
                    return root.node().wall_ms(self.now());
                }
                let elapsed = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
                self.0.wall_start_ms.saturating_add(elapsed)
            }
        }
    }

    /// A clock for what computing takes: the monotonic one, except in a simulated world, where it moves by what is charged
    /// to this thread.
    pub fn computing(&self) -> Duration {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            return root.node().host().charged();
        }
        self.now()
    }

    /// A random stream of its own for `purpose`; no two calls give the same one. In a simulation it depends on the
    /// seed, the node, the purpose and how many streams were opened before; in a simulated world, how many for this purpose.
    pub fn rng(&self, purpose: &str) -> StreamRng {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            let n = root.node().turn_of(purpose);
            return root
                .node()
                .stream(&[b"env", purpose.as_bytes(), &n.to_be_bytes()]);
        }
        let n = self.0.streams.fetch_add(1, Relaxed);
        StreamRng::derive(
            &self.0.seed,
            &[
                b"env",
                self.0.node.as_bytes(),
                purpose.as_bytes(),
                &n.to_be_bytes(),
            ],
        )
    }

    /// The stream of one incarnation of the actor at `path`. In a simulation it does not depend on what else runs.
    pub(crate) fn actor_rng(&self, path: &str, incarnation: u32) -> StreamRng {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            let n = incarnation.to_be_bytes();
            return root.node().stream(&[b"actor", path.as_bytes(), &n]);
        }
        let n = match self.0.kind {
            Kind::Simulated => u64::from(incarnation),
            // Paths may come back; in production a stream must not.
            Kind::Production | Kind::Plain => self.0.streams.fetch_add(1, Relaxed),
        };
        let node = self.0.node.as_bytes();
        StreamRng::derive(
            &self.0.seed,
            &[b"actor", node, path.as_bytes(), &n.to_be_bytes()],
        )
    }

    /// Runs a future on the node's runtime, detached. A panic in it is logged and ends only it.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.task(future));
    }

    /// Runs a future on the node's runtime. Dropping the handle detaches it.
    pub fn task<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            let scope = Scope::current_or(root).child();
            let task = self.0.runtime.spawn(Scoped::new(scope, future));
            root.node().remember(task.abort_handle());
            if root.node().is_over() {
                task.abort();
            }
            return Task(task);
        }
        Task(self.0.runtime.spawn(future))
    }

    /// Waits.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        tokio::time::sleep(duration)
    }

    /// Moves a sleep's end to `at` of [`Env::now`]'s time. To a later time this costs next to nothing, to an earlier one as much
    /// as a new sleep.
    pub fn reset(&self, sleep: Pin<&mut Sleep>, at: Duration) {
        sleep.reset(self.instant_of(at));
    }

    /// Runs CPU work or blocking reads off this thread, on the node's pool; in a simulation at once, inline, and in a
    /// simulated world its result arrives when its cost is over. The work is under way whether or not the future is polled.
    pub fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Offloaded<T> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            let host = root.node().host();
            let (tx, rx) = oneshot::channel();
            if host.begin_work() {
                let outcome = pool::run_caught(work);
                host.finish_work(Box::new(move || drop(tx.send(outcome))));
            } else {
                let limit = pool::QUEUE;
                drop(tx.send(Err(OffloadError::Busy { limit })));
            }
            return Offloaded(rx);
        }
        if self.is_simulated() {
            let (tx, rx) = oneshot::channel();
            drop(tx.send(pool::run_caught(work)));
            return Offloaded(rx);
        }
        Offloaded(self.0.pool.submit(work))
    }

    /// A thread for work that blocks for the node's whole life, such as a store's one writer. A simulation has none.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where node code gets a thread; its owner ends and joins it"
    )]
    pub fn dedicated_thread(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<DedicatedThread> {
        if self.is_simulated() {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        std::thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .map(DedicatedThread)
    }

    /// How many arbiters actors are placed on; 0 in a plain environment.
    pub fn arbiters(&self) -> usize {
        self.0.arbiters.len()
    }

    /// What was lost or refused in this node so far.
    pub fn counters(&self) -> CountersSnapshot {
        self.0.counters.snapshot()
    }

    pub(crate) fn count(&self) -> &Counters {
        &self.0.counters
    }

    // ---- a simulated world ----

    /// Ends everything that runs in this hosted node where it is, without a word: its process has died.
    #[cfg(any(test, feature = "simulation"))]
    pub fn kill(&self) {
        if let Some(root) = &self.0.hosted {
            root.node().kill();
        }
    }

    /// Moves a hosted node's wall clock by so much, and lets it run fast by so many millionths from now on.
    #[cfg(any(test, feature = "simulation"))]
    pub fn move_wall(&self, jump_ms: i64, drift_ppm: i32) {
        if let Some(root) = &self.0.hosted {
            root.node().move_wall(self.now(), jump_ms, drift_ppm);
        }
    }

    /// Runs `f` as this hosted node itself.
    #[cfg(any(test, feature = "simulation"))]
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.0.hosted {
            Some(root) => root.enter(f),
            None => f(),
        }
    }

    /// A link passes on a message that came in these bytes: for a world that watches its nodes, and has some of them do
    /// otherwise with what they get.
    #[inline]
    pub fn passed_on(&self, link: &Path, message: &'static str, bytes: &[u8]) -> Passing {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            return root.node().host().handled(&Handled {
                actor: link,
                message,
                len: bytes.len(),
                digest: crate::hosted::digest(bytes),
                remote: true,
            });
        }
        #[cfg(not(any(test, feature = "simulation")))]
        let _ = (link, message, bytes);
        Passing::Through
    }

    /// Whether this node forwards what it hears of others; one that a world makes selfish does not.
    pub fn forwards(&self) -> bool {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(root) = &self.0.hosted {
            return root.node().host().forwards();
        }
        true
    }

    /// An actor is about to handle a message.
    #[cfg(any(test, feature = "simulation"))]
    #[inline]
    pub(crate) fn handles<M: Message>(&self, actor: &Path, message: &M) {
        if let Some(root) = &self.0.hosted {
            let mut digest = Digest::new();
            message.digest(&mut digest);
            let _ = root.node().host().handled(&Handled {
                actor,
                message: M::NAME,
                len: size_of::<M>(),
                digest: digest.finish(),
                remote: false,
            });
        }
    }

    /// The scope of an actor of this hosted node.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn scope_of(&self, actor: &Path) -> Option<Arc<Scope>> {
        let root = self.0.hosted.as_ref()?;
        Some(Scope::named(root.node(), actor.as_str()))
    }

    // ---- meters and traces ----

    /// The node's counter of this name and these labels; made by whoever asks first.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels) -> Counter {
        self.0.meters.counter(name, help, labels)
    }

    /// The node's histogram of this name and these labels; made by whoever asks first.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: Labels) -> Histogram {
        self.0.meters.histogram(name, help, labels)
    }

    /// Hands every observation of every histogram on, those to come included, to a mirror that `make` makes for each. Only
    /// the first call does; false tells a later one.
    pub fn mirror_histograms(
        &self,
        make: impl Fn(&'static str, &'static str, Labels) -> Mirror + Send + Sync + 'static,
    ) -> bool {
        self.0.meters.mirror(Box::new(make))
    }

    /// What every counter and histogram shows, by name and labels.
    pub fn meters(&self) -> Vec<MeterReading> {
        self.0.meters.read()
    }

    /// Of the work that comes to this node without a trace, this part begins one that is sampled: 0 (as made) none,
    /// 1 all of it.
    pub fn set_sampling(&self, ratio: f64) {
        self.0.tracer.set_ratio(ratio);
    }

    /// A new trace that is sampled, or as often as not sampled none.
    #[inline]
    pub fn begin_trace(&self) -> TraceCx {
        self.0.tracer.begin()
    }

    /// Begins a step of a trace, to be ended by dropping it. `None` where nothing is recorded: the trace is not
    /// sampled, or this process exports no spans.
    #[inline]
    pub fn step(
        &self,
        cx: TraceCx,
        name: &'static str,
        kind: StepKind,
        actor: &dyn fmt::Display,
    ) -> Option<Step> {
        self.0.tracer.step(cx, name, kind, actor)
    }

    /// The arbiter for `key`; `None` in a plain environment. No key: the main one.
    pub(crate) fn arbiter(&self, key: Option<u64>) -> Option<&ArbiterHandle> {
        let arbiters = &self.0.arbiters;
        match key {
            None => arbiters.first(),
            Some(key) => {
                let n = u64::try_from(arbiters.len()).unwrap_or(1).max(1);
                arbiters.get(usize::try_from(key % n).unwrap_or(0))
            }
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Env({:?}, {})", self.0.kind, self.0.node)
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}

fn os_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    if let Err(error) = SysRng.try_fill_bytes(&mut seed) {
        // A node without randomness must not run.
        panic!("the operating system has no randomness: {error}");
    }
    seed
}

#[expect(clippy::disallowed_methods, reason = "Env is where time comes from")]
#[inline]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "Env is where time comes from")]
fn wall_clock_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

thread_local! {
    /// Nodes of one simulation agree on the time: all count from when the first of them was made.
    static SIMULATION: Cell<Option<(usize, Instant)>> = const { Cell::new(None) };
}

fn simulation_start() -> Instant {
    let system = System::current().id();
    SIMULATION.with(|cell| match cell.get() {
        Some((id, start)) if id == system => start,
        _ => {
            let start = monotonic();
            cell.set(Some((system, start)));
            start
        }
    })
}
