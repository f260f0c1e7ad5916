//! More is brought than is taken, on simulated time: who waits how long, and how much is held meanwhile.
#![allow(
    clippy::print_stdout,
    reason = "the figures are worth reading beside the verdict"
)]

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

// A flood of 192 KiB beside a channel that brings a record each 3 ms, each 50 ms, and never. It rests for eight times as long as a write with a
// share of it took; after half of that a share goes along with a record, after all of it alone. With a record each 3 ms no share ever goes alone.
// Writes of the others alone begin at once, and a flood alone has one write behind the other.
#[test]
fn a_flood_rests() {
    const STEP: Duration = Duration::from_micros(50);
    for every in [Some(60), Some(1000), None] {
        let mut limits = ShardLimits::default();
        limits.flow.rests = 8;
        let mut sim = Sim::new(limits);
        let (much, little) = (named("much"), named("little"));
        let (of_much, of_little) = (sim.epoch(&much), sim.epoch(&little));
        sim.publish(&little, (of_little, 1), 1, 10);
        if every.is_none() {
            sim.until(Duration::from_secs(2));
        }
        let began = sim.now;
        let asks = [1, 97].map(|first| sim.publish(&much, (of_much, first), 96, 1 << 10));
        // From when to when each write with a share was on its way, and whether a record was in it.
        let mut shares: Vec<(Duration, Duration, bool)> = Vec::new();
        let mut record = 1;
        for step in 1..8000 {
            let at = began + STEP * step;
            sim.until(at);
            if every.is_some_and(|every| step % every == 0) {
                record += 1;
                let idle = sim.writing.is_none();
                sim.publish(&little, (of_little, record), 1, 10);
                assert!(!idle || sim.writing.is_some(), "it waits for nothing");
            }
            if let Some((batch, done)) = &sim.writing
                && batch.byte_len() > 4 << 10
                && shares.last().is_none_or(|(_, last, _)| last < done)
            {
                assert!(batch.patience().is_zero());
                let takes =
                    SYNC + Duration::from_micros(batch.byte_len() as u64 / BYTES_A_MICROSECOND);
                shares.push((*done - takes, *done, batch.heads().count() == 2));
            }
        }
        let told: Vec<u64> = sim.answers.iter().map(|(to, ..)| *to).collect();
        assert!(asks.iter().all(|ask| told.contains(ask)), "all is stored");
        assert!(every.is_none() || shares.len() >= 20, "{shares:?}");
        for two in shares.windows(2) {
            let [(start, end, _), (next, _, along)] = two else {
                unreachable!()
            };
            let (pause, took) = (*next - *end, *end - *start);
            let due = match (every, along) {
                (None, _) => Duration::ZERO..=Duration::ZERO,
                // A record's write may be in the way, 1 ms.
                (Some(60), _) => {
                    assert!(along, "{shares:?}");
                    took * 4..=took * 4 + STEP * 60 + SYNC * 2
                }
                (Some(_), true) => took * 4..=took * 8,
                (Some(_), false) => took * 8..=took * 8 + STEP + SYNC * 2,
            };
            assert!(due.contains(&pause), "{every:?}: {pause:?} after {took:?}");
        }
    }
}

// 2.5 MiB are brought at once, and nothing for seconds while they wait, beside a record each 3 ms in the shard, or held back for another one: no
// write has more than a share of them (11 KiB on so slow a disk), but for the last, with what is not much any more.
#[test]
fn a_flood_that_has_stopped_is_one_while_it_waits() {
    for held in [None, Some(8 << 10)] {
        let mut sim = Sim::new(ShardLimits::default());
        let (much, little) = (named("much"), named("little"));
        let (of_much, of_little) = (sim.epoch(&much), sim.epoch(&little));
        match held {
            None => drop(sim.publish(&little, (of_little, 1), 1, 10)),
            Some(bytes) => sim.shard.held_to(Some(Share {
                bytes,
                crowds: true,
                write: SYNC,
            })),
        }
        let asks = (0..10).map(|ask| sim.publish(&much, (of_much, 1 + ask * 256), 256, 1 << 10));
        let last = asks.last().unwrap();
        let mut took = Duration::ZERO;
        for record in 2..3000 {
            sim.until(Duration::from_millis(3) * u32::try_from(record).unwrap());
            if held.is_none() {
                sim.publish(&little, (of_little, record), 1, 10);
            }
            if took.is_zero() && sim.answers.iter().any(|(to, ..)| *to == last) {
                took = sim.now;
            }
        }
        assert!(
            took > Duration::from_secs(1),
            "{took:?}: longer than anybody is remembered"
        );
        assert_eq!(sim.disk.entries[&channel_id(&much)].len(), 2560);
        sim.writes.sort_unstable();
        let [.., second, largest] = sim.writes[..] else {
            panic!("{} writes", sim.writes.len())
        };
        assert!(
            second < 14 << 10 && largest < 34 << 10,
            "{second} {largest}"
        );
    }
}

