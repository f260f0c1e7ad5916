//! Processes die in mid-flow, again and again; a ledger of what was acknowledged, delivered and stored says what came of
//! it. Every process is a real one on loopback, killed with SIGKILL.
#![allow(
    clippy::print_stdout,
    reason = "the counts of a run are worth reading beside its verdict"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use pqcnet_client::{Client, Publisher};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::{Channel, ChannelName, Role, ShardMap};
use pqcnet_tests::disk::{Disk, files_with};
use pqcnet_tests::ledger::{Account, Verdict};
use pqcnet_tests::network::Network;
use tokio::sync::{Notify, Semaphore};

/// What one run does.
struct Plan {
    customers: usize,
    channels_each: usize,
    messages_each: u64,
    relayer_kills: usize,
    sentry_kills: usize,
}

/// Messages a subscriber takes before it "crashes": it goes away without a word and comes back with its stored offset.
const CRASH_EVERY: u64 = 400;
/// Nothing in this test takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(240);
const PAYLOAD: usize = 200;
/// Stands in every payload, and must stand in no file.
const SECRET: &[u8] = b"for the subscriber's eyes only";
/// Numbers the last message of a channel, which is not part of the account.
const MARK: u64 = u64::MAX;

/// Counts of the whole run, and whoever waits for them to grow.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    settled: AtomicU64,
    delivered: AtomicU64,
    news: Notify,
}

