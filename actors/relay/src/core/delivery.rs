//! Brings each subscriber what is durable, in order, within its window. Spec: docs/spec/relay.md §4.
//!
//! A subscriber near the head is served from the [`Tail`]; one further back by a bounded read of the log, then again.
//! Subscriptions take turns, one delivery each. A link that takes no more parks all of its subscriptions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_log::{ChannelId, Entries, LogError, ReadRequest, ShardNo};
use pqcnet_messages::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Record, Refusal, Series};

use super::seal::{SealError, ShardKeys};
use super::subscription::{Subscription, SubscriptionKey};
use super::tail::Tail;
use super::volume::Carriage;

/// Limits of one shard's deliveries.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryLimits {
    /// Subscriptions at once.
    pub subscriptions: usize,
    /// Bytes of late records kept in memory.
    pub tail_bytes: usize,
    /// Payload bytes in one delivery (one record may exceed it).
    pub deliver_bytes: usize,
    /// Reads of the log under way at once.
    pub reads: usize,
    /// Bytes of records that were read for links which then took no more.
    pub held_bytes: usize,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            subscriptions: 16_384,
            tail_bytes: 2 << 20,
            // A quarter of a frame: several subscribers of a link alternate instead of waiting for megabytes.
            deliver_bytes: MAX_BATCH_BYTES / 4,
            reads: 8,
            held_bytes: 4 << 20,
        }
    }
}

/// What the shell must do for a subscriber.
#[derive(Debug)]
pub enum Delivered {
    /// Send these.
    Records {
        /// To whom.
        key: SubscriptionKey,
        /// Of which channel.
        channel: ChannelId,
        /// At least one, contiguous.
        records: Vec<Record>,
        /// Read from the log: the subscriber was behind.
        late: bool,
    },
    /// Tell the subscriber that nothing more comes.
    Ended {
        /// Whom.
        key: SubscriptionKey,
        /// Why.
        refusal: Refusal,
    },
    /// Read the log and bring the result to [`Delivery::on_read`].
    Read {
        /// For which subscription.
        serial: u64,
        /// What.
        request: ReadRequest,
    },
    /// Somebody should look at this.
    Problem(Problem),
}

/// Something wrong with what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An entry does not open; it was not served.
    #[error("shard {} channel {channel} offset {offset}: {error}", .shard.0)]
    Sealed {
        /// Shard.
        shard: ShardNo,
        /// Channel.
        channel: ChannelId,
        /// Offset; 0 is what is stored about the channel.
        offset: u64,
        /// What was found.
        error: SealError,
    },
    /// What is stored about a channel opens, but is not what this program writes.
    #[error("shard {} channel {channel}: what is stored about it makes no sense", .shard.0)]
    About {
        /// Shard.
        shard: ShardNo,
        /// Channel.
        channel: ChannelId,
    },
    /// The log failed.
    #[error("shard {}: {error}", .shard.0)]
    Log {
        /// Shard.
        shard: ShardNo,
        /// Its words.
        error: LogError,
    },
}

#[derive(Debug, Default)]
struct Watched {
    head: u64,
    serials: Vec<u64>,
}

/// The subscriptions of a shard.
pub struct Delivery {
    shard: ShardNo,
    limits: DeliveryLimits,
    tail: Tail,
    subscriptions: BTreeMap<u64, Subscription>,
    by_key: BTreeMap<SubscriptionKey, u64>,
    watched: BTreeMap<ChannelId, Watched>,
    next_serial: u64,
    /// Those that may have something to get, in turn.
    ready: VecDeque<u64>,
    blocked: BTreeSet<u64>,
    /// Those whose turn came while their link was blocked, by link.
    parked: BTreeMap<u64, Vec<u64>>,
    reads: usize,
    waiting_reads: VecDeque<u64>,
    /// Reads that found no place, until [`Delivery::retry_reads`].
    put_off: BTreeSet<u64>,
    held: BTreeMap<u64, Vec<Record>>,
    held_bytes: usize,
    /// What was sent to whom, where that is metered.
    carriage: Option<Carriage>,
    out: VecDeque<Delivered>,
}

impl Delivery {
    /// No subscriptions yet.
    pub fn new(shard: ShardNo, limits: DeliveryLimits) -> Self {
        Self {
            shard,
            limits,
            tail: Tail::new(limits.tail_bytes),
            subscriptions: BTreeMap::new(),
            by_key: BTreeMap::new(),
            watched: BTreeMap::new(),
            next_serial: 0,
            ready: VecDeque::new(),
            blocked: BTreeSet::new(),
            parked: BTreeMap::new(),
            reads: 0,
            waiting_reads: VecDeque::new(),
            put_off: BTreeSet::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            carriage: None,
            out: VecDeque::new(),
        }
    }

