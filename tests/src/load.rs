//! A load on a network of real processes, and the account of what came of it: publishers and subscribers that crash now and
//! then, a ledger of what was sent, acknowledged, delivered and stored.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use pqcnet_client::{Client, Publisher};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::{Channel, ChannelName, Role, ShardMap};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::disk::{Disk, files_with};
use crate::ledger::{Account, Verdict};
use crate::network::Network;

/// Messages a subscriber takes before it "crashes": it goes away without a word and comes back with its stored offset.
pub const CRASH_EVERY: u64 = 400;
/// Messages after which it stores its offset, together with what it did with them: some of what it had taken when it crashes
/// is undone by that, and has to come again.
const STORE_EVERY: u64 = 64;
/// Nothing in this test takes so long unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(480);
const PAYLOAD: usize = 200;
/// Stands in every payload, and must stand in no file.
pub const SECRET: &[u8] = b"for the subscriber's eyes only";
/// Numbers the last message of a channel, which is not part of the account.
const MARK: u64 = u64::MAX;

/// Counts of the whole run, and whoever waits for them to grow.
#[derive(Default)]
pub struct Progress {
    /// Handed to a publisher.
    pub sent: AtomicU64,
    /// Acknowledged, or failed.
    pub settled: AtomicU64,
    /// Got by a subscriber.
    pub delivered: AtomicU64,
    news: Notify,
}

impl Progress {
    fn add(&self, count: &AtomicU64) {
        count.fetch_add(1, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    /// Waits until a count is this high.
    pub async fn reach(&self, count: &AtomicU64, goal: u64) {
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
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Reads to the last message, crashing now and then before its offset is stored; the stored offset, and what was done up to it,
/// is all that survives a crash. What comes again must be what it was.
async fn follow(
    network: Arc<Network>,
    lane: Arc<Lane>,
    last: u64,
    progress: Arc<Progress>,
) -> Result<()> {
    let mut stored_offset = 0;
    let mut seen_last = false;
    let mut undone: Vec<(u64, u64)> = Vec::new();
    while !seen_last {
        let presented = stored_offset;
        let client = network.client(&lane.keys).await?;
        let mut records = client.subscribe(&lane.channel, presented).await?;
        let mut first = None;
        for taken in 1..=CRASH_EVERY {
            let record = records.next().await?;
            first.get_or_insert(record.offset);
            let number = message(&record.payload)?;
            let got = (record.offset, number);
            let before = undone.iter().find(|(offset, _)| *offset == record.offset);
            ensure!(
                before.is_none_or(|before| *before == got),
                "{before:?} came again as {got:?}"
            );
            lane.account().delivered.push(got);
            progress.add(&progress.delivered);
            seen_last = number == last;
            if taken % STORE_EVERY == 0 || seen_last {
                stored_offset = record.offset;
            }
            if seen_last {
                break;
            }
        }
        let mut account = lane.account();
        account.resumed.push((presented, first));
        let kept = account
            .delivered
            .partition_point(|(offset, _)| *offset <= stored_offset);
        undone = account.delivered.split_off(kept);
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
async fn read_disks(network: &Network, lanes: &[Arc<Lane>], map: &ShardMap) -> Result<()> {
    for node in network
        .nodes
        .iter()
        .filter(|node| node.role == Role::Relayer)
    {
        let clear = files_with(&node.folder().join("store"), SECRET)?;
        ensure!(clear.is_empty(), "payloads in clear in {clear:?}");
        let storage = node.secrets()?.storage;
        let mut disk = match network.broker_of(node)? {
            Some(broker) => Disk::on_broker(node.folder(), storage, broker)?,
            None => Disk::open(node.folder(), storage)?,
        };
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

/// What goes on in a network.
pub struct Load {
    /// How far it is.
    pub progress: Arc<Progress>,
    network: Arc<Network>,
    lanes: Vec<Arc<Lane>>,
    flows: JoinSet<Result<()>>,
}

impl Load {
    /// Publishers and subscribers of so many customers, channels of each and messages in each. Nothing is sent before
    /// [`Load::allow`].
    pub async fn start(
        network: Arc<Network>,
        customers: usize,
        channels_each: usize,
        messages_each: u64,
    ) -> Result<Load> {
        let progress = Arc::new(Progress::default());
        let mut lanes = Vec::new();
        let mut flows = JoinSet::new();
        for _ in 0..customers {
            let keys = Arc::new(NodeKeys::generate());
            let client = network.client(&keys).await?;
            let names: Vec<ChannelName> =
                network.balanced_channels(keys.node_id(), channels_each)?;
            for name in names {
                let publisher = client.publisher(&name)?;
                let lane = Arc::new(Lane {
                    keys: keys.clone(),
                    channel: client.channel(name),
                    allowance: Semaphore::new(0),
                    account: Mutex::default(),
                });
                let progress = progress.clone();
                flows.spawn(publish(lane.clone(), publisher, messages_each, progress));
                lanes.push(lane);
            }
        }
        let last = messages_each - 1;
        for lane in &lanes {
            let (network, lane, progress) = (network.clone(), lane.clone(), progress.clone());
            flows.spawn(follow(network, lane, last, progress));
        }
        Ok(Load {
            progress,
            network,
            lanes,
            flows,
        })
    }

    /// Channels.
    pub fn lanes(&self) -> u64 {
        self.lanes.len() as u64
    }

    /// So many more messages of each channel may be sent.
    pub fn allow(&self, messages: u64) {
        for lane in &self.lanes {
            lane.allowance.add_permits(messages as usize);
        }
    }

    /// Waits until all is sent and delivered, reads everything back, stops the network, reads its disks, and judges.
    pub async fn finish(self) -> Result<Verdict> {
        let relayers = self.network.file.relayers();
        let ids = relayers.iter().map(|node| node.id);
        let first = ShardMap::from_relayers(self.network.file.shards(), ids)?;
        self.finish_by(&first).await
    }

    /// The same where shards are at the end as this map says.
    pub async fn finish_by(mut self, map: &ShardMap) -> Result<Verdict> {
        while let Some(flow) = self.flows.join_next().await {
            flow??;
        }
        let mut clients = BTreeMap::new();
        for lane in &self.lanes {
            if let Entry::Vacant(vacant) = clients.entry(lane.keys.node_id()) {
                vacant.insert(self.network.client(&lane.keys).await?);
            }
        }
        let read = |lane: &Arc<Lane>| {
            let client = &clients[&lane.keys.node_id()];
            let lane = lane.clone();
            async move { read_back(client, &lane).await }
        };
        try_join_all(self.lanes.iter().map(read)).await?;
        drop(clients);
        self.network.stop().await?;
        read_disks(&self.network, &self.lanes, map).await?;
        let mut verdict = Verdict::default();
        for lane in &self.lanes {
            lane.account().judge(&mut verdict);
        }
        Ok(verdict)
    }
}
