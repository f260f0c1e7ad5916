//! Keeps one shard in order: admit, store, acknowledge, deliver.
//!
//! Rules live in [`core::shard`](crate::core::shard); this file carries inputs in and effects out.
//! Spec: docs/spec/relay.md. Started by: `roles::relayer`, one a shard it owns. Talks to: the log, each link's
//! deliveries; asked by [`Intake`](crate::Intake).
//! One works only while the shard is here ([`Tenure`]); otherwise it rests, with nothing open.
//! Mailbox: 1,024 Request; full => `Busy`. A restart opens the log in a new generation and reads its heads: nothing
//! acknowledged is lost, callers that waited learn `Panicked`, subscriptions are gone (the intakes watch for that).

mod accounts;
mod answers;
mod duty;
mod groups;
mod letters;
mod links;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{Alarm, Behaviour, Bounds, Cx, On, Ref, Reply, StepKind, Stopping};
use pqcnet_crypto::StorageMasterKey;
use pqcnet_log::{AppendBatch, AppendError, LogError, Salt, ShardLog, ShardNo};
use pqcnet_messages::edge::ProducerOpened;
use pqcnet_messages::metering::VolumeTaken;
use pqcnet_messages::relay::{RelayDeliver, RelayFlow, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{Admit, IssueEpoch, ReplaceReaders, Room};
use pqcnet_messages::{Refusal, ShardId};
use rand_core::Rng as _;

use crate::core::channel::channel_id;
use crate::core::delivery::Delivered;
use crate::core::seal::ShardKeys;
use crate::core::shard::{Effect, NewRecords, Shard, ShardLimits};
use crate::core::tenure::Tenure;
use crate::core::traces::Traces;
use answers::{Meters, Publishing, Traced, Waiting};
use duty::Duty;
use letters::Letters;
use links::Link;

/// How often the log is asked to remove what is over.
const RETAIN_EVERY: Duration = Duration::from_secs(2);
/// Effects applied before messages get their turn again.
const EFFECTS_A_TURN: usize = 256;

/// What a worker is made of.
#[derive(Clone)]
pub struct ShardWorkerConfig {
    /// Which shard.
    pub shard: ShardNo,
    /// Where it is stored.
    pub log: Arc<dyn ShardLog>,
    /// The root of its sealing keys.
    pub storage_key: Arc<StorageMasterKey>,
    /// Its limits.
    pub limits: ShardLimits,
    /// Whether the shard is here.
    pub tenure: latest::Receiver<Arc<Tenure>>,
    /// Whether a meter asks what was stored and sent.
    pub metered: bool,
}

/// The owner of one shard.
pub struct ShardWorker {
    core: Shard<Waiting>,
    duty: Duty,
    config: ShardWorkerConfig,
    shard: ShardNo,
    log: Arc<dyn ShardLog>,
    links: BTreeMap<u64, Link>,
    /// Where publishers are told to stop, of links over which one was.
    publishers: BTreeMap<u64, Ref<RelayFlow>>,
    alarm: Alarm<Self>,
    /// When the log is next asked to remove what is over.
    retains: Alarm<Self>,
    draining: bool,
    traces: Traces,
    meters: Meters,
    /// Generations of the open log, to open what they sealed.
    salts: Vec<(u32, Salt)>,
    /// Searches for a time that are under way.
    locating: usize,
    /// What is to be done with what groups put aside.
    letters: Letters,
    /// Names this life of the shard towards the meter.
    run: u64,
    /// How often the shard had moved when this life began.
    moves: u8,
    /// What it had counted when the shard was given away, until the meter has that.
    parting: Option<VolumeTaken>,
}

impl ShardWorker {
    /// A worker that opens its shard when it starts.
    pub fn new(config: &ShardWorkerConfig) -> Self {
        Self {
            core: fresh(config),
            duty: Duty::Rests,
            config: config.clone(),
            shard: config.shard,
            log: config.log.clone(),
            links: BTreeMap::new(),
            publishers: BTreeMap::new(),
            alarm: Alarm::new(Self::on_alarm),
            retains: Alarm::new(Self::retain),
            draining: false,
            traces: Traces::default(),
            meters: Meters::default(),
            salts: Vec::new(),
            locating: 0,
            letters: Letters::default(),
            run: 0,
            moves: 0,
            parting: None,
        }
    }

    fn on_alarm(&mut self, cx: &mut Cx<Self>) {
        self.core.on_tick((cx.now(), cx.wall_ms()));
        self.drive(cx);
    }

    /// Removes what is over, unless the shard is fenced or on its way to another owner's disk with its last records.
    fn retain(&mut self, cx: &mut Cx<Self>) {
        let again = cx.now() + RETAIN_EVERY;
        self.retains.set(cx, Some(again));
        let Some((newest, _)) = self.salts.last() else {
            return;
        };
        if !matches!(self.duty, Duty::Works) || self.core.phase() != "ready" {
            return;
        }
        let Some(retaining) = self.log.retain(self.shard, *newest, cx.wall_ms()) else {
            return;
        };
        cx.spawn(retaining, |worker, removed, _| match removed {
            Ok(0) | Err(LogError::Busy) => {}
            Ok(bytes) => tracing::info!(shard = worker.shard.0, bytes, "what is over was removed"),
            Err(error) => {
                tracing::warn!(shard = worker.shard.0, %error, "what is over was not removed");
            }
        });
    }

    /// Applies every due effect, then re-arms the one timer at the core's next deadline.
    fn drive(&mut self, cx: &mut Cx<Self>) {
        if matches!(self.duty, Duty::Rests) {
            if self.draining {
                cx.stop();
            }
            return;
        }
        for _ in 0..EFFECTS_A_TURN {
            let Some(effect) = self.core.poll_effect() else {
                if self.draining && self.core.is_settled() {
                    cx.stop();
                } else if matches!(self.duty, Duty::Settles(_)) && self.core.is_settled() {
                    return self.settled(Ok(()), cx);
                }
                return self.alarm.set(cx, self.core.next_deadline());
            };
            self.apply(effect, cx);
        }
        let now = cx.now();
        self.alarm.set(cx, Some(now));
    }

    fn apply(&mut self, effect: Effect<Waiting>, cx: &mut Cx<Self>) {
        match effect {
            Effect::Open => self.open(cx),
            Effect::Append(batch) => self.append(batch, cx),
            Effect::Reply { to, result } => {
                self.answer(to, result, cx.now());
                self.next_letter(cx);
            }
            Effect::Copy {
                channel,
                of,
                offset,
            } => self.copy_for_limit((channel, of, offset), cx),
            Effect::Signal { signal, channel } => self.signal(signal, channel, cx),
            Effect::Deliver(Delivered::Records {
                key,
                channel,
                records,
                late,
            }) => {
                let trace = self.delivering(&channel, &records, late, cx);
                let subscription = key.subscription;
                let deliver = self.links.get(&key.link).map(|link| link.deliver.clone());
                let message = RelayDeliver {
                    subscription,
                    records,
                };
                trace.scope(|| self.send(key.link, deliver, message, cx));
            }
            Effect::Deliver(Delivered::Ended { key, refusal }) => {
                let subscription = key.subscription;
                let ended = self.links.get(&key.link).map(|link| link.ended.clone());
                let message = RelaySubscriptionEnded {
                    subscription,
                    refusal,
                };
                self.send(key.link, ended, message, cx);
            }
            Effect::Deliver(Delivered::Read { serial, request }) => {
                let reading = self.log.read(request);
                cx.spawn(reading, move |worker, result, cx| {
                    worker.core.on_read(cx.now(), serial, result);
                    worker.drive(cx);
                });
            }
            Effect::Deliver(Delivered::Problem(problem)) => {
                tracing::error!(shard = self.shard.0, %problem, "something is wrong with what is stored");
            }
        }
    }

    fn open(&mut self, cx: &mut Cx<Self>) {
        let mut salt: Salt = [0; 16];
        cx.rng().fill_bytes(&mut salt);
        let (log, shard) = (self.log.clone(), self.shard);
        let opening = async move {
            let opened = log.open(shard, salt).await?;
            let heads = log.heads(shard).await?;
            Ok::<_, LogError>((opened, heads))
        };
        cx.spawn(opening, |worker, result, cx| {
            if let Ok((opened, _)) = &result {
                worker.salts.clone_from(&opened.salts);
            }
            worker.core.on_opened(cx.now(), result);
            worker.drive(cx);
        });
    }

    fn append(&mut self, batch: AppendBatch, cx: &mut Cx<Self>) {
        let failed = match self.log.append(batch) {
            Ok(appending) => {
                cx.spawn(appending, |worker, result, cx| {
                    worker.core.held_to(worker.log.share(worker.shard));
                    worker.core.on_appended(cx.now(), result);
                    worker.drive(cx);
                });
                return;
            }
            Err(AppendError::Busy(batch)) => return self.core.on_log_busy(cx.now(), batch),
            Err(AppendError::Fenced { shard, .. }) => LogError::Superseded { shard },
            Err(AppendError::Closed) => LogError::Closed,
            // Bugs: what the core believes of the log is wrong, so it is read anew.
            Err(
                bug @ (AppendError::UnderWay { .. }
                | AppendError::NotNext { .. }
                | AppendError::TooLarge { .. }),
            ) => LogError::Storage {
                detail: bug.to_string(),
            },
        };
        self.core.on_appended(cx.now(), Err(failed));
    }
}

/// The rules of a shard that is not open.
fn fresh(config: &ShardWorkerConfig) -> Shard<Waiting> {
    let keys = ShardKeys::new(config.storage_key.expose(), config.shard);
    let moves = config.tenure.borrow().moves(ShardId(config.shard.0));
    let shard = Shard::new(config.shard, keys, config.limits).moved(moves);
    let shard = match config.metered {
        true => shard.metered(),
        false => shard,
    };
    match config.log.keeps_letters() {
        true => shard.copies_letters(),
        false => shard,
    }
}

impl Behaviour for ShardWorker {
    const NAME: &'static str = "ShardWorker";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.meters = Meters::of(cx.env());
        self.look(cx);
        if self.log.is_limited() {
            self.retain(cx);
        }
    }

    /// Stores and answers what is admitted, then goes.
    fn stopping(&mut self, cx: &mut Cx<Self>) -> Stopping {
        self.core.drain();
        self.draining = true;
        self.drive(cx);
        Stopping::Draining
    }

    fn describe(&self) -> String {
        let holds = self.core.holdings();
        format!(
            "shard {} {}: {} channels, {} records, {} subscriptions",
            self.shard.0,
            self.core.phase(),
            holds.channels,
            holds.records,
            holds.subscriptions
        )
    }
}

