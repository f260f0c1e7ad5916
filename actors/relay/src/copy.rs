//! Copies a shard from the relayer that has it into this one's log, while that one serves on but for the last of it.
//!
//! Rules: [`crate::core::moving`]. Spec: docs/spec/relay.md, "Owners". Run by: [`Holder`](crate::Holder), one at a time. Every append is
//! synced and read back before the next is asked for; a copy that ends early is gone on with by the next one.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use pqcnet_actor::{AskError, Env, Ref};
use pqcnet_crypto::{NodeId, StorageMasterKey};
use pqcnet_log::{
    AppendBatch, AppendError, Base, ChannelId, Letter, LetterKeys, LogError, ReadRequest, Salt,
    ShardLog, ShardNo,
};
use pqcnet_messages::moving::{FenceShard, Mark, ReadShard, Run, ShardHeld, Stretch, SurveyShard};
use pqcnet_messages::relay::ReleaseShard;
use pqcnet_messages::{Refusal, ShardId};

use crate::core::channel::About;
use crate::core::moving::{
    Copied, CopyFault, Copying, Next, Piece, batch_of, digest, shard_digest,
};
use crate::core::seal::ShardKeys;

/// A page, a chunk or a fence is answered within this, or the copy ends.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Before something that was too busy is asked again, and how often it is.
const BUSY: (Duration, u32) = (Duration::from_millis(20), 500);

/// Another relayer, over a link that lasts as long as this.
pub struct Counterpart {
    /// Releases shards.
    pub release: Ref<ReleaseShard>,
    /// Tells what is stored.
    pub survey: Ref<SurveyShard>,
    /// Gives entries.
    pub read: Ref<ReadShard>,
    /// Lets nothing more be stored.
    pub fence: Ref<FenceShard>,
    /// Says what it has.
    pub held: Ref<ShardHeld>,
    /// Closes the link when it is dropped.
    pub link: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Counterpart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counterpart").finish_non_exhaustive()
    }
}

/// Reaches another relayer. An error is a reason for the log.
pub type Reach =
    Arc<dyn Fn(NodeId) -> BoxFuture<'static, Result<Counterpart, String>> + Send + Sync>;

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The owner refuses.
    #[error("the owner refuses: {0}")]
    Refused(Refusal),
    /// The owner can not be asked.
    #[error("the owner does not answer: {0}")]
    Unanswered(#[from] AskError),
    /// What it shows can not be copied.
    #[error(transparent)]
    Fault(#[from] CopyFault),
    /// This relayer's log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// This relayer's log takes no more.
    #[error("the log does not take a copy: {0}")]
    Append(String),
}

/// What a copy is made into.
#[derive(Clone)]
pub struct Place {
    /// Where it is stored.
    pub log: Arc<dyn ShardLog>,
    /// The root of its sealing keys.
    pub storage_key: Arc<StorageMasterKey>,
}

pub(crate) struct Copy<'a> {
    pub(crate) env: &'a Env,
    pub(crate) place: &'a Place,
    pub(crate) from: &'a Counterpart,
    pub(crate) shard: ShardId,
    pub(crate) map_version: u64,
}

