//! What one peer may send in gossip RPCs. Pure: time comes in as an argument.
//!
//! A bucket of *elements* (messages, subscriptions, control messages). A peer that has emptied it is not read until there
//! is something in it again, so its connection pushes back; the pool behind is small enough that an honest burst passes.
//! GRAFTs have a bucket of their own, since each refused one leaves a PRUNE in the peer's queue, where gossipsub keeps up
//! to 20,000 of them.

use std::time::Duration;

use super::super::Offence;

/// Elements at once: a thousand adverts wait for seconds, a few hundred do not.
pub const BURST: u32 = 256;
/// Elements a second.
pub const RATE: u32 = 32;
/// How long a peer may stay over its budget.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// GRAFTs at once: every topic of a network several times over.
pub const GRAFTS: u32 = 64;
/// One more GRAFT each; gossipsub's own back-off between two of a topic is a minute.
pub const GRAFT_EVERY: Duration = Duration::from_secs(30);

const MILLI: i64 = 1000;

/// What one RPC holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages, subscriptions and control messages.
    pub elements: u32,
    /// GRAFTs among them.
    pub grafts: u32,
    /// Bytes of the messages.
    pub bytes: u64,
    /// It holds a control message that the negotiated version does not know.
    pub foreign: bool,
}

/// What becomes of a connection that brought an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Read on.
    Free,
    /// Read on after so long.
    Wait(Duration),
    /// Close this connection: the peer waits on another one already.
    Surplus,
    /// Close them all.
    Offence(Offence),
}

/// What a peer sent in gossip RPCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// RPCs.
    pub rpcs: u64,
    /// Messages, subscriptions and control messages in them.
    pub elements: u64,
    /// Bytes of the messages in them.
    pub bytes: u64,
    /// Times it had to wait because its budget was spent.
    pub throttled: u64,
}

/// One peer's budget, over all its connections.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Thousandths of elements; below zero while it has to wait.
    milli: i64,
    refilled: Duration,
    /// Since when it has not had a quarter of its burst.
    over_since: Option<Duration>,
    /// Which connection waits, and until when.
    waiting: Option<(u64, Duration)>,
    grafts: u32,
    grafts_refilled: Duration,
    sent: Sent,
}

impl Budget {
    /// A full one.
    pub fn new(now: Duration) -> Budget {
        Budget {
            milli: i64::from(BURST) * MILLI,
            refilled: now,
            over_since: None,
            waiting: None,
            grafts: GRAFTS,
            grafts_refilled: now,
            sent: Sent::default(),
        }
    }

