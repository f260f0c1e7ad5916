//! More is brought than is taken, on simulated time: who waits how long, and how much is held meanwhile.
#![allow(
    clippy::print_stdout,
    reason = "the figures are worth reading beside the verdict"
)]

mod floods;

use std::collections::VecDeque;

use pqcnet_log::Share;

use super::*;
use crate::core::flow::Signal;
use crate::core::shard::Holdings;

/// A synced write costs so much, and then a microsecond for so many bytes.
const SYNC: Duration = Duration::from_millis(1);
const BYTES_A_MICROSECOND: u64 = 25;

/// One shard over a disk that takes its time.
struct Sim {
    shard: Shard<u64>,
    disk: Disk,
    now: Duration,
    writing: Option<(AppendBatch, Duration)>,
    asks: u64,
    /// What became of each publish, and when.
    answers: VecDeque<(u64, Duration, Result<Stored, Refusal>)>,
    signals: VecDeque<Signal>,
    delivered: VecDeque<(SubscriptionKey, u64)>,
    reads: VecDeque<(u64, ReadRequest)>,
    /// Bytes of entries of each write.
    writes: Vec<usize>,
}

impl Sim {
    fn new(limits: ShardLimits) -> Sim {
        let mut sim = Sim {
            shard: Shard::new(SHARD, ShardKeys::new(&MASTER, SHARD), limits),
            disk: Disk::default(),
            now: Duration::ZERO,
            writing: None,
            asks: 0,
            answers: VecDeque::new(),
            signals: VecDeque::new(),
            delivered: VecDeque::new(),
            reads: VecDeque::new(),
            writes: Vec::new(),
        };
        sim.drive();
        sim
    }

    fn drive(&mut self) {
        loop {
            while let Some(effect) = self.shard.poll_effect() {
                match effect {
                    Effect::Open => {
                        let (generation, salts) = (1, vec![(1, [1; 16])]);
                        let opened = Opened { generation, salts };
                        self.shard.on_opened(self.now, Ok((opened, Vec::new())));
                    }
                    Effect::Append(batch) => {
                        self.writes.push(batch.byte_len());
                        let bytes = batch.byte_len() as u64;
                        let takes = SYNC + Duration::from_micros(bytes / BYTES_A_MICROSECOND);
                        self.writing = Some((batch, self.now + takes));
                    }
                    Effect::Reply { to, result } => self.answers.push_back((to, self.now, result)),
                    Effect::Signal { signal, .. } => self.signals.push_back(signal),
                    Effect::Copy { .. } => panic!("nothing is copied"),
                    Effect::Deliver(Delivered::Records { key, records, .. }) => {
                        let offsets = records.iter().map(|record| (key, record.offset));
                        self.delivered.extend(offsets);
                    }
                    Effect::Deliver(Delivered::Read { serial, request }) => {
                        self.reads.push_back((serial, request));
                    }
                    Effect::Deliver(other) => panic!("{other:?}"),
                }
            }
            let Some((serial, request)) = self.reads.pop_front() else {
                return;
            };
            let entries = self.disk.read(request);
            self.shard.on_read(self.now, serial, Ok(entries));
        }
    }

    fn epoch(&mut self, channel: &Channel) -> u64 {
        self.shard.open_producer(owner(), channel, None).unwrap()
    }

    /// Asks for one publish; its number.
    fn publish(
        &mut self,
        channel: &Channel,
        (epoch, first_seq): (u64, u64),
        count: u64,
        len: usize,
    ) -> u64 {
        self.asks += 1;
        let new = NewRecords {
            customer: owner(),
            channel: channel.clone(),
            epoch,
            first_seq,
            payloads: vec![vec![7; len].into(); count as usize],
            from: Some(Listener {
                link: 1,
                session: epoch,
            }),
        };
        let wall_ms = self.now.as_millis() as u64;
        self.shard.publish((self.now, wall_ms), new, self.asks);
        self.drive();
        self.asks
    }

