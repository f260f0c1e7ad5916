//! The log in a [`Store`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use pqcnet_actor::{Env, OffloadError};
use pqcnet_store::{Batch, Commit, ReadError, Scan, Store, SubmitError, View, WriteError};

use crate::keys::{self, ABOUT, ENTRY, FIRST, GENERATION, HEAD, MARK};
use crate::{
    AppendBatch, AppendError, ChannelHead, ChannelId, Entries, LogError, Opened, Pending,
    ProducerMark, ReadRequest, Salt, ShardLog, ShardNo,
};

/// A [`ShardLog`] in a [`Store`] whose schema has [`keys::FAMILIES`].
#[derive(Clone)]
pub struct EmbeddedLog {
    store: Arc<dyn Store>,
    env: Env,
    fences: Arc<Mutex<BTreeMap<ShardNo, Fence>>>,
}

/// Who may append to a shard, and where its channels continue.
#[derive(Default)]
struct Fence {
    /// Calls to open so far; only the last of them gets the shard.
    opens: u64,
    generation: u32,
    state: FenceState,
    heads: BTreeMap<ChannelId, u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FenceState {
    /// Opening, or an append failed: nobody may append.
    #[default]
    Shut,
    Idle,
    Appending,
}

impl EmbeddedLog {
    /// A log in `store`. Reads that may be long run on `env`'s pool.
    pub fn new(env: &Env, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            env: env.clone(),
            fences: Arc::default(),
        }
    }

    fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, LogError> + Send + 'static,
    ) -> Pending<T> {
        let store = self.store.clone();
        let done = self.env.offload(move || work(&*store));
        async move {
            done.await.unwrap_or_else(|error| {
                Err(match error {
                    OffloadError::Busy { .. } => LogError::Busy,
                    OffloadError::Closed => LogError::Closed,
                    OffloadError::Panicked => LogError::Storage {
                        detail: error.to_string(),
                    },
                })
            })
        }
        .boxed()
    }

    /// Takes the fence of `batch`'s shard for one append.
    fn admit(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        let (shard, generation) = (batch.shard, batch.generation);
        let fenced = AppendError::Fenced { shard, generation };
        let mut fences = self.fences.lock();
        let Some(fence) = fences.get_mut(&shard) else {
            return Err(fenced);
        };
        if fence.generation != generation || fence.state == FenceState::Shut {
            return Err(fenced);
        }
        if fence.state == FenceState::Appending {
            return Err(AppendError::UnderWay { shard });
        }
        for run in &batch.runs {
            let expected = fence.heads.get(&run.channel).map_or(1, |head| head + 1);
            if run.first != expected {
                return Err(AppendError::NotNext {
                    shard,
                    channel: run.channel,
                    expected,
                    got: run.first,
                });
            }
        }
        fence.state = FenceState::Appending;
        Ok(())
    }

    fn release(&self, shard: ShardNo) {
        if let Some(fence) = self.fences.lock().get_mut(&shard) {
            fence.state = FenceState::Idle;
        }
    }
}

/// Settles the fence once the append's fate is known. Dropped before that, the generation is over.
struct UnderWay {
    fences: Arc<Mutex<BTreeMap<ShardNo, Fence>>>,
    shard: ShardNo,
    generation: u32,
    heads: Vec<(ChannelId, u64)>,
    durable: bool,
}

impl UnderWay {
    /// By value, so that the future owns the whole of it and not just a field.
    fn settle(mut self, durable: bool) {
        self.durable = durable;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut fences = self.fences.lock();
        let Some(fence) = fences.get_mut(&self.shard) else {
            return;
        };
        // Whoever opens next has shut it already; what this append came to is then in the heads they will read.
        if fence.generation != self.generation || fence.state == FenceState::Shut {
            return;
        }
        if self.durable {
            fence.state = FenceState::Idle;
            fence.heads.extend(self.heads.drain(..));
        } else {
            fence.state = FenceState::Shut;
        }
    }
}

