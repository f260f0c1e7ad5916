//! A shard that was given away goes from its former owner's broker and store.
//!
//! ```text
//!   its writer ends ─▶ "to be deleted", synced ─▶ stream and queue deleted ─▶ the store's part of it deleted, synced
//! ```
//!
//! One that dies in between goes on from what is synced, at the next discard or when the shard is opened again, which waits for it:
//! so a stream is never written that is about to be deleted. What stays is how far writer epochs went, for a stream of the same name
//! begins above them: a late message of the old one's writer counts for nothing there.

use std::sync::Arc;

use pqcnet_store::Batch;
use tokio::sync::{Mutex, oneshot};

use super::BrokerLog;
use super::join::{FIRST_PATIENCE, WRITTEN_DOWN};
use super::keeper::Command;
use super::line::connected;
use super::local::{Life, Standing, put_standing, put_wiped, written};
use super::transport::{BrokerError, in_time, within};
use crate::embedded::write::{settled, submit};
use crate::{LogError, ShardNo};

impl BrokerLog {
    /// Held by whoever opens the shard or discards it.
    pub(super) fn gate(&self, shard: ShardNo) -> Arc<Mutex<()>> {
        self.0.shards.lock().entry(shard).or_default().gate.clone()
    }

    /// Goes through with it; with the gate held, and fenced.
    pub(super) async fn discarded(&self, shard: ShardNo) -> Result<(), LogError> {
        self.end_keeper(shard).await;
        let store = self.0.store.clone();
        let Some(found) = self.off_thread(move |store| written(store, shard)).await? else {
            return Ok(());
        };
        if found.life == Life::Used {
            let doomed = Standing {
                life: Life::Doomed,
                ..found
            };
            let mut batch = Batch::new();
            put_standing(&mut batch, shard, doomed);
            settled(submit(&*store, batch)?).await?;
        }
        self.cleared(shard).await
    }

    /// Goes on with what was begun, if that is so.
    pub(super) async fn cleared(&self, shard: ShardNo) -> Result<(), LogError> {
        let found = self.off_thread(move |store| written(store, shard)).await?;
        let Some(found) = found.filter(|found| found.life == Life::Doomed) else {
            return Ok(());
        };
        // What the shard's lock is on.
        let mut line = self.0.publishing.clone();
        let connection = within(FIRST_PATIENCE, connected(&mut line)).await;
        let connection = connection.map_err(|_| LogError::Busy)?;
        let stream = self.0.settings.stream_as(shard, found.named);
        let (env, there) = (self.0.env.clone(), connection.clone());
        let gone = async {
            connection.delete(&stream).await?;
            env.sleep(WRITTEN_DOWN).await;
            there.has(&stream).await
        };
        // One that died at once may have forgotten it.
        let gone = in_time(gone).await.and_then(|has| {
            let still = BrokerError::Refused("it is there again".to_owned());
            if has { Err(still) } else { Ok(()) }
        });
        if let Err(error) = gone {
            tracing::warn!(shard = shard.0, %stream, %error, "a stream that is of no use any more is not deleted");
            return Err(LogError::Busy);
        }
        let (parked, kept) = {
            let mut parked = self.0.parked.lock();
            let all = std::mem::take(&mut *parked);
            all.into_iter().partition(|reader| reader.shard() == shard)
        };
        *self.0.parked.lock() = kept;
        drop::<std::collections::VecDeque<_>>(parked);
        let mut batch = Batch::new();
        put_wiped(&mut batch, shard, found);
        settled(submit(&*self.0.store, batch)?).await
    }

    /// Nothing more is written by the shard's writer. What it was about to write down is before all that is submitted after this.
    async fn end_keeper(&self, shard: ShardNo) {
        let keeper = self.0.shards.lock().entry(shard).or_default().keeper.take();
        let Some(keeper) = keeper else {
            return;
        };
        let (done, ended) = oneshot::channel();
        if keeper.send(Command::End { done }).await.is_ok() {
            // Whether it says so or is over already.
            ended.await.ok();
        }
    }
}
