//! A shard with records on its way to its next owner, as the next owner sees it. Spec: docs/spec/relay.md, "Owners".
//!
//! ```text
//!   survey, a page at a time ─▶ channels that differ ─▶ read what is missing ─▶ append, synced ─▶ … the pass is over
//!   passes go on while the owner serves, until one copies little ─▶ fence ─▶ one more ─▶ done: the owner is shown the digest
//! ```
//!
//! The copy is the beginning of what the owner has, channel by channel, at any time: so it is resumed from what is on the disk.
//! Producers' marks and a channel's numbers are set when its entries are there.

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

/// A pass that copies no more than this is followed by the fence: as much as a shard stores while it settles.
const NEAR_RECORDS: u64 = 1024;
/// After so many passes the shard is fenced all the same: what is stored outruns the copy.
const MAX_PASSES: u32 = 32;

/// What the owner showed can not be copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// This store has something of the shard that its owner has not: it was not copied from there.
    #[error("channel {channel} of the shard is stored here beyond what its owner has")]
    Ahead {
        /// Which channel.
        channel: ChannelId,
    },
    /// The owner's fault: channels out of order.
    #[error("the owner's survey is out of order")]
    Order,
    /// The owner's fault: entries that were not asked for, or none.
    #[error("the owner's entries of channel {channel} do not continue at {expected}")]
    Entries {
        /// Which channel.
        channel: ChannelId,
        /// The next offset.
        expected: u64,
    },
    /// The owner has started anew since: the copy's generation must be above its.
    #[error("the owner is in generation {theirs}, this copy in {own}")]
    Generation {
        /// Its own.
        theirs: u32,
        /// Of the copy.
        own: u32,
    },
    /// What was stored is not what was read.
    #[error("entries that were copied do not have the digest that their owner told")]
    Digest,
}

/// What is on this store's disk of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
    /// Its numbers.
    pub base: Base,
    /// Whose it is and who may read it; `None` when that does not open.
    pub about: Option<About>,
    /// Its producers, ascending by epoch.
    pub marks: Vec<Mark>,
}

impl Copied {
    /// As its owner would tell it.
    pub fn facts(&self) -> Option<ChannelFacts> {
        let about = self.about.as_ref()?;
        Some(ChannelFacts {
            channel: about.channel.clone(),
            readers: about.readers.clone(),
            head: self.base.head,
            bytes: self.base.bytes,
            newest_ms: self.base.newest_ms,
            forgotten_epoch: self.base.forgotten_epoch,
            marks: self.marks.clone(),
            groups: groups::encode(&about.groups).into(),
        })
    }
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a page of channels above this one, then [`Copying::surveyed`].
    Survey(Option<[u8; 32]>),
    /// Ask for these, then [`Copying::entries`].
    Read(Vec<Stretch>),
    /// Append these, then [`Copying::stored`].
    Store(Vec<Piece>),
    /// Ask the owner to store nothing more, then [`Copying::fenced`].
    Fence,
    /// All of it is here.
    Done,
}

/// What one append brings of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which channel.
    pub channel: ChannelId,
    /// Where it stands before.
    pub base: Base,
    /// Entries at or below the base are not kept.
    pub skips: bool,
    /// Entries, each its time and payload.
    pub texts: Vec<Bytes>,
    /// To be stored about it, if that changes.
    pub about: Option<About>,
    /// Marks to be dropped.
    pub drops: Vec<u64>,
    /// Where it stands afterwards, when that is as its owner told.
    pub settles: Option<Copied>,
}

impl Piece {
    /// Offset of the first entry.
    pub fn first(&self) -> u64 {
        self.base.head + 1
    }

    fn head(&self) -> u64 {
        self.base.head + self.texts.len() as u64
    }
}

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
mod tests {
    use pqcnet_crypto::NodeId;
    use pqcnet_messages::{Channel, ChannelName};

    use super::*;

