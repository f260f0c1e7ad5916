//! Who may append to a shard, and where its channels continue. Every implementation of the log has one of these.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{AppendBatch, AppendError, ChannelHead, ChannelId, LogError, ShardNo};

/// The fences of all shards of a log. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Fences(Arc<Mutex<BTreeMap<ShardNo, Fence>>>);

#[derive(Default)]
struct Fence {
    /// Calls to open so far; only the last of them gets the shard.
    opens: u64,
    generation: u32,
    state: State,
    heads: BTreeMap<ChannelId, u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Opening, or an append failed: nobody may append.
    #[default]
    Shut,
    Idle,
    Appending,
}

impl Fences {
    /// Shuts the shard, before its successor's number is known; returns the number of this call.
    pub(crate) fn shut(&self, shard: ShardNo) -> u64 {
        let mut fences = self.0.lock();
        let fence = fences.entry(shard).or_default();
        fence.state = State::Shut;
        fence.opens += 1;
        fence.opens
    }

    /// The number of the new generation, if no later call shut the shard; `newest` is the highest that is stored.
    pub(crate) fn number(&self, shard: ShardNo, call: u64, newest: u32) -> Result<u32, LogError> {
        let mut fences = self.0.lock();
        let fence = latest(&mut fences, shard, call)?;
        // An open that failed may have stored its number; one abandoned may still be under way.
        fence.generation = fence.generation.max(newest) + 1;
        Ok(fence.generation)
    }

    /// Lets the new generation append behind these heads, if no later call shut the shard.
    pub(crate) fn admit_from(
        &self,
        shard: ShardNo,
        call: u64,
        heads: &[ChannelHead],
    ) -> Result<(), LogError> {
        let mut fences = self.0.lock();
        let fence = latest(&mut fences, shard, call)?;
        fence.heads = heads.iter().map(|h| (h.channel, h.head)).collect();
        fence.state = State::Idle;
        Ok(())
    }

    /// Takes the fence of `batch`'s shard for one append.
    pub(crate) fn admit(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        let (shard, generation) = (batch.shard, batch.generation);
        let fenced = AppendError::Fenced { shard, generation };
        let mut fences = self.0.lock();
        let Some(fence) = fences.get_mut(&shard) else {
            return Err(fenced);
        };
        if fence.generation != generation || fence.state == State::Shut {
            return Err(fenced);
        }
        if fence.state == State::Appending {
            return Err(AppendError::UnderWay { shard });
        }
        for run in &batch.runs {
            let expected = fence.heads.get(&run.channel).map_or(1, |head| head + 1);
            let fits = run.first == expected || (run.skips && run.first > expected);
            if !fits {
                return Err(AppendError::NotNext {
                    shard,
                    channel: run.channel,
                    expected,
                    got: run.first,
                });
            }
        }
        fence.state = State::Appending;
        Ok(())
    }

    /// The append was not taken after all.
    pub(crate) fn release(&self, shard: ShardNo) {
        if let Some(fence) = self.0.lock().get_mut(&shard) {
            fence.state = State::Idle;
        }
    }

    /// The append is under way.
    pub(crate) fn under_way(&self, batch: &AppendBatch) -> UnderWay {
        UnderWay {
            fences: self.clone(),
            shard: batch.shard,
            generation: batch.generation,
            heads: batch.runs.iter().map(|r| (r.channel, r.next - 1)).collect(),
            durable: false,
        }
    }
}

fn latest(
    fences: &mut BTreeMap<ShardNo, Fence>,
    shard: ShardNo,
    call: u64,
) -> Result<&mut Fence, LogError> {
    let fence = fences.entry(shard).or_default();
    if fence.opens == call {
        Ok(fence)
    } else {
        Err(LogError::Superseded { shard })
    }
}

/// Settles the fence once the append's fate is known. Dropped before that, the generation is over.
pub(crate) struct UnderWay {
    fences: Fences,
    shard: ShardNo,
    generation: u32,
    heads: Vec<(ChannelId, u64)>,
    durable: bool,
}

impl UnderWay {
    /// By value, so that the future owns the whole of it and not just a field.
    pub(crate) fn settle(mut self, durable: bool) {
        self.durable = durable;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut fences = self.fences.0.lock();
        let Some(fence) = fences.get_mut(&self.shard) else {
            return;
        };
        // Whoever opens next has shut it already; what this append came to is then in the heads they will read.
        if fence.generation != self.generation || fence.state == State::Shut {
            return;
        }
        if self.durable {
            fence.state = State::Idle;
            fence.heads.extend(self.heads.drain(..));
        } else {
            fence.state = State::Shut;
        }
    }
}