    /// Counts from here on what is sent.
    pub fn meter(&mut self) {
        self.carriage = Some(Carriage::default());
    }

    /// What was sent to whom, where that is metered.
    pub fn carriage(&mut self) -> Option<&mut Carriage> {
        self.carriage.as_mut()
    }

    /// Starts a subscription to what comes after `after` in a channel whose durable head is `head`.
    pub fn subscribe(
        &mut self,
        key: SubscriptionKey,
        customer: (NodeId, Series),
        channel: ChannelId,
        (after, head): (u64, u64),
        window_bytes: usize,
    ) -> Result<(), Refusal> {
        if self.by_key.contains_key(&key) {
            return Err(Refusal::Invalid("subscription number in use".to_owned()));
        }
        if self.subscriptions.len() >= self.limits.subscriptions {
            return Err(Refusal::Busy);
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let subscription = Subscription::new(key, channel, customer, after, window_bytes);
        if let Some(carriage) = &mut self.carriage {
            carriage.begin(subscription.series_key(), key, after);
        }
        self.subscriptions.insert(serial, subscription);
        self.by_key.insert(key, serial);
        let watched = self.watched.entry(channel).or_default();
        watched.head = head;
        watched.serials.push(serial);
        self.enqueue(serial);
        Ok(())
    }

    /// The subscriber dealt with everything up to `offset`.
    pub fn consumed(&mut self, key: SubscriptionKey, offset: u64) {
        let Some(&serial) = self.by_key.get(&key) else {
            return; // it ended while the message was on its way
        };
        let subscription = self.subscriptions.get_mut(&serial);
        match subscription.map(|s| s.consumed(offset)) {
            Some(Ok(())) | None => self.enqueue(serial),
            Some(Err(_)) => {
                let detail = "consumed an offset that was not delivered".to_owned();
                self.end(serial, Refusal::Invalid(detail));
            }
        }
    }

    /// Ends a subscription at its subscriber's wish.
    pub fn unsubscribe(&mut self, key: SubscriptionKey) {
        if let Some(&serial) = self.by_key.get(&key) {
            self.remove(serial);
        }
        if let Some(carriage) = &mut self.carriage {
            carriage.leave(key);
        }
    }

    /// The link is gone, and everything on it.
    pub fn drop_link(&mut self, link: u64) {
        let from = SubscriptionKey {
            link,
            subscription: 0,
        };
        let to = SubscriptionKey {
            link,
            subscription: u32::MAX,
        };
        let gone: Vec<u64> = self
            .by_key
            .range(from..=to)
            .map(|(_, serial)| *serial)
            .collect();
        for serial in gone {
            self.remove(serial);
        }
        if let Some(carriage) = &mut self.carriage {
            carriage.drop_link(link);
        }
        self.blocked.remove(&link);
        self.parked.remove(&link);
    }

    /// Ends the subscriptions of a channel whose customers may no longer read it.
    pub fn retain(&mut self, channel: &ChannelId, may_read: impl Fn(&NodeId) -> bool) {
        let serials = self.watched.get(channel).map(|w| w.serials.clone());
        for serial in serials.unwrap_or_default() {
            if self
                .subscriptions
                .get(&serial)
                .is_some_and(|s| !may_read(&s.customer))
            {
                self.end(serial, Refusal::NotAllowed);
            }
        }
    }

    /// A record became durable.
    pub fn push(&mut self, channel: ChannelId, record: Record) {
        self.tail.push(channel, record);
    }

    /// The channel is durable up to `head`.
    pub fn advance(&mut self, channel: &ChannelId, head: u64) {
        if let Some(watched) = self.watched.get_mut(channel) {
            watched.head = head;
            for serial in watched.serials.clone() {
                self.enqueue(serial);
            }
        }
    }

    /// How far the furthest behind is of those that hold a channel's producers back.
    pub fn lag_of(&mut self, now: Duration, channel: &ChannelId, near: u64) -> u64 {
        let Some(watched) = self.watched.get(channel) else {
            return 0;
        };
        let behind = watched.serials.iter().map(|serial| {
            let subscription = self.subscriptions.get_mut(serial);
            subscription.map_or(0, |s| s.lag(now, watched.head, near))
        });
        behind.max().unwrap_or(0)
    }

    /// How far a subscription was given records.
    pub fn delivered(&self, key: SubscriptionKey) -> Option<u64> {
        let serial = self.by_key.get(&key)?;
        Some(self.subscriptions.get(serial)?.delivered)
    }

    /// Bytes of records held in memory, for subscribers near the head and on their way to others.
    pub fn memory(&self) -> usize {
        self.tail.bytes() + self.held_bytes
    }

    /// The link takes no more until [`link_ready`](Self::link_ready).
    pub fn link_blocked(&mut self, link: u64) {
        self.blocked.insert(link);
    }

    /// The link takes more.
    pub fn link_ready(&mut self, link: u64) {
        self.blocked.remove(&link);
        // They never ceased to be queued, only where changed.
        self.ready
            .extend(self.parked.remove(&link).unwrap_or_default());
    }

    /// Whether anyone subscribes to the channel.
    pub fn watches(&self, channel: &ChannelId) -> bool {
        self.watched.contains_key(channel)
    }

    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Stored records that still wait to be sent to the subscription furthest behind.
    pub fn lag(&self) -> u64 {
        let behind = self.subscriptions.values().map(|subscription| {
            let watched = self.watched.get(&subscription.channel);
            let head = watched.map_or(0, |watched| watched.head);
            head.saturating_sub(subscription.delivered)
        });
        behind.max().unwrap_or(0)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// The next thing to do; `None` when everyone is served as far as can be.
    pub fn poll(&mut self) -> Option<Delivered> {
        loop {
            if let Some(out) = self.out.pop_front() {
                return Some(out);
            }
            let serial = self.ready.pop_front()?;
            self.serve(serial);
        }
    }

    /// A read is done.
    pub fn on_read(
        &mut self,
        keys: &mut ShardKeys,
        serial: u64,
        result: Result<Entries, LogError>,
    ) {
        self.reads -= 1;
        self.start_waiting_reads();
        let Some(subscription) = self.subscriptions.get_mut(&serial) else {
            return;
        };
        subscription.reading = false;
        let channel = subscription.channel;
        let entries = match result {
            Ok(entries) => entries,
            // Not read is not unreadable: the node's pool had no place for it.
            Err(LogError::Busy) => {
                self.put_off.insert(serial);
                return;
            }
            Err(error) => {
                let shard = self.shard;
                self.out
                    .push_back(Delivered::Problem(Problem::Log { shard, error }));
                self.end(serial, Refusal::Storage);
                return;
            }
        };
        let next = subscription.delivered + 1;
        let (records, damage) = open_entries(keys, &channel, entries);
        // The front was trimmed, before it subscribed or from under it: it is told, and goes on as it sees fit.
        if let Some(first) = records.first().map(|record| record.offset)
            && first > next
        {
            self.end(serial, Refusal::FrontGone { first });
            return;
        }
        if let Some((offset, error)) = damage.filter(|_| records.is_empty()) {
            let shard = self.shard;
            let problem = Problem::Sealed {
                shard,
                channel,
                offset,
                error,
            };
            self.out.push_back(Delivered::Problem(problem));
            self.end(serial, Refusal::Storage);
            return;
        }
        let bytes = records.iter().map(|r| r.payload.len()).sum::<usize>();
        let link = subscription.key.link;
        // Held only for as long as its turn takes, unless the link is blocked: then within a bound, or read again.
        if !self.blocked.contains(&link) || self.held_bytes + bytes <= self.limits.held_bytes {
            self.held_bytes += bytes;
            self.held.insert(serial, records);
        }
        self.enqueue(serial);
    }

    /// Whether reads wait to be tried again.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Tries those again that found no place.
    pub fn retry_reads(&mut self) {
        for serial in std::mem::take(&mut self.put_off) {
            self.enqueue(serial);
        }
    }

    fn enqueue(&mut self, serial: u64) {
        if let Some(subscription) = self.subscriptions.get_mut(&serial)
            && !subscription.queued
        {
            subscription.queued = true;
            self.ready.push_back(serial);
        }
    }

    /// One turn of one subscription: at most one delivery or one read.
    fn serve(&mut self, serial: u64) {
        let Some(subscription) = self.subscriptions.get_mut(&serial) else {
            return;
        };
        let key = subscription.key;
        if self.blocked.contains(&key.link) {
            // Still marked as queued: it waits in the link's list instead.
            self.parked.entry(key.link).or_default().push(serial);
            return;
        }
        subscription.queued = false;
        if subscription.reading {
            return;
        }
        let (channel, after) = (subscription.channel, subscription.delivered);
        let head = self.watched.get(&channel).map_or(0, |w| w.head);
        if subscription.room().is_none() {
            self.drop_held(serial);
            return;
        }
        let max_bytes = self.limits.deliver_bytes;
        let mut taken = Vec::new();
        let held = self.held.remove(&serial);
        if let Some(held) = &held {
            self.held_bytes -= held.iter().map(|r| r.payload.len()).sum::<usize>();
            taken = subscription.take(held.iter(), MAX_BATCH_RECORDS, max_bytes);
        }
        if taken.is_empty() && held.is_none() {
            if after >= head {
                return;
            }
            if self.tail.after(&channel, after).next().is_none() {
                subscription.reading = true;
                self.waiting_reads.push_back(serial);
                self.start_waiting_reads();
                return;
            }
            let late = self.tail.after(&channel, after);
            taken = subscription.take(late, MAX_BATCH_RECORDS, max_bytes);
        }
        if taken.is_empty() {
            return; // the next record does not fit before something is consumed
        }
        let more = subscription.delivered < head;
        let records = taken;
        if let Some(carriage) = &mut self.carriage {
            carriage.sent(&subscription.series_key(), &records);
        }
        self.out.push_back(Delivered::Records {
            key,
            channel,
            records,
            late: held.is_some(),
        });
        if more {
            self.enqueue(serial);
        }
    }

    fn start_waiting_reads(&mut self) {
        while self.reads < self.limits.reads
            && let Some(serial) = self.waiting_reads.pop_front()
        {
            let Some(subscription) = self.subscriptions.get(&serial) else {
                continue;
            };
            self.reads += 1;
            let room = subscription.room().unwrap_or(1);
            let request = ReadRequest {
                shard: self.shard,
                channel: subscription.channel,
                after: subscription.delivered,
                max_records: MAX_BATCH_RECORDS,
                max_bytes: room.min(self.limits.deliver_bytes),
            };
            self.out.push_back(Delivered::Read { serial, request });
        }
    }

    fn drop_held(&mut self, serial: u64) {
        if let Some(held) = self.held.remove(&serial) {
            self.held_bytes -= held.iter().map(|r| r.payload.len()).sum::<usize>();
        }
    }

    fn end(&mut self, serial: u64, refusal: Refusal) {
        if let Some(key) = self.remove(serial) {
            self.out.push_back(Delivered::Ended { key, refusal });
        }
    }

    fn remove(&mut self, serial: u64) -> Option<SubscriptionKey> {
        self.drop_held(serial);
        let subscription = self.subscriptions.remove(&serial)?;
        self.by_key.remove(&subscription.key);
        if let Some(carriage) = &mut self.carriage {
            carriage.end(&subscription.series_key(), subscription.key);
        }
        if let Some(watched) = self.watched.get_mut(&subscription.channel) {
            watched.serials.retain(|s| *s != serial);
            if watched.serials.is_empty() {
                self.watched.remove(&subscription.channel);
            }
        }
        Some(subscription.key)
    }
}

/// Opens what was read, up to the first entry that does not open.
fn open_entries(
    keys: &mut ShardKeys,
    channel: &ChannelId,
    entries: Entries,
) -> (Vec<Record>, Option<(u64, SealError)>) {
    let Entries { mut buffer, items } = entries;
    let mut opened = Vec::with_capacity(items.len());
    let mut damage = None;
    for (offset, place) in items {
        let sealed = &mut buffer[place.clone()];
        match keys.open(channel, offset, sealed) {
            // An entry's text starts with its time; shorter than that we never wrote.
            Ok(text) if text.len() >= 8 => {
                opened.push((offset, place.start + text.start..place.start + text.end));
            }
            Ok(text) => damage = Some((offset, SealError::TooShort { got: text.len() })),
            Err(error) => damage = Some((offset, error)),
        }
        if damage.is_some() {
            break;
        }
    }
    let buffer = buffer.freeze();
    let records = opened.into_iter().map(|(offset, text)| {
        let mut at = [0; 8];
        at.copy_from_slice(&buffer[text.start..text.start + 8]);
        Record {
            offset,
            published_at_ms: u64::from_be_bytes(at),
            payload: buffer.slice(text.start + 8..text.end),
        }
    });
    (records.collect(), damage)
}
