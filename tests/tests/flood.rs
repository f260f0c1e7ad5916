//! Many strangers at once against a real sentry, from thousands of prefixes: every address below 127.0.0.0/8 is this
//! machine's, so each stranger leaves from one of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::stream::{self, StreamExt as _};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pqcnet_actor::Env;
use pqcnet_client::{Client, ClientConfig};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_messages::control::Ping;
use pqcnet_qstp::{Config, Initiator, Profile, Suite};
use pqcnet_tests::network::{Network, Node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const DEADLINE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// Honest newcomers while the strangers are at it; at least 99 in 100 must get in.
const HONEST: usize = 100;
/// Fewer strangers are no flood: honest newcomers come as long as these do.
const FLOOD: u64 = 5_000;
const HONEST_AT_ONCE: usize = 4;

/// A stranger's own /24.
fn prefix(number: u64) -> SocketAddr {
    let number = number % 16_000;
    let (high, low) = (1 + number / 250, number % 250);
    (Ipv4Addr::new(127, high as u8, low as u8, 1), 0).into()
}

async fn connect(number: u64, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(prefix(number))?;
    socket.connect(to).await
}

/// As many descriptors as the machine allows, here and in the nodes that are started after.
fn descriptors(needed: u64) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= needed,
        "{needed} descriptors are needed and the hard limit is {hard}: raise it with `ulimit -Hn`"
    );
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// How many of [`HONEST`] clients with keys of their own connect and are answered.
async fn honest(network: &Network) -> usize {
    let attempts = stream::iter(0..HONEST).map(|_| async {
        let keys = Arc::new(NodeKeys::generate());
        let mut config = ClientConfig::new(network.file.clone(), keys);
        // Whether they get in is the question, not how soon on a machine that is at something else besides.
        config.connect_timeout = PATIENCE;
        let client = Client::connect(config).await?;
        client.ask(Ping { nonce: 1 }, PATIENCE).await?;
        anyhow::Ok(())
    });
    let outcomes: Vec<Result<()>> = attempts.buffer_unordered(HONEST_AT_ONCE).collect().await;
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        eprintln!("an honest client: {error:#}");
    }
    outcomes.iter().filter(|outcome| outcome.is_ok()).count()
}

/// CPU seconds a process has used.
fn cpu(node: &Node) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid()?))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = |field: usize| -> Result<f64> {
        let text = fields
            .split_whitespace()
            .nth(field)
            .context("a short stat")?;
        Ok(text.parse()?)
    };
    // utime and stime, in hundredths of a second on Linux.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// What a node counts under this name; the sum over its labels.
async fn metric(node: &Node, name: &str) -> Result<f64> {
    let mut page = TcpStream::connect(node.admin()?).await?;
    page.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        .await?;
    let mut text = String::new();
    page.read_to_string(&mut text).await?;
    let of_name = |line: &&str| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let values = text.lines().filter(of_name).map(|line| {
        let value = line.rsplit(' ').next().unwrap_or_default();
        value.parse::<f64>().with_context(|| line.to_owned())
    });
    values.sum()
}

