//! A run written down, to find where two runs part.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::ledger::{Event, EventKind, Observer, Verdict};
use super::{NodeNo, SimTime};

/// One event, as a [`Trace`] keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When.
    pub at: SimTime,
    /// Where it comes from.
    pub kind: EventKind,
    /// At which node.
    pub node: NodeNo,
    /// The event in words, without its number.
    words: Arc<str>,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Events that a trace keeps at most: 10 million take a gigabyte.
const AT_MOST: usize = 10_000_000;
/// Events told before the first that differs.
const BEFORE: usize = 5;

/// Writes a run down. Clones write into the same.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<Recorded>>>);

impl Trace {
    /// Nothing yet.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Events written down.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything written down so far.
    pub fn events(&self) -> Vec<Recorded> {
        self.0.lock().clone()
    }

    /// Where another run parts from this one; `None` if it does not.
    pub fn difference(&self, other: &Trace) -> Option<Difference> {
        let (first, second) = (self.events(), other.events());
        let equal = first.iter().zip(&second);
        let at = equal.take_while(|(a, b)| a == b).count();
        if at == first.len() && at == second.len() {
            return None;
        }
        Some(Difference {
            number: at + 1,
            before: first[at.saturating_sub(BEFORE)..at].to_vec(),
            first: first.get(at).cloned(),
            second: second.get(at).cloned(),
        })
    }
}

impl Observer for Trace {
    fn on_event(&mut self, event: &Event<'_>) -> Verdict {
        let mut events = self.0.lock();
        if events.len() < AT_MOST {
            let words = event.to_string();
            let words = words.split_once(' ').map_or(&*words, |(_, rest)| rest);
            events.push(Recorded {
                at: event.at,
                kind: event.kind,
                node: event.node,
                words: Arc::from(words),
            });
        }
        Verdict::Go
    }
}

/// Where two runs part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of the first event that differs.
    pub number: usize,
    /// What both did just before.
    pub before: Vec<Recorded>,
    /// What the first run did; `None`: it ended.
    pub first: Option<Recorded>,
    /// What the second did.
    pub second: Option<Recorded>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the runs part at event {}", self.number)?;
        for event in &self.before {
            writeln!(f, "    both: {event}")?;
        }
        for (who, event) in [("   first", &self.first), ("  second", &self.second)] {
            match event {
                Some(event) => writeln!(f, "{who}: {event}")?,
                None => writeln!(f, "{who}: has ended")?,
            }
        }
        Ok(())
    }
}
