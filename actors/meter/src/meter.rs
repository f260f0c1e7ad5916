//! Closes windows: reads the workers' books, has receivers sign, writes what is new, then says that it is kept.
//!
//! Rules: [`crate::core`]; what is on the disk: [`crate::disk`]. Spec: docs/spec/metering.md. Started by: `roles::relayer`,
//! behind the shard workers and before whoever serves links, so that it closes a last window when nothing comes any more.
//! Hears from: intakes (grants), operators (totals, reports). Asks: shard workers, and over links the receivers.
//!
//! ```text
//!   alarm ─▶ readings ─▶ receipts (not when stopping) ─▶ off the thread: records, root, signature ─▶ one synced batch ─▶ kept
//! ```
//!
//! Mailbox: [`BOUNDS`]. A restart reads where it stands from the disk; workers hand out again what was not kept. A batch of
//! unknown fate is settled the same way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use pqcnet_actor::{Alarm, Behaviour, Bounds, Counter, Cx, Env, On, Promise, Ref, Reply, Stopping};
use pqcnet_messages::metering::{
    CloseWindow, CreateReport, NoteGrant, ReadTotals, Reading, TakeVolume, Totals, VolumeTaken,
};
use pqcnet_messages::relay::RelayCountersign;
use pqcnet_messages::{Receipt, Series, ShardId};
use pqcnet_store::{Batch, Commit, Store};

use crate::closing::{Closed, Closing, Identity, close, report};
use crate::core::ledger::delivered_key;
use crate::core::record::RecordKey;
use crate::disk::{self, DiskError, Standing};

/// A grant a session: as many as sentries may open at once.
pub const BOUNDS: Bounds = Bounds {
    control: 64,
    request: 4096,
    bulk: 1,
};
/// Whoever asks about the books, and a report under way, wait their turn beside the windows.
const READINGS_WITHIN: Duration = Duration::from_secs(5);
/// A receiver that does not sign by then is asked again in the next window.
const RECEIPT_WITHIN: Duration = Duration::from_secs(5);
/// Receivers asked in one window; the others in the next ones.
const ASKED: usize = 4096;
/// Of these at once.
const ASKED_AT_ONCE: usize = 512;
/// After a start: what was stored before a kill is in a window soon.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// After a window that could not be kept.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Customers in one answer.
pub const MAX_CUSTOMERS: usize = 1000;

/// What a meter is made of.
#[derive(Clone)]
pub struct MeterConfig {
    /// Who meters.
    pub identity: Identity,
    /// How long a window is.
    pub window: Duration,
    /// Where windows are kept; of the layout [`disk::schema`].
    pub store: Arc<dyn Store>,
    /// Every shard's worker.
    pub workers: BTreeMap<ShardId, Ref<TakeVolume>>,
}

struct Counters {
    windows: Counter,
    failures: Counter,
    stored: [Counter; 2],
    delivered: [Counter; 2],
    receipted: [Counter; 2],
    accepted: Counter,
    refused: Counter,
    missing: Counter,
}

impl Counters {
    fn of(env: &Env) -> Counters {
        let frames = |help, labels| env.counter("metered_frames", help, labels);
        let bytes = |help, labels| env.counter("metered_bytes", help, labels);
        let receipts = |labels| {
            env.counter(
                "receipts",
                "Answers of receivers that were asked to sign for what they took",
                labels,
            )
        };
        let (some, size) = (
            "Messages in closed windows of the meter",
            "Bytes of payloads in closed windows of the meter",
        );
        Counters {
            windows: env.counter(
                "metering_windows",
                "Windows of the meter that were closed",
                &[],
            ),
            failures: env.counter(
                "metering_failures",
                "Windows of the meter that could not be kept and were tried again",
                &[],
            ),
            stored: [
                frames(some, &[("kind", "stored")]),
                bytes(size, &[("kind", "stored")]),
            ],
            delivered: [
                frames(some, &[("kind", "delivered")]),
                bytes(size, &[("kind", "delivered")]),
            ],
            receipted: [
                frames(some, &[("kind", "receipted")]),
                bytes(size, &[("kind", "receipted")]),
            ],
            accepted: receipts(&[("verdict", "accepted")]),
            refused: receipts(&[("verdict", "refused")]),
            missing: receipts(&[("verdict", "missing")]),
        }
    }