impl Copy<'_> {
    /// Makes it; returns its digest and how many records it copied. `salt` is random.
    pub(crate) async fn run(&self, salt: Salt) -> Result<([u8; 32], u64), CopyError> {
        // Generations here go on above those of the owner: epochs of producers rise with them.
        let floor = self.survey(None).await?.generation;
        let log = &self.place.log;
        let opened = log.open_above(self.number(), salt, floor).await?;
        let mut keys = ShardKeys::new(self.place.storage_key.expose(), self.number());
        keys.begin(opened.generation, &opened.salts);
        let own = self.stored(&mut keys).await?;
        let mut copying = Copying::new(own, opened.generation);
        let mut brought = LetterKeys::new();
        loop {
            match copying.turn() {
                Next::Survey(after) => copying.surveyed(self.survey(after).await?)?,
                Next::Read(stretches) => {
                    let entries = self.read(stretches.clone(), false).await?;
                    let told = entries.digest;
                    let pieces = copying.entries(entries)?;
                    let batch = batch_of(&pieces, &mut keys, self.number(), opened.generation);
                    self.append(batch).await?;
                    self.read_back(&mut keys, &stretches, &pieces, told).await?;
                    copying.stored(pieces);
                }
                Next::Store(pieces) => {
                    let batch = batch_of(&pieces, &mut keys, self.number(), opened.generation);
                    self.append(batch).await?;
                    copying.stored(pieces);
                }
                Next::Fence => {
                    // Most of them while the owner serves on.
                    self.bring_letters(&mut keys, &mut brought).await?;
                    self.fence().await?;
                    copying.fenced();
                }
                Next::Done => break,
            }
        }
        self.bring_letters(&mut keys, &mut brought).await?;
        // As it is on the disk, and not as it is believed to be.
        let own = self.stored(&mut keys).await?;
        let facts = own
            .iter()
            .filter_map(|(id, copied)| Some((id, copied.facts()?)));
        Ok((shard_digest(facts), copying.records()))
    }

    fn number(&self) -> ShardNo {
        ShardNo(self.shard.0)
    }

    // ---- the owner ----

    async fn survey(
        &self,
        after: Option<[u8; 32]>,
    ) -> Result<pqcnet_messages::moving::ShardSurvey, CopyError> {
        let request = || SurveyShard {
            shard: self.shard,
            map_version: self.map_version,
            after,
        };
        self.ask(&self.from.survey, request).await
    }

    async fn read(
        &self,
        stretches: Vec<Stretch>,
        letters: bool,
    ) -> Result<pqcnet_messages::moving::ShardEntries, CopyError> {
        let request = || ReadShard {
            shard: self.shard,
            map_version: self.map_version,
            stretches: stretches.clone(),
            letters,
        };
        self.ask(&self.from.read, request).await
    }

    async fn fence(&self) -> Result<(), CopyError> {
        let request = || FenceShard {
            shard: self.shard,
            map_version: self.map_version,
        };
        self.ask(&self.from.fence, request).await
    }

    async fn ask<M, T>(&self, to: &Ref<M>, request: impl Fn() -> M) -> Result<T, CopyError>
    where
        M: pqcnet_actor::Message<Reply = Result<T, Refusal>>,
    {
        for _ in 0..BUSY.1 {
            match to.ask(request(), ANSWERED_WITHIN).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Refusal::Busy)) | Err(AskError::Busy) => self.env.sleep(BUSY.0).await,
                Ok(Err(refusal)) => return Err(CopyError::Refused(refusal)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(CopyError::Refused(Refusal::Busy))
    }

    // ---- what groups put aside ----

    /// Of every record that a group of this copy put aside there is a copy here, where this log has such: from the log, or where its
    /// owner has no more of it, from that one's. What nobody has any more stays listed without a payload.
    async fn bring_letters(
        &self,
        keys: &mut ShardKeys,
        brought: &mut LetterKeys,
    ) -> Result<(), CopyError> {
        let log = &self.place.log;
        if !log.keeps_letters() {
            return Ok(());
        }
        let listed = listed(&self.stored(keys).await?);
        if listed == *brought {
            return Ok(());
        }
        let there = log.letters_there(self.number(), listed.clone()).await?;
        for (channel, offset) in listed.difference(&there).copied() {
            if self.has(channel, offset).await? {
                log.keep_letter(self.number(), channel, offset).await?;
            } else if let Some(text) = self.letter(channel, offset).await? {
                let mut sealed = Vec::new();
                keys.seal(&channel, offset, [&text[..], &[]], &mut sealed);
                let letter = Letter {
                    channel,
                    offset,
                    sealed: sealed.into(),
                };
                log.bring_letter(self.number(), letter).await?;
            }
        }
        *brought = listed;
        Ok(())
    }

    /// The owner's copy of a record that its log has no more. A release before this one knows of none.
    async fn letter(&self, channel: ChannelId, offset: u64) -> Result<Option<Bytes>, CopyError> {
        let stretch = Stretch {
            channel: channel.0,
            after: offset.saturating_sub(1),
            up_to: offset,
        };
        let mut entries = self.read(vec![stretch], true).await?;
        if digest(&[stretch], &entries.runs) != entries.digest {
            return Err(CopyFault::Digest.into());
        }
        let run = entries.runs.pop().filter(|run| run.first == offset);
        Ok(run.and_then(|mut run| run.texts.pop()))
    }

    async fn has(&self, channel: ChannelId, offset: u64) -> Result<bool, CopyError> {
        let request = ReadRequest {
            shard: self.number(),
            channel,
            after: offset.saturating_sub(1),
            max_records: 1,
            max_bytes: 1,
        };
        let found = self.found(request).await?;
        Ok(found.items.first().is_some_and(|(at, _)| *at == offset))
    }

    // ---- this relayer's log ----

    async fn append(&self, mut batch: AppendBatch) -> Result<(), CopyError> {
        for _ in 0..BUSY.1 {
            batch = match self.place.log.append(batch) {
                Ok(appending) => return Ok(appending.await?),
                Err(AppendError::Busy(batch)) => batch,
                Err(error) => return Err(CopyError::Append(error.to_string())),
            };
            self.env.sleep(BUSY.0).await;
        }
        Err(LogError::Busy.into())
    }

    /// What was appended is what its owner told.
    async fn read_back(
        &self,
        keys: &mut ShardKeys,
        stretches: &[Stretch],
        pieces: &[Piece],
        told: [u8; 32],
    ) -> Result<(), CopyError> {
        let mut runs = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let mut run = Run {
                first: piece.first(),
                texts: Vec::new(),
            };
            while run.texts.len() < piece.texts.len() {
                let mut entries = self.entries(piece, run.texts.len()).await?;
                let items = std::mem::take(&mut entries.items);
                if items.is_empty() {
                    return Err(CopyFault::Digest.into());
                }
                for (offset, place) in items {
                    let sealed = &mut entries.buffer[place];
                    let opened = keys.open(&piece.channel, offset, sealed);
                    let text = opened.map_err(|_| CopyFault::Digest)?;
                    run.texts.push(Bytes::copy_from_slice(&sealed[text]));
                }
            }
            runs.push(run);
        }
        if digest(stretches, &runs) == told {
            Ok(())
        } else {
            Err(CopyFault::Digest.into())
        }
    }

    async fn entries(&self, piece: &Piece, have: usize) -> Result<pqcnet_log::Entries, CopyError> {
        let request = ReadRequest {
            shard: self.number(),
            channel: piece.channel,
            after: piece.base.head + have as u64,
            max_records: piece.texts.len() - have,
            max_bytes: usize::MAX,
        };
        self.found(request).await
    }

    async fn found(&self, request: ReadRequest) -> Result<pqcnet_log::Entries, CopyError> {
        for _ in 0..BUSY.1 {
            match self.place.log.read(request).await {
                Err(LogError::Busy) => self.env.sleep(BUSY.0).await,
                read => return Ok(read?),
            }
        }
        Err(LogError::Busy.into())
    }

    /// What is on the disk.
    async fn stored(&self, keys: &mut ShardKeys) -> Result<BTreeMap<ChannelId, Copied>, CopyError> {
        let mut own = BTreeMap::new();
        for head in self.place.log.heads(self.number()).await? {
            let mut sealed = head.about.as_deref().unwrap_or_default().to_vec();
            let opened = keys.open(&head.channel, 0, &mut sealed).ok();
            let marks = head.producers.iter().map(|mark| Mark {
                epoch: mark.epoch,
                sequence: mark.sequence,
                offset: mark.offset,
            });
            let copied = Copied {
                base: Base {
                    head: head.head,
                    bytes: head.bytes,
                    forgotten_epoch: head.forgotten_epoch,
                    newest_ms: head.newest_ms,
                },
                about: opened.and_then(|text| About::decode(&sealed[text])),
                marks: marks.collect(),
            };
            own.insert(head.channel, copied);
        }
        Ok(own)
    }
}

/// Every record that a group put aside, by what is on the disk.
fn listed(own: &BTreeMap<ChannelId, Copied>) -> LetterKeys {
    let abouts = own
        .iter()
        .filter_map(|(id, own)| Some((id, own.about.as_ref()?)));
    let groups = abouts.flat_map(|(id, about)| about.groups.iter().map(move |group| (id, group)));
    let letters = groups.flat_map(|(id, group)| {
        let offsets = group.letters.iter().map(|letter| letter.offset);
        offsets.map(move |offset| (*id, offset))
    });
    letters.collect()
}
