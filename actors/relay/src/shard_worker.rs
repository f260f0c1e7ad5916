//! Keeps one shard in order: admit, store, acknowledge, deliver.
//!
//! Rules live in [`core::shard`](crate::core::shard); this file carries inputs in and effects out.
//! Spec: docs/spec/relay.md. Started by: `roles::relayer`, one a shard it owns. Talks to: the log, each link's
//! deliveries; asked by [`Intake`](crate::Intake).
//! One works only while the shard is here ([`Tenure`]); otherwise it rests, with nothing open.
//! Mailbox: 1,024 Request; full => `Busy`. A restart opens the log in a new generation and reads its heads: nothing
//! acknowledged is lost, callers that waited learn `Panicked`, subscriptions are gone (the intakes watch for that).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::latest;
use pqcnet_actor::{
    Alarm, Behaviour, Cx, Env, Histogram, Letter, On, Promise, Ref, Reply, Step, StepKind,
    Stopping, TellError, TraceCx,
};
use pqcnet_crypto::StorageMasterKey;
use pqcnet_log::seek::{self, Extent};
use pqcnet_log::{
    AppendBatch, AppendError, ChannelId, Entries, LogError, ReadRequest, Salt, ShardLog, ShardNo,
};
use pqcnet_messages::control::ShardStatus;
use pqcnet_messages::edge::{OffsetFound, ProducerOpened, Published, Subscribed};
use pqcnet_messages::metering::{DeliveredVolume, Reading, TakeVolume, VolumeTaken};
use pqcnet_messages::moving::{
    MAX_TEXT_BYTES, MAX_TEXTS, ReadShard, ShardEntries, Stretch, SurveyShard,
};
use pqcnet_messages::relay::{RelayCountersign, RelayDeliver, RelaySubscriptionEnded};
use pqcnet_messages::relay_local::{
    Admit, Consume, CountLeft, DescribeShard, Discard, Fence, Follow, IssueEpoch, Locate,
    ReplaceReaders, Rest, Room, ShardAccount, Unfollow, Wake,
};
use pqcnet_messages::{Record, Refusal, ShardId};
use rand_core::Rng as _;

use crate::core::channel::channel_id;
use crate::core::delivery::Delivered;
use crate::core::moving::digest;
use crate::core::pending::Stored;
use crate::core::seal::ShardKeys;
use crate::core::shard::{Effect, NewRecords, Shard, ShardLimits};
use crate::core::subscription::SubscriptionKey;
use crate::core::tenure::Tenure;
use crate::core::traces::Traces;

/// Searches for a time at once; each is some twenty reads of the log, one after the other.
const LOCATING: usize = 8;
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

/// Whether a worker works.
enum Duty {
    Works,
    /// It stores what was admitted, then says so.
    Settles(Settling),
    /// It stores nothing more, and delivers what is stored.
    Fenced,
    Rests,
}

/// Why it settles.
enum Settling {
    /// To rest, if whoever is next has a copy with this digest.
    ToRest(Promise<Rest>, Option<[u8; 32]>),
    ToFence(Promise<Fence>),
}

/// The owner of one shard.
pub struct ShardWorker {
    core: Shard<Waiting>,
    duty: Duty,
    config: ShardWorkerConfig,
    shard: ShardNo,
    log: Arc<dyn ShardLog>,
    links: BTreeMap<u64, Link>,
    alarm: Alarm<Self>,
    draining: bool,
    traces: Traces,
    meters: Meters,
    /// Generations of the open log, to open what they sealed.
    salts: Vec<(u32, Salt)>,
    /// Searches for a time that are under way.
    locating: usize,
    /// Names this life of the shard towards the meter.
    run: u64,
    /// How often the shard had moved when this life began.
    moves: u8,
    /// What it had counted when the shard was given away, until the meter has that.
    parting: Option<VolumeTaken>,
}

/// A caller that waits for the disk.
enum Waiting {
    Publish(Publishing),
    Readers(Promise<ReplaceReaders>),
}