/// Strangers from sixteen thousand prefixes, four hundred at a time, each sends the first message of a handshake and is
/// gone once it is answered: the cheapest way to make a node sign. Honest newcomers get in all the same, and handshakes
/// take no more of the processor than they are allowed: strangers are asked for puzzles.
#[tokio::test(flavor = "multi_thread")]
async fn handshake_flood_from_many_prefixes() -> Result<()> {
    descriptors(4_000)?;
    let network = Network::start(1, 1).await?;
    let sentry = network.node(Role::Sentry, 1);
    let to = sentry.data;
    let config = Config::new(
        network.file.network_id().0,
        vec![Suite::Aes256Gcm],
        Arc::new(NodeKeys::generate()),
        Profile::Link,
    )?;
    let config = Arc::new(config.with_prologue(b"/pqcnet/data/1")?);
    let (_, first) = Initiator::new(config, sentry.id)?;
    let first = Arc::new(first);

    let over = Arc::new(AtomicBool::new(false));
    let started = Arc::new(AtomicU64::new(0));
    let answered = Arc::new(AtomicU64::new(0));
    let mut strangers = Vec::new();
    for _ in 0..400 {
        let (over, started, answered) = (over.clone(), started.clone(), answered.clone());
        let first = first.clone();
        strangers.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let number = started.fetch_add(1, Ordering::Relaxed);
                let one = async {
                    let mut stream = connect(number, to).await?;
                    stream.write_all(&first).await?;
                    let mut answer = [0; 64];
                    let read = stream.read(&mut answer).await?;
                    io::Result::Ok(read > 0)
                };
                // Refused, reset or late: the next one.
                if let Ok(Ok(true)) = tokio::time::timeout(DEADLINE, one).await {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let env = Env::plain();
    let (cpu_before, began) = (
        metric(sentry, "pqcnet_handshake_step_seconds_sum").await?,
        env.now(),
    );
    let whole_before = cpu(sentry)?;
    let (mut tried, mut got_in) = (0, 0);
    while tried == 0 || started.load(Ordering::Relaxed) <= FLOOD {
        tried += HONEST;
        got_in += honest(&network).await;
    }
    let took = (env.now() - began).as_secs_f64();
    let spent = metric(sentry, "pqcnet_handshake_step_seconds_sum").await? - cpu_before;
    let whole = cpu(sentry)? - whole_before;
    over.store(true, Ordering::Relaxed);
    for stranger in strangers {
        stranger.await?;
    }
    let (strangers, answered) = (
        started.load(Ordering::Relaxed),
        answered.load(Ordering::Relaxed),
    );
    eprintln!(
        "{got_in} of {tried} honest clients got in beside {strangers} strangers ({answered} answered) in {took:.1} s; \
         handshakes took {spent:.2} s of CPU, the whole node {whole:.2} s"
    );
    ensure!(
        got_in * 100 >= tried * 99,
        "{got_in} of {tried} honest clients got in"
    );
    // Half a second each second, the burst, and what was begun before the budget was spent.
    ensure!(
        spent <= 0.5 * took + 1.0,
        "handshakes took {spent:.2} s of CPU in {took:.1} s"
    );
    ensure!(!sentry.log().contains("panic"), "{}", sentry.log());
    network.stop().await
}

/// Five thousand connections, from as many prefixes, that send a byte now and then and begin anew when they are closed.
/// Honest newcomers get in all the same, and whoever was connected is not disturbed.
#[tokio::test(flavor = "multi_thread")]
async fn slow_loris_of_five_thousand() -> Result<()> {
    const LORISES: u64 = 5_000;
    descriptors(LORISES + 2_000)?;
    let network = Network::start(1, 1).await?;
    let sentry = network.node(Role::Sentry, 1);
    let to = sentry.data;
    let before = network.client(&Arc::new(NodeKeys::generate())).await?;
    before.ask(Ping { nonce: 1 }, PATIENCE).await?;

    let over = Arc::new(AtomicBool::new(false));
    let (standing, begun) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut lorises = Vec::new();
    for number in 0..LORISES {
        let (over, standing, begun) = (over.clone(), standing.clone(), begun.clone());
        lorises.push(tokio::spawn(async move {
            let mut first = true;
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = connect(number, to).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                begun.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut first) {
                    standing.fetch_add(1, Ordering::Relaxed);
                }
                // The header of a first message, then its body, a byte a second; an error means that it was closed.
                let bytes = [1, 0, 4, 0].into_iter().chain(std::iter::repeat_n(7, 60));
                for byte in bytes {
                    let mut one = [0];
                    let heard = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut one));
                    let closed = heard.await.is_ok();
                    if closed
                        || over.load(Ordering::Relaxed)
                        || stream.write_all(&[byte]).await.is_err()
                    {
                        break;
                    }
                }
            }
        }));
    }
    let all_there = async {
        while standing.load(Ordering::Relaxed) < LORISES {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, all_there)
        .await
        .context("the lorises never all connected")?;
    let got_in = honest(&network).await;
    before.ask(Ping { nonce: 2 }, PATIENCE).await?;
    over.store(true, Ordering::Relaxed);
    for loris in lorises {
        loris.await?;
    }
    let begun = begun.load(Ordering::Relaxed);
    eprintln!(
        "{got_in} of {HONEST} honest clients got in beside {LORISES} lorises, which connected {begun} times"
    );
    ensure!(
        got_in * 100 >= HONEST * 99,
        "{got_in} of {HONEST} honest clients got in"
    );
    ensure!(!sentry.log().contains("panic"), "{}", sentry.log());
    network.stop().await
}
