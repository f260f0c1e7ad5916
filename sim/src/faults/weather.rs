//! Who is in trouble by the world's will, and since when nobody is: what an invariant about time must know.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::world::{NodeNo, SimTime};

/// Troubles of nodes. Clones are the same weather.
#[derive(Clone, Default)]
pub struct Weather(Arc<Mutex<BTreeMap<NodeNo, Trouble>>>);

#[derive(Clone, Copy, Default)]
struct Trouble {
    /// How many last.
    now: u32,
    /// When the last one ended.
    over: SimTime,
}

impl Weather {
    /// Nobody is in trouble.
    pub fn new() -> Weather {
        Weather::default()
    }

    /// One more trouble of a node begins.
    pub fn begins(&self, node: NodeNo) {
        self.0.lock().entry(node).or_default().now += 1;
    }

    /// One of its troubles ends.
    pub fn ends(&self, node: NodeNo, now: SimTime) {
        let mut troubles = self.0.lock();
        let trouble = troubles.entry(node).or_default();
        trouble.now = trouble.now.saturating_sub(1);
        trouble.over = now;
    }

    /// Since when a node is in no trouble; `None` while it is.
    pub fn fair_since(&self, node: NodeNo) -> Option<SimTime> {
        match self.0.lock().get(&node) {
            Some(trouble) if trouble.now > 0 => None,
            Some(trouble) => Some(trouble.over),
            None => Some(SimTime::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // Two troubles overlap: it is fair again when the second is over, and from then on.
    #[test]
    fn troubles_overlap() {
        let weather = Weather::new();
        let (node, other) = (NodeNo(1), NodeNo(2));
        let at = Duration::from_secs;
        assert_eq!(weather.fair_since(node), Some(at(0)));
        weather.begins(node);
        weather.begins(node);
        weather.ends(node, at(3));
        assert_eq!(weather.fair_since(node), None);
        weather.ends(node, at(5));
        assert_eq!(weather.fair_since(node), Some(at(5)));
        assert_eq!(weather.fair_since(other), Some(at(0)));
    }
}
