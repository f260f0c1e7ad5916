//! What tracing costs: off, on for messages that are not sampled, and on for one in a hundred and for all.
//!
//! The peer of each row is the same work with tracing off, of the same run. *On* is the exporter of `pqcnet-telemetry`
//! sending to a collector in this process, which takes its share of the two cores as one beside a node would.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_actor::{
    Behaviour, Bounds, Cx, Env, Message, On, Ref, Reply, Spec, Strategy, TraceCx, Tree,
};
use pqcnet_crypto::NodeKeys;
use pqcnet_p2p::network::Admission;
use pqcnet_telemetry::{Otlp, OtlpConfig};
use pqcnet_tests::network::Network;
use pqcnet_tests::otlp::Collector;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::cpu::{self, Wall};
use crate::row::Row;
use crate::{Args, flow};

const GROUP: &str = "tracing";

/// How much is traced; the first is what the others stand beside.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Off,
    Unsampled,
    Sampled(f64),
}

const MODES: [(Mode, &str); 4] = [
    (Mode::Off, "off"),
    (Mode::Unsampled, "on, unsampled"),
    (Mode::Sampled(0.01), "on, 1 % sampled"),
    (Mode::Sampled(1.0), "on, 100 % sampled"),
];

/// Every row of the group.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let collecting = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let collector = collecting.block_on(Collector::start())?;
    let otlp = Otlp::start(OtlpConfig {
        endpoint: collector.endpoint.parse()?,
        authorities: None,
        service: "bench".to_owned(),
        version: "1".to_owned(),
        instance: "bench".to_owned(),
    })?;
    let mut rows = actors(args, &otlp)?;
    otlp.stop();
    rows.extend(collecting.block_on(flows(args, &collector))?);
    Ok(rows)
}

/// The modes beside the first, smaller is better.
fn beside(what: &str, unit: &'static str, values: &[f64; MODES.len()]) -> Vec<Row> {
    let off = values[0];
    let on = MODES.iter().zip(values).skip(1);
    on.map(|((_, mode), value)| {
        Row::new(GROUP, format!("{what}, tracing {mode}"), *value, unit).beside("off", off)
    })
    .collect()
}

// ---- actors ----

struct Add(u64);

impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "Add";
}

#[derive(Default)]
struct Sum(u64);

impl Behaviour for Sum {
    const NAME: &'static str = "Sum";
}

impl On<Add> for Sum {
    fn on(&mut self, add: Add, _: &mut Cx<Self>) -> Reply<Add> {
        self.0 += add.0;
        Reply::Now(self.0)
    }
}

/// Messages out before the sender lets the receiver run.
const WINDOW: u64 = 1_024;

fn actors(args: &Args, otlp: &Otlp) -> Result<Vec<Row>> {
    let rounds = if args.quick { 3 } else { 15 };
    let mut tell = [f64::MAX; MODES.len()];
    let mut ask = tell;
    for _ in 0..rounds {
        for (index, (mode, _)) in MODES.into_iter().enumerate() {
            let round = || on_this_thread(rounded(mode));
            let (told, asked) = match mode {
                Mode::Off => round(),
                Mode::Unsampled | Mode::Sampled(_) => {
                    let subscriber = tracing_subscriber::registry().with(otlp.layer());
                    tracing::subscriber::with_default(subscriber, round)
                }
            }?;
            tell[index] = tell[index].min(told);
            ask[index] = ask[index].min(asked);
        }
    }
    let mut rows = beside("tell, one arbiter, CPU", "ns", &tell);
    rows.extend(beside("ask, one arbiter, CPU", "ns", &ask));
    Ok(rows)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a bench's sender needs no supervisor"
)]
fn on_this_thread<T: 'static>(round: impl Future<Output = Result<T>> + 'static) -> Result<T> {
    actix_rt::System::new().block_on(async { actix_rt::spawn(round).await })?
}

