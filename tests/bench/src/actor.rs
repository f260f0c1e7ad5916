//! What a message and an idle actor cost, beside raw actix, kameo and ractor.
//!
//! The same loops drive all four, interleaved, and the best round of each counts: on a busy machine the least
//! disturbed round is the one that shows the code. Ours carries what the others lack (an exact bound in three classes, panics
//! caught and answered, a trace context, a timeout on every ask).

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::Actor as _;
use anyhow::Context as _;
use kameo::actor::Spawn as _;
use pqcnet_actor::{
    Behaviour, Bounds, Cx, Env, Message, On, Ref, Reply, Spec, Strategy, Threads, Tree, run_on,
};

use crate::row::Row;
use crate::{Args, cpu};

/// A contender by number: ours first.
const NAMES: [&str; 4] = ["ours", "raw actix", "kameo", "ractor"];
const OURS: usize = 0;

/// Messages out before the sender lets the receiver run; the bound of a mailbox where there is one.
const WINDOW: u64 = 1_024;
const BOUND: u32 = 4_096;

/// Idle actors of one kind in one process.
const IDLE: usize = 50_000;
/// Set in the child process that counts one contender's idle actors.
const IDLE_OF: &str = "PQCNET_BENCH_IDLE";

/// Handled so far, in steps of [`STEP`] so that counting costs nothing.
static HANDLED: AtomicU64 = AtomicU64::new(0);
const STEP: u64 = 1_024;

thread_local!(static HERE: Cell<u64> = const { Cell::new(0) });

#[inline]
fn handled(n: &mut u64) -> u64 {
    *n += 1;
    if n.is_multiple_of(STEP) {
        HANDLED.fetch_add(STEP, Ordering::Release);
    }
    *n
}

struct Add(u64);

// ---- ours ----

#[derive(Default)]
struct Ours(u64);
impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "Add";
}
impl Behaviour for Ours {
    const NAME: &'static str = "Ours";
}
impl On<Add> for Ours {
    #[inline]
    fn on(&mut self, add: Add, _: &mut Cx<Self>) -> Reply<Add> {
        Reply::Now(handled(&mut self.0) + add.0)
    }
}

// ---- raw actix ----

#[derive(Default)]
struct Raw(u64);
impl actix::Message for Add {
    type Result = u64;
}
impl actix::Actor for Raw {
    type Context = actix::Context<Self>;
}
impl actix::Handler<Add> for Raw {
    type Result = u64;
    #[inline]
    fn handle(&mut self, add: Add, _: &mut Self::Context) -> u64 {
        handled(&mut self.0) + add.0
    }
}

// ---- kameo ----

struct Kameo(u64);
impl kameo::Actor for Kameo {
    type Args = ();
    type Error = kameo::error::Infallible;
    async fn on_start((): (), _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(Kameo(0))
    }
}
impl kameo::message::Message<Add> for Kameo {
    type Reply = u64;
    async fn handle(&mut self, add: Add, _: &mut kameo::message::Context<Self, u64>) -> u64 {
        handled(&mut self.0) + add.0
    }
}

fn kameo_actor() -> kameo::actor::ActorRef<Kameo> {
    Kameo::spawn_with_mailbox((), kameo::mailbox::bounded(BOUND as usize))
}

// ---- ractor ----

struct Ractor;
enum Count {
    Tell(Add),
    Ask(Add, ractor::RpcReplyPort<u64>),
}
impl ractor::Actor for Ractor {
    type Msg = Count;
    type State = u64;
    type Arguments = ();
    async fn pre_start(
        &self,
        _: ractor::ActorRef<Count>,
        (): (),
    ) -> Result<u64, ractor::ActorProcessingErr> {
        Ok(0)
    }
    async fn handle(
        &self,
        _: ractor::ActorRef<Count>,
        message: Count,
        state: &mut u64,
    ) -> Result<(), ractor::ActorProcessingErr> {
        match message {
            Count::Tell(add) => HERE.set(handled(state) + add.0),
            Count::Ask(add, port) => port.send(handled(state) + add.0)?,
        }
        Ok(())
    }
}

async fn ractor_actor() -> ractor::ActorRef<Count> {
    // Its join handle is of no use here: these actors live as long as the process.
    match ractor::Actor::spawn(None, Ractor, ()).await {
        Ok((actor, _)) => actor,
        Err(error) => panic!("ractor: {error}"),
    }
}

// ---- the four alike ----

/// Sends one message; false if there was no room.
type Tell = Box<dyn Fn() -> bool + Send>;
/// Asks so many times, one after another.
type Asks = Box<dyn Fn(u64) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

struct Contender {
    tell: Tell,
    asks: Asks,
}

