//! Credit: what the peer may tell us, and what we may tell it, per (service, class).

use std::collections::BTreeMap;

use crate::config::{MAX_COST, MAX_WINDOW};
use crate::error::Fault;
use crate::ids::{Class, ServiceId};

type Lane = (ServiceId, Class);

/// What the peer has granted us.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    lanes: BTreeMap<Lane, u32>,
}

impl Granted {
    pub(crate) fn add(&mut self, lane: Lane, units: u32) -> Result<(), Fault> {
        let held = self.lanes.entry(lane).or_default();
        match held.checked_add(units).filter(|sum| *sum <= MAX_WINDOW) {
            Some(sum) => {
                *held = sum;
                Ok(())
            }
            None => Err(Fault::CreditOverflow { limit: MAX_WINDOW }),
        }
    }

    pub(crate) fn held(&self, lane: Lane) -> u32 {
        self.lanes.get(&lane).copied().unwrap_or(0)
    }

    /// The smallest of all that was ever granted.
    pub(crate) fn least(&self) -> Option<u32> {
        self.lanes.values().copied().min()
    }

    /// Takes `units`, or nothing.
    pub(crate) fn spend(&mut self, lane: Lane, units: u32) -> bool {
        match self.lanes.get_mut(&lane) {
            Some(held) if *held >= units => {
                *held -= units;
                true
            }
            _ => false,
        }
    }
}

/// One window that we granted.
#[derive(Debug, Default)]
struct Window {
    size: u32,
    /// What the peer holds.
    out: u32,
    /// Free again here, not yet granted again.
    owed: u32,
}

impl Window {
    /// Small grants wait until the peer has used half its window, unless it could be stuck with a large message.
    fn due(&self) -> bool {
        self.owed > 0 && self.out < (self.size / 2).max(MAX_COST)
    }
}

/// What we have granted the peer.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    lanes: BTreeMap<Lane, Window>,
    /// Whether a grant may be due: a link asks at every turn, and hardly ever is one.
    due: bool,
}

impl Grants {
    /// Opens a window, once.
    pub(crate) fn open(&mut self, lane: Lane, size: u32) {
        let window = self.lanes.entry(lane).or_default();
        if window.size == 0 {
            window.size = size;
            window.owed = size;
            self.due |= window.due();
        }
    }

    /// The peer used `units`.
    pub(crate) fn used(&mut self, lane: Lane, units: u32) -> Result<(), Fault> {
        match self.lanes.get_mut(&lane) {
            Some(window) if window.out >= units => {
                window.out -= units;
                self.due |= window.due();
                Ok(())
            }
            _ => Err(Fault::CreditExceeded {
                service: lane.0,
                class: lane.1,
            }),
        }
    }

    /// `units` are free again.
    pub(crate) fn give_back(&mut self, lane: Lane, units: u32) {
        if let Some(window) = self.lanes.get_mut(&lane) {
            window.owed = (window.owed + units).min(window.size.saturating_sub(window.out));
            self.due |= window.due();
        }
    }

    /// The next grant to send.
    pub(crate) fn next_due(&mut self) -> Option<(Lane, u32)> {
        if !self.due {
            return None;
        }
        let Some((lane, window)) = self.lanes.iter_mut().find(|(_, window)| window.due()) else {
            self.due = false;
            return None;
        };
        let units = std::mem::take(&mut window.owed);
        window.out += units;
        Some((*lane, units))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the peer uses and gets back: as long as a window is due, a grant is next.
        #[test]
        fn what_is_due_is_next(steps in proptest::collection::vec((0u8..4, 1u32..4, 1u32..100), 0..80)) {
            let mut grants = Grants::default();
            for (step, service, units) in steps {
                let lane = (ServiceId(service), Class::Request);
                let held = grants.lanes.get(&lane).map_or(0, |window| window.out);
                match step {
                    0 => grants.open(lane, MAX_COST + units),
                    1 => grants.give_back(lane, units),
                    2 => {
                        // What it does not hold it cannot use.
                        prop_assert_eq!(grants.used(lane, units).is_ok(), held >= units);
                    }
                    _ => {
                        let due = grants.lanes.values().filter(|window| window.due()).count();
                        prop_assert_eq!(std::iter::from_fn(|| grants.next_due()).count(), due);
                    }
                }
            }
        }
    }
}
