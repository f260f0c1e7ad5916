//! A relayer of one shard with real actors and a real store, and a sentry's end of its link.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::latest;
use pqcnet_actor::{
    Addr, AskError, Behaviour, Bounds, Cx, Env, Intensity, On, Ref, Reply, Restart, Running, Spec,
    Strategy, Threads, Tree,
};
use pqcnet_crypto::{NodeId, NodeKeys, StorageMasterKey};
use pqcnet_log::{EmbeddedLog, ShardLog, ShardNo, keys};
use pqcnet_messages::edge::{Published, Subscribed};
use pqcnet_messages::relay::{
    OpenSession, RelayConsumed, RelayDeliver, RelayFlow, RelayOpenProducer, RelayPublish,
    RelaySubscribe, RelaySubscriptionEnded,
};
use pqcnet_messages::{
    Channel, ChannelName, Grant, PauseCause, Record, Refusal, Series, ShardId, ShardMap,
};
use pqcnet_relay::core::shard::ShardLimits;
use pqcnet_relay::{
    Domain, Intake, IntakeConfig, IntakeLimits, ShardWorker, ShardWorkerConfig, Tenure,
};
use pqcnet_store::{OpenError, RocksStore, Schema, StoreConfig};
use tokio::sync::mpsc;

pub const NETWORK: [u8; 32] = [7; 32];
pub const WITHIN: Duration = Duration::from_secs(60);
pub const SHARD: ShardNo = ShardNo(0);

/// One node's, over all its restarts.
static STORAGE_KEY: LazyLock<Arc<StorageMasterKey>> =
    LazyLock::new(|| Arc::new(StorageMasterKey::generate()));

pub fn store_config(path: &Path) -> StoreConfig {
    let schema = Schema {
        kind: "relay",
        version: keys::VERSION,
        families: keys::FAMILIES.to_vec(),
    };
    let mut config = StoreConfig::new(path, schema);
    config.reserve_bytes = 0;
    config.growing = keys::GROWING.to_vec();
    config
}

/// What the sentry's end of a link gets.
#[derive(Debug)]
pub enum Got {
    Records(u32, Vec<Record>),
    Ended(u32, Refusal),
    Flow(
        #[expect(dead_code, reason = "shown when a test fails")] u64,
        #[expect(dead_code, reason = "shown when a test fails")] Option<PauseCause>,
    ),
}

/// The sentry's end of a link.
struct SentryEnd(mpsc::Sender<Got>);

impl Behaviour for SentryEnd {
    const NAME: &'static str = "SentryEnd";
}

impl On<RelayDeliver> for SentryEnd {
    fn on(&mut self, msg: RelayDeliver, _: &mut Cx<Self>) -> Reply<RelayDeliver> {
        self.0
            .try_send(Got::Records(msg.subscription, msg.records))
            .unwrap();
        Reply::Now(())
    }
}

impl On<RelaySubscriptionEnded> for SentryEnd {
    fn on(
        &mut self,
        msg: RelaySubscriptionEnded,
        _: &mut Cx<Self>,
    ) -> Reply<RelaySubscriptionEnded> {
        self.0
            .try_send(Got::Ended(msg.subscription, msg.refusal))
            .unwrap();
        Reply::Now(())
    }
}

impl On<RelayFlow> for SentryEnd {
    fn on(&mut self, msg: RelayFlow, _: &mut Cx<Self>) -> Reply<RelayFlow> {
        self.0.try_send(Got::Flow(msg.session, msg.paused)).unwrap();
        Reply::Now(())
    }
}

/// One relayer, one link.
pub struct Relayer {
    pub env: Env,
    pub running: Running,
    pub intake: Addr<Intake>,
    pub worker: Addr<ShardWorker>,
    pub got: mpsc::Receiver<Got>,
    pub sentry: NodeId,
    pub customer: NodeKeys,
}