struct Publishing {
    to: Promise<Admit>,
    since: Duration,
    /// Only where traces are recorded.
    traced: Option<Box<Traced>>,
}

/// The step of a trace in which a publish becomes durable.
struct Traced {
    step: Step,
    channel: ChannelId,
    records: u64,
}

#[derive(Default)]
struct Meters {
    ack: Histogram,
    delivery: Histogram,
}

impl Meters {
    fn of(env: &Env) -> Meters {
        Meters {
            ack: env.histogram(
                "relay_ack_seconds",
                "From a publish at its shard until it is durable",
                &[],
            ),
            delivery: env.histogram(
                "delivery_seconds",
                "From a publish at its shard until it is on its way to a subscriber that keeps up",
                &[],
            ),
        }
    }
}

struct Link {
    deliver: Ref<RelayDeliver>,
    ended: Ref<RelaySubscriptionEnded>,
    countersign: Option<Ref<RelayCountersign>>,
    /// Messages that wait for room. The link is ready again only when none does, or one could be overtaken.
    waiting: usize,
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
            alarm: Alarm::new(Self::on_alarm),
            draining: false,
            traces: Traces::default(),
            meters: Meters::default(),
            salts: Vec::new(),
            locating: 0,
            run: 0,
            moves: 0,
            parting: None,
        }
    }

    /// Works from here on, or rests, as the relayer's tenure has it.
    fn look(&mut self, cx: &mut Cx<Self>) {
        let works = (self.config.tenure.borrow()).works(ShardId(self.shard.0));
        match (&self.duty, works) {
            (Duty::Rests, true) => {
                self.core = fresh(&self.config);
                self.run = cx.rng().next_u64() | 1;
                self.moves = (self.config.tenure.borrow()).moves(ShardId(self.shard.0));
                self.duty = Duty::Works;
                self.drive(cx);
            }
            (Duty::Settles(_), true) => self.settled(Err(Refusal::Unavailable), cx),
            (Duty::Fenced, true) => self.resume(cx),
            (Duty::Works, _) | (Duty::Settles(_) | Duty::Fenced | Duty::Rests, false) => {}
        }
    }

    fn resume(&mut self, cx: &mut Cx<Self>) {
        self.core.resume();
        self.duty = Duty::Works;
        self.drive(cx);
    }

    /// What was admitted is stored. Something may have been stored that was on its way when the rest was ordered.
    fn settled(&mut self, mut outcome: Result<(), Refusal>, cx: &mut Cx<Self>) {
        if outcome.is_ok() && self.core.phase() != "draining" {
            // The log failed meanwhile: what is stored is not known.
            outcome = Err(Refusal::Unavailable);
        }
        let Duty::Settles(settling) = std::mem::replace(&mut self.duty, Duty::Fenced) else {
            return;
        };
        match settling {
            Settling::ToFence(promise) if outcome.is_ok() => promise.fulfil(outcome),
            Settling::ToFence(promise) => {
                promise.fulfil(outcome);
                self.resume(cx);
            }
            Settling::ToRest(promise, copied) => {
                let outcome = outcome.and_then(|()| self.may_leave(copied));
                let rests = outcome.is_ok();
                promise.fulfil(outcome);
                if rests {
                    self.duty = Duty::Rests;
                    self.parting = self.volume(Reading::default());
                    self.core = fresh(&self.config);
                    self.links.clear();
                    self.alarm.set(cx, None);
                } else {
                    self.resume(cx);
                }
            }
        }
    }

    /// Nothing is stored of which whoever is next has no copy.
    fn may_leave(&self, copied: Option<[u8; 32]>) -> Result<(), Refusal> {
        if self.core.holdings().channels == 0 {
            return Ok(());
        }
        let digest = self.core.digest().ok_or(Refusal::Unavailable)?;
        match copied {
            Some(copied) if copied == digest => Ok(()),
            Some(_) => {
                tracing::warn!(
                    shard = self.shard.0,
                    "the next owner's copy of a shard is not what is stored"
                );
                Err(Refusal::HoldsRecords)
            }
            None => Err(Refusal::HoldsRecords),
        }
    }

    /// What was stored and sent since the reading that is kept.
    fn volume(&mut self, kept: Reading) -> Option<VolumeTaken> {
        let account = self.core.take_volume(self.run, kept)?;
        let delivered = account.sent.into_iter().map(|(channel, key, carried)| {
            let ask = carried.open.and_then(|open| {
                let link = self.links.get(&open.link)?;
                Some((link.countersign.clone()?, open.subscription))
            });
            DeliveredVolume {
                channel,
                receiver: key.receiver,
                series: key.series,
                after: carried.after,
                last: carried.last,
                volume: carried.unkept(),
                ask,
            }
        });
        Some(VolumeTaken {
            shard: ShardId(self.shard.0),
            moves: self.moves,
            generation: account.generation,
            reading: account.reading,
            stored: account.stored,
            delivered: delivered.collect(),
        })
    }

    fn on_alarm(&mut self, cx: &mut Cx<Self>) {
        self.core.on_tick(cx.now());
        self.drive(cx);
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
            Effect::Reply { to, result } => self.answer(to, result, cx.now()),
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

    /// Sends over a link, or waits for its room and gives it nothing else meanwhile.
    fn send<M: pqcnet_actor::Message>(
        &mut self,
        link: u64,
        to: Option<Ref<M>>,
        message: M,
        cx: &mut Cx<Self>,
    ) {
        let Some(to) = to else {
            return; // the link went down while this was on its way
        };
        match to.try_tell(message) {
            Ok(()) => {}
            Err(TellError::Full(message)) => {
                self.core.link_blocked(link);
                if let Some(link) = self.links.get_mut(&link) {
                    link.waiting += 1;
                }
                // Made now, under the trace of the delivery.
                let letter = Letter::tell(message);
                let telling = async move { to.post_when_free(letter).await.is_ok() };
                cx.spawn(telling, move |worker, sent, cx| {
                    worker.on_told(link, sent);
                    worker.drive(cx);
                });
            }
            Err(TellError::Closed(_)) => self.drop_link(link),
        }
    }

    /// A message that waited is on its way, or never will be.
    fn on_told(&mut self, link: u64, sent: bool) {
        if !sent {
            return self.drop_link(link);
        }
        if let Some(state) = self.links.get_mut(&link) {
            state.waiting = state.waiting.saturating_sub(1);
            if state.waiting == 0 {
                self.core.link_ready(link);
            }
        }
    }

    fn drop_link(&mut self, link: u64) {
        self.core.drop_link(link);
        self.links.remove(&link);
    }

    fn answer(&mut self, to: Waiting, result: Result<Stored, Refusal>, now: Duration) {
        match (to, result) {
            (Waiting::Publish(publishing), Ok(Stored::Published(published))) => {
                self.stored(&publishing, &published, now);
                publishing.to.fulfil(Ok(published));
            }
            (Waiting::Publish(Publishing { to, traced, .. }), Err(refusal)) => {
                if let Some(traced) = traced {
                    traced.step.fail(&refusal);
                }
                to.fulfil(Err(refusal));
            }
            (Waiting::Readers(to), Ok(Stored::Readers)) => to.fulfil(Ok(())),
            (Waiting::Readers(to), Err(refusal)) => to.fulfil(Err(refusal)),
            // Each waits for its own kind; dropped, the caller learns that it was abandoned.
            (Waiting::Publish(publishing), Ok(Stored::Readers)) => drop(publishing),
            (Waiting::Readers(to), Ok(Stored::Published(Published { .. }))) => drop(to),
        }
    }

    fn stored(&mut self, publishing: &Publishing, published: &Published, now: Duration) {
        self.meters
            .ack
            .observe(now.saturating_sub(publishing.since));
        if let Some(traced) = &publishing.traced {
            let last = published.last_offset;
            let first = last.saturating_sub(traced.records.saturating_sub(1));
            self.traces
                .remember(traced.channel, first..=last, traced.step.cx());
        }
    }

    /// Counts a delivery, and finds the trace that it goes on with.
    fn delivering(
        &self,
        channel: &ChannelId,
        records: &[Record],
        late: bool,
        cx: &Cx<Self>,
    ) -> TraceCx {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return TraceCx::NONE;
        };
        if !late {
            let took = cx.wall_ms().saturating_sub(last.published_at_ms);
            self.meters.delivery.observe(Duration::from_millis(took));
        }
        self.traces.of(channel, first.offset..=last.offset)
    }
}

