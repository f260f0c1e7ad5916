//! A node's side of every handshake: whom the guard lets in, where the steps compute, what a finished one gives.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use pqcnet_actor::{Counter, Env, Histogram, Labels, OffloadError};
use pqcnet_crypto::{NodeId, NodeKeys, NodePublic};
use pqcnet_qstp::{
    Admission, Config, ConfigError, Failure, Initiator, InitiatorStep, Profile, Responder,
    ResponderStep, RetryKeys, Session, Stage,
};
use tokio::sync::Semaphore;

use super::wire::Wire;
use super::{Account, HandshakeFailed, Plane, Secured, SecurityConfig, Steps};
use crate::buffers::Buffers;
use crate::guard::{Guard, GuardCounts, Refused, Ticket, Verdict};
use crate::network::NetworkId;
use crate::stream::{BUFFER, QstpStream};

/// Strangers without a place that are told so at once; more are just hung up on.
const FAREWELLS: usize = 64;
/// How long one of them has to send its first message, and to hear the answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Identity, network and limits of one node, for both planes and both directions.
pub struct Security {
    env: Env,
    control: Arc<Config>,
    data: Arc<Config>,
    deadline: Duration,
    doors: Arc<Mutex<Doors>>,
    retry: Arc<RwLock<RetryKeys>>,
    lane: Semaphore,
    farewells: Semaphore,
    serial: AtomicU64,
    buffers: Buffers,
    members: Option<Arc<BTreeSet<NodeId>>>,
    dialled: Meters,
    answered: Meters,
    strangers: StrangerMeters,
}

/// What strangers cost, and what is done about it.
struct StrangerMeters {
    steps: Histogram,
    challenged: Counter,
    displaced: Counter,
    refused: Counter,
}

impl StrangerMeters {
    fn new(env: &Env) -> StrangerMeters {
        StrangerMeters {
            steps: env.histogram(
                "handshake_step_seconds",
                "Steps of answered handshakes that compute: what the budget against floods is charged",
                &[],
            ),
            challenged: env.counter(
                "handshakes_challenged",
                "Strangers that were asked to solve a puzzle first",
                &[],
            ),
            displaced: env.counter(
                "handshakes_displaced",
                "Silent strangers that made room for newer ones",
                &[],
            ),
            refused: env.counter(
                "handshakes_refused",
                "Strangers for whom there was no place",
                &[],
            ),
        }
    }
}

/// How one side's handshakes fare.
struct Meters {
    done: Histogram,
    failed: Counter,
}

impl Meters {
    fn new(env: &Env, labels: Labels) -> Meters {
        Meters {
            done: env.histogram(
                "handshake_seconds",
                "Handshakes that ended in a channel, from the first message on",
                labels,
            ),
            failed: env.counter(
                "handshake_failures",
                "Handshakes that ended without a channel, at whatever stage",
                labels,
            ),
        }
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt(Some(&self.failed))
    }
}

/// A handshake under way: one that is given up, also by its deadline, has failed.
struct Attempt<'a>(Option<&'a Counter>);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(failed) = self.0 {
            failed.bump();
        }
    }
}

/// The guard, and how to tell each that holds a place of it that the place is gone.
#[derive(Debug)]
struct Doors {
    guard: Guard,
    bells: BTreeMap<u64, Arc<Bell>>,
}

impl Doors {
    fn ring(&mut self, displaced: Option<u64>) {
        if let Some(bell) = displaced.and_then(|id| self.bells.remove(&id)) {
            bell.rung.store(true, Ordering::Release);
            bell.waker.wake();
        }
    }
}

#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

/// One handshake that the guard counts, until it is dropped.
#[derive(Debug)]
pub struct HalfOpen {
    doors: Arc<Mutex<Doors>>,
    ticket: Option<Ticket>,
    bell: Arc<Bell>,
    /// Names this connection in Retry tokens, so that a solved puzzle counts once.
    carrier: Vec<u8>,
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut doors = self.doors.lock();
            doors.bells.remove(&ticket.id());
            doors.guard.close(ticket);
        }
    }
}