impl On<Admit> for ShardWorker {
    fn on(&mut self, msg: Admit, cx: &mut Cx<Self>) -> Reply<Admit> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (to, reply) = Reply::later();
        let step = cx
            .env()
            .step(cx.trace(), "durable", StepKind::Internal, cx.path());
        let traced = step.map(|step| {
            Box::new(Traced {
                step,
                channel: channel_id(&msg.channel),
                records: msg.payloads.len() as u64,
            })
        });
        let publishing = Publishing {
            to,
            since: cx.now(),
            traced,
        };
        let new = NewRecords {
            customer: msg.customer,
            channel: msg.channel,
            epoch: msg.epoch,
            first_seq: msg.first_seq,
            payloads: msg.payloads,
            from: msg.publisher.map(|publisher| self.listens(publisher)),
        };
        let free = cx.me().of::<Admit>().free();
        let waiting = (Bounds::default().request as usize).saturating_sub(free);
        self.core.waiting(waiting as u64);
        let now = (cx.now(), cx.wall_ms());
        self.core.held_to(self.log.share(self.shard));
        self.core.publish(now, new, Waiting::Publish(publishing));
        self.drive(cx);
        reply
    }
}

impl On<ReplaceReaders> for ShardWorker {
    fn on(&mut self, msg: ReplaceReaders, cx: &mut Cx<Self>) -> Reply<ReplaceReaders> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (promise, reply) = Reply::later();
        let waiting = Waiting::Readers(promise);
        self.core
            .set_readers(cx.now(), &msg.channel, msg.readers, waiting);
        self.drive(cx);
        reply
    }
}

impl On<IssueEpoch> for ShardWorker {
    fn on(&mut self, msg: IssueEpoch, _cx: &mut Cx<Self>) -> Reply<IssueEpoch> {
        let epoch = self
            .core
            .open_producer(msg.customer, &msg.channel, msg.supersedes);
        Reply::Now(epoch.map(|epoch| ProducerOpened { epoch }))
    }
}

impl On<Room> for ShardWorker {
    fn on(&mut self, msg: Room, _cx: &mut Cx<Self>) -> Reply<Room> {
        self.core.set_room(msg.writable);
        Reply::Now(())
    }
}
