//! A model of a broker, a local store and a writer that dies: whatever happens, in any order, what was acknowledged is
//! there, once, in its place, and readers agree on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::fold::{Fold, Stamp, Took};
use super::owner::{Effect, Owner, OwnerLimits};

const LIMITS: OwnerLimits = OwnerLimits {
    records_in_flight: 3,
    bytes_in_flight: 5,
    spilled: 6,
    behind_after: Duration::from_secs(2),
};
/// Messages of a record: 1 to 3, by its content.
fn messages(content: u64) -> u64 {
    content % 3 + 1
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append,
    /// The channel and its claim come about, or the attempt fails.
    Join(bool),
    /// The asked-for record is handed to the channel.
    Publish,
    /// The broker takes the channel's next message into the stream.
    Land,
    /// A message of a channel that is gone lands all the same.
    LandStray,
    /// The broker confirms one that landed; any of them, with or without all before it.
    Confirm(usize, bool),
    /// The broker drops the next message and says so, or drops it and says so after others landed.
    Nack,
    Drop,
    /// The channel goes; so many of its messages are still on their way into the stream.
    Cut(usize),
    /// The local store finishes its oldest write.
    Write,
    WriteFails,
    Tick,
    /// The writer dies; so many of its local writes reached the disk.
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Append),
        4 => prop::bool::weighted(0.8).prop_map(Step::Join),
        10 => Just(Step::Publish),
        14 => Just(Step::Land),
        2 => Just(Step::LandStray),
        14 => (any::<usize>(), any::<bool>()).prop_map(|(which, all)| Step::Confirm(which, all)),
        1 => Just(Step::Nack),
        1 => Just(Step::Drop),
        1 => (0_usize..6).prop_map(Step::Cut),
        12 => Just(Step::Write),
        1 => Just(Step::WriteFails),
        2 => Just(Step::Tick),
        1 => (0_usize..4).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..160)
}

#[derive(Debug, Clone, Copy)]
struct Message {
    stamp: Stamp,
    content: u64,
}

#[derive(Debug)]
struct Channel {
    epoch: u64,
    /// Published, not yet in the stream: tag and message.
    flight: VecDeque<(u64, Message)>,
    tags: u64,
    /// In the stream, not yet confirmed.
    landed: Vec<u64>,
    /// Dropped by the broker, and the writer is not told yet.
    dropped: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Spill {
        record: u64,
        content: u64,
    },
    Settle {
        record: u64,
        epoch: u64,
        sequence: u64,
    },
}

/// What survives a crash of the writer.
#[derive(Debug, Default)]
struct Disk {
    through: u64,
    epoch: u64,
    spill: BTreeMap<u64, u64>,
    /// Record: writer epoch, first sequence.
    places: BTreeMap<u64, (u64, u64)>,
}

impl Disk {
    fn apply(&mut self, write: &Write) {
        match *write {
            Write::Spill { record, content } => {
                self.spill.insert(record, content);
            }
            Write::Settle {
                record,
                epoch,
                sequence,
            } => {
                self.through = record;
                self.places.insert(record, (epoch, sequence));
                self.spill.remove(&record);
            }
        }
    }
}

