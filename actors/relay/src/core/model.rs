//! A model of producers, subscribers, a log and crashes around one shard: whatever happens, in any order, nothing
//! acknowledged is lost or doubled, and nobody gets what they have, should not have, or have no room for.

mod disk;
mod pressure;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pqcnet_crypto::NodeId;
use pqcnet_log::{AppendBatch, LogError, Opened, ReadRequest, ShardNo};
use pqcnet_messages::{Channel, ChannelName, Refusal, Series};
use proptest::prelude::*;

use super::channel::channel_id;
use super::delivery::{Delivered, DeliveryLimits};
use super::flow::{FlowLimits, Listener, Marks};
use super::pending::Stored;
use super::seal::ShardKeys;
use super::shard::{Effect, NewRecords, Shard, ShardLimits};
use super::subscription::SubscriptionKey;
use disk::Disk;
use steps::{Step, step};

const SHARD: ShardNo = ShardNo(1);
const MASTER: [u8; 32] = [5; 32];
const CHANNELS: usize = 3;
const PRODUCERS: usize = 5;
const LINKS: u64 = 2;

fn owner() -> NodeId {
    NodeId::from_bytes([1; 32])
}

fn stranger() -> NodeId {
    NodeId::from_bytes([2; 32])
}

fn channel(index: usize) -> Channel {
    let name = ChannelName::new(&format!("c{index}")).unwrap();
    Channel {
        owner: owner(),
        name,
    }
}

#[derive(Debug, Clone)]
struct Asked {
    channel: usize,
    epoch: u64,
    first: u64,
    last: u64,
}

struct Producer {
    channel: usize,
    epoch: u64,
    next: u64,
}

struct Subscriber {
    key: SubscriptionKey,
    channel: usize,
    last: u64,
    window: usize,
    outstanding: Vec<(u64, usize)>,
}

struct World {
    shard: Shard<u64>,
    disk: Disk,
    now: Duration,
    in_flight: Option<AppendBatch>,
    reads: Vec<(u64, ReadRequest)>,
    asked: BTreeMap<u64, Asked>,
    asks: u64,
    acked: BTreeSet<(usize, u64, u64)>,
    epochs: BTreeSet<(usize, u64)>,
    producers: Vec<Option<Producer>>,
    subscribers: BTreeMap<SubscriptionKey, Subscriber>,
    blocked: BTreeSet<u64>,
    busy: bool,
}

/// A payload tells which message it is, so that a second copy would be found.
fn payload(epoch: u64, sequence: u64, len: usize) -> Bytes {
    let mut text = format!("{epoch}/{sequence}/").into_bytes();
    text.resize(text.len() + len, b'x');
    text.into()
}

fn limits() -> ShardLimits {
    ShardLimits {
        customer_channels: 64,
        channels: 10,
        empty_channels: 2,
        producers: 3,
        pending_bytes: 600,
        delivery: DeliveryLimits {
            subscriptions: 6,
            tail_bytes: 700,
            deliver_bytes: 150,
            reads: 2,
            held_bytes: 200,
        },
        flow: FlowLimits {
            channel_bytes: Marks::new(400, 150),
            much_bytes: 40,
            share_bytes: 40,
            rests: 1,
            lag_records: Marks::new(6, 2),
            shard_bytes: Marks::new(500, 200),
            waiting: Marks::NEVER,
        },
        member_look: Duration::from_secs(1),
    }
}

impl World {
    fn new() -> Self {
        let mut world = World {
            shard: Shard::new(SHARD, ShardKeys::new(&MASTER, SHARD), limits()),
            disk: Disk::default(),
            now: Duration::ZERO,
            in_flight: None,
            reads: Vec::new(),
            asked: BTreeMap::new(),
            asks: 0,
            acked: BTreeSet::new(),
            epochs: BTreeSet::new(),
            producers: (0..PRODUCERS).map(|_| None).collect(),
            subscribers: BTreeMap::new(),
            blocked: BTreeSet::new(),
            busy: false,
        };
        world.drive();
        world
    }