/// Sender and receiver share one thread: its CPU time a tell and an ask, in nanoseconds.
async fn rounded(mode: Mode) -> Result<(f64, f64)> {
    const TELLS: u64 = 100 * WINDOW;
    const ASKS: u64 = 20_000;
    let env = Env::production("bench");
    let sum = start(&env);
    // What a message is sent with.
    let unsampled = TraceCx {
        trace_id: 1,
        span_id: 1,
        sampled: false,
    };
    if let Mode::Sampled(ratio) = mode {
        env.set_sampling(ratio);
    }
    let trace = || match mode {
        Mode::Off => TraceCx::NONE,
        Mode::Unsampled => unsampled,
        Mode::Sampled(_) => env.begin_trace(),
    };
    let deadline = Duration::from_secs(30);
    let began = cpu::thread()?;
    for _ in 0..TELLS / WINDOW {
        for _ in 0..WINDOW {
            let told = match mode {
                Mode::Off => sum.try_tell(Add(1)),
                Mode::Unsampled | Mode::Sampled(_) => trace().scope(|| sum.try_tell(Add(1))),
            };
            told.ok().context("a full mailbox")?;
        }
        // Behind all of them.
        sum.ask(Add(0), deadline).await?;
    }
    let told = cpu::thread()?.saturating_sub(began);
    let began = cpu::thread()?;
    for _ in 0..ASKS {
        let pending = match mode {
            Mode::Off => sum.try_ask(Add(1), deadline),
            Mode::Unsampled | Mode::Sampled(_) => trace().scope(|| sum.try_ask(Add(1), deadline)),
        };
        pending.ok().context("a full mailbox")?.await?;
    }
    let asked = cpu::thread()?.saturating_sub(began);
    Ok((nanos(told) / TELLS as f64, nanos(asked) / ASKS as f64))
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn start(env: &Env) -> Ref<Add> {
    let mut tree = Tree::new("bench", Strategy::OneForOne);
    let spec = Spec::new("sum", |_| Sum::default()).mailbox(Bounds::request(4_096));
    let add = tree.child(spec).of::<Add>();
    // Runs on without its handle.
    drop(tree.start(env.clone()));
    add
}

// ---- flow ----

/// One sentry and one relayer as processes, in each mode; messages a second, and both nodes' CPU time a message.
async fn flows(args: &Args, collector: &Collector) -> Result<Vec<Row>> {
    let rounds = if args.quick { 1 } else { 5 };
    let messages = if args.quick { 5_000 } else { 50_000 };
    let mut running = Vec::new();
    for (mode, _) in MODES {
        running.push(Flow::start(mode, collector).await?);
    }
    let mut rates = [const { Vec::new() }; MODES.len()];
    let mut costs = rates.clone();
    for _ in 0..rounds {
        for (index, flow) in running.iter_mut().enumerate() {
            let before = flow.cpu_seconds()?;
            let wall = Wall::start();
            flow.pass(messages).await?;
            rates[index].push(messages as f64 / wall.elapsed().as_secs_f64());
            let spent = flow.cpu_seconds()? - before;
            costs[index].push(spent * 1e6 / messages as f64);
        }
    }
    for flow in running {
        flow.stop().await?;
    }
    let rates = rates.map(|mut samples| cpu::median(&mut samples));
    let costs = costs.map(|mut samples| cpu::median(&mut samples));
    let mut rows = beside("1 KiB messages, 4 channels", "msg/s", &rates);
    rows.extend(beside("CPU of both nodes a message", "us", &costs));
    Ok(rows)
}

struct Flow {
    network: Network,
    lanes: Vec<flow::Lane>,
}

impl Flow {
    async fn start(mode: Mode, collector: &Collector) -> Result<Flow> {
        let network = Network::create(1, 1, Admission::Any)?;
        let sampling = match mode {
            Mode::Off => None,
            Mode::Unsampled => Some(0.0),
            Mode::Sampled(ratio) => Some(ratio),
        };
        for node in &network.nodes {
            let Some(sampling) = sampling else { continue };
            let path = node.folder().join("node.toml");
            let config = std::fs::read_to_string(&path)?;
            let endpoint = &collector.endpoint;
            let section =
                format!("\n[telemetry]\nendpoint = \"{endpoint}\"\nsampling = {sampling:?}\n");
            std::fs::write(&path, config + &section)?;
        }
        network.start_all().await?;
        let keys = Arc::new(NodeKeys::generate());
        let client = network.client(&keys).await?;
        let mut lanes = Vec::new();
        for name in network.balanced_channels(keys.node_id(), 4)? {
            let records = client.subscribe(&client.channel(name.clone()), 0).await?;
            lanes.push((client.publisher(&name)?, records));
        }
        let mut flow = Flow { network, lanes };
        // Once unmeasured, so that stores, epochs and windows are warm.
        flow.pass(1_000).await?;
        Ok(flow)
    }

    async fn pass(&mut self, messages: usize) -> Result<()> {
        let lanes = std::mem::take(&mut self.lanes);
        let each = messages / lanes.len();
        self.lanes = flow::pass(lanes, each).await?;
        Ok(())
    }

    /// As the nodes themselves count it.
    fn cpu_seconds(&self) -> Result<f64> {
        let mut sum = 0.0;
        for node in &self.network.nodes {
            let url = format!("http://{}/metrics", node.admin()?);
            let page = ureq::get(&url).call()?.body_mut().read_to_string()?;
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix("pqcnet_process_cpu_seconds_total "));
            sum += line.context("no CPU time")?.parse::<f64>()?;
        }
        Ok(sum)
    }

    async fn stop(self) -> Result<()> {
        drop(self.lanes);
        self.network.stop().await
    }
}