    /// Time goes on to `at`, with every write that ends before.
    fn until(&mut self, at: Duration) {
        while let Some((batch, done)) = self.writing.take_if(|(_, done)| *done <= at) {
            self.now = done;
            self.disk.store(&batch);
            self.shard.on_appended(self.now, Ok(()));
            self.drive();
        }
        self.now = at;
        self.shard.on_tick((at, at.as_millis() as u64));
        self.drive();
    }

    fn holdings(&self) -> Holdings {
        self.shard.holdings()
    }
}

fn named(name: &str) -> Channel {
    Channel {
        owner: owner(),
        name: ChannelName::new(name).unwrap(),
    }
}

/// Eight channels bring a record of 128 bytes each 320 µs, an eighth of what the disk takes. `flood`: another one brings all it is
/// let, in publishes of 64 KiB, eight at a time, and obeys nobody. Returns the p99 of the eight, in microseconds, and what the
/// flood got stored.
fn p99_of_others(share_bytes: u64, rests: u32, flood: bool) -> (u128, u64) {
    const END: Duration = Duration::from_millis(600);
    let mut limits = ShardLimits::default();
    (limits.flow.much_bytes, limits.flow.share_bytes) = (share_bytes, share_bytes);
    limits.flow.rests = rests;
    let mut sim = Sim::new(limits);
    let others: Vec<Channel> = (0..8).map(|n| named(&format!("other-{n}"))).collect();
    let epochs: Vec<u64> = others.iter().map(|channel| sim.epoch(channel)).collect();
    let flooded = named("flood");
    let flooding = sim.epoch(&flooded);
    let mut waiting: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut latencies = Vec::new();
    let (mut on_way, mut next_seq, mut stored) = (BTreeMap::new(), 1, 0);
    for tick in 0.. {
        let at = Duration::from_micros(40) * tick;
        if at >= END {
            break;
        }
        sim.until(at);
        // Each 40 µs another one of the eight.
        let who = tick as usize % 8;
        let sequence = u64::from(tick) / 8 + 1;
        let ask = sim.publish(&others[who], (epochs[who], sequence), 1, 128);
        waiting.insert(ask, at);
        while flood && on_way.len() < 8 {
            let ask = sim.publish(&flooded, (flooding, next_seq), 512, 128);
            on_way.insert(ask, next_seq);
            next_seq += 512;
            if sim.answers.back().is_some_and(|(to, ..)| *to == ask) {
                break;
            }
        }
        while let Some((to, when, result)) = sim.answers.pop_front() {
            if let Some(came) = waiting.remove(&to) {
                assert!(matches!(result, Ok(Stored::Published(_))), "{result:?}");
                // Until the flood is known for one everybody is as fast as it.
                if came >= END / 4 {
                    latencies.push((when - came).as_micros());
                }
            } else if let Some(first) = on_way.remove(&to) {
                match result {
                    Ok(Stored::Published(published)) => stored = stored.max(published.last_seq),
                    // It goes back to the first that was not taken.
                    Err(Refusal::Busy) => next_seq = next_seq.min(first),
                    Err(Refusal::Gap { expected }) => next_seq = next_seq.min(expected),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    latencies.sort_unstable();
    (latencies[latencies.len() * 99 / 100], stored)
}

// One channel floods a shard with as much as it is let; the others' p99 stays within half as long again, and the flood is
// served all the same. Without shares it would be many times as long.
#[test]
fn one_flood_leaves_others_their_latency() {
    let share = 8 << 10;
    let (calm, _) = p99_of_others(share, 0, false);
    let (drowned, _) = p99_of_others(u64::MAX, 0, true);
    println!("p99 of others: {calm} µs, without shares {drowned} µs");
    assert!(
        drowned > calm * 3,
        "the load is none: {calm} µs, {drowned} µs"
    );
    // A share is 64 records, and there is one each write of 1.1 ms; with rests each nine or ten times as long.
    let rests = ShardLimits::default().flow.rests;
    for (rests, least) in [(0, 10_000), (rests, 3_000)] {
        let (flooded, stored) = p99_of_others(share, rests, true);
        println!("with {rests} rests: flooded {flooded} µs; flood stored {stored}");
        assert!(flooded * 2 <= calm * 3, "{calm} µs, then {flooded} µs");
        assert!(stored >= least, "the flood is starved: {stored} records");
    }
}

/// A producer brings three records a millisecond for each that its subscriber takes. Returns the most that was held, and how
/// many records were acknowledged and taken.
fn a_third_is_taken(obeys: bool) -> (u64, u64, u64) {
    const LEN: usize = 100;
    let mut limits = ShardLimits::default();
    limits.delivery.tail_bytes = 8 << 10;
    limits.delivery.held_bytes = 8 << 10;
    limits.flow.channel_bytes = Marks::new(8 << 10, 4 << 10);
    limits.flow.lag_records = Marks::new(600, 300);
    let mut sim = Sim::new(limits);
    let channel = named("c");
    let epoch = sim.epoch(&channel);
    let key = SubscriptionKey {
        link: 1,
        subscription: 1,
    };
    let window = 2 << 10;
    sim.shard
        .subscribe(key, owner(), &channel, 0, window, Series::NONE)
        .unwrap();
    let (mut next, mut acked, mut taken, mut paused) = (1, 0, 0, false);
    let (mut most, mut on_way, mut refused) = (0, BTreeMap::new(), 0);
    let mut unread: VecDeque<u64> = VecDeque::new();
    for ms in 1..=2_400u64 {
        sim.until(Duration::from_millis(ms));
        if ms <= 2_000 && !(obeys && paused) {
            let ask = sim.publish(&channel, (epoch, next), 30, LEN);
            on_way.insert(ask, next);
            next += 30;
        }
        while let Some((to, _, result)) = sim.answers.pop_front() {
            let first = on_way.remove(&to).unwrap();
            match result {
                Ok(Stored::Published(published)) => acked = acked.max(published.last_seq),
                Err(Refusal::Busy) => {
                    refused += 1;
                    next = next.min(first);
                }
                Err(Refusal::Gap { expected }) => next = next.min(expected),
                other => panic!("{other:?}"),
            }
        }
        while let Some(signal) = sim.signals.pop_front() {
            paused = signal.paused.is_some();
        }
        for (_, offset) in sim.delivered.drain(..) {
            assert_eq!(
                offset,
                taken + unread.len() as u64 + 1,
                "in order, without holes"
            );
            unread.push_back(offset);
        }
        for _ in 0..if ms <= 2_000 { 10 } else { 1_000 } {
            if let Some(offset) = unread.pop_front() {
                taken = offset;
            }
        }
        sim.shard.consumed(key, taken);
        sim.drive();
        let holdings = sim.holdings();
        most = most.max(holdings.memory_bytes + unread.len() as u64 * LEN as u64);
        // What it lacks is bounded too: the mark, and what was on its way when that was reached.
        assert!(
            holdings.lag_records <= 600 + (8 << 10) / LEN as u64 + 60,
            "{holdings:?}"
        );
    }
    assert!(!paused, "it was never told to go on");
    assert_eq!(refused > 0, !obeys, "{refused} refusals");
    assert_eq!(sim.holdings().paused_channels, 0);
    (most, acked, taken)
}

// A subscriber takes a third of what is offered. What is held stays within the marks however long that lasts, whether the producer
// obeys (ours do) or not (a former release's: it is refused); what it may bring is what is taken; and nothing that was acknowledged
// is lost.
#[test]
fn memory_is_flat_while_a_third_is_taken() {
    for obeys in [true, false] {
        let (most, acked, taken) = a_third_is_taken(obeys);
        println!("obeys {obeys}: at most {most} bytes held, {acked} acknowledged, {taken} taken");
        // Marks of 8 KiB twice over, a tail and a window of 8 KiB each.
        assert!(most <= 40 << 10, "{most} bytes are held");
        assert_eq!(taken, acked, "acknowledged, and not delivered");
        assert!(
            (19_000..24_000).contains(&acked),
            "{acked}: 20,000 were taken in time"
        );
    }
}

// The log asks a shard to hold its batches to 16 KiB, for others' sake, while one channel of it brings 128 KiB and another a record. The
// first has that much of each write and no more, nothing waits for it, all of it is stored in order; and it has a channel's share of each
// when the log asks no longer.
#[test]
fn a_batch_is_held_to_what_the_log_asks() {
    let mut limits = ShardLimits::default();
    (limits.flow.rests, limits.flow.share_bytes) = (0, 32 << 10);
    let mut sim = Sim::new(limits);
    let (much, little) = (named("much"), named("little"));
    let (of_much, of_little) = (sim.epoch(&much), sim.epoch(&little));
    sim.shard.held_to(Some(Share {
        bytes: 16 << 10,
        crowds: true,
        write: Duration::from_millis(1),
    }));
    // The first write takes what comes first, a record.
    sim.publish(&little, (of_little, 1), 1, 10);
    let asked = sim.publish(&much, (of_much, 1), 128, 1 << 10);
    let beside = sim.publish(&little, (of_little, 2), 1, 10);
    sim.until(Duration::from_millis(2));
    let told = |sim: &Sim, ask| sim.answers.iter().any(|(to, ..)| *to == ask);
    assert_eq!(sim.writes.len(), 2, "{:?}", sim.writes);
    sim.until(Duration::from_millis(4));
    assert!(told(&sim, beside) && !told(&sim, asked));
    // Sixteen records of 1 KiB, what sealing and stamping adds to each, and the other channel's.
    let most = 18 << 10;
    assert!(
        sim.writes.iter().all(|bytes| *bytes < most),
        "{:?}",
        sim.writes
    );
    sim.shard.held_to(None);
    let before = sim.writes.len();
    sim.until(Duration::from_millis(20));
    assert!(told(&sim, asked));
    assert!(sim.writes[before] >= 32 << 10, "{:?}", sim.writes);
    assert_eq!(sim.disk.entries[&channel_id(&much)].len(), 128);
}

// While the shard is full, who publishes to what it does not own is told nothing of it.
#[test]
fn strangers_are_told_nothing() {
    let mut limits = ShardLimits::default();
    limits.flow.shard_bytes = Marks::new(1000, 100);
    let mut sim = Sim::new(limits);
    let own = named("own");
    let epoch = sim.epoch(&own);
    sim.publish(&own, (epoch, 1), 2, 1000);
    assert_eq!(
        sim.signals.pop_front().map(|signal| signal.to.session),
        Some(epoch)
    );
    let mut stranger = NewRecords {
        customer: NodeId::from_bytes([9; 32]),
        channel: own,
        epoch,
        first_seq: 3,
        payloads: vec![vec![7; 10].into()],
        from: Some(Listener {
            link: 2,
            session: 7,
        }),
    };
    for name in [None, Some("x1")] {
        if let Some(name) = name {
            stranger.channel = Channel {
                owner: stranger.customer,
                name: ChannelName::new(name).unwrap(),
            };
        }
        let new = NewRecords {
            payloads: stranger.payloads.clone(),
            channel: stranger.channel.clone(),
            ..stranger
        };
        sim.shard.publish((sim.now, 0), new, 99);
        sim.drive();
        assert!(
            sim.answers
                .pop_back()
                .is_some_and(|(to, _, result)| to == 99 && result.is_err())
        );
        assert!(sim.signals.is_empty(), "{:?}", sim.signals);
    }
}
