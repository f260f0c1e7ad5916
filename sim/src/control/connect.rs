//! How connections come to be: dialling, listening, production's handshake over a simulated stream.

use std::net::SocketAddr;
use std::sync::Arc;

use pqcnet_actor::latest;
use pqcnet_crypto::NodeId;
use pqcnet_p2p::control::{ControlError, ControlEvent, DialFailure, UpgradeError};
use pqcnet_p2p::handshake::{HandshakeFailed, Plane};
use pqcnet_p2p::network::Address;

use super::peers::Shared;
use crate::net::{SimListener, SimStream};

/// Dials under way at once, as in production.
const DIALLING: usize = 256;

type Failures = Vec<(String, DialFailure)>;

/// Connects to a node by the first of the addresses that answers.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    peer: NodeId,
    at: &[Address],
) -> Result<(), Failures> {
    {
        let mut state = shared.lock();
        if at.is_empty() {
            return Err(Vec::new());
        }
        if state.known.contains_key(&peer) {
            return Ok(());
        }
        if state.dialling >= DIALLING {
            let failure = DialFailure::NotTried("too many dials are under way".into());
            return Err(vec![("any address".to_owned(), failure)]);
        }
        state.dialling += 1;
    }
    let _place = Dialling(shared);
    let mut failures = Vec::new();
    for address in at {
        match outbound(shared, peer, address).await {
            Ok(()) => return Ok(()),
            Err(error) => failures.push((address.to_string(), DialFailure::Upgrade(error))),
        }
    }
    Err(failures)
}

struct Dialling<'a>(&'a Shared);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.lock().dialling -= 1;
    }
}

async fn outbound(shared: &Arc<Shared>, peer: NodeId, at: &Address) -> Result<(), UpgradeError> {
    let dialled = shared.net.dial(shared.node, at).await;
    let mut stream = dialled.map_err(UpgradeError::Io)?;
    let security = &shared.config.security;
    let steps = security.initiate(&mut stream, peer, Plane::Control);
    let public = security.before_deadline(steps).await??.peer;
    shared.connected(public, stream, true)
}

/// Listens; says where.
pub(super) fn listen(
    shared: &Arc<Shared>,
    at: &Address,
    alive: latest::Receiver<()>,
) -> Result<Address, ControlError> {
    let listener = shared.net.listen(shared.node, at.port());
    let listener = listener.map_err(|error| ControlError::Listen {
        at: at.clone(),
        reason: error.to_string(),
    })?;
    let bound = listener.address();
    shared.env.spawn(accept(shared.clone(), listener, alive));
    Ok(bound)
}

async fn accept(shared: Arc<Shared>, mut listener: SimListener, mut alive: latest::Receiver<()>) {
    loop {
        let (stream, from) = tokio::select! {
            biased;
            _ = alive.changed() => return,
            arrived = listener.next() => arrived,
        };
        let task = shared.clone();
        shared.env.spawn(async move {
            if let Err(error) = inbound(&task, stream, from).await {
                let from = Some(from);
                let mut state = task.lock();
                task.tell(&mut state, ControlEvent::InboundFailed { from, error });
            }
        });
    }
}

async fn inbound(
    shared: &Arc<Shared>,
    mut stream: SimStream,
    from: SocketAddr,
) -> Result<(), UpgradeError> {
    let security = &shared.config.security;
    let half_open = match security.open(Some(from.ip())) {
        Ok(half_open) => half_open,
        Err(refused) => {
            security.turn_away(&mut stream, Plane::Control).await;
            return Err(HandshakeFailed::from(refused).into());
        }
    };
    let steps = security.respond(&mut stream, &half_open, Plane::Control);
    let public = security.before_deadline(steps).await??.peer;
    shared.connected(public, stream, false)
}