    /// What it has sent.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Books an RPC that arrived on a connection.
    pub fn charge(&mut self, now: Duration, connection: u64, load: Load) -> Charge {
        self.refill(now);
        self.sent.rpcs += 1;
        self.sent.elements += u64::from(load.elements);
        self.sent.bytes += load.bytes;
        if load.foreign {
            return Charge::Offence(Offence::Protocol);
        }
        match self.grafts.checked_sub(load.grafts) {
            Some(left) => self.grafts = left,
            None => return Charge::Offence(Offence::Grafts),
        }
        if self.milli >= i64::from(BURST) * MILLI / 4 {
            self.over_since = None;
        }
        // An empty RPC still costs its decoding.
        self.milli -= i64::from(load.elements.max(1)) * MILLI;
        if self.milli >= 0 {
            return Charge::Free;
        }
        self.sent.throttled += 1;
        let over_since = *self.over_since.get_or_insert(now);
        if now.saturating_sub(over_since) > PATIENCE {
            return Charge::Offence(Offence::Flood);
        }
        if let Some((other, until)) = self.waiting
            && other != connection
            && now < until
        {
            return Charge::Surplus;
        }
        let millis = self.milli.unsigned_abs().div_ceil(u64::from(RATE));
        let wait = Duration::from_millis(millis.max(1));
        self.waiting = Some((connection, now + wait));
        Charge::Wait(wait)
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled).as_millis();
        let gained = i64::try_from(passed)
            .unwrap_or(i64::MAX)
            .saturating_mul(i64::from(RATE));
        self.milli = self
            .milli
            .saturating_add(gained)
            .min(i64::from(BURST) * MILLI);
        self.refilled = self.refilled.max(now);
        let due = now.saturating_sub(self.grafts_refilled).as_secs() / GRAFT_EVERY.as_secs();
        if due > 0 {
            let due = u32::try_from(due).unwrap_or(u32::MAX);
            self.grafts = self.grafts.saturating_add(due).min(GRAFTS);
            self.grafts_refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn elements(elements: u32) -> Load {
        Load {
            elements,
            ..Load::default()
        }
    }

    /// A burst passes; then the peer waits as long as its debt takes to refill, and passes again.
    #[test]
    fn burst_then_rate() {
        let mut budget = Budget::new(at(0));
        for _ in 0..BURST {
            assert_eq!(budget.charge(at(0), 1, elements(1)), Charge::Free);
        }
        // One element over: 1/32 s, rounded up.
        assert_eq!(budget.charge(at(0), 1, elements(1)), Charge::Wait(at(32)));
        assert_eq!(budget.charge(at(32), 1, elements(0)), Charge::Wait(at(31)));
        assert_eq!(budget.charge(at(10_000), 1, elements(BURST)), Charge::Free);
        let sent = Sent {
            rpcs: u64::from(BURST) + 3,
            elements: 2 * u64::from(BURST) + 1,
            bytes: 0,
            throttled: 2,
        };
        assert_eq!(budget.sent(), sent);
    }

    /// A flood is borne for a while; a peer that pauses in between is not a flood.
    #[test]
    fn patience_ends() {
        let mut budget = Budget::new(at(0));
        let mut now = at(0);
        let offence = loop {
            match budget.charge(now, 1, elements(BURST)) {
                Charge::Free => {}
                Charge::Wait(wait) => now += wait,
                other => break other,
            }
        };
        assert_eq!(offence, Charge::Offence(Offence::Flood));
        assert!(now > PATIENCE && now < 2 * PATIENCE, "{now:?}");

        let mut budget = Budget::new(at(0));
        for round in 0..20 {
            let start = at(round * 20_000);
            assert_eq!(budget.charge(start, 1, elements(BURST)), Charge::Free);
            let wait = budget.charge(start, 1, elements(1));
            assert!(matches!(wait, Charge::Wait(_)), "{wait:?}");
        }
    }

    /// How long an honest neighbour takes to forward so many messages that it got at once; `None` if it passes for a flood.
    fn backlog(messages: u32) -> Option<Duration> {
        let (mut budget, mut now) = (Budget::new(at(0)), at(0));
        for _ in 0..messages {
            match budget.charge(now, 1, elements(1)) {
                Charge::Free => {}
                Charge::Wait(wait) => now += wait,
                Charge::Surplus | Charge::Offence(_) => return None,
            }
        }
        Some(now)
    }

    /// What an honest network may send: 32 messages a second for ever, each once by each neighbour; the adverts of a thousand
    /// nodes that start in the same second within 24 s, those of two thousand too. More at once would pass for a flood.
    #[test]
    fn what_an_honest_network_may_send() {
        let mut budget = Budget::new(at(0));
        for tick in 0..8 * 3600 {
            let charge = budget.charge(at(125 * tick), 1, elements(RATE / 8));
            assert_eq!(charge, Charge::Free, "{tick}");
        }
        assert_eq!(backlog(BURST), Some(at(0)));
        let thousand = backlog(1_000).unwrap();
        assert!((at(23_000)..at(24_000)).contains(&thousand), "{thousand:?}");
        assert!(backlog(2_000).is_some());
        assert_eq!(backlog(2_300), None);
    }

    /// Of several connections of one peer only one waits with what it has buffered; the rest are closed.
    #[test]
    fn one_connection_waits() {
        let mut budget = Budget::new(at(0));
        let wait = budget.charge(at(0), 1, elements(BURST + RATE));
        assert_eq!(wait, Charge::Wait(at(1000)));
        assert_eq!(budget.charge(at(1), 2, elements(1)), Charge::Surplus);
        assert!(matches!(
            budget.charge(at(2), 1, elements(1)),
            Charge::Wait(_)
        ));
    }

    /// GRAFTs and messages of another version are offences at once.
    #[test]
    fn hostile_control_messages() {
        let mut budget = Budget::new(at(0));
        let graft = |n: u32| Load {
            elements: 0,
            grafts: n,
            ..Load::default()
        };
        assert_eq!(budget.charge(at(0), 1, graft(GRAFTS)), Charge::Free);
        let offence = Charge::Offence(Offence::Grafts);
        assert_eq!(budget.charge(at(29_999), 1, graft(1)), offence);
        assert_eq!(budget.charge(at(30_000), 1, graft(1)), Charge::Free);
        assert_eq!(budget.charge(at(30_000), 1, graft(1)), offence);
        let foreign = Load {
            foreign: true,
            ..Load::default()
        };
        let offence = Charge::Offence(Offence::Protocol);
        assert_eq!(budget.charge(at(30_000), 1, foreign), offence);
    }

    /// A clock that steps back neither refills nor panics.
    #[test]
    fn clock_stepping_back() {
        let mut budget = Budget::new(at(5000));
        assert_eq!(budget.charge(at(5000), 1, elements(BURST)), Charge::Free);
        assert!(matches!(
            budget.charge(at(1000), 1, elements(1)),
            Charge::Wait(_)
        ));
    }
}
