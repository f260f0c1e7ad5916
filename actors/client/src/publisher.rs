//! Publishing to one channel: many messages on their way, each acknowledged once it is durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use pqcnet_actor::latest;
use pqcnet_actor::{AskError, Counter, Env, Pause, Step, StepKind, TraceCx};
use pqcnet_messages::edge::{OpenProducer, Publish, Published as Stored};
use pqcnet_messages::{Channel, MAX_BATCH_BYTES, MAX_PAYLOAD, PauseCause, Refusal};
use rand::Rng;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

use crate::client::{Client, Shared};
use crate::connection::Live;
use crate::core::producer::{Answer, Effect, Failure, Limits, Producer};
use crate::error::PublishError;

/// What a waiting message counts against the publisher's window beside its payload.
const RECORD_COST: usize = 256;

/// A message is durable: it survives a crash of every process on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its place in the channel. `None` when the acknowledgement was lost and only a repetition was acknowledged after the
    /// producer had gone on: the message is stored, once, at a place the owner no longer names.
    pub offset: Option<u64>,
}

/// What a message counts against the window.
fn cost_of(payload: &Bytes) -> Result<u32, PublishError> {
    let (len, max) = (payload.len(), MAX_PAYLOAD);
    if len > max {
        return Err(PublishError::TooLarge { len, max });
    }
    // At most 64 KiB and the overhead.
    Ok((len + RECORD_COST) as u32)
}

type Outcome = Result<Published, PublishError>;

struct Ticket {
    outcome: oneshot::Sender<Outcome>,
    /// Only of a message in a trace.
    traced: Option<Box<Traced>>,
    /// Room in the window, given back with the ticket.
    _room: OwnedSemaphorePermit,
}

/// A message's trace, and the step in it that ends with the message's outcome, where one is recorded.
struct Traced {
    trace: TraceCx,
    step: Option<Step>,
}

struct Item {
    payload: Bytes,
    ticket: Ticket,
    deadline: Duration,
}

/// The shared end of a channel's one producer.
pub(crate) struct Intake {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    window: usize,
    paused: latest::Receiver<Option<PauseCause>>,
}

impl Intake {
    /// Nothing waits and nobody but the client's own list holds it.
    pub(crate) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.room.available_permits() == self.window
    }
}

/// Publishes to one channel of the client's own, in order. Cheap to clone; every clone, and [`Client::publish`], shares one
/// producer, whose epoch lives as long as the client.
#[derive(Clone)]
pub struct Publisher {
    intake: Arc<Intake>,
    client: Client,
    publish_timeout: Duration,
    trace: TraceCx,
}

impl Publisher {
    pub(crate) fn new(client: Client, intake: Arc<Intake>) -> Publisher {
        let publish_timeout = client.shared().config.publish_timeout;
        Publisher {
            intake,
            client,
            publish_timeout,
            trace: TraceCx::NONE,
        }
    }

    /// The same publisher, whose messages belong to this trace of the application's: the network's steps become its
    /// children. Without one, [`crate::ClientConfig::trace_ratio`] decides how many messages begin a trace of their own.
    #[must_use]
    pub fn within(&self, trace: TraceCx) -> Publisher {
        Publisher {
            trace,
            ..self.clone()
        }
    }

    /// Hands a message over and returns once there is room for it; the [`Receipt`] tells when it is durable. Messages are
    /// stored in the order of these calls.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] and [`PublishError::Closed`].
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<Receipt, PublishError> {
        let payload = payload.into();
        let cost = cost_of(&payload)?;
        let room = self.intake.room.clone().acquire_many_owned(cost);
        let room = room.await.map_err(|_| PublishError::Closed)?;
        let (item, receipt) = self.item(payload, room);
        let sent = self.intake.items.send(item).await;
        sent.map_err(|_| PublishError::Closed)?;
        Ok(receipt)
    }

    /// Hands a message over if there is room for it now: for a caller that would rather shed load than wait. Otherwise
    /// like [`Publisher::send`].
    ///
    /// # Errors
    /// [`PublishError::NoRoom`], [`PublishError::TooLarge`] and [`PublishError::Closed`].
    pub fn try_send(&self, payload: impl Into<Bytes>) -> Result<Receipt, PublishError> {
        let payload = payload.into();
        let cost = cost_of(&payload)?;
        let no_room = || PublishError::NoRoom {
            needed: cost as usize,
            free: self.room(),
        };
        let room = self.intake.room.clone().try_acquire_many_owned(cost);
        let room = room.map_err(|error| match error {
            TryAcquireError::NoPermits => no_room(),
            TryAcquireError::Closed => PublishError::Closed,
        })?;
        let (item, receipt) = self.item(payload, room);
        self.intake
            .items
            .try_send(item)
            .map_err(|error| match error {
                TrySendError::Full(_) => no_room(),
                TrySendError::Closed(_) => PublishError::Closed,
            })?;
        Ok(receipt)
    }

