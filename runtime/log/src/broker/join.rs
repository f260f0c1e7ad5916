//! How a writer takes its seat: the lock, a claim, and what the stream says up to that claim.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pqcnet_actor::Env;
use pqcnet_actor::latest;
use pqcnet_store::{Batch, Store};
use rand_core::Rng as _;

use super::bundle;
use super::line::{Line, connected};
use super::local::{Life, Standing, known_shard, put_facts, put_places, put_standing};
use super::names::Named;
use super::record::{Facts, Record};
use super::transport::{
    BrokerError, BrokerSettings, Confirming, Message, Outgoing, Start, Writer, hand_over, within,
};
use crate::core::fold::{Fold, Stamp, Took};
use crate::embedded::write::{settled, submit};
use crate::keys::{self, GENERATION};
use crate::restored::AHEAD;
use crate::{LogError, ShardNo};

/// Records that are read and not yet written down: more than a writer can have on its way when it dies, for those may turn
/// out to be void.
const UNCERTAIN: usize = 1024;

/// A broker that has just started takes what its streams do not have yet, and never answers: who tries again is served. So patience is
/// short at first, and doubles with each attempt that had no answer, for one that is merely slow.
pub(crate) const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// A broker notes that it has a stream, or has it no more, half a second after it said so, and one that dies before that has none, whatever it confirmed. A
/// shard that comes from elsewhere is still whole there: so its stream may be made, and noted, before anything is in it.
pub(crate) const WRITTEN_DOWN: Duration = Duration::from_secs(1);

/// What a writer needs to join.
#[derive(Clone)]
pub(crate) struct Joining {
    pub env: Env,
    pub settings: Arc<BrokerSettings>,
    pub store: Arc<dyn Store>,
    pub shard: ShardNo,
    /// The stream's name.
    pub named: Named,
    /// Writer epochs of a stream of this name that was deleted.
    pub above: u64,
    /// How long each answer is waited for.
    pub patience: Duration,
    pub publishing: latest::Receiver<Line>,
    pub reading: latest::Receiver<Line>,
}

/// Why a writer has no seat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// With the broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// With the local store.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Somebody else claimed this writer epoch, and wrote nothing under it: claim a higher one.
    #[error("somebody else claimed writer epoch {epoch}")]
    Overtaken {
        /// Their writer epoch.
        epoch: u64,
    },
}

/// A writer that holds its shard's lock and whose claim stands.
pub(crate) struct Seat {
    pub writer: Arc<dyn Writer>,
    pub epoch: u64,
    /// Where the claim is in the stream.
    pub position: u64,
}

impl Seat {
    /// Hands a record's messages over, in order, the first with this sequence; the confirm of each.
    pub(crate) async fn publish(
        &self,
        (number, sequence): (u64, u64),
        record: &Record,
    ) -> Vec<Confirming> {
        let stamp = |at: u64, last| Stamp {
            epoch: self.epoch,
            sequence: sequence + at,
            record: number,
            last,
        };
        let parts = bundle::parts(record);
        let closes_at = parts.len() as u64;
        let mut entries = bundle::entries(record);
        let messages = (0..).zip(parts).map(|(at, part)| {
            let stamp = stamp(at, false);
            let mut together: Vec<_> = entries.by_ref().take(part.len()).collect();
            // One alone stands as it is, with its head for every tool to read.
            if together.len() == 1
                && let Some((head, body)) = together.pop()
            {
                return Outgoing {
                    stamp,
                    entry: Some(head),
                    bundled: 0,
                    body,
                };
            }
            Outgoing {
                stamp,
                entry: None,
                bundled: u32::try_from(together.len()).unwrap_or(u32::MAX),
                body: bundle::encode(&together),
            }
        });
        let closing = Outgoing {
            stamp: stamp(closes_at, true),
            entry: None,
            bundled: 0,
            body: record.facts.encode().into(),
        };
        hand_over(&*self.writer, messages.chain([closing])).await
    }
}