impl HalfOpen {
    /// Waits for `work`, but not once the place has gone to a newer stranger.
    pub async fn while_kept<F: Future>(&self, work: F) -> Result<F::Output, HandshakeFailed> {
        let displaced = pin!(poll_fn(|cx| {
            self.bell.waker.register(cx.waker());
            if self.bell.rung.load(Ordering::Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        match select(pin!(work), displaced).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(((), _)) => Err(Refused::Displaced.into()),
        }
    }
}

impl Security {
    /// Full budgets and fresh Retry keys.
    pub fn new(env: Env, config: SecurityConfig) -> Result<Arc<Security>, ConfigError> {
        let profile = |plane: Plane| {
            let network = config.network_id.0;
            Config::new(
                network,
                config.suites.clone(),
                config.keys.clone(),
                Profile::Link,
            )?
            .with_prologue(plane.prologue())
            .map(Arc::new)
        };
        let now = env.now();
        Ok(Arc::new(Security {
            control: profile(Plane::Control)?,
            data: profile(Plane::Data)?,
            deadline: config.deadline,
            doors: Arc::new(Mutex::new(Doors {
                guard: Guard::new(config.guard, now),
                bells: BTreeMap::new(),
            })),
            retry: Arc::new(RwLock::new(RetryKeys::new(now))),
            lane: Semaphore::new(config.lane.max(1)),
            farewells: Semaphore::new(FAREWELLS),
            serial: AtomicU64::new(0),
            buffers: if env.is_simulated() {
                Buffers::of_the_process(BUFFER, config.idle_buffers)
            } else {
                Buffers::new(BUFFER, config.idle_buffers)
            },
            members: config.members,
            dialled: Meters::new(&env, &[("side", "dialling")]),
            answered: Meters::new(&env, &[("side", "answering")]),
            strangers: StrangerMeters::new(&env),
            env,
        }))
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.data.keys().node_id()
    }

    /// This node's keys.
    pub fn keys(&self) -> &Arc<NodeKeys> {
        self.data.keys()
    }

    /// The network that handshakes are for.
    pub fn network_id(&self) -> NetworkId {
        NetworkId(*self.data.network_id())
    }

    /// What the node runs on.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// What the guard counted.
    pub fn counts(&self) -> GuardCounts {
        self.doors.lock().guard.counts()
    }

    /// Asks the guard for a place; `None` is a carrier without addresses.
    pub fn open(&self, from: Option<IpAddr>) -> Result<HalfOpen, Refused> {
        let now = self.env.now();
        let (ticket, bell) = {
            let mut doors = self.doors.lock();
            let opened = doors.guard.open(now, from);
            let (ticket, displaced) = opened.inspect_err(|_| self.strangers.refused.bump())?;
            self.strangers.displaced.add(u64::from(displaced.is_some()));
            doors.ring(displaced);
            let bell = Arc::new(Bell::default());
            doors.bells.insert(ticket.id(), bell.clone());
            (ticket, bell)
        };
        // Steps read these keys for as long as a signature takes: nobody waits for them but for a rotation.
        let due = self.retry.read().is_due(now);
        if due {
            self.retry.write().rotate_if_due(now);
        }
        let mut carrier = self
            .serial
            .fetch_add(1, Ordering::Relaxed)
            .to_be_bytes()
            .to_vec();
        carrier.extend(
            from.map(|ip| ip.to_string())
                .unwrap_or_default()
                .into_bytes(),
        );
        Ok(HalfOpen {
            doors: self.doors.clone(),
            ticket: Some(ticket),
            bell,
            carrier,
        })
    }

    /// The network's own nodes, where they are known.
    pub fn members(&self) -> Option<Arc<BTreeSet<NodeId>>> {
        self.members.clone()
    }

    /// Tells a stranger for whom [`Security::open`] had no place that this node is busy. Its first message is read and
    /// answered, nothing is computed. Bounded in number and time; beyond that it is hung up on.
    pub async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S, plane: Plane) {
        let Ok(_place) = self.farewells.try_acquire() else {
            return;
        };
        let told = pin!(self.say_busy(io, plane));
        let timeout = pin!(self.env.sleep(FAREWELL));
        if let Either::Right(_) = select(told, timeout).await {
            tracing::trace!("a stranger was turned away before it had said anything");
        }
    }

    async fn say_busy<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S, plane: Plane) {
        let mut wire = Wire::new(io);
        let mut responder = Responder::new(self.config(plane).clone());
        let step = match wire.receive(Stage::M1).await {
            Ok(Ok(message)) => {
                let (now, keys) = (self.env.now(), self.retry.read());
                responder.on_message(now, &[], Admission::Refuse, &keys, &message)
            }
            Ok(Err(error)) => Err(responder.on_bad_frame(error)),
            Err(error) => return tracing::trace!(%error, "turning a stranger away"),
        };
        if let Err(failure) = step {
            let error = wire.give_up(&self.env, failure).await;
            tracing::trace!(%error, "turned a stranger away");
        }
    }

    /// Waits for `work`, but not beyond the deadline of a handshake.
    pub async fn before_deadline<F: Future>(&self, work: F) -> Result<F::Output, HandshakeFailed> {
        let timeout = pin!(self.env.sleep(self.deadline));
        match select(pin!(work), timeout).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(((), _)) => Err(HandshakeFailed::Deadline(self.deadline)),
        }
    }