/// When an entry was stored; `None` for one that does not open.
fn stored_at(
    keys: &mut ShardKeys,
    channel: &ChannelId,
    offset: u64,
    sealed: &mut [u8],
) -> Option<u64> {
    let text = keys.open(channel, offset, sealed).ok()?;
    let stamp = sealed.get(text)?.first_chunk()?;
    Some(u64::from_be_bytes(*stamp))
}

/// The rules of a shard that is not open.
fn fresh(config: &ShardWorkerConfig) -> Shard<Waiting> {
    let keys = ShardKeys::new(config.storage_key.expose(), config.shard);
    let moves = config.tenure.borrow().moves(ShardId(config.shard.0));
    let shard = Shard::new(config.shard, keys, config.limits).moved(moves);
    match config.metered {
        true => shard.metered(),
        false => shard,
    }
}

impl Behaviour for ShardWorker {
    const NAME: &'static str = "ShardWorker";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.meters = Meters::of(cx.env());
        self.look(cx);
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
        };
        self.core
            .publish(cx.wall_ms(), new, Waiting::Publish(publishing));
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
        self.core
            .set_readers(&msg.channel, msg.readers, Waiting::Readers(promise));
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

impl On<Follow> for ShardWorker {
    fn on(&mut self, msg: Follow, cx: &mut Cx<Self>) -> Reply<Follow> {
        let (link, subscription) = (msg.link, msg.subscription);
        let key = SubscriptionKey { link, subscription };
        let window = msg.window_bytes;
        let subscribed = self.core.subscribe(
            key,
            msg.customer,
            &msg.channel,
            msg.after,
            window,
            msg.series,
        );
        if subscribed.is_ok() && !self.links.contains_key(&link) {
            cx.watch(&msg.deliver, move |worker, _, cx| {
                worker.drop_link(link);
                worker.drive(cx);
            });
            let (deliver, ended) = (msg.deliver, msg.ended);
            self.links.insert(
                link,
                Link {
                    deliver,
                    ended,
                    countersign: msg.countersign,
                    waiting: 0,
                },
            );
        }
        self.drive(cx);
        Reply::Now(subscribed.map(|head| Subscribed { head }))
    }
}

