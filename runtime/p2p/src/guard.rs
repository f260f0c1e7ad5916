//! What a stranger may cost before its handshake is done.
//!
//! ```text
//!   accept ──open──▶ waiting ──admit (first message)──▶ Accept | Challenge ──▶ waiting (for the solution)
//!             │         │                                 │                       │
//!             │         └─▶ displaced by newer ones       └──answer (it computes)─┴─▶ answered ──close
//!             └─▶ Refused: too many of this prefix             │                         └─▶ displaced when stale
//!                                                              └─▶ Refused: too many half-open
//! ```
//!
//! TCP has already proven the address, so there is no cookie. These limits hold together: how many connections wait and
//! how many handshakes are under way (over all, and from one prefix), how many one prefix may start a second, and how
//! much CPU all of them take. Rates and CPU ask for a puzzle, so that a stranger behind a noisy prefix still gets in by
//! working for it. Places are never held by saying nothing: whoever is honest speaks within a round trip, so a full house
//! gives the place of whoever has been silent longest to the newcomer, which a slow loris of any size cannot outwait. An
//! IPv4 /24 and an IPv6 /48 are one prefix each: the least that one customer of a provider holds.
//!
//! Pure: time comes in as an argument. Spec: docs/spec/qstp.md, "Flood".

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Limits of [`Guard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    /// Connections that have not yet sent what a handshake needs; of more, the one that is silent longest goes.
    pub waiting: usize,
    /// Handshakes at once that something was computed for.
    pub half_open: usize,
    /// How long such a handshake keeps its place while others want it: more than an honest peer's round trip.
    pub patience: Duration,
    /// Of both kinds together, from one prefix.
    pub half_open_per_prefix: usize,
    /// Handshakes a prefix may start each second without a puzzle.
    pub starts_per_s: u32,
    /// The same after a quiet time.
    pub starts_burst: u32,
    /// Prefixes whose starts are remembered; newcomers beyond it share one rate.
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
            waiting: 8192,
            half_open: 512,
            patience: Duration::from_secs(1),
            half_open_per_prefix: 128,
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
    /// A carrier without addresses; and the rate of newcomers when the table of rates is full.
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
    /// As many handshakes are under way as there may be, none of them stale.
    #[error("too many handshakes are open")]
    HalfOpen,
    /// As many as there may be from the peer's prefix.
    #[error("too many handshakes are open from this prefix")]
    HalfOpenPrefix,
    /// It was silent while newer ones wanted its place.
    #[error("it was silent while others waited for its place")]
    Displaced,
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
    id: u64,
    prefix: Prefix,
}

impl Ticket {
    /// Its number; none comes twice.
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardCounts {
    /// Handshakes begun.
    pub opened: u64,
    /// Refused for want of a place.
    pub refused: u64,
    /// Silent ones that made room for newer ones.
    pub displaced: u64,
    /// Asked for a puzzle.
    pub challenged: u64,
    /// Open now, of both kinds.
    pub half_open: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    prefix: Prefix,
    since: Duration,
    answered: bool,
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
    /// Starts of whoever spoke, until they are as good as forgotten.
    starts: BTreeMap<Prefix, Bucket>,
    places: BTreeMap<u64, Place>,
    /// Places by prefix; none at zero.
    held: BTreeMap<Prefix, usize>,
    /// By the time since which each is in its state, the oldest first.
    waiting: BTreeSet<(Duration, u64)>,
    answered: BTreeSet<(Duration, u64)>,
    last: u64,
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
            starts: BTreeMap::new(),
            places: BTreeMap::new(),
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            answered: BTreeSet::new(),
            last: 0,
            swept_at: now,
            cpu,
            counts,
        }
    }

    /// A connection came in. `None` is a carrier without addresses. Beside its ticket, the number of the one that has to
    /// go for it.
    pub fn open(
        &mut self,
        now: Duration,
        from: Option<IpAddr>,
    ) -> Result<(Ticket, Option<u64>), Refused> {
        let prefix = from.map_or(Prefix::Shared, Prefix::of);
        let held = self.held.get(&prefix).copied().unwrap_or(0);
        if held >= self.config.half_open_per_prefix {
            self.counts.refused += 1;
            return Err(Refused::HalfOpenPrefix);
        }
        let full = self.waiting.len() >= self.config.waiting.max(1);
        let silent = if full { self.waiting.first() } else { None };
        let displaced = silent.map(|(_, id)| *id);
        if let Some(id) = displaced {
            self.displace(id);
        }
        self.last += 1;
        let id = self.last;
        let place = Place {
            prefix,
            since: now,
            answered: false,
        };
        self.places.insert(id, place);
        *self.held.entry(prefix).or_default() += 1;
        self.waiting.insert((now, id));
        self.counts.half_open += 1;
        self.counts.opened += 1;
        Ok((Ticket { id, prefix }, displaced))
    }

    /// It sent what has to be computed on: from now on it holds one of the dear places. The number of the one that has to
    /// go for it, if any.
    pub fn answer(&mut self, now: Duration, ticket: &Ticket) -> Result<Option<u64>, Refused> {
        let Some(place) = self.places.get(&ticket.id).copied() else {
            return Err(Refused::Displaced);
        };
        if place.answered {
            return Ok(None);
        }
        let mut displaced = None;
        if self.answered.len() >= self.config.half_open {
            let oldest = self.answered.first().copied();
            let stale = oldest.filter(|(since, _)| now >= *since + self.config.patience);
            let Some((_, id)) = stale else {
                self.counts.refused += 1;
                return Err(Refused::HalfOpen);
            };
            self.displace(id);
            displaced = Some(id);
        }
        self.move_to(now, ticket.id, true);
        Ok(displaced)
    }

    fn move_to(&mut self, now: Duration, id: u64, answered: bool) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        let key = (place.since, id);
        if place.answered {
            self.answered.remove(&key);
        } else {
            self.waiting.remove(&key);
        }
        (place.since, place.answered) = (now, answered);
        let to = if answered {
            &mut self.answered
        } else {
            &mut self.waiting
        };
        to.insert((now, id));
    }

    fn displace(&mut self, id: u64) {
        self.counts.displaced += 1;
        self.remove(id);
    }

    fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let key = (place.since, id);
        if place.answered {
            self.answered.remove(&key);
        } else {
            self.waiting.remove(&key);
        }
        self.counts.half_open -= 1;
        if let Some(held) = self.held.get_mut(&place.prefix) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&place.prefix);
            }
        }
    }

    /// Its first message came in. A puzzle is harder the deeper the budget is overdrawn, a bit for each burst.
    pub fn admit(&mut self, now: Duration, ticket: &Ticket) -> Verdict {
        self.cpu.refill(now);
        let starts = self.starts_of(now, ticket.prefix);
        starts.refill(now);
        starts.spend(UNIT);
        let starts = (starts.level, starts.burst);
        let over = [starts, (self.cpu.level, self.cpu.burst)]
            .into_iter()
            .filter(|(level, _)| *level < 0)
            .map(|(level, burst)| (-level / burst.max(1)) as u8)
            .max();
        match over {
            None => Verdict::Accept,
            Some(bursts) => {
                self.counts.challenged += 1;
                // Whoever spoke goes behind those that are silent, and has time to solve.
                self.move_to(now, ticket.id, false);
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
        self.remove(ticket.id);
    }

    /// Counts since the start.
    pub fn counts(&self) -> GuardCounts {
        self.counts
    }

    /// The starts of a prefix: its own, or the shared ones while the table is full of busier ones.
    fn starts_of(&mut self, now: Duration, prefix: Prefix) -> &mut Bucket {
        let full = !self.starts.contains_key(&prefix) && self.starts.len() >= self.config.prefixes;
        // A sweep reads the whole table, so a flood of prefixes gets one each second and not one each start.
        if full && now >= self.swept_at + Duration::from_secs(1) {
            self.swept_at = now;
            self.starts.retain(|_, starts| {
                starts.refill(now);
                !starts.is_full()
            });
        }
        let known = !full || self.starts.len() < self.config.prefixes;
        let prefix = if known { prefix } else { Prefix::Shared };
        let per_s = i128::from(self.config.starts_per_s) * UNIT;
        let burst = i128::from(self.config.starts_burst) * UNIT;
        let fresh = || Bucket::full(per_s, burst, now);
        self.starts.entry(prefix).or_insert_with(fresh)
    }
}

#[cfg(test)]
mod tests;
