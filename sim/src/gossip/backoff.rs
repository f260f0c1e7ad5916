//! Whom not to graft, and until when.

use std::time::Duration;

use super::{Peer, Topic};

#[derive(Debug)]
struct Backoff {
    topic: Topic,
    peer: Peer,
    until: Duration,
    /// The heartbeat that looks at it first.
    due: u64,
}

/// Few at a time: a mesh prunes a handful of peers a minute.
#[derive(Debug)]
pub(super) struct Backoffs {
    all: Vec<Backoff>,
    heartbeat: Duration,
    slack: u32,
    beats: u64,
}

impl Backoffs {
    pub(super) fn new(heartbeat: Duration, slack: u32) -> Backoffs {
        Backoffs {
            all: Vec::new(),
            heartbeat,
            slack,
            beats: 0,
        }
    }

    /// The later end counts.
    pub(super) fn update(&mut self, now: Duration, topic: Topic, peer: Peer, time: Duration) {
        let until = now + time;
        let step = self.heartbeat.as_nanos().max(1);
        let beats = u64::try_from(time.as_nanos().div_ceil(step)).unwrap_or(u64::MAX);
        let due = (self.beats.saturating_add(beats)).saturating_add(u64::from(self.slack));
        match self.find_mut(topic, peer) {
            Some(held) if held.until >= until => {}
            Some(held) => (held.until, held.due) = (until, due),
            None => self.all.push(Backoff {
                topic,
                peer,
                until,
                due,
            }),
        }
    }

    fn find_mut(&mut self, topic: Topic, peer: Peer) -> Option<&mut Backoff> {
        (self.all.iter_mut()).find(|held| held.topic == topic && held.peer == peer)
    }

    fn find(&self, topic: Topic, peer: Peer) -> Option<&Backoff> {
        (self.all.iter()).find(|held| held.topic == topic && held.peer == peer)
    }

    /// Whether this node still holds off, the slack included.
    pub(super) fn holds(&self, topic: Topic, peer: Peer) -> bool {
        self.find(topic, peer).is_some()
    }

    /// Whether the peer should have, by its own clock's end.
    pub(super) fn forbids(&self, now: Duration, topic: Topic, peer: Peer) -> bool {
        self.find(topic, peer).is_some_and(|held| held.until > now)
    }

    pub(super) fn beat(&mut self, now: Duration) {
        let (beats, slack) = (self.beats, self.heartbeat * self.slack);
        self.all
            .retain(|held| beats < held.due || held.until + slack > now);
        self.beats += 1;
        if self.all.is_empty() {
            self.all = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer may graft at the very end of its time, this node only after a heartbeat more; a shorter one changes
    /// nothing, and each topic counts for itself.
    #[test]
    fn ends_with_slack() {
        let at = Duration::from_millis;
        let mut backoffs = Backoffs::new(at(1000), 1);
        let (topic, peer) = (Topic(1), Peer(4));
        backoffs.update(at(500), topic, peer, at(10_000));
        backoffs.update(at(600), topic, peer, at(1000));
        assert!(!backoffs.holds(Topic(0), peer));
        let mut held = 0;
        for beat in 1..30 {
            backoffs.beat(at(beat * 1000));
            if backoffs.holds(topic, peer) {
                held = beat;
            }
        }
        assert_eq!(held, 11);
        backoffs.update(at(500), topic, peer, at(10_000));
        assert!(backoffs.forbids(at(10_499), topic, peer));
        assert!(!backoffs.forbids(at(10_500), topic, peer));
    }
}