impl ShardLog for EmbeddedLog {
    fn open(&self, shard: ShardNo, salt: Salt) -> Pending<Opened> {
        let mine = {
            let mut fences = self.fences.lock();
            let fence = fences.entry(shard).or_default();
            // Fences off the earlier generation before its successor's number is known.
            fence.state = FenceState::Shut;
            fence.opens += 1;
            fence.opens
        };
        let log = self.clone();
        let stored = self.off_thread(move |store| generations(store, shard));
        async move {
            let mut salts = stored.await?;
            let newest = salts.last().map_or(0, |(generation, _)| *generation);
            let generation = {
                let mut fences = log.fences.lock();
                let fence = fences.entry(shard).or_default();
                if fence.opens != mine {
                    return Err(LogError::Superseded { shard });
                }
                // An open that failed may have stored its number; one abandoned may still be under way.
                fence.generation = fence.generation.max(newest) + 1;
                fence.generation
            };
            let mut batch = Batch::new();
            batch.put(GENERATION, &keys::generation(shard, generation), &salt);
            settled(submit(&*log.store, batch)?).await?;
            // Batches settle in order: whatever an earlier generation had queued is on disk or has failed by now.
            let heads = log.heads(shard).await?;
            let mut fences = log.fences.lock();
            let fence = fences.entry(shard).or_default();
            if fence.opens != mine {
                return Err(LogError::Superseded { shard });
            }
            fence.heads = heads.iter().map(|h| (h.channel, h.head)).collect();
            fence.state = FenceState::Idle;
            salts.push((generation, salt));
            Ok(Opened { generation, salts })
        }
        .boxed()
    }

    fn heads(&self, shard: ShardNo) -> Pending<Vec<ChannelHead>> {
        self.off_thread(move |store| heads(store, shard))
    }

    fn append(&self, batch: AppendBatch) -> Result<Pending<()>, AppendError> {
        self.admit(&batch)?;
        let (shard, generation) = (batch.shard, batch.generation);
        let commit = match self.store.submit(encode(&batch)) {
            Ok(commit) => commit,
            Err(refused) => {
                self.release(shard);
                return Err(match refused {
                    SubmitError::Busy(_) => AppendError::Busy(batch),
                    SubmitError::TooLarge(encoded) => AppendError::TooLarge {
                        bytes: encoded.byte_len(),
                    },
                    SubmitError::Closed(_) => AppendError::Closed,
                });
            }
        };
        let under_way = UnderWay {
            fences: self.fences.clone(),
            shard,
            generation,
            heads: batch.runs.iter().map(|r| (r.channel, r.next - 1)).collect(),
            durable: false,
        };
        Ok(async move {
            let result = settled(commit).await;
            under_way.settle(result.is_ok());
            result
        }
        .boxed())
    }

    fn read(&self, request: ReadRequest) -> Pending<Entries> {
        self.off_thread(move |store| read(store, request))
    }

    fn trim(&self, shard: ShardNo, channel: ChannelId, up_to: u64) -> Pending<()> {
        let store = self.store.clone();
        let bounds = self.off_thread(move |store| bounds(store, shard, channel));
        async move {
            let (first, head) = bounds.await?;
            let up_to = up_to.min(head);
            if up_to < first {
                return Ok(());
            }
            let mut batch = Batch::new();
            let from = keys::numbered(shard, &channel, first);
            let to = keys::numbered(shard, &channel, up_to + 1);
            batch.delete_range(ENTRY, &from, &to);
            let key = keys::channel(shard, &channel);
            batch.put(FIRST, &key, &keys::value([up_to + 1]));
            settled(submit(&*store, batch)?).await
        }
        .boxed()
    }
}

fn submit(store: &dyn Store, batch: Batch) -> Result<Commit, LogError> {
    store.submit(batch).map_err(|refused| match refused {
        SubmitError::Busy(_) => LogError::Busy,
        SubmitError::TooLarge(_) | SubmitError::Closed(_) => LogError::Closed,
    })
}

async fn settled(commit: Commit) -> Result<(), LogError> {
    commit.await.map_err(|e| match e {
        WriteError::Full { detail } => LogError::Full { detail },
        WriteError::Closed => LogError::Closed,
        WriteError::Io { .. } | WriteError::Corrupt { .. } | WriteError::UnknownFamily(_) => {
            LogError::Storage {
                detail: e.to_string(),
            }
        }
    })
}

