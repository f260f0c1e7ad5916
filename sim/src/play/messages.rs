//! Every message for the table of events, where it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::report::Event;
use crate::world::{self, EventKind, Observer, Verdict, World};

/// Messages between two samples that are kept; more are left out, and counted.
const MAX_WAITING: usize = 2_000_000;

/// Gathers messages while the world runs; the table is written between.
#[derive(Clone, Default)]
pub(super) struct Messages(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    left_out: u64,
    /// Names that were seen, each held once.
    names: BTreeMap<String, Arc<str>>,
}

/// Different names that are held once; actors of a nursery have names of their own each.
const MAX_NAMES: usize = 100_000;

impl Waiting {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let new: Arc<str> = Arc::from(name);
        if self.names.len() < MAX_NAMES {
            self.names.insert(name.to_owned(), new.clone());
        }
        new
    }
}

impl Messages {
    /// Looks on, if they are wanted.
    pub(super) fn of(world: &World, wanted: bool) -> Messages {
        let messages = Messages::default();
        if wanted {
            world.observe(messages.clone());
        }
        messages
    }

    /// What was gathered since the last call; times are the world's.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().events)
    }

    /// How many were left out.
    pub(super) fn left_out(&self) -> u64 {
        self.0.lock().left_out
    }
}

impl Observer for Messages {
    fn on_event(&mut self, event: &world::Event<'_>) -> Verdict {
        let mut waiting = self.0.lock();
        if waiting.events.len() >= MAX_WAITING {
            waiting.left_out += 1;
            return Verdict::Go;
        }
        let kind = match event.kind {
            EventKind::Handled => "handled",
            EventKind::Passed => "passed",
            EventKind::Network => "network",
            EventKind::Noted => "noted",
        };
        let node = waiting.name(event.name.as_str());
        let actor = waiting.name(event.actor);
        let what = waiting.name(event.message);
        waiting.events.push(Event {
            at: event.at,
            kind,
            node,
            actor,
            what,
            len: u64::try_from(event.len).unwrap_or(u64::MAX),
        });
        Verdict::Go
    }
}
