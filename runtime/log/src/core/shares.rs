//! What each shard may bring to one write, while others want the log's one writer too.
//!
//! A write holds whatever waits, of all shards, and nobody's batch is durable before the last byte of it is. So a shard with
//! much would make every write long, for everybody. While some shard brings little, those that bring many times as much have
//! [`SHARE`] of a write each, or what they may bring without crowding anybody out; a batch is made that small before it is sealed,
//! and the rest waits with its shard. While all bring about the same, or one is alone, nothing is held back: larger writes are what carries most.
//!
//! Spec: docs/spec/relay.md §8.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{ShardNo, Share};

/// Of a write, what a shard that crowds out others has: little beside what a synced write costs anyway, in bytes. Where most are busy, one that
/// is not is not to cost them what they carry.
pub const SHARE: u64 = 8 << 10;
/// Where all that are held back together would have so much of a write, or less, they have what the least busy one makes of [`CYCLE`].
const WRITE_BYTES: u64 = 32 << 10;
/// From one write with a share to the next, in times of what a write takes, about; and so many times what the least busy one brings meanwhile is
/// no flood yet.
const CYCLE: (u32, u64) = (8, 4);
/// No batch is held to more than this.
const UNBOUNDED: u64 = 1 << 20;
/// A shard that brought less lately crowds out nobody.
const MUCH: u64 = 1 << 15;
/// Nor does one that brings up to so many times what the least busy brings.
const CROWDS: u64 = 8;
/// One that is held back and fills its share goes on to be for so long, while all such bring so many times what the least busy brings.
const HELD: (Duration, u64) = (Duration::from_millis(500), 2);
/// What is brought on average is counted over so long, in two halves.
const RECENT: Duration = Duration::from_millis(500);
/// A flood is known by what it brings in so long: on average it may not have brought much yet.
const SUDDEN: Duration = Duration::from_millis(50);
/// One that brings something now and then counts as present for so many times as long as it usually takes to bring the next, at most
/// twice [`RECENT`]: random arrivals are hardly ever that far apart.
const ABSENT: u32 = 8;
/// Who crowds out others is looked into again after so long; with every batch it would cost a look at every shard.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One batch of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bringing {
    /// All of it.
    pub bytes: u64,
    /// Of channels that crowd out others of the same shard.
    pub crowding: u64,
}

/// What is known of one shard.
#[derive(Debug, Default)]
struct Brought {
    /// Bytes in this window and the one before.
    all: [u64; 2],
    /// Of these, what no channel brought that crowds out others of the shard: how busy the shard's quiet channels are.
    quiet: [u64; 2],
    since: Duration,
    last: Duration,
    /// From one batch to the next, on a moving average of eight.
    usual: Duration,
    /// Bytes since a moment.
    sudden: (Duration, u64),
    /// Until when it counts as one that is held back and has more.
    more_until: Duration,
    crowds: bool,
}

impl Brought {
    /// How long it is that what was brought is counted.
    fn counted(&self, now: Duration, window: Duration) -> Duration {
        let begun = window.saturating_sub(RECENT).max(self.since);
        now.saturating_sub(begun).max(SUDDEN)
    }

    fn is_present(&self, now: Duration) -> bool {
        now <= self.last + (self.usual * ABSENT).min(RECENT * 2)
    }

    /// Bytes a second: what its quiet channels bring on average, and what it brings, on average or of a sudden.
    fn rates(&self, now: Duration, window: Duration) -> (u64, u64) {
        let counted = self.counted(now, window);
        let rate = |bytes: u64, over: Duration| {
            let micros = u64::try_from(over.as_micros()).unwrap_or(u64::MAX);
            bytes.saturating_mul(1_000_000) / micros.max(1)
        };
        let (all, quiet) = (self.all[0] + self.all[1], self.quiet[0] + self.quiet[1]);
        let sudden = if now < self.sudden.0 + SUDDEN {
            self.sudden.1
        } else {
            0
        };
        // Where batches are large and seldom, one more may fall into so short a time than does on average.
        let most = rate(all, counted).max(rate(sudden, SUDDEN * 2));
        (rate(quiet, counted), most)
    }
}

/// The shards whose quiet channels bring the least, and how much a second.
type Least = [Option<(u64, ShardNo)>; 2];

/// What the least busy of the others brings.
fn least_of(least: &Least, shard: ShardNo) -> Option<u64> {
    let mut others = least.iter().flatten();
    Some(others.find(|(_, other)| *other != shard)?.0)
}

/// The shares of one log's writes.
#[derive(Debug, Default)]
pub struct Shares {
    shards: BTreeMap<ShardNo, Brought>,
    window: Duration,
    /// What each may bring that crowds out others.
    share: Option<u64>,
    least: Least,
    judged_until: Duration,
    /// How long a batch takes to be durable, on a moving average of eight.
    write: Duration,
}

impl Shares {
    /// A batch that waited for nobody took so long to be durable.
    pub fn wrote(&mut self, took: Duration) {
        self.write = match self.write {
            Duration::ZERO => took,
            write => (write * 7 + took) / 8,
        };
    }

