//! A node inside a simulated world: who runs now, its randomness, its clock, its end.
//!
//! ```text
//!   Env::spawn, a tree's cells ──▶ Scoped future ──enters──▶ Scope ── handlers, tasks, offloaded work
//!                                    │                        ├─ entropy of (seed, node, boot, actor)
//!                                    │ a dead node's: dropped └─ Host: messages handled, costs charged
//! ```
//!
//! Compiled with the feature `simulation` only. A task gets its scope from the one that spawns it and its number there, so
//! what one actor or node draws or starts shifts no other's randomness.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::Hasher as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use rand_core::Rng;
use tokio::task::AbortHandle;

use crate::digest::{Digest, mix};
use crate::env::Passing;
use crate::path::Path;
use crate::rng::StreamRng;

pub use crate::digest::fold;

/// What the world does for one node.
pub trait Host: Send + Sync + 'static {
    /// An actor handles a message now, or a link's task passes one on. May panic: then the actor does, before it has seen
    /// the message. What is said to become of it counts for a link's only.
    fn handled(&self, what: &Handled<'_>) -> Passing;
    /// Whether the node forwards what it hears of others.
    fn forwards(&self) -> bool;
    /// Whatever runs has computed something that costs so much.
    fn charge(&self, cost: Duration);
    /// Work begins; what it is charged belongs to it alone. False: the node's queue for work is full.
    fn begin_work(&self) -> bool;
    /// The work has been done; `deliver` is to be called when its cost is over.
    fn finish_work(&self, deliver: Box<dyn FnOnce() + Send>);
    /// What computing has been charged to this thread so far.
    fn charged(&self) -> Duration;
}

/// A message, seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct Handled<'a> {
    /// Who handles it: an actor, or a link.
    pub actor: &'a Path,
    /// Its name.
    pub message: &'static str,
    /// Bytes on the wire, where it comes over a link; else the size in memory.
    pub len: usize,
    /// Of the bytes on the wire, where it comes over a link; else of its content, 0 if it has none.
    pub digest: u64,
    /// Whether it came over a link.
    pub remote: bool,
}

/// Who a hosted node is.
#[derive(Clone)]
pub struct Hosted {
    /// The world's seed.
    pub seed: u64,
    /// The node's name.
    pub name: String,
    /// How often it was started before; part of every key, so that no stream comes twice.
    pub boot: u32,
    /// The world.
    pub host: Arc<dyn Host>,
    /// One poll of a task in so many gives way to others first, by a stream of its own; 0: none does.
    pub yields: u32,
}

/// A wall clock that may be wrong.
#[derive(Clone, Copy, Debug)]
struct Wall {
    since: Duration,
    then_ns: i128,
    drift_ppm: i32,
}

/// A hosted node's life, shared by everything that runs in it. What every poll asks lies together.
#[repr(C)]
pub(crate) struct Node {
    over: AtomicBool,
    yields: u32,
    host: Arc<dyn Host>,
    name: Arc<str>,
    boot: u32,
    seed: [u8; 32],
    tasks: Mutex<Tasks>,
    wall: Mutex<Wall>,
    purposes: Mutex<BTreeMap<String, u64>>,
}

/// Tasks of a node that may still run.
#[derive(Default)]
struct Tasks {
    handles: Vec<AbortHandle>,
    sweep_at: usize,
}