    fn drive(&mut self) {
        while let Some(effect) = self.shard.poll_effect() {
            match effect {
                Effect::Open => self.open(),
                Effect::Append(batch) if self.busy => {
                    self.busy = false;
                    self.shard.on_log_busy(self.now, batch);
                }
                Effect::Append(batch) => {
                    assert!(self.in_flight.is_none(), "one append at a time");
                    self.in_flight = Some(batch);
                }
                Effect::Reply { to, result } => self.reply(to, result),
                Effect::Deliver(Delivered::Records { key, records, .. }) => {
                    self.delivered(key, records)
                }
                Effect::Deliver(Delivered::Ended { key, .. }) => {
                    assert!(self.subscribers.remove(&key).is_some(), "ended twice");
                }
                Effect::Deliver(Delivered::Read { serial, request }) => {
                    self.reads.push((serial, request));
                    assert!(self.reads.len() <= 2, "reads are bounded");
                }
                Effect::Deliver(Delivered::Problem(_)) | Effect::Signal { .. } => {}
                Effect::Copy { .. } => panic!("nothing is copied"),
            }
        }
    }

    fn open(&mut self) {
        let generation = self.disk.salts.len() as u32 + 1;
        self.disk.salts.push((generation, [generation as u8; 16]));
        let opened = Opened {
            generation,
            salts: self.disk.salts.clone(),
        };
        let heads = self.disk.heads.values().cloned().collect();
        self.shard.on_opened(self.now, Ok((opened, heads)));
    }

    fn reply(&mut self, to: u64, result: Result<Stored, Refusal>) {
        let Some(asked) = self.asked.remove(&to) else {
            assert!(matches!(result, Ok(Stored::Readers) | Err(_)));
            return;
        };
        match result {
            Ok(Stored::Published(published)) => {
                assert!(published.last_seq >= asked.last);
                for sequence in asked.first..=asked.last {
                    self.acked.insert((asked.channel, asked.epoch, sequence));
                }
                let text = self.text(asked.channel, published.last_offset);
                let wanted = format!("{}/{}/", asked.epoch, published.last_seq);
                assert!(
                    text.starts_with(wanted.as_bytes()),
                    "the offset is the sequence's"
                );
            }
            Ok(other) => panic!("a publish was answered as {other:?}"),
            Err(refusal) => {
                let producers = self.producers.iter_mut().flatten();
                for producer in
                    producers.filter(|p| p.epoch == asked.epoch && p.channel == asked.channel)
                {
                    producer.next = match refusal {
                        Refusal::Gap { expected } => expected,
                        _ => producer.next.min(asked.first),
                    };
                }
            }
        }
    }

    /// The stored text of an entry, opened by keys of the reader's own; panics when it is not on disk.
    fn text(&self, channel_index: usize, offset: u64) -> Vec<u8> {
        let id = channel_id(&channel(channel_index));
        let mut keys = ShardKeys::new(&MASTER, SHARD);
        let last = self.disk.salts.last().unwrap().0;
        keys.begin(last, &self.disk.salts);
        let mut sealed = self.disk.entries[&id][offset as usize - 1].clone();
        let text = keys.open(&id, offset, &mut sealed).unwrap();
        sealed[text][8..].to_vec()
    }

