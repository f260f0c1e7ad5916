//! Records that groups put aside, where the log keeps copies of them apart: one thing after the other, so that what the list names and what is copied
//! never meet half way. Spec: docs/spec/relay.md §10.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use pqcnet_actor::{Cx, Promise};
use pqcnet_log::{
    ChannelId, Entries, Letter, LetterKeys, LogError, ReadRequest, ShardLog, ShardNo,
};
use pqcnet_messages::edge::DeadLetters;
use pqcnet_messages::moving::{MAX_TEXT_BYTES, ReadShard, Stretch};
use pqcnet_messages::relay_local::{DescribeDead, PutAside};
use pqcnet_messages::{MAX_BATCH_BYTES, Record, Refusal};

use super::ShardWorker;
use super::answers::Waiting;
use crate::core::groups::GroupKey;
use crate::core::seal::ShardKeys;
use crate::core::subscription::SubscriptionKey;

/// That wait; each takes some round trips to the broker.
const WAITING: usize = 64;

/// What waits, and whether something is under way.
#[derive(Default)]
pub(super) struct Letters {
    jobs: VecDeque<Job>,
    busy: bool,
}

enum Job {
    /// A member refused a record.
    ForMember(ChannelId, (SubscriptionKey, u64), Promise<PutAside>),
    /// Its deliveries are used up.
    ForLimit(ChannelId, GroupKey, u64),
    /// A group's list, for which records that are gone from the log are fetched.
    Describe(ChannelId, DeadLetters, Promise<DescribeDead>),
    /// Copies for whoever is to have the shard next.
    Show(Vec<Stretch>, Promise<ReadShard>),
    /// The queue was full: what nobody lists is taken out.
    Sweep,
}

impl ShardWorker {
    pub(super) fn copy_for_member(
        &mut self,
        channel: ChannelId,
        record: (SubscriptionKey, u64),
        to: Promise<PutAside>,
        cx: &mut Cx<Self>,
    ) {
        if self.letters.jobs.len() >= WAITING {
            return to.fulfil(Err(Refusal::Busy));
        }
        let job = Job::ForMember(channel, record, to);
        self.letters.jobs.push_back(job);
        self.next_letter(cx);
    }

    /// Of these there is at most one a group.
    pub(super) fn copy_for_limit(
        &mut self,
        (channel, of, offset): (ChannelId, GroupKey, u64),
        cx: &mut Cx<Self>,
    ) {
        let job = Job::ForLimit(channel, of, offset);
        self.letters.jobs.push_back(job);
        self.next_letter(cx);
    }

    pub(super) fn describe_dead(
        &mut self,
        (channel, forgot): (ChannelId, bool),
        dead: DeadLetters,
        to: Promise<DescribeDead>,
    ) {
        let nothing = dead.letters.is_empty() && !forgot;
        if nothing || !self.log.keeps_letters() {
            return to.fulfil(Ok(dead));
        }
        if self.letters.jobs.len() >= WAITING {
            return to.fulfil(Err(Refusal::Busy));
        }
        let job = Job::Describe(channel, dead, to);
        self.letters.jobs.push_back(job);
    }

    /// Of each stretch the copy of the record that it begins with, where there is one.
    pub(super) fn show_letters(
        &mut self,
        stretches: Vec<Stretch>,
        to: Promise<ReadShard>,
        cx: &mut Cx<Self>,
    ) {
        if self.letters.jobs.len() >= WAITING {
            return to.fulfil(Err(Refusal::Busy));
        }
        self.letters.jobs.push_back(Job::Show(stretches, to));
        self.next_letter(cx);
    }

