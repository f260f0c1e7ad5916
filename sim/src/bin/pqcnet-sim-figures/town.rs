//! A network of whole nodes under load, of any size.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, bail};
use pqcnet_actor::{Env, StreamRng};
use pqcnet_client::{Client, ClientConfig};
use pqcnet_crypto::NodeId;
use pqcnet_messages::{ChannelName, Role};
use pqcnet_p2p::streams::Streams;
use pqcnet_sim::crypto::Crypto;
use pqcnet_sim::faults::{Restarts, Script};
use pqcnet_sim::net::{Link, Uniform};
use pqcnet_sim::scenario::churn::{Churn, Model};
use pqcnet_sim::world::{NodeNo, NodeSpec, NodeState, World, WorldConfig};
use rand_core::Rng as _;

/// Bytes of a message.
const PAYLOAD: usize = 256;
/// Between two messages of a client.
const APART: Duration = Duration::from_secs(2);
/// Three of ten sentries and clients leave in ten minutes, for so long on average.
const CHURN: (f64, Duration) = (0.3, Duration::from_secs(600));
const AWAY: Duration = Duration::from_secs(20);

/// A hundredth of the nodes relay, at most ten; a fifth are sentries, at most 190 and the rest of a tenth; the others clients.
pub(crate) fn town(nodes: usize, crypto: Crypto) -> Result<(World, Vec<NodeNo>)> {
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

pub(crate) fn boot(world: &mut World) -> Result<()> {
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
pub(crate) fn churn(world: &World, time: Duration) -> Script {
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
pub(crate) struct Load {
    sentries: Vec<NodeId>,
    /// Clients, by the sentries that they turn to.
    clients: BTreeMap<NodeNo, usize>,
    pub(crate) acked: Arc<AtomicU64>,
}

impl Load {
    pub(crate) fn of(world: &World, clients: &[NodeNo]) -> Load {
        let sentries = world.nodes();
        let sentries = sentries.filter(|node| world.spec(*node).role == Role::Sentry);
        Load {
            sentries: sentries.map(|node| world.id(node)).collect(),
            clients: clients.iter().copied().zip(0..).collect(),
            acked: Arc::default(),
        }
    }

    pub(crate) fn put_on(&self, world: &mut World, node: NodeNo) -> Result<()> {
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