/// Ended tasks, whose memory their handles hold, are looked for whenever so many have come, or a quarter of those that run.
const SWEEP_AT: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(hosted: Hosted, seed: [u8; 32], wall_start_ms: u64) -> Arc<Node> {
        Arc::new(Node {
            seed,
            name: Arc::from(hosted.name),
            boot: hosted.boot,
            host: hosted.host,
            yields: hosted.yields,
            over: AtomicBool::new(false),
            tasks: Mutex::new(Tasks {
                handles: Vec::new(),
                sweep_at: SWEEP_AT,
            }),
            wall: Mutex::new(Wall {
                since: Duration::ZERO,
                then_ns: i128::from(wall_start_ms) * 1_000_000,
                drift_ppm: 0,
            }),
            purposes: Mutex::default(),
        })
    }

    pub(crate) fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Everything of the node ends where it is, without a word.
    pub(crate) fn kill(&self) {
        self.over.store(true, Relaxed);
        let handles = std::mem::take(&mut lock(&self.tasks).handles);
        for handle in handles {
            handle.abort();
        }
    }

    pub(crate) fn remember(&self, handle: AbortHandle) {
        let mut tasks = lock(&self.tasks);
        if tasks.handles.len() >= tasks.sweep_at {
            tasks.handles.retain(|handle| !handle.is_finished());
            let left = tasks.handles.len();
            tasks.sweep_at = left + (left / 4).max(SWEEP_AT);
        }
        tasks.handles.push(handle);
    }

    pub(crate) fn wall_ms(&self, now: Duration) -> u64 {
        let at = lock(&self.wall).at(now);
        u64::try_from(at / 1_000_000).unwrap_or(0)
    }

    pub(crate) fn move_wall(&self, now: Duration, jump_ms: i64, drift_ppm: i32) {
        let mut wall = lock(&self.wall);
        let then_ns = wall.at(now) + i128::from(jump_ms) * 1_000_000;
        *wall = Wall {
            since: now,
            then_ns,
            drift_ppm,
        };
    }

    /// How many streams of this purpose were opened before.
    pub(crate) fn turn_of(&self, purpose: &str) -> u64 {
        let mut purposes = lock(&self.purposes);
        match purposes.get_mut(purpose) {
            Some(turn) => {
                *turn += 1;
                *turn
            }
            None => {
                purposes.insert(purpose.to_owned(), 0);
                0
            }
        }
    }

    /// Of this boot.
    pub(crate) fn stream(&self, labels: &[&[u8]]) -> StreamRng {
        let mut all: Vec<&[u8]> = vec![b"hosted", self.name.as_bytes()];
        let boot = self.boot.to_be_bytes();
        all.push(&boot);
        all.extend_from_slice(labels);
        StreamRng::derive(&self.seed, &all)
    }
}

impl Wall {
    fn at(&self, now: Duration) -> i128 {
        let elapsed = i128::try_from(now.saturating_sub(self.since).as_nanos()).unwrap_or(0);
        self.then_ns + elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000
    }
}

/// Something that runs in a hosted node: the node itself, an actor, a task. There are many, and one is looked at in every poll:
/// what few of them need is elsewhere.
pub(crate) struct Scope {
    node: Arc<Node>,
    key: [u64; 2],
    children: AtomicU64,
    streams: Mutex<Option<Box<Streams>>>,
}

#[derive(Default)]
struct Streams {
    entropy: Option<StreamRng>,
    /// Polls left before the next one that gives way.
    until_yield: Option<(StreamRng, u64)>,
}

/// A scope, and its node beside it: of most polls it is the node alone that is asked for.
struct Running {
    scope: Arc<Scope>,
    node: Arc<Node>,
}

impl Running {
    fn new(scope: Arc<Scope>) -> Running {
        let node = Arc::clone(&scope.node);
        Running { scope, node }
    }
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// A [`Digest`] of bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.write(bytes);
    digest.finish()
}

impl Scope {
    /// The scope of what has a name in the node: the node itself, or an actor.
    pub(crate) fn named(node: &Arc<Node>, name: &str) -> Arc<Scope> {
        let mut stream = node.stream(&[b"scope", name.as_bytes()]);
        Scope::with_key(node, [stream.next_u64(), stream.next_u64()])
    }

    fn with_key(node: &Arc<Node>, key: [u64; 2]) -> Arc<Scope> {
        Arc::new(Scope {
            node: Arc::clone(node),
            key,
            children: AtomicU64::new(0),
            streams: Mutex::default(),
        })
    }

    /// The scope of a task that this one starts.
    pub(crate) fn child(self: &Arc<Scope>) -> Arc<Scope> {
        let n = self.children.fetch_add(1, Relaxed);
        let [a, b] = self.key;
        let low = mix(a ^ mix(n));
        let high = mix(b ^ mix(low));
        Scope::with_key(&self.node, [low, high])
    }