impl On<Locate> for ShardWorker {
    fn on(&mut self, msg: Locate, cx: &mut Cx<Self>) -> Reply<Locate> {
        let (channel, head) = match self.core.readable(msg.customer, &msg.channel) {
            Ok(readable) => readable,
            Err(refusal) => return Reply::Now(Err(refusal)),
        };
        if self.locating >= LOCATING {
            return Reply::Now(Err(Refusal::Busy));
        }
        self.locating += 1;
        let mut keys = ShardKeys::new(self.config.storage_key.expose(), self.shard);
        keys.learn(&self.salts);
        let (log, extent, at_ms) = (
            self.log.clone(),
            Extent {
                shard: self.shard,
                channel,
                first: 1,
                head,
            },
            msg.at_ms,
        );
        let locating = async move {
            seek::before(&*log, extent, at_ms, |offset, sealed| {
                stored_at(&mut keys, &channel, offset, sealed)
            })
            .await
        };
        let (promise, reply) = Reply::later();
        cx.spawn(locating, move |worker, found, _| {
            worker.locating -= 1;
            promise.fulfil(match found {
                Ok(after) => Ok(OffsetFound { after, head }),
                Err(LogError::Busy) => Err(Refusal::Busy),
                Err(error) => {
                    tracing::warn!(shard = worker.shard.0, %error, "a time was not found");
                    Err(Refusal::Storage)
                }
            });
        });
        reply
    }
}