/// Claims a writer epoch; resolves once that is confirmed.
async fn claim(
    writer: &dyn Writer,
    epoch: u64,
    body: Bytes,
    patience: Duration,
) -> Result<(), BrokerError> {
    let stamp = Stamp {
        epoch,
        sequence: 0,
        record: 0,
        last: false,
    };
    let claim = Outgoing {
        stamp,
        entry: None,
        bundled: 0,
        body,
    };
    if within(patience, writer.publish(claim)).await? {
        Ok(())
    } else {
        Err(BrokerError::Refused("the claim was refused".to_owned()))
    }
}

impl Joining {
    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        self.env.rng("log claim").fill_bytes(&mut bytes);
        u128::from_be_bytes(bytes)
    }

    /// What a claim of this writer holds; no two are alike.
    fn claim_body(&self, writer: u128) -> Bytes {
        [writer.to_be_bytes(), self.random().to_be_bytes()]
            .concat()
            .into()
    }

    fn stream(&self) -> String {
        self.settings.stream_as(self.shard, self.named)
    }

    fn foreign(&self, epoch: u64) -> BrokerError {
        let stream = self.stream();
        BrokerError::Foreign { stream, epoch }
    }

    /// The seat of a writer whose store knows the shard. Its writer epoch `standing.epoch` is stored and was never claimed.
    /// Only messages of its own lie between its place and the claim, or somebody else has written.
    pub(crate) async fn again(mut self, standing: Standing) -> Result<Seat, JoinError> {
        let patience = self.patience;
        let connection = connected(&mut self.publishing).await?;
        // A stream that is not there any more is not made again, for it would begin without what this one held.
        let publishing = within(patience, connection.write(&self.stream(), None)).await?;
        let ours = self.claim_body(standing.writer);
        let epoch = standing.epoch;
        claim(&*publishing, epoch, ours.clone(), patience).await?;
        let reading = connected(&mut self.reading).await?;
        let from = Start::Position(standing.position);
        let mut messages = within(patience, reading.read(&self.stream(), from)).await?;
        let writer = standing.writer.to_be_bytes();
        let mut others = BTreeSet::new();
        loop {
            let message = within(patience, messages.next()).await?;
            let stamp = message.stamp;
            if stamp.sequence > 0 {
                if others.contains(&stamp.epoch) {
                    return Err(self.foreign(stamp.epoch).into());
                }
            } else if message.body == ours {
                messages.close().await;
                return match others.last() {
                    Some(higher) if *higher >= epoch => {
                        Err(JoinError::Overtaken { epoch: *higher })
                    }
                    Some(_) | None => Ok(Seat {
                        writer: publishing,
                        epoch,
                        position: message.position,
                    }),
                };
            } else if !message.body.starts_with(&writer) {
                others.insert(stamp.epoch);
            }
        }
    }

    /// The seat of a writer whose store has nothing of the shard: it takes over what the stream says, all of it.
    pub(crate) async fn anew(mut self) -> Result<(Seat, Standing), JoinError> {
        let patience = self.patience;
        let connection = connected(&mut self.publishing).await?;
        // Making a stream where the broker forgot those that it has is the end of them: docs/runbooks/broker-streams-gone.md.
        if let Some((shard, named)) = known_shard(&*self.store)? {
            let known = self.settings.stream_as(shard, named);
            within(patience, connection.has(&known)).await?;
        }
        let make = Some(self.settings.retention);
        let publishing = within(patience, connection.write(&self.stream(), make)).await?;
        if self.named == Named::Own || self.above > 0 {
            self.env.sleep(WRITTEN_DOWN).await;
        }
        let reading = connected(&mut self.reading).await?;
        let mut messages = within(patience, reading.read(&self.stream(), Start::First)).await?;
        let mut taking = Taking::new(self.shard);
        let writer = self.random();
        loop {
            let epoch = taking.fold.epoch().max(self.above) + 1;
            let body = self.claim_body(writer);
            claim(&*publishing, epoch, body.clone(), patience).await?;
            let position = loop {
                let message = within(patience, messages.next()).await?;
                let ours = message.stamp.sequence == 0 && message.body == body;
                let position = message.position;
                if let Some(batch) = taking.take(message)? {
                    settled(submit(&*self.store, batch)?).await?;
                }
                if ours {
                    break position;
                }
            };
            if taking.fold.epoch() == epoch {
                let standing = Standing {
                    through: taking.fold.closed(),
                    epoch,
                    position,
                    writer,
                    named: self.named,
                    life: Life::Used,
                };
                let batch = taking.finish(standing, self.random().to_be_bytes());
                settled(submit(&*self.store, batch)?).await?;
                messages.close().await;
                let seat = Seat {
                    writer: publishing,
                    epoch,
                    position,
                };
                return Ok((seat, standing));
            }
            // The stream knows a higher epoch: claim above it.
        }
    }
}

