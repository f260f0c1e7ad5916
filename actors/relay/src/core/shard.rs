//! One shard: admits publishes, forms batches, acknowledges what is durable. Spec: docs/spec/relay.md.
//!
//! ```text
//!   publish ─▶ next batch (sealed as it is admitted) ─▶ in flight ─▶ durable: acks, then deliveries
//!                         everything admitted while one batch is in flight forms the next
//! ```

mod account;
mod admit;
mod fair;
mod grouped;
mod leave;
mod settle;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_log::{AppendBatch, ChannelHead, ChannelId, Entries, LogError, Opened, ShardNo, Share};
use pqcnet_messages::{Channel, Refusal, Series};

use super::channel::{ChannelState, channel_id};
use super::delivery::{Delivered, Delivery};
use super::flow::{Flow, Signal};
use super::groups::Groups;
use super::pace::Pace;
use super::pending::{Forming, Pending, Stored};
use super::seal::ShardKeys;
use super::subscription::SubscriptionKey;
use super::volume::Written;
pub use types::{Account, Effect, Holdings, NewRecords, ShardLimits};

/// How soon a batch is offered again to a log that was busy.
const BUSY_RETRY: Duration = Duration::from_millis(2);
/// How soon a read is tried again for which the node's pool had no place: what fills it takes about as long.
const READ_RETRY: Duration = Duration::from_millis(20);
/// Epochs of one generation: 24 bits number them.
const EPOCHS: u32 = (1 << 24) - 1;
/// First and longest pause before a failed log is opened again.
const REOPEN_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Ready { generation: u32 },
    Failed { retry_at: Duration },
}

/// The rules of one shard.
pub struct Shard<T> {
    shard: ShardNo,
    limits: ShardLimits,
    keys: ShardKeys,
    phase: Phase,
    /// It was open once, so what it knows of the heads may be served.
    served: bool,
    draining: bool,
    /// The disk has room for more, as far as its watchman can tell.
    room: bool,
    /// Why it is not open: the disk was full.
    full: bool,
    reopen_after: Duration,
    epochs_issued: u32,
    /// How often the shard had moved when it came to this relayer.
    moves: u8,
    channels: BTreeMap<ChannelId, ChannelState>,
    /// Channels with nothing stored, oldest first.
    empty: VecDeque<ChannelId>,
    stored_channels: usize,
    /// The same by customer; none at zero.
    by_customer: BTreeMap<NodeId, usize>,
    batches: u64,
    next: Option<Forming<T>>,
    in_flight: Option<Pending<T>>,
    /// A batch that the log was too busy to take, and when to offer it again.
    stalled: Option<(AppendBatch, Duration)>,
    pending_bytes: usize,
    delivery: Delivery,
    flow: Flow,
    /// What the log asks the next batch to be held to, so that other shards' writes stay short.
    write_share: Option<Share>,
    /// When they have their next share.
    pace: Pace,
    /// Publishes of channels that crowd out others, and wait for their share.
    queues: BTreeMap<ChannelId, VecDeque<fair::Queued<T>>>,
    groups: Groups,
    /// When members are looked at again that others wait behind.
    look_at_members_at: Option<Duration>,
    /// When those are looked at again that hold producers back.
    look_again_at: Option<Duration>,
    /// What is stored and sent is counted for a meter.
    metered: bool,
    written: Written,
    /// Readings that the meter has taken.
    readings: u64,
    /// The first generation that it worked in.
    first_generation: u32,
    /// When reads that found no place are tried again.
    read_again_at: Option<Duration>,
    effects: VecDeque<Effect<T>>,
}

impl<T> Shard<T> {
    /// A shard that knows nothing yet; its first effect is [`Effect::Open`].
    pub fn new(shard: ShardNo, keys: ShardKeys, limits: ShardLimits) -> Self {
        Self {
            shard,
            limits,
            keys,
            phase: Phase::Opening,
            served: false,
            draining: false,
            room: true,
            full: false,
            reopen_after: REOPEN_AFTER.0,
            epochs_issued: 0,
            moves: 0,
            channels: BTreeMap::new(),
            empty: VecDeque::new(),
            stored_channels: 0,
            by_customer: BTreeMap::new(),
            batches: 0,
            next: None,
            in_flight: None,
            stalled: None,
            pending_bytes: 0,
            delivery: Delivery::new(shard, limits.delivery),
            flow: Flow::new(limits.flow),
            write_share: None,
            pace: Pace::default(),
            queues: BTreeMap::new(),
            groups: Groups::new(),
            look_at_members_at: None,
            look_again_at: None,
            metered: false,
            written: Written::default(),
            readings: 0,
            first_generation: 0,
            read_again_at: None,
            effects: VecDeque::from([Effect::Open]),
        }
    }