/// A store and the log on it. An earlier one of the same folder closes when the last actor that held it is dropped.
pub async fn embedded(env: &Env, config: StoreConfig) -> (Arc<RocksStore>, Arc<dyn ShardLog>) {
    let store = loop {
        match RocksStore::open(env, config.clone()) {
            Ok(store) => break Arc::new(store),
            Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    let log = Arc::new(EmbeddedLog::new(env, store.clone()));
    (store, log)
}

/// Runs a test in a process of actors.
pub fn with_env<Fut: Future>(test: impl FnOnce(Env) -> Fut) -> Fut::Output {
    let threads = Threads {
        workers: 1,
        arbiters: 2,
    };
    pqcnet_actor::run_on(threads, "relayer", test).unwrap()
}

impl Relayer {
    /// A relayer on `log`. The link's end takes `mailbox` messages at a time.
    pub fn start(env: &Env, log: Arc<dyn ShardLog>, mailbox: u32) -> Relayer {
        let customer = NodeKeys::generate();
        let (me, sentry) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let (got_tx, got) = mpsc::channel(10_000);
        let intensity = Intensity {
            restarts: 100,
            within: Duration::from_secs(60),
        };
        let mut tree = Tree::new("relayer", Strategy::OneForOne).intensity(intensity);
        let end = Spec::new("link", move |_| SentryEnd(got_tx.clone()));
        let end = tree.child(end.mailbox(Bounds::request(mailbox)).place(1));
        // Of two shards this relayer has the first.
        let map = ShardMap::new(1, vec![me, NodeId::from_bytes([3; 32])]).unwrap();
        let tenure = Tenure::new(me, map, []).unwrap();
        let (_, tenure) = latest::channel(Arc::new(tenure));
        let config = ShardWorkerConfig {
            shard: SHARD,
            log,
            storage_key: STORAGE_KEY.clone(),
            limits: ShardLimits::default(),
            tenure: tenure.clone(),
            metered: true,
        };
        let worker = tree.child(Spec::new("shard-0", move |_| ShardWorker::new(&config)).place(0));
        let domain = Domain {
            admits: Arc::new(|_| true),
            network_id: NETWORK,
            tenure,
            workers: BTreeMap::from([(ShardId(0), worker.clone())]),
            grants: None,
        };
        let config = IntakeConfig {
            link: 1,
            sentry,
            domain: Arc::new(domain),
            deliver: end.of(),
            ended: end.of(),
            countersign: None,
            flow: end.of(),
            limits: IntakeLimits::default(),
        };
        let spec = Spec::new("intake", move |_| Intake::new(config.clone()));
        let intake = tree.child(spec.restart(Restart::Temporary).place(1));
        let running = tree.start(env.clone());
        Relayer {
            env: env.clone(),
            running,
            intake,
            worker,
            got,
            sentry,
            customer,
        }
    }

    /// Lets go of everything but the customer, who may come back to another incarnation of the relayer.
    pub fn into_customer(self) -> NodeKeys {
        self.customer
    }

    pub fn grant(&self) -> Grant {
        let now = self.env.wall_ms();
        Grant::issue(&self.customer, NETWORK, self.sentry, now, 60_000, [0; 16])
    }

    pub async fn session(&self) -> u64 {
        let intake = self.intake.of::<OpenSession>();
        let opened = intake
            .ask(
                OpenSession {
                    grant: self.grant(),
                },
                WITHIN,
            )
            .await;
        opened.unwrap().unwrap().session
    }

    /// A channel of the customer in the given shard.
    pub fn channel(&self, shard: u16) -> Channel {
        let owner = self.customer.node_id();
        let map = ShardMap::new(1, vec![owner; 2]).unwrap();
        let named = (0..).map(|i| Channel {
            owner,
            name: ChannelName::new(&format!("orders/{i}")).unwrap(),
        });
        named
            .into_iter()
            .find(|c| map.shard_of(c) == ShardId(shard))
            .unwrap()
    }

    /// An epoch; waits while the shard opens, or opens again.
    pub async fn producer(&self, session: u64, channel: &Channel) -> u64 {
        let intake = self.intake.of::<RelayOpenProducer>();
        loop {
            let ask = RelayOpenProducer {
                session,
                channel: channel.clone(),
                supersedes: None,
            };
            match intake.ask(ask, WITHIN).await.unwrap() {
                Ok(opened) => return opened.epoch,
                Err(Refusal::Unavailable | Refusal::Storage | Refusal::NoRoom) => {
                    tokio::task::yield_now().await
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    pub async fn publish(
        &self,
        session: u64,
        channel: &Channel,
        epoch: u64,
        first_seq: u64,
        payloads: &[&str],
    ) -> Result<Published, Refusal> {
        let payloads = payloads
            .iter()
            .map(|p| Bytes::copy_from_slice(p.as_bytes()))
            .collect();
        let channel = channel.clone();
        let publish = RelayPublish {
            session,
            channel,
            epoch,
            first_seq,
            payloads,
        };
        let answer: Result<_, AskError> =
            self.intake.of::<RelayPublish>().ask(publish, WITHIN).await;
        answer.unwrap()
    }

    /// As [`publish`](Self::publish), repeated under the same sequences until it is not refused for a while.
    pub async fn publish_retrying(
        &self,
        session: u64,
        channel: &Channel,
        epoch: u64,
        first_seq: u64,
        payloads: &[&str],
    ) -> Published {
        loop {
            match self
                .publish(session, channel, epoch, first_seq, payloads)
                .await
            {
                Ok(published) => return published,
                Err(refusal) if refusal.is_retryable() => tokio::task::yield_now().await,
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }

    pub async fn subscribe(
        &self,
        session: u64,
        subscription: u32,
        channel: &Channel,
        after: u64,
    ) -> Result<Subscribed, Refusal> {
        let subscribe = RelaySubscribe {
            session,
            subscription,
            channel: channel.clone(),
            after,
            window_bytes: 1 << 20,
            series: Series::NONE,
        };
        self.intake
            .of::<RelaySubscribe>()
            .ask(subscribe, WITHIN)
            .await
            .unwrap()
    }

    pub async fn consumed(&self, session: u64, subscription: u32, offset: u64) {
        let consumed: Ref<RelayConsumed> = self.intake.of();
        consumed
            .tell(RelayConsumed {
                session,
                subscription,
                offset,
            })
            .await
            .unwrap();
    }

    /// The next `count` records of any subscription: number, offset, text.
    pub async fn records(&mut self, count: usize) -> Vec<(u32, u64, String)> {
        let mut found = Vec::new();
        while found.len() < count {
            match self.got.recv().await.unwrap() {
                Got::Records(subscription, records) => found.extend(records.into_iter().map(|r| {
                    let text = String::from_utf8_lossy(&r.payload).into_owned();
                    (subscription, r.offset, text)
                })),
                Got::Ended(subscription, refusal) => panic!("{subscription} ended: {refusal}"),
                Got::Flow(..) => {}
            }
        }
        found
    }

    /// The next thing, which must be an end.
    pub async fn ended(&mut self) -> (u32, Refusal) {
        match self.got.recv().await.unwrap() {
            Got::Ended(subscription, refusal) => (subscription, refusal),
            other => panic!("{other:?}"),
        }
    }
}
