//! What a stranger may cost before its handshake is done.
//!
//! ```text
//!   accept ──open──▶ half-open ──admit (first message)──▶ Accept | Challenge ──charge (each step)──▶ close
//!             │                                                  │
//!             └─▶ Refused: too many half-open                    └─▶ Retry with a puzzle: the peer pays first
//! ```
//!
//! TCP has already proven the address, so there is no cookie. Three limits hold together: how many handshakes are
//! open at once (over all, and from one prefix), how many one prefix may start a second, and how much CPU all of them
//! take. The first refuses; the other two ask for a puzzle, so that a stranger behind a noisy prefix still gets in by
//! working for it. An IPv4 /24 and an IPv6 /48 are one prefix each: the least that one customer of a provider holds.
//!
//! Pure: time comes in as an argument. Spec: docs/spec/qstp.md, "Flood".

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Limits of [`Guard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    /// Handshakes open at once.
    pub half_open: usize,
    /// Of these, from one prefix.
    pub half_open_per_prefix: usize,
    /// And never more than so many times the places that are free: however many prefixes press, each may hold less the
    /// more they are, and some places stay free for a prefix that comes late.
    pub greed: usize,
    /// Handshakes a prefix may start each second without a puzzle.
    pub starts_per_s: u32,
    /// The same after a quiet time.
    pub starts_burst: u32,
    /// Prefixes remembered; newcomers beyond it share one entry.
    pub prefixes: usize,
    /// CPU that handshakes may take each second, over all cores, before strangers must solve a puzzle.
    pub cpu_per_s: Duration,
    /// The same after a quiet time.
    pub cpu_burst: Duration,
    /// Leading zero bits of the easiest puzzle.
    pub puzzle_bits_min: u8,
    /// And of the hardest.
    pub puzzle_bits_max: u8,
}

impl Default for GuardConfig {
    /// A node of two cores: a handshake costs the responder about 0.5 ms, so half a core is some 1,000 a second.
    /// 2^14 hashes take a stranger a few milliseconds, 2^20 some hundred.
    fn default() -> Self {
        GuardConfig {
            half_open: 512,
            half_open_per_prefix: 128,
            // Four prefixes get 118 each and leave 40 of 512, sixteen get 31 and leave 10.
            greed: 3,
            starts_per_s: 50,
            starts_burst: 200,
            prefixes: 4096,
            cpu_per_s: Duration::from_millis(500),
            cpu_burst: Duration::from_millis(500),
            puzzle_bits_min: 14,
            puzzle_bits_max: 20,
        }
    }
}

/// Whom a peer's address is counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    /// An IPv4 /24.
    V4([u8; 3]),
    /// An IPv6 /48.
    V6([u8; 6]),
    /// A carrier without addresses, and newcomers when the table is full.
    Shared,
}

impl Prefix {
    /// The prefix of an address; an IPv4 address inside IPv6 counts as IPv4.
    pub fn of(address: IpAddr) -> Prefix {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Prefix::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Prefix::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// Why a connection is closed before a byte is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many handshakes are open as there may be.
    #[error("too many handshakes are open")]
    HalfOpen,
    /// As many as there may be from the peer's prefix, or its share of what is left.
    #[error("too many handshakes are open from this prefix")]
    HalfOpenPrefix,
}

/// What the first message of a handshake gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An answer.
    Accept,
    /// A Retry with a puzzle of this many bits.
    Challenge {
        /// Leading zero bits.
        bits: u8,
    },
}

/// One open handshake; give it back with [`Guard::close`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    prefix: Prefix,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardCounts {
    /// Handshakes begun.
    pub opened: u64,
    /// Refused before a byte was read.
    pub refused: u64,
    /// Asked for a puzzle.
    pub challenged: u64,
    /// Open now.
    pub half_open: usize,
}

#[derive(Debug)]
struct Source {
    starts: Bucket,
    half_open: usize,
}

/// A level in nanoseconds or in starts × 10^9; it may go below zero by what was spent over budget.
#[derive(Debug)]
struct Bucket {
    level: i128,
    burst: i128,
    per_s: i128,
    at: Duration,
}

const UNIT: i128 = 1_000_000_000;

impl Bucket {
    fn full(per_s: i128, burst: i128, now: Duration) -> Bucket {
        Bucket {
            level: burst,
            burst,
            per_s,
            at: now,
        }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_nanos() as i128;
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.per_s / UNIT).min(self.burst);
    }

    /// Debt is bounded by ten bursts, so that a flood's end is felt within seconds.
    fn spend(&mut self, amount: i128) {
        self.level = (self.level - amount).max(-10 * self.burst);
    }

    fn is_full(&self) -> bool {
        self.level == self.burst
    }
}

/// The guard of one listener, or of several that share a budget.
#[derive(Debug)]
pub struct Guard {
    config: GuardConfig,
    sources: BTreeMap<Prefix, Source>,
    swept_at: Duration,
    cpu: Bucket,
    counts: GuardCounts,
}

impl Guard {
    /// A guard with full budgets.
    pub fn new(config: GuardConfig, now: Duration) -> Guard {
        let cpu = Bucket::full(
            config.cpu_per_s.as_nanos() as i128,
            config.cpu_burst.as_nanos() as i128,
            now,
        );
        let counts = GuardCounts::default();
        Guard {
            config,
            sources: BTreeMap::new(),
            swept_at: now,
            cpu,
            counts,
        }
    }

    /// A connection came in. `None` is a carrier without addresses.
    pub fn open(&mut self, now: Duration, from: Option<IpAddr>) -> Result<Ticket, Refused> {
        if self.counts.half_open >= self.config.half_open {
            self.counts.refused += 1;
            return Err(Refused::HalfOpen);
        }
        let prefix = self.known(now, from.map_or(Prefix::Shared, Prefix::of));
        let free = self.config.half_open - self.counts.half_open;
        // A prefix that has none gets one: places that are free are there to be had.
        let share = free.saturating_mul(self.config.greed).max(1);
        let most = self.config.half_open_per_prefix.min(share);
        let source = self.source(now, prefix);
        if source.half_open >= most {
            self.counts.refused += 1;
            return Err(Refused::HalfOpenPrefix);
        }
        source.half_open += 1;
        self.counts.half_open += 1;
        self.counts.opened += 1;
        Ok(Ticket { prefix })
    }

    /// Its first message came in. A puzzle is harder the deeper the budget is overdrawn, a bit for each burst.
    pub fn admit(&mut self, now: Duration, ticket: &Ticket) -> Verdict {
        self.cpu.refill(now);
        let source = self.source(now, ticket.prefix);
        source.starts.refill(now);
        source.starts.spend(UNIT);
        let starts = (source.starts.level, source.starts.burst);
        let over = [starts, (self.cpu.level, self.cpu.burst)]
            .into_iter()
            .filter(|(level, _)| *level < 0)
            .map(|(level, burst)| (-level / burst.max(1)) as u8)
            .max();
        match over {
            None => Verdict::Accept,
            Some(bursts) => {
                self.counts.challenged += 1;
                let bits = self.config.puzzle_bits_min.saturating_add(bursts);
                Verdict::Challenge {
                    bits: bits.min(self.config.puzzle_bits_max),
                }
            }
        }
    }

    /// A step of a handshake took this much CPU.
    pub fn charge(&mut self, now: Duration, cpu: Duration) {
        self.cpu.refill(now);
        self.cpu.spend(cpu.as_nanos() as i128);
    }

    /// The handshake is over, however it ended.
    pub fn close(&mut self, ticket: Ticket) {
        self.counts.half_open -= 1;
        if let Some(source) = self.sources.get_mut(&ticket.prefix) {
            source.half_open -= 1;
        }
    }

    /// Counts since the start.
    pub fn counts(&self) -> GuardCounts {
        self.counts
    }

    /// The entry to count a prefix in: its own, or the shared one when the table is full of busier ones.
    fn known(&mut self, now: Duration, prefix: Prefix) -> Prefix {
        if self.sources.contains_key(&prefix) || self.sources.len() < self.config.prefixes {
            return prefix;
        }
        // A sweep reads the whole table, so a flood of prefixes gets one each second and not one each connection.
        if now >= self.swept_at + Duration::from_secs(1) {
            self.swept_at = now;
            self.sources.retain(|_, source| {
                source.starts.refill(now);
                source.half_open > 0 || !source.starts.is_full()
            });
        }
        if self.sources.len() < self.config.prefixes {
            prefix
        } else {
            Prefix::Shared
        }
    }

    fn source(&mut self, now: Duration, prefix: Prefix) -> &mut Source {
        let per_s = i128::from(self.config.starts_per_s) * UNIT;
        let burst = i128::from(self.config.starts_burst) * UNIT;
        self.sources.entry(prefix).or_insert_with(|| Source {
            starts: Bucket::full(per_s, burst, now),
            half_open: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GuardConfig {
        GuardConfig {
            half_open: 4,
            half_open_per_prefix: 2,
            greed: 3,
            starts_per_s: 1,
            starts_burst: 2,
            prefixes: 3,
            cpu_per_s: Duration::from_millis(100),
            cpu_burst: Duration::from_millis(100),
            puzzle_bits_min: 10,
            puzzle_bits_max: 12,
        }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One handshake from an address: opened, judged, closed.
    fn start(guard: &mut Guard, now: Duration, from: &str) -> Verdict {
        let ticket = guard.open(now, ip(from)).unwrap();
        let verdict = guard.admit(now, &ticket);
        guard.close(ticket);
        verdict
    }

    /// Neighbours count together, an IPv4 address inside IPv6 as the IPv4 address that it is.
    #[test]
    fn prefixes() {
        let of = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), Prefix::V4([192, 0, 2]));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.200"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }

    /// Both caps on open handshakes refuse, and a closed one makes room.
    #[test]
    fn half_open_caps() {
        let mut guard = Guard::new(config(), s(0));
        let first = guard.open(s(0), ip("192.0.2.1")).unwrap();
        let second = guard.open(s(0), ip("192.0.2.2")).unwrap();
        assert_eq!(
            guard.open(s(0), ip("192.0.2.3")),
            Err(Refused::HalfOpenPrefix)
        );
        let third = guard.open(s(0), ip("198.51.100.1")).unwrap();
        let fourth = guard.open(s(0), None).unwrap();
        assert_eq!(guard.open(s(0), ip("203.0.113.1")), Err(Refused::HalfOpen));
        guard.close(first);
        let fifth = guard.open(s(0), ip("192.0.2.3")).unwrap();
        for ticket in [second, third, fourth, fifth] {
            guard.close(ticket);
        }
        let counts = GuardCounts {
            opened: 5,
            refused: 2,
            challenged: 0,
            half_open: 0,
        };
        assert_eq!(guard.counts(), counts);
    }

    /// Strangers from 4, then from 16 prefixes take all they can get and never finish: each has about the same, and an honest
    /// peer from elsewhere still finds a place, as do several.
    #[test]
    fn prefixes_together_leave_places() {
        for hostile in [4u8, 16] {
            let mut guard = Guard::new(GuardConfig::default(), s(0));
            let mut held = vec![0usize; usize::from(hostile)];
            let mut tickets = Vec::new();
            for _ in 0..512 {
                for (n, held) in (0..hostile).zip(&mut held) {
                    if let Ok(ticket) = guard.open(s(0), ip(&format!("10.0.{n}.1"))) {
                        tickets.push(ticket);
                        *held += 1;
                    }
                }
            }
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 1, "{held:?}");
            for honest in 0..4 {
                let place = guard.open(s(0), ip(&format!("192.0.{honest}.1")));
                tickets.push(place.unwrap());
            }
            for ticket in tickets {
                guard.close(ticket);
            }
            assert_eq!(guard.counts().half_open, 0);
        }
    }

    /// A prefix over its rate is challenged, harder the longer it goes on; others are not, and time heals.
    #[test]
    fn rate_of_one_prefix() {
        let mut guard = Guard::new(config(), s(0));
        let noisy: Vec<Verdict> = (0..8)
            .map(|_| start(&mut guard, s(0), "192.0.2.1"))
            .collect();
        let asked = |bits| Verdict::Challenge { bits };
        let expected = [
            Verdict::Accept,
            Verdict::Accept,
            asked(10),
            asked(11),
            asked(11),
            asked(12),
            asked(12),
            asked(12),
        ];
        assert_eq!(noisy, expected);
        assert_eq!(start(&mut guard, s(0), "198.51.100.1"), Verdict::Accept);
        assert_eq!(guard.counts().challenged, 6);
        assert_eq!(start(&mut guard, s(7), "192.0.2.1"), Verdict::Accept);
    }

    /// Once handshakes took more CPU than budgeted, every prefix is challenged until the budget has refilled.
    #[test]
    fn cpu_budget() {
        let mut guard = Guard::new(config(), s(0));
        guard.charge(s(0), Duration::from_millis(100));
        assert_eq!(start(&mut guard, s(0), "192.0.2.1"), Verdict::Accept);
        guard.charge(s(0), Duration::from_millis(150));
        assert_eq!(
            start(&mut guard, s(0), "198.51.100.1"),
            Verdict::Challenge { bits: 11 }
        );
        assert_eq!(
            start(&mut guard, s(1), "198.51.100.1"),
            Verdict::Challenge { bits: 10 }
        );
        assert_eq!(start(&mut guard, s(2), "198.51.100.1"), Verdict::Accept);
        // Debt has a floor: ten bursts, ten seconds here.
        guard.charge(s(2), s(1000));
        assert_eq!(
            start(&mut guard, s(2), "203.0.113.1"),
            Verdict::Challenge { bits: 12 }
        );
        assert_eq!(start(&mut guard, s(13), "203.0.113.1"), Verdict::Accept);
    }

    /// The table is bounded: newcomers share an entry until quiet prefixes are swept out.
    #[test]
    fn table_is_bounded() {
        let mut guard = Guard::new(config(), s(0));
        for n in 0..3 {
            assert_eq!(
                start(&mut guard, s(0), &format!("192.0.{n}.1")),
                Verdict::Accept
            );
        }
        for n in 3..5 {
            assert_eq!(
                start(&mut guard, s(0), &format!("192.0.{n}.1")),
                Verdict::Accept
            );
        }
        assert_eq!(
            start(&mut guard, s(0), "192.0.5.1"),
            Verdict::Challenge { bits: 10 }
        );
        assert!(guard.sources.len() <= 4);
        for n in 6..9 {
            assert_eq!(
                start(&mut guard, s(9), &format!("192.0.{n}.1")),
                Verdict::Accept
            );
        }
        assert!(guard.sources.len() <= 4);
    }

    /// A clock that stands still or steps back neither panics nor refills.
    #[test]
    fn clock_stepping_back() {
        let mut guard = Guard::new(config(), s(10));
        for _ in 0..3 {
            start(&mut guard, s(10), "192.0.2.1");
        }
        assert_eq!(
            start(&mut guard, s(5), "192.0.2.1"),
            Verdict::Challenge { bits: 11 }
        );
    }
}
