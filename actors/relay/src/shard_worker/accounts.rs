//! What a shard's worker tells of its shard: to the meter, to operators.

use pqcnet_actor::{Cx, On, Reply};
use pqcnet_messages::control::{PausedChannel, ShardStatus, ShardWork};
use pqcnet_messages::metering::{DeliveredVolume, Reading, TakeVolume, VolumeTaken};
use pqcnet_messages::relay_local::{DescribeShard, ShardAccount};
use pqcnet_messages::{Refusal, ShardId};

use super::ShardWorker;
use super::duty::Duty;

impl ShardWorker {
    /// What was stored and sent since the reading that is kept.
    pub(super) fn volume(&mut self, kept: Reading) -> Option<VolumeTaken> {
        let account = self.core.take_volume(self.run, kept)?;
        let delivered = account.sent.into_iter().map(|(channel, key, carried)| {
            let ask = carried.open.and_then(|open| {
                let link = self.links.get(&open.link)?;
                Some((link.countersign.clone()?, open.subscription))
            });
            DeliveredVolume {
                channel,
                receiver: key.receiver,
                series: key.series,
                after: carried.after,
                last: carried.last,
                volume: carried.unkept(),
                ask,
            }
        });
        Some(VolumeTaken {
            shard: ShardId(self.shard.0),
            moves: self.moves,
            generation: account.generation,
            reading: account.reading,
            stored: account.stored,
            delivered: delivered.collect(),
        })
    }
}

impl On<TakeVolume> for ShardWorker {
    fn on(&mut self, msg: TakeVolume, _cx: &mut Cx<Self>) -> Reply<TakeVolume> {
        match &self.parting {
            Some(parting) if parting.reading == msg.kept => self.parting = None,
            Some(parting) => return Reply::Now(Ok(parting.clone())),
            None => {}
        }
        let taken = match self.duty {
            Duty::Rests => None,
            Duty::Works | Duty::Fenced | Duty::Settles(_) => self.volume(msg.kept),
        };
        Reply::Now(taken.ok_or(Refusal::Unavailable))
    }
}

impl On<DescribeShard> for ShardWorker {
    fn on(&mut self, _msg: DescribeShard, _cx: &mut Cx<Self>) -> Reply<DescribeShard> {
        let holds = self.core.holdings();
        let phase = self.core.phase();
        let paused = holds.paused;
        let work = ShardWork {
            paused_channels: holds.paused_channels,
            paused: paused.map(|(channel, cause)| PausedChannel { channel, cause }),
            group_members: holds.group_members,
            dead_letters: holds.dead_letters,
        };
        Reply::Now(ShardAccount {
            status: ShardStatus {
                id: self.shard.0.into(),
                channels: holds.channels,
                records: holds.records,
                bytes: holds.bytes,
                subscriptions: holds.subscriptions,
                lag_records: holds.lag_records,
                unwritten_bytes: holds.unwritten_bytes,
                work: work.noted(),
            },
            ready: phase == "ready",
            phase,
            subscriptions: holds.subscriptions,
        })
    }
}
