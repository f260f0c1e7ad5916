//! One link to one sentry at a time: dialling, the session, and what to do when it drops.

use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{Env, Pause, Ref};
use pqcnet_crypto::{NodeId, random};
use pqcnet_link::{DownReason, LinkConfig, Role, ServiceId};
use pqcnet_messages::edge::{
    Attach, Commit, Consumed, FindOffset, JoinGroup, ListDeadLetters, Nack, OpenProducer, Publish,
    SetReaders, Subscribe, Unsubscribe,
};
use pqcnet_messages::{Grant, MAX_GRANT_LIFETIME_MS};
use pqcnet_p2p::endpoint::{DialError, Endpoint};
use pqcnet_p2p::handshake::HandshakeFailed;
use pqcnet_p2p::network::Address;
use pqcnet_p2p::typed::{self, Bindings, LinkHandle, RoleRefused};
use pqcnet_qstp::Reason as HandshakeReason;
use rand::Rng;

use crate::client::Shared;
use crate::error::ConnectError;
use crate::inbound;

/// Until a renewal that failed is tried again; when none succeeds, the session ends with its grant and the client links anew.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// A link that held so long starts its pauses anew.
const SETTLED: Duration = Duration::from_secs(5);

/// The edge service at the sentry.
#[derive(Clone)]
pub(crate) struct Edge {
    attach: Ref<Attach>,
    pub(crate) open_producer: Ref<OpenProducer>,
    pub(crate) publish: Ref<Publish>,
    pub(crate) set_readers: Ref<SetReaders>,
    pub(crate) find_offset: Ref<FindOffset>,
    pub(crate) subscribe: Ref<Subscribe>,
    pub(crate) join_group: Ref<JoinGroup>,
    pub(crate) commit: Ref<Commit>,
    pub(crate) nack: Ref<Nack>,
    pub(crate) dead_letters: Ref<ListDeadLetters>,
    pub(crate) consumed: Ref<Consumed>,
    pub(crate) unsubscribe: Ref<Unsubscribe>,
}

impl Edge {
    fn new(link: &LinkHandle) -> Edge {
        Edge {
            attach: link.remote(),
            open_producer: link.remote(),
            publish: link.remote(),
            set_readers: link.remote(),
            find_offset: link.remote(),
            subscribe: link.remote(),
            join_group: link.remote(),
            commit: link.remote(),
            nack: link.remote(),
            dead_letters: link.remote(),
            consumed: link.remote(),
            unsubscribe: link.remote(),
        }
    }
}

/// An attached link.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) generation: u64,
    pub(crate) sentry: NodeId,
    pub(crate) link: LinkHandle,
    pub(crate) edge: Edge,
}

/// Keeps the client connected until it is stopped. The first outcome that settles [`crate::Client::connect`] is in `live`
/// or `failed`.
pub(crate) struct Connector {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Endpoint,
    pub(crate) live: latest::Sender<Option<Live>>,
    /// What the last round over the sentries met.
    pub(crate) failed: latest::Sender<Option<ConnectError>>,
}