    /// A shard brings a batch.
    pub fn note(&mut self, now: Duration, shard: ShardNo, batch: Bringing) {
        self.turn(now);
        let share = self.of(shard).filter(|share| share.crowds);
        let mut new = false;
        let brought = self.shards.entry(shard).or_insert_with(|| {
            new = true;
            Brought {
                since: now,
                last: now,
                usual: SUDDEN,
                ..Brought::default()
            }
        });
        let Bringing { bytes, crowding } = batch;
        brought.all[0] += bytes;
        brought.quiet[0] += bytes.saturating_sub(crowding);
        if !new {
            brought.usual = (brought.usual * 7 + now.saturating_sub(brought.last)) / 8;
        }
        brought.last = now;
        if now >= brought.sudden.0 + SUDDEN {
            brought.sudden = (now, 0);
        }
        brought.sudden.1 += bytes;
        if share.is_some_and(|share| bytes >= share.bytes / 2) {
            brought.more_until = now + HELD.0;
        }
        if new || bytes > MUCH || now >= self.judged_until {
            self.judge(now);
        }
    }

    /// What a shard's next batch may hold; `None`: as much as there is. One that does not crowd others out has at most what would make it
    /// one that does: nobody knows of a flood before it is there.
    pub fn of(&self, shard: ShardNo) -> Option<Share> {
        if let (Some(own), Some(bytes)) = (self.shards.get(&shard), self.share)
            && own.crowds
        {
            return Some(Share {
                bytes,
                crowds: true,
                write: self.write,
            });
        }
        let least = least_of(&self.least, shard)?;
        let sudden = least.saturating_mul(CROWDS) / (1_000 / SUDDEN.as_millis() as u64);
        let bytes = sudden.max(MUCH);
        (bytes < UNBOUNDED).then_some(Share {
            bytes,
            crowds: false,
            write: self.write,
        })
    }

    /// Who crowds out others: whoever brings much, and many times what the quiet channels of somebody bring; and who did, is held back and
    /// has more.
    fn judge(&mut self, now: Duration) {
        self.judged_until = now + LOOK_AGAIN;
        let window = self.window;
        let (mut two, mut of_held) = ([None; 2], 0);
        for (shard, own) in &self.shards {
            let (quiet, most) = own.rates(now, window);
            if own.more_until > now {
                of_held += most;
            } else if quiet > 0 && own.is_present(now) {
                let this = (quiet, *shard);
                two = match two {
                    [first, _] if first.is_none_or(|first| this < first) => [Some(this), first],
                    [first, second] if second.is_none_or(|second| this < second) => {
                        [first, Some(this)]
                    }
                    unchanged => unchanged,
                };
            }
        }
        self.least = two;
        let mut crowding = 0;
        for (shard, own) in &mut self.shards {
            own.crowds = least_of(&two, *shard).is_some_and(|least| {
                let much = own.all[0] + own.all[1] >= MUCH;
                let many_times = || own.rates(now, window).1 >= least.saturating_mul(CROWDS);
                let stays = own.more_until > now && of_held >= least.saturating_mul(HELD.1);
                much && (stays || many_times())
            });
            if !own.crowds {
                own.more_until = Duration::ZERO;
            }
            crowding += u64::from(own.crowds);
        }
        let least = two[0].map_or(0, |(least, _)| least);
        let cycle = u64::try_from((self.write * CYCLE.0).as_micros()).unwrap_or(u64::MAX);
        let brings = least.saturating_mul(cycle) / 1_000_000;
        let each = || (brings * CYCLE.1).min(WRITE_BYTES / crowding).max(SHARE);
        self.share = (crowding > 0).then(each);
    }

    /// Begins a new window when it is time. Who brought nothing in either is forgotten.
    fn turn(&mut self, now: Duration) {
        if now < self.window + RECENT {
            return;
        }
        let long_ago = now >= self.window + RECENT * 2;
        self.window = now;
        self.judged_until = now;
        self.shards.retain(|_, own| {
            own.all = [0, if long_ago { 0 } else { own.all[0] }];
            own.quiet = [0, if long_ago { 0 } else { own.quiet[0] }];
            own.all[1] > 0
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
    /// When floods begin.
    const BEGIN: Duration = Duration::from_secs(1);
    /// Of a record that a quiet shard brings now and then.
    const RECORD: u64 = 128;

    fn held(shares: &Shares, shard: ShardNo) -> bool {
        shares.of(shard).is_some_and(|share| share.crowds)
    }

    fn limit(shares: &Shares, shard: ShardNo) -> Option<u64> {
        shares.of(shard).map(|share| share.bytes)
    }

    fn whole(bytes: u64) -> Bringing {
        Bringing { bytes, crowding: 0 }
    }

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
                    shares.note(now, shard, whole(own));
                    assert!(!held(&shares, shard), "a quiet shard is held back");
                }
                bytes += own;
            }
            for (index, flood) in floods.iter().enumerate() {
                if now < BEGIN {
                    break;
                }
                let shard = ShardNo((quiet.len() + index) as u16);
                let own = limit(&shares, shard).filter(|_| shared);
                let own = own.unwrap_or(*flood).min(*flood);
                shares.note(now, shard, whole(own));
                written[index] += own;
                bytes += own;
            }
            if bytes == 0 {
                now = arrives.iter().copied().min().unwrap_or(END);
                continue;
            }
            now += SYNC + micros(bytes);
            let beside = taken.into_iter().filter(|came| *came >= BEGIN);
            latencies.extend(beside.map(|came| now - came));
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
            let write = SYNC + micros(SHARE * floods.len() as u64 + 64 * RECORD);
            let writes = (END - BEGIN).as_micros() / write.as_micros();
            prop_assert!(u128::from(all) >= writes * u128::from(SHARE * floods.len() as u64) * 9 / 10, "{all}");
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
        // Each brings 20 to 144 KiB every 10 ms, or four times that every 50.
        for (every, shift) in [(10, 12), (50, 14)] {
            all_bring_much(every, shift);
        }
    }