impl Progress {
    fn add(&self, count: &AtomicU64) {
        count.fetch_add(1, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    async fn reach(&self, count: &AtomicU64, goal: u64) {
        loop {
            let news = self.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            if count.load(Ordering::SeqCst) >= goal {
                return;
            }
            news.await;
        }
    }
}

/// One channel: its publisher's and its subscriber's part of the ledger.
struct Lane {
    keys: Arc<NodeKeys>,
    channel: Channel,
    /// Messages that may be sent by now.
    allowance: Semaphore,
    account: Mutex<Account>,
}

impl Lane {
    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().expect("nobody panics with it")
    }
}

fn payload(message: u64) -> Vec<u8> {
    let mut payload = message.to_be_bytes().to_vec();
    payload.extend_from_slice(SECRET);
    payload.resize(PAYLOAD, message as u8);
    payload
}

fn message(bytes: &[u8]) -> Result<u64> {
    let number = bytes
        .first_chunk()
        .map(|number| u64::from_be_bytes(*number));
    let number = number.context("a payload of less than 8 bytes")?;
    ensure!(bytes == payload(number), "a payload changed on its way");
    Ok(number)
}

async fn publish(
    lane: Arc<Lane>,
    publisher: Publisher,
    messages: u64,
    progress: Arc<Progress>,
) -> Result<()> {
    let mut receipts = Vec::new();
    for number in 0..messages {
        lane.allowance.acquire().await?.forget();
        let receipt = publisher.send(payload(number)).await?;
        lane.account().sent += 1;
        progress.add(&progress.sent);
        let (lane, progress) = (lane.clone(), progress.clone());
        receipts.push(tokio::spawn(async move {
            match receipt.await {
                Ok(published) => {
                    lane.account().acked.insert(number, published.offset);
                }
                Err(error) => {
                    lane.account().failed.insert(number, error.to_string());
                }
            }
            progress.add(&progress.settled);
        }));
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// Reads to the last message, crashing now and then; the stored offset is all that survives a crash.
async fn follow(
    network: Arc<Network>,
    lane: Arc<Lane>,
    last: u64,
    progress: Arc<Progress>,
) -> Result<()> {
    let mut stored_offset = 0;
    let mut seen_last = false;
    while !seen_last {
        let presented = stored_offset;
        let client = network.client(&lane.keys).await?;
        let mut records = client.subscribe(&lane.channel, presented).await?;
        let mut first = None;
        for _ in 0..CRASH_EVERY {
            let record = records.next().await?;
            first.get_or_insert(record.offset);
            let number = message(&record.payload)?;
            lane.account().delivered.push((record.offset, number));
            progress.add(&progress.delivered);
            stored_offset = record.offset;
            seen_last = number == last;
            if seen_last {
                break;
            }
        }
        lane.account().resumed.push((presented, first));
    }
    Ok(())
}

/// Reads what is there from the beginning to a mark set now: a duplicate that landed late would stand before it.
async fn read_back(client: &Client, lane: &Lane) -> Result<()> {
    client.publish(&lane.channel.name, payload(MARK)).await?;
    let mut records = client.subscribe(&lane.channel, 0).await?;
    loop {
        let record = records.next().await?;
        let number = message(&record.payload)?;
        if number == MARK {
            return Ok(());
        }
        lane.account().stored.push((record.offset, number));
    }
}

/// Reads the same from the stopped relayers' stores; no payload may lie there in clear.
async fn read_disks(network: &Network, lanes: &[Arc<Lane>]) -> Result<()> {
    let relayers = network.file.relayers();
    let ids = relayers.iter().map(|node| node.id);
    let map = ShardMap::from_relayers(network.file.shards(), ids)?;
    for node in network
        .nodes
        .iter()
        .filter(|node| node.role == Role::Relayer)
    {
        let clear = files_with(&node.folder().join("store"), SECRET)?;
        ensure!(clear.is_empty(), "payloads in clear in {clear:?}");
        let mut disk = Disk::open(node.folder(), node.secrets()?.storage)?;
        for lane in lanes {
            let shard = map.shard_of(&lane.channel);
            if map.owner_of(shard) != Some(node.id) {
                continue;
            }
            for (offset, payload) in disk.records(shard, &lane.channel).await? {
                let number = message(&payload)?;
                if number != MARK {
                    lane.account().on_disk.push((offset, number));
                }
            }
        }
    }
    Ok(())
}

async fn run(plan: Plan) -> Result<Verdict> {
    let network = Network::start(1, 2).await?;
    let progress = Arc::new(Progress::default());
    let mut lanes = Vec::new();
    let mut publishers = Vec::new();
    for _ in 0..plan.customers {
        let keys = Arc::new(NodeKeys::generate());
        let client = network.client(&keys).await?;
        let names: Vec<ChannelName> =
            network.balanced_channels(keys.node_id(), plan.channels_each)?;
        for name in names {
            publishers.push(client.publisher(&name)?);
            lanes.push(Arc::new(Lane {
                keys: keys.clone(),
                channel: client.channel(name),
                allowance: Semaphore::new(0),
                account: Mutex::default(),
            }));
        }
    }
    let last = plan.messages_each - 1;
    let network = Arc::new(network);
    let mut flows = tokio::task::JoinSet::new();
    for (lane, publisher) in lanes.iter().zip(publishers) {
        flows.spawn(publish(
            lane.clone(),
            publisher,
            plan.messages_each,
            progress.clone(),
        ));
    }
    for lane in &lanes {
        flows.spawn(follow(
            network.clone(),
            lane.clone(),
            last,
            progress.clone(),
        ));
    }

    let killed = kill_all(&plan, &network, &lanes, &progress).await?;
    while let Some(flow) = flows.join_next().await {
        flow??;
    }

    let mut clients = BTreeMap::new();
    for lane in &lanes {
        let id = lane.keys.node_id();
        if let std::collections::btree_map::Entry::Vacant(vacant) = clients.entry(id) {
            vacant.insert(network.client(&lane.keys).await?);
        }
    }
    try_join_all(
        lanes
            .iter()
            .map(|lane| read_back(&clients[&lane.keys.node_id()], lane)),
    )
    .await?;
    drop(clients);
    network.stop().await?;
    read_disks(&network, &lanes).await?;

    let mut verdict = Verdict::default();
    for lane in &lanes {
        lane.account().judge(&mut verdict);
    }
    println!("{killed}");
    println!("{verdict}");
    Ok(verdict)
}

/// Lets the flow run in stretches, and in the middle of each kills a process and starts it again.
async fn kill_all(
    plan: &Plan,
    network: &Arc<Network>,
    lanes: &[Arc<Lane>],
    progress: &Progress,
) -> Result<String> {
    let kills = plan.relayer_kills + plan.sentry_kills;
    let every = kills / plan.sentry_kills.max(1);
    let stretch = plan.messages_each / (kills as u64 + 1);
    let allow = |messages: u64| {
        for lane in lanes {
            lane.allowance.add_permits(messages as usize);
        }
    };
    let (mut relayers, mut sentries, mut in_flight) = (0, 0, 0);
    for kill in 0..kills {
        let before = progress.settled.load(Ordering::SeqCst);
        allow(stretch);
        // Each time at another point: from the very first acknowledgement of the stretch to half of it.
        let half = stretch * lanes.len() as u64 / 2;
        progress
            .reach(&progress.settled, before + 1 + half * (kill as u64 % 5) / 5)
            .await;
        let node = if (kill + 1) % every == 0 && sentries < plan.sentry_kills {
            sentries += 1;
            network.node(Role::Sentry, 1)
        } else {
            relayers += 1;
            network.node(Role::Relayer, 1 + relayers % 2)
        };
        node.kill().await?;
        let sent = progress.sent.load(Ordering::SeqCst);
        in_flight += sent - progress.settled.load(Ordering::SeqCst);
        node.start().await?;
    }
    allow(plan.messages_each - stretch * kills as u64);
    Ok(format!(
        "kill -9: relayers {relayers}, sentry {sentries}; unacknowledged at those moments: {in_flight} messages"
    ))
}

/// 2 customers, 8 channels, 20,800 messages; 20 times a relayer dies and 5 times the sentry, each in mid-flow. Nothing that
/// was acknowledged is lost, nothing lands twice, order is kept, and no subscriber gets what it had.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() -> Result<()> {
    let plan = Plan {
        customers: 2,
        channels_each: 4,
        messages_each: 2_600,
        relayer_kills: 20,
        sentry_kills: 5,
    };
    let sent = (plan.customers * plan.channels_each) as u64 * plan.messages_each;
    let verdict = tokio::time::timeout(PATIENCE, run(plan)).await??;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(
        (verdict.sent, verdict.acked, verdict.failed),
        (sent, sent, 0)
    );
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    assert_eq!(verdict.delivered, sent);
    assert!(verdict.resumed >= 8 * (2_600 / CRASH_EVERY));
    Ok(())
}

/// The same for longer: `make soak`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes"]
async fn soak() -> Result<()> {
    let plan = Plan {
        customers: 4,
        channels_each: 8,
        messages_each: 20_000,
        relayer_kills: 200,
        sentry_kills: 50,
    };
    let verdict = run(plan).await?;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.failed, 0);
    Ok(())
}
