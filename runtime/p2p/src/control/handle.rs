//! The control plane's handle: what roles hold, over the driver's commands and events.

use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use libp2p::PeerId;
use libp2p::multiaddr::Multiaddr;
use pqcnet_actor::Env;
use pqcnet_crypto::NodeId;
use tokio::sync::mpsc;

use super::driver::Driver;
use super::fused::Fused;
use super::gossip::GossipConfig;
use super::judging::{PeerCounters, Validator};
use super::lookup::{LookupConfig, RecordCheck};
use super::substreams::OpenError;
use super::upgrade::{self, peer_id_of};
use super::{ControlError, ControlEvent, ControlPlane, DialFailure, reach};
use crate::handshake::Security;
use crate::network::Address;
use crate::streams::BoxStream;

/// Commands that wait for the driver.
const COMMANDS: usize = 64;

/// Which nodes a node gossips and shares lookups with; asked when the first connection to one stands.
pub type GossipsWith = Arc<dyn Fn(&NodeId) -> bool + Send + Sync>;

/// What the control plane runs with.
#[derive(Clone)]
pub struct ControlConfig {
    /// Keys, network and flood limits, shared with the direct plane.
    pub security: Arc<Security>,
    /// Nodes connected at once.
    pub max_peers: usize,
    /// Gossip, where this node takes part.
    pub gossip: Option<GossipConfig>,
    /// With whom it gossips and shares lookups; others have no substream for either, and cost no memory for one.
    pub gossips_with: GossipsWith,
    /// Lookups, where this node takes part.
    pub lookup: Option<LookupConfig>,
    /// Whether to look for nodes on the LAN, and to be found there.
    pub lan: bool,
    /// Whether to carry circuits of the network's nodes that cannot be reached, to tell each how it is seen, and to try for it
    /// whether it can be reached. Its own listen addresses are taken for reachable.
    pub relays: bool,
    /// Whether to punch holes from circuits to this node and from it. Every node dials circuits.
    pub relayed: bool,
    /// Whether to have relays try if this node can be reached: at the address that they see, and at these.
    pub probes: Option<Vec<Address>>,
}

impl ControlConfig {
    /// Substreams only: no gossip, no lookups, nothing on the LAN. Where the first two are turned on, it is with the
    /// network's own nodes if they are known.
    pub fn new(security: Arc<Security>, max_peers: usize) -> ControlConfig {
        let members = security.members();
        ControlConfig {
            security,
            max_peers,
            gossip: None,
            lookup: None,
            lan: false,
            relays: false,
            relayed: false,
            probes: None,
            gossips_with: Arc::new(move |node| {
                members
                    .as_ref()
                    .is_none_or(|members| members.contains(node))
            }),
        }
    }
}

/// What a handle asks of the driver.
pub(super) enum Command {
    Listen {
        at: Multiaddr,
        answer: Answer<Result<Multiaddr, String>>,
    },
    Dial {
        peer: PeerId,
        at: Vec<Multiaddr>,
        answer: Answer<Dialled>,
    },
    Open {
        peer: PeerId,
        answer: Answer<Result<libp2p::Stream, OpenError>>,
    },
    Disconnect {
        peer: PeerId,
    },
    Subscribe {
        topic: String,
        validator: Arc<dyn Validator>,
        answer: Answer<Result<(), ControlError>>,
    },
    Publish {
        topic: String,
        message: Bytes,
        answer: Answer<Result<(), ControlError>>,
    },
    Counters {
        answer: Answer<Vec<PeerCounters>>,
    },
    Learn {
        peer: PeerId,
        at: Vec<Multiaddr>,
    },
    KeepRecords {
        check: Arc<dyn RecordCheck>,
        answer: Answer<Result<(), ControlError>>,
    },
    Announce {
        record: Bytes,
        answer: Answer<Result<(), ControlError>>,
    },
    Lookup {
        node: NodeId,
        answer: Answer<Result<Option<Bytes>, ControlError>>,
    },
}

pub(super) type Answer<T> = oneshot::Sender<T>;
/// An error holds each address tried and its failure.
pub(super) type Dialled = Result<(), Vec<(String, DialFailure)>>;

/// Handle of the control plane over libp2p. Cheap to clone; the plane stops when the last handle is dropped.
#[derive(Clone)]
pub struct Libp2pControl {
    commands: mpsc::Sender<Command>,
}

/// The control plane's events; has one reader.
pub struct ControlEvents {
    events: mpsc::Receiver<ControlEvent>,
}

impl ControlEvents {
    /// The reading end for a plane of another making: what it sends comes out here, in order, and the plane has stopped
    /// when its sender is gone.
    pub fn new(events: mpsc::Receiver<ControlEvent>) -> ControlEvents {
        ControlEvents { events }
    }

    /// The next event; `None` once the plane has stopped. Do not wait for a call of the plane in between: it may
    /// itself be waiting for room among the events.
    pub async fn next(&mut self) -> Option<ControlEvent> {
        self.events.recv().await
    }
}

impl Libp2pControl {
    /// Starts the driver on the node's runtime.
    pub fn start(
        env: &Env,
        config: ControlConfig,
    ) -> Result<(Libp2pControl, ControlEvents), ControlError> {
        let driver = Driver::new(env, config)?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (outbox, events) = mpsc::channel(1);
        env.spawn(driver.run(inbox, outbox));
        Ok((Libp2pControl { commands }, ControlEvents::new(events)))
    }

