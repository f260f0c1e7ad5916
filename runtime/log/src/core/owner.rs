//! The one writer of a shard: what goes to the broker at once, what waits in the spill, what is acknowledged when.
//!
//! Records are numbered 1, 2, 3, … for the shard's whole life. Those up to [`Owner::through`] are in the stream and settled
//! locally; all after it but the newest lie in the local spill, synced. The newest may be on its way in memory alone, and
//! then its caller waits.
//!
//! ```text
//!   Down ──joined──▶ Joined ──cut──▶ Down            nack, return: a new channel, a new writer epoch
//!                      │  nothing waits: publish the append at once, acknowledge when it is confirmed and settled
//!                      └─ else: spill it, acknowledge when that is synced, publish in order behind what waits
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::ledger::Ledger;

/// Limits of one shard.
#[derive(Debug, Clone, Copy)]
pub struct OwnerLimits {
    /// Records published and not confirmed: enough to keep a broker busy across a sync, little to publish again.
    pub records_in_flight: usize,
    /// Bytes published and not confirmed, past which no further record is; the client's buffer holds them.
    pub bytes_in_flight: u64,
    /// Records that may wait in the spill.
    pub spilled: u64,
    /// An append that the broker has not confirmed by then is spilled: it is behind.
    pub behind_after: Duration,
}

impl Default for OwnerLimits {
    fn default() -> Self {
        Self {
            records_in_flight: 64,
            bytes_in_flight: 4 << 20,
            // At a batch a millisecond a quarter of an hour, at 1 MiB a batch a full disk first.
            spilled: 1 << 20,
            behind_after: Duration::from_secs(2),
        }
    }
}

/// What the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Get a channel that holds the shard's lock, claim a new writer epoch on it, then [`Owner::joined`]. Give up any
    /// former channel first.
    Join,
    /// Publish a record, its first message with this sequence, then [`Owner::published`].
    Publish {
        /// Which.
        record: u64,
        /// Where its messages begin in the writer epoch.
        sequence: u64,
        /// It lies in the spill; else its append has it.
        spilled: bool,
    },
    /// Write the appended record to the spill, synced, then [`Owner::spilled`].
    Spill {
        /// Which.
        record: u64,
    },
    /// The record is in the stream: write that down and drop it from the spill, synced, then [`Owner::settled`].
    Settle {
        /// Which.
        record: u64,
        /// Under which writer epoch.
        epoch: u64,
        /// Where its messages begin.
        sequence: u64,
    },
    /// The append is durable.
    Acknowledge {
        /// Which.
        record: u64,
    },
    /// The append is of unknown fate: the local store failed.
    Fail {
        /// Which.
        record: u64,
    },
}

/// Why an append is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// An append is under way, or the spill is full: later.
    Busy,
    /// The local store failed, or somebody else holds the shard: start anew.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Joined,
    /// Somebody else holds the shard, or the local store failed.
    Over,
}

/// The append under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// On its way to the broker since then; nowhere else yet.
    Direct(Duration),
    /// On its way to the spill.
    Spilling,
}

/// The state of a shard's writer.
#[derive(Debug)]
pub struct Owner {
    limits: OwnerLimits,
    phase: Phase,
    epoch: u64,
    /// In the stream and settled, contiguous.
    through: u64,
    /// Highest number given out.
    last: u64,
    pending: Option<Pending>,
    /// Highest record that the broker confirmed, with all before it; it may not be settled yet.
    confirmed: u64,
    /// Highest record handed to the channel of this epoch.
    sent: u64,
    /// A record is being published; its messages are not counted yet.
    publishing: bool,
    /// Last sequence of this epoch.
    sequence: u64,
    ledger: Ledger,
    effects: VecDeque<Effect>,
}

impl Owner {
    /// A writer that knows from its local store what is settled and, up to `last`, spilled. It asks to join at once.
    pub fn new(limits: OwnerLimits, through: u64, last: u64) -> Self {
        Self {
            limits,
            phase: Phase::Down,
            epoch: 0,
            through,
            last,
            pending: None,
            confirmed: through,
            sent: through,
            publishing: false,
            sequence: 0,
            ledger: Ledger::default(),
            effects: VecDeque::from([Effect::Join]),
        }
    }

    /// Highest record that is in the stream and settled.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Highest record that the broker confirmed, with all before it.
    pub fn confirmed_through(&self) -> u64 {
        self.confirmed
    }

    /// Highest record handed to the present channel.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Records that wait for the broker.
    pub fn waiting(&self) -> u64 {
        self.last - self.through
    }

    /// The writer epoch that counts; 0 when none does.
    pub fn epoch(&self) -> u64 {
        match self.phase {
            Phase::Joined => self.epoch,
            Phase::Down | Phase::Over => 0,
        }
    }

