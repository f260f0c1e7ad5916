//! What is looked at every so often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pqcnet_actor::{ActorInfo, Class};
use pqcnet_crypto::NodeId;
use pqcnet_link::Role;
use pqcnet_log::broker::transport::Message;
use pqcnet_log::core::fold::{Fold, Took};
use pqcnet_log::{ChannelId, keys};
use pqcnet_relay::core::channel::channel_id;
use pqcnet_store::{ReadError, Scan, View};

use super::Oracle;
use super::lane::Lane;
use crate::world::{NodeNo, SimTime, Stopped, World};

/// Measures the process's memory, in bytes.
pub type Measure = fn() -> u64;

/// What must hold beside what always must.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a message may take from its publisher to the disk, and from the disk to its subscriber, with the way open.
    pub grace: Option<Duration>,
    /// Messages in any lane of any mailbox; an actor's own bound holds anyway.
    pub mailbox: Option<usize>,
    /// Bytes of the process, and what measures them.
    pub memory: Option<(Measure, u64)>,
}

impl Default for Limits {
    /// 45 s: a link finds out after 30 s that its peer is silent (pqcnet-link's `silent_after`); what was on it is then
    /// dialled anew, opened and repeated.
    fn default() -> Limits {
        Limits {
            grace: Some(Duration::from_secs(45)),
            mailbox: None,
            memory: None,
        }
    }
}

impl Oracle {
    /// Looks at disks, time, mailboxes and memory.
    ///
    /// # Errors
    /// An invariant is broken; the world has stopped.
    pub fn look(&mut self, world: &mut World) -> Result<(), Stopped> {
        let found = self
            .disks(world)
            .or_else(|| self.lateness(world))
            .or_else(|| self.memory());
        if let Some(found) = found {
            self.ledger.stop(found);
            return world.run_for(Duration::ZERO);
        }
        self.mailboxes(world)
    }

    /// Every acknowledged entry is on its owner's disk. Entries are counted on disks that crashed since the last look.
    fn disks(&mut self, world: &World) -> Option<String> {
        let mut crashed = Vec::new();
        for node in world.nodes() {
            let spec = world.spec(node);
            if spec.role == Role::Relayer || spec.serves {
                let crashes = world.disk(node).counts().crashes;
                if self.crashes.insert(node, crashes) != Some(crashes) {
                    crashed.push(node);
                }
            }
        }
        for lane in self.judged() {
            let most = match self.durable(world, lane, &crashed) {
                Ok(Some(most)) => most,
                Ok(None) => continue,
                Err(error) => return Some(format!("{lane}: {error}")),
            };
            if let Err(broken) = lane.state().account.on_disk(most) {
                return Some(lane.told(&broken));
            }
            if let Some(wrong) = self.misbooked(world, lane, most, false) {
                return Some(format!("{lane}: {wrong}"));
            }
        }
        None
    }

    /// Up to which offset a lane's entries are durable, those on the disks of `counted` nodes one by one; `None` if nobody has the
    /// shard.
    pub(super) fn durable(
        &self,
        world: &World,
        lane: &Lane,
        counted: &[NodeNo],
    ) -> Result<Option<u64>, ReadError> {
        // A shard that moved is whole at one of them.
        let mut most = None;
        for owner in self.owners(lane) {
            let broker = world.broker_of(owner);
            let died = |node| counted.contains(&node);
            let entries = died(owner) || broker.is_some_and(died);
            most = most.max(Some(durable(world, owner, lane, entries)?));
        }
        Ok(most)
    }

    fn lateness(&self, world: &World) -> Option<String> {
        let grace = self.limits.grace?;
        let now = world.now();
        for lane in self.judged() {
            let state = lane.state();
            let of_publisher = self.open(world, lane, lane.spec.publisher, state.publishes_by);
            let of_subscriber = self.open(world, lane, lane.spec.subscriber, state.reads_by);
            let found = state.account.answered(now, of_publisher, grace);
            let found = found.and_then(|()| state.account.in_time(now, of_subscriber, grace));
            if let Err(broken) = found {
                return Some(lane.told(&broken));
            }
        }
        None
    }