// A flood that is held back for another shard has brought nothing for more than a second when a record comes to its own: from then on no share of it
// waits in the log, where the record would wait behind it.
#[test]
fn nobody_waits_behind_a_share_that_waits() {
    let mut sim = Sim::new(ShardLimits::default());
    let (much, little) = (named("much"), named("little"));
    let (of_much, of_little) = (sim.epoch(&much), sim.epoch(&little));
    sim.shard.held_to(Some(Share {
        bytes: 8 << 10,
        crowds: true,
        write: SYNC,
    }));
    for ask in 0..10 {
        sim.publish(&much, (of_much, 1 + ask * 256), 256, 1 << 10);
    }
    let (mut record, mut patient, mut shares) = (0, 0, 0);
    for step in 0..13_000 {
        let at = Duration::from_micros(100) * step;
        sim.until(at);
        if at >= Duration::from_millis(1200) && step % 30 == 0 {
            record += 1;
            sim.publish(&little, (of_little, record), 1, 10);
        }
        let Some((batch, _)) = &sim.writing else {
            continue;
        };
        if record == 0 {
            patient += u32::from(!batch.patience().is_zero());
        } else if batch.byte_len() > 4 << 10 {
            shares += 1;
            // The one before may be on its way still.
            assert!(shares == 1 || batch.patience().is_zero(), "{at:?}");
        }
    }
    assert!(patient > 0 && shares > 1, "{patient} {shares}");
}

// A share of so many channels that there is not a byte for each: what waits is stored all the same.
#[test]
fn no_share_is_nothing() {
    let mut limits = ShardLimits::default();
    limits.flow.rests = 0;
    let mut sim = Sim::new(limits);
    sim.shard.held_to(Some(Share {
        bytes: 1,
        crowds: true,
        write: SYNC,
    }));
    let channels = [named("one"), named("two"), named("three")];
    for channel in &channels {
        let epoch = sim.epoch(channel);
        sim.publish(channel, (epoch, 1), 64, 1 << 10);
    }
    for step in 0..600 {
        sim.until(Duration::from_millis(10) * step);
    }
    let stored = channels.map(|channel| sim.disk.entries[&channel_id(&channel)].len());
    assert_eq!(stored, [64; 3]);
}