struct World {
    now: Duration,
    owner: Owner,
    stream: Vec<Message>,
    channel: Option<Channel>,
    strays: VecDeque<Message>,
    join_wanted: bool,
    publish: Option<(u64, u64, bool)>,
    disk: Disk,
    writes: VecDeque<Write>,
    /// Content of records that the writer has in memory.
    memory: BTreeMap<u64, u64>,
    contents: u64,
    /// What was acknowledged, by record.
    acked: BTreeMap<u64, u64>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Duration::ZERO,
            owner: Owner::new(LIMITS, 0, 0),
            stream: Vec::new(),
            channel: None,
            strays: VecDeque::new(),
            join_wanted: false,
            publish: None,
            disk: Disk::default(),
            writes: VecDeque::new(),
            memory: BTreeMap::new(),
            contents: 0,
            acked: BTreeMap::new(),
        }
    }

    fn drive(&mut self) {
        while let Some(effect) = self.owner.poll_effect() {
            match effect {
                Effect::Join => {
                    self.drop_channel(usize::MAX);
                    self.join_wanted = true;
                }
                Effect::Publish {
                    record,
                    sequence,
                    spilled,
                } => {
                    assert!(self.publish.is_none(), "one record is published at a time");
                    self.publish = Some((record, sequence, spilled));
                }
                Effect::Spill { record } => {
                    let content = self.memory[&record];
                    self.writes.push_back(Write::Spill { record, content });
                }
                Effect::Settle {
                    record,
                    epoch,
                    sequence,
                } => {
                    self.writes.push_back(Write::Settle {
                        record,
                        epoch,
                        sequence,
                    });
                }
                Effect::Acknowledge { record } => {
                    let before = self.acked.last_key_value().map_or(0, |(last, _)| *last);
                    assert!(record > before, "{record} acknowledged after {before}");
                    self.acked.insert(record, self.memory[&record]);
                }
                Effect::Fail { .. } => {}
            }
        }
    }

    fn drop_channel(&mut self, strays: usize) {
        self.publish = None;
        if let Some(channel) = self.channel.take() {
            let left = channel.flight.into_iter().take(strays);
            self.strays.extend(left.map(|(_, message)| message));
        }
    }

    fn restart(&mut self) {
        let last = self
            .disk
            .spill
            .last_key_value()
            .map_or(self.disk.through, |(last, _)| *last);
        let spilled: Vec<u64> = self.disk.spill.keys().copied().collect();
        let wanted: Vec<u64> = (self.disk.through + 1..=last).collect();
        assert_eq!(spilled, wanted, "the spill has a hole");
        self.memory = self.disk.spill.clone();
        self.owner = Owner::new(LIMITS, self.disk.through, last);
        self.join_wanted = false;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append => {
                if let Ok(record) = self.owner.append(self.now) {
                    self.contents += 1;
                    self.memory.insert(record, self.contents);
                }
            }
            Step::Join(well) => self.join(well),
            Step::Publish => self.publish(),
            Step::Land => {
                if let Some(channel) = &mut self.channel
                    && let Some((tag, message)) = channel.flight.pop_front()
                {
                    channel.landed.push(tag);
                    self.stream.push(message);
                }
            }
            Step::LandStray => self.stream.extend(self.strays.pop_front()),
            Step::Confirm(which, multiple) => {
                if let Some(channel) = &mut self.channel
                    && !channel.landed.is_empty()
                {
                    let tag = channel.landed[which % channel.landed.len()];
                    // A broker that dropped one does not confirm all up to one beyond it.
                    let multiple = multiple && !channel.dropped;
                    channel
                        .landed
                        .retain(|t| *t != tag && !(multiple && *t < tag));
                    let epoch = channel.epoch;
                    self.owner.confirmed(epoch, tag, multiple);
                }
            }
            Step::Nack => {
                if let Some(channel) = &mut self.channel
                    && (channel.dropped || channel.flight.pop_front().is_some())
                {
                    let epoch = channel.epoch;
                    self.owner.cut(epoch);
                }
            }
            Step::Drop => {
                if let Some(channel) = &mut self.channel {
                    channel.dropped |= channel.flight.pop_front().is_some();
                }
            }
            Step::Cut(strays) => {
                if let Some(epoch) = self.channel.as_ref().map(|channel| channel.epoch) {
                    self.drop_channel(strays);
                    self.owner.cut(epoch);
                }
            }
            Step::Write => self.write(true),
            Step::WriteFails => self.write(false),
            Step::Tick => {
                self.now += Duration::from_secs(1);
                self.owner.on_tick(self.now);
            }
            Step::Crash(reached) => {
                self.drop_channel(reached);
                let writes = std::mem::take(&mut self.writes);
                for write in writes.iter().take(reached) {
                    self.disk.apply(write);
                }
                self.restart();
            }
        }
        self.drive();
        self.check();
    }

    fn join(&mut self, well: bool) {
        if !self.join_wanted {
            return;
        }
        // The lock: messages of former channels have landed or never will, once a new one holds it. Those that this model
        // keeps as strays are more than the broker does.
        self.disk.epoch += 1;
        let epoch = self.disk.epoch;
        let claim = Stamp {
            epoch,
            sequence: 0,
            record: 0,
            last: false,
        };
        let message = Message {
            stamp: claim,
            content: 0,
        };
        self.stream.push(message);
        if well {
            self.join_wanted = false;
            self.channel = Some(Channel {
                epoch,
                flight: VecDeque::new(),
                tags: 1,
                landed: Vec::new(),
                dropped: false,
            });
            self.owner.joined(epoch);
        }
    }

    fn publish(&mut self) {
        let Some((record, sequence, spilled)) = self.publish.take() else {
            return;
        };
        let channel = self
            .channel
            .as_mut()
            .expect("asked to publish without a channel");
        let content = if spilled {
            self.disk.spill[&record]
        } else {
            self.memory[&record]
        };
        let count = messages(content);
        for part in 0..count {
            channel.tags += 1;
            let stamp = Stamp {
                epoch: channel.epoch,
                sequence: sequence + part,
                record,
                last: part + 1 == count,
            };
            channel
                .flight
                .push_back((channel.tags, Message { stamp, content }));
        }
        let epoch = channel.epoch;
        self.owner.published(epoch, record, count, count);
    }

    fn write(&mut self, well: bool) {
        let Some(write) = self.writes.pop_front() else {
            return;
        };
        if well {
            self.disk.apply(&write);
        }
        match write {
            Write::Spill { record, .. } => self.owner.spilled(record, well),
            Write::Settle { record, .. } => self.owner.settled(record, well),
        }
        if !well {
            // The store fails whatever it had queued; the shard's writer starts anew from the disk.
            self.drive();
            self.writes.clear();
            self.drop_channel(usize::MAX);
            self.restart();
        }
    }

    /// What readers make of the stream: each record's content.
    fn folded(&self) -> BTreeMap<u64, u64> {
        let mut fold = Fold::new(0);
        let mut records = BTreeMap::new();
        let mut content = None;
        for message in &self.stream {
            let (first, closed) = match fold.take(message.stamp) {
                Took::Ignored | Took::Claimed => continue,
                Took::Missing { expected } => panic!("record {expected} is missing"),
                Took::Part { first } => (first, false),
                Took::Closed { first } => (first, true),
            };
            if first {
                records.split_off(&message.stamp.record);
                content = Some(message.content);
            }
            assert_eq!(content, Some(message.content), "a record of two");
            if closed {
                records.insert(message.stamp.record, message.content);
            }
        }
        assert!(records.keys().copied().eq(1..=fold.closed()));
        records
    }

    fn check(&self) {
        let folded = self.folded();
        for (record, content) in &self.acked {
            let kept = if *record > self.disk.through {
                self.disk.spill.get(record)
            } else {
                folded.get(record)
            };
            assert_eq!(kept, Some(content), "record {record} was acknowledged");
        }
        // What is settled stands where the writer wrote down that it does, and there alone.
        for record in 1..=self.disk.through {
            let (epoch, sequence) = self.disk.places[&record];
            let count = messages(folded[&record]);
            for part in 0..count {
                let here: BTreeSet<u64> = self
                    .stream
                    .iter()
                    .filter(|m| m.stamp.epoch == epoch && m.stamp.sequence == sequence + part)
                    .map(|m| m.content)
                    .collect();
                assert_eq!(here, BTreeSet::from([folded[&record]]), "record {record}");
            }
        }
    }

    /// The broker is well and so is the disk: everything comes to rest.
    fn heal(&mut self) {
        for _ in 0..10_000 {
            let idle = !self.join_wanted
                && self.publish.is_none()
                && self.writes.is_empty()
                && self.owner.waiting() == 0;
            if idle {
                return;
            }
            if self.channel.as_ref().is_some_and(|channel| channel.dropped) {
                self.step(Step::Nack);
            }
            for step in [
                Step::Join(true),
                Step::Publish,
                Step::Land,
                Step::Confirm(0, true),
                Step::Write,
            ] {
                self.step(step);
            }
        }
        panic!("it never comes to rest: {:?}", self.owner);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // Appends, confirms in any order, nacks, cuts, slow and failing disks, crashes: at every moment each acknowledged record
    // is in the spill or stands in the stream, once, and the acknowledged ones ascend. In the end all waits are over.
    #[test]
    fn nothing_acknowledged_is_lost_doubled_or_moved(steps in steps()) {
        let mut world = World::new();
        world.drive();
        for step in steps {
            world.step(step);
        }
        world.heal();
        // What landed and was never acknowledged may stand until the next record takes its place.
        world.step(Step::Append);
        world.heal();
        let through = world.disk.through;
        prop_assert!(world.acked.keys().all(|record| *record <= through));
        prop_assert_eq!(world.folded().len() as u64, through);
        prop_assert!(world.disk.spill.is_empty());
    }
}

