//! The segments of shards on the disk: what each append notes of them, and how what is over goes. Rules: [`core::segments`](crate::core::segments).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use pqcnet_store::{Batch, Commit, ReadError, Scan, Span, Store, SubmitError};

use super::off_thread;
use super::read::{Fault, on_snapshot};
use super::write::{settled, submit};
use crate::core::segments::{Added, Noted, Segment, Segments};
use crate::keys::{self, ENTRY, FIRST, SEGMENT};
use crate::{AppendBatch, ChannelHead, ChannelId, LogError, Pending, Retention, ShardNo};

/// Channels whose front goes in one batch.
const CHANNELS_A_BATCH: usize = 4_096;
/// So few entries are removed one by one: a range that is removed costs every reader of its neighbourhood.
const ONE_BY_ONE: u64 = 16;
/// What is worth giving back at the least.
const WORTH_IT: u64 = 1 << 20;

/// The segments of every shard that is open.
#[derive(Clone)]
pub(crate) struct Retaining {
    limits: Retention,
    shards: Arc<Mutex<BTreeMap<ShardNo, OfShard>>>,
}

struct OfShard {
    generation: u32,
    segments: Segments,
    /// Bytes that went, of which the room was not given back yet, and where they were.
    emptied: (u64, Vec<Span>),
    /// Somebody is at it.
    busy: bool,
}

impl Retaining {
    pub(crate) fn new(limits: Retention) -> Retaining {
        let shards = Arc::default();
        Retaining { limits, shards }
    }

    /// A generation begins that found these heads; `before` is the one that it follows. What is to be noted of that.
    pub(crate) fn begin(
        &self,
        shard: ShardNo,
        (before, generation): (u32, u32),
        noted: &Noted,
        heads: &[ChannelHead],
    ) -> Batch {
        let segments = Segments::load(self.limits, noted, before, heads);
        let mut batch = Batch::new();
        put_open(&mut batch, shard, generation, &segments.open());
        let emptied = (0, Vec::new());
        let of_shard = OfShard {
            generation,
            segments,
            emptied,
            busy: false,
        };
        self.shards.lock().insert(shard, of_shard);
        batch
    }

    /// Hands an append to the store with what it changes of the segments, and that is known from then on.
    pub(crate) fn append(
        &self,
        store: &dyn Store,
        batch: &AppendBatch,
        mut encoded: Batch,
    ) -> Result<Commit, SubmitError> {
        let mut shards = self.shards.lock();
        let open = shards.get_mut(&batch.shard);
        let Some(of) = open.filter(|of| of.generation == batch.generation) else {
            // The fence lets nobody else by; what is not noted is found by the next generation.
            return store.submit(encoded);
        };
        let mut added = Added {
            bytes: batch.byte_len() as u64,
            ..Added::default()
        };
        for run in batch.runs.iter().filter(|run| run.next > run.first) {
            added.at_ms = added.at_ms.max(run.newest_ms);
            added.lasts.push((run.channel, run.next - 1));
        }
        if added.lasts.is_empty() {
            return store.submit(encoded);
        }
        let step = of.segments.step(&added);
        if let Some(number) = step.closes {
            put_lasts(&mut encoded, batch.shard, number, of.segments.lasts());
        }
        put_open(&mut encoded, batch.shard, batch.generation, &step.open);
        let commit = store.submit(encoded)?;
        of.segments.added(step, added);
        Ok(commit)
    }

    /// An append is durable.
    pub(crate) fn settled(&self, shard: ShardNo, generation: u32) {
        self.of(shard, generation, |of| of.segments.settled());
    }

    /// The shard goes: nothing is known of it any more, and `batch` is submitted before anybody else's.
    pub(crate) fn discard(
        &self,
        store: &dyn Store,
        shard: ShardNo,
        mut batch: Batch,
    ) -> Result<Commit, LogError> {
        let mut shards = self.shards.lock();
        shards.remove(&shard);
        let (from, to) = keys::shard_range(shard);
        batch.delete_range(SEGMENT, &from, &to);
        submit(store, batch)
    }

    fn of<T>(
        &self,
        shard: ShardNo,
        generation: u32,
        with: impl FnOnce(&mut OfShard) -> T,
    ) -> Option<T> {
        let mut shards = self.shards.lock();
        let of = shards.get_mut(&shard);
        of.filter(|of| of.generation == generation).map(with)
    }

