//! The simulator's figures: how long worlds of whole nodes take to boot and to live, and in how much memory.
//!
//! `pqcnet-sim-figures` measures every row, each in a process of its own, so that peaks of memory do not mix;
//! `pqcnet-sim-figures NODES CRYPTO SECONDS` measures one; `pqcnet-sim-figures costs` what cryptography costs this machine.
//! Every client reads a channel of its own and publishes to it; sentries and clients leave and come back all the while, by the
//! model and at the rate of the built-in scenario `churn-30`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pqcnet_actor::{Env, Stopwatch, StreamRng};
use pqcnet_client::{Client, ClientConfig};
use pqcnet_crypto::{AeadAlgorithm, AeadKey, KemSecret, NodeId, NodeKeys, encapsulate};
use pqcnet_messages::{ChannelName, Role};
use pqcnet_p2p::streams::Streams;
use pqcnet_sim::crypto::Crypto;
use pqcnet_sim::faults::{Act, Restarts, Script};
use pqcnet_sim::net::{Link, Uniform};
use pqcnet_sim::scenario::churn::{Churn, Model};
use pqcnet_sim::world::{NodeNo, NodeSpec, NodeState, World, WorldConfig};
use rand_core::Rng as _;

/// Rows measured without arguments: nodes, cryptography, simulated seconds.
const ROWS: [(usize, Crypto, u64); 4] = [
    (1_000, Crypto::Memo, 60),
    (1_000, Crypto::Modelled, 60),
    (100, Crypto::Modelled, 600),
    (10_000, Crypto::Modelled, 20),
];

