//! Nodes of libp2p with production's gossip behaviour, each a task of its own, in real time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::PeerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Config, Swarm, SwarmEvent};
use parking_lot::Mutex;
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use pqcnet_p2p::control::gossip::{Behaviour, Event};
use pqcnet_p2p::control::peer_id_of;
use pqcnet_sim::gossip::Peer;
use pqcnet_sim::gossip::swarm::Edge;
use tokio::sync::{mpsc, oneshot};

use super::{
    DIALLING, Firsts, MESSAGES, NODES, Outcome, PACE, SIZE, config, data, memory, publisher,
};

/// However busy the machine, by then a network of this size has settled, and a message got around.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);

/// The PeerId of a node of this number.
pub fn peer_id(node: Peer) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&node.0.to_be_bytes());
    peer_id_of(&NodeId::from_bytes(bytes))
}

/// The number of a node.
pub fn number_of(peer: &PeerId) -> Peer {
    let bytes = peer.to_bytes();
    Peer(u32::from_be_bytes(bytes[2..6].try_into().unwrap()))
}

fn address(node: Peer) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(u64::from(node.0) + 1))
}

enum Ask {
    Dial(Peer),
    Publish(u32),
    /// Its mesh, and the bytes of messages that came.
    Look(oneshot::Sender<(usize, u64)>),
}

struct Node {
    env: Env,
    own: Peer,
    topic: IdentTopic,
    swarm: Swarm<Behaviour>,
    neighbours: Vec<PeerId>,
    firsts: Arc<Mutex<Firsts>>,
}

impl Node {
    fn new(env: &Env, own: Peer, firsts: Arc<Mutex<Firsts>>) -> Node {
        let mut behaviour = Behaviour::new(env.clone(), &config()).unwrap();
        let topic = IdentTopic::new("adverts");
        behaviour.gossipsub().subscribe(&topic).unwrap();
        let spawner = env.clone();
        // As production's driver has it.
        let swarm_config = Config::with_executor(move |task| spawner.spawn(task))
            .with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy)
            .with_idle_connection_timeout(Duration::from_secs(1 << 30))
            .with_per_connection_event_buffer_size(2);
        let transport = memory::transport(env, own);
        let mut swarm = Swarm::new(transport, behaviour, peer_id(own), swarm_config);
        swarm.listen_on(address(own)).unwrap();
        Node {
            env: env.clone(),
            own,
            topic,
            swarm,
            neighbours: Vec::new(),
            firsts,
        }
    }

    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    Some(ask) => self.on_ask(ask),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Dial(to) => {
                let to = DialOpts::peer_id(peer_id(to)).addresses(vec![address(to)]);
                self.swarm.dial(to.build()).unwrap();
            }
            Ask::Publish(message) => {
                let now = self.env.now();
                self.firsts
                    .lock()
                    .insert((message, self.own), (self.own, now));
                let (topic, gossip) = (self.topic.clone(), self.swarm.behaviour_mut().gossipsub());
                gossip.publish(topic, data(message)).unwrap();
            }
            Ask::Look(answer) => {
                let behaviour = self.swarm.behaviour_mut();
                let mesh = behaviour.gossipsub().mesh_peers(&self.topic.hash()).count();
                let bytes = self
                    .neighbours
                    .iter()
                    .map(|peer| behaviour.sent(peer).bytes)
                    .sum();
                answer.send((mesh, bytes)).unwrap();
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Inner(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => {
                let number = u32::from_be_bytes(message.data[..4].try_into().unwrap());
                let (from, now) = (number_of(&propagation_source), self.env.now());
                self.firsts
                    .lock()
                    .entry((number, self.own))
                    .or_insert((from, now));
                let gossip = self.swarm.behaviour_mut().gossipsub();
                gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    MessageAcceptance::Accept,
                );
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.neighbours.push(peer_id),
            SwarmEvent::Behaviour(Event::Offence { peer, offence }) => {
                panic!("{peer}: {offence}");
            }
            _ => {}
        }
    }
}

/// Runs the network.
pub fn run(edges: &[Edge]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(network(edges))
}

async fn network(edges: &[Edge]) -> Outcome {
    let env = Env::plain();
    let firsts = Arc::new(Mutex::new(Firsts::new()));
    let mut nodes = Vec::new();
    for node in (0..NODES).map(Peer) {
        let (asks, inbox) = mpsc::channel(64);
        env.spawn(Node::new(&env, node, firsts.clone()).run(inbox));
        nodes.push(asks);
    }
    let ask = async |node: Peer, ask: Ask| {
        assert!(
            nodes[node.0 as usize].send(ask).await.is_ok(),
            "{node:?} has ended"
        );
    };
    let look = async || {
        let (mut meshes, mut bytes) = (Vec::new(), 0);
        for node in (0..NODES).map(Peer) {
            let (answer, answered) = oneshot::channel();
            ask(node, Ask::Look(answer)).await;
            let (mesh, came) = answered.await.expect("the node runs");
            meshes.push(mesh);
            bytes += came;
        }
        (meshes, bytes)
    };
    for (dialler, to) in edges.iter().copied() {
        ask(dialler, Ask::Dial(to)).await;
        env.sleep(DIALLING).await;
    }
    // Settled: for ten heartbeats every mesh has been full enough.
    let (began, mut settled) = (env.now(), 0);
    while settled < 20 {
        env.sleep(LOOK).await;
        let (meshes, _) = look().await;
        settled = if meshes.iter().all(|mesh| *mesh >= 5) {
            settled + 1
        } else {
            0
        };
        assert!(
            env.now() - began < PATIENCE,
            "the meshes do not settle: {meshes:?}"
        );
    }
    let (meshes, before) = look().await;
    let mesh = meshes.iter().sum::<usize>() as f64 / f64::from(NODES);
    for message in 0..MESSAGES {
        ask(publisher(message), Ask::Publish(message)).await;
        env.sleep(PACE).await;
    }
    // Done: everybody has everything, and no copies come any more.
    let (began, all) = (env.now(), (MESSAGES * NODES) as usize);
    let (mut bytes, mut quiet) = (0, 0);
    while quiet < 3 {
        env.sleep(LOOK).await;
        let (_, came) = look().await;
        let done = firsts.lock().len() == all && came == bytes;
        quiet = if done { quiet + 1 } else { 0 };
        bytes = came;
        let missing = all - firsts.lock().len();
        assert!(
            env.now() - began < PATIENCE,
            "{missing} deliveries are missing"
        );
    }
    let mut found = firsts.lock().clone();
    let published: Vec<Duration> = (0..MESSAGES)
        .map(|message| found[&(message, publisher(message))].1)
        .collect();
    found.retain(|(message, node), _| *node != publisher(*message));
    for ((message, _), (_, at)) in &mut found {
        *at = at.saturating_sub(published[*message as usize]);
    }
    assert_eq!((bytes - before) % SIZE as u64, 0);
    Outcome::new(&found, (bytes - before) / SIZE as u64, mesh)
}
