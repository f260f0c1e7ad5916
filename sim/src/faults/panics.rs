//! Actors that panic at chosen messages.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Weather;
use crate::world::{Event, EventKind, NodeNo, Observer, Verdict};

/// An actor that is to panic once.
struct Wanted {
    node: NodeNo,
    actor: String,
    message: Option<String>,
    /// So many such messages it handles before.
    after: u32,
}

/// Panics that are wanted; a world observes it. Clones are the same list.
#[derive(Clone, Default)]
pub struct Panics {
    wanted: Arc<Mutex<Vec<Wanted>>>,
    weather: Weather,
}

impl Panics {
    /// None is wanted. A panic is a trouble of its node in this weather: over at once, when it happens.
    pub fn new(weather: Weather) -> Panics {
        Panics {
            wanted: Arc::default(),
            weather,
        }
    }

    /// The first actor of the node whose path begins like this panics at this message, or at any, after so many of them.
    pub fn want(&self, node: NodeNo, actor: &str, message: Option<&str>, after: u32) {
        self.wanted.lock().push(Wanted {
            node,
            actor: actor.to_owned(),
            message: message.map(str::to_owned),
            after,
        });
    }

    /// Panics that have not happened yet.
    pub fn left(&self) -> usize {
        self.wanted.lock().len()
    }
}

impl Observer for Panics {
    fn on_event(&mut self, event: &Event<'_>) -> Verdict {
        if event.kind != EventKind::Handled {
            return Verdict::Go;
        }
        let mut wanted = self.wanted.lock();
        if wanted.is_empty() {
            return Verdict::Go;
        }
        let of = |w: &Wanted| {
            w.node == event.node
                && event.actor.starts_with(&w.actor)
                && w.message.as_ref().is_none_or(|m| m == event.message)
        };
        let Some(index) = wanted.iter().position(of) else {
            return Verdict::Go;
        };
        if wanted[index].after > 0 {
            wanted[index].after -= 1;
            return Verdict::Go;
        }
        wanted.remove(index);
        self.weather.begins(event.node);
        self.weather.ends(event.node, event.at);
        Verdict::Panic
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::world::NodeName;

    fn event<'a>(node: u32, actor: &'a str, message: &'a str, name: &'a NodeName) -> Event<'a> {
        Event {
            number: 1,
            kind: EventKind::Handled,
            at: Duration::from_secs(9),
            node: NodeNo(node),
            name,
            actor,
            message,
            len: 0,
            digest: 0,
        }
    }

    // The second Ping of any shard worker of node 1 is fatal, once; other nodes, actors and messages are left alone.
    #[test]
    fn one_message_is_fatal_once() {
        let weather = Weather::new();
        let mut panics = Panics::new(weather.clone());
        panics.want(NodeNo(1), "relayer/shards/", Some("Ping"), 1);
        let name = NodeName::new("n");
        let shard = "relayer/shards/shard-3";
        for (node, actor, message, verdict) in [
            (2, shard, "Ping", Verdict::Go),
            (1, "relayer/gate", "Ping", Verdict::Go),
            (1, shard, "Pong", Verdict::Go),
            (1, shard, "Ping", Verdict::Go),
            (1, shard, "Ping", Verdict::Panic),
            (1, shard, "Ping", Verdict::Go),
        ] {
            let told = panics.on_event(&event(node, actor, message, &name));
            assert_eq!(told, verdict, "{node} {actor} {message}");
        }
        assert_eq!(panics.left(), 0);
        assert_eq!(weather.fair_since(NodeNo(1)), Some(Duration::from_secs(9)));
        assert_eq!(weather.fair_since(NodeNo(2)), Some(Duration::ZERO));
    }
}
