//! Events with numbers: what a source keeps, and where each subscriber stands in it. Pure.
//!
//! ```text
//!   publish ─▶ Backlog: epoch e, numbers 1, 2, 3 …, the last few held
//!                ▲ ▲
//!         Cursor ┘ └ Cursor      one a subscriber; what it missed is named, number by number
//! ```
//!
//! An epoch is one life of a source: a source that lost its memory takes another. Within one, events and gaps together
//! leave out no number; over a change of epochs the gap says from which number on, since nobody knows how far the old one went.

use std::collections::VecDeque;

use bytes::Bytes;

/// The place of an event: its source's epoch, never 0, and its number there, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// One life of the source.
    pub epoch: u64,
    /// The event's number in it; 0 stands before the first.
    pub number: u64,
}

/// Events that a subscriber does not get: exactly these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Missed {
    /// The epoch they belong to.
    pub epoch: u64,
    /// The first of them.
    pub first: u64,
    /// The last of them; none: to the end of that epoch, which the source's next life does not know.
    pub last: Option<u64>,
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The next event.
    Item {
        /// Its place.
        position: Position,
        /// The event.
        payload: Bytes,
    },
    /// A gap in front of the next one.
    Missed(Missed),
}

/// How much a source remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogLimits {
    /// Events.
    pub events: usize,
    /// Bytes of them.
    pub bytes: usize,
}

impl Default for BacklogLimits {
    /// 1,024 events or 1 MiB: a reconnect's worth of what changes a few hundred times a second.
    fn default() -> Self {
        BacklogLimits {
            events: 1024,
            bytes: 1024 * 1024,
        }
    }
}

/// The position lies beyond the last event of the present epoch: no source ever gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {asked} was asked after, but only {published} have been published")]
pub struct BadPosition {
    /// The number presented.
    pub asked: u64,
    /// Events published so far.
    pub published: u64,
}

/// A source's memory.
#[derive(Debug)]
pub struct Backlog {
    epoch: u64,
    /// The number of the last event; 0 before the first.
    last: u64,
    held: VecDeque<Bytes>,
    bytes: usize,
    limits: BacklogLimits,
}

impl Backlog {
    /// Empty. `epoch` must be another in each life of the source; 0 is taken as 1.
    pub fn new(epoch: u64, limits: BacklogLimits) -> Backlog {
        Backlog {
            epoch: epoch.max(1),
            last: 0,
            held: VecDeque::new(),
            bytes: 0,
            limits,
        }
    }

    /// Adds an event and forgets the oldest beyond the limits.
    pub fn publish(&mut self, payload: Bytes) -> Position {
        self.last += 1;
        self.bytes += payload.len();
        self.held.push_back(payload);
        while self.held.len() > self.limits.events || self.bytes > self.limits.bytes {
            let Some(oldest) = self.held.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
        self.head()
    }

    /// The last event's place.
    pub fn head(&self) -> Position {
        Position {
            epoch: self.epoch,
            number: self.last,
        }
    }

    /// The number of the oldest event still held, or of the next one.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.held.len() as u64
    }

    fn get(&self, number: u64) -> Option<&Bytes> {
        let index = number.checked_sub(self.oldest())?;
        self.held.get(usize::try_from(index).ok()?)
    }

    /// A cursor that gives what came after `position`; without one, what comes from now on.
    ///
    /// # Errors
    /// The position lies in the future of this epoch.
    pub fn subscribe(&self, position: Option<Position>) -> Result<Cursor, BadPosition> {
        let (next, lost) = match position {
            None => (self.last + 1, None),
            Some(had) if had.epoch == self.epoch => {
                if had.number > self.last {
                    return Err(BadPosition {
                        asked: had.number,
                        published: self.last,
                    });
                }
                (had.number + 1, None)
            }
            Some(had) => {
                let lost = Missed {
                    epoch: had.epoch,
                    first: had.number.saturating_add(1),
                    last: None,
                };
                (1, Some(lost))
            }
        };
        Ok(Cursor { next, lost })
    }
}

/// Where one subscriber stands in a [`Backlog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
    /// What was left of an earlier epoch, to be told first.
    lost: Option<Missed>,
}

impl Cursor {
    /// The number of the first event or gap to come.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// What comes next; none: nothing yet. The cursor stays until [`Cursor::advance`].
    pub fn peek(&self, backlog: &Backlog) -> Option<Notice> {
        if let Some(lost) = self.lost {
            return Some(Notice::Missed(lost));
        }
        if let Some(payload) = backlog.get(self.next) {
            let position = Position {
                epoch: backlog.epoch,
                number: self.next,
            };
            let payload = payload.clone();
            return Some(Notice::Item { position, payload });
        }
        let oldest = backlog.oldest();
        (self.next < oldest).then(|| {
            Notice::Missed(Missed {
                epoch: backlog.epoch,
                first: self.next,
                last: Some(oldest - 1),
            })
        })
    }

