//! The task that writes one shard: it does what [`Owner`] says and tells it what came of it.
//!
//! Started by: [`BrokerLog`](super::BrokerLog), when a shard is opened and has none. Talks to: the local store, the broker.
//! Mailbox: 16 commands; full => `Busy`. A restart reads the local store again: what was acknowledged lies in the spill or in
//! the stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, StreamExt as _};
use pqcnet_actor::{Pause, StreamRng};
use pqcnet_store::{Batch, Commit, SubmitError};
use rand_core::Rng as _;
use tokio::sync::{mpsc, oneshot};

use super::join::{FIRST_PATIENCE, JoinError, Joining, Seat};
use super::local::{
    Life, Standing, drop_spilled, load_spilled, put_facts, put_places, put_spilled, put_standing,
    standing,
};
use super::record::Record;
use super::transport::{BrokerError, PATIENCE};
use crate::core::owner::{Effect, Owner, OwnerLimits, Refused};
use crate::embedded::off_thread;
use crate::embedded::write::settled;
use crate::{LogError, ShardNo};

/// Between attempts to take the seat while the broker answers and something is wrong: each pause is drawn from a range that
/// doubles up to the second figure. The flow is to be back within 10 s of the broker, and a broker that starts has enough to do.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// The same while another connection holds the lock, and while the local store can not write.
const RETRY_SOON: Duration = Duration::from_millis(200);
/// Attempts while another connection holds the lock: a predecessor's may take a moment to be noticed gone.
const LOCKED: u32 = 15;
/// Until a full queue of the local store is tried again.
const BUSY: Duration = Duration::from_millis(5);

/// What a keeper is asked.
pub(crate) enum Command {
    /// Make a record durable.
    Append {
        /// The record.
        record: Record,
        /// Whom to tell.
        done: oneshot::Sender<Result<(), LogError>>,
    },
    /// Write nothing more, and say so.
    End {
        /// Whom to tell.
        done: oneshot::Sender<()>,
    },
    /// Say when no append is under way and the local store tells all there is.
    Ready {
        /// Whom to tell.
        done: oneshot::Sender<Result<(), LogError>>,
    },
}

struct Held {
    record: Arc<Record>,
    spilled: bool,
}

#[derive(Debug, Clone, Copy)]
enum Wrote {
    Spilled(u64),
    Settled(u64),
    /// The next claim's epoch; it is made after this pause.
    Epoch(Duration),
}

/// A record from the spill: its sequence, its number, what was found.
type Loaded = (u64, u64, Result<Record, LogError>);
type Joined = Result<(Seat, Option<Standing>), JoinError>;

pub(crate) struct Keeper {
    joining: Joining,
    limits: OwnerLimits,
    shard: ShardNo,
    owner: Owner,
    /// False until the stream was taken over, in a store that has nothing of the shard.
    known: bool,
    standing: Standing,
    held: BTreeMap<u64, Held>,
    seat: Option<Seat>,
    /// Places of the claims of late writer epochs.
    claims: BTreeMap<u64, u64>,
    appending: Option<(u64, oneshot::Sender<Result<(), LogError>>)>,
    ready: Vec<oneshot::Sender<Result<(), LogError>>>,
    /// Whether a seat was taken, or could not be, since the start.
    attempted: bool,
    /// Attempts that met the lock, one after the other.
    locked: u32,
    last_error: Option<LogError>,
    pause: Pause,
    rng: StreamRng,
    /// What was last said to be wrong with the broker; told once, not with every attempt.
    said: Option<String>,
    join: Option<BoxFuture<'static, Joined>>,
    load: Option<BoxFuture<'static, Loaded>>,
    confirms: FuturesOrdered<BoxFuture<'static, Result<bool, BrokerError>>>,
    /// Delivery tag of the last confirm awaited.
    tag: u64,
    commits: FuturesOrdered<BoxFuture<'static, (Wrote, Result<(), LogError>)>>,
    backlog: VecDeque<(Wrote, Batch)>,
}

impl Keeper {
    /// A keeper of the shard as the local store has it.
    pub(crate) fn new(mut joining: Joining, limits: OwnerLimits) -> Result<Self, LogError> {
        let shard = joining.shard;
        let found = standing(&*joining.store, shard)?;
        let (standing, last) = found.unwrap_or_default();
        let known = found.is_some() && standing.life == Life::Used;
        if known {
            joining.named = standing.named;
        } else {
            joining.above = standing.epoch;
        }
        let rng = joining.env.rng(&format!("log keeper {}", shard.0));
        Ok(Self {
            pause: Pause::new(RETRY.0, RETRY.1),
            rng,
            said: None,
            joining,
            limits,
            shard,
            owner: Owner::new(limits, standing.through, last),
            known,
            standing,
            held: BTreeMap::new(),
            seat: None,
            claims: BTreeMap::new(),
            appending: None,
            ready: Vec::new(),
            attempted: false,
            locked: 0,
            last_error: None,
            join: None,
            load: None,
            confirms: FuturesOrdered::new(),
            tag: 0,
            commits: FuturesOrdered::new(),
            backlog: VecDeque::new(),
        })
    }