    fn note(&self, closed: &Closed) {
        self.windows.bump();
        let added = &closed.added;
        for (counters, volume) in [
            (&self.stored, added.stored),
            (&self.delivered, added.delivered),
            (&self.receipted, added.receipted),
        ] {
            counters[0].add(volume.frames);
            counters[1].add(volume.bytes);
        }
        self.accepted.add(closed.accepted);
        self.refused.add(closed.refused);
    }
}

/// The actor.
pub struct Meter {
    config: MeterConfig,
    /// As on the disk; `None` until it is read.
    standing: Option<Standing>,
    /// Where receipts of open series stand.
    receipted: BTreeMap<RecordKey, u64>,
    /// Grants on their way to the disk.
    keeping: usize,
    /// The receiver that was asked last.
    cursor: Option<RecordKey>,
    /// A window is being closed.
    busy: bool,
    draining: bool,
    /// The last window is being closed.
    last: bool,
    /// When it began to run, and how much of that is in windows.
    began_ms: u64,
    counters: Option<Counters>,
    waiting: Vec<Promise<CloseWindow>>,
    /// Those that the window under way answers.
    answering: Vec<Promise<CloseWindow>>,
    alarm: Alarm<Self>,
}

impl Meter {
    /// A meter that reads where it stands when it starts.
    pub fn new(config: MeterConfig) -> Meter {
        Meter {
            config,
            standing: None,
            receipted: BTreeMap::new(),
            keeping: 0,
            cursor: None,
            busy: false,
            draining: false,
            last: false,
            began_ms: 0,
            counters: None,
            waiting: Vec::new(),
            answering: Vec::new(),
            alarm: Alarm::new(Self::on_alarm),
        }
    }

    fn on_alarm(&mut self, cx: &mut Cx<Self>) {
        if self.busy {
            return;
        }
        self.busy = true;
        self.last = self.draining;
        self.answering = std::mem::take(&mut self.waiting);
        if self.standing.is_some() {
            return self.read(cx);
        }
        let store = self.config.store.clone();
        cx.offload(
            move || disk::standing(&*store),
            |meter, standing, cx| match flat(standing) {
                Ok(standing) => {
                    meter.standing = Some(standing);
                    meter.read(cx);
                }
                Err(why) => meter.failed(&why, cx),
            },
        );
    }

    /// Asks every worker for its book.
    fn read(&mut self, cx: &mut Cx<Self>) {
        let kept = |shard| {
            let mark = self.standing.as_ref()?.shards.get(&shard)?;
            Some(Reading {
                run: mark.run,
                serial: mark.serial,
            })
        };
        let asks = self.config.workers.iter().map(|(shard, worker)| {
            let kept = kept(*shard).unwrap_or_default();
            let worker = worker.clone();
            async move { worker.ask(TakeVolume { kept }, READINGS_WITHIN).await }
        });
        let asks: Vec<_> = asks.collect();
        cx.spawn(join_all(asks), |meter, answers, cx| {
            // A shard that is elsewhere, or not open yet, has nothing to say.
            let taken: Vec<VolumeTaken> = answers.into_iter().flatten().flatten().collect();
            let cut_ms = cx.wall_ms();
            if meter.draining {
                return meter.close(cut_ms, taken, Vec::new(), cx);
            }
            meter.countersign(cut_ms, taken, cx);
        });
    }