    /// Removes what is over; its bytes.
    pub(crate) fn retain(
        &self,
        (env, store): (&pqcnet_actor::Env, &Arc<dyn Store>),
        shard: ShardNo,
        generation: u32,
        now_ms: u64,
    ) -> Pending<u64> {
        let (this, env, store) = (self.clone(), env.clone(), store.clone());
        async move {
            let free = this.of(shard, generation, |of| {
                !std::mem::replace(&mut of.busy, true)
            });
            if free != Some(true) {
                return Ok(0);
            }
            let done = Pass {
                this: &this,
                env: &env,
                store: &store,
                shard,
                generation,
            }
            .run(now_ms)
            .await;
            this.of(shard, generation, |of| of.busy = false);
            done
        }
        .boxed()
    }
}

/// One look at a shard.
struct Pass<'a> {
    this: &'a Retaining,
    env: &'a pqcnet_actor::Env,
    store: &'a Arc<dyn Store>,
    shard: ShardNo,
    generation: u32,
}

impl Pass<'_> {
    async fn run(&self, now_ms: u64) -> Result<u64, LogError> {
        let closing = self.change(|of, batch| {
            let open = of.segments.close(now_ms)?;
            put_lasts(batch, self.shard, open.number - 1, of.segments.lasts());
            put_open(batch, self.shard, self.generation, &open);
            of.segments.closed();
            Some(())
        })?;
        if let Some(closing) = closing {
            settled(closing).await?;
        }
        let over = self
            .this
            .of(self.shard, self.generation, |of| of.segments.over(now_ms));
        let mut bytes = 0;
        for segment in over.unwrap_or_default() {
            if !self.drop_segment(segment).await? {
                break;
            }
            bytes += segment.bytes;
        }
        self.give_back(bytes);
        Ok(bytes)
    }

    /// Submits what `with` puts into a batch, while the shard is still open in this generation. A batch in between another's discarding or
    /// opening and what that has queued could not be told apart from what is there.
    fn change(
        &self,
        with: impl FnOnce(&mut OfShard, &mut Batch) -> Option<()>,
    ) -> Result<Option<Commit>, LogError> {
        let changed = self.this.of(self.shard, self.generation, |of| {
            let mut batch = Batch::new();
            with(of, &mut batch)?;
            Some(submit(&**self.store, batch))
        });
        changed.flatten().transpose()
    }

    /// Removes the entries of a segment, in as many batches as it needs; the last removes what is noted of it.
    async fn drop_segment(&self, segment: Segment) -> Result<bool, LogError> {
        let (shard, number) = (self.shard, segment.number);
        let mut after = None;
        loop {
            let reading = off_thread(self.env, self.store, move |store| {
                fronts(store, shard, number, after)
            });
            let page = reading.await?;
            let last = page.len() < CHANNELS_A_BATCH;
            after = page.last().map(|front| front.channel);
            let dropping = self.change(|of, batch| {
                for front in &page {
                    let span = front.put(batch, shard);
                    let room = of.emptied.1.len() < CHANNELS_A_BATCH;
                    of.emptied.1.extend(span.filter(|_| room));
                }
                if last {
                    let (from, to) = (
                        keys::segment(shard, number),
                        keys::segment(shard, number + 1),
                    );
                    batch.delete_range(SEGMENT, &from, &to);
                }
                Some(())
            })?;
            let Some(dropping) = dropping else {
                return Ok(false);
            };
            settled(dropping).await?;
            if last {
                self.this
                    .of(shard, self.generation, |of| of.segments.dropped(number));
                return Ok(true);
            }
        }
    }

    /// Gives the room back once it is half of what is kept: so what is kept is written once more for twice its size that went.
    fn give_back(&self, bytes: u64) {
        let due = self.this.of(self.shard, self.generation, |of| {
            of.emptied.0 += bytes;
            let enough = of.emptied.0 >= (of.segments.kept_bytes() / 2).max(WORTH_IT);
            enough.then(|| std::mem::take(&mut of.emptied))
        });
        if let Some((bytes, emptied)) = due.flatten() {
            let all = keys::shard_range(self.shard);
            self.store.give_back(ENTRY, (&emptied, bytes), all);
        }
    }
}

/// What of a channel goes.
struct Front {
    channel: ChannelId,
    first: u64,
    last: u64,
}

impl Front {
    /// The keys that it had, if that is a range.
    fn put(&self, batch: &mut Batch, shard: ShardNo) -> Option<Span> {
        if self.last < self.first {
            return None;
        }
        let key = |offset| keys::numbered(shard, &self.channel, offset);
        let next = keys::value([self.last + 1]);
        batch.put(FIRST, &keys::channel(shard, &self.channel), &next);
        if self.last - self.first < ONE_BY_ONE {
            (self.first..=self.last).for_each(|offset| batch.delete(ENTRY, &key(offset)));
            return None;
        }
        batch.delete_range(ENTRY, &key(self.first), &key(self.last + 1));
        Some((key(0).to_vec(), key(self.last + 1).to_vec()))
    }
}