    /// Bytes free in the window, of [`crate::ClientConfig::publish_window_bytes`]. It falls while the network takes less
    /// than is offered; at a steady zero, [`Publisher::send`] waits. Each message counts 256 bytes beside its payload.
    pub fn room(&self) -> usize {
        self.intake.room.available_permits()
    }

    /// Why the network asked this channel's publishers to stop for a while, if its last word was that: a subscriber that falls
    /// behind, too much that waits for the disk. What is sent meanwhile waits here, and [`Publisher::room`] falls.
    pub fn paused(&self) -> Option<PauseCause> {
        *self.intake.paused.borrow()
    }

    fn item(&self, payload: Bytes, room: OwnedSemaphorePermit) -> (Item, Receipt) {
        let (outcome, receipt) = oneshot::channel();
        let ticket = Ticket {
            outcome,
            traced: self.traced(),
            _room: room,
        };
        let deadline = self.client.shared().env.now() + self.publish_timeout;
        let item = Item {
            payload,
            ticket,
            deadline,
        };
        (item, Receipt(receipt))
    }

    fn traced(&self) -> Option<Box<Traced>> {
        let env = &self.client.shared().env;
        let trace = match self.trace {
            TraceCx::NONE => env.begin_trace(),
            given => given,
        };
        if trace == TraceCx::NONE {
            return None;
        }
        let step = env.step(trace, "publish", StepKind::Producer, &"client");
        let trace = step.as_ref().map_or(trace, Step::cx);
        Some(Box::new(Traced { trace, step }))
    }

    /// Hands a message over and waits until it is durable.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<Published, PublishError> {
        self.send(payload).await?.await
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// Resolves once the message is durable, or failed. Dropping it does not take the message back.
#[must_use = "a message may fail"]
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Outcome>);

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let polled = Pin::new(&mut self.0).poll(cx);
        polled.map(|outcome| outcome.unwrap_or(Err(PublishError::Closed)))
    }
}

/// Starts the task of a channel's producer.
pub(crate) fn start(shared: &Arc<Shared>, channel: Channel) -> Arc<Intake> {
    let window = shared.config.publish_window_bytes;
    let (items, incoming) = mpsc::channel(window / RECORD_COST + 1);
    let flow = shared.inboxes.publishes(channel.clone());
    let paused = flow.clone();
    let driver = Driver {
        flow,
        env: shared.env.clone(),
        channel,
        request_timeout: shared.config.request_timeout,
        live: shared.live(),
        answers: FuturesUnordered::new(),
        producer: Producer::new(
            Limits {
                batch_records: shared.config.batch_records,
                batch_bytes: MAX_BATCH_BYTES,
                batches_in_flight: shared.config.batches_in_flight,
            },
            Pause::new(shared.config.pause.0, shared.config.pause.1),
        ),
        unanswered: shared.env.counter(
            "publish_unacknowledged_messages",
            "Messages of attempts to publish that were not acknowledged: refused, or lost with their answer",
            &[],
        ),
    };
    shared.env.spawn(driver.run(incoming, shared.stopped()));
    Arc::new(Intake {
        items,
        room: Arc::new(Semaphore::new(window)),
        window,
        paused,
    })
}

enum Answered {
    Opened(Answer<u64>),
    Sent(u64, Answer<Stored>),
}

/// Carries the core's effects out.
struct Driver {
    env: Env,
    channel: Channel,
    request_timeout: Duration,
    live: latest::Receiver<Option<Live>>,
    flow: latest::Receiver<Option<PauseCause>>,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    producer: Producer<Ticket>,
    unanswered: Counter,
}

/// Items taken from the queue at once.
const TAKE: usize = 512;
/// Room that is kept for them: most channels publish little at once.
const KEEP: usize = 32;