    fn channel(name: &str) -> Channel {
        Channel {
            owner: NodeId::from_bytes([1; 32]),
            name: ChannelName::new(name).unwrap(),
        }
    }

    fn facts(name: &str, head: u64) -> ChannelFacts {
        ChannelFacts {
            channel: channel(name),
            readers: Vec::new(),
            head,
            bytes: head * 50,
            newest_ms: 7,
            forgotten_epoch: 0,
            marks: vec![Mark {
                epoch: 1,
                sequence: head,
                offset: head,
            }],
            groups: Bytes::new(),
        }
    }

    fn page(mut channels: Vec<ChannelFacts>, more: bool) -> ShardSurvey {
        channels.sort_by_key(|facts| channel_id(&facts.channel));
        ShardSurvey {
            generation: 4,
            channels,
            more,
        }
    }

    fn text(number: u64) -> Bytes {
        [7u64.to_be_bytes(), number.to_be_bytes()].concat().into()
    }

    fn answer(stretches: &[Stretch], runs: Vec<Run>) -> ShardEntries {
        let digest = digest(stretches, &runs);
        ShardEntries { runs, digest }
    }

    fn run(first: u64, count: u64) -> Run {
        Run {
            first,
            texts: (first..first + count).map(text).collect(),
        }
    }

    fn copying() -> Copying {
        Copying::new(BTreeMap::new(), 5)
    }

    fn reads(copy: &mut Copying) -> Vec<Stretch> {
        match copy.turn() {
            Next::Read(stretches) => stretches,
            other => panic!("{other:?}"),
        }
    }

    /// Scenario: a channel whose first three entries are trimmed comes in two answers; its facts are stored with the second. A pass that
    /// finds little new is followed by the fence, that by the last pass, and what is there then is what was told.
    #[test]
    fn a_trimmed_channel_is_copied() {
        let mut copy = copying();
        assert_eq!(copy.turn(), Next::Survey(None));
        copy.surveyed(page(vec![facts("a", 9)], false)).unwrap();
        let wanted = reads(&mut copy);
        assert_eq!((wanted[0].after, wanted[0].up_to), (0, 9));
        let pieces = copy.entries(answer(&wanted, vec![run(4, 2)])).unwrap();
        assert_eq!((pieces[0].first(), pieces[0].skips), (4, true));
        assert!(pieces[0].about.is_some() && pieces[0].settles.is_none());
        copy.stored(pieces);
        let wanted = reads(&mut copy);
        assert_eq!((wanted[0].after, wanted[0].up_to), (5, 9));
        let pieces = copy.entries(answer(&wanted, vec![run(6, 4)])).unwrap();
        assert_eq!((pieces[0].first(), pieces[0].skips), (6, false));
        let settled = pieces[0].settles.clone().unwrap();
        assert_eq!(settled.facts(), Some(facts("a", 9)));
        copy.stored(pieces);
        assert_eq!((copy.turn(), copy.records()), (Next::Fence, 6));
        copy.fenced();
        assert_eq!(copy.turn(), Next::Survey(None));
        copy.surveyed(page(vec![facts("a", 9)], false)).unwrap();
        assert_eq!(copy.turn(), Next::Done);
    }

    /// Scenario: only readers and a mark change while a channel's entries stay: that is stored without a read, and the mark that went
    /// is dropped. Nothing is left of a channel that was trimmed to its head.
    #[test]
    fn facts_alone() {
        let mut copy = copying();
        copy.surveyed(page(vec![facts("a", 2)], false)).unwrap();
        let wanted = reads(&mut copy);
        let nothing = Run {
            first: 3,
            texts: Vec::new(),
        };
        let pieces = copy.entries(answer(&wanted, vec![nothing])).unwrap();
        assert_eq!((pieces[0].base.head, pieces[0].skips), (2, true));
        copy.stored(pieces);
        copy.turn();
        copy.fenced();
        let mut changed = facts("a", 2);
        changed.readers = vec![NodeId::from_bytes([2; 32])];
        changed.marks[0].epoch = 2;
        copy.surveyed(page(vec![changed], false)).unwrap();
        let Next::Store(pieces) = copy.turn() else {
            panic!("nothing to store");
        };
        assert_eq!(pieces[0].drops, [1]);
        assert!(pieces[0].about.is_some() && !pieces[0].skips);
        copy.stored(pieces);
        assert_eq!(copy.turn(), Next::Done);
    }