    /// Since when nothing stands between a client and the lane's disk.
    fn open(
        &self,
        world: &World,
        lane: &Lane,
        client: NodeNo,
        (sentry, since): (Option<NodeId>, SimTime),
    ) -> Option<SimTime> {
        let mut open = self.weather.fair_since(client)?;
        for owner in self.owners(lane) {
            open = open.max(self.weather.fair_since(owner)?).max(self.heirs.1);
            if let Some(broker) = world.broker_of(owner) {
                open = open.max(self.weather.fair_since(broker)?);
            }
        }
        match sentry {
            Some(sentry) => {
                let node = world.nodes().find(|node| world.id(*node) == sentry)?;
                open = open.max(self.weather.fair_since(node)?).max(since);
            }
            // It is on its way to any of them: all must be well.
            None => {
                for node in world.nodes() {
                    let used = !self.distrusted.contains(&world.id(node));
                    if world.spec(node).role == Role::Sentry && used {
                        open = open.max(self.weather.fair_since(node)?);
                    }
                }
            }
        }
        Some(open)
    }

    fn memory(&self) -> Option<String> {
        let (measure, most) = self.limits.memory?;
        let bytes = measure();
        (bytes > most)
            .then(|| format!("the process has {bytes} bytes of memory, {most} are allowed"))
    }

    fn mailboxes(&self, world: &mut World) -> Result<(), Stopped> {
        let Some(most) = self.limits.mailbox else {
            return Ok(());
        };
        for node in world.nodes() {
            let Some(started) = world.started(node) else {
                continue;
            };
            let actors = world.wait(async move { started.running.inspect().await })?;
            if let Some(found) = overfull(&actors, most) {
                let name = world.spec(node).name.clone();
                self.ledger.stop(format!("{name}: {found}"));
                return world.run_for(Duration::ZERO);
            }
        }
        Ok(())
    }
}

impl Oracle {
    /// Entries of all channels that stand in the brokers' streams; `None` where no log is on one.
    pub fn on_brokers(&self, world: &World) -> Option<u64> {
        let mut on_any = None;
        for lane in self.judged() {
            // A former owner's stream may not be gone yet.
            let mut all = BTreeSet::new();
            for owner in self.owners(lane) {
                let shelf = world.broker_of(owner).and_then(|node| world.shelf(node));
                let stream = world.stream_of(owner, lane.shard);
                let messages = shelf.map(|shelf| shelf.lock().messages(&stream));
                if let Some(messages) = messages {
                    let there = standing(&messages, channel_id(&lane.channel));
                    on_any.get_or_insert(0);
                    all.extend(there);
                }
            }
            on_any = on_any.map(|before| before + all.len() as u64);
        }
        on_any
    }
}

/// Streams of shards that came to their owners from elsewhere, on all brokers; `None` where there is none.
pub(crate) fn moved_streams(world: &World) -> Option<u64> {
    let shelves = world.nodes().filter_map(|node| world.shelf(node));
    let counts = shelves.map(|shelf| {
        let streams = shelf.lock().streams();
        // `sim.shard-N.OWNER`
        let moved = streams.iter().filter(|name| name.matches('.').count() == 2);
        moved.count() as u64
    });
    counts.reduce(|all, more| all + more)
}

/// The first mailbox with more in one class than its own bound, or than `most`.
fn overfull(actors: &[ActorInfo], most: usize) -> Option<String> {
    for actor in actors {
        let bounds = [
            actor.bounds.control,
            actor.bounds.request,
            actor.bounds.bulk,
        ];
        for (index, class) in Class::ALL.into_iter().enumerate() {
            let bound = usize::try_from(bounds[index]).unwrap_or(usize::MAX).max(1);
            let depth = actor.depth[index];
            if depth > bound.min(most) {
                let path = &actor.path;
                let bound = bound.min(most);
                return Some(format!(
                    "{depth} {class:?} messages wait for {}, {bound} may",
                    path.as_str()
                ));
            }
        }
    }
    None
}

