//! A shard with records on its way to its next owner, as the next owner sees it. Spec: docs/spec/relay.md, "Owners".
//!
//! ```text
//!   survey, a page at a time ─▶ channels that differ ─▶ read what is missing ─▶ append, synced ─▶ … the pass is over
//!   passes go on while the owner serves, until one copies little ─▶ fence ─▶ one more ─▶ done: the owner is shown the digest
//! ```
//!
//! The copy is the beginning of what the owner has, channel by channel, at any time: so it is resumed from what is on the disk.
//! Producers' marks and a channel's numbers are set when its entries are there.

mod parts;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use pqcnet_crypto::sha256;
use pqcnet_log::{AppendBatch, Base, ChannelId, ProducerMark, ShardNo};
use pqcnet_messages::moving::{
    ChannelFacts, MAX_STRETCHES, MAX_SURVEYED, Mark, Run, ShardEntries, ShardSurvey, Stretch,
};

use super::channel::{About, channel_id, sealed_about};
use super::groups;
use super::seal::{OVERHEAD, ShardKeys};
pub use parts::{Copied, CopyFault, Next, Piece};

/// A pass that copies no more than this is followed by the fence: as much as a shard stores while it settles.
const NEAR_RECORDS: u64 = 1024;
/// After so many passes the shard is fenced all the same: what is stored outruns the copy.
const MAX_PASSES: u32 = 32;

/// A copy that is being made.
pub struct Copying {
    own: BTreeMap<ChannelId, Copied>,
    generation: u32,
    /// Channels that differ, of the page that was surveyed last.
    todo: VecDeque<(ChannelId, ChannelFacts)>,
    after: Option<ChannelId>,
    listed: bool,
    fenced: bool,
    passes: u32,
    /// Records copied in this pass, and in all.
    copied: (u64, u64),
}

impl Copying {
    /// Goes on with what is on the disk, where new entries are stored under `generation`.
    pub fn new(own: BTreeMap<ChannelId, Copied>, generation: u32) -> Copying {
        Copying {
            own,
            generation,
            todo: VecDeque::new(),
            after: None,
            listed: false,
            fenced: false,
            passes: 1,
            copied: (0, 0),
        }
    }

    /// Records copied so far.
    pub fn records(&self) -> u64 {
        self.copied.0 + self.copied.1
    }

    /// What to do.
    pub fn turn(&mut self) -> Next {
        let stretches = self.stretches();
        if !stretches.is_empty() {
            return Next::Read(stretches);
        }
        if !self.todo.is_empty() {
            let bare = self
                .todo
                .iter()
                .take_while(|(id, facts)| self.head(id) == facts.head);
            return Next::Store(
                bare.map(|(id, facts)| self.piece(*id, facts, None))
                    .collect(),
            );
        }
        if !self.listed {
            return Next::Survey(self.after.map(|id| id.0));
        }
        if self.fenced {
            return Next::Done;
        }
        if self.copied.0 <= NEAR_RECORDS || self.passes >= MAX_PASSES {
            return Next::Fence;
        }
        self.begin_pass();
        Next::Survey(None)
    }

    fn begin_pass(&mut self) {
        self.passes += 1;
        self.copied = (0, self.records());
        self.after = None;
        self.listed = false;
    }

    fn head(&self, id: &ChannelId) -> u64 {
        self.own.get(id).map_or(0, |own| own.base.head)
    }

    /// What the first channels that differ have more entries of.
    fn stretches(&self) -> Vec<Stretch> {
        let todo = self.todo.iter().take(MAX_STRETCHES);
        let more = todo.map_while(|(id, facts)| {
            let after = self.head(id);
            (after < facts.head).then_some(Stretch {
                channel: id.0,
                after,
                up_to: facts.head,
            })
        });
        more.collect()
    }