/// The batch as keys and values.
fn encode(batch: &AppendBatch) -> Batch {
    // Per entry its key and bytes; per run a head and a mark or two.
    let bytes = batch.byte_len() + batch.len() * 42 + batch.runs.len() * 160;
    let mut out = Batch::with_capacity(batch.len() + batch.runs.len() * 3, bytes);
    let mut marks = BTreeMap::new();
    let mut start = 0;
    for entry in &batch.entries {
        let channel = &batch.runs[entry.run].channel;
        let key = keys::numbered(batch.shard, channel, entry.offset);
        out.put(ENTRY, &key, &batch.buffer[start..entry.end]);
        start = entry.end;
        marks.insert((entry.run, entry.epoch), (entry.sequence, entry.offset));
    }
    for run in &batch.runs {
        let key = keys::channel(batch.shard, &run.channel);
        let head = [run.next - 1, run.forgotten_epoch, run.bytes, run.newest_ms];
        out.put(HEAD, &key, &keys::value(head));
        for epoch in &run.forget {
            out.delete(MARK, &keys::numbered(batch.shard, &run.channel, *epoch));
        }
        if let Some(about) = &run.about {
            out.put(ABOUT, &key, about);
        }
    }
    for ((run, epoch), (sequence, offset)) in marks {
        let key = keys::numbered(batch.shard, &batch.runs[run].channel, epoch);
        out.put(MARK, &key, &keys::value([sequence, offset]));
    }
    out
}

/// Runs `read` on one snapshot and hands out what it returns.
fn on_snapshot<T>(
    store: &dyn Store,
    mut read: impl FnMut(&dyn View) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut out = None;
    store
        .view(&mut |view| {
            out = Some(read(view));
            Ok(())
        })
        .map_err(Fault::Read)?;
    out.unwrap_or(Err(Fault::Read(ReadError::Closed)))
}

