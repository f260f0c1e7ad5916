//! Nodes that do not keep the rules: the same trees, which do otherwise with the messages that come to them.
//!
//! Losing, repeating and altering happen where a link passes a message on, so what such a node then forwards, stores or
//! answers is what it made of it. One that keeps messages back is far away for everybody. One that forwards nothing takes
//! part in gossip and is silent. A flood comes from its own keys over links of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pqcnet_actor::{Passing, StreamRng};
use pqcnet_crypto::NodeId;
use pqcnet_link::{LinkConfig, ServiceId};
use pqcnet_messages::relay::RelayPublish;
use pqcnet_messages::{Channel, ChannelName};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::typed::{self, Bindings};
use rand_core::Rng;

use crate::world::{Event, EventKind, NodeNo, Observer, Verdict, World, WorldError};

/// What a node does with what others send it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Conduct {
    /// Loses this share.
    Loses(f64),
    /// Keeps everything back for so long.
    Keeps(Duration),
    /// Sends so many messages of its own a second.
    Floods(f64),
    /// Takes this share twice.
    Repeats(f64),
    /// Forwards no gossip.
    Selfish,
    /// Makes something else of this share.
    Alters(f64),
}

/// One node's conduct and its dice.
struct Fallen {
    conduct: Conduct,
    rng: StreamRng,
    done: u64,
}

/// Who does what with passing messages; a world observes it. Clones are the same.
#[derive(Clone, Default)]
pub struct Conducts(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    fallen: BTreeMap<NodeNo, Fallen>,
    /// By those who keep the rules again.
    done: u64,
}

impl Conducts {
    /// Everybody is honest.
    pub fn new() -> Conducts {
        Conducts::default()
    }

    pub(super) fn set(&self, node: NodeNo, conduct: Conduct, rng: StreamRng) {
        let done = 0;
        let fallen = Fallen { conduct, rng, done };
        self.0.lock().fallen.insert(node, fallen);
    }

    pub(super) fn clear(&self, node: NodeNo) -> Option<Conduct> {
        let mut known = self.0.lock();
        let fallen = known.fallen.remove(&node)?;
        known.done += fallen.done;
        Some(fallen.conduct)
    }

    /// What a node does now.
    pub fn of(&self, node: NodeNo) -> Option<Conduct> {
        let known = self.0.lock();
        known.fallen.get(&node).map(|fallen| fallen.conduct)
    }

    /// Messages that a node has lost, repeated or altered, or has sent in a flood.
    pub fn done(&self, node: NodeNo) -> u64 {
        let known = self.0.lock();
        known.fallen.get(&node).map_or(0, |fallen| fallen.done)
    }

    /// The same of all nodes, those who keep the rules again included.
    pub fn done_by_all(&self) -> u64 {
        let known = self.0.lock();
        let now: u64 = known.fallen.values().map(|fallen| fallen.done).sum();
        known.done + now
    }

    fn flooded(&self, node: NodeNo) {
        if let Some(fallen) = self.0.lock().fallen.get_mut(&node) {
            fallen.done += 1;
        }
    }
}

impl Observer for Conducts {
    fn on_event(&mut self, event: &Event<'_>) -> Verdict {
        if event.kind != EventKind::Passed {
            return Verdict::Go;
        }
        let mut known = self.0.lock();
        let Some(fallen) = known.fallen.get_mut(&event.node) else {
            return Verdict::Go;
        };
        let (share, how) = match fallen.conduct {
            Conduct::Loses(share) => (share, Passing::Lost),
            Conduct::Repeats(share) => (share, Passing::Twice),
            Conduct::Alters(share) => (share, Passing::Altered),
            Conduct::Keeps(_) | Conduct::Floods(_) | Conduct::Selfish => return Verdict::Go,
        };
        #[expect(clippy::cast_precision_loss, reason = "53 bits are enough for dice")]
        let dice = (fallen.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if dice >= share {
            return Verdict::Go;
        }
        fallen.done += 1;
        Verdict::Tamper(how)
    }
}

/// Between attempts of a flood to get in.
const AGAIN: Duration = Duration::from_millis(200);

/// Has a node flood every relayer but itself with messages that it has no session for, for as long as that is its conduct.
pub(super) fn flood(
    world: &mut World,
    node: NodeNo,
    a_second: f64,
    conducts: &Conducts,
) -> Result<(), WorldError> {
    let network = world.network()?;
    let Some(env) = world.env(node) else {
        return Ok(());
    };
    let own = world.id(node);
    let (role, keys, streams) = (world.spec(node).role, world.keys(node), world.streams(node));
    let every = Duration::from_secs_f64(1.0 / a_second.clamp(0.001, 1_000.0));
    let mut targets: Vec<(NodeId, Address)> = Vec::new();
    for relayer in network.relayers() {
        if relayer.id != own {
            targets.extend(relayer.data.first().map(|at| (relayer.id, at.clone())));
        }
    }
    let conducts = conducts.clone();
    let flooding = env.clone();
    world.spawn(node, async move {
        let env = flooding;
        let identity = SecurityConfig::new(keys, network.network_id());
        let Ok(security) = Security::new(env.clone(), identity) else {
            return;
        };
        let endpoint = Endpoint::new(security, streams);
        let Ok(name) = ChannelName::new("flood") else {
            return;
        };
        let still = || matches!(conducts.of(node), Some(Conduct::Floods(_)));
        let mut turn = 0usize;
        while still() && !targets.is_empty() {
            let (peer, at) = &targets[turn % targets.len()];
            turn += 1;
            let Ok(connected) = endpoint.dial(at, *peer).await else {
                env.sleep(AGAIN).await;
                continue;
            };
            let config = LinkConfig::new(role, [ServiceId::RELAY]);
            let anyone = |_, _: &pqcnet_link::PeerHello| Ok(());
            let met = typed::establish(&env, connected.stream, *peer, config, anyone).await;
            let Ok(accepted) = met else {
                env.sleep(AGAIN).await;
                continue;
            };
            let link = accepted.start(Bindings::new());
            let publish = link.remote::<RelayPublish>();
            let mut closed = std::pin::pin!(link.closed());
            for first_seq in 1u64.. {
                let message = RelayPublish {
                    session: first_seq % 64,
                    channel: Channel {
                        owner: own,
                        name: name.clone(),
                    },
                    epoch: 1,
                    first_seq,
                    payloads: vec![Bytes::from_static(&[0; 256])],
                };
                // Nobody waits for the answers; a full link takes no more.
                if publish.try_ask(message, Duration::from_secs(5)).is_ok() {
                    conducts.flooded(node);
                }
                let over = tokio::select! {
                    biased;
                    _ = closed.as_mut() => true,
                    () = env.sleep(every) => false,
                };
                if over || !still() {
                    break;
                }
            }
        }
    });
    Ok(())
}