fn ours(add: Ref<Add>) -> Contender {
    let told = add.clone();
    Contender {
        tell: Box::new(move || told.try_tell(Add(1)).is_ok()),
        asks: Box::new(move |n| {
            let add = add.clone();
            Box::pin(async move {
                for _ in 0..n {
                    add.ask(Add(1), Duration::from_secs(30)).await.ok();
                }
            })
        }),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the peer being measured")]
fn raw(addr: actix::Addr<Raw>) -> Contender {
    let told = addr.clone();
    Contender {
        tell: Box::new(move || {
            told.do_send(Add(1));
            true
        }),
        asks: Box::new(move |n| {
            let addr = addr.clone();
            Box::pin(async move {
                for _ in 0..n {
                    addr.send(Add(1)).await.ok();
                }
            })
        }),
    }
}

fn kameo(actor: kameo::actor::ActorRef<Kameo>) -> Contender {
    let told = actor.clone();
    Contender {
        tell: Box::new(move || told.tell(Add(1)).try_send().is_ok()),
        asks: Box::new(move |n| {
            let actor = actor.clone();
            Box::pin(async move {
                for _ in 0..n {
                    actor.ask(Add(1)).await.ok();
                }
            })
        }),
    }
}

fn ractor(actor: ractor::ActorRef<Count>) -> Contender {
    let told = actor.clone();
    Contender {
        tell: Box::new(move || told.send_message(Count::Tell(Add(1))).is_ok()),
        asks: Box::new(move |n| {
            let actor = actor.clone();
            Box::pin(async move {
                for _ in 0..n {
                    actor.call(|port| Count::Ask(Add(1), port), None).await.ok();
                }
            })
        }),
    }
}

fn our_tree(env: &Env, place: u64) -> Ref<Add> {
    let mut tree = Tree::new("bench", Strategy::OneForOne);
    let bounds = Bounds::request(BOUND);
    let spec = Spec::new("ours", |_| Ours::default());
    let add = tree.child(spec.mailbox(bounds).place(place)).of::<Add>();
    // Runs on without its handle.
    drop(tree.start(env.clone()));
    add
}

/// Measures all groups of this file.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if let Ok(who) = std::env::var(IDLE_OF) {
        let who: usize = who.parse().context("the number of a contender")?;
        println!("{}", idle_bytes(who)?);
        return Ok(Vec::new());
    }
    let rounds = if args.quick { 3 } else { 25 };
    let mut rows = Vec::new();
    rows.extend(one_arbiter(rounds)?);
    rows.extend(two_arbiters(rounds)?);
    rows.extend(idle()?);
    Ok(rows)
}

/// Nanoseconds a message or ask, by contender.
type Best = [f64; NAMES.len()];

fn beside(what: &str, unit: &'static str, best: &Best) -> Vec<Row> {
    let peers = (0..NAMES.len()).filter(|who| *who != OURS);
    peers
        .map(|who| Row::new("actor", what, best[OURS], unit).beside(NAMES[who], best[who]))
        .collect()
}

fn ns_each(time: Duration, n: u64) -> f64 {
    time.as_secs_f64() * 1e9 / n as f64
}

async fn here(who: usize) -> Contender {
    match NAMES[who] {
        "ours" => ours(our_tree(&Env::production("bench"), 0)),
        "raw actix" => raw(Raw::default().start()),
        "kameo" => kameo(kameo_actor()),
        _ => ractor(ractor_actor().await),
    }
}

/// Sender and receiver share one thread, so its CPU time is what they cost.
#[expect(
    clippy::disallowed_methods,
    reason = "a bench's sender needs no supervisor"
)]
fn one_arbiter(rounds: u32) -> anyhow::Result<Vec<Row>> {
    const TELLS: u64 = 400 * STEP;
    const ASKS: u64 = 40_000;
    let mut tell: Best = [f64::MAX; NAMES.len()];
    let mut ask = tell;
    let mut raw_timed = f64::MAX;
    for _ in 0..rounds {
        raw_timed = raw_timed.min(raw_asks_with_timeout(ASKS)?);
        for who in 0..NAMES.len() {
            let round = async move {
                let contender = here(who).await;
                (contender.asks)(STEP).await;
                let base = HANDLED.load(Ordering::Acquire);
                let start = cpu::thread()?;
                let mut sent = 0;
                while HANDLED.load(Ordering::Acquire) - base < TELLS {
                    let mut out = 0;
                    while out < WINDOW && sent < TELLS && (contender.tell)() {
                        sent += 1;
                        out += 1;
                    }
                    tokio::task::yield_now().await;
                }
                let told = cpu::thread()? - start;
                let start = cpu::thread()?;
                (contender.asks)(ASKS).await;
                let asked = cpu::thread()? - start;
                anyhow::Ok((ns_each(told, TELLS), ns_each(asked, ASKS)))
            };
            // A task, as senders are; the System's own future is woken in a costlier way.
            let (told, asked) =
                actix_rt::System::new().block_on(async { actix_rt::spawn(round).await })??;
            tell[who] = tell[who].min(told);
            ask[who] = ask[who].min(asked);
        }
    }
    let mut rows = beside("tell, one arbiter, CPU", "ns", &tell);
    rows.extend(beside("ask, one arbiter, CPU", "ns", &ask));
    let timed = Row::new("actor", "ask, one arbiter, CPU", ask[OURS], "ns");
    rows.push(timed.beside("raw actix with a timeout, as ours has", raw_timed));
    Ok(rows)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a bench's sender needs no supervisor"
)]
fn raw_asks_with_timeout(asks: u64) -> anyhow::Result<f64> {
    let round = async move {
        let addr = Raw::default().start();
        let mut start = cpu::thread()?;
        for n in 0..STEP + asks {
            if n == STEP {
                start = cpu::thread()?;
            }
            addr.send(Add(1)).timeout(Duration::from_secs(30)).await?;
        }
        anyhow::Ok(ns_each(cpu::thread()? - start, asks))
    };
    actix_rt::System::new().block_on(async { actix_rt::spawn(round).await })?
}

