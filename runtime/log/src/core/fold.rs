//! What the messages of a stream amount to. It depends on nothing but their order, so all readers agree.
//!
//! A *claim* begins a writer epoch; from then on only messages of that epoch count, and only in sequence, 1, 2, 3, …
//! A record is one or more messages, the last of which closes it; before that it is nothing. The first record of an epoch
//! may have a number that an earlier epoch used: what that wrote from there on was never acknowledged, and is void.

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Writer epoch.
    pub epoch: u64,
    /// Place in the epoch: 0 for the claim, then 1, 2, 3, …
    pub sequence: u64,
    /// Record that it belongs to; 0 for a claim.
    pub record: u64,
    /// Closes its record.
    pub last: bool,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// Of another epoch, repeated, or after a hole: it does not count.
    Ignored,
    /// A new writer epoch began.
    Claimed,
    /// Part of a record that is not closed. If `first`, whatever was collected and not closed is nothing, and records from
    /// this number on are void.
    Part {
        /// The record's first message.
        first: bool,
    },
    /// The message closes its record: it stands. `first` as above.
    Closed {
        /// The record's only message.
        first: bool,
    },
    /// Records are missing: the broker lost what it had confirmed, or its front was removed.
    Missing {
        /// The record that should come next.
        expected: u64,
    },
}

/// The state of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    epoch: u64,
    next: u64,
    /// Highest record that stands; all below it do too.
    closed: u64,
    /// The record that is being collected.
    open: Option<u64>,
    /// The epoch has a hole: nothing more of it counts.
    broken: bool,
    /// A record of this epoch stands.
    began: bool,
}

impl Fold {
    /// A reader of a stream from its beginning, or one that knows of all records up to `closed` and starts at a claim.
    pub fn new(closed: u64) -> Self {
        Self {
            epoch: 0,
            next: 0,
            closed,
            open: None,
            broken: true,
            began: false,
        }
    }

    /// The highest record that stands.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// The epoch that counts now; 0 before the first claim.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes the stream's next message.
    pub fn take(&mut self, stamp: Stamp) -> Took {
        if stamp.sequence == 0 {
            return self.claim(stamp.epoch);
        }
        if stamp.epoch != self.epoch || self.broken || stamp.sequence < self.next {
            return Took::Ignored;
        }
        if stamp.sequence != self.next {
            self.broken = true;
            return Took::Ignored;
        }
        let first = match self.open {
            Some(open) if open == stamp.record => false,
            Some(_) => {
                self.broken = true;
                return Took::Ignored;
            }
            None if stamp.record == self.closed + 1 => true,
            // A record below: what the epochs before wrote from there on is void.
            None if stamp.record <= self.closed && stamp.record > 0 && !self.began => {
                self.closed = stamp.record - 1;
                true
            }
            None => {
                self.broken = true;
                let expected = self.closed + 1;
                return Took::Missing { expected };
            }
        };
        self.next += 1;
        self.began = true;
        if stamp.last {
            self.open = None;
            self.closed = stamp.record;
            Took::Closed { first }
        } else {
            self.open = Some(stamp.record);
            Took::Part { first }
        }
    }

    fn claim(&mut self, epoch: u64) -> Took {
        if epoch <= self.epoch {
            return Took::Ignored;
        }
        *self = Self {
            epoch,
            next: 1,
            closed: self.closed,
            open: None,
            broken: false,
            began: false,
        };
        Took::Claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: u64, sequence: u64, record: u64, last: bool) -> Stamp {
        Stamp {
            epoch,
            sequence,
            record,
            last,
        }
    }

    fn taken(stamps: &[Stamp]) -> (Vec<Took>, Fold) {
        let mut fold = Fold::new(0);
        let took = stamps.iter().map(|stamp| fold.take(*stamp)).collect();
        (took, fold)
    }

    // A record of two messages and one of one, then a repeat and a message from before the claim.
    #[test]
    fn records_stand_when_closed() {
        let (took, fold) = taken(&[
            stamp(3, 5, 9, true),
            stamp(4, 0, 0, false),
            stamp(4, 1, 1, false),
            stamp(4, 2, 1, true),
            stamp(4, 3, 2, true),
            stamp(4, 3, 2, true),
            stamp(3, 6, 3, true),
        ]);
        assert_eq!(
            took,
            [
                Took::Ignored,
                Took::Claimed,
                Took::Part { first: true },
                Took::Closed { first: false },
                Took::Closed { first: true },
                Took::Ignored,
                Took::Ignored,
            ]
        );
        assert_eq!((fold.closed(), fold.epoch()), (2, 4));
    }

    // A message is missing: nothing after it counts until a new epoch starts again from the first unconfirmed record. What
    // the old one still brings does not count.
    #[test]
    fn a_hole_ends_an_epoch() {
        let (took, fold) = taken(&[
            stamp(1, 0, 0, false),
            stamp(1, 1, 1, true),
            stamp(1, 3, 3, true),
            stamp(1, 2, 2, true),
            stamp(2, 0, 0, false),
            stamp(1, 4, 4, true),
            stamp(2, 1, 2, true),
            stamp(2, 2, 3, true),
        ]);
        assert_eq!(
            took,
            [
                Took::Claimed,
                Took::Closed { first: true },
                Took::Ignored,
                Took::Ignored,
                Took::Claimed,
                Took::Ignored,
                Took::Closed { first: true },
                Took::Closed { first: true },
            ]
        );
        assert_eq!(fold.closed(), 3);
    }

    // Records 2 and 3 landed and were never acknowledged; the next epoch writes another 2, so both are void. Within an
    // epoch numbers never go back.
    #[test]
    fn a_new_epoch_voids_from_its_first_record_on() {
        let (took, fold) = taken(&[
            stamp(1, 0, 0, false),
            stamp(1, 1, 1, true),
            stamp(1, 2, 2, true),
            stamp(1, 3, 3, true),
            stamp(2, 0, 0, false),
            stamp(2, 1, 2, true),
            stamp(2, 2, 2, true),
        ]);
        assert_eq!(took[5], Took::Closed { first: true });
        assert_eq!(took[6], Took::Missing { expected: 3 });
        assert_eq!(fold.closed(), 2);
    }

    // An epoch that starts beyond what is there tells of records that are gone; a claim that is no higher is none; a record
    // that changes its number halfway is none either.
    #[test]
    fn what_makes_no_sense_does_not_count() {
        let (took, _) = taken(&[
            stamp(5, 0, 0, false),
            stamp(5, 1, 4, true),
            stamp(5, 0, 0, false),
            stamp(4, 0, 0, false),
            stamp(6, 0, 0, false),
            stamp(6, 1, 1, false),
            stamp(6, 2, 2, true),
            stamp(6, 3, 1, true),
        ]);
        assert_eq!(
            took,
            [
                Took::Claimed,
                Took::Missing { expected: 1 },
                Took::Ignored,
                Took::Ignored,
                Took::Claimed,
                Took::Part { first: true },
                Took::Ignored,
                Took::Ignored,
            ]
        );
    }
}