/// A stream on its way into the local store.
struct Taking {
    shard: ShardNo,
    fold: Fold,
    /// First sequence and place of the record that is being collected.
    begun: (u64, u64),
    /// Records that may turn out to be void: number, facts, and epoch, first sequence and place.
    uncertain: VecDeque<(u64, Facts, (u64, u64, u64))>,
    salts: BTreeMap<u32, [u8; 16]>,
    /// Its first message was looked at, and is the first that ever was.
    begins_at_0: bool,
}

impl Taking {
    fn new(shard: ShardNo) -> Self {
        Self {
            shard,
            fold: Fold::new(0),
            begun: (0, 0),
            uncertain: VecDeque::new(),
            salts: BTreeMap::new(),
            begins_at_0: false,
        }
    }

    /// Takes the next message; what is certain by now.
    fn take(&mut self, message: Message) -> Result<Option<Batch>, LogError> {
        let shard = self.shard;
        let damaged = |detail: String| LogError::DamagedShard { shard, detail };
        let gone = |what: String| {
            damaged(format!(
                "{what}: the stream's front was removed, and this store has no heads; restore the relayer's own store"
            ))
        };
        // Taken for empty, or begun in the middle, what is left would be void.
        if !std::mem::replace(&mut self.begins_at_0, true) && message.position > 0 {
            return Err(gone(format!("it begins at {}", message.position)));
        }
        let (first, closed) = match self.fold.take(message.stamp) {
            Took::Ignored | Took::Claimed => return Ok(None),
            Took::Part { first } => (first, false),
            Took::Closed { first } => (first, true),
            Took::Missing { expected } => {
                return Err(gone(format!("there is no record {expected}")));
            }
        };
        let record = message.stamp.record;
        if first {
            self.begun = (message.stamp.sequence, message.position);
            while self.uncertain.back().is_some_and(|(n, ..)| *n >= record) {
                self.uncertain.pop_back();
            }
            let last = self.uncertain.back().map(|(n, ..)| *n);
            if last.is_some_and(|last| last + 1 != record) {
                return Err(damaged(format!("record {record} makes too many void")));
            }
        }
        if !closed {
            return Ok(None);
        }
        let Some((facts, [])) = Facts::decode(&message.body) else {
            return Err(damaged(format!("record {record} does not make sense")));
        };
        self.salts.insert(facts.generation, facts.salt);
        let (sequence, position) = self.begun;
        let place = (message.stamp.epoch, sequence, position);
        self.uncertain.push_back((record, facts, place));
        if self.uncertain.len() <= UNCERTAIN {
            return Ok(None);
        }
        let mut batch = Batch::new();
        for (_, facts, place) in self.uncertain.drain(..UNCERTAIN / 2) {
            put_facts(&mut batch, shard, &facts);
            put_places(&mut batch, shard, &facts, place);
        }
        Ok(Some(batch))
    }

    /// All that is left, and that the store has the shard from now on. Generations go on far ahead: one that was opened and
    /// wrote nothing is not in the stream, and its producer epochs must not be issued again.
    fn finish(&mut self, standing: Standing, salt: [u8; 16]) -> Batch {
        let mut batch = Batch::new();
        for (_, facts, place) in self.uncertain.drain(..) {
            put_facts(&mut batch, self.shard, &facts);
            put_places(&mut batch, self.shard, &facts, place);
        }
        if let Some((newest, _)) = self.salts.last_key_value() {
            self.salts.insert(newest.saturating_add(AHEAD), salt);
        }
        for (generation, salt) in &self.salts {
            batch.put(GENERATION, &keys::generation(self.shard, *generation), salt);
        }
        put_standing(&mut batch, self.shard, standing);
        batch
    }
}