    /// The notice has been passed on.
    pub fn advance(&mut self, notice: &Notice) {
        match notice {
            Notice::Item { position, .. } => self.next = position.number + 1,
            Notice::Missed(missed) => match missed.last {
                None => self.lost = None,
                Some(last) => self.next = last + 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn number(n: u64) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    fn take(cursor: &mut Cursor, backlog: &Backlog) -> Option<Notice> {
        let notice = cursor.peek(backlog)?;
        cursor.advance(&notice);
        Some(notice)
    }

    fn item(epoch: u64, n: u64) -> Option<Notice> {
        let (position, payload) = (Position { epoch, number: n }, number(n));
        Some(Notice::Item { position, payload })
    }

    fn missed(epoch: u64, first: u64, last: Option<u64>) -> Option<Notice> {
        Some(Notice::Missed(Missed { epoch, first, last }))
    }

    const THREE: BacklogLimits = BacklogLimits {
        events: 3,
        bytes: 1000,
    };

    /// Five events, three held: one that was there from the beginning and took nothing misses two by number; one that
    /// resumes after the third misses none; one that begins now gets the sixth.
    #[test]
    fn gaps_are_exact() {
        let mut backlog = Backlog::new(7, THREE);
        let mut slow = backlog.subscribe(None).unwrap();
        for n in 1..=5 {
            assert_eq!(backlog.publish(number(n)).number, n);
        }
        assert_eq!(take(&mut slow, &backlog), missed(7, 1, Some(2)));
        let third = Position {
            epoch: 7,
            number: 3,
        };
        let mut back = backlog.subscribe(Some(third)).unwrap();
        let mut new = backlog.subscribe(None).unwrap();
        for n in 3..=5 {
            assert_eq!(take(&mut slow, &backlog), item(7, n));
        }
        assert_eq!(take(&mut slow, &backlog), None);
        assert_eq!(take(&mut back, &backlog), item(7, 4));
        assert_eq!(take(&mut new, &backlog), None);
        backlog.publish(number(6));
        assert_eq!(take(&mut new, &backlog), item(7, 6));
    }

    /// The source was restarted: what was left of its earlier life is named from its first number on, then its new life's
    /// events from the first, as far as they are held.
    #[test]
    fn another_epoch() {
        let mut backlog = Backlog::new(8, THREE);
        for n in 1..=4 {
            backlog.publish(number(n));
        }
        let had = Position {
            epoch: 7,
            number: 9,
        };
        let mut cursor = backlog.subscribe(Some(had)).unwrap();
        assert_eq!(take(&mut cursor, &backlog), missed(7, 10, None));
        assert_eq!(take(&mut cursor, &backlog), missed(8, 1, Some(1)));
        assert_eq!(take(&mut cursor, &backlog), item(8, 2));
    }

    /// A place that no event has yet had, and a source told to use epoch 0.
    #[test]
    fn bad_position() {
        let backlog = Backlog::new(0, THREE);
        let ahead = Position {
            epoch: 1,
            number: 1,
        };
        let error = BadPosition {
            asked: 1,
            published: 0,
        };
        assert_eq!(backlog.subscribe(Some(ahead)), Err(error));
    }

    proptest! {
        /// However publishing and taking alternate, and whatever is forgotten in between, events and gaps together give every
        /// number once and in order, and what is held stays within its limits.
        #[test]
        fn every_number_once(steps in vec((0u64..6, 0usize..6), 0..60), events in 1usize..8, bytes in 1usize..80) {
            let mut backlog = Backlog::new(3, BacklogLimits { events, bytes });
            let mut cursor = backlog.subscribe(None).unwrap();
            let mut expected = 1;
            let mut published = 0;
            for (publish, take_some) in steps {
                for _ in 0..publish {
                    published += 1;
                    backlog.publish(number(published));
                    prop_assert!(backlog.held.len() <= events && backlog.bytes <= bytes);
                }
                for _ in 0..take_some {
                    match take(&mut cursor, &backlog) {
                        Some(Notice::Item { position, payload }) => {
                            prop_assert_eq!(position.number, expected);
                            prop_assert_eq!(payload, number(expected));
                            expected += 1;
                        }
                        Some(Notice::Missed(gap)) => {
                            prop_assert_eq!(gap.first, expected);
                            expected = gap.last.unwrap() + 1;
                        }
                        None => prop_assert_eq!(expected, published + 1),
                    }
                }
            }
        }
    }
}