    /// For a shard that has moved so often: owners of different times issue different epochs.
    #[must_use]
    pub fn moved(mut self, moves: u8) -> Self {
        self.moves = moves;
        self
    }

    /// With an account of what is stored and sent.
    #[must_use]
    pub fn metered(mut self) -> Self {
        self.metered = true;
        self.delivery.meter();
        self
    }

    /// With what groups put aside copied first, to where it outlives the channels' fronts.
    #[must_use]
    pub fn copies_letters(mut self) -> Self {
        self.groups.copy_first();
        self
    }

    // ---- what customers ask

    /// Issues a producer epoch. The one that it supersedes takes nothing more from here on.
    pub fn open_producer(
        &mut self,
        customer: NodeId,
        channel: &Channel,
        supersedes: Option<u64>,
    ) -> Result<u64, Refusal> {
        let generation = self.writable()?;
        if channel.owner != customer {
            return Err(Refusal::NotAllowed);
        }
        let counter = self.epochs_issued + 1;
        if counter > EPOCHS {
            return Err(Refusal::Busy);
        }
        // Generations are stored before they are used, and each owner has a number of moves of its own, so no epoch is ever
        // issued twice.
        let start = (u64::from(generation) << 8) | u64::from(self.moves);
        let epoch = (start << 24) | u64::from(counter);
        let id = self.ensure_channel(channel)?;
        let max = self.limits.producers;
        if let Some(state) = self.channels.get_mut(&id) {
            let fenced = supersedes.and_then(|old| state.producers.fence(old));
            let dropped = state.producers.open(epoch, max);
            state.drop_marks.extend(fenced);
            state.drop_marks.extend(dropped?);
        }
        self.epochs_issued = counter;
        Ok(epoch)
    }

    /// Admits, or refuses with a reply. `to` is answered once, now or when the records are durable.
    pub fn publish(&mut self, (now, wall_ms): (Duration, u64), new: NewRecords, to: T) {
        let id = channel_id(&new.channel);
        let own = new.channel.owner == new.customer && self.channels.contains_key(&id);
        let from = new.from.filter(|_| own);
        let bytes = new
            .payloads
            .iter()
            .map(|payload| payload.len() as u64)
            .sum();
        if self.queues.contains_key(&id) || self.crowds(now, &id, bytes) {
            self.queue(now, id, fair::Queued::new(wall_ms, new, to));
        } else {
            let admission = self.try_publish(now, wall_ms, (id, fair::Charge::Due), new);
            self.answer_publish(admission, to);
        }
        if let Some(from) = from {
            self.flow.heard(now, id, from);
        }
        self.flush(now);
    }

    fn answer_publish(&mut self, admission: Result<admit::Admission, Refusal>, to: T) {
        match admission {
            Ok(admit::Admission::Done(published)) => {
                let result = Ok(Stored::Published(published));
                self.effects.push_back(Effect::Reply { to, result });
            }
            Ok(admit::Admission::Wait { batch, published }) => {
                let waiting = (to, Stored::Published(published));
                let next = self.next.as_mut().map(|next| &mut next.pending);
                let mut pending = next.into_iter().chain(&mut self.in_flight);
                match pending.find(|pending| pending.number == batch) {
                    Some(pending) => pending.waiting.push(waiting),
                    // What is admitted and not durable is in one of the two. If not, unknown is the honest answer.
                    None => self.refuse(waiting.0, Refusal::Unavailable),
                }
            }
            Err(refusal) => self.refuse(to, refusal),
        }
    }

    /// Replaces the readers of one of the customer's channels; answered once it is durable.
    pub fn set_readers(&mut self, now: Duration, channel: &Channel, readers: Vec<NodeId>, to: T) {
        if let Err((to, refusal)) = self.try_set_readers(channel, readers, to) {
            self.refuse(to, refusal);
        }
        self.flush(now);
    }

    /// Starts a subscription to what comes after `after`; returns the channel's durable head.
    pub fn subscribe(
        &mut self,
        key: SubscriptionKey,
        customer: NodeId,
        channel: &Channel,
        after: u64,
        window_bytes: u32,
        series: Series,
    ) -> Result<u64, Refusal> {
        if !self.served {
            return Err(self.not_ready());
        }
        let id = channel_id(channel);
        let id = match self.channels.get(&id) {
            Some(state) if state.about.is_none() => return Err(Refusal::Storage),
            Some(state) if state.may_read(&customer) => id,
            // Whether somebody else's channel exists is not told either.
            Some(_) => return Err(Refusal::NotAllowed),
            None if channel.owner == customer => self.ensure_channel(channel)?,
            None => return Err(Refusal::NotAllowed),
        };
        let state = self.channels.get(&id);
        let (head, admitted) = state.map_or((0, 0), |s| (s.durable.head, s.admitted.head));
        if after > head && after <= admitted {
            // A reader of the log sees a batch as soon as it is synced, which may be before this shard hears of it, or
            // while it waits to read the heads again: the offset may well be one that was delivered.
            return Err(Refusal::Unavailable);
        }
        if after > head {
            let detail = format!("offset {after} is beyond the channel's head {head}");
            return Err(Refusal::Invalid(detail));
        }
        let window = window_bytes as usize;
        if self.groups.is_member(key) {
            return Err(Refusal::Invalid("subscription number in use".to_owned()));
        }
        self.delivery
            .subscribe(key, (customer, series), id, (after, head), window)?;
        Ok(head)
    }