    /// Whether nothing more can be appended before a new start.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether an append is under way.
    pub fn is_appending(&self) -> bool {
        self.pending.is_some()
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Owner::on_tick`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.pending {
            Some(Pending::Direct(since)) if self.confirmed < self.last => {
                Some(since + self.limits.behind_after)
            }
            Some(Pending::Direct(_) | Pending::Spilling) | None => None,
        }
    }

    /// Takes a record; returns its number.
    ///
    /// # Errors
    /// It is not taken, and nothing of it will be found.
    pub fn append(&mut self, now: Duration) -> Result<u64, Refused> {
        if self.phase == Phase::Over {
            return Err(Refused::Over);
        }
        if self.pending.is_some() || self.waiting() >= self.limits.spilled {
            return Err(Refused::Busy);
        }
        let direct = self.phase == Phase::Joined && self.waiting() == 0;
        self.last += 1;
        let record = self.last;
        if direct {
            self.pending = Some(Pending::Direct(now));
            self.publish_next();
        } else {
            self.spill(record);
        }
        Ok(record)
    }

    fn spill(&mut self, record: u64) {
        self.pending = Some(Pending::Spilling);
        self.effects.push_back(Effect::Spill { record });
    }

    /// The appended record is in the spill, or that failed.
    pub fn spilled(&mut self, record: u64, well: bool) {
        if self.pending != Some(Pending::Spilling) || record != self.last {
            return;
        }
        if !well {
            return self.fail();
        }
        self.pending = None;
        self.effects.push_back(Effect::Acknowledge { record });
        self.publish_next();
    }

    /// A channel holds the lock, and its claim of `epoch` is confirmed as its first message.
    pub fn joined(&mut self, epoch: u64) {
        if self.phase != Phase::Down {
            return;
        }
        self.phase = Phase::Joined;
        self.epoch = epoch;
        self.sent = self.confirmed;
        self.sequence = 0;
        self.publishing = false;
        self.ledger = Ledger::new(1);
        self.publish_next();
    }

    /// Somebody else holds the shard's lock or has written to its stream. What is under way is still spilled, nothing more
    /// is taken.
    pub fn locked_out(&mut self) {
        self.fail();
    }

    /// The record asked for is handed to the channel, as so many messages and bytes.
    pub fn published(&mut self, epoch: u64, record: u64, messages: u64, bytes: u64) {
        if !self.holds(epoch) || !self.publishing {
            return;
        }
        self.publishing = false;
        self.ledger
            .published(record, self.sequence + 1, messages, bytes);
        self.sequence += messages;
        self.publish_next();
    }

    /// The broker confirmed a delivery tag of this epoch's channel, or all up to it.
    pub fn confirmed(&mut self, epoch: u64, tag: u64, multiple: bool) {
        if !self.holds(epoch) {
            return;
        }
        self.ledger.confirmed(tag, multiple);
        while let Some(sent) = self.ledger.next_durable() {
            self.confirmed = sent.record;
            self.effects.push_back(Effect::Settle {
                record: sent.record,
                epoch,
                sequence: sent.sequence,
            });
        }
        self.publish_next();
    }

    /// The broker nacked or returned a message, or the channel or connection is gone: what is not confirmed is published
    /// again in a new writer epoch.
    pub fn cut(&mut self, epoch: u64) {
        if !self.holds(epoch) {
            return;
        }
        self.phase = Phase::Down;
        self.effects.push_back(Effect::Join);
        if let Some(Pending::Direct(_)) = self.pending
            && self.confirmed < self.last
        {
            self.spill(self.last);
        }
    }

    /// A record's place in the stream is written down, or that failed.
    pub fn settled(&mut self, record: u64, well: bool) {
        if record != self.through + 1 {
            return;
        }
        if !well {
            return self.fail();
        }
        self.through = record;
        if record == self.last
            && let Some(Pending::Direct(_)) = self.pending
        {
            self.pending = None;
            self.effects.push_back(Effect::Acknowledge { record });
        }
        self.publish_next();
    }

    /// Spills the append that the broker is too slow for; it stays on its way.
    pub fn on_tick(&mut self, now: Duration) {
        if let Some(due) = self.next_deadline()
            && now >= due
        {
            self.spill(self.last);
        }
    }

    fn fail(&mut self) {
        self.phase = Phase::Over;
        if self.pending.take().is_some() {
            let record = self.last;
            self.effects.push_back(Effect::Fail { record });
        }
    }

    fn holds(&self, epoch: u64) -> bool {
        self.phase == Phase::Joined && self.epoch == epoch
    }

    /// Asks for the next record that may be published: in order, and never one that is in the memory of its append alone
    /// while others wait.
    fn publish_next(&mut self) {
        let busy = self.publishing
            || self.ledger.records() >= self.limits.records_in_flight
            || self.ledger.bytes() >= self.limits.bytes_in_flight;
        if self.phase != Phase::Joined || busy || self.sent >= self.last {
            return;
        }
        let record = self.sent + 1;
        let spilled = match self.pending {
            Some(_) if record < self.last => true,
            Some(Pending::Direct(_)) => false,
            // Not on disk yet: its turn comes when it is.
            Some(Pending::Spilling) => return,
            None => true,
        };
        self.sent = record;
        self.publishing = true;
        self.effects.push_back(Effect::Publish {
            record,
            sequence: self.sequence + 1,
            spilled,
        });
    }
}
