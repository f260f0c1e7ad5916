//! Batches on their way to the store.

use std::collections::BTreeMap;

use pqcnet_store::{Batch, Commit, Store, SubmitError, WriteError};

use crate::batch::NO_PRODUCER;
use crate::keys::{self, ABOUT, ENTRY, FIRST, HEAD, MARK};
use crate::{AppendBatch, LogError};

pub(crate) fn submit(store: &dyn Store, batch: Batch) -> Result<Commit, LogError> {
    store.submit(batch).map_err(|refused| match refused {
        SubmitError::Busy(_) => LogError::Busy,
        SubmitError::TooLarge(_) | SubmitError::Closed(_) => LogError::Closed,
    })
}

pub(crate) async fn settled(commit: Commit) -> Result<(), LogError> {
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
pub(crate) fn encode(batch: &AppendBatch) -> Batch {
    // Per entry its key and bytes; per run a head and a mark or two.
    let bytes = batch.byte_len() + batch.len() * 42 + batch.runs.len() * 160;
    let mut out = Batch::with_capacity(batch.len() + batch.runs.len() * 3, bytes);
    out.may_wait(batch.patience());
    let mut marks = BTreeMap::new();
    let mut start = 0;
    for entry in &batch.entries {
        let channel = &batch.runs[entry.run].channel;
        let key = keys::numbered(batch.shard, channel, entry.offset);
        out.put(ENTRY, &key, &batch.buffer[start..entry.end]);
        start = entry.end;
        if (entry.epoch, entry.sequence) != NO_PRODUCER {
            marks.insert((entry.run, entry.epoch), (entry.sequence, entry.offset));
        }
    }
    for run in &batch.runs {
        let key = keys::channel(batch.shard, &run.channel);
        if run.skips {
            let from = keys::numbered(batch.shard, &run.channel, 0);
            let to = keys::numbered(batch.shard, &run.channel, run.first);
            out.delete_range(ENTRY, &from, &to);
            out.put(FIRST, &key, &keys::value([run.first]));
        }
        let head = [run.next - 1, run.forgotten_epoch, run.bytes, run.newest_ms];
        out.put(HEAD, &key, &keys::value(head));
        for epoch in &run.forget {
            out.delete(MARK, &keys::numbered(batch.shard, &run.channel, *epoch));
        }
        for mark in &run.marks {
            let key = keys::numbered(batch.shard, &run.channel, mark.epoch);
            out.put(MARK, &key, &keys::value([mark.sequence, mark.offset]));
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