fn put_open(batch: &mut Batch, shard: ShardNo, generation: u32, open: &Segment) {
    let value = [
        open.bytes,
        open.oldest_ms,
        open.newest_ms,
        generation.into(),
    ];
    batch.put(
        SEGMENT,
        &keys::segment(shard, open.number),
        &keys::value(value),
    );
}

fn put_lasts(batch: &mut Batch, shard: ShardNo, number: u64, lasts: &BTreeMap<ChannelId, u64>) {
    for (channel, last) in lasts {
        let key = keys::in_segment(shard, number, channel);
        batch.put(SEGMENT, &key, &keys::value([*last]));
    }
}

/// A key of the family: its segment, and its channel if it has one.
fn split(key: &[u8]) -> Option<(u64, Option<ChannelId>)> {
    let number = u64::from_be_bytes(key.get(2..10)?.try_into().ok()?);
    match &key[10..] {
        [] => Some((number, None)),
        channel => Some((number, Some(ChannelId(channel.try_into().ok()?)))),
    }
}

/// What is noted of a shard's segments.
pub(crate) fn noted(store: &dyn Store, shard: ShardNo) -> Result<Noted, LogError> {
    let (from, to) = keys::shard_range(shard);
    let range = Scan {
        from: &from,
        to: &to,
    };
    let found = on_snapshot(store, |view| {
        let (mut noted, mut odd) = (Noted::default(), false);
        view.scan(SEGMENT, range, &mut |key, value| {
            match (split(key), keys::numbers(value), keys::numbers(value)) {
                (Some((number, None)), Some([bytes, oldest_ms, newest_ms, generation]), _) => {
                    noted.segments.push(Segment {
                        number,
                        bytes,
                        oldest_ms,
                        newest_ms,
                    });
                    noted.generation = u32::try_from(generation).unwrap_or(u32::MAX);
                }
                (Some((_, Some(channel))), _, Some([last])) => {
                    let known = noted.closed.entry(channel).or_insert(0);
                    *known = last.max(*known);
                }
                _ => odd = true,
            }
            ControlFlow::Continue(())
        })?;
        if odd {
            Err(Fault::Value(SEGMENT.0))
        } else {
            Ok(noted)
        }
    });
    found.map_err(|fault| fault.in_shard(shard))
}

/// The next fronts of a segment, after that channel, with where the channels begin now.
fn fronts(
    store: &dyn Store,
    shard: ShardNo,
    number: u64,
    after: Option<ChannelId>,
) -> Result<Vec<Front>, LogError> {
    let from = match &after {
        Some(channel) => [&keys::in_segment(shard, number, channel)[..], &[0]].concat(),
        None => [&keys::segment(shard, number)[..], &[0]].concat(),
    };
    let to = keys::segment(shard, number + 1);
    let range = Scan {
        from: &from,
        to: &to,
    };
    let found = on_snapshot(store, |view| {
        let (mut fronts, mut odd) = (Vec::new(), false);
        view.scan(SEGMENT, range, &mut |key, value| {
            match (split(key), keys::numbers(value)) {
                (Some((_, Some(channel))), Some([last])) => fronts.push(Front {
                    channel,
                    first: 1,
                    last,
                }),
                _ => odd = true,
            }
            match fronts.len() < CHANNELS_A_BATCH && !odd {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        for front in &mut fronts {
            if let Some(value) = first_of(view, shard, &front.channel)? {
                let [first] = keys::numbers(&value).ok_or(Fault::Value(FIRST.0))?;
                front.first = first;
            }
        }
        match odd {
            true => Err(Fault::Value(SEGMENT.0)),
            false => Ok(fronts),
        }
    });
    found.map_err(|fault| fault.in_shard(shard))
}

fn first_of(
    view: &dyn pqcnet_store::View,
    shard: ShardNo,
    channel: &ChannelId,
) -> Result<Option<Vec<u8>>, ReadError> {
    view.get(FIRST, &keys::channel(shard, channel))
}

/// How an append is handed on that nothing limits, and one that is.
pub(crate) fn hand_on(
    retaining: Option<&Retaining>,
    store: &dyn Store,
    batch: &AppendBatch,
    encoded: Batch,
) -> Result<Commit, SubmitError> {
    match retaining {
        Some(retaining) => retaining.append(store, batch, encoded),
        None => store.submit(encoded),
    }
}