    /// The scope that runs now if it is of this node, else the node's own.
    pub(crate) fn current_or(root: &Arc<Scope>) -> Arc<Scope> {
        RUNNING.with_borrow(|running| match running {
            Some(now) if Arc::ptr_eq(&now.node, &root.node) => Arc::clone(&now.scope),
            Some(_) | None => Arc::clone(root),
        })
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn stream(&self, purpose: &[u8]) -> StreamRng {
        let [a, b] = self.key.map(u64::to_be_bytes);
        StreamRng::derive(&self.node.seed, &[b"scope", &a, &b, purpose])
    }

    /// In a node some of whose polls do.
    fn gives_way(&self) -> bool {
        let yields = u64::from(self.node.yields);
        let mut streams = lock(&self.streams);
        let streams = streams.get_or_insert_default();
        let (stream, left) = streams.until_yield.get_or_insert_with(|| {
            let mut stream = self.stream(b"yield");
            let first = stream.next_u64() % (2 * yields);
            (stream, first)
        });
        if *left > 0 {
            *left -= 1;
            return false;
        }
        *left = stream.next_u64() % (2 * yields);
        true
    }

    /// Runs `f` as this scope.
    pub(crate) fn enter<T>(self: &Arc<Scope>, f: impl FnOnce() -> T) -> T {
        let mut own = Some(Running::new(Arc::clone(self)));
        let _turn = Turn::begin(&mut own);
        f()
    }
}

/// A turn of whoever is lent to the thread for it. After it, also after a panic, it is where it was, and whoever ran before runs again.
struct Turn<'a> {
    home: &'a mut Option<Running>,
    before: Option<Running>,
}

impl<'a> Turn<'a> {
    fn begin(home: &'a mut Option<Running>) -> Turn<'a> {
        let before = RUNNING.replace(home.take());
        Turn { home, before }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.home = RUNNING.replace(self.before.take());
    }
}

/// Fills `out` from the entropy of whoever runs on this thread now. False if nobody of a hosted node does.
pub fn entropy(out: &mut [u8]) -> bool {
    RUNNING.with_borrow(|running| match running {
        None => false,
        Some(now) => {
            let scope = &now.scope;
            let mut streams = lock(&scope.streams);
            let stream = streams
                .get_or_insert_default()
                .entropy
                .get_or_insert_with(|| scope.stream(b"entropy"));
            stream.fill_bytes(out);
            true
        }
    })
}

/// Charges whoever runs on this thread now for something computed. False if nobody of a hosted node does.
pub fn charge(cost: Duration) -> bool {
    RUNNING.with_borrow(|running| {
        let node = running.as_ref().map(|now| &now.node);
        node.map(|node| node.host.charge(cost)).is_some()
    })
}

/// The name of the hosted node that runs on this thread now.
pub fn running() -> Option<Arc<str>> {
    RUNNING.with_borrow(|running| {
        let now = running.as_ref()?;
        Some(Arc::clone(&now.node.name))
    })
}

pin_project! {
    /// A future that runs as its scope, for as long as the node lives, and is dropped as it.
    pub(crate) struct Scoped<F> {
        // None while it is polled.
        running: Option<Running>,
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _turn = Turn::begin(this.running);
            this.future.set(None);
        }
    }
}

impl<F> Scoped<F> {
    pub(crate) fn new(scope: Arc<Scope>, future: F) -> Self {
        Scoped {
            running: Some(Running::new(scope)),
            future: Some(future),
        }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (Some(running), Some(future)) = (&*this.running, this.future.as_pin_mut()) else {
            return Poll::Pending;
        };
        if running.node.is_over() {
            // It has been aborted, and is dropped before its next turn.
            return Poll::Pending;
        }
        if running.node.yields > 0 && running.scope.gives_way() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let _turn = Turn::begin(this.running);
        future.poll(cx)
    }
}