impl Driver {
    async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Item>,
        mut stopped: latest::Receiver<bool>,
    ) {
        let mut rng = self.env.rng("publisher");
        let mut items = Vec::new();
        let mut open = true;
        self.producer
            .on_link(self.live.borrow_and_update().is_some());
        loop {
            self.drive();
            if !open && self.producer.is_idle() {
                return;
            }
            let due = self.producer.next_deadline();
            let now = self.env.now();
            let wait = due.map_or(Duration::MAX, |due| due.saturating_sub(now));
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                changed = self.live.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let linked = self.live.borrow_and_update().is_some();
                    self.producer.on_link(linked);
                }
                Ok(()) = self.flow.changed() => {
                    let paused = self.flow.borrow_and_update().is_some();
                    self.producer.on_flow(self.env.now(), paused);
                }
                Some(answered) = self.answers.next(), if !self.answers.is_empty() => {
                    let (now, random) = (self.env.now(), rng.next_u64());
                    match answered {
                        Answered::Opened(answer) => self.producer.on_opened(now, random, answer),
                        Answered::Sent(attempt, answer) => {
                            if !matches!(answer, Answer::Given(Ok(_))) {
                                let messages = self.producer.tickets(attempt).count();
                                self.unanswered.add(messages as u64);
                            }
                            self.producer.on_answer(now, random, attempt, answer);
                        }
                    }
                }
                taken = incoming.recv_many(&mut items, TAKE), if open => {
                    open = taken > 0;
                    for Item { payload, ticket, deadline } in items.drain(..) {
                        self.producer.push(payload, ticket, deadline);
                    }
                    items.shrink_to(KEEP);
                }
                () = self.env.sleep(wait), if due.is_some() => {}
            }
        }
    }

    fn drive(&mut self) {
        while let Some(effect) = self.producer.poll(self.env.now()) {
            match effect {
                Effect::Open { supersedes } => self.open(supersedes),
                Effect::Send {
                    attempt,
                    epoch,
                    first_seq,
                    payloads,
                } => self.send(
                    attempt,
                    Publish {
                        channel: self.channel.clone(),
                        epoch,
                        first_seq,
                        payloads,
                    },
                ),
                Effect::Done { ticket, offset } => settle(ticket, Ok(Published { offset })),
                Effect::Failed { ticket, failure } => settle(
                    ticket,
                    Err(match failure {
                        Failure::Refused(refusal) => PublishError::Refused(refusal),
                        Failure::OutcomeUnknown => PublishError::OutcomeUnknown,
                        Failure::NotSent => PublishError::NotSent,
                    }),
                ),
            }
        }
    }

    fn open(&mut self, supersedes: Option<u64>) {
        let edge = self.live.borrow().as_ref().map(|live| live.edge.clone());
        let open = OpenProducer {
            channel: self.channel.clone(),
            supersedes,
        };
        let timeout = self.request_timeout;
        self.answers.push(Box::pin(async move {
            let Some(edge) = edge else {
                return Answered::Opened(Answer::Lost);
            };
            let answer = edge.open_producer.ask(open, timeout);
            Answered::Opened(heard(answer.await.map(|a| a.map(|opened| opened.epoch))))
        }));
    }

    fn send(&mut self, attempt: u64, publish: Publish) {
        // A batch goes out in one trace: that of its first message whose trace is recorded.
        let traces = self.producer.tickets(attempt);
        let traces = traces.filter_map(|ticket| ticket.traced.as_ref().map(|traced| traced.trace));
        let trace = traces.reduce(|first, next| if first.sampled { first } else { next });
        // Posted here, not when the future is polled: batches must go out in the order of their sequences.
        let live = self.live.borrow();
        let pending = live.as_ref().map(|live| {
            let ask = || live.edge.publish.try_ask(publish, self.request_timeout);
            trace.unwrap_or(TraceCx::NONE).scope(ask)
        });
        drop(live);
        let answer: BoxFuture<'static, Answered> = match pending {
            None => Box::pin(async move { Answered::Sent(attempt, Answer::Lost) }),
            Some(Ok(pending)) => {
                Box::pin(async move { Answered::Sent(attempt, heard(pending.await)) })
            }
            Some(Err(error)) => {
                let refusal = match error.is_full() {
                    true => Refusal::Busy,
                    false => Refusal::Unavailable,
                };
                Box::pin(async move { Answered::Sent(attempt, Answer::Given(Err(refusal))) })
            }
        };
        self.answers.push(answer);
    }
}

fn settle(ticket: Ticket, outcome: Outcome) {
    let step = ticket
        .traced
        .as_ref()
        .and_then(|traced| traced.step.as_ref());
    if let (Some(step), Err(error)) = (step, &outcome) {
        step.fail(error);
    }
    if ticket.outcome.send(outcome).is_err() {
        tracing::trace!("nobody waits for this message's outcome");
    }
}

fn heard<T>(answer: Result<Result<T, Refusal>, AskError>) -> Answer<T> {
    match answer {
        Ok(answer) => Answer::Given(answer),
        Err(AskError::Busy) => Answer::Given(Err(Refusal::Busy)),
        Err(_) => Answer::Lost,
    }
}