impl Connector {
    pub(crate) async fn run(self) {
        let mut stopped = self.shared.stopped();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.keep_connected() => {}
        }
        self.live.send_replace(None);
    }

    async fn keep_connected(&self) {
        let env = &self.shared.env;
        let mut rng = env.rng("connector");
        let (min, max) = self.shared.config.pause;
        let mut pause = Pause::new(min, max);
        let mut generation = 0;
        // Clients that start together do not all begin with the same sentry.
        let targets = self.shared.targets();
        let mut turn = rng.next_u64() as usize;
        loop {
            let mut met = None;
            for _ in 0..targets.len() {
                let (sentry, address) = &targets[turn % targets.len()];
                turn = turn.wrapping_add(1);
                generation += 1;
                match self.attempt(*sentry, address, generation).await {
                    Ok(live) => {
                        let up = env.now();
                        tracing::info!(%sentry, "connected");
                        self.live.send_replace(Some(live.clone()));
                        let reason = self.hold(&live).await;
                        drop(live);
                        self.live.send_replace(None);
                        tracing::warn!(%sentry, %reason, "disconnected");
                        if env.now() - up >= SETTLED {
                            pause.reset();
                        }
                        // The same sentry is worth the first try: it may only have restarted.
                        turn = turn.wrapping_sub(1);
                        met = None;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no connection");
                        // Among several sentries a refusal for good counts only if all refuse.
                        if met
                            .as_ref()
                            .is_none_or(|met: &ConnectError| !met.is_retryable())
                        {
                            met = Some(error);
                        }
                    }
                }
            }
            if met.is_some() {
                self.failed.send_replace(met);
            }
            env.sleep(pause.next(rng.next_u64())).await;
        }
    }

    /// Waits for the link's end, and gives the sentry a later grant before the present one is over.
    async fn hold(&self, live: &Live) -> DownReason {
        let env = &self.shared.env;
        let lifetime = self.shared.config.grant_lifetime;
        let closed = live.link.closed();
        let mut closed = std::pin::pin!(closed);
        let mut next = lifetime / 2;
        loop {
            tokio::select! {
                biased;
                reason = &mut closed => return reason,
                () = env.sleep(next) => {}
            }
            let renewed = tokio::select! {
                biased;
                reason = &mut closed => return reason,
                renewed = self.attach(live.sentry, &live.edge) => renewed,
            };
            next = match renewed {
                Ok(()) => lifetime / 2,
                Err(error) => {
                    tracing::warn!(%error, "the grant was not renewed");
                    RENEW_AGAIN.min(lifetime / 8)
                }
            };
        }
    }

    async fn attempt(
        &self,
        sentry: NodeId,
        address: &Address,
        generation: u64,
    ) -> Result<Live, ConnectError> {
        let limit = self.shared.config.attempt_timeout;
        match tokio::time::timeout(limit, self.connect(sentry, address, generation)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::Unreachable {
                sentry,
                reason: format!("no session within {limit:?}"),
            }),
        }
    }

    async fn connect(
        &self,
        sentry: NodeId,
        address: &Address,
        generation: u64,
    ) -> Result<Live, ConnectError> {
        let env = &self.shared.env;
        let dialled = self.endpoint.dial(address, sentry).await;
        let connected = dialled.map_err(|error| of_dial(sentry, &error))?;
        let config = LinkConfig::new(Role::Client, [ServiceId::EDGE]);
        let is_sentry = |_, hello: &pqcnet_link::PeerHello| match hello.role {
            Role::Sentry => Ok(()),
            role => Err(RoleRefused::new(format!(
                "a client's link goes to a sentry, not a {role}"
            ))),
        };
        let established = typed::establish(env, connected.stream, sentry, config, is_sentry).await;
        let accepted = established.map_err(|error| of_link(sentry, &error))?;
        let (deliver, ended) = inbound::refs(&self.shared.env, &self.shared.inboxes);
        let edge = Edge::new(accepted.handle());
        let signer = inbound::signer(
            env,
            &self.shared.inboxes,
            self.shared.config.keys.clone(),
            self.shared.config.network.network_id().0,
        );
        let flow = inbound::flow(env, &self.shared.inboxes);
        let bindings = Bindings::new().serve(deliver).serve(ended);
        let bindings = bindings.serve(signer).serve(flow);
        let link = accepted.start(bindings);
        self.attach(sentry, &edge).await?;
        Ok(Live {
            generation,
            sentry,
            link,
            edge,
        })
    }

    async fn attach(&self, sentry: NodeId, edge: &Edge) -> Result<(), ConnectError> {
        let grant = self.grant(&self.shared.env, sentry).await?;
        let timeout = self.shared.config.request_timeout;
        match edge.attach.ask(Attach { grant }, timeout).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(ConnectError::Refused { sentry, refusal }),
            Err(error) => Err(ConnectError::Unreachable {
                sentry,
                reason: error.to_string(),
            }),
        }
    }

    async fn grant(&self, env: &Env, sentry: NodeId) -> Result<Grant, ConnectError> {
        let keys = self.shared.config.keys.clone();
        let network_id = self.shared.config.network.network_id().0;
        let issued_at_ms = env.wall_ms();
        let lifetime = self.shared.config.grant_lifetime.as_millis();
        let lifetime_ms = u64::try_from(lifetime).unwrap_or(MAX_GRANT_LIFETIME_MS);
        let mut nonce = [0; 16];
        random::fill(&mut nonce);
        let signing = env.offload(move || {
            Grant::issue(&keys, network_id, sentry, issued_at_ms, lifetime_ms, nonce)
        });
        signing.await.map_err(|error| ConnectError::Unreachable {
            sentry,
            reason: format!("signing the grant: {error}"),
        })
    }
}

/// A handshake that was answered with a refusal is no better the next time, unless the sentry was busy; one that broke off
/// may be.
fn of_dial(sentry: NodeId, error: &DialError) -> ConnectError {
    let reason = error.to_string();
    let refused = error.handshake().and_then(HandshakeFailed::protocol);
    match refused.map(|refused| &refused.reason) {
        None | Some(HandshakeReason::Busy) => ConnectError::Unreachable { sentry, reason },
        Some(_) => ConnectError::Rejected { sentry, reason },
    }
}

/// The same for the link's Hello: a sentry that goes down, has no place, or was too slow may take the client in later.
fn of_link(sentry: NodeId, error: &typed::LinkError) -> ConnectError {
    use pqcnet_link::Reason;
    let reason = error.to_string();
    match error.reason.reason() {
        None
        | Some(
            Reason::Closed
            | Reason::Draining
            | Reason::Limits
            | Reason::HelloTimeout
            | Reason::Silent
            | Reason::SlowFrame
            | Reason::NotReading
            | Reason::Internal,
        ) => ConnectError::Unreachable { sentry, reason },
        Some(_) => ConnectError::Rejected { sentry, reason },
    }
}

#[cfg(test)]
mod tests {
    use pqcnet_link::{DownReason, Reason};
    use pqcnet_qstp::{FoundBy, HandshakeError, Stage};

    use super::*;

    /// A busy or leaving sentry is tried again; one that refuses who the client is, is not.
    #[test]
    fn what_is_tried_again() {
        let sentry = NodeId::from_bytes([1; 32]);
        let link = |reason| typed::LinkError {
            peer: sentry,
            reason: DownReason::Peer {
                stage: pqcnet_link::Stage::Hello,
                reason,
                detail: String::new(),
            },
        };
        for (reason, again) in [
            (Reason::Draining, true),
            (Reason::Limits, true),
            (Reason::HelloTimeout, true),
            (Reason::Role, false),
            (Reason::Version, false),
        ] {
            let error = of_link(sentry, &link(reason));
            assert_eq!(error.is_retryable(), again, "{error}");
        }
        let at: Address = "127.0.0.1:1".parse().unwrap();
        for (reason, again) in [
            (HandshakeReason::Busy, true),
            (HandshakeReason::WrongNetwork, false),
        ] {
            let failed = HandshakeFailed::Protocol(HandshakeError {
                stage: Stage::M1,
                found_by: FoundBy::Peer { sealed: false },
                reason,
            });
            let error = of_dial(
                sentry,
                &DialError::Handshake {
                    at: at.clone(),
                    failed,
                },
            );
            assert_eq!(error.is_retryable(), again, "{error}");
        }
    }
}