    fn config(&self, plane: Plane) -> &Arc<Config> {
        match plane {
            Plane::Control => &self.control,
            Plane::Data => &self.data,
        }
    }

    /// Runs the initiator's side with the node `expect`. Mind [`Security::before_deadline`].
    pub async fn initiate<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        expect: NodeId,
        plane: Plane,
    ) -> Result<Secured<S>, HandshakeFailed> {
        let began = self.env.now();
        let mut attempt = self.dialled.attempt();
        let mut wire = Wire::new(io);
        let (mut initiator, m1) = Initiator::new(self.config(plane).clone(), expect)?;
        wire.send(Stage::M1, &m1).await?;
        let (mut steps, mut asked) = (Steps::default(), began);
        loop {
            let received = wire.receive(Stage::M2).await?;
            let answered = self.env.now();
            let step = match received {
                Ok(message) => {
                    let work = move || {
                        let step = initiator.on_message(&message);
                        (initiator, step)
                    };
                    let (back, step) = self
                        .env
                        .offload(work)
                        .await
                        .map_err(HandshakeFailed::Pool)?;
                    initiator = back;
                    step
                }
                Err(error) => Err(initiator.on_bad_frame(error)),
            };
            match step {
                Ok(InitiatorStep::Resend(message)) => {
                    wire.send(Stage::Retry, &message).await?;
                    asked = self.env.now();
                    steps.retry = asked.saturating_sub(began);
                }
                Ok(InitiatorStep::Done {
                    send,
                    session,
                    peer,
                }) => {
                    wire.send(Stage::M3, &send).await?;
                    attempt.0 = None;
                    self.dialled
                        .done
                        .observe(self.env.now().saturating_sub(began));
                    steps.kem = answered.saturating_sub(asked);
                    steps.signature = self.env.now().saturating_sub(answered);
                    return Ok(self.secured(wire, *session, peer, began, steps));
                }
                Err(failure) => return Err(wire.give_up(&self.env, failure).await),
            }
        }
    }

    /// Runs the responder's side for a stranger that the guard let in. Mind [`Security::before_deadline`].
    pub async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        half_open: &HalfOpen,
        plane: Plane,
    ) -> Result<Secured<S>, HandshakeFailed> {
        let began = self.env.now();
        let mut attempt = self.answered.attempt();
        let mut wire = Wire::new(io);
        let mut responder = Responder::new(self.config(plane).clone());
        let mut stage = Stage::M1;
        let mut admission = None;
        loop {
            let step = match wire.receive(stage).await? {
                Ok(message) => {
                    let first = admission.is_none();
                    let admission = *admission.get_or_insert_with(|| self.admission(half_open));
                    let computes = !(first && matches!(admission, Admission::Challenge { .. }));
                    let admission = match computes.then(|| self.answer(half_open)) {
                        Some(Err(refused)) => {
                            tracing::trace!(%refused, "no place for a handshake");
                            Admission::Refuse
                        }
                        Some(Ok(())) | None => admission,
                    };
                    let step = Step {
                        responder,
                        message,
                        admission,
                        carrier: half_open.carrier.clone(),
                        retry: self.retry.clone(),
                        env: self.env.clone(),
                    };
                    let done = match admission {
                        // A token names its connection, so a first message cannot hold a good one: whatever comes of
                        // it is cheap, and must not wait where the budget is already spent.
                        Admission::Challenge { .. } if first => step.run(),
                        _ => self.in_lane(step).await?,
                    };
                    self.strangers.steps.observe(done.took);
                    self.doors.lock().guard.charge(self.env.now(), done.took);
                    responder = done.responder;
                    done.step
                }
                Err(error) => Err(responder.on_bad_frame(error)),
            };
            match step {
                Ok(ResponderStep::Retry(message)) => {
                    stage = Stage::Retry;
                    wire.send(stage, &message).await?;
                }
                Ok(ResponderStep::Reply(message)) => {
                    wire.send(Stage::M2, &message).await?;
                    stage = Stage::M3;
                }
                Ok(ResponderStep::Done { session, peer }) => {
                    attempt.0 = None;
                    self.answered
                        .done
                        .observe(self.env.now().saturating_sub(began));
                    return Ok(self.secured(wire, *session, peer, began, Steps::default()));
                }
                Err(failure) => return Err(wire.give_up(&self.env, failure).await),
            }
        }
    }

    fn admission(&self, half_open: &HalfOpen) -> Admission {
        let verdict = match &half_open.ticket {
            Some(ticket) => self.doors.lock().guard.admit(self.env.now(), ticket),
            None => Verdict::Accept,
        };
        match verdict {
            Verdict::Accept => Admission::Accept,
            Verdict::Challenge { bits } => {
                self.strangers.challenged.bump();
                Admission::Challenge { bits }
            }
        }
    }

    /// A place among those that something is computed for.
    fn answer(&self, half_open: &HalfOpen) -> Result<(), Refused> {
        let Some(ticket) = &half_open.ticket else {
            return Ok(());
        };
        let mut doors = self.doors.lock();
        let answered = doors.guard.answer(self.env.now(), ticket);
        let displaced = answered.inspect_err(|_| self.strangers.refused.bump())?;
        self.strangers.displaced.add(u64::from(displaced.is_some()));
        doors.ring(displaced);
        Ok(())
    }

    async fn in_lane(&self, step: Step) -> Result<Stepped, HandshakeFailed> {
        let closed = |_| HandshakeFailed::Pool(OffloadError::Closed);
        let _place = self.lane.acquire().await.map_err(closed)?;
        self.env
            .offload(move || step.run())
            .await
            .map_err(HandshakeFailed::Pool)
    }

    fn secured<S>(
        &self,
        wire: Wire<S>,
        session: Session,
        peer: NodePublic,
        began: Duration,
        steps: Steps,
    ) -> Secured<S> {
        let account = Account {
            suite: session.suite(),
            sent: wire.sent,
            received: wire.received,
            took: self.env.now().saturating_sub(began),
            steps,
        };
        let binding = *session.transcript_hash();
        let stream = QstpStream::new(wire.io, session, self.env.clone(), self.buffers.clone());
        Secured {
            peer,
            binding,
            account,
            stream,
        }
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security")
            .field("node", &self.node_id())
            .finish_non_exhaustive()
    }
}

/// One step of a responder, to be run anywhere.
struct Step {
    responder: Responder,
    message: Vec<u8>,
    admission: Admission,
    carrier: Vec<u8>,
    retry: Arc<RwLock<RetryKeys>>,
    env: Env,
}

struct Stepped {
    responder: Responder,
    step: Result<ResponderStep, Failure>,
    took: Duration,
}

impl Step {
    fn run(self) -> Stepped {
        let Step {
            mut responder,
            message,
            admission,
            carrier,
            retry,
            env,
        } = self;
        let began = env.computing();
        let step = responder.on_message(env.now(), &carrier, admission, &retry.read(), &message);
        Stepped {
            responder,
            step,
            took: env.computing().saturating_sub(began),
        }
    }
}
