//! Open asks: ours, with their deadlines, and the peer's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::error::Fault;
use crate::ids::Class;

#[derive(Debug)]
struct Open {
    units: u32,
    /// None once expired or cancelled: the answer interests nobody, but until it comes the units stay used.
    deadline: Option<Duration>,
}

/// Asks we sent. Most links have none open most of the time: the maps then hold no memory, which a hash table would.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    last_id: u64,
    open: BTreeMap<u64, Open>,
    deadlines: BTreeSet<(Duration, u64)>,
    /// The first of them, which every turn of a link asks for.
    first: Option<Duration>,
    used: u32,
}

impl Sent {
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    pub(crate) fn add(&mut self, units: u32, deadline: Duration) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.used += units;
        self.deadlines.insert((deadline, id));
        self.first = Some(self.first.map_or(deadline, |first| first.min(deadline)));
        let deadline = Some(deadline);
        self.open.insert(id, Open { units, deadline });
        id
    }

    /// Whether the ask was still wanted.
    pub(crate) fn forget(&mut self, id: u64) -> bool {
        let deadline = self.open.get_mut(&id).and_then(|open| open.deadline.take());
        let Some(deadline) = deadline else {
            return false;
        };
        self.deadlines.remove(&(deadline, id));
        if self.first == Some(deadline) {
            self.first = self.deadlines.first().map(|(deadline, _)| *deadline);
        }
        true
    }

    /// The next ask whose deadline is over; it is forgotten.
    pub(crate) fn expired(&mut self, now: Duration) -> Option<u64> {
        if self.first? > now {
            return None;
        }
        let (_, id) = *self.deadlines.first()?;
        self.forget(id);
        Some(id)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.first
    }

    /// Closes an ask: its units, and whether it was still wanted.
    pub(crate) fn answered(&mut self, id: u64) -> Result<(u32, bool), Fault> {
        let wanted = self.forget(id);
        let open = self.open.remove(&id).ok_or(Fault::UnknownReply { id })?;
        self.used -= open.units;
        Ok((open.units, wanted))
    }
}

/// Asks the peer sent.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// By class: a more urgent ask overtakes others that wait for the socket, so ids rise within a class only.
    last_ids: [u64; 3],
    open: BTreeMap<u64, (u32, Class)>,
    used: u32,
}

impl Received {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn add(
        &mut self,
        id: u64,
        units: u32,
        class: Class,
        window: u32,
    ) -> Result<(), Fault> {
        let last = self.last_ids[class.index()];
        if id <= last || self.open.contains_key(&id) {
            return Err(Fault::BadAskId { id, last });
        }
        let used = self.used.saturating_add(units);
        if used > window {
            return Err(Fault::AsksExceeded { window });
        }
        self.last_ids[class.index()] = id;
        self.used = used;
        self.open.insert(id, (units, class));
        Ok(())
    }

    /// Closes an ask; its units and class, if it was open. The units stay used until its reply has left.
    pub(crate) fn close(&mut self, id: u64) -> Option<(u32, Class)> {
        self.open.remove(&id)
    }

    /// The reply of a closed ask has left for the socket.
    pub(crate) fn replied(&mut self, units: u32) {
        self.used -= units;
    }
}

/// Replies of one class that wait for the socket. The peer's window counts them too, as the peer itself does until it has
/// read them: so one that asks without reading cannot fill this side's memory with replies, refusals among them.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// Bytes ever queued, and ever taken.
    put: u64,
    taken: u64,
    /// Where in the bytes queued each reply ends, and the units of its ask.
    replies: VecDeque<(u64, u32)>,
}

impl Leaving {
    pub(crate) fn put(&mut self, bytes: usize) {
        self.put += bytes as u64;
    }

    /// What was put last is the reply to an ask of so many units.
    pub(crate) fn reply(&mut self, units: u32) {
        self.replies.push_back((self.put, units));
    }

    /// Units of the replies that left with these bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> u32 {
        self.taken += bytes as u64;
        let mut left = 0;
        while let Some((_, units)) = self.replies.pop_front_if(|(end, _)| *end <= self.taken) {
            left += units;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is sent, answered, forgotten and expires: the next deadline is the first of those that are still wanted.
        #[test]
        fn the_next_deadline_is_the_first(steps in proptest::collection::vec((0u8..4, 0u64..20), 0..80)) {
            let mut sent = Sent::default();
            let mut wanted: BTreeMap<u64, Duration> = BTreeMap::new();
            let mut open: BTreeSet<u64> = BTreeSet::new();
            for (step, what) in steps {
                let chosen = open.iter().copied().nth(usize::try_from(what).unwrap() % open.len().max(1));
                let deadline = Duration::from_secs(what);
                match (step, chosen) {
                    (0, Some(id)) => prop_assert_eq!(sent.forget(id), wanted.remove(&id).is_some()),
                    (1, Some(id)) => {
                        open.remove(&id);
                        prop_assert_eq!(sent.answered(id).unwrap(), (1, wanted.remove(&id).is_some()));
                    }
                    (2, _) => while let Some(id) = sent.expired(deadline) {
                        prop_assert!(wanted.remove(&id).unwrap() <= deadline);
                    },
                    _ => {
                        let id = sent.add(1, deadline);
                        wanted.insert(id, deadline);
                        open.insert(id);
                    }
                }
                prop_assert_eq!(sent.next_deadline(), wanted.values().min().copied());
                prop_assert_eq!(sent.len(), open.len());
            }
        }
    }
}
