//! What metering costs a relayer, in instructions: shard workers, log and meter as in production, on a disk in memory, with and without the
//! meter and otherwise the same to the message. Valgrind counts, so neither the machine's noise nor a process's place in a round is in it.
//!
//! Links, sealing towards clients and the disk's engine are in neither count, so a message is cheaper here than in a relayer, and the
//! part that metering has of it larger. A receiver's own
//! signature, one a channel and window, is the client's work and not counted; that the relayer verifies it is.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use pqcnet_actor::{
    Addr, Behaviour, Cx, Env, On, Ref, Reply, Running, Spec, Strategy, Tree, latest, simulate,
};
use pqcnet_crypto::{NodeKeys, StorageMasterKey};
use pqcnet_log::{EmbeddedLog, ShardNo, keys};
use pqcnet_messages::relay::{RelayCountersign, RelayDeliver, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{Admit, Consume, Follow, IssueEpoch};
use pqcnet_messages::{
    Channel, ChannelName, Countersigned, Refusal, Series, ShardId, ShardMap, Statement,
};
use pqcnet_meter::{BOUNDS, Identity, Meter, MeterConfig, disk};
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{ShardWorker, ShardWorkerConfig, Tenure};
use pqcnet_sim::disk::{Disk, DiskConfig};
use pqcnet_store::{Batch, Schema};

use crate::counted::{count, instructions_of, uncounted};
use crate::tell;

const SHARDS: u16 = 32;
const NETWORK: [u8; 32] = [7; 32];
const PAYLOAD: usize = 1024;
const LINK: u64 = 1;
const WITHIN: Duration = Duration::from_secs(30);
/// A meter's first window ends a second after its start.
const BEFORE: Duration = Duration::from_secs(2);
/// What is counted: a window of a minute ends in it, once.
const COUNTED: Duration = Duration::from_secs(60);
/// Between two publishes.
const TICK: Duration = Duration::from_millis(10);
/// Channels, messages a second, messages a publish.
const LOADS: [(usize, u64, u64); 2] = [(4, 1_000, 10), (4, 100, 1)];

/// Prints a row for each load and each window, each counted in a process of its own.
pub(crate) fn metering() -> Result<()> {
    tell(
        "| channels | messages/s | a publish | window, s | messages counted | instructions a message | beside no meter |",
    );
    tell("|---|---|---|---|---|---|---|");
    let program = std::env::current_exe().context("where is this program?")?;
    for (load, (channels, rate, batch)) in LOADS.into_iter().enumerate() {
        let mut bare = None;
        for window in [0, 60, 1] {
            let mut child = Command::new(&program);
            child.args(["metered", &load.to_string(), &window.to_string()]);
            let (out, instructions) = instructions_of(&child)?;
            let messages: f64 = out.trim().parse().context("how many messages?")?;
            let each = instructions / messages;
            let beside = each / *bare.get_or_insert(each);
            tell(&format!(
                "| {channels} | {rate} | {batch} | {window} | {messages} | {each:.0} | {beside:.4} |"
            ));
        }
    }
    Ok(())
}

/// One run; prints how many messages were counted.
pub(crate) fn metered(load: &str, window: &str) -> Result<()> {
    let load: usize = load.parse().context("LOAD")?;
    let (channels, rate, batch) = *LOADS.get(load).context("LOAD")?;
    let window = Duration::from_secs(window.parse().context("WINDOW")?);
    let delivered = simulate(|| async move {
        let mut relayer = Relayer::start(channels, window).await?;
        relayer.publish(BEFORE, (rate, batch)).await?;
        let before = relayer.delivered().await?;
        count(true);
        relayer.publish(COUNTED, (rate, batch)).await?;
        count(false);
        let delivered = relayer.delivered().await? - before;
        relayer.running.stop().await;
        anyhow::Ok(delivered)
    })?;
    ensure!(
        delivered == COUNTED.as_secs() * rate,
        "{delivered} delivered"
    );
    tell(&delivered.to_string());
    Ok(())
}

struct Relayer {
    env: Env,
    lanes: Vec<Lane>,
    turn: usize,
    reader: Addr<Reader>,
    running: Running,
}

struct Lane {
    admit: Ref<Admit>,
    channel: Channel,
    epoch: u64,
    sent: u64,
}

impl Relayer {
    async fn start(channels: usize, window: Duration) -> Result<Relayer> {
        let env = Env::simulated(1, "relayer");
        let metered = !window.is_zero();
        let log_disk = Disk::new("log", DiskConfig::default(), env.rng("log"));
        let log_disk = log_disk.with_meter(DiskConfig::default(), env.rng("meter"));
        let schema = Schema {
            kind: "relay",
            version: keys::VERSION,
            families: keys::FAMILIES.to_vec(),
        };
        let store = Arc::new(log_disk.mount(&env, &schema)?);
        let log = Arc::new(EmbeddedLog::new(&env, store));
        let (ours, theirs) = (
            Arc::new(NodeKeys::generate()),
            Arc::new(NodeKeys::generate()),
        );
        let map = ShardMap::from_relayers(SHARDS, [ours.node_id()])?;
        let tenure = Tenure::new(ours.node_id(), map, []);
        let tenure = Arc::new(tenure.map_err(|error| anyhow!("{error:?}"))?);
        let (_tenure, tenure) = latest::channel(tenure);
        let storage_key = Arc::new(StorageMasterKey::generate());
        let mut tree = Tree::new("relayer", Strategy::OneForOne);
        let mut workers = Vec::new();
        for shard in 0..SHARDS {
            let config = ShardWorkerConfig {
                shard: ShardNo(shard),
                log: log.clone(),
                storage_key: storage_key.clone(),
                limits: ShardLimits::default(),
                tenure: tenure.clone(),
                metered,
            };
            let spec = Spec::new(format!("shard-{shard}"), move |_| ShardWorker::new(&config));
            workers.push(tree.child(spec.place(shard.into())));
        }
        if metered {
            let store = log_disk.mount_meter(&env, &disk::schema(), &Batch::new())?;
            let store = store.context("no disk for the meter")?;
            let books = (0..SHARDS).zip(&workers);
            let config = MeterConfig {
                identity: Identity {
                    keys: ours.clone(),
                    network_id: NETWORK,
                    keep: 10_080,
                },
                window,
                store: Arc::new(store),
                workers: books.map(|(no, of)| (ShardId(no), of.of())).collect(),
            };
            let spec = Spec::new("meter", move |_| Meter::new(config.clone()));
            tree.child(spec.mailbox(BOUNDS));
        }
        let named = |lane| {
            let name = ChannelName::new(&format!("lane-{lane}"))?;
            let owner = theirs.node_id();
            anyhow::Ok(Channel { owner, name })
        };
        let names: Vec<Channel> = (0..channels).map(named).collect::<Result<_>>()?;
        let of_lane = |lane: usize| &workers[lane % workers.len()];
        let reader = Reader {
            consume: (0..channels).map(|lane| of_lane(lane).of()).collect(),
            names: names.clone(),
            keys: (ours.clone(), theirs.clone()),
            counted: 0,
            taken: BTreeMap::new(),
        };
        let mut reader = Some(reader);
        let spec = Spec::new("reader", move |_| {
            reader.take().unwrap_or_else(|| panic!("the reader failed"))
        });
        let reader = tree.child(spec);
        let running = tree.start(env.clone());
        let mut lanes = Vec::new();
        for (lane, channel) in names.into_iter().enumerate() {
            let worker = of_lane(lane);
            let epoch = epoch(&env, &worker.of(), &channel).await?;
            let mut series = [0; 16];
            series[..8].copy_from_slice(&(lane as u64 + 1).to_be_bytes());
            let follow = Follow {
                link: LINK,
                subscription: u32::try_from(lane)?,
                customer: theirs.node_id(),
                channel: channel.clone(),
                after: 0,
                window_bytes: 4 << 20,
                series: Series(series),
                countersign: Some(reader.of()),
                deliver: reader.of(),
                ended: reader.of(),
                membership: None,
            };
            let followed = worker.of::<Follow>().ask(follow, WITHIN).await?;
            followed.map_err(|refusal| anyhow!("{refusal}"))?;
            lanes.push(Lane {
                admit: worker.of(),
                channel,
                epoch,
                sent: 0,
            });
        }
        Ok(Relayer {
            env,
            lanes,
            turn: 0,
            reader,
            running,
        })
    }

    /// At that rate, the lanes taking turns, until the time is over and all is delivered.
    async fn publish(&mut self, time: Duration, (rate, batch): (u64, u64)) -> Result<()> {
        let payload = Bytes::from(vec![7; PAYLOAD]);
        let until = self.env.now() + time;
        let pause = TICK * u32::try_from(batch * 100 / rate)?;
        while self.env.now() < until {
            let next = self.env.now() + pause;
            let place = self.turn % self.lanes.len();
            self.turn += 1;
            let lane = &mut self.lanes[place];
            let admit = Admit {
                customer: lane.channel.owner,
                channel: lane.channel.clone(),
                epoch: lane.epoch,
                first_seq: lane.sent + 1,
                payloads: vec![payload.clone(); usize::try_from(batch)?],
                publisher: None,
            };
            lane.sent += batch;
            let stored = lane.admit.ask(admit, WITHIN).await?;
            stored.map_err(|refusal| anyhow!("{refusal}"))?;
            self.env.sleep(next.saturating_sub(self.env.now())).await;
        }
        Ok(())
    }

    async fn delivered(&self) -> Result<u64> {
        Ok(self.reader.of().ask(Counted, WITHIN).await?)
    }
}

async fn epoch(env: &Env, worker: &Ref<IssueEpoch>, channel: &Channel) -> Result<u64> {
    loop {
        let ask = IssueEpoch {
            customer: channel.owner,
            channel: channel.clone(),
            supersedes: None,
        };
        match worker.ask(ask, WITHIN).await? {
            Ok(opened) => return Ok(opened.epoch),
            // The shard opens still, and time passes only while nobody works.
            Err(Refusal::Unavailable) => env.sleep(TICK).await,
            Err(refusal) => return Err(anyhow!("{refusal}")),
        }
    }
}

/// To the reader: how many records have come?
struct Counted;

impl pqcnet_actor::Message for Counted {
    type Reply = u64;
    const NAME: &'static str = "figures.Counted";
}

/// Takes every lane's records, consumes them, and signs for them.
struct Reader {
    consume: Vec<Ref<Consume>>,
    names: Vec<Channel>,
    /// The relayer's, and its own.
    keys: (Arc<NodeKeys>, Arc<NodeKeys>),
    counted: u64,
    /// Records and their bytes by lane, and the last offset.
    taken: BTreeMap<u32, (u64, u64, u64)>,
}

impl Behaviour for Reader {
    const NAME: &'static str = "Reader";
}

impl On<RelayDeliver> for Reader {
    fn on(&mut self, msg: RelayDeliver, cx: &mut Cx<Self>) -> Reply<RelayDeliver> {
        let taken = self.taken.entry(msg.subscription).or_default();
        for record in &msg.records {
            self.counted += 1;
            taken.0 += 1;
            taken.1 += record.payload.len() as u64;
            taken.2 = record.offset;
        }
        let consumed = Consume {
            link: LINK,
            subscription: msg.subscription,
            offset: taken.2,
        };
        if self.consume[msg.subscription as usize]
            .try_tell(consumed)
            .is_err()
        {
            tell("a worker takes nothing");
            cx.stop();
        }
        Reply::Now(())
    }
}

impl On<RelayCountersign> for Reader {
    fn on(&mut self, msg: RelayCountersign, cx: &mut Cx<Self>) -> Reply<RelayCountersign> {
        let (frames, bytes, last) = self
            .taken
            .get(&msg.subscription)
            .copied()
            .unwrap_or_default();
        let mut series = [0; 16];
        series[..8].copy_from_slice(&(u64::from(msg.subscription) + 1).to_be_bytes());
        let (relayer, receiver) = (&self.keys.0, &self.keys.1);
        let statement = Statement {
            network_id: NETWORK,
            receiver: receiver.node_id(),
            relayer: relayer.node_id(),
            channel: self.names[msg.subscription as usize].clone(),
            series: Series(series),
            window: msg.window,
            after: 0,
            last,
            frames,
            bytes,
            signed_at_ms: cx.wall_ms(),
        };
        let receipt = uncounted(|| statement.sign(receiver));
        Reply::Now(Ok(Countersigned { receipt }))
    }
}

impl On<RelaySubscriptionEnded> for Reader {
    fn on(
        &mut self,
        msg: RelaySubscriptionEnded,
        cx: &mut Cx<Self>,
    ) -> Reply<RelaySubscriptionEnded> {
        tell(&format!("a subscription ended: {}", msg.refusal));
        cx.stop();
        Reply::Now(())
    }
}

impl On<Counted> for Reader {
    fn on(&mut self, _: Counted, _: &mut Cx<Self>) -> Reply<Counted> {
        Reply::Now(self.counted)
    }
}