    /// A channel of this shard that the customer may read, and its durable head.
    pub fn readable(
        &self,
        customer: NodeId,
        channel: &Channel,
    ) -> Result<(ChannelId, u64), Refusal> {
        if !self.served {
            return Err(self.not_ready());
        }
        let id = channel_id(channel);
        match self.channels.get(&id) {
            Some(state) if state.about.is_none() => Err(Refusal::Storage),
            Some(state) if state.may_read(&customer) => Ok((id, state.durable.head)),
            // Nothing was ever stored in it.
            None if channel.owner == customer => Ok((id, 0)),
            // Whether somebody else's channel exists is not told either.
            Some(_) | None => Err(Refusal::NotAllowed),
        }
    }

    /// See [`Delivery::consumed`].
    pub fn consumed(&mut self, key: SubscriptionKey, offset: u64) {
        self.delivery.consumed(key, offset);
        self.groups.touched(key);
    }

    /// See [`Delivery::unsubscribe`]. A member of a group leaves it.
    pub fn unsubscribe(&mut self, (now, wall_ms): (Duration, u64), key: SubscriptionKey) {
        self.leave_group(wall_ms, key);
        self.delivery.unsubscribe(key);
        self.regroup(now);
    }

    /// See [`Delivery::drop_link`]. Members of groups leave them.
    pub fn drop_link(&mut self, (now, wall_ms): (Duration, u64), link: u64) {
        for key in self.groups.of_link(link) {
            self.leave_group(wall_ms, key);
        }
        self.delivery.drop_link(link);
        self.flow.drop_link(link);
        self.regroup(now);
    }

    /// A publisher could not be told.
    pub fn untold(&mut self, signal: Signal) {
        self.flow.untold(&signal.channel, signal.to);
    }

    /// So many requests wait in the mailbox.
    pub fn waiting(&mut self, requests: u64) {
        self.flow.waiting(requests);
    }

    /// What the next batch is to hold of channels that bring much, at most; `None`: as much as there is.
    pub fn held_to(&mut self, share: Option<Share>) {
        self.write_share = share;
    }

    /// See [`Delivery::link_blocked`].
    pub fn link_blocked(&mut self, link: u64) {
        self.delivery.link_blocked(link);
    }

    /// See [`Delivery::link_ready`].
    pub fn link_ready(&mut self, link: u64) {
        self.delivery.link_ready(link);
    }

    /// Whether the disk has room. Without it nothing more is admitted; what is admitted goes on, and so do deliveries.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Admits nothing more; what is admitted is still stored and answered.
    pub fn drain(&mut self) {
        self.draining = true;
        self.refuse_queued(&Refusal::Draining);
    }

    /// Goes on after [`Shard::drain`].
    pub fn resume(&mut self) {
        self.draining = false;
    }

    // ---- what the log answers

    /// The log is open, or is not.
    pub fn on_opened(
        &mut self,
        now: Duration,
        result: Result<(Opened, Vec<ChannelHead>), LogError>,
    ) {
        match result {
            Ok((opened, heads)) => {
                self.keys.begin(opened.generation, &opened.salts);
                self.epochs_issued = 0;
                self.restore(&heads);
                self.regroup(now);
                if !self.served {
                    self.first_generation = opened.generation;
                }
                self.served = true;
                self.full = false;
                self.phase = Phase::Ready {
                    generation: opened.generation,
                };
            }
            Err(error) => self.fail(now, error),
        }
    }

    /// The batch in flight is durable, or its fate is unknown.
    pub fn on_appended(&mut self, now: Duration, result: Result<(), LogError>) {
        match result {
            Ok(()) => {
                self.reopen_after = REOPEN_AFTER.0;
                let waits = self.write_share.filter(|share| share.crowds);
                let write = waits.map(|share| share.write);
                self.pace.written(now, self.limits.flow.rests, write);
                if let Some(done) = self.in_flight.take() {
                    self.settle(now, done);
                }
                self.regroup(now);
                self.flush(now);
            }
            Err(error) => self.fail(now, error),
        }
    }

    /// The log was too busy to take the batch; it is offered again.
    pub fn on_log_busy(&mut self, now: Duration, batch: AppendBatch) {
        self.stalled = Some((batch, now + BUSY_RETRY));
    }

