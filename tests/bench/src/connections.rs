//! What an idle client's link costs a sentry: resident and allocated bytes at 1,000 and at 10,000 links. The sentry is a
//! process of its own whose allocator counts; the clients, all in this one, are the client crate's, each with its own
//! keys, attached and idle.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pqcnet_client::{Client, ClientConfig};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
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

/// Every row of the group.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let counts: &[usize] = if args.quick { &[200] } else { &[1_000, 10_000] };
    runtime.block_on(measure(counts))
}

/// Bytes of the sentry.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident: u64,
    allocated: u64,
}

async fn measure(counts: &[usize]) -> Result<Vec<Row>> {
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
