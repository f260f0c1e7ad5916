//! What a shard tells of itself: to operators, and to the meter.

use pqcnet_messages::metering::{Reading, StoredVolume};

use super::{Account, Holdings, Shard};

impl<T> Shard<T> {
    /// How much it holds.
    pub fn holdings(&self) -> Holdings {
        let (paused_channels, paused) = self.flow.paused();
        let paused = paused.and_then(|(id, cause)| {
            let about = self.channels.get(&id)?.about.as_ref()?;
            Some((about.channel.clone(), cause))
        });
        let (group_members, dead_letters) = self.groups.numbers();
        let mut sum = Holdings {
            subscriptions: self.delivery.len() as u64,
            lag_records: self.delivery.lag(),
            unwritten_bytes: self.pending_bytes as u64,
            memory_bytes: (self.pending_bytes + self.delivery.memory()) as u64,
            paused_channels,
            paused,
            pauses: self.flow.pauses(),
            group_members,
            dead_letters,
            ..Holdings::default()
        };
        for state in self.channels.values().filter(|s| s.about_stored) {
            sum.channels += 1;
            sum.records += state.durable.head;
            sum.bytes += state.durable.bytes;
        }
        sum
    }

    /// What was stored and sent since the reading that the meter has for good; `None` while that is not known. `run` names this
    /// life of the shard.
    pub fn take_volume(&mut self, run: u64, kept: Reading) -> Option<Account> {
        if !self.metered || !self.served {
            return None;
        }
        let serial = self.readings;
        let kept = kept == Reading { run, serial };
        self.readings += 1;
        let stored = self.written.hand(kept).filter_map(|channel| {
            let state = self.channels.get(channel)?;
            Some(StoredVolume {
                channel: state.about.as_ref()?.channel.clone(),
                at_open: state.at_open,
                now: state.volume,
            })
        });
        let stored = stored.collect();
        let handed = self.delivery.carriage().into_iter();
        let handed = handed.flat_map(|carriage| carriage.hand(kept));
        let sent = handed.filter_map(|(key, carried)| {
            let about = self.channels.get(&key.channel)?.about.as_ref()?;
            Some((about.channel.clone(), *key, *carried))
        });
        Some(Account {
            reading: Reading {
                run,
                serial: self.readings,
            },
            generation: self.first_generation,
            stored,
            sent: sent.collect(),
        })
    }
}
