//! What a shard's owner shows to the next one, which copies it (see [`moving`](crate::core::moving)).

use std::ops::Bound;

use bytes::Bytes;
use pqcnet_log::{ChannelId, Entries};
use pqcnet_messages::Refusal;
use pqcnet_messages::moving::{ChannelFacts, Run, ShardSurvey, Stretch};

use super::{Effect, Phase, Shard};
use crate::core::channel::ChannelState;
use crate::core::delivery::{Delivered, Problem};
use crate::core::groups::{self, StoredGroup};
use crate::core::moving::{page_is_full, shard_digest};

impl<T> Shard<T> {
    /// What is durable of the channels above `after`, a page of it.
    pub fn survey(&self, after: Option<[u8; 32]>) -> Result<ShardSurvey, Refusal> {
        let Phase::Ready { generation } = self.phase else {
            return Err(Refusal::Unavailable);
        };
        let mut survey = ShardSurvey {
            generation,
            channels: Vec::new(),
            more: false,
        };
        let above = after.map_or(Bound::Unbounded, |id| Bound::Excluded(ChannelId(id)));
        let mut bytes = 0;
        for (id, state) in self.channels.range((above, Bound::Unbounded)) {
            if !state.on_disk {
                continue;
            }
            if page_is_full(survey.channels.len(), bytes) {
                survey.more = true;
                break;
            }
            // One whose about record does not open can not be told to anybody.
            let facts = facts(state, &self.groups.stored(id)).ok_or(Refusal::Storage)?;
            bytes += 256 + facts.readers.len() * 32 + facts.marks.len() * 24;
            bytes += facts.groups.len();
            survey.channels.push(facts);
        }
        Ok(survey)
    }

    /// Digest of all that is stored; good when nothing is on its way. `None` while that is not known, or not to be told.
    pub fn digest(&self) -> Option<[u8; 32]> {
        if !matches!(self.phase, Phase::Ready { .. }) || !self.is_settled() {
            return None;
        }
        let stored = self.channels.iter().filter(|(_, state)| state.on_disk);
        let all: Option<Vec<_>> = stored
            .map(|(id, state)| Some((id, facts(state, &self.groups.stored(id))?)))
            .collect();
        Some(shard_digest(all?.into_iter()))
    }

    /// Entries as read from the log for a stretch, in clear.
    pub fn in_clear(&mut self, stretch: &Stretch, mut entries: Entries) -> Result<Run, Refusal> {
        let channel = ChannelId(stretch.channel);
        let items = std::mem::take(&mut entries.items);
        let wanted = items
            .into_iter()
            .take_while(|(offset, _)| *offset <= stretch.up_to);
        let mut run = Run {
            first: stretch.up_to + 1,
            texts: Vec::new(),
        };
        for (offset, place) in wanted {
            if run.texts.is_empty() {
                run.first = offset;
            }
            let sealed = &mut entries.buffer[place];
            let text = match self.keys.open(&channel, offset, sealed) {
                Ok(text) => Bytes::copy_from_slice(&sealed[text]),
                Err(error) => {
                    let shard = self.shard;
                    let problem = Problem::Sealed {
                        shard,
                        channel,
                        offset,
                        error,
                    };
                    let problem = Effect::Deliver(Delivered::Problem(problem));
                    self.effects.push_back(problem);
                    return Err(Refusal::Storage);
                }
            };
            run.texts.push(text);
        }
        Ok(run)
    }
}

fn facts(state: &ChannelState, stored: &[StoredGroup]) -> Option<ChannelFacts> {
    let about = state.about.as_ref()?;
    Some(ChannelFacts {
        channel: about.channel.clone(),
        readers: about.readers.clone(),
        head: state.durable.head,
        bytes: state.durable.bytes,
        newest_ms: state.durable.newest_ms,
        forgotten_epoch: state.producers.forgotten(),
        marks: state.producers.marks(),
        groups: groups::encode(stored).into(),
    })
}