    /// Goes on with what waits.
    pub(super) fn next_letter(&mut self, cx: &mut Cx<Self>) {
        if self.letters.busy {
            return;
        }
        let Some(job) = self.letters.jobs.pop_front() else {
            return;
        };
        self.letters.busy = true;
        let (log, shard) = (self.log.clone(), self.shard);
        match job {
            Job::ForMember(channel, (key, offset), to) => {
                let copying = log.keep_letter(shard, channel, offset);
                cx.spawn(copying, move |worker, copied, cx| {
                    match worker.copied(copied) {
                        Ok(()) => {
                            let now = (cx.now(), cx.wall_ms());
                            let to = Waiting::Aside(to);
                            worker.core.put_aside(now, key, offset, to);
                        }
                        Err(refusal) => to.fulfil(Err(refusal)),
                    }
                    worker.letter_done(cx);
                });
            }
            Job::ForLimit(channel, of, offset) => {
                let copying = log.keep_letter(shard, channel, offset);
                cx.spawn(copying, move |worker, copied, cx| {
                    let well = worker.copied(copied).is_ok();
                    let now = (cx.now(), cx.wall_ms());
                    worker.core.on_copied(now, channel, (&of, offset), well);
                    worker.letter_done(cx);
                });
            }
            Job::Describe(channel, dead, to) => {
                let (listed, offsets) = (self.core.listed(), offsets(&dead));
                let fetching = async move {
                    let gone = gone(&*log, shard, channel, &offsets).await?;
                    log.sift_letters(shard, listed, gone).await
                };
                cx.spawn(fetching, move |worker, found, cx| {
                    to.fulfil(Ok(worker.with_records(dead, found)));
                    worker.letter_done(cx);
                });
            }
            Job::Show(stretches, to) => {
                let wanted = stretches.iter();
                let wanted = wanted.map(|of| (ChannelId(of.channel), of.after + 1));
                let sifting = log.sift_letters(shard, self.core.listed(), wanted.collect());
                cx.spawn(sifting, move |worker, found, cx| {
                    let read = found.map(|found| as_entries(&stretches, found));
                    to.fulfil(worker.in_clear(&stretches, read));
                    worker.letter_done(cx);
                });
            }
            Job::Sweep => {
                let sifting = log.sift_letters(shard, self.core.listed(), LetterKeys::new());
                cx.spawn(sifting, |worker, sifted, cx| {
                    if let Err(error) = sifted {
                        tracing::warn!(shard = worker.shard.0, %error, "what nobody lists was not taken out");
                    }
                    worker.letter_done(cx);
                });
            }
        }
    }

    fn letter_done(&mut self, cx: &mut Cx<Self>) {
        self.letters.busy = false;
        self.drive(cx);
        self.next_letter(cx);
    }

    fn copied(&mut self, copied: Result<(), LogError>) -> Result<(), Refusal> {
        let Err(error) = copied else {
            return Ok(());
        };
        tracing::warn!(shard = self.shard.0, %error, "a record was not put aside");
        if matches!(error, LogError::Full { .. }) {
            self.letters.jobs.push_back(Job::Sweep);
            return Err(Refusal::Quota);
        }
        Err(Refusal::Unavailable)
    }

    /// The list with those records that were found, as many as fit into an answer.
    fn with_records(
        &self,
        mut dead: DeadLetters,
        found: Result<Vec<Letter>, LogError>,
    ) -> DeadLetters {
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(shard = self.shard.0, %error, "what was put aside is listed without its records");
            Vec::new()
        });
        let mut keys = ShardKeys::new(self.config.storage_key.expose(), self.shard);
        keys.learn(&self.salts);
        let mut bytes = 0;
        for letter in found {
            let mut sealed = letter.sealed.to_vec();
            let text = keys.open(&letter.channel, letter.offset, &mut sealed);
            let text = text.ok().and_then(|text| sealed.get(text));
            let Some((at_ms, payload)) = text.and_then(|text| text.split_first_chunk()) else {
                tracing::error!(
                    shard = self.shard.0,
                    offset = letter.offset,
                    "a copy of what was put aside does not authenticate"
                );
                continue;
            };
            bytes += payload.len();
            if bytes > MAX_BATCH_BYTES {
                break;
            }
            dead.kept.push(Record {
                offset: letter.offset,
                published_at_ms: u64::from_be_bytes(*at_ms),
                payload: payload.to_vec().into(),
            });
        }
        dead
    }
}

/// Copies as if they had been read for these stretches, as many as fit into an answer.
fn as_entries(stretches: &[Stretch], found: Vec<Letter>) -> Vec<Entries> {
    let found: BTreeMap<_, _> = (found.into_iter())
        .map(|letter| ((letter.channel, letter.offset), letter.sealed))
        .collect();
    let (mut read, mut bytes) = (Vec::new(), 0);
    for stretch in stretches {
        let offset = stretch.after + 1;
        let mut entries = Entries::default();
        if let Some(sealed) = found.get(&(ChannelId(stretch.channel), offset)) {
            bytes += sealed.len();
            if bytes > MAX_TEXT_BYTES {
                break;
            }
            entries.items.push((offset, 0..sealed.len()));
            entries.buffer = BytesMut::from(&sealed[..]);
        }
        read.push(entries);
    }
    read
}

fn offsets(dead: &DeadLetters) -> Vec<u64> {
    dead.letters.iter().map(|letter| letter.offset).collect()
}

/// Which of these entries the log no longer has.
async fn gone(
    log: &dyn ShardLog,
    shard: ShardNo,
    channel: ChannelId,
    offsets: &[u64],
) -> Result<LetterKeys, LogError> {
    let mut gone = LetterKeys::new();
    for offset in offsets {
        let request = ReadRequest {
            shard,
            channel,
            after: offset.saturating_sub(1),
            max_records: 1,
            max_bytes: 1,
        };
        let found = log.read(request).await?;
        if found.items.first().is_none_or(|(at, _)| at != offset) {
            gone.insert((channel, *offset));
        }
    }
    Ok(gone)
}