    /// A page of channels.
    pub fn surveyed(&mut self, page: ShardSurvey) -> Result<(), CopyFault> {
        if page.generation >= self.generation {
            let (theirs, own) = (page.generation, self.generation);
            return Err(CopyFault::Generation { theirs, own });
        }
        let mut last = self.after;
        for facts in page.channels {
            let id = channel_id(&facts.channel);
            if last.is_some_and(|last| last >= id) {
                return Err(CopyFault::Order);
            }
            self.nothing_between(last, Some(id))?;
            last = Some(id);
            if self.head(&id) > facts.head {
                return Err(CopyFault::Ahead { channel: id });
            }
            if self.own.get(&id).and_then(Copied::facts).as_ref() != Some(&facts) {
                self.todo.push_back((id, facts));
            }
        }
        self.after = last;
        if !page.more {
            self.nothing_between(last, None)?;
            self.listed = true;
        }
        Ok(())
    }

    /// Every channel that is stored here its owner has too.
    fn nothing_between(
        &self,
        above: Option<ChannelId>,
        below: Option<ChannelId>,
    ) -> Result<(), CopyFault> {
        let above = above.map_or(Bound::Unbounded, Bound::Excluded);
        let below = below.map_or(Bound::Unbounded, Bound::Excluded);
        match self.own.range((above, below)).next() {
            Some((channel, _)) => Err(CopyFault::Ahead { channel: *channel }),
            None => Ok(()),
        }
    }

    /// The answer to [`Next::Read`]: what to append of it.
    pub fn entries(&self, entries: ShardEntries) -> Result<Vec<Piece>, CopyFault> {
        let stretches = self.stretches();
        if digest(&stretches, &entries.runs) != entries.digest {
            return Err(CopyFault::Digest);
        }
        let mut pieces = Vec::with_capacity(entries.runs.len());
        let mut whole = true;
        let missing = |stretch: &Stretch| CopyFault::Entries {
            channel: ChannelId(stretch.channel),
            expected: stretch.after + 1,
        };
        for ((stretch, (id, facts)), run) in stretches.iter().zip(&self.todo).zip(entries.runs) {
            let end = run.first.saturating_add(run.texts.len() as u64);
            let nothing = run.texts.is_empty() && run.first <= stretch.up_to;
            if !whole || run.first <= stretch.after || end > stretch.up_to + 1 || nothing {
                return Err(missing(stretch));
            }
            whole = end == stretch.up_to + 1;
            pieces.push(self.piece(*id, facts, Some(run)));
        }
        match (pieces.is_empty(), stretches.first()) {
            (true, Some(first)) => Err(missing(first)),
            (true, None) | (false, _) => Ok(pieces),
        }
    }

    fn piece(&self, id: ChannelId, facts: &ChannelFacts, run: Option<Run>) -> Piece {
        let own = self.own.get(&id);
        let mut base = own.map_or_else(Base::default, |own| own.base);
        let (first, texts) = run.map_or((base.head + 1, Vec::new()), |run| (run.first, run.texts));
        let skips = first > base.head + 1;
        base.head = first - 1;
        let about = About {
            channel: facts.channel.clone(),
            readers: facts.readers.clone(),
            // What makes no sense here is not what its owner has: the digests will differ.
            groups: groups::decode(&facts.groups).unwrap_or_default(),
        };
        let known = own.and_then(|own| own.about.as_ref()) == Some(&about);
        let settles = (base.head + texts.len() as u64 == facts.head).then(|| Copied {
            base: Base {
                head: facts.head,
                bytes: facts.bytes,
                forgotten_epoch: facts.forgotten_epoch,
                newest_ms: facts.newest_ms,
            },
            about: Some(about.clone()),
            marks: facts.marks.clone(),
        });
        let mut drops = Vec::new();
        if let (Some(own), Some(after)) = (own, &settles) {
            let kept = |epoch: u64| after.marks.iter().any(|mark| mark.epoch == epoch);
            let marks = own.marks.iter().map(|mark| mark.epoch);
            drops.extend(marks.filter(|epoch| !kept(*epoch)));
        }
        Piece {
            channel: id,
            base,
            skips,
            texts,
            about: (!known).then_some(about),
            drops,
            settles,
        }
    }

