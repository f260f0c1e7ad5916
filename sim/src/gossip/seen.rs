//! Ids of messages seen lately.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::{ByKey, Key};

/// See the module. Like the library's, it forgets only when something new comes in.
#[derive(Debug)]
pub(super) struct Seen {
    keys: HashSet<Key, ByKey>,
    order: VecDeque<(u64, Key)>,
    kept_ms: u64,
}

impl Seen {
    pub(super) fn new(kept: Duration) -> Seen {
        Seen {
            keys: HashSet::default(),
            order: VecDeque::new(),
            kept_ms: millis(kept),
        }
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    /// Whether it is new.
    pub(super) fn insert(&mut self, now: Duration, key: Key) -> bool {
        let now = millis(now);
        while let Some((expires, old)) = self.order.front().copied()
            && expires <= now
        {
            self.order.pop_front();
            self.keys.remove(&old);
        }
        let new = self.keys.insert(key);
        if new {
            self.order.push_back((now + self.kept_ms, key));
        }
        new
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id is known until its time is over, and forgotten when the next new one comes.
    #[test]
    fn remembers_for_a_while() {
        let at = Duration::from_secs;
        let mut seen = Seen::new(at(30));
        assert!(seen.insert(at(0), Key(1)));
        assert!(!seen.insert(at(29), Key(1)));
        assert!(seen.contains(Key(1)));
        assert!(seen.insert(at(30), Key(2)));
        assert!(!seen.contains(Key(1)));
        assert!(seen.insert(at(31), Key(1)));
        assert!(!seen.insert(at(60), Key(1)));
    }
}