// One channel keeps 16 publishes of 64 KiB on their way, and 100 ms later another one does the same, which holds the first back at first: soon they have
// the same, and not in small pieces.
#[test]
fn equals_come_to_have_the_same() {
    let mut sim = Sim::new(ShardLimits::default());
    let channels = [named("first"), named("second")];
    let epochs = [0, 1].map(|which| sim.epoch(&channels[which]));
    let (mut on_way, mut sent): (BTreeMap<u64, usize>, [u64; 2]) = (BTreeMap::new(), [0; 2]);
    let mut at_one = [0; 2];
    for ms in 0..2000 {
        sim.until(Duration::from_millis(ms));
        for which in 0..2 {
            let begun = which == 0 || ms >= 100;
            while begun && on_way.values().filter(|who| **who == which).count() < 16 {
                let first = 1 + sent[which] * 64;
                let ask = sim.publish(&channels[which], (epochs[which], first), 64, 1 << 10);
                on_way.insert(ask, which);
                sent[which] += 1;
            }
        }
        while let Some((to, _, result)) = sim.answers.pop_front() {
            assert!(matches!(result, Ok(Stored::Published(_))), "{result:?}");
            on_way.remove(&to);
        }
        sim.signals.clear();
        if ms == 1000 {
            at_one = sent;
        }
    }
    // 25 MB/s in a second are 400 publishes, less what syncs take.
    let [one, two] = [0, 1].map(|which| sent[which] - at_one[which]);
    assert!(one + two >= 300, "{one} and {two}");
    assert!(one * 3 >= two * 2 && two * 3 >= one * 2, "{one} and {two}");
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

// A shard with nothing but a flood is held back for others of the log, where a write takes 1 ms. Its shares are handed to the log after half its rest,
// 4 ms, and may wait there for somebody else's write for the other half. As soon as the shard has another channel they wait here, and what
// that one has waits for nothing.
#[test]
fn a_share_may_wait_for_others_of_the_log() {
    let ms = Duration::from_millis;
    let mut limits = ShardLimits::default();
    limits.flow.rests = 8;
    let mut sim = Sim::new(limits);
    let (much, little) = (named("much"), named("little"));
    let (of_much, of_little) = (sim.epoch(&much), sim.epoch(&little));
    sim.shard.held_to(Some(Share {
        bytes: 16 << 10,
        crowds: true,
        write: ms(1),
    }));
    sim.publish(&much, (of_much, 1), 256, 1 << 10);
    let first = sim.writing.as_ref().unwrap();
    assert!(first.0.patience().is_zero(), "nobody rests at first");
    let done = first.1;
    sim.until(done + ms(4) - Duration::from_micros(1));
    assert!(sim.writing.is_none());
    sim.until(done + ms(4));
    let (waits, done) = sim.writing.as_ref().unwrap();
    assert_eq!(waits.patience(), ms(4));
    let done = *done;
    sim.until(done);
    sim.publish(&little, (of_little, 1), 1, 10);
    let (record, _) = sim.writing.as_ref().unwrap();
    assert!(record.patience().is_zero() && record.byte_len() < 1 << 10);
    sim.until(done + ms(6));
    assert!(sim.writing.is_none(), "it may go along, and nothing came");
    sim.publish(&little, (of_little, 2), 1, 10);
    let (along, _) = sim.writing.as_ref().unwrap();
    assert!(along.patience().is_zero() && along.byte_len() > 8 << 10);
}

// A publish of ten records of which the first share is being written, and one behind it, when the relayer drains: nobody may believe that
// nothing of the first is stored, and nothing is of the second. The same ten sent again later are taken from the third on, once.
#[test]
fn a_publish_in_parts_is_refused_as_unknown() {
    let mut limits = ShardLimits::default();
    (limits.flow.much_bytes, limits.flow.share_bytes) = (1000, 1000);
    let mut sim = Sim::new(limits);
    let (calm, flood) = (named("calm"), named("flood"));
    let (of_calm, of_flood) = (sim.epoch(&calm), sim.epoch(&flood));
    sim.publish(&calm, (of_calm, 1), 1, 10);
    sim.until(Duration::from_millis(5));
    let first = sim.publish(&flood, (of_flood, 1), 10, 500);
    let second = sim.publish(&flood, (of_flood, 11), 1, 500);
    sim.answers.clear();
    sim.shard.drain();
    sim.drive();
    let refused: Vec<_> = sim
        .answers
        .drain(..)
        .map(|(to, _, result)| (to, result))
        .collect();
    let unknown = (first, Err(Refusal::Unavailable));
    assert_eq!(refused, [unknown, (second, Err(Refusal::Draining))]);
    sim.until(Duration::from_millis(10));
    assert_eq!(sim.holdings().unwritten_bytes, 0);
    sim.shard.resume();
    let again = sim.publish(&flood, (of_flood, 1), 10, 500);
    for ms in 11..80 {
        sim.until(Duration::from_millis(ms));
    }
    let published = pqcnet_messages::edge::Published {
        last_seq: 10,
        last_offset: 10,
    };
    let answers: Vec<_> = sim
        .answers
        .drain(..)
        .map(|(to, _, result)| (to, result))
        .collect();
    assert_eq!(answers, [(again, Ok(Stored::Published(published)))]);
    assert_eq!(sim.disk.entries[&channel_id(&flood)].len(), 10);
}