    async fn call<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ControlError> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| ControlError::Stopped)?;
        answered.await.map_err(|_| ControlError::Stopped)
    }

    async fn tell(&self, command: Command) -> Result<(), ControlError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| ControlError::Stopped)
    }
}

impl ControlPlane for Libp2pControl {
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Result<Address, ControlError>> {
        Box::pin(async move {
            let refused = |reason: String| ControlError::Listen {
                at: at.clone(),
                reason,
            };
            let resolved = resolve(at)
                .await
                .map_err(|error| refused(error.to_string()))?;
            let at = resolved
                .into_iter()
                .next()
                .ok_or_else(|| refused("no address".into()))?;
            // libp2p sets SO_REUSEPORT, with which two processes would share a port without a word.
            if let Some(at) = upgrade::socket_addr(&at).filter(|at| at.port() != 0) {
                tokio::net::TcpListener::bind(at)
                    .await
                    .map_err(|error| refused(error.to_string()))?;
            }
            let bound = self.call(|answer| Command::Listen { at, answer }).await?;
            let bound = bound.map_err(&refused)?;
            upgrade::address(&bound)
                .ok_or_else(|| refused(format!("listening at {bound}, which is no TCP address")))
        })
    }

    fn dial<'a>(
        &'a self,
        peer: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let mut unresolved = Vec::new();
            let mut addresses = Vec::new();
            for address in at {
                match resolve(address).await {
                    Ok(resolved) => addresses.extend(resolved),
                    Err(error) => {
                        unresolved.push((address.to_string(), DialFailure::Resolve(error)));
                    }
                }
            }
            let target = peer_id_of(&peer);
            let dialled = self
                .call(|answer| Command::Dial {
                    peer: target,
                    at: addresses,
                    answer,
                })
                .await?;
            dialled.map_err(|failures| {
                unresolved.extend(failures);
                ControlError::Dial {
                    peer,
                    failures: unresolved,
                }
            })
        })
    }

    fn open(&self, peer: NodeId) -> BoxFuture<'_, Result<BoxStream, ControlError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let peer = peer_id_of(&peer);
            self.tell(Command::Open { peer, answer }).await?;
            let stream = answered.await.unwrap_or(Err(OpenError::NotConnected))?;
            Ok(Box::new(Fused::new(stream)) as BoxStream)
        })
    }

    fn disconnect(&self, peer: NodeId) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(self.tell(Command::Disconnect {
            peer: peer_id_of(&peer),
        }))
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a str,
        validator: Arc<dyn Validator>,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        let topic = topic.to_owned();
        Box::pin(async move {
            self.call(|answer| Command::Subscribe {
                topic,
                validator,
                answer,
            })
            .await?
        })
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Bytes,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        let topic = topic.to_owned();
        Box::pin(async move {
            self.call(|answer| Command::Publish {
                topic,
                message,
                answer,
            })
            .await?
        })
    }

    fn counters(&self) -> BoxFuture<'_, Result<Vec<PeerCounters>, ControlError>> {
        Box::pin(self.call(|answer| Command::Counters { answer }))
    }

    fn reserve<'a>(
        &'a self,
        relay: NodeId,
        at: &'a Address,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let refused = |reason: String| ControlError::Listen {
                at: at.clone(),
                reason,
            };
            let found = resolve(at)
                .await
                .map_err(|error| refused(error.to_string()))?;
            let first = found.into_iter().next();
            let first = first.ok_or_else(|| refused("no address".into()))?;
            let at = reach::circuit(peer_id_of(&relay), first);
            let bound = self.call(|answer| Command::Listen { at, answer }).await?;
            bound.map(|_| ()).map_err(&refused)
        })
    }

    fn dial_through<'a>(
        &'a self,
        peer: NodeId,
        relay: NodeId,
        at: &'a Address,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let failed = |failures| ControlError::Dial { peer, failures };
            let found = resolve(at)
                .await
                .map_err(|error| failed(vec![(at.to_string(), DialFailure::Resolve(error))]))?;
            let relay = peer_id_of(&relay);
            let circuits = found.into_iter().map(|at| reach::circuit(relay, at));
            let (peer, at) = (peer_id_of(&peer), circuits.collect());
            let dialled = self
                .call(|answer| Command::Dial { peer, at, answer })
                .await?;
            dialled.map_err(failed)
        })
    }

    fn learn<'a>(
        &'a self,
        node: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        // Names are for dials: a lookup that resolved them would tell a stranger's name server of itself.
        let at = at.iter().filter_map(upgrade::multiaddr).collect();
        let peer = peer_id_of(&node);
        Box::pin(self.tell(Command::Learn { peer, at }))
    }

    fn keep_records(&self, check: Arc<dyn RecordCheck>) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.call(|answer| Command::KeepRecords { check, answer })
                .await?
        })
    }

    fn announce(&self, record: Bytes) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.call(|answer| Command::Announce { record, answer })
                .await?
        })
    }

    fn lookup(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Bytes>, ControlError>> {
        Box::pin(async move { self.call(|answer| Command::Lookup { node, answer }).await? })
    }
}

/// Every IP address behind an address, as libp2p writes it.
async fn resolve(at: &Address) -> std::io::Result<Vec<Multiaddr>> {
    let found: Vec<std::net::SocketAddr> = match at.socket_addr() {
        Some(known) => vec![known],
        None => tokio::net::lookup_host((at.host(), at.port()))
            .await?
            .collect(),
    };
    Ok(found
        .into_iter()
        .map(|found| upgrade::carried(found, at.is_web_socket()))
        .collect())
}