/// Up to which offset the lane's entries are on its owner's disk, or its broker: what the head says, and if `entries`, what is
/// there.
fn durable(world: &World, owner: NodeNo, lane: &Lane, entries: bool) -> Result<u64, ReadError> {
    let id = channel_id(&lane.channel);
    let shard = lane.shard;
    let shelf = world.broker_of(owner).and_then(|node| world.shelf(node));
    let of_broker = match shelf {
        Some(shelf) if entries => {
            let stream = world.stream_of(owner, shard);
            standing(&shelf.lock().messages(&stream), id)
        }
        Some(_) | None => BTreeSet::new(),
    };
    let mut durable = 0;
    let mut read = |view: &dyn View| {
        let number = |bytes: Option<Vec<u8>>| {
            let bytes = bytes?;
            Some(u64::from_be_bytes(*bytes.first_chunk()?))
        };
        durable = number(view.get(keys::HEAD, &keys::channel(shard, &id))?).unwrap_or(0);
        if !entries || durable == 0 {
            return Ok(());
        }
        let first = number(view.get(keys::FIRST, &keys::channel(shard, &id))?).unwrap_or(1);
        let from = keys::numbered(shard, &id, first);
        let to = keys::numbered(shard, &id, durable + 1);
        let mut there = of_broker.clone();
        view.scan(
            keys::ENTRY,
            Scan {
                from: &from,
                to: &to,
            },
            &mut |key, _| {
                there.extend(keys::split(key).and_then(|(_, offset)| offset));
                std::ops::ControlFlow::Continue(())
            },
        )?;
        let without_hole = (first..=durable).take_while(|offset| there.contains(offset));
        durable = without_hole.last().unwrap_or(first - 1);
        Ok(())
    };
    match world.disk(owner).reader().view(&mut read) {
        // It has never been mounted: nothing is on it.
        Ok(()) | Err(ReadError::UnknownFamily(_)) => Ok(durable),
        Err(error) => Err(error),
    }
}

/// The offsets of a channel's entries that stand in a stream.
fn standing(messages: &[Message], channel: ChannelId) -> BTreeSet<u64> {
    let mut fold = Fold::new(0);
    let (mut records, mut open) = (BTreeMap::new(), Vec::new());
    for message in messages {
        let record = message.stamp.record;
        let (first, closed) = match fold.take(message.stamp) {
            Took::Ignored | Took::Claimed => continue,
            Took::Part { first } => (first, false),
            Took::Closed { first } => (first, true),
            // What comes behind a record that is gone does not count either.
            Took::Missing { .. } => break,
        };
        if first {
            drop(records.split_off(&record));
            open = Vec::new();
        }
        let entries = message.entries();
        let entries = entries.iter().filter(|(head, _)| head.channel == channel);
        open.extend(entries.map(|(head, _)| head.offset));
        if closed {
            records.insert(record, std::mem::take(&mut open));
        }
    }
    records.into_values().flatten().collect()
}

#[cfg(test)]
mod tests {
    use pqcnet_actor::{Bounds, Life, Path};

    use super::*;

    fn actor(depth: [usize; 3]) -> ActorInfo {
        ActorInfo {
            path: Path::root("relayer").join("intake"),
            behaviour: "Intake",
            life: Life::Running,
            depth,
            bounds: Bounds {
                control: 2,
                request: 10,
                bulk: 10,
            },
            restarts: 0,
            handled: 0,
            busy: Duration::ZERO,
            state: None,
        }
    }

    // Full mailboxes are as they should be; one message more than the actor's bound, or than the run allows, is named.
    #[test]
    fn a_mailbox_over_its_bound_is_found() {
        assert_eq!(overfull(&[actor([2, 10, 10]), actor([0; 3])], 10), None);
        for (depth, most, found) in [
            (
                [3, 0, 0],
                10,
                "3 Control messages wait for relayer/intake, 2 may",
            ),
            (
                [0, 11, 0],
                99,
                "11 Request messages wait for relayer/intake, 10 may",
            ),
            (
                [0, 0, 5],
                4,
                "5 Bulk messages wait for relayer/intake, 4 may",
            ),
        ] {
            let actors = [actor([0; 3]), actor(depth)];
            assert_eq!(overfull(&actors, most).as_deref(), Some(found));
        }
    }
}
