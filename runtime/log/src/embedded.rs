//! The log in a [`Store`].

pub(crate) mod read;
pub(crate) mod write;

use std::sync::Arc;

use futures::FutureExt as _;
use pqcnet_actor::{Env, OffloadError};
use pqcnet_store::{Batch, Store, SubmitError};

use self::read::{bounds, generations, heads, read};
use self::write::{encode, settled, submit};
use crate::fence::Fences;
use crate::keys::{self, ABOUT, ENTRY, FIRST, GENERATION, HEAD, MARK};
use crate::{
    AppendBatch, AppendError, ChannelHead, ChannelId, Entries, LogError, Opened, Pending,
    ReadRequest, Salt, ShardLog, ShardNo,
};

/// A [`ShardLog`] in a [`Store`] whose schema has [`keys::FAMILIES`].
#[derive(Clone)]
pub struct EmbeddedLog {
    store: Arc<dyn Store>,
    env: Env,
    fences: Fences,
}

impl EmbeddedLog {
    /// A log in `store`. Reads that may be long run on `env`'s pool.
    pub fn new(env: &Env, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            env: env.clone(),
            fences: Fences::default(),
        }
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
            let newest = newest.max(floor);
            let generation = log.fences.number(shard, call, newest)?;
            let mut batch = Batch::new();
            batch.put(GENERATION, &keys::generation(shard, generation), &salt);
            settled(submit(&*log.store, batch)?).await?;
            // Batches settle in order: whatever an earlier generation had queued is on disk or has failed by now.
            let heads = log.heads(shard).await?;
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
        let commit = match self.store.submit(encode(&batch)) {
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
        let under_way = self.fences.under_way(&batch);
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

    fn discard(&self, shard: ShardNo) -> Pending<()> {
        self.fences.shut(shard);
        let mut batch = Batch::new();
        let (from, to) = keys::shard_range(shard);
        for family in [ENTRY, HEAD, FIRST, MARK, ABOUT] {
            batch.delete_range(family, &from, &to);
        }
        // Behind whatever an earlier generation had queued.
        let commit = submit(&*self.store, batch);
        async move { settled(commit?).await }.boxed()
    }
}
