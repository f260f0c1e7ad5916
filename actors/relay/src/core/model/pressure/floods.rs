//! A channel that crowds out others, write by write: when its shares go, how large they are, and who waits for them.

use super::*;

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