    /// They are on the disk.
    pub fn stored(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            self.copied.0 += piece.texts.len() as u64;
            let head = piece.head();
            let own = self.own.entry(piece.channel).or_default();
            if let Some(settled) = piece.settles {
                *own = settled;
                self.todo.pop_front();
                continue;
            }
            let longer = |text: &Bytes| (text.len() + OVERHEAD) as u64;
            own.base.head = head;
            own.base.bytes += piece.texts.iter().map(longer).sum::<u64>();
            own.base.newest_ms = piece
                .texts
                .last()
                .map_or(own.base.newest_ms, |text| at_ms(text));
            own.about = piece.about.or(own.about.take());
        }
    }

    /// The owner stores nothing more.
    pub fn fenced(&mut self) {
        self.fenced = true;
        self.begin_pass();
    }
}

/// Whether a page of a survey is full.
pub fn page_is_full(channels: usize, bytes: usize) -> bool {
    const PAGE_BYTES: usize = 512 * 1024;
    channels >= MAX_SURVEYED || bytes >= PAGE_BYTES
}

/// The time that a text begins with.
fn at_ms(text: &[u8]) -> u64 {
    text.first_chunk().map_or(0, |at| u64::from_be_bytes(*at))
}

/// The pieces as one append.
pub fn batch_of(
    pieces: &[Piece],
    keys: &mut ShardKeys,
    shard: ShardNo,
    generation: u32,
) -> AppendBatch {
    let mut batch = AppendBatch::new(shard, generation);
    for piece in pieces {
        let id = piece.channel;
        let slot = batch.channel(id, piece.base);
        if piece.skips {
            batch.skip_to_base(slot);
        }
        for text in &piece.texts {
            batch.push_copy(slot, at_ms(text), |offset, out| {
                keys.seal(&id, offset, [&text[..], &[]], out);
            });
        }
        if let Some(about) = &piece.about {
            batch.set_about(slot, sealed_about(keys, &id, about));
        }
        if let Some(settled) = &piece.settles {
            for epoch in &piece.drops {
                batch.forget(slot, *epoch);
            }
            for mark in &settled.marks {
                batch.mark(slot, mark_of(mark));
            }
            batch.settle_as(slot, settled.base);
        }
    }
    batch
}

fn mark_of(mark: &Mark) -> ProducerMark {
    ProducerMark {
        epoch: mark.epoch,
        sequence: mark.sequence,
        offset: mark.offset,
    }
}

/// Over the entries of one answer: SHA-256 of the last one ‖ channel ‖ first ‖ number for each run, then of the last one ‖ text
/// for each text.
pub fn digest(stretches: &[Stretch], runs: &[Run]) -> [u8; 32] {
    let mut sum = [0; 32];
    for (stretch, run) in stretches.iter().zip(runs) {
        let (first, count) = (
            run.first.to_be_bytes(),
            (run.texts.len() as u64).to_be_bytes(),
        );
        sum = sha256(&[&sum, &stretch.channel, &first, &count]);
        for text in &run.texts {
            sum = sha256(&[&sum, text]);
        }
    }
    sum
}

/// Over all that is stored of a shard but its entries, channels ascending: SHA-256 of the last one ‖ head ‖ bytes ‖ newest ‖ forgotten
/// ‖ about ‖ marks, for each. Two stores with the same have the same number of entries in each channel.
pub fn shard_digest<'a>(channels: impl Iterator<Item = (&'a ChannelId, ChannelFacts)>) -> [u8; 32] {
    let mut sum = [0; 32];
    for (id, facts) in channels {
        let numbers = [
            facts.head,
            facts.bytes,
            facts.newest_ms,
            facts.forgotten_epoch,
        ];
        let marks = (facts.marks.iter()).flat_map(|mark| [mark.epoch, mark.sequence, mark.offset]);
        let words: Vec<u8> = numbers
            .into_iter()
            .chain(marks)
            .flat_map(u64::to_be_bytes)
            .collect();
        let about = About {
            channel: facts.channel,
            readers: facts.readers,
            groups: groups::decode(&facts.groups).unwrap_or_default(),
        };
        sum = sha256(&[&sum, &id.0, &about.encode(), &words]);
    }
    sum
}

#[cfg(test)]
mod tests;
