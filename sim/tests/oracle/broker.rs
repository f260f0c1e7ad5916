//! The production log on the simulated broker does what every shard log must, and outlives the broker's deaths.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_link::Role;
use pqcnet_log::broker::bundled;
use pqcnet_log::{BrokerLog, BrokerSettings, LogError, ShardLog, ShardNo};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::Streams;
use pqcnet_roles::platform::broker_schema;
use pqcnet_sim::broker::{Shelf, SimBroker};
use pqcnet_sim::disk::{Disk, DiskConfig};
use pqcnet_sim::world::{CrashKind, NodeNo, NodeSpec, World, WorldConfig};

use crate::log_rules::{self as rules, Fixture};
use crate::support::{A, batch, read};

const S: ShardNo = ShardNo(3);
const OTHER: ShardNo = ShardNo(4);
/// Between two attempts; time stands still while anybody runs.
const AGAIN: Duration = Duration::from_millis(100);

/// What a log on the broker is made from.
#[derive(Clone)]
struct Ground {
    env: Env,
    streams: Arc<dyn Streams>,
    at: Address,
    disk: Disk,
}

struct OnBroker {
    ground: Ground,
    log: Arc<dyn ShardLog>,
}

impl Ground {
    /// Opens the log; again while the one before still has the disk.
    async fn open(&self) -> Arc<dyn ShardLog> {
        let store = loop {
            match self.disk.mount(&self.env, &broker_schema()) {
                Ok(store) => break Arc::new(store),
                Err(_) => self.env.sleep(Duration::from_millis(1)).await,
            }
        };
        let broker = Arc::new(SimBroker {
            env: self.env.clone(),
            streams: self.streams.clone(),
            at: self.at.clone(),
        });
        let settings = BrokerSettings::new("test");
        Arc::new(BrokerLog::over(&self.env, store, broker, settings))
    }
}

impl Fixture for OnBroker {
    fn log(&self) -> Arc<dyn ShardLog> {
        self.log.clone()
    }

    async fn restarted(self) -> Self {
        let OnBroker { ground, log } = self;
        drop(log);
        let log = ground.open().await;
        OnBroker { ground, log }
    }
}

/// A world with a broker and a node whose log is on it.
struct Town {
    world: World,
    broker: NodeNo,
    ground: Ground,
}

impl Town {
    fn new() -> Town {
        let mut world = World::new(WorldConfig::new(1));
        let mut broker = NodeSpec::new("broker", Role::Client);
        broker.serves = true;
        let broker = world.add(broker).unwrap();
        world.add(NodeSpec::new("relayer", Role::Relayer)).unwrap();
        let node = world.add(NodeSpec::new("node", Role::Client)).unwrap();
        for started in [broker, node] {
            world.start(started).unwrap();
        }
        let env = world.env(node).unwrap();
        let ground = Ground {
            streams: world.streams(node),
            at: world.broker_address(broker),
            disk: Disk::new("node", DiskConfig::default(), world.rng(node, "", "disk")),
            env,
        };
        Town {
            world,
            broker,
            ground,
        }
    }

    /// Runs this as the node whose log it is, until it is done.
    fn run<T: Send + 'static>(&mut self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = tokio::sync::oneshot::channel();
        let node = self.world.find("node").unwrap();
        let spawned = self.world.spawn(node, async move {
            done.send(work.await).ok();
        });
        assert!(spawned);
        self.world.wait(result).unwrap().unwrap()
    }

    fn shelf(&self) -> Arc<Mutex<Shelf>> {
        self.world.shelf(self.broker).unwrap()
    }
}

macro_rules! run {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                let mut town = Town::new();
                let ground = town.ground.clone();
                town.run(async move {
                    let log = ground.open().await;
                    rules::$name(OnBroker { ground, log }).await;
                });
            }
        )+
    };
}

every_rule!(run);

/// Appends these texts behind `head`, each in an append of its own.
async fn append_each(log: &dyn ShardLog, generation: u32, head: u64, texts: &[&str]) {
    for (head, text) in (head..).zip(texts) {
        let appended = log.append(batch(S, generation, A, head, &[text])).unwrap();
        appended.await.unwrap();
    }
}