    /// See [`Delivery::on_read`].
    pub fn on_read(&mut self, now: Duration, serial: u64, result: Result<Entries, LogError>) {
        self.delivery.on_read(&mut self.keys, serial, result);
        if self.delivery.has_put_off() && self.read_again_at.is_none() {
            self.read_again_at = Some(now + READ_RETRY);
        }
    }

    /// Time passed.
    pub fn on_tick(&mut self, (now, wall_ms): (Duration, u64)) {
        if self.look_at_members_at.is_some_and(|at| at <= now) {
            self.look_at_members(now, wall_ms);
        }
        if let Some((batch, at)) = self.stalled.take() {
            if at <= now {
                self.effects.push_back(Effect::Append(batch));
            } else {
                self.stalled = Some((batch, at));
            }
        }
        if self.shares_again_at().is_some_and(|at| at <= now) {
            self.flush(now);
        }
        if self.read_again_at.is_some_and(|at| at <= now) {
            self.read_again_at = None;
            self.delivery.retry_reads();
        }
        if self.look_again_at.is_some_and(|at| at <= now) {
            self.look_again_at = None;
            for channel in self.flow.lagging() {
                self.judge_lag(now, channel);
            }
        }
        if let Phase::Failed { retry_at } = self.phase
            && retry_at <= now
        {
            self.phase = Phase::Opening;
            self.effects.push_back(Effect::Open);
        }
    }

    // ---- what the shell asks

    /// When [`on_tick`](Self::on_tick) is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        let storing = match self.phase {
            Phase::Failed { retry_at } => Some(retry_at),
            Phase::Opening | Phase::Ready { .. } => self.stalled.as_ref().map(|(_, at)| *at),
        };
        let others = [
            self.shares_again_at(),
            self.read_again_at,
            self.look_again_at,
            self.look_at_members_at,
        ];
        storing
            .into_iter()
            .chain(others.into_iter().flatten())
            .min()
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect<T>> {
        loop {
            if let Some(signal) = self.flow.poll() {
                let about = self.channels.get(&signal.channel);
                if let Some(about) = about.and_then(|state| state.about.as_ref()) {
                    let channel = about.channel.clone();
                    return Some(Effect::Signal { signal, channel });
                }
                continue;
            }
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            let delivered = self.delivery.poll()?;
            if let Delivered::Ended { key, refusal } = &delivered {
                self.member_ended(*key, refusal);
            }
            return Some(Effect::Deliver(delivered));
        }
    }

    /// Nothing admitted waits for the disk.
    pub fn is_settled(&self) -> bool {
        self.next.is_none() && self.in_flight.is_none() && self.queues.is_empty()
    }

    /// One word for a status page.
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Opening => "opening",
            Phase::Ready { .. } if self.draining => "draining",
            Phase::Ready { .. } => "ready",
            Phase::Failed { .. } => "storage failed",
        }
    }

    // ---- within

    fn not_ready(&self) -> Refusal {
        match self.phase {
            _ if self.full => Refusal::NoRoom,
            Phase::Opening if !self.served => Refusal::Unavailable,
            Phase::Opening | Phase::Ready { .. } | Phase::Failed { .. } => Refusal::Storage,
        }
    }

    fn writable(&self) -> Result<u32, Refusal> {
        match self.phase {
            _ if self.draining => Err(Refusal::Draining),
            _ if !self.room => Err(Refusal::NoRoom),
            Phase::Ready { generation } => Ok(generation),
            Phase::Opening | Phase::Failed { .. } => Err(self.not_ready()),
        }
    }

    fn refuse(&mut self, to: T, refusal: Refusal) {
        let result = Err(refusal);
        self.effects.push_back(Effect::Reply { to, result });
    }

    /// The channel's id; it is known from here on, with nothing stored if it is new.
    fn ensure_channel(&mut self, channel: &Channel) -> Result<ChannelId, Refusal> {
        let id = channel_id(channel);
        match self.channels.get(&id) {
            Some(state) if state.about.is_none() => Err(Refusal::Storage),
            Some(_) => Ok(id),
            None => {
                self.channels.insert(id, ChannelState::new(channel.clone()));
                self.empty.push_back(id);
                self.shed_empty_channels();
                Ok(id)
            }
        }
    }

    /// Forgets the oldest channels of which nothing is stored; their producers' epochs become unknown.
    fn shed_empty_channels(&mut self) {
        let mut tries = self.empty.len();
        while self.empty.len() > self.limits.empty_channels && tries > 0 {
            tries -= 1;
            let Some(id) = self.empty.pop_front() else {
                return;
            };
            match self.channels.get(&id) {
                Some(state) if state.about_stored => {}
                Some(_) if self.delivery.watches(&id) => self.empty.push_back(id),
                Some(_) => drop(self.channels.remove(&id)),
                None => {}
            }
        }
    }
}