    /// Has those receivers sign that took more than they signed for.
    fn countersign(&mut self, cut_ms: u64, taken: Vec<VolumeTaken>, cx: &mut Cx<Self>) {
        let number = self.standing.as_ref().and_then(|standing| standing.chain);
        let window = number.map_or(0, |chain| chain.number) + 1;
        let mut due: BTreeMap<RecordKey, (Ref<RelayCountersign>, u32)> = BTreeMap::new();
        for delivered in taken.iter().flat_map(|taken| &taken.delivered) {
            let key = delivered_key(delivered);
            let signed = self.receipted.get(&key).copied().unwrap_or(delivered.after);
            if let Some(ask) = &delivered.ask
                && key.series != Series::NONE
                && signed < delivered.last
            {
                due.insert(key, ask.clone());
            }
        }
        // Those behind whom was asked last come first.
        let behind = match &self.cursor {
            Some(cursor) => due.split_off(cursor),
            None => BTreeMap::new(),
        };
        let chosen: Vec<_> = behind.into_iter().chain(due).take(ASKED).collect();
        self.cursor = chosen.last().map(|(key, _)| key.clone());
        let asks = chosen
            .into_iter()
            .map(move |(key, (to, subscription))| async move {
                let ask = RelayCountersign {
                    subscription,
                    window,
                };
                let answer = to.ask(ask, RECEIPT_WITHIN).await;
                (key, answer.ok().and_then(Result::ok))
            });
        let asked = futures::stream::iter(asks).buffer_unordered(ASKED_AT_ONCE);
        cx.spawn(asked.collect::<Vec<_>>(), move |meter, answers, cx| {
            let mut signed: Vec<(RecordKey, Receipt)> = Vec::new();
            for (key, answer) in answers {
                match (answer, &meter.counters) {
                    (Some(answer), _) => signed.push((key, answer.receipt)),
                    (None, Some(counters)) => counters.missing.bump(),
                    (None, None) => {}
                }
            }
            signed.sort_by(|a, b| a.0.cmp(&b.0));
            meter.close(cut_ms, taken, signed, cx);
        });
    }

    fn close(
        &mut self,
        cut_ms: u64,
        taken: Vec<VolumeTaken>,
        signed: Vec<(RecordKey, Receipt)>,
        cx: &mut Cx<Self>,
    ) {
        let standing = self.standing.clone().unwrap_or_default();
        let start_ms = self.began_ms.min(cut_ms);
        let from = standing.chain.map_or(start_ms, |chain| chain.end_ms);
        let closing = Closing {
            standing,
            start_ms,
            // It runs since it began; what lies before that in this window is time in which it did not.
            end: (cut_ms, cut_ms.saturating_sub(from.max(self.began_ms))),
            taken,
            signed,
        };
        if self.keeping == 0 {
            return self.sign(closing, cx);
        }
        // Batches settle in order: behind this one every grant that was noted is to be read.
        match self.config.store.submit(Batch::new()) {
            Ok(barrier) => cx.spawn(barrier, move |meter, settled, cx| match settled {
                Ok(()) => meter.sign(closing, cx),
                Err(error) => meter.failed(&error.to_string(), cx),
            }),
            Err(refused) => self.failed(&refused.to_string(), cx),
        }
    }

    fn sign(&mut self, closing: Closing, cx: &mut Cx<Self>) {
        let (who, store) = (self.config.identity.clone(), self.config.store.clone());
        cx.offload(
            move || close(&who, &*store, closing),
            |meter, closed, cx| match flat(closed) {
                Ok(closed) => meter.write(closed, cx),
                Err(why) => meter.failed(&why, cx),
            },
        );
    }

    fn write(&mut self, mut closed: Closed, cx: &mut Cx<Self>) {
        let batch = std::mem::take(&mut closed.batch);
        let commit = match self.config.store.submit(batch) {
            Ok(commit) => commit,
            Err(refused) => return self.failed(&refused.to_string(), cx),
        };
        cx.spawn(commit, move |meter, written, cx| match written {
            Ok(()) => meter.kept(closed, cx),
            Err(error) => {
                // It may be on the disk all the same.
                meter.standing = None;
                meter.failed(&error.to_string(), cx);
            }
        });
    }

    fn kept(&mut self, closed: Closed, cx: &mut Cx<Self>) {
        if let Some(counters) = &self.counters {
            counters.note(&closed);
        }
        let number = closed.standing.chain.map(|chain| chain.number);
        self.receipted = closed.receipted;
        self.standing = Some(closed.standing);
        for promise in std::mem::take(&mut self.answering) {
            promise.fulfil(Ok(number));
        }
        self.next(self.config.window, cx);
    }

    fn failed(&mut self, why: &str, cx: &mut Cx<Self>) {
        tracing::error!(why, "a window of the meter was not kept; it is tried again");
        if let Some(counters) = &self.counters {
            counters.failures.bump();
        }
        for promise in std::mem::take(&mut self.answering) {
            promise.fulfil(Err(why.to_owned()));
        }
        self.next(self.config.window.min(AGAIN_AFTER), cx);
    }

