//! The log in a [`Store`].

mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use pqcnet_actor::{Env, OffloadError};
use pqcnet_store::{Batch, Store, SubmitError};

use self::read::{bounds, generations, heads, read};
use self::write::{encode, settled, submit};
use crate::keys::{self, ENTRY, FIRST, GENERATION};
use crate::{
    AppendBatch, AppendError, ChannelHead, ChannelId, Entries, LogError, Opened, Pending,
    ReadRequest, Salt, ShardLog, ShardNo,
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
