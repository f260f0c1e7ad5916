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
/// A shard that brought less lately crowds out nobody. Far less than a flood still brings where dozens of them share a write, or it would be
/// let go whenever it was held back.
const MUCH: u64 = 1 << 17;
/// Nor does one that brings up to so many times what the least busy brings.
const CROWDS: u64 = 8;
/// For so long what was brought is remembered, in two halves.
const RECENT: Duration = Duration::from_millis(500);
/// Who crowds out others is looked into again after so long; with every batch it would cost a look at every shard.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Bytes of one shard, in this window and the one before.
type Brought = [u64; 2];

fn recent(brought: &Brought) -> u64 {
    brought[0] + brought[1]
}

/// The shares of one log's writes.
#[derive(Debug, Default)]
pub struct Shares {
    shards: BTreeMap<ShardNo, Brought>,
    window_end: Duration,
    /// At and above it a shard crowds out others, and what it may then bring.
    verdict: Option<(u64, u64)>,
    judged_until: Duration,
}

impl Shares {
    /// A shard brings so many bytes.
    pub fn note(&mut self, now: Duration, shard: ShardNo, bytes: u64) {
        self.turn(now);
        let brought = self.shards.entry(shard).or_default();
        let new = recent(brought) == 0;
        brought[0] += bytes;
        if new || now >= self.judged_until {
            self.judge(now);
        }
    }

    /// What a shard's next batch may hold; `None`: as much as there is.
    pub fn of(&self, shard: ShardNo) -> Option<u64> {
        let (from, share) = self.verdict?;
        let own = self.shards.get(&shard).map_or(0, recent);
        (own >= from).then_some(share)
    }

    /// Who crowds out others: whoever brings much, and many times what somebody else brings.
    fn judge(&mut self, now: Duration) {
        self.judged_until = now + LOOK_AGAIN;
        let least = self.shards.values().map(recent).filter(|own| *own > 0);
        let from = MUCH.max(least.min().unwrap_or(0).saturating_mul(CROWDS));
        let crowding = self.shards.values().filter(|own| recent(own) >= from);
        let crowding = crowding.count() as u64;
        let others = self.shards.len() as u64 > crowding;
        self.verdict = (crowding > 0 && others).then(|| (from, WRITE_BYTES / crowding));
    }

    /// Begins a new window when it is time. Who brought nothing in either is forgotten.
    fn turn(&mut self, now: Duration) {
        if now < self.window_end {
            return;
        }
        let long_ago = now >= self.window_end + RECENT;
        self.window_end = now + RECENT;
        self.judged_until = now;
        self.shards.retain(|_, brought| {
            *brought = [0, if long_ago { 0 } else { brought[0] }];
            brought[1] > 0
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
        // Every 50 ms each brings 80 to 576 KiB.
        let bring = |shares: &mut Shares, at: u32| {
            for shard in 0..32 {
                shares.note(MS * at, ShardNo(shard), u64::from(shard + 5) << 14);
            }
            (0..32)
                .map(|shard| shares.of(ShardNo(shard)))
                .collect::<Vec<_>>()
        };
        for at in 0..40 {
            assert_eq!(bring(&mut shares, at * 50), [None; 32]);
        }
        shares.note(MS * 2000, ShardNo(99), RECORD);
        assert_eq!(shares.of(ShardNo(99)), None);
        assert!(bring(&mut shares, 2000)[20..].iter().all(Option::is_some));
        for at in 41..61 {
            bring(&mut shares, at * 50);
        }
        assert_eq!(bring(&mut shares, 3100), [None; 32]);
        shares.note(MS * 9000, ShardNo(1), 64 << 20);
        assert_eq!(shares.of(ShardNo(1)), None);
        assert_eq!(shares.shards.len(), 1);
    }
}
