//! The log in a [`Store`].

pub(crate) mod read;
mod retain;
pub(crate) mod write;

use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use pqcnet_actor::{Env, OffloadError};
use pqcnet_store::{Batch, Store, SubmitError};

use self::read::{bounds, generations, heads, read};
use self::retain::{Retaining, hand_on, noted};
use self::write::{encode, settled, submit};
use crate::core::shares::{Bringing, Shares};
use crate::fence::Fences;
use crate::keys::{self, ABOUT, ENTRY, FIRST, GENERATION, HEAD, MARK};
use crate::{
    AppendBatch, AppendError, ChannelHead, ChannelId, Entries, LogError, Opened, Pending,
    ReadRequest, Retention, Salt, ShardLog, ShardNo, Share,
};

/// A [`ShardLog`] in a [`Store`] whose schema has [`keys::FAMILIES`].
#[derive(Clone)]
pub struct EmbeddedLog {
    store: Arc<dyn Store>,
    env: Env,
    fences: Fences,
    retaining: Option<Retaining>,
    shares: Arc<Mutex<Shares>>,
}

impl EmbeddedLog {
    /// A log in `store`. Reads that may be long run on `env`'s pool.
    pub fn new(env: &Env, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            env: env.clone(),
            fences: Fences::default(),
            retaining: None,
            shares: Arc::default(),
        }
    }

    /// The same, which keeps what is within these limits. Its store's schema has [`keys::SEGMENT`] too.
    #[must_use]
    pub fn retaining(mut self, limits: Retention) -> Self {
        self.retaining = limits.is_limited().then(|| Retaining::new(limits));
        self
    }

    fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, LogError> + Send + 'static,
    ) -> Pending<T> {
        off_thread(&self.env, &self.store, work)
    }
}

/// Runs a read of the store on the node's pool.
pub(crate) fn off_thread<T: Send + 'static>(
    env: &Env,
    store: &Arc<dyn Store>,
    work: impl FnOnce(&dyn Store) -> Result<T, LogError> + Send + 'static,
) -> Pending<T> {
    let store = store.clone();
    let done = env.offload(move || work(&*store));
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

impl ShardLog for EmbeddedLog {
    fn open_above(&self, shard: ShardNo, salt: Salt, floor: u32) -> Pending<Opened> {
        // Fences off the earlier generation before its successor's number is known.
        let call = self.fences.shut(shard);
        let log = self.clone();
        let stored = self.off_thread(move |store| generations(store, shard));
        async move {
            let mut salts = stored.await?;
            let newest = salts.last().map_or(0, |(generation, _)| *generation);
            let before = newest;
            let newest = newest.max(floor);
            let generation = log.fences.number(shard, call, newest)?;
            let mut batch = Batch::new();
            batch.put(GENERATION, &keys::generation(shard, generation), &salt);
            settled(submit(&*log.store, batch)?).await?;
            // Batches settle in order: whatever an earlier generation had queued is on disk or has failed by now.
            let heads = log.heads(shard).await?;
            if let Some(retaining) = &log.retaining {
                let noted = log.off_thread(move |store| noted(store, shard)).await?;
                let begins = retaining.begin(shard, (before, generation), &noted, &heads);
                settled(submit(&*log.store, begins)?).await?;
            }
            log.fences.admit_from(shard, call, &heads)?;
            salts.push((generation, salt));
            Ok(Opened { generation, salts })
        }
        .boxed()
    }

    fn heads(&self, shard: ShardNo) -> Pending<Vec<ChannelHead>> {
        self.off_thread(move |store| heads(store, shard))
    }

    fn append(&self, batch: AppendBatch) -> Result<Pending<()>, AppendError> {
        self.fences.admit(&batch)?;
        let encoded = encode(&batch);
        let commit = match hand_on(self.retaining.as_ref(), &*self.store, &batch, encoded) {
            Ok(commit) => commit,
            Err(refused) => {
                self.fences.release(batch.shard);
                return Err(match refused {
                    SubmitError::Busy(_) => AppendError::Busy(batch),
                    SubmitError::TooLarge(encoded) => AppendError::TooLarge {
                        bytes: encoded.byte_len(),
                    },
                    SubmitError::Closed(_) => AppendError::Closed,
                });
            }
        };
        let brings = Bringing {
            bytes: batch.byte_len() as u64,
            crowding: batch.crowding,
        };
        let began = self.env.now();
        self.shares.lock().note(began, batch.shard, brings);
        let under_way = self.fences.under_way(&batch);
        let retaining = self.retaining.clone();
        let (shard, generation) = (batch.shard, batch.generation);
        let timed = batch
            .patience()
            .is_zero()
            .then(|| (self.env.clone(), self.shares.clone()));
        Ok(async move {
            let result = settled(commit).await;
            if let Some((env, shares)) = timed {
                shares.lock().wrote(env.now().saturating_sub(began));
            }
            if let (Some(retaining), Ok(())) = (retaining, &result) {
                retaining.settled(shard, generation);
            }
            under_way.settle(result.is_ok());
            result
        }
        .boxed())
    }

    fn share(&self, shard: ShardNo) -> Option<Share> {
        self.shares.lock().of(shard)
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

    fn is_limited(&self) -> bool {
        self.retaining.is_some()
    }

    fn retain(&self, shard: ShardNo, generation: u32, now_ms: u64) -> Option<Pending<u64>> {
        let retaining = self.retaining.as_ref()?;
        Some(retaining.retain((&self.env, &self.store), shard, generation, now_ms))
    }

    fn discard(&self, shard: ShardNo) -> Pending<()> {
        self.fences.shut(shard);
        let mut batch = Batch::new();
        let (from, to) = keys::shard_range(shard);
        for family in [ENTRY, HEAD, FIRST, MARK, ABOUT] {
            batch.delete_range(family, &from, &to);
        }
        // Behind whatever an earlier generation had queued.
        let commit = match &self.retaining {
            Some(retaining) => retaining.discard(&*self.store, shard, batch),
            None => submit(&*self.store, batch),
        };
        async move { settled(commit?).await }.boxed()
    }
}
