//! The data plane: direct QSTP streams between two nodes.
//!
//! ```text
//!   Endpoint::listen ─▶ accept task ─▶ one handshake task each (bounded by the guard) ─▶ Incoming::next
//!   Endpoint::dial   ─▶ handshake in the caller's task ─▶ Connected
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::Env;
use pqcnet_crypto::{NodeId, NodePublic};
use tokio::sync::mpsc;

use crate::handshake::{Account, HandshakeFailed, Plane, Secured, Security};
use crate::network::Address;
use crate::stream::QstpStream;
use crate::streams::{Arrived, BoxStream, Listener, Streams};

/// Finished handshakes that wait to be taken. More wait in their tasks, where the guard still counts them.
const FINISHED: usize = 16;
/// After a failed accept (out of file descriptors, say) the listener rests, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A stream whose peer is proven.
pub struct Connected {
    /// The peer's keys.
    pub peer: NodePublic,
    /// The transcript's hash, the same on both sides and on no other connection.
    pub binding: [u8; 32],
    /// What the handshake cost.
    pub account: Account,
    /// Where the peer connected from, where the carrier knows.
    pub from: Option<SocketAddr>,
    /// Its bytes.
    pub stream: QstpStream<BoxStream>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("peer", &self.peer.node_id())
            .finish_non_exhaustive()
    }
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error("cannot connect to {at}: {source}")]
    Connect {
        /// Where.
        at: Address,
        /// Why.
        source: io::Error,
    },
    /// Connected, but no handshake.
    #[error("{at}: {failed}")]
    Handshake {
        /// Where.
        at: Address,
        /// With stage and reason.
        failed: HandshakeFailed,
    },
}

impl DialError {
    /// The handshake's failure, if that is what it was.
    pub fn handshake(&self) -> Option<&HandshakeFailed> {
        match self {
            DialError::Handshake { failed, .. } => Some(failed),
            DialError::Connect { .. } => None,
        }
    }
}

/// A stranger that did not get in.
#[derive(Debug, thiserror::Error)]
#[error("{}: {failed}", .from.map_or_else(|| "unknown address".to_owned(), |at| at.to_string()))]
pub struct Rejected {
    /// From where, where the carrier knows.
    pub from: Option<SocketAddr>,
    /// With stage and reason.
    pub failed: HandshakeFailed,
}

/// Dials and listens with one node's identity.
#[derive(Clone)]
pub struct Endpoint {
    security: Arc<Security>,
    streams: Arc<dyn Streams>,
}

impl Endpoint {
    /// An endpoint over a platform's byte streams.
    pub fn new(security: Arc<Security>, streams: Arc<dyn Streams>) -> Endpoint {
        Endpoint { security, streams }
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.security.node_id()
    }

    /// Keys, network and limits.
    pub fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// Connects to `at` and proves that `expect` answers.
    pub async fn dial(&self, at: &Address, expect: NodeId) -> Result<Connected, DialError> {
        let steps = async {
            let stream = self
                .streams
                .dial(at)
                .await
                .map_err(|source| DialError::Connect {
                    at: at.clone(),
                    source,
                })?;
            self.security
                .initiate(stream, expect, Plane::Data)
                .await
                .map_err(|failed| DialError::Handshake {
                    at: at.clone(),
                    failed,
                })
        };
        let deadline = |failed| DialError::Handshake {
            at: at.clone(),
            failed,
        };
        let secured = self
            .security
            .before_deadline(steps)
            .await
            .map_err(deadline)??;
        Ok(connected(secured, None))
    }

    /// Listens at `at`.
    pub async fn listen(&self, at: &Address) -> io::Result<Incoming> {
        let listener = self.streams.listen(at).await?;
        let local = listener.local();
        let (finished, incoming) = mpsc::channel(FINISHED);
        let env = self.security.env().clone();
        env.spawn(accept(
            env.clone(),
            self.security.clone(),
            listener,
            finished,
        ));
        Ok(Incoming { local, incoming })
    }
}

/// Peers that connected, in the order their handshakes ended. Dropped, it stops listening.
pub struct Incoming {
    local: Address,
    incoming: mpsc::Receiver<Result<Connected, Rejected>>,
}

impl Incoming {
    /// Where it listens.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// The next peer, or stranger that did not get in. Cancelling the future loses none.
    pub async fn next(&mut self) -> Option<Result<Connected, Rejected>> {
        self.incoming.recv().await
    }
}

type Finished = mpsc::Sender<Result<Connected, Rejected>>;

async fn accept(
    env: Env,
    security: Arc<Security>,
    mut listener: Box<dyn Listener>,
    finished: Finished,
) {
    let mut failing = 0_u64;
    loop {
        let arrived = tokio::select! {
            biased;
            () = finished.closed() => return,
            arrived = listener.accept() => arrived,
        };
        match arrived {
            Ok(arrived) => {
                if failing > 0 {
                    tracing::info!(failed = failing, "streams are accepted again");
                    failing = 0;
                }
                admit(&env, &security, arrived, &finished);
            }
            Err(error) => {
                failing += 1;
                if failing == 1 {
                    tracing::warn!(%error, "no stream is accepted; told once until one is");
                }
                env.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts the handshake of a stranger, unless too many are open already.
fn admit(env: &Env, security: &Arc<Security>, arrived: Arrived, finished: &Finished) {
    let Arrived { stream, from } = arrived;
    let half_open = match security.open(from.map(|at| at.ip())) {
        Ok(half_open) => half_open,
        Err(refused) => {
            // A flood fills the channel; its refusals are counted by the guard and need no word each.
            let failed = HandshakeFailed::Refused(refused);
            if finished.try_send(Err(Rejected { from, failed })).is_err() {
                tracing::trace!("no room to tell of a refusal");
            }
            let security = security.clone();
            env.spawn(async move { security.turn_away(stream, Plane::Data).await });
            return;
        }
    };
    let (security, finished) = (security.clone(), finished.clone());
    env.spawn(async move {
        let handshake = security.respond(stream, &half_open, Plane::Data);
        let kept = half_open.while_kept(handshake);
        let outcome = match security.before_deadline(kept).await {
            Ok(Ok(Ok(secured))) => Ok(connected(secured, from)),
            Ok(Ok(Err(failed)) | Err(failed)) | Err(failed) => Err(Rejected { from, failed }),
        };
        // The guard's place is held until the outcome is taken: a slow reader slows the strangers down.
        if finished.send(outcome).await.is_err() {
            tracing::debug!("nobody takes connections any more");
        }
        drop(half_open);
    });
}

fn connected(secured: Secured<BoxStream>, from: Option<SocketAddr>) -> Connected {
    Connected {
        peer: secured.peer,
        binding: secured.binding,
        account: secured.account,
        from,
        stream: secured.stream,
    }
}

#[cfg(test)]
mod tests;