    fn all_bring_much(every: u32, shift: u32) {
        let mut shares = Shares::default();
        let bring = |shares: &mut Shares, at: u32| {
            for shard in 0..32 {
                let bytes = u64::from(shard + 5) << shift;
                shares.note(MS * at, ShardNo(shard), whole(bytes));
            }
            (0..32)
                .map(|shard| held(shares, ShardNo(shard)))
                .collect::<Vec<_>>()
        };
        for at in (0..2000).step_by(every as usize) {
            assert_eq!(bring(&mut shares, at), [false; 32], "{at}");
        }
        shares.note(MS * 2000, ShardNo(99), whole(RECORD));
        assert!(!held(&shares, ShardNo(99)));
        assert!(bring(&mut shares, 2000)[20..].iter().all(|held| *held));
        for at in (2000 + every..3100).step_by(every as usize) {
            bring(&mut shares, at);
        }
        assert_eq!(bring(&mut shares, 3100), [false; 32]);
        shares.note(MS * 9000, ShardNo(1), whole(64 << 20));
        assert_eq!(shares.of(ShardNo(1)), None);
        assert_eq!(shares.shards.len(), 1);
    }

    // One shard brings a record each 400 ms, far less often than what was brought is remembered: a flood elsewhere, 1 MiB as often as a
    // slow disk takes it, has one write before it is known, and is held back as long as the other is there; half a second to a second after that no more.
    #[test]
    fn one_that_is_seldom_there_counts() {
        let mut shares = Shares::default();
        let (quiet, flood) = (ShardNo(0), ShardNo(7));
        let mut unheld = Vec::new();
        for at in 0..6000 {
            if at % 400 == 0 && at <= 4000 {
                shares.note(MS * at, quiet, whole(RECORD));
                assert!(!held(&shares, quiet));
            }
            if at >= 1010 && at % 20 == 10 {
                let was_held = held(&shares, flood);
                let more = limit(&shares, flood).unwrap_or(1 << 20);
                shares.note(MS * at, flood, whole(more));
                if !was_held {
                    unheld.push(at);
                }
            }
        }
        assert_eq!(unheld[0], 1010);
        assert!(unheld[1] >= 4500 && unheld[1] <= 5000, "{unheld:?}");
        assert_eq!(unheld.len(), 1 + (5990 - unheld[1] as usize) / 20 + 1);
    }

    // A flood shares a shard with a channel that brings a record each 2 ms, and ends. Another begins elsewhere at that moment: it is held
    // back at once, for all that the first shard brought much just before.
    #[test]
    fn a_flood_that_is_over_hides_none() {
        let mut shares = Shares::default();
        let (first, second) = (ShardNo(0), ShardNo(1));
        for at in (0..2000).step_by(2) {
            let flood = if at < 1000 { 64 << 10 } else { 0 };
            let brings = Bringing {
                bytes: RECORD + flood,
                crowding: flood,
            };
            shares.note(MS * at, first, brings);
            assert!(at > 1000 || !held(&shares, first), "{at}");
            if at >= 1000 {
                let more = limit(&shares, second).unwrap_or(1 << 20);
                shares.note(MS * at, second, whole(more));
                assert!(held(&shares, second), "{at}");
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
            shares.note(MS * at, quiet, whole(RECORD));
            for flood in floods.clone().filter(|flood| at < 3000 || *flood > 1) {
                let flood = ShardNo(flood);
                assert_eq!(held(&shares, flood), at > 0, "{flood:?} at {at}");
                let more = limit(&shares, flood).unwrap_or(1 << 20);
                shares.note(MS * at, flood, whole(more));
            }
        }
        assert!(!held(&shares, ShardNo(1)));
        for at in (6000..7000).step_by(40) {
            shares.note(MS * at, quiet, whole(64 << 10));
            for flood in (2..9).map(ShardNo) {
                let more = limit(&shares, flood).unwrap_or(64 << 10);
                shares.note(MS * at, flood, whole(more));
            }
        }
        assert!((0..9).all(|shard| !held(&shares, ShardNo(shard))));
    }
}
