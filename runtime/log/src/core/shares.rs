//! What each shard may bring to one write, while others want the log's one writer too.
//!
//! A write holds whatever waits, of all shards, and nobody's batch is durable before the last byte of it is. So a shard with
//! much would make every write long, for everybody. While some shard brings little, those that bring many times as much share
//! [`WRITE_BYTES`] of each write among them, equally; a batch is made that small before it is sealed, and the rest waits with
//! its shard. While all bring about the same, or one is alone, nothing is held back: larger writes are what carries most.
//!
//! Spec: docs/spec/relay.md §8.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ShardNo;

/// Of a write, what all shards that crowd out others have together: less than a synced write costs anyway, in bytes.
pub const WRITE_BYTES: u64 = 32 << 10;
/// A shard that brought less lately crowds out nobody.
const MUCH: u64 = 1 << 16;
/// Nor does one that brings up to so many times what the least busy brings.
const CROWDS: u64 = 8;
/// For so long what was brought is remembered, in two halves: short, since a flood is not known for one before it has brought many times what
/// others did in that time.
const RECENT: Duration = Duration::from_millis(100);
/// One that brought little each time counts as present for so long after it.
const PRESENT: Duration = Duration::from_secs(1);
/// That is little, so often on end: the last of much may be little, too.
const LITTLE: (u64, u32) = (WRITE_BYTES / 8, 3);
/// One that is held back and fills its share goes on to be for so long, however little that is.
const HELD: Duration = Duration::from_millis(500);
/// Who crowds out others is looked into again after so long; with every batch it would cost a look at every shard.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is known of one shard.
#[derive(Debug, Default)]
struct Brought {
    /// Bytes in this window and the one before.
    bytes: [u64; 2],
    /// When it last brought some.
    at: Duration,
    /// Batches of little on end.
    little: u32,
    /// Until when it counts as one that is held back and has more.
    more_until: Duration,
    crowds: bool,
}

impl Brought {
    fn recent(&self) -> u64 {
        self.bytes[0] + self.bytes[1]
    }

    /// It brings something these days, if only now and then.
    fn is_present(&self) -> bool {
        self.recent() > 0 || self.little >= LITTLE.1
    }
}

/// The shares of one log's writes.
#[derive(Debug, Default)]
pub struct Shares {
    shards: BTreeMap<ShardNo, Brought>,
    window_end: Duration,
    /// What each may bring that crowds out others.
    share: Option<u64>,
    judged_until: Duration,
}

impl Shares {
    /// A shard brings so many bytes.
    pub fn note(&mut self, now: Duration, shard: ShardNo, bytes: u64) {
        self.turn(now);
        let share = self.of(shard);
        let brought = self.shards.entry(shard).or_default();
        let new = brought.recent() == 0;
        brought.bytes[0] += bytes;
        brought.at = now;
        brought.little = match bytes <= LITTLE.0 {
            true => brought.little.saturating_add(1),
            false => 0,
        };
        if brought.little == LITTLE.1 && brought.more_until <= now {
            // What it brought before is over, and hides no flood elsewhere.
            brought.bytes = [bytes, 0];
        }
        if share.is_some_and(|share| bytes >= share / 2) {
            brought.more_until = now + HELD;
        }
        if new || bytes > WRITE_BYTES || now >= self.judged_until {
            self.judge(now);
        }
    }

    /// What a shard's next batch may hold; `None`: as much as there is.
    pub fn of(&self, shard: ShardNo) -> Option<u64> {
        let crowds = self.shards.get(&shard).is_some_and(|own| own.crowds);
        self.share.filter(|_| crowds)
    }

    /// Who crowds out others: whoever brings much, and many times what the least busy brings; and those that did, are held back and have more,
    /// as long as somebody brings less than all of them.
    fn judge(&mut self, now: Duration) {
        self.judged_until = now + LOOK_AGAIN;
        let held = |own: &Brought| own.more_until > now;
        let present = || self.shards.values().filter(|own| own.is_present());
        // What they bring that are held back says nothing of how busy they are.
        let free = present().filter(|own| !held(own)).map(Brought::recent);
        let Some(least) = free.min() else {
            self.share = None;
            return;
        };
        let from = MUCH.max(least.saturating_mul(CROWDS));
        let of_held: u64 = present().filter(|own| held(own)).map(Brought::recent).sum();
        let (mut crowding, mut others) = (0, false);
        for own in self.shards.values_mut() {
            let stays = own.more_until > now && least <= of_held;
            own.crowds = stays || own.recent() >= from;
            if !own.crowds {
                own.more_until = Duration::ZERO;
            }
            crowding += u64::from(own.crowds);
            others |= !own.crowds && own.is_present();
        }
        self.share = (crowding > 0 && others).then(|| WRITE_BYTES / crowding);
    }