impl On<Consume> for ShardWorker {
    fn on(&mut self, msg: Consume, cx: &mut Cx<Self>) -> Reply<Consume> {
        let (link, subscription) = (msg.link, msg.subscription);
        self.core
            .consumed(SubscriptionKey { link, subscription }, msg.offset);
        self.drive(cx);
        Reply::Now(())
    }
}

impl On<Unfollow> for ShardWorker {
    fn on(&mut self, msg: Unfollow, cx: &mut Cx<Self>) -> Reply<Unfollow> {
        let (link, subscription) = (msg.link, msg.subscription);
        self.core
            .unsubscribe(SubscriptionKey { link, subscription });
        self.drive(cx);
        Reply::Now(())
    }
}

impl On<Rest> for ShardWorker {
    fn on(&mut self, msg: Rest, cx: &mut Cx<Self>) -> Reply<Rest> {
        match self.duty {
            // It has not looked what is stored.
            Duty::Rests => return Reply::Now(Err(Refusal::Unavailable)),
            Duty::Settles(_) => return Reply::Now(Err(Refusal::Busy)),
            Duty::Works if self.core.phase() != "ready" => {
                return Reply::Now(Err(Refusal::Unavailable));
            }
            Duty::Works if msg.copied.is_none() && self.core.holdings().channels > 0 => {
                return Reply::Now(Err(Refusal::HoldsRecords));
            }
            Duty::Works | Duty::Fenced => {}
        }
        let (promise, reply) = Reply::later();
        self.core.drain();
        self.duty = Duty::Settles(Settling::ToRest(promise, msg.copied));
        self.drive(cx);
        reply
    }
}

impl On<Fence> for ShardWorker {
    fn on(&mut self, _: Fence, cx: &mut Cx<Self>) -> Reply<Fence> {
        match self.duty {
            Duty::Fenced => return Reply::Now(Ok(())),
            Duty::Settles(_) => return Reply::Now(Err(Refusal::Busy)),
            Duty::Works if self.core.phase() == "ready" => {}
            Duty::Works | Duty::Rests => return Reply::Now(Err(Refusal::Unavailable)),
        }
        let (promise, reply) = Reply::later();
        self.core.drain();
        self.duty = Duty::Settles(Settling::ToFence(promise));
        self.drive(cx);
        reply
    }
}

impl On<TakeVolume> for ShardWorker {
    fn on(&mut self, msg: TakeVolume, _cx: &mut Cx<Self>) -> Reply<TakeVolume> {
        match &self.parting {
            Some(parting) if parting.reading == msg.kept => self.parting = None,
            Some(parting) => return Reply::Now(Ok(parting.clone())),
            None => {}
        }
        let taken = match self.duty {
            Duty::Rests => None,
            Duty::Works | Duty::Fenced | Duty::Settles(_) => self.volume(msg.kept),
        };
        Reply::Now(taken.ok_or(Refusal::Unavailable))
    }
}

impl On<SurveyShard> for ShardWorker {
    fn on(&mut self, msg: SurveyShard, _cx: &mut Cx<Self>) -> Reply<SurveyShard> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        Reply::Now(self.core.survey(msg.after))
    }
}

impl On<ReadShard> for ShardWorker {
    fn on(&mut self, msg: ReadShard, cx: &mut Cx<Self>) -> Reply<ReadShard> {
        if matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Unavailable));
        }
        let (promise, reply) = Reply::later();
        let (log, shard, wanted) = (self.log.clone(), self.shard, msg.stretches.clone());
        let reading = async move { read_stretches(&*log, shard, &wanted).await };
        cx.spawn(reading, move |worker, read, cx| {
            promise.fulfil(worker.in_clear(&msg.stretches, read));
            worker.drive(cx);
        });
        reply
    }
}

