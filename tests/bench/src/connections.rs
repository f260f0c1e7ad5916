//! What an idle link costs a sentry: resident and allocated bytes of a client's at 1,000 and at 10,000 links, and of another
//! node's on the control plane. The sentry is a process of its own whose allocator counts; the peers, all in this one, have
//! keys of their own each: clients are the client crate's, attached and idle, nodes are listed in the network, gossip and
//! share lookups. And what a session costs with its actor: [`SESSIONS`] of them in another process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pqcnet_actor::Env;
use pqcnet_client::{Client, ClientConfig};
use pqcnet_crypto::NodeKeys;
use pqcnet_link::{LinkConfig, ServiceId};
use pqcnet_messages::Role;
use pqcnet_messages::control::Ping;
use pqcnet_p2p::control::{
    ControlConfig, ControlEvents, ControlPlane as _, GossipConfig, Libp2pControl, LookupConfig,
};
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Admission, NodeEntry};
use pqcnet_p2p::typed::{Bindings, LinkHandle, establish};
use pqcnet_tests::network::{Network, Node};
use pqcnet_tests::process::binary;

use crate::Args;
use crate::row::Row;

const GROUP: &str = "connections";
/// Handshakes under way at once; fewer than the sentry lets one prefix have half open.
const AT_ONCE: usize = 32;
/// Descriptors beside the links, here and in the sentry.
const SPARE: u64 = 500;
/// A pool of buffers or a timer may still come and go; memory is read when it has moved less than this for a second.
const STILL: u64 = 256 * 1024;
const SETTLES_WITHIN: u32 = 60;
const SOON: Duration = Duration::from_secs(30);

/// Nodes with a link on the control plane; fewer than one may have.
const PEERS: usize = 500;
/// Handshakes of theirs under way at once.
const PEERS_AT_ONCE: usize = 8;
const SESSIONS: usize = 10_000;

/// Every row of the group.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let counts: &[usize] = if args.quick { &[200] } else { &[1_000, 10_000] };
    let few = |many: usize| if args.quick { many / 10 } else { many };
    let mut rows = sessions(few(SESSIONS))?;
    rows.extend(runtime.block_on(peers(few(PEERS)))?);
    rows.extend(runtime.block_on(clients(counts))?);
    Ok(rows)
}

/// A session's keys with an idle actor, and with the sentry's own.
fn sessions(count: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, what) in [
        ("held", "a QSTP session with an idle actor"),
        (
            "attached",
            "a QSTP session with the sentry's actor, attached",
        ),
    ] {
        let child = std::process::Command::new(binary("pqcnet-bench-sentry")?)
            .args(["sessions", kind, &count.to_string()])
            .output()?;
        let told = String::from_utf8_lossy(&child.stderr).into_owned();
        ensure!(child.status.success(), "{what}: {told}");
        let text = String::from_utf8(child.stdout)?;
        let figures = text.split_whitespace().zip(["resident", "allocated"]);
        for (figure, memory) in figures {
            let what = format!("{memory} bytes, {what}");
            rows.push(Row::new(GROUP, what, figure.parse()?, "bytes"));
        }
    }
    Ok(rows)
}

/// A node's end of its link, kept open.
struct Peer {
    link: LinkHandle,
    _plane: (Libp2pControl, ControlEvents),
}

/// Nodes of the network that connect to the sentry on the control plane and say nothing.
async fn peers(count: usize) -> Result<Vec<Row>> {
    let mut network = Network::create(1, 1, Admission::Any)?;
    let nodes: Vec<Arc<NodeKeys>> = (0..count).map(|_| Arc::new(NodeKeys::generate())).collect();
    network.list(nodes.iter().map(|keys| NodeEntry {
        id: keys.node_id(),
        roles: BTreeSet::from([Role::Watcher]),
        control: Vec::new(),
        data: Vec::new(),
    }))?;
    network.node(Role::Relayer, 1).start().await?;
    let sentry = network.node(Role::Sentry, 1);
    sentry.start_with(&binary("pqcnet-bench-sentry")?).await?;
    let mut joined = nodes.into_iter();
    let first = joined.next().context("no node")?;
    let mut linked = vec![peer(&network, first).await?];
    let empty = settled(sentry).await?;
    let more: Vec<Peer> = stream::iter(joined.map(|keys| peer(&network, keys)))
        .buffer_unordered(PEERS_AT_ONCE)
        .try_collect()
        .await?;
    let each = more.len() as f64;
    linked.extend(more);
    let full = settled(sentry).await?;
    for peer in &linked {
        let pong = peer
            .link
            .remote::<Ping>()
            .ask(Ping { nonce: 1 }, SOON)
            .await;
        pong.context("a node lost its link")?;
    }
    drop(linked);
    network.stop().await?;
    let what = |kind| format!("{kind} bytes a link, {count} idle nodes");
    let of = |full: u64, empty: u64| full.saturating_sub(empty) as f64 / each;
    let resident = of(full.resident, empty.resident);
    let allocated = of(full.allocated, empty.allocated);
    Ok(vec![
        Row::new(GROUP, what("resident"), resident, "bytes"),
        Row::new(GROUP, what("allocated"), allocated, "bytes"),
    ])
}

