//! The control plane of a simulated node: the production trait over [`crate::net`], in virtual time.
//!
//! ```text
//!   role ── listen, dial, open, publish, ... ──▶ SimControl ── parcels ──▶ Net ──▶ the other node's pump
//!   role ◀── PeerUp, Substream, ... (bounded) ── pump ◀── inbox of all connections, heartbeat, waits that end
//!   role ◀── Validator::judge(message) ── a task a message ── verdict ──▶ router
//! ```
//!
//! A connection begins with production's own QSTP handshake over a simulated byte stream: guard, puzzles, deadlines,
//! keys and costs are the real ones. What it then carries is modelled: frames of the gossip router ([`crate::gossip`]) and
//! lookups as parcels of the size that they would have, substreams as streams beside it. Places of peers and strangers,
//! budgets, the court that admits messages to their validators, and the checks of lookups are production's code.
//!
//! Not modelled: circuits through relays and hole punching (`reserve` and `dial_through` fail and say so), WebSockets (they
//! are plain streams), mDNS, the yamux and QSTP work for each byte after the handshake.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use pqcnet_actor::latest;
use pqcnet_crypto::NodeId;
use pqcnet_p2p::control::{
    ControlConfig, ControlError, ControlEvents, ControlPlane, DialFailure, PeerCounters,
    RecordCheck, Validator,
};
use pqcnet_p2p::network::Address;
use pqcnet_p2p::streams::BoxStream;
use tokio::sync::mpsc;

use crate::net::Net;
use crate::world::NodeNo;

mod connect;
mod lookup;
mod peers;
mod pump;
#[cfg(test)]
mod tests;

use peers::Shared;

/// Handle of a simulated control plane. The plane stops when the last one is dropped.
#[derive(Clone)]
pub struct SimControl {
    shared: Arc<Shared>,
    /// Its tasks watch the other end.
    alive: Arc<latest::Sender<()>>,
}

impl SimControl {
    /// Starts the plane of a node.
    ///
    /// # Errors
    /// gossipsub would not take the configuration.
    pub fn start(
        env: &pqcnet_actor::Env,
        net: Net,
        node: NodeNo,
        config: ControlConfig,
    ) -> Result<(SimControl, ControlEvents), ControlError> {
        let shared = Arc::new(Shared::new(env, net, node, config)?);
        let (alive, watched) = latest::channel(());
        let (outbox, events) = mpsc::channel(1);
        env.spawn(pump::run(shared.clone(), outbox, watched));
        let alive = Arc::new(alive);
        Ok((SimControl { shared, alive }, ControlEvents::new(events)))
    }
}

const NO_CIRCUITS: &str = "circuits are not simulated";

impl ControlPlane for SimControl {
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Result<Address, ControlError>> {
        let (shared, alive) = (self.shared.clone(), self.alive.subscribe());
        async move { connect::listen(&shared, at, alive) }.boxed()
    }

    fn dial<'a>(
        &'a self,
        peer: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        async move {
            let dialled = connect::dial(&self.shared, peer, at).await;
            self.shared.lock().keep(&peer);
            dialled.map_err(|failures| ControlError::Dial { peer, failures })
        }
        .boxed()
    }

    fn open(&self, peer: NodeId) -> BoxFuture<'_, Result<BoxStream, ControlError>> {
        async move {
            let stream = self.shared.open(peer)?;
            Ok(Box::new(stream) as BoxStream)
        }
        .boxed()
    }

    fn disconnect(&self, peer: NodeId) -> BoxFuture<'_, Result<(), ControlError>> {
        async move {
            let mut state = self.shared.lock();
            self.shared.disconnect(&mut state, &peer);
            self.shared.flush(&mut state);
            Ok(())
        }
        .boxed()
    }

    fn subscribe<'a>(
        &'a self,
        topic: &'a str,
        validator: Arc<dyn Validator>,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        async move { self.shared.subscribe(topic, validator) }.boxed()
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        message: Bytes,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        async move { self.shared.publish(topic, message) }.boxed()
    }

    fn counters(&self) -> BoxFuture<'_, Result<Vec<PeerCounters>, ControlError>> {
        async move { Ok(self.shared.counters()) }.boxed()
    }

    fn reserve<'a>(
        &'a self,
        _: NodeId,
        at: &'a Address,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        async move {
            let (at, reason) = (at.clone(), NO_CIRCUITS.to_owned());
            Err(ControlError::Listen { at, reason })
        }
        .boxed()
    }

    fn dial_through<'a>(
        &'a self,
        peer: NodeId,
        _: NodeId,
        at: &'a Address,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        async move {
            let failure = DialFailure::NotTried(NO_CIRCUITS.to_owned());
            let failures = vec![(at.to_string(), failure)];
            Err(ControlError::Dial { peer, failures })
        }
        .boxed()
    }

    fn learn<'a>(
        &'a self,
        node: NodeId,
        at: &'a [Address],
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        async move {
            self.shared.lock().lookups.learn(node, at);
            Ok(())
        }
        .boxed()
    }

    fn keep_records(&self, check: Arc<dyn RecordCheck>) -> BoxFuture<'_, Result<(), ControlError>> {
        async move { self.shared.lock().lookups.appoint(check) }.boxed()
    }

    fn announce(&self, record: Bytes) -> BoxFuture<'_, Result<(), ControlError>> {
        lookup::announce(self.shared.clone(), record).boxed()
    }

    fn lookup(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Bytes>, ControlError>> {
        lookup::look_up(self.shared.clone(), node).boxed()
    }
}