/// The entries of the first stretches that fit into an answer; the last of them may be cut short.
async fn read_stretches(
    log: &dyn ShardLog,
    shard: ShardNo,
    stretches: &[Stretch],
) -> Result<Vec<Entries>, LogError> {
    let (mut records, mut bytes) = (MAX_TEXTS, MAX_TEXT_BYTES);
    let mut read = Vec::new();
    for stretch in stretches {
        let whole = usize::try_from(stretch.up_to - stretch.after).unwrap_or(usize::MAX);
        let request = ReadRequest {
            shard,
            channel: ChannelId(stretch.channel),
            after: stretch.after,
            max_records: whole.min(records),
            max_bytes: bytes,
        };
        let entries = log.read(request).await?;
        let last = entries
            .items
            .last()
            .map_or(stretch.up_to, |(offset, _)| *offset);
        records -= entries.items.len().min(records);
        bytes -= entries.buffer.len().min(bytes);
        read.push(entries);
        if last < stretch.up_to || records == 0 || bytes == 0 {
            break;
        }
    }
    Ok(read)
}

impl ShardWorker {
    fn in_clear(
        &mut self,
        stretches: &[Stretch],
        read: Result<Vec<Entries>, LogError>,
    ) -> Result<ShardEntries, Refusal> {
        let read = read.map_err(|error| match error {
            LogError::Busy => Refusal::Busy,
            error => {
                let shard = self.shard.0;
                tracing::error!(shard, %error, "a shard can not be copied to its next owner");
                Refusal::Storage
            }
        })?;
        let runs = stretches.iter().zip(read);
        let runs = runs.map(|(stretch, entries)| self.core.in_clear(stretch, entries));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let digest = digest(stretches, &runs);
        Ok(ShardEntries { runs, digest })
    }
}

impl On<CountLeft> for ShardWorker {
    fn on(&mut self, _: CountLeft, cx: &mut Cx<Self>) -> Reply<CountLeft> {
        if !matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Busy));
        }
        let (promise, reply) = Reply::later();
        cx.spawn(self.log.heads(self.shard), |_, heads, _| {
            promise.fulfil(match heads {
                Ok(heads) => Ok(heads.len() as u64),
                Err(LogError::Busy) => Err(Refusal::Busy),
                Err(_) => Err(Refusal::Storage),
            });
        });
        reply
    }
}

impl On<Discard> for ShardWorker {
    fn on(&mut self, _: Discard, cx: &mut Cx<Self>) -> Reply<Discard> {
        let works = (self.config.tenure.borrow()).works(ShardId(self.shard.0));
        if works || !matches!(self.duty, Duty::Rests) {
            return Reply::Now(Err(Refusal::Busy));
        }
        let (promise, reply) = Reply::later();
        let shard = self.shard.0;
        cx.spawn(self.log.discard(self.shard), move |_, discarded, _| {
            if let Err(error) = &discarded {
                tracing::warn!(shard, %error, "what is left of a shard that was given away stays");
            }
            promise.fulfil(discarded.map_err(|_| Refusal::Storage));
        });
        reply
    }
}

impl On<Wake> for ShardWorker {
    fn on(&mut self, _: Wake, cx: &mut Cx<Self>) -> Reply<Wake> {
        self.look(cx);
        Reply::Now(())
    }
}

impl On<Room> for ShardWorker {
    fn on(&mut self, msg: Room, _cx: &mut Cx<Self>) -> Reply<Room> {
        self.core.set_room(msg.writable);
        Reply::Now(())
    }
}

impl On<DescribeShard> for ShardWorker {
    fn on(&mut self, _msg: DescribeShard, _cx: &mut Cx<Self>) -> Reply<DescribeShard> {
        let holds = self.core.holdings();
        let phase = self.core.phase();
        Reply::Now(ShardAccount {
            status: ShardStatus {
                id: self.shard.0.into(),
                channels: holds.channels,
                records: holds.records,
                bytes: holds.bytes,
                subscriptions: holds.subscriptions,
                lag_records: holds.lag_records,
                unwritten_bytes: holds.unwritten_bytes,
            },
            ready: phase == "ready",
            phase,
            subscriptions: holds.subscriptions,
        })
    }
}
