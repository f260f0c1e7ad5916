//! The account of one channel while it is being written: the first broken promise is known at once.
//!
//! Times are a [`Duration`] since any start. What is kept grows by eight bytes a record, and by what is acknowledged and not
//! delivered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A promise of the network that was not kept on one channel. Messages are numbered from 0, offsets from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The subscriber had presented this offset, and got one that is not above it.
    #[error("offset {got} was delivered to a subscriber that had presented {presented}")]
    NotAbovePresented {
        /// What it had presented.
        presented: u64,
        /// What it got.
        got: u64,
    },
    /// Something between was left out, or came again.
    #[error("offset {got} was delivered where {expected} had to come")]
    NotNext {
        /// The offset after the one before.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// Stored behind a message that the same start of the publisher sent later, or a second time.
    #[error(
        "message {message} stands at offset {offset}, behind message {before}, which was sent later"
    )]
    OutOfOrder {
        /// The message.
        message: u64,
        /// Its place.
        offset: u64,
        /// The one before it.
        before: u64,
    },
    /// Acknowledged at an offset where another message was delivered.
    #[error(
        "message {acked} was acknowledged at offset {offset}, where message {delivered} was delivered"
    )]
    Other {
        /// The place.
        offset: u64,
        /// What the acknowledgement said.
        acked: u64,
        /// What a subscriber got.
        delivered: u64,
    },
    /// The same offset was delivered twice with different messages.
    #[error("offset {offset} was delivered with message {first}, and later with message {again}")]
    Changed {
        /// The place.
        offset: u64,
        /// What came first.
        first: u64,
        /// What came later.
        again: u64,
    },
    /// Delivered, and nobody had sent it.
    #[error("message {message} was delivered at offset {offset}, and nobody had sent it")]
    NeverSent {
        /// The message.
        message: u64,
        /// Its place.
        offset: u64,
    },
    /// The publisher was told for certain that it is not stored, and it was delivered.
    #[error("message {message} was refused for good, and was delivered at offset {offset}")]
    RefusedYetStored {
        /// The message.
        message: u64,
        /// Its place.
        offset: u64,
    },
    /// Acknowledged, and not on the owner's disk.
    #[error(
        "message {message} was acknowledged at offset {offset}, and the disk ends at offset {durable}"
    )]
    Lost {
        /// The message.
        message: u64,
        /// Where it was said to be.
        offset: u64,
        /// Where the disk ends.
        durable: u64,
    },
    /// Sent long ago, nothing stood in the way, and its publisher has not been told what became of it.
    #[error(
        "message {message} was sent {since:?} ago, nothing stands in its way, and its publisher knows nothing of it"
    )]
    Unanswered {
        /// The message.
        message: u64,
        /// How long the way was open since.
        since: Duration,
    },
    /// Acknowledged long ago, nothing stood in the way, and an honest subscriber does not have it.
    #[error(
        "message {message} was acknowledged {since:?} ago, nothing stands in its way, and its subscriber does not have it"
    )]
    Overdue {
        /// The message.
        message: u64,
        /// How long the way was open since.
        since: Duration,
    },
}

/// Written by one publisher and one subscriber of a channel, in the order things happen.
#[derive(Debug, Default)]
pub struct Running {
    sent: u64,
    /// The first message of each later start of the publisher, and the last delivered one of each start.
    starts: Vec<u64>,
    newest: Vec<Option<u64>>,
    /// Sent and not answered yet: when.
    unanswered: BTreeMap<u64, Duration>,
    /// Acknowledged and not delivered yet: place and time.
    waiting: BTreeMap<u64, (Option<u64>, Duration)>,
    /// The same by place, kept until delivered.
    acked_at: BTreeMap<u64, u64>,
    /// Refused for certain, and not stored.
    refused: BTreeSet<u64>,
    /// What was delivered, by offset from 1.
    delivered: Vec<u64>,
    /// The highest acknowledged place, and whose it is.
    highest: Option<(u64, u64)>,
    presented: u64,
    last: u64,
    acked: u64,
    unknown: u64,
}