async fn peer(network: &Network, keys: Arc<NodeKeys>) -> Result<Peer> {
    let env = Env::plain();
    let sentry = network.node(Role::Sentry, 1).id;
    let config = SecurityConfig::new(keys, network.file.network_id());
    let mut config = ControlConfig::new(Security::new(env.clone(), config)?, 4);
    config.gossip = Some(GossipConfig::default());
    config.lookup = Some(LookupConfig::default());
    let plane = Libp2pControl::start(&env, config)?;
    let listed = network.file.node(&sentry).context("listed")?;
    plane.0.dial(sentry, &listed.control).await?;
    let stream = plane.0.open(sentry).await?;
    let config = LinkConfig::new(Role::Watcher, [ServiceId::CONTROL]);
    let accepted = establish(&env, stream, sentry, config, |_, _| Ok(())).await?;
    Ok(Peer {
        link: accepted.start(Bindings::new()),
        _plane: plane,
    })
}

/// Bytes of the sentry.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident: u64,
    allocated: u64,
}

async fn clients(counts: &[usize]) -> Result<Vec<Row>> {
    let most = counts.iter().max().copied().unwrap_or_default();
    descriptors(most as u64 + SPARE)?;
    let network = Network::create(1, 1, Admission::Any)?;
    network.node(Role::Relayer, 1).start().await?;
    let sentry = network.node(Role::Sentry, 1);
    sentry.start_with(&binary("pqcnet-bench-sentry")?).await?;

    // The first client warms what is allocated once.
    let mut clients = vec![client(&network).await?];
    let empty = settled(sentry).await?;
    let mut rows = Vec::new();
    for &count in counts {
        let more = (count + 1).saturating_sub(clients.len());
        let joined = stream::iter(0..more).map(|_| client(&network));
        clients.extend(
            joined
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<_>>()
                .await?,
        );
        let full = settled(sentry).await?;
        let each = |full: u64, empty: u64| full.saturating_sub(empty) as f64 / count as f64;
        let resident = each(full.resident, empty.resident);
        let allocated = each(full.allocated, empty.allocated);
        ensure!(
            clients.iter().all(|client| client.sentry().is_some()),
            "a client lost its link"
        );
        let what = |kind| format!("{kind} bytes a link, {count} idle clients");
        rows.push(Row::new(GROUP, what("resident"), resident, "bytes"));
        rows.push(Row::new(GROUP, what("allocated"), allocated, "bytes"));
    }
    drop(clients);
    network.stop().await?;
    Ok(rows)
}

async fn client(network: &Network) -> Result<Client> {
    let keys = Arc::new(NodeKeys::generate());
    let mut config = ClientConfig::new(network.file.clone(), keys);
    // A flood from one prefix solves puzzles and waits its turn.
    config.connect_timeout = Duration::from_secs(120);
    Ok(Client::connect(config).await?)
}

/// Raises the soft limit; children inherit it.
fn descriptors(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= needed,
        "{needed} descriptors are needed and the hard limit is {hard}: raise it with `ulimit -Hn`"
    );
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed), hard)?)
}

fn memory(node: &Node) -> Result<Memory> {
    let pid = node.pid()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()
    });
    let allocated = std::fs::read_to_string(node.folder().join("heap.txt"))?;
    Ok(Memory {
        resident: resident.context("no VmRSS")? * 1024,
        // Read between two writes, the file is empty.
        allocated: allocated.parse().unwrap_or_default(),
    })
}

async fn settled(node: &Node) -> Result<Memory> {
    let mut last = memory(node)?;
    for _ in 0..SETTLES_WITHIN {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = memory(node)?;
        let moved = now
            .resident
            .abs_diff(last.resident)
            .max(now.allocated.abs_diff(last.allocated));
        if moved < STILL && now.allocated > 0 {
            return Ok(now);
        }
        last = now;
    }
    anyhow::bail!("the sentry's memory does not settle")
}