    fn next(&mut self, after: Duration, cx: &mut Cx<Self>) {
        self.busy = false;
        if self.last {
            return cx.stop();
        }
        if self.draining {
            return self.on_alarm(cx);
        }
        let after = match self.waiting.is_empty() {
            true => after,
            false => Duration::ZERO,
        };
        let at = cx.now() + after;
        self.alarm.set(cx, Some(at));
    }

    fn keep(&mut self, batch: Batch, what: &'static str, cx: &mut Cx<Self>) {
        match self.config.store.submit(batch) {
            Ok(commit) => self.noted(commit, what, cx),
            Err(error) => tracing::warn!(%error, what, "the meter could not keep it"),
        }
    }

    fn noted(&mut self, commit: Commit, what: &'static str, cx: &mut Cx<Self>) {
        self.keeping += 1;
        cx.spawn(commit, move |meter, written, _| {
            meter.keeping -= 1;
            if let Err(error) = written {
                tracing::warn!(%error, what, "the meter could not keep it");
            }
        });
    }
}

fn flat<T>(outcome: Result<Result<T, DiskError>, pqcnet_actor::OffloadError>) -> Result<T, String> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

impl Behaviour for Meter {
    const NAME: &'static str = "Meter";

    fn started(&mut self, cx: &mut Cx<Self>) {
        self.began_ms = cx.wall_ms();
        self.counters = Some(Counters::of(cx.env()));
        let first = cx.now() + FIRST_AFTER.min(self.config.window);
        self.alarm.set(cx, Some(first));
    }

    /// Closes what is open, without receipts: the links are gone.
    fn stopping(&mut self, cx: &mut Cx<Self>) -> Stopping {
        self.draining = true;
        if !self.busy {
            self.on_alarm(cx);
        }
        Stopping::Draining
    }

    fn describe(&self) -> String {
        let chain = self.standing.as_ref().and_then(|standing| standing.chain);
        let number = chain.map_or(0, |chain| chain.number);
        format!(
            "{number} windows closed, {} open series",
            self.receipted.len()
        )
    }
}

impl On<NoteGrant> for Meter {
    fn on(&mut self, msg: NoteGrant, cx: &mut Cx<Self>) -> Reply<NoteGrant> {
        let mut batch = Batch::new();
        disk::put_grant(&mut batch, &msg.grant);
        self.keep(batch, "a grant", cx);
        Reply::Now(())
    }
}

impl On<CloseWindow> for Meter {
    fn on(&mut self, _: CloseWindow, cx: &mut Cx<Self>) -> Reply<CloseWindow> {
        let (promise, later) = Reply::later();
        self.waiting.push(promise);
        self.on_alarm(cx);
        later
    }
}

impl On<CreateReport> for Meter {
    fn on(&mut self, msg: CreateReport, cx: &mut Cx<Self>) -> Reply<CreateReport> {
        let Some(standing) = self.standing.clone() else {
            return Reply::Now(Err("the meter has not read its store yet".to_owned()));
        };
        let (who, store) = (self.config.identity.clone(), self.config.store.clone());
        let now_ms = cx.wall_ms();
        let (promise, later) = Reply::later();
        cx.offload(
            move || report(&who, &*store, &standing, now_ms, msg),
            |_, made, _| {
                promise.fulfil(made.unwrap_or_else(|error| Err(error.to_string())));
            },
        );
        later
    }
}

impl On<ReadTotals> for Meter {
    fn on(&mut self, msg: ReadTotals, cx: &mut Cx<Self>) -> Reply<ReadTotals> {
        let Some(standing) = self.standing.clone() else {
            return Reply::Now(Err("the meter has not read its store yet".to_owned()));
        };
        let store = self.config.store.clone();
        let limit = msg.limit.min(MAX_CUSTOMERS);
        let (promise, later) = Reply::later();
        cx.offload(
            move || disk::customers(&*store, msg.after, limit),
            move |_, customers, _| {
                promise.fulfil(flat(customers).map(|(customers, more)| Totals {
                    window: standing.chain.map_or(0, |chain| chain.number),
                    oldest: standing.oldest,
                    closed_at_ms: standing.chain.map_or(0, |chain| chain.end_ms),
                    all: standing.sums,
                    customers,
                    more,
                }));
            },
        );
        later
    }
}