impl Running {
    /// An empty account.
    pub fn new() -> Running {
        Running::default()
    }

    /// The publisher hands over the next message; its number.
    pub fn send(&mut self, now: Duration) -> u64 {
        let message = self.sent;
        self.sent += 1;
        self.unanswered.insert(message, now);
        message
    }

    /// The publisher starts anew: what it sent before and heard nothing of may be stored before or behind what follows.
    pub fn restarts(&mut self) {
        self.starts.push(self.sent);
        self.unanswered.clear();
    }

    /// Which start of the publisher sent it.
    fn start_of(&self, message: u64) -> usize {
        self.starts.partition_point(|first| *first <= message)
    }

    /// The publisher is told that a message is durable.
    ///
    /// # Errors
    /// Something else was delivered at that place.
    pub fn acked(
        &mut self,
        message: u64,
        offset: Option<u64>,
        now: Duration,
    ) -> Result<(), Broken> {
        self.acked += 1;
        self.unanswered.remove(&message);
        let Some(offset) = offset else {
            if !self.delivered.contains(&message) {
                self.waiting.insert(message, (None, now));
            }
            return Ok(());
        };
        if self.highest.is_none_or(|(highest, _)| highest < offset) {
            self.highest = Some((offset, message));
        }
        match self.at(offset) {
            Some(delivered) if delivered == message => Ok(()),
            Some(delivered) => Err(Broken::Other {
                offset,
                acked: message,
                delivered,
            }),
            None => {
                self.waiting.insert(message, (Some(offset), now));
                match self.acked_at.insert(offset, message) {
                    Some(other) if other != message => Err(Broken::Changed {
                        offset,
                        first: other,
                        again: message,
                    }),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }

    /// The publisher is told that a message failed; `certain` when that means that it is not stored.
    ///
    /// # Errors
    /// It is certain, and it was delivered.
    pub fn failed(&mut self, message: u64, certain: bool) -> Result<(), Broken> {
        self.unanswered.remove(&message);
        if !certain {
            self.unknown += 1;
            return Ok(());
        }
        self.refused.insert(message);
        match self.delivered.iter().position(|found| *found == message) {
            Some(index) => Err(Broken::RefusedYetStored {
                message,
                offset: index as u64 + 1,
            }),
            None => Ok(()),
        }
    }

    /// The subscriber (re)starts after this offset.
    pub fn presents(&mut self, offset: u64) {
        self.presented = offset;
        self.last = offset;
    }

    /// The subscriber gets a record.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn delivered(&mut self, offset: u64, message: u64) -> Result<(), Broken> {
        if offset <= self.presented {
            return Err(Broken::NotAbovePresented {
                presented: self.presented,
                got: offset,
            });
        }
        let expected = self.last + 1;
        if offset != expected {
            return Err(Broken::NotNext {
                expected,
                got: offset,
            });
        }
        if message >= self.sent {
            return Err(Broken::NeverSent { message, offset });
        }
        if self.refused.contains(&message) {
            return Err(Broken::RefusedYetStored { message, offset });
        }
        self.last = offset;
        if let Some(first) = self.at(offset) {
            return match first == message {
                true => Ok(()),
                false => Err(Broken::Changed {
                    offset,
                    first,
                    again: message,
                }),
            };
        }
        let start = self.start_of(message);
        if self.newest.len() <= start {
            self.newest.resize(start + 1, None);
        }
        if let Some(before) = self.newest[start].replace(message)
            && before >= message
        {
            return Err(Broken::OutOfOrder {
                message,
                offset,
                before,
            });
        }
        self.delivered.push(message);
        self.waiting.remove(&message);
        match self.acked_at.remove(&offset) {
            Some(acked) if acked != message => Err(Broken::Other {
                offset,
                acked,
                delivered: message,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// What the owner's disk holds: every offset up to `durable`.
    ///
    /// # Errors
    /// Something acknowledged is above it.
    pub fn on_disk(&self, durable: u64) -> Result<(), Broken> {
        match self.highest {
            Some((offset, message)) if offset > durable => Err(Broken::Lost {
                message,
                offset,
                durable,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether what is acknowledged has arrived. `open` is since when nothing stands between the disk and the subscriber,
    /// `None` while something does.
    ///
    /// # Errors
    /// A message waits longer than `grace` with the way open all the time.
    pub fn in_time(
        &self,
        now: Duration,
        open: Option<Duration>,
        grace: Duration,
    ) -> Result<(), Broken> {
        let Some(open) = open else { return Ok(()) };
        // Numbers rise with time, but an acknowledgement may come late: all that wait are looked at.
        for (message, (_, acked)) in &self.waiting {
            let since = now.saturating_sub(open.max(*acked));
            if since > grace {
                return Err(Broken::Overdue {
                    message: *message,
                    since,
                });
            }
        }
        Ok(())
    }

    /// Whether what was sent has been answered, one way or the other. `open` is since when nothing stands between the
    /// publisher and the disk, `None` while something does.
    ///
    /// # Errors
    /// A message waits longer than `grace` with the way open all the time.
    pub fn answered(
        &self,
        now: Duration,
        open: Option<Duration>,
        grace: Duration,
    ) -> Result<(), Broken> {
        let (Some(open), Some((message, sent))) = (open, self.unanswered.first_key_value()) else {
            return Ok(());
        };
        let since = now.saturating_sub(open.max(*sent));
        match since > grace {
            true => Err(Broken::Unanswered {
                message: *message,
                since,
            }),
            false => Ok(()),
        }
    }

    fn at(&self, offset: u64) -> Option<u64> {
        let index = usize::try_from(offset.checked_sub(1)?).ok()?;
        self.delivered.get(index).copied()
    }

    /// Messages handed over, acknowledged, of unknown outcome, and delivered.
    pub fn counts(&self) -> [u64; 4] {
        [
            self.sent,
            self.acked,
            self.unknown,
            self.delivered.len() as u64,
        ]
    }

    /// Sent and not answered, and acknowledged and not delivered.
    pub fn under_way(&self) -> (usize, usize) {
        (self.unanswered.len(), self.waiting.len())
    }

    /// The offset that the subscriber got last, or presented.
    pub fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    /// Five sent; 0, 1 and 2 acknowledged at 1, 2, 3; 3 refused for good, 4 of unknown fate; 0 and 1 delivered.
    fn account() -> Running {
        let mut account = Running::new();
        for message in 0..5 {
            assert_eq!(account.send(NOW), message);
        }
        for message in 0..3 {
            account.acked(message, Some(message + 1), NOW).unwrap();
        }
        account.failed(3, true).unwrap();
        account.failed(4, false).unwrap();
        for message in 0..2 {
            account.delivered(message + 1, message).unwrap();
        }
        account
    }

    // What the network promises is no fault: a record of unknown fate may be there, a subscriber that comes back with an
    // older offset gets the same again, and an acknowledgement without a place is one.
    #[test]
    fn kept_promises_are_no_faults() {
        let mut account = account();
        account.delivered(3, 2).unwrap();
        account.delivered(4, 4).unwrap();
        account.presents(1);
        for (offset, message) in [(2, 1), (3, 2), (4, 4)] {
            account.delivered(offset, message).unwrap();
        }
        let message = account.send(NOW);
        account.acked(message, None, NOW).unwrap();
        assert_eq!(account.under_way(), (0, 1));
        account.delivered(5, message).unwrap();
        account.on_disk(5).unwrap();
        account.on_disk(3).unwrap();
        account.in_time(NOW * 2, Some(SECOND), SECOND).unwrap();
        assert_eq!((account.counts(), account.last()), ([6, 4, 1, 5], 5));
    }

    // Each promise is broken once, and named.
    #[test]
    fn every_fault_is_found() {
        let mut presented = account();
        presented.presents(2);
        let found = presented.delivered(2, 1).unwrap_err();
        let (presented, got) = (2, 2);
        assert_eq!(found, Broken::NotAbovePresented { presented, got });

        let found = account().delivered(4, 2).unwrap_err();
        assert_eq!(
            found,
            Broken::NotNext {
                expected: 3,
                got: 4
            }
        );
        let found = account().delivered(2, 1).unwrap_err();
        assert_eq!(
            found,
            Broken::NotNext {
                expected: 3,
                got: 2
            }
        );

        let (message, offset) = (0, 3);
        let found = account().delivered(offset, message).unwrap_err();
        let before = 1;
        assert_eq!(
            found,
            Broken::OutOfOrder {
                message,
                offset,
                before
            }
        );

        let other = Broken::Other {
            offset: 3,
            acked: 2,
            delivered: 4,
        };
        assert_eq!(account().delivered(3, 4).unwrap_err(), other);
        let mut late = Running::new();
        late.send(NOW);
        late.send(NOW);
        late.delivered(1, 0).unwrap();
        let other = Broken::Other {
            offset: 1,
            acked: 1,
            delivered: 0,
        };
        assert_eq!(late.acked(1, Some(1), NOW).unwrap_err(), other);

        let mut again = account();
        again.presents(1);
        let changed = Broken::Changed {
            offset: 2,
            first: 1,
            again: 4,
        };
        assert_eq!(again.delivered(2, 4).unwrap_err(), changed);
        let changed = Broken::Changed {
            offset: 3,
            first: 2,
            again: 4,
        };
        assert_eq!(account().acked(4, Some(3), NOW).unwrap_err(), changed);

        let (message, offset) = (5, 3);
        let found = account().delivered(offset, message).unwrap_err();
        assert_eq!(found, Broken::NeverSent { message, offset });

        let (message, offset) = (3, 3);
        let found = account().delivered(offset, message).unwrap_err();
        assert_eq!(found, Broken::RefusedYetStored { message, offset });
        let (message, offset) = (1, 2);
        let found = account().failed(message, true).unwrap_err();
        assert_eq!(found, Broken::RefusedYetStored { message, offset });

        let lost = Broken::Lost {
            message: 2,
            offset: 3,
            durable: 2,
        };
        assert_eq!(account().on_disk(2).unwrap_err(), lost);
    }

    // The publisher dies with message 5 on its way and starts again: 5 may land behind 6, which the second start sent, but
    // no message of one start behind a later one of the same.
    #[test]
    fn order_holds_within_a_start_of_the_publisher() {
        let mut account = account();
        account.delivered(3, 2).unwrap();
        assert_eq!(account.send(NOW), 5);
        account.restarts();
        assert_eq!((account.send(NOW), account.send(NOW)), (6, 7));
        account.delivered(4, 6).unwrap();
        account.delivered(5, 5).unwrap();
        account.delivered(6, 7).unwrap();
        let (message, offset, before) = (6, 7, 7);
        let found = account.delivered(offset, message).unwrap_err();
        assert_eq!(
            found,
            Broken::OutOfOrder {
                message,
                offset,
                before
            }
        );
    }

    // Message 2 waits. While the way is closed it may; from when it opened, or from the acknowledgement if that came later,
    // it has its time and no more.
    #[test]
    fn time_runs_while_the_way_is_open() {
        let account = account();
        let grace = 3 * SECOND;
        account.in_time(NOW * 9, None, grace).unwrap();
        account.in_time(NOW + grace, Some(SECOND), grace).unwrap();
        let after = NOW + grace + SECOND;
        account.in_time(after, Some(NOW + SECOND), grace).unwrap();
        let found = account.in_time(after, Some(SECOND), grace).unwrap_err();
        let (message, since) = (2, grace + SECOND);
        assert_eq!(found, Broken::Overdue { message, since });

        let mut account = Running::new();
        let message = account.send(NOW);
        account.send(NOW * 2);
        account.answered(NOW * 9, None, grace).unwrap();
        account.answered(NOW + grace, Some(SECOND), grace).unwrap();
        let found = account.answered(after, Some(SECOND), grace).unwrap_err();
        assert_eq!(found, Broken::Unanswered { message, since });
        account.failed(message, true).unwrap();
        account.answered(after, Some(SECOND), grace).unwrap();
    }
}