    /// A pass over more than a settling shard stores is followed by another, without a fence.
    #[test]
    fn much_is_surveyed_again() {
        let mut copy = copying();
        copy.surveyed(page(vec![facts("a", 1100)], false)).unwrap();
        let wanted = reads(&mut copy);
        let pieces = copy.entries(answer(&wanted, vec![run(1, 1100)])).unwrap();
        copy.stored(pieces);
        assert_eq!(copy.turn(), Next::Survey(None));
        copy.surveyed(page(vec![facts("a", 1100)], false)).unwrap();
        assert_eq!(copy.turn(), Next::Fence);
    }

    /// Each fault.
    #[test]
    fn what_can_not_be_copied() {
        let id = |name: &str| channel_id(&channel(name));
        let own = |name: &str, head| {
            let copied = Copied {
                base: Base {
                    head,
                    ..Base::default()
                },
                ..Copied::default()
            };
            Copying::new(BTreeMap::from([(id(name), copied)]), 5)
        };
        let ahead = Err(CopyFault::Ahead { channel: id("a") });
        assert_eq!(
            own("a", 3).surveyed(page(vec![facts("a", 2)], false)),
            ahead
        );
        assert_eq!(own("a", 3).surveyed(page(Vec::new(), false)), ahead);
        let mut same = own("a", 3);
        assert_eq!(same.surveyed(page(vec![facts("a", 3)], false)), Ok(()));

        let mut backwards = page(vec![facts("a", 1), facts("b", 1)], false);
        backwards.channels.reverse();
        assert_eq!(copying().surveyed(backwards), Err(CopyFault::Order));

        let (theirs, own) = (5, 5);
        let mut later = page(Vec::new(), false);
        later.generation = theirs;
        let refused = copying().surveyed(later);
        assert_eq!(refused, Err(CopyFault::Generation { theirs, own }));

        let mut copy = copying();
        copy.surveyed(page(vec![facts("a", 5)], false)).unwrap();
        let wanted = reads(&mut copy);
        let expected = 1;
        let channel = id("a");
        let missing = Err(CopyFault::Entries { channel, expected });
        let none = Run {
            first: 2,
            texts: Vec::new(),
        };
        for runs in [Vec::new(), vec![run(0, 2)], vec![run(3, 4)], vec![none]] {
            assert_eq!(copy.entries(answer(&wanted, runs)), missing);
        }
        let mut altered = answer(&wanted, vec![run(1, 2)]);
        altered.runs[0].texts[1] = text(9);
        assert_eq!(copy.entries(altered), Err(CopyFault::Digest));
    }

    /// The digest of a shard is pinned, and differs with each part of what it is over.
    #[test]
    fn the_digest_of_a_shard() {
        let of = |facts: ChannelFacts| {
            let id = channel_id(&facts.channel);
            shard_digest([(&id, facts)].into_iter())
        };
        let plain = of(facts("a", 3));
        assert_eq!(hex::encode(&plain[..8]), "8824d323729ad16c");
        let changes: [fn(&mut ChannelFacts); 7] = [
            |facts| facts.head += 1,
            |facts| facts.bytes += 1,
            |facts| facts.newest_ms += 1,
            |facts| facts.forgotten_epoch += 1,
            |facts| facts.marks[0].sequence -= 1,
            |facts| facts.readers.push(NodeId::from_bytes([3; 32])),
            |facts| facts.channel = channel("b"),
        ];
        for change in changes {
            let mut changed = facts("a", 3);
            change(&mut changed);
            assert_ne!(of(changed), plain);
        }
    }
}