    /// Begins a new window when it is time. Who brought nothing for long is forgotten.
    fn turn(&mut self, now: Duration) {
        if now < self.window_end {
            return;
        }
        let long_ago = now >= self.window_end + RECENT;
        self.window_end = now + RECENT;
        self.judged_until = now;
        self.shards.retain(|_, brought| {
            brought.bytes = [0, if long_ago { 0 } else { brought.bytes[0] }];
            brought.at + PRESENT > now
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// A synced write costs so much, and then a microsecond for so many bytes.
    const SYNC: Duration = Duration::from_millis(2);
    const BYTES_A_MICROSECOND: u64 = 250;
    const END: Duration = Duration::from_secs(4);
    /// Of a record that a quiet shard brings now and then.
    const RECORD: u64 = 128;

    fn micros(bytes: u64) -> Duration {
        Duration::from_micros(bytes / BYTES_A_MICROSECOND)
    }

    /// What came of a run.
    struct Run {
        /// Of the quiet shards' records, from their coming to the end of the write that has them.
        p99: Duration,
        /// What each flooding shard had written.
        written: Vec<u64>,
    }

    /// One writer that takes whatever waits. Quiet shards bring a record each `every` of theirs, flooding ones always have
    /// more than `flood` bytes at hand. A shard has one batch on its way, and makes the next when that is written.
    fn run(quiet: &[Duration], floods: &[u64], shared: bool) -> Run {
        let mut shares = Shares::default();
        let mut limits = vec![None; floods.len()];
        let (mut written, mut latencies) = (vec![0; floods.len()], Vec::new());
        let mut arrives: Vec<Duration> = quiet.iter().map(|every| *every / 3).collect();
        let mut now = Duration::ZERO;
        while now < END {
            let mut bytes = 0;
            let mut taken = Vec::new();
            for (index, next) in arrives.iter_mut().enumerate() {
                let mut own = 0;
                while *next <= now {
                    taken.push(*next);
                    *next += quiet[index];
                    own += RECORD;
                }
                if own > 0 {
                    let shard = ShardNo(index as u16);
                    shares.note(now, shard, own);
                    assert_eq!(shares.of(shard), None, "a quiet shard is held back");
                }
                bytes += own;
            }
            for (index, flood) in floods.iter().enumerate() {
                let own = limits[index].unwrap_or(*flood).min(*flood);
                let shard = ShardNo((quiet.len() + index) as u16);
                shares.note(now, shard, own);
                limits[index] = shares.of(shard).filter(|_| shared);
                written[index] += own;
                bytes += own;
            }
            if bytes == 0 {
                now = arrives.iter().copied().min().unwrap_or(END);
                continue;
            }
            now += SYNC + micros(bytes);
            // Until a flood is known for one, it is as fast as it likes: that is its first write.
            let late = taken.into_iter().filter(|came| *came >= END / 4);
            latencies.extend(late.map(|came| now - came));
        }
        latencies.sort_unstable();
        let p99 = latencies[latencies.len() * 99 / 100];
        Run { p99, written }
    }

    proptest! {
        /// Scenario: two to four shards bring a record each 0.5 to 1.5 ms, so the writer rests as little without the others as with them; one to eight others bring half a MiB to four MiB as fast as
        /// the writer takes it. The quiet ones' p99 is within half as long again of what it is without the others, the others
        /// get the same each, and together no less than their part of each write.
        #[test]
        fn floods_in_other_shards_leave_the_quiet_their_latency(
            quiet in prop::collection::vec(500u64..1500, 2..5),
            floods in prop::collection::vec(1u64..9, 1..9),
        ) {
            let quiet: Vec<Duration> = quiet.into_iter().map(Duration::from_micros).collect();
            let floods: Vec<u64> = floods.into_iter().map(|halves| halves << 19).collect();
            let (calm, flooded) = (run(&quiet, &[], true), run(&quiet, &floods, true));
            prop_assert!(
                flooded.p99 * 2 <= calm.p99 * 3,
                "{:?} alone, {:?} beside them", calm.p99, flooded.p99
            );
            let (least, most) = (flooded.written.iter().min(), flooded.written.iter().max());
            let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
            prop_assert!(most <= least + (16 << 20), "{:?}", flooded.written);
            let all: u64 = flooded.written.iter().sum();
            let write = SYNC + micros(WRITE_BYTES + 64 * RECORD);
            let writes = END.as_micros() / write.as_micros();
            prop_assert!(u128::from(all) >= writes * u128::from(WRITE_BYTES) * 9 / 10, "{all}");
        }
    }

    // The same without shares: the load is one.
    #[test]
    fn without_shares_the_quiet_wait() {
        let quiet = [MS; 2];
        let calm = run(&quiet, &[], false).p99;
        let drowned = run(&quiet, &[4 << 20; 2], false).p99;
        assert!(drowned > calm * 5, "{calm:?}, {drowned:?}");
    }

    // Thirty-two shards that all bring much, none more than eight times another, and one alone: nobody is held back. A quiet one comes, and
    // they share a write; it goes, and a second later nobody is held back any more.
    #[test]
    fn nobody_is_held_back_where_nobody_is_crowded_out() {
        let mut shares = Shares::default();
        // Every 10 ms each brings 20 to 144 KiB.
        let bring = |shares: &mut Shares, at: u32| {
            for shard in 0..32 {
                shares.note(MS * at, ShardNo(shard), u64::from(shard + 5) << 12);
            }
            (0..32)
                .map(|shard| shares.of(ShardNo(shard)))
                .collect::<Vec<_>>()
        };
        for at in 0..200 {
            assert_eq!(bring(&mut shares, at * 10), [None; 32], "{at}");
        }
        shares.note(MS * 2000, ShardNo(99), RECORD);
        assert_eq!(shares.of(ShardNo(99)), None);
        assert!(bring(&mut shares, 2000)[20..].iter().all(Option::is_some));
        for at in 201..320 {
            bring(&mut shares, at * 10);
        }
        assert_eq!(bring(&mut shares, 3200), [None; 32]);
        shares.note(MS * 9000, ShardNo(1), 64 << 20);
        assert_eq!(shares.of(ShardNo(1)), None);
        assert_eq!(shares.shards.len(), 1);
    }

    // One shard brings a record each 400 ms, far less often than what was brought is remembered: a flood elsewhere, 1 MiB as often as a
    // slow disk takes it, has one write before it is known, and is held back as long as the other is there; a second after that no more.
    #[test]
    fn one_that_is_seldom_there_counts() {
        let mut shares = Shares::default();
        let (quiet, flood) = (ShardNo(0), ShardNo(7));
        let mut unheld = Vec::new();
        for at in 0..6000 {
            if at % 400 == 0 && at <= 4000 {
                shares.note(MS * at, quiet, RECORD);
                assert_eq!(shares.of(quiet), None);
            }
            if at >= 1010 && at % 20 == 10 {
                let share = shares.of(flood);
                shares.note(MS * at, flood, share.unwrap_or(1 << 20));
                if share.is_none() {
                    unheld.push(at);
                }
            }
        }
        assert_eq!(unheld[0], 1010);
        assert!(unheld[1] >= 5000 && unheld[1] <= 5300, "{unheld:?}");
        assert_eq!(unheld.len(), 1 + (5990 - unheld[1] as usize) / 20 + 1);
    }

    // A flood shares a shard with a channel that brings a record each 2 ms, and ends. Another begins elsewhere at that moment: it is held
    // back after 10 ms, for all that the first shard brought much just before.
    #[test]
    fn a_flood_that_is_over_hides_none() {
        let mut shares = Shares::default();
        let (first, second) = (ShardNo(0), ShardNo(1));
        for at in (0..2000).step_by(2) {
            let flood = if at < 1000 { 64 << 10 } else { 0 };
            shares.note(MS * at, first, RECORD + flood);
            assert_eq!(shares.of(first), None);
            if at >= 1000 {
                shares.note(MS * at, second, shares.of(second).unwrap_or(1 << 20));
                assert_eq!(shares.of(second).is_some(), at >= 1004, "{at}");
            }
        }
    }

    // Eight floods beside a quiet shard have a write of 20 ms in 40, and 4 KiB of it each: less than what makes a flood, and they stay held
    // back. One that has no more to bring is not held back after a while, and the quiet one is not when it brings as much as all of them.
    #[test]
    fn what_is_held_back_is_not_let_go_for_it() {
        let mut shares = Shares::default();
        let (quiet, floods) = (ShardNo(0), 1..9);
        for at in (0..6000).step_by(40) {
            shares.note(MS * at, quiet, RECORD);
            for flood in floods.clone().filter(|flood| at < 3000 || *flood > 1) {
                let share = shares.of(ShardNo(flood));
                assert_eq!(share.is_some(), at > 0, "{flood} at {at}");
                shares.note(MS * at, ShardNo(flood), share.unwrap_or(1 << 20));
            }
        }
        assert_eq!(shares.of(ShardNo(1)), None);
        for at in (6000..7000).step_by(40) {
            let share = shares.of(quiet);
            shares.note(MS * at, quiet, share.unwrap_or(64 << 10));
            for flood in 2..9 {
                let share = shares.of(ShardNo(flood));
                shares.note(MS * at, ShardNo(flood), share.unwrap_or(64 << 10));
            }
        }
        assert!((0..9).all(|shard| shares.of(ShardNo(shard)).is_none()));
    }
}