/// glibc's heap in pages of 2 MiB where the kernel has them: a world of whole nodes walks through all of its memory again and
/// again, and spends a fifth of its time on looking up small ones.
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// Bytes of a message.
const PAYLOAD: usize = 256;
/// Between two messages of a client.
const APART: Duration = Duration::from_secs(2);
/// Three of ten sentries and clients leave in ten minutes, for so long on average.
const CHURN: (f64, Duration) = (0.3, Duration::from_secs(600));
const AWAY: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.as_slice() {
        [] => all(),
        [word] if word == "costs" => costs(),
        [nodes, crypto, seconds] => one(nodes, crypto, seconds),
        _ => Err(anyhow::anyhow!(
            "usage: pqcnet-sim-figures [costs | NODES real|memo|modelled SECONDS]"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("pqcnet-sim-figures: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this prints")]
fn tell(line: &str) {
    println!("{line}");
}

fn all() -> Result<()> {
    tell(
        "| nodes | cryptography | boot: s, CPU s | simulated, s | CPU s | times real time | nodes that left | messages acked | events | events/s a core | us an event | peak RSS, MB |",
    );
    tell("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let program = std::env::current_exe().context("where is this program?")?;
    for (nodes, crypto, seconds) in ROWS {
        let mut child = Command::new(&program);
        child.args([&nodes.to_string(), crypto.name(), &seconds.to_string()]);
        child.env("GLIBC_TUNABLES", HUGE_PAGES);
        let status = child.status().context("cannot start a measurement")?;
        ensure!(
            status.success(),
            "{nodes} nodes, {}: {status}",
            crypto.name()
        );
    }
    Ok(())
}

fn one(nodes: &str, crypto: &str, seconds: &str) -> Result<()> {
    let nodes: usize = nodes.parse().context("NODES")?;
    let seconds: u64 = seconds.parse().context("SECONDS")?;
    let Some(crypto) = Crypto::named(crypto) else {
        bail!("cryptography is real, memo or modelled");
    };
    let (watch, before) = (Stopwatch::start(), cpu_seconds()?);
    let (mut world, clients) = town(nodes, crypto)?;
    boot(&mut world)?;
    let mut load = Load::of(&world, &clients);
    for client in clients {
        world.start(client)?;
        load.put_on(&mut world, client)?;
    }
    // The first connections are the boot's.
    world.run_for(Duration::from_secs(5))?;
    let (booted, boot) = (watch.elapsed().as_secs_f64(), cpu_seconds()? - before);

    let time = Duration::from_secs(seconds);
    let mut script = churn(&world, time);
    let left = script.steps();
    let left = left
        .filter(|(_, act)| matches!(act, Act::Crash(..)))
        .count();
    let before = (
        world.ledger().events(),
        load.acked.load(Relaxed),
        cpu_seconds()?,
    );
    let until = world.now() + time;
    script.drive(&mut world, until, &mut load)?;
    // One thread: on an idle machine its CPU time is the time that passes, on a busy one only it says something.
    let real = cpu_seconds()? - before.2;
    let events = world.ledger().events() - before.0;
    let (many, times) = (events as f64, seconds as f64 / real);
    tell(&format!(
        "| {nodes} | {} | {booted:.1}, {boot:.1} | {seconds} | {real:.1} | {times:.1} | {left} | {} | {events} | {:.0} | {:.2} | {} |",
        crypto.name(),
        load.acked.load(Relaxed) - before.1,
        many / real,
        real * 1e6 / many,
        peak_mb().unwrap_or(0),
    ));
    Ok(())
}

/// A hundredth of the nodes relay, at most ten; a fifth are sentries, at most 190 and the rest of a tenth; the others clients.
fn town(nodes: usize, crypto: Crypto) -> Result<(World, Vec<NodeNo>)> {
    let relayers = (nodes / 100).clamp(2, 10);
    let sentries = (nodes / 5).min(200 + nodes / 20) - relayers;
    let mut config = WorldConfig::new(1);
    config.crypto = crypto;
    config.last_events = 0;
    config.links = Box::new(Uniform(Link {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(2),
        ..Link::default()
    }));
    let mut world = World::new(config);
    let mut clients = Vec::new();
    for n in 0..nodes {
        let (name, role) = match n {
            _ if n < relayers => (format!("relayer-{n}"), Role::Relayer),
            _ if n < relayers + sentries => (format!("sentry-{n}"), Role::Sentry),
            _ => (format!("client-{n}"), Role::Client),
        };
        let mut spec = NodeSpec::new(name, role);
        spec.bootstrap = n < 4.min(relayers);
        let node = world.add(spec)?;
        if role == Role::Client {
            clients.push(node);
        }
    }
    Ok((world, clients))
}

fn boot(world: &mut World) -> Result<()> {
    let members: Vec<NodeNo> = world
        .nodes()
        .filter(|node| world.spec(*node).role != Role::Client)
        .collect();
    for node in &members {
        world.start(*node)?;
    }
    for _ in 0..600 {
        world.run_for(Duration::from_millis(100))?;
        if members
            .iter()
            .all(|node| world.state(*node) == NodeState::Up)
        {
            // Links between sentries and relayers, and the mesh.
            world.run_for(Duration::from_secs(5))?;
            return Ok(());
        }
    }
    bail!("not all nodes are up after a minute")
}

/// Who leaves without a word, and when it comes back.
fn churn(world: &World, time: Duration) -> Script {
    let nodes = world.nodes();
    let nodes: Vec<NodeNo> = nodes
        .filter(|node| world.spec(*node).role != Role::Relayer)
        .collect();
    let (share, over) = CHURN;
    let streams = nodes.iter().map(|node| world.rng(*node, "", "churn"));
    let churn = Churn::new(&Model::Random { share, over }, AWAY, time, streams);
    let mut script = Script::new();
    let from = world.now();
    script.churn(from, from + time, &nodes, churn);
    script
}

/// Every client reads its own channel and publishes to it.
struct Load {
    sentries: Vec<NodeId>,
    /// Clients, by the sentries that they turn to.
    clients: BTreeMap<NodeNo, usize>,
    acked: Arc<AtomicU64>,
}

impl Load {
    fn of(world: &World, clients: &[NodeNo]) -> Load {
        let sentries = world.nodes();
        let sentries = sentries.filter(|node| world.spec(*node).role == Role::Sentry);
        Load {
            sentries: sentries.map(|node| world.id(node)).collect(),
            clients: clients.iter().copied().zip(0..).collect(),
            acked: Arc::default(),
        }
    }

    fn put_on(&self, world: &mut World, node: NodeNo) -> Result<()> {
        let Some(place) = self.clients.get(&node) else {
            return Ok(());
        };
        let mut config = world.client_config(node)?;
        // Clients spread over sentries, each with two to turn to.
        let sentries = (*place..*place + 2).map(|at| self.sentries[at % self.sentries.len()]);
        config.sentries = sentries.collect();
        let Some(env) = world.env(node) else {
            bail!("a client is down");
        };
        let (streams, acked) = (world.streams(node), self.acked.clone());
        world.spawn(node, live(env, streams, config, acked));
        Ok(())
    }
}

impl Restarts for Load {
    fn started(&mut self, world: &mut World, node: NodeNo) {
        if let Err(error) = self.put_on(world, node) {
            world.ledger().stop(format!("no load: {error:#}"));
        }
    }
}

fn spread(dice: &mut StreamRng, time: Duration) -> Duration {
    time.mul_f64(f64::from(dice.next_u32()) / f64::from(u32::MAX))
}

async fn live(env: Env, streams: Arc<dyn Streams>, config: ClientConfig, acked: Arc<AtomicU64>) {
    let mut dice = env.rng("load");
    env.sleep(spread(&mut dice, APART)).await;
    let client = loop {
        let connecting = Client::connect_over(env.clone(), streams.clone(), config.clone());
        match Box::pin(connecting).await {
            Ok(client) => break client,
            Err(error) => tracing::debug!(%error, "no connection"),
        }
        env.sleep(spread(&mut dice, APART)).await;
    };
    let Ok(name) = ChannelName::new("c") else {
        return;
    };
    env.spawn(read(env.clone(), client.clone(), name.clone()));
    env.sleep(spread(&mut dice, APART)).await;
    loop {
        match client.publish(&name, vec![7; PAYLOAD]).await {
            Ok(_) => {
                acked.fetch_add(1, Relaxed);
            }
            Err(error) => tracing::debug!(%error, "not published"),
        }
        env.sleep(APART).await;
    }
}

/// Reads on from the last record, however often its sentry goes.
async fn read(env: Env, client: Client, name: ChannelName) {
    let own = client.channel(name);
    let mut last = 0;
    loop {
        match client.subscribe(&own, last).await {
            Ok(mut records) => {
                while let Ok(record) = records.next().await {
                    last = record.offset;
                }
            }
            Err(error) => tracing::debug!(%error, "no subscription"),
        }
        env.sleep(APART).await;
    }
}

/// What each operation costs this machine: the constants of `pqcnet_sim::crypto::Costs` are such a run's.
fn costs() -> Result<()> {
    const TIMES: u32 = 2_000;
    let each = |name: &str, work: &mut dyn FnMut()| {
        work();
        let watch = Stopwatch::start();
        for _ in 0..TIMES {
            work();
        }
        let took = watch.elapsed() / TIMES;
        tell(&format!("{name:<20}{:>10.2} us", took.as_secs_f64() * 1e6));
    };
    let keys = NodeKeys::generate();
    let message = [1; 200];
    let hybrid = keys.sign(&message);
    let alone = keys.sign_ml_dsa(&message);
    let public = keys.public();
    each("ML-DSA sign", &mut || {
        drop(black_box(keys.sign_ml_dsa(&message)))
    });
    each("both sign", &mut || drop(black_box(keys.sign(&message))));
    each("ML-DSA verify", &mut || {
        black_box(public.ml_dsa.verify(&message, &alone).is_ok());
    });
    each("both verify", &mut || {
        black_box(public.verify(&message, &hybrid).is_ok());
    });
    let secret = KemSecret::generate();
    let (ciphertext, _) = encapsulate(secret.public())?;
    each("X-Wing keys", &mut || {
        drop(black_box(KemSecret::generate()))
    });
    each("X-Wing encapsulate", &mut || {
        black_box(encapsulate(secret.public()).is_ok());
    });
    each("X-Wing decapsulate", &mut || {
        black_box(secret.decapsulate(&ciphertext).is_ok());
    });
    let new = || AeadKey::new(AeadAlgorithm::Aes256Gcm, &[1; 32]);
    each("AES key", &mut || drop(black_box(new())));
    let key = new();
    for len in [64, 16_384, 65_536] {
        let mut text = vec![0; len];
        each(&format!("seal {len}"), &mut || {
            black_box(key.seal_in_place(&[0; 12], b"head", &mut text));
        });
    }
    Ok(())
}

/// CPU time of this process so far.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which is in parentheses: user and system time are the 12th and 13th, in hundredths.
    let (_, rest) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u32>().map(f64::from));
    let ticks: Result<Vec<f64>, _> = ticks.collect();
    Ok(ticks?.iter().sum::<f64>() / 100.0)
}

/// The most memory that this process has had.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kb: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kb / 1_000)
}
