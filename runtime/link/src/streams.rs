//! Subscriptions and watches of a link, ours and the peer's: what is open, and what each side may still send.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{MAX_COST, MAX_WINDOW};
use crate::error::Fault;
use crate::event_log::{Missed, Position};

/// Most subscriptions of one side of a link; an operator's page needs a handful.
pub const MAX_SUBSCRIPTIONS: usize = 64;
/// Most watches of one side of a link: one an actor that holds refs of it, not one a message.
pub const MAX_WATCHES: usize = 1024;

/// One subscription of ours.
#[derive(Debug)]
struct Follow {
    window: u32,
    /// Units that the peer may still send.
    out: u32,
    /// Units free again here, not yet given back.
    owed: u32,
    resume: Option<Position>,
    /// Its epoch and the number that must come next, once it has begun.
    at: Option<(u64, u64)>,
    /// What of an earlier epoch must be told to be missed first.
    lost: Option<Missed>,
    /// We do not want it any more; what comes until its end is dropped.
    closing: bool,
}

impl Follow {
    fn spend(&mut self, id: u64, units: u32) -> Result<(), Fault> {
        match self.out.checked_sub(units) {
            Some(left) => {
                self.out = left;
                Ok(())
            }
            None => Err(bad(id, "sends beyond its window")),
        }
    }
}

fn bad(id: u64, problem: &'static str) -> Fault {
    Fault::BadStream {
        what: "subscription",
        id,
        problem,
    }
}

/// What we subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Following {
    last_id: u64,
    open: BTreeMap<u64, Follow>,
}

impl Following {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn add(&mut self, resume: Option<Position>, window: u32) -> u64 {
        self.last_id += 1;
        let follow = Follow {
            window,
            out: window,
            owed: 0,
            resume,
            at: None,
            lost: None,
            closing: false,
        };
        self.open.insert(self.last_id, follow);
        self.last_id
    }

    /// The subscription, for something of it that the peer sent; none if it interests nobody any more.
    fn heard(&mut self, id: u64) -> Result<&mut Follow, Fault> {
        let known = self.open.get_mut(&id);
        known.ok_or_else(|| bad(id, "is not open"))
    }

    /// Whether it is wanted.
    pub(crate) fn begun(&mut self, id: u64, epoch: u64, next: u64) -> Result<bool, Fault> {
        let follow = self.heard(id)?;
        if follow.at.is_some() || epoch == 0 || next == 0 {
            return Err(bad(id, "begins wrongly"));
        }
        match follow.resume {
            None => {}
            Some(had) if had.epoch == epoch && had.number.checked_add(1) == Some(next) => {}
            Some(had) if had.epoch == epoch => return Err(bad(id, "resumes at another place")),
            Some(had) => {
                if next != 1 {
                    return Err(bad(id, "begins an epoch in its middle"));
                }
                follow.lost = Some(Missed {
                    epoch: had.epoch,
                    first: had.number.saturating_add(1),
                    last: None,
                });
            }
        }
        follow.at = Some((epoch, next));
        Ok(!follow.closing)
    }

    /// The event's place, if it is wanted.
    pub(crate) fn item(
        &mut self,
        id: u64,
        number: u64,
        units: u32,
    ) -> Result<Option<Position>, Fault> {
        let follow = self.heard(id)?;
        follow.spend(id, units)?;
        match &mut follow.at {
            Some((epoch, next)) if *next == number && follow.lost.is_none() => {
                *next = number.saturating_add(1);
                let position = Position {
                    epoch: *epoch,
                    number,
                };
                Ok((!follow.closing).then_some(position))
            }
            _ => Err(bad(id, "leaves events out without a word")),
        }
    }

    /// The gap, if it is wanted.
    pub(crate) fn gap(&mut self, id: u64, missed: Missed) -> Result<Option<Missed>, Fault> {
        let follow = self.heard(id)?;
        follow.spend(id, 1)?;
        let fits = match (&mut follow.at, missed.last) {
            (Some(_), None) => follow.lost.take() == Some(missed),
            (Some((epoch, next)), Some(last)) => {
                let fits = follow.lost.is_none()
                    && *epoch == missed.epoch
                    && *next == missed.first
                    && last >= missed.first;
                *next = last.saturating_add(1);
                fits
            }
            (None, _) => false,
        };
        if fits {
            Ok((!follow.closing).then_some(missed))
        } else {
            Err(bad(id, "names a gap that is none"))
        }
    }