/// A read that failed, before it is known where to place the blame.
enum Fault {
    Read(ReadError),
    /// Stored bytes that no version of this code wrote.
    Value(&'static str),
    Missing(u64),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Fault {
    fn in_shard(self, shard: ShardNo) -> LogError {
        match self {
            Self::Read(ReadError::Corrupt { detail, .. }) => {
                LogError::DamagedShard { shard, detail }
            }
            Self::Value(what) => LogError::DamagedShard {
                shard,
                detail: format!("a value in {what} has the wrong shape"),
            },
            Self::Missing(offset) => LogError::DamagedShard {
                shard,
                detail: format!("entry {offset} is missing"),
            },
            Self::Read(other) => storage(other),
        }
    }

    fn at(self, shard: ShardNo, channel: ChannelId, offset: u64) -> LogError {
        let (offset, detail) = match self {
            Self::Read(ReadError::Corrupt { detail, .. }) => (offset, detail),
            Self::Value(what) => (offset, format!("a value in {what} has the wrong shape")),
            Self::Missing(offset) => (offset, "the entry is missing".to_owned()),
            Self::Read(other) => return storage(other),
        };
        LogError::Damaged {
            shard,
            channel,
            offset,
            detail,
        }
    }
}

fn storage(error: ReadError) -> LogError {
    match error {
        ReadError::Closed => LogError::Closed,
        ReadError::Io { .. } | ReadError::Corrupt { .. } | ReadError::UnknownFamily(_) => {
            LogError::Storage {
                detail: error.to_string(),
            }
        }
    }
}

fn generations(store: &dyn Store, shard: ShardNo) -> Result<Vec<(u32, Salt)>, LogError> {
    let (from, to) = keys::shard_range(shard);
    let found = on_snapshot(store, |view| {
        let mut found = Vec::new();
        let mut odd = false;
        let range = Scan {
            from: &from,
            to: &to,
        };
        view.scan(GENERATION, range, &mut |key, value| {
            let number = key
                .get(2..)
                .and_then(|k| k.try_into().ok())
                .map(u32::from_be_bytes);
            match (number, value.try_into()) {
                (Some(number), Ok(salt)) => found.push((number, salt)),
                _ => odd = true,
            }
            ControlFlow::Continue(())
        })?;
        if odd {
            Err(Fault::Value(GENERATION.0))
        } else {
            Ok(found)
        }
    });
    found.map_err(|fault| fault.in_shard(shard))
}

fn heads(store: &dyn Store, shard: ShardNo) -> Result<Vec<ChannelHead>, LogError> {
    let (from, to) = keys::shard_range(shard);
    let range = Scan {
        from: &from,
        to: &to,
    };
    let found = on_snapshot(store, |view| {
        let mut odd = None;
        let mut heads = BTreeMap::new();
        view.scan(HEAD, range, &mut |key, value| {
            match (keys::split(key), keys::numbers(value)) {
                (Some((channel, None)), Some([head, forgotten_epoch, bytes, newest_ms])) => {
                    heads.insert(
                        channel,
                        ChannelHead {
                            channel,
                            first: 1,
                            head,
                            forgotten_epoch,
                            bytes,
                            newest_ms,
                            producers: Vec::new(),
                            about: None,
                        },
                    );
                }
                _ => odd = Some(HEAD.0),
            }
            ControlFlow::Continue(())
        })?;
        view.scan(FIRST, range, &mut |key, value| {
            let head = keys::split(key).and_then(|(channel, _)| heads.get_mut(&channel));
            match (head, keys::numbers(value)) {
                (Some(head), Some([first])) => head.first = first,
                _ => odd = Some(FIRST.0),
            }
            ControlFlow::Continue(())
        })?;
        view.scan(MARK, range, &mut |key, value| {
            let Some((channel, Some(epoch))) = keys::split(key) else {
                odd = Some(MARK.0);
                return ControlFlow::Continue(());
            };
            match (heads.get_mut(&channel), keys::numbers(value)) {
                (Some(head), Some([sequence, offset])) => head.producers.push(ProducerMark {
                    epoch,
                    sequence,
                    offset,
                }),
                _ => odd = Some(MARK.0),
            }
            ControlFlow::Continue(())
        })?;
        view.scan(ABOUT, range, &mut |key, value| {
            match keys::split(key).and_then(|(channel, _)| heads.get_mut(&channel)) {
                Some(head) => head.about = Some(Bytes::copy_from_slice(value)),
                None => odd = Some(ABOUT.0),
            }
            ControlFlow::Continue(())
        })?;
        match odd {
            Some(family) => Err(Fault::Value(family)),
            None => Ok(heads.into_values().collect()),
        }
    });
    found.map_err(|fault| fault.in_shard(shard))
}

/// Lowest offset kept and highest stored.
fn bounds(store: &dyn Store, shard: ShardNo, channel: ChannelId) -> Result<(u64, u64), LogError> {
    on_snapshot(store, |view| bounds_in(view, shard, &channel))
        .map_err(|fault| fault.at(shard, channel, 1))
}

fn bounds_in(view: &dyn View, shard: ShardNo, channel: &ChannelId) -> Result<(u64, u64), Fault> {
    let key = keys::channel(shard, channel);
    let head = match view.get(HEAD, &key)? {
        None => 0,
        Some(value) => {
            let [head, _, _, _] = keys::numbers(&value).ok_or(Fault::Value(HEAD.0))?;
            head
        }
    };
    let first = match view.get(FIRST, &key)? {
        None => 1,
        Some(value) => {
            let [first] = keys::numbers(&value).ok_or(Fault::Value(FIRST.0))?;
            first
        }
    };
    Ok((first, head))
}

fn read(store: &dyn Store, request: ReadRequest) -> Result<Entries, LogError> {
    let ReadRequest {
        shard,
        channel,
        after,
        ..
    } = request;
    // Where reading stands, for the blame.
    let mut next = after.saturating_add(1);
    let found = on_snapshot(store, |view| {
        let (first, head) = bounds_in(view, shard, &channel)?;
        next = next.max(first);
        read_in(view, &request, &mut next, head)
    });
    found.map_err(|fault| fault.at(shard, channel, next))
}

fn read_in(
    view: &dyn View,
    request: &ReadRequest,
    next: &mut u64,
    head: u64,
) -> Result<Entries, Fault> {
    let mut entries = Entries::default();
    if *next > head || request.max_records == 0 {
        return Ok(entries);
    }
    let from = keys::numbered(request.shard, &request.channel, *next);
    let to = keys::numbered(request.shard, &request.channel, head + 1);
    let range = Scan {
        from: &from,
        to: &to,
    };
    let mut odd = None;
    let mut enough = false;
    let scanned = view.scan(ENTRY, range, &mut |key, value| {
        match keys::split(key) {
            Some((_, Some(offset))) if offset == *next => {}
            Some(_) => odd = Some(Fault::Missing(*next)),
            None => odd = Some(Fault::Value(ENTRY.0)),
        }
        let start = entries.buffer.len();
        let full = !entries.items.is_empty() && start + value.len() > request.max_bytes;
        if full || odd.is_some() {
            enough = true;
            return ControlFlow::Break(());
        }
        entries.buffer.extend_from_slice(value);
        entries.items.push((*next, start..entries.buffer.len()));
        *next += 1;
        enough = entries.items.len() == request.max_records;
        if enough {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if !entries.items.is_empty() {
        // What precedes a damaged entry is good; the next read starts at the damage and names it.
        return Ok(entries);
    }
    scanned?;
    Err(odd.unwrap_or(Fault::Missing(*next)))
}