// The plain course: joined, appended, confirmed, settled, acknowledged; nothing touches the spill.
#[test]
fn a_healthy_broker_spills_nothing() {
    let mut owner = Owner::new(LIMITS, 0, 0);
    assert_eq!(owner.poll_effect(), Some(Effect::Join));
    owner.joined(1);
    assert_eq!(owner.append(Duration::ZERO), Ok(1));
    let publish = Effect::Publish {
        record: 1,
        sequence: 1,
        spilled: false,
    };
    assert_eq!(owner.poll_effect(), Some(publish));
    owner.published(1, 1, 2, 2);
    owner.confirmed(1, 3, false);
    assert_eq!(owner.poll_effect(), None);
    owner.confirmed(1, 2, false);
    let settle = Effect::Settle {
        record: 1,
        epoch: 1,
        sequence: 1,
    };
    assert_eq!(owner.poll_effect(), Some(settle));
    assert_eq!(owner.poll_effect(), None);
    owner.settled(1, true);
    assert_eq!(owner.poll_effect(), Some(Effect::Acknowledge { record: 1 }));
    assert_eq!(owner.append(Duration::ZERO), Ok(2));
    let publish = Effect::Publish {
        record: 2,
        sequence: 3,
        spilled: false,
    };
    assert_eq!(owner.poll_effect(), Some(publish));
}