/// The sender's thread and the receiver's are two: the time until all is handled, or answered.
#[expect(
    clippy::disallowed_methods,
    reason = "the peers need an arbiter like the one that Env gives ours"
)]
fn two_arbiters(rounds: u32) -> anyhow::Result<Vec<Row>> {
    const TELLS: u64 = 200 * STEP;
    const ASKS: u64 = 5_000;
    let threads = Threads {
        workers: 1,
        arbiters: 2,
    };
    let mut tell: Best = [f64::MAX; NAMES.len()];
    let mut ask = tell;
    for _ in 0..rounds {
        for who in 0..NAMES.len() {
            let (told, asked) = run_on(threads, "bench", |env| async move {
                let arbiter = actix_rt::Arbiter::new();
                let contender = match NAMES[who] {
                    "ours" => ours(our_tree(&env, 1)),
                    _ => elsewhere(who, &arbiter).await,
                };
                (contender.asks)(STEP).await;
                let base = HANDLED.load(Ordering::Acquire);
                let start = cpu::Wall::start();
                let mut sent = 0;
                while sent < TELLS {
                    while base + sent > HANDLED.load(Ordering::Acquire) + 3 * STEP {
                        std::thread::yield_now();
                    }
                    for _ in 0..STEP {
                        while !(contender.tell)() {
                            std::thread::yield_now();
                        }
                        sent += 1;
                    }
                }
                while HANDLED.load(Ordering::Acquire) - base < TELLS {
                    std::thread::yield_now();
                }
                let told = ns_each(start.elapsed(), TELLS);
                let start = cpu::Wall::start();
                (contender.asks)(ASKS).await;
                let asked = ns_each(start.elapsed(), ASKS);
                arbiter.stop();
                (told, asked)
            })?;
            tell[who] = tell[who].min(told);
            ask[who] = ask[who].min(asked);
        }
    }
    let mut rows = beside("tell, across two arbiters", "ns", &tell);
    rows.extend(beside("ask, across two arbiters", "ns", &ask));
    Ok(rows)
}

async fn elsewhere(who: usize, arbiter: &actix_rt::Arbiter) -> Contender {
    let (tx, rx) = tokio::sync::oneshot::channel();
    arbiter.spawn(async move {
        drop(tx.send(here(who).await));
    });
    match rx.await {
        Ok(contender) => contender,
        Err(_) => panic!("the arbiter is gone"),
    }
}

/// Resident bytes an idle actor, each kind in a process of its own.
fn idle() -> anyhow::Result<Vec<Row>> {
    let mut best: Best = [0.0; NAMES.len()];
    for (who, bytes) in best.iter_mut().enumerate() {
        let output = std::process::Command::new(std::env::current_exe()?)
            .arg("actor")
            .env(IDLE_OF, who.to_string())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        *bytes = text
            .trim()
            .parse()
            .with_context(|| format!("idle actors of {}: {text:?}", NAMES[who]))?;
    }
    Ok(beside("idle actor, resident memory", "bytes", &best))
}

fn idle_bytes(who: usize) -> anyhow::Result<f64> {
    actix_rt::System::new().block_on(async {
        // What the first one of a kind brings with it is no actor's cost.
        let mut kept: Vec<Box<dyn std::any::Any>> = Vec::with_capacity(IDLE + 16);
        let nursery = {
            let mut tree = Tree::new("bench", Strategy::OneForOne);
            let nursery = tree.nursery("idle", IDLE + 16);
            drop(tree.start(Env::production("bench")));
            nursery
        };
        let mut before = 0;
        for n in 0..IDLE + 16 {
            if n == 16 {
                settle().await;
                before = resident()?;
            }
            kept.push(match NAMES[who] {
                "ours" => Box::new(nursery.spawn(Spec::new("idle", |_| Ours::default()))?),
                "raw actix" => Box::new(Raw::default().start()),
                "kameo" => Box::new(kameo_actor()),
                _ => Box::new(ractor_actor().await),
            });
        }
        settle().await;
        let grown = resident()?.saturating_sub(before);
        Ok(grown as f64 / IDLE as f64)
    })
}

/// Until everything spawned has been polled and parked.
async fn settle() {
    for _ in 0..IDLE / 4 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..IDLE / 4 {
        tokio::task::yield_now().await;
    }
}

fn resident() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split_whitespace()
        .nth(1)
        .context("resident pages in /proc/self/statm")?;
    // Every machine this runs on has pages of 4 KiB.
    Ok(pages.parse::<u64>()? * 4_096)
}