    /// Works until nobody asks any more, or the owner is over.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let env = self.joining.env.clone();
        loop {
            self.drive().await;
            self.tell_ready();
            if self.owner.is_over() && self.commits.is_empty() && self.backlog.is_empty() {
                return;
            }
            let due = if self.backlog.is_empty() {
                let deadline = self.owner.next_deadline();
                deadline.map(|at| at.saturating_sub(env.now()))
            } else {
                Some(BUSY)
            };
            tokio::select! {
                biased;
                Some((wrote, result)) = self.commits.next(), if !self.commits.is_empty() => {
                    self.wrote(wrote, result);
                }
                joined = of(&mut self.join), if self.join.is_some() => {
                    self.join = None;
                    self.joined(joined);
                }
                (sequence, number, record) = of(&mut self.load), if self.load.is_some() => {
                    self.load = None;
                    self.loaded(sequence, number, record).await;
                }
                Some(confirmed) = self.confirms.next(), if !self.confirms.is_empty() => {
                    self.confirmed(confirmed);
                }
                command = commands.recv(), if !self.owner.is_appending() => match command {
                    Some(Command::End { done }) => {
                        // Whoever asked may have gone.
                        done.send(()).ok();
                        return;
                    }
                    Some(command) => self.command(command),
                    // What is on its way lies in the spill, or nobody was told that it is durable.
                    None => return,
                },
                changed = self.joining.publishing.changed() => if changed.is_err() {
                    return;
                },
                () = env.sleep(due.unwrap_or(BUSY)), if due.is_some() => {
                    self.flush();
                    self.owner.on_tick(env.now());
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Ready { done } => self.ready.push(done),
            // Taken before it comes here.
            Command::End { done } => drop(done),
            Command::Append { record, done } => match self.owner.append(self.joining.env.now()) {
                Ok(number) => {
                    let record = Arc::new(record);
                    let spilled = false;
                    self.held.insert(number, Held { record, spilled });
                    self.appending = Some((number, done));
                }
                Err(refused) => {
                    let error = match refused {
                        Refused::Busy => LogError::Full {
                            detail: format!("{} records wait for the broker", self.owner.waiting()),
                        },
                        Refused::Over => self.why_over(),
                    };
                    // Whoever asked may have gone.
                    done.send(Err(error)).ok();
                }
            },
        }
    }

    fn why_over(&self) -> LogError {
        let detail = "the shard's writer is over".to_owned();
        self.last_error
            .clone()
            .unwrap_or(LogError::Storage { detail })
    }

    /// Tells who waits for the shard to be ready, as soon as it is known whether the broker is there.
    fn tell_ready(&mut self) {
        let down = {
            let line = self.joining.publishing.borrow();
            line.tried && line.connection.is_none()
        };
        if self.ready.is_empty() || !(self.attempted || down || self.owner.is_over()) {
            return;
        }
        let result = if self.owner.is_over() {
            Err(self.why_over())
        } else if self.known {
            Ok(())
        } else {
            let detail =
                "the store has nothing of this shard, and the broker that may is not there";
            let detail = detail.to_owned();
            Err(self
                .last_error
                .clone()
                .unwrap_or(LogError::Storage { detail }))
        };
        for done in self.ready.drain(..) {
            // Whoever asked may have gone.
            done.send(result.clone()).ok();
        }
    }

    async fn drive(&mut self) {
        while let Some(effect) = self.owner.poll_effect() {
            match effect {
                Effect::Join => self.start_join(Duration::ZERO),
                Effect::Publish {
                    record,
                    sequence,
                    spilled: _,
                } => self.start_publish(record, sequence).await,
                Effect::Spill { record } => {
                    if let Some(held) = self.held.get_mut(&record) {
                        held.spilled = true;
                        let mut batch = Batch::new();
                        put_spilled(&mut batch, self.shard, record, &held.record);
                        self.write(Wrote::Spilled(record), batch);
                    }
                }
                Effect::Settle {
                    record,
                    epoch,
                    sequence,
                } => self.settle(record, epoch, sequence),
                Effect::Acknowledge { record } => self.answer(record, Ok(())),
                Effect::Fail { record } => {
                    let error = self.why_over();
                    self.answer(record, Err(error));
                }
            }
        }
    }

    fn answer(&mut self, record: u64, result: Result<(), LogError>) {
        if let Some((number, done)) = self.appending.take_if(|(number, _)| *number == record) {
            // Whoever asked may have gone.
            done.send(result).ok();
            let on_its_way = self.seat.is_some() && number <= self.owner.sent();
            if !on_its_way {
                self.held.remove(&number);
            }
        }
    }

    // ---- the broker ----

    fn start_join(&mut self, pause: Duration) {
        self.seat = None;
        self.load = None;
        self.join = None;
        self.confirms = FuturesOrdered::new();
        let keep = self.owner.confirmed_through();
        let appending = self.appending.as_ref().map(|(number, _)| *number);
        self.held
            .retain(|number, _| *number <= keep || Some(*number) == appending);
        let env = self.joining.env.clone();
        let joining = self.joining.clone();
        if !self.known {
            self.join = Some(
                async move {
                    env.sleep(pause).await;
                    let (seat, standing) = joining.anew().await?;
                    Ok((seat, Some(standing)))
                }
                .boxed(),
            );
            return;
        }
        // Stored before it is used, so that no two channels ever have one epoch.
        self.standing.epoch += 1;
        let mut batch = Batch::new();
        put_standing(&mut batch, self.shard, self.standing);
        self.write(Wrote::Epoch(pause), batch);
    }

    /// The epoch of the next claim is stored.
    fn claim(&mut self, pause: Duration) {
        let env = self.joining.env.clone();
        let (joining, standing) = (self.joining.clone(), self.standing);
        self.join = Some(
            async move {
                env.sleep(pause).await;
                Ok((joining.again(standing).await?, None))
            }
            .boxed(),
        );
    }

    fn joined(&mut self, joined: Joined) {
        if let Err(JoinError::Broker(BrokerError::Locked { .. })) = &joined
            && self.locked < LOCKED
        {
            self.locked += 1;
            return self.start_join(RETRY_SOON);
        }
        self.locked = 0;
        self.attempted = true;
        match joined {
            Ok((seat, taken_over)) => {
                if let Some(standing) = taken_over {
                    self.standing = standing;
                    self.known = true;
                    self.owner = Owner::new(self.limits, standing.through, standing.through);
                    while self.owner.poll_effect().is_some() {}
                }
                tracing::info!(
                    shard = self.shard.0,
                    epoch = seat.epoch,
                    waiting = self.owner.waiting(),
                    "writing to the broker"
                );
                self.said = None;
                self.pause.reset();
                self.joining.patience = FIRST_PATIENCE;
                self.tag = 1;
                self.claims.insert(seat.epoch, seat.position);
                while self.claims.len() > 8 {
                    self.claims.pop_first();
                }
                let epoch = seat.epoch;
                self.seat = Some(seat);
                self.owner.joined(epoch);
            }
            Err(
                error @ JoinError::Broker(BrokerError::Locked { .. } | BrokerError::Foreign { .. }),
            ) => {
                tracing::error!(shard = self.shard.0, %error, "this shard is somebody else's");
                let detail = error.to_string();
                self.last_error = Some(LogError::Storage { detail });
                self.owner.locked_out();
            }
            Err(error) => {
                let detail = error.to_string();
                if self.said.as_ref() == Some(&detail) {
                    tracing::debug!(shard = self.shard.0, %error, "still not writing to the broker");
                } else {
                    tracing::warn!(
                        shard = self.shard.0, %error, waiting = self.owner.waiting(),
                        "not writing to the broker; what comes is spilled, and the broker tried again"
                    );
                    self.said = Some(detail.clone());
                }
                self.last_error = Some(match error {
                    JoinError::Log(error) => error,
                    JoinError::Broker(_) => LogError::Storage { detail },
                    JoinError::Overtaken { epoch } => {
                        self.standing.epoch = self.standing.epoch.max(epoch);
                        LogError::Storage { detail }
                    }
                });
                let patience = &mut self.joining.patience;
                *patience = (*patience * 2).min(PATIENCE);
                let pause = self.pause.next(self.rng.next_u64());
                self.start_join(pause);
            }
        }
    }

    async fn start_publish(&mut self, number: u64, sequence: u64) {
        if let Some(held) = self.held.get(&number) {
            let record = held.record.clone();
            return self.publish(number, sequence, &record).await;
        }
        self.load(sequence, number, Duration::ZERO);
    }

    /// Fetches a record from the spill.
    fn load(&mut self, sequence: u64, number: u64, pause: Duration) {
        let Joining {
            env, store, shard, ..
        } = self.joining.clone();
        self.load = Some(
            async move {
                env.sleep(pause).await;
                let loading = off_thread(&env, &store, move |s| load_spilled(s, shard, number));
                (sequence, number, loading.await)
            }
            .boxed(),
        );
    }

    async fn loaded(&mut self, sequence: u64, number: u64, record: Result<Record, LogError>) {
        match record {
            Ok(record) => {
                let record = Arc::new(record);
                let held = Held {
                    record: record.clone(),
                    spilled: true,
                };
                self.held.insert(number, held);
                self.publish(number, sequence, &record).await;
            }
            // The node's pool has no place: the same again.
            Err(LogError::Busy) => self.load(sequence, number, BUSY),
            Err(error) => {
                tracing::error!(shard = self.shard.0, %error, "the spill can not be read");
                self.last_error = Some(error);
                self.owner.locked_out();
            }
        }
    }

    async fn publish(&mut self, number: u64, sequence: u64, record: &Record) {
        let Some(seat) = &self.seat else {
            return;
        };
        let epoch = seat.epoch;
        let place = (number, sequence);
        let confirming = seat.publish(place, record).await;
        self.confirms.extend(confirming);
        let bytes = record.buffer.len() as u64;
        self.owner
            .published(epoch, number, record.messages(), bytes);
    }

    fn confirmed(&mut self, confirmed: Result<bool, BrokerError>) {
        let Some(epoch) = self.seat.as_ref().map(|seat| seat.epoch) else {
            return;
        };
        self.tag += 1;
        match confirmed {
            Ok(true) => self.owner.confirmed(epoch, self.tag, false),
            Ok(false) => {
                tracing::warn!(shard = self.shard.0, "the broker refused a message");
                self.owner.cut(epoch);
            }
            Err(error) => {
                tracing::warn!(shard = self.shard.0, %error, "the channel to the broker is lost");
                self.owner.cut(epoch);
            }
        }
    }

    // ---- the local store ----

    fn settle(&mut self, record: u64, epoch: u64, sequence: u64) {
        let (Some(held), Some(claim)) = (self.held.get(&record), self.claims.get(&epoch)) else {
            return;
        };
        let mut batch = Batch::new();
        let facts = &held.record.facts;
        let position = claim + sequence;
        if held.spilled {
            drop_spilled(&mut batch, self.shard, record, facts);
        } else {
            put_facts(&mut batch, self.shard, facts);
        }
        put_places(&mut batch, self.shard, facts, (epoch, sequence, position));
        self.standing.through = record;
        self.standing.position = position + held.record.messages();
        put_standing(&mut batch, self.shard, self.standing);
        self.write(Wrote::Settled(record), batch);
    }

    /// Queues a write; they reach the store in this order.
    fn write(&mut self, wrote: Wrote, batch: Batch) {
        self.backlog.push_back((wrote, batch));
        self.flush();
    }

    fn flush(&mut self) {
        while let Some((wrote, batch)) = self.backlog.pop_front() {
            match self.joining.store.submit(batch) {
                Err(SubmitError::Busy(batch)) => {
                    return self.backlog.push_front((wrote, batch));
                }
                submitted => {
                    let commit = taken(submitted);
                    self.commits.push_back(
                        async move {
                            match commit {
                                Ok(commit) => (wrote, settled(commit).await),
                                Err(error) => (wrote, Err(error)),
                            }
                        }
                        .boxed(),
                    );
                }
            }
        }
    }

    fn wrote(&mut self, wrote: Wrote, result: Result<(), LogError>) {
        let well = result.is_ok();
        if let Err(error) = result {
            self.last_error = Some(error);
        }
        match wrote {
            Wrote::Epoch(pause) if well => self.claim(pause),
            Wrote::Epoch(_) => self.start_join(RETRY_SOON),
            Wrote::Spilled(record) => self.owner.spilled(record, well),
            Wrote::Settled(record) => {
                if well {
                    self.held.remove(&record);
                }
                self.owner.settled(record, well);
            }
        }
    }
}

fn taken(submitted: Result<Commit, SubmitError>) -> Result<Commit, LogError> {
    submitted.map_err(|refused| match refused {
        SubmitError::Busy(_) => LogError::Busy,
        SubmitError::TooLarge(_) | SubmitError::Closed(_) => LogError::Closed,
    })
}

/// A future that may not be there; asked only when it is.
async fn of<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