    fn delivered(&mut self, key: SubscriptionKey, records: Vec<pqcnet_messages::Record>) {
        assert!(
            !self.blocked.contains(&key.link),
            "nothing is sent over a blocked link"
        );
        assert!(!records.is_empty());
        let (index, mut last) = {
            let subscriber = &self.subscribers[&key];
            (subscriber.channel, subscriber.last)
        };
        for record in &records {
            assert_eq!(
                record.offset,
                last + 1,
                "in order, without holes, never at or below what was presented"
            );
            last = record.offset;
            assert_eq!(
                record.payload,
                self.text(index, record.offset),
                "what is delivered is durable"
            );
        }
        let subscriber = self.subscribers.get_mut(&key).unwrap();
        subscriber.last = last;
        let sizes = records.iter().map(|r| (r.offset, r.payload.len()));
        subscriber.outstanding.extend(sizes);
        let bytes: usize = subscriber.outstanding.iter().map(|(_, len)| len).sum();
        assert!(
            bytes <= subscriber.window || subscriber.outstanding.len() == 1,
            "the window is respected"
        );
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::OpenProducer {
                producer,
                channel: index,
            } => {
                if let Ok(epoch) = self.shard.open_producer(owner(), &channel(index), None) {
                    assert!(
                        self.epochs.insert((index, epoch)),
                        "an epoch is issued once"
                    );
                    self.producers[producer] = Some(Producer {
                        channel: index,
                        epoch,
                        next: 1,
                    });
                }
                let strangers = self.shard.open_producer(stranger(), &channel(index), None);
                assert!(strangers.is_err(), "only the owner publishes");
            }
            Step::Publish {
                producer,
                skew,
                count,
                len,
            } => self.publish(producer, skew, count, len),
            Step::SetReaders {
                channel: index,
                allow,
            } => {
                let readers = if allow { vec![stranger()] } else { Vec::new() };
                self.asks += 1;
                let now = self.now;
                self.shard
                    .set_readers(now, &channel(index), readers, self.asks);
            }
            Step::Subscribe {
                link,
                number,
                channel: index,
                stranger: other,
                back,
                window,
            } => {
                let customer = if other { stranger() } else { owner() };
                let key = SubscriptionKey {
                    link,
                    subscription: number,
                };
                let stored = self
                    .disk
                    .heads
                    .get(&channel_id(&channel(index)))
                    .map_or(0, |h| h.head);
                let after = stored.saturating_sub(back);
                let known = self.subscribers.contains_key(&key);
                let subscribed = self.shard.subscribe(
                    key,
                    customer,
                    &channel(index),
                    after,
                    window,
                    Series::NONE,
                );
                if let Err(refusal) = &subscribed {
                    assert!(
                        known || other || refusal.is_retryable(),
                        "an offset that is on disk, and so may have been read there, is refused for good: {refusal}"
                    );
                }
                if subscribed.is_ok() {
                    assert!(!known, "one subscription a number");
                    let window = window as usize;
                    let outstanding = Vec::new();
                    self.subscribers.insert(
                        key,
                        Subscriber {
                            key,
                            channel: index,
                            last: after,
                            window,
                            outstanding,
                        },
                    );
                }
            }
            Step::Consume {
                subscription,
                leave,
            } => {
                if let Some(subscriber) = self.nth(subscription) {
                    let offset = subscriber.last.saturating_sub(leave);
                    subscriber.outstanding.retain(|(o, _)| *o > offset);
                    let key = subscriber.key;
                    self.shard.consumed(key, offset);
                }
            }
            Step::Unsubscribe { subscription } => {
                if let Some(key) = self.nth(subscription).map(|s| s.key) {
                    self.shard.unsubscribe((self.now, 7), key);
                    self.subscribers.remove(&key);
                }
            }
            Step::Block { link } => {
                self.blocked.insert(link);
                self.shard.link_blocked(link);
            }
            Step::Ready { link } => {
                self.blocked.remove(&link);
                self.shard.link_ready(link);
            }
            Step::LinkDown { link } => {
                self.shard.drop_link((self.now, 7), link);
                self.blocked.remove(&link);
                self.subscribers.retain(|key, _| key.link != link);
            }
            Step::Append { fails, reached } => {
                let Some(batch) = self.in_flight.take() else {
                    return;
                };
                if !fails || reached {
                    self.disk.store(&batch);
                }
                let detail = "pulled".to_owned();
                let result = if fails {
                    Err(LogError::Storage { detail })
                } else {
                    Ok(())
                };
                self.shard.on_appended(self.now, result);
            }
            Step::Read { fails } => {
                if self.reads.is_empty() {
                    return;
                }
                let (serial, request) = self.reads.remove(0);
                let result = if fails {
                    Err(LogError::Busy)
                } else {
                    Ok(self.disk.read(request))
                };
                self.shard.on_read(self.now, serial, result);
            }
            Step::Busy => self.busy = true,
            Step::Crash { reached } => {
                if let Some(batch) = self.in_flight.take().filter(|_| reached) {
                    self.disk.store(&batch);
                }
                self.shard = Shard::new(SHARD, ShardKeys::new(&MASTER, SHARD), limits());
                self.reads.clear();
                self.asked.clear();
                self.subscribers.clear();
                self.blocked.clear();
                for producer in self.producers.iter_mut().flatten() {
                    producer.next = 1;
                }
            }
            Step::Time { ms } => {
                self.now += Duration::from_millis(ms);
                self.shard.on_tick((self.now, 7));
            }
        }
        self.drive();
    }

    fn publish(&mut self, producer: usize, skew: i64, count: usize, len: usize) {
        let Some(producer) = &mut self.producers[producer] else {
            return;
        };
        let first = producer.next.saturating_add_signed(skew).max(1);
        let last = first + count as u64 - 1;
        producer.next = producer.next.max(last + 1);
        let (index, epoch) = (producer.channel, producer.epoch);
        self.asks += 1;
        self.asked.insert(
            self.asks,
            Asked {
                channel: index,
                epoch,
                first,
                last,
            },
        );
        let payloads = (first..=last)
            .map(|sequence| payload(epoch, sequence, len))
            .collect();
        let new = NewRecords {
            customer: owner(),
            channel: channel(index),
            epoch,
            first_seq: first,
            payloads,
            from: Some(Listener {
                link: 9,
                session: 1,
            }),
        };
        self.shard.publish((self.now, 7), new, self.asks);
    }

    fn nth(&mut self, index: usize) -> Option<&mut Subscriber> {
        let count = self.subscribers.len().max(1);
        self.subscribers.values_mut().nth(index % count)
    }

    /// Lets everything under way end well, with every subscriber consuming.
    fn settle(&mut self) {
        for link in 0..LINKS {
            self.apply(Step::Ready { link });
        }
        self.busy = false;
        for _ in 0..2000 {
            self.apply(Step::Time { ms: 6000 });
            self.apply(Step::Append {
                fails: false,
                reached: true,
            });
            self.apply(Step::Read { fails: false });
            for subscription in 0..self.subscribers.len() {
                self.apply(Step::Consume {
                    subscription,
                    leave: 0,
                });
            }
            if self.shard.is_settled() && self.reads.is_empty() && self.at_head() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn at_head(&self) -> bool {
        self.subscribers.values().all(|s| {
            let stored = self
                .disk
                .entries
                .get(&channel_id(&channel(s.channel)))
                .map_or(0, Vec::len);
            s.last == stored as u64
        })
    }

    fn check(&self) {
        let mut stored = BTreeSet::new();
        for index in 0..CHANNELS {
            let entries = self
                .disk
                .entries
                .get(&channel_id(&channel(index)))
                .map_or(0, Vec::len);
            for offset in 1..=entries as u64 {
                let text = String::from_utf8(self.text(index, offset)).unwrap();
                let mut parts = text.split('/').map(|part| part.parse::<u64>());
                let (epoch, sequence) = (
                    parts.next().unwrap().unwrap(),
                    parts.next().unwrap().unwrap(),
                );
                assert!(
                    stored.insert((index, epoch, sequence)),
                    "stored twice: {text}"
                );
            }
        }
        for acked in &self.acked {
            assert!(
                stored.contains(acked),
                "acknowledged and not stored: {acked:?}"
            );
        }
        assert!(self.asked.is_empty(), "somebody was never answered");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_acknowledged_is_lost_and_nobody_gets_too_much(steps in proptest::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.settle();
        world.check();
    }
}