    /// Whether its end interests somebody.
    pub(crate) fn ended(&mut self, id: u64) -> Result<bool, Fault> {
        let follow = self.open.remove(&id);
        let follow = follow.ok_or_else(|| bad(id, "is not open"))?;
        Ok(!follow.closing)
    }

    /// Whether the peer must be told.
    pub(crate) fn close(&mut self, id: u64) -> bool {
        match self.open.get_mut(&id) {
            Some(follow) => !std::mem::replace(&mut follow.closing, true),
            None => false,
        }
    }

    /// Units are free again; how many to give back now. Small returns wait until the peer has used half its window.
    pub(crate) fn consumed(&mut self, id: u64, units: u32) -> Option<u32> {
        let follow = self.open.get_mut(&id).filter(|follow| !follow.closing)?;
        let most = follow.window.saturating_sub(follow.out);
        follow.owed = follow.owed.saturating_add(units).min(most);
        if follow.owed == 0 || follow.out >= (follow.window / 2).max(MAX_COST) {
            return None;
        }
        let units = std::mem::take(&mut follow.owed);
        follow.out += units;
        Some(units)
    }
}

/// What the peer subscribed to: the units that may still be sent.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    last_id: u64,
    open: BTreeMap<u64, u32>,
}

impl Followed {
    /// Whether there is room for one more.
    pub(crate) fn add(&mut self, id: u64, window: u32) -> Result<bool, Fault> {
        if id <= self.last_id {
            return Err(bad(id, "has a number that did not rise"));
        }
        if !(MAX_COST..=MAX_WINDOW).contains(&window) {
            return Err(bad(id, "has an unusable window"));
        }
        self.last_id = id;
        if self.open.len() >= MAX_SUBSCRIPTIONS {
            return Ok(false);
        }
        self.open.insert(id, window);
        Ok(true)
    }

    pub(crate) fn credit(&self, id: u64) -> Option<u32> {
        self.open.get(&id).copied()
    }

    pub(crate) fn spend(&mut self, id: u64, units: u32) -> bool {
        match self.open.get_mut(&id) {
            Some(credit) if *credit >= units => {
                *credit -= units;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn refill(&mut self, id: u64, units: u32) -> Result<(), Fault> {
        let Some(credit) = self.open.get_mut(&id) else {
            // It may have ended here meanwhile.
            return if id <= self.last_id {
                Ok(())
            } else {
                Err(bad(id, "is not open"))
            };
        };
        match credit.checked_add(units).filter(|sum| *sum <= MAX_WINDOW) {
            Some(sum) => {
                *credit = sum;
                Ok(())
            }
            None => Err(Fault::CreditOverflow { limit: MAX_WINDOW }),
        }
    }

    /// Whether it was open.
    pub(crate) fn close(&mut self, id: u64) -> Result<bool, Fault> {
        if id > self.last_id {
            return Err(bad(id, "is not open"));
        }
        Ok(self.open.remove(&id).is_some())
    }
}

/// Ids of one side's watches that are open.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    last_id: u64,
    open: BTreeSet<u64>,
}

impl Watches {
    fn bad(id: u64, problem: &'static str) -> Fault {
        Fault::BadStream {
            what: "watch",
            id,
            problem,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// A new one of ours.
    pub(crate) fn begin(&mut self) -> u64 {
        self.last_id += 1;
        self.open.insert(self.last_id);
        self.last_id
    }

    /// A new one of the peer's: whether there is room for it.
    pub(crate) fn add(&mut self, id: u64) -> Result<bool, Fault> {
        if id <= self.last_id {
            return Err(Watches::bad(id, "has a number that did not rise"));
        }
        self.last_id = id;
        Ok(self.open.len() < MAX_WATCHES && self.open.insert(id))
    }

    pub(crate) fn is_open(&self, id: u64) -> bool {
        self.open.contains(&id)
    }

    /// Whether it was open.
    pub(crate) fn end(&mut self, id: u64) -> bool {
        self.open.remove(&id)
    }

    /// Something of it came: no fault if it was ever given, for its end may have crossed it.
    pub(crate) fn check(&self, id: u64) -> Result<(), Fault> {
        if id <= self.last_id {
            Ok(())
        } else {
            Err(Watches::bad(id, "was never begun"))
        }
    }
}