/// What is read from the beginning, made again while the log says that the broker is busy.
async fn all_texts(env: &Env, log: &dyn ShardLog) -> Vec<String> {
    loop {
        match read(log, S, A, 0).await {
            Err(LogError::Busy) => env.sleep(AGAIN).await,
            found => return found.unwrap().into_iter().map(|(_, text)| text).collect(),
        }
    }
}

/// How many entries stand at the broker, in the order in which they lie there.
fn at_broker(town: &Town) -> Vec<u64> {
    let messages = town.shelf().lock().messages("test.shard-3");
    let offsets = messages.iter().flat_map(|message| match message.entry {
        Some(entry) => vec![entry.offset],
        None if message.bundled > 0 => {
            let entries = bundled(&message.body).unwrap();
            entries.into_iter().map(|(_, offset)| offset).collect()
        }
        None => Vec::new(),
    });
    offsets.collect()
}

// The broker dies with messages that it had not confirmed; what is appended then is spilled, and when it is
// back everything is in its stream in order, before what is new, whatever of the unconfirmed it kept.
#[test]
fn an_outage_is_spilled_and_drained_in_order() {
    let mut town = Town::new();
    let ground = town.ground.clone();
    let (log, generation) = town.run(async move {
        let log = ground.open().await;
        let generation = log.open(S, [0; 16]).await.unwrap().generation;
        append_each(&*log, generation, 0, &["a", "b"]).await;
        (log, generation)
    });
    let under_way = log
        .append(batch(S, generation, A, 2, &["c", "d", "e"]))
        .unwrap();
    town.world.run_for(Duration::from_millis(42)).unwrap();
    town.world.crash(town.broker, CrashKind::Process);
    let away = log.clone();
    town.run(async move {
        under_way.await.unwrap();
        append_each(&*away, generation, 5, &["f", "g"]).await;
        let late = read(&*away, S, A, 5).await.unwrap();
        assert_eq!(late, [(6, "f".to_owned()), (7, "g".to_owned())]);
        assert_eq!(read(&*away, S, A, 0).await, Err(LogError::Busy));
    });
    town.world.run_for(Duration::from_secs(60)).unwrap();
    town.world.start(town.broker).unwrap();
    let (back, env) = (log.clone(), town.ground.env.clone());
    town.run(async move {
        append_each(&*back, generation, 7, &["h"]).await;
        let wanted = ["a", "b", "c", "d", "e", "f", "g", "h"];
        assert_eq!(all_texts(&env, &*back).await, wanted);
    });
    town.world.run_for(Duration::from_secs(10)).unwrap();
    let offsets = at_broker(&town);
    let last = offsets.iter().rposition(|offset| *offset == 3).unwrap();
    assert_eq!(offsets[last..], [3, 4, 5, 6, 7, 8]);
}

// The broker forgets its streams: what comes is spilled, a shard that is new gets no stream, and when the broker is mended all
// goes on.
#[test]
fn forgotten_streams_are_waited_for() {
    let mut town = Town::new();
    let ground = town.ground.clone();
    let (log, generation) = town.run(async move {
        let log = ground.open().await;
        let generation = log.open(S, [0; 16]).await.unwrap().generation;
        append_each(&*log, generation, 0, &["a"]).await;
        (log, generation)
    });
    town.shelf().lock().set_forgetful(true);
    let (forgotten, env) = (log.clone(), town.ground.env.clone());
    town.run(async move {
        append_each(&*forgotten, generation, 1, &["b"]).await;
        loop {
            let refused = forgotten.open(OTHER, [0; 16]).await.unwrap_err();
            if refused.to_string().contains("does not serve") {
                return;
            }
            env.sleep(AGAIN).await;
        }
    });
    assert_eq!(at_broker(&town), [1]);
    assert!(town.shelf().lock().messages("test.shard-4").is_empty());
    town.shelf().lock().set_forgetful(false);
    let env = town.ground.env.clone();
    town.run(async move {
        append_each(&*log, generation, 2, &["c"]).await;
        assert_eq!(all_texts(&env, &*log).await, ["a", "b", "c"]);
        while log.open(OTHER, [0; 16]).await.is_err() {
            env.sleep(AGAIN).await;
        }
    });
    town.world.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(at_broker(&town), [1, 2, 3]);
}
