//! Messages of the last heartbeats: for whoever asks, and until their verdict.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{ByKey, Key, Message, Peer, Topic};

/// Before the verdict: who else has brought a message. After it: who has asked for it, and how often.
pub(super) type Peers = Vec<(Peer, u32)>;

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    judged: bool,
    peers: Peers,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry, ByKey>,
    /// By heartbeat, the youngest first.
    history: VecDeque<Vec<Key>>,
    gossip: usize,
}

impl Cache {
    pub(super) fn new(gossip: usize, length: usize) -> Cache {
        Cache {
            entries: HashMap::default(),
            history: (0..length).map(|_| Vec::new()).collect(),
            gossip,
        }
    }

    pub(super) fn put(&mut self, message: Arc<Message>, judged: bool) {
        let key = message.key();
        let Some(youngest) = self.history.front_mut() else {
            return;
        };
        if self.entries.contains_key(&key) {
            return;
        }
        youngest.push(key);
        let entry = Entry {
            message,
            judged,
            peers: Vec::new(),
        };
        self.entries.insert(key, entry);
    }

    /// A peer has brought what we have: it need not be sent back to it.
    pub(super) fn observe(&mut self, key: Key, from: Peer) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !entry.judged
            && entry.peers.iter().all(|(peer, _)| *peer != from)
        {
            entry.peers.push((from, 0));
        }
    }

    /// Marks a message as accepted; gives it and who else has brought it meanwhile.
    pub(super) fn accept(&mut self, key: Key) -> Option<(Arc<Message>, Peers)> {
        let entry = self.entries.get_mut(&key)?;
        entry.judged = true;
        Some((entry.message.clone(), std::mem::take(&mut entry.peers)))
    }

    /// Forgets it, and says whether it was there; its place in the history stays, empty.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        self.entries.remove(&key).is_some()
    }

    /// An accepted message, and how often the peer has asked for it, this time included.
    pub(super) fn asked(&mut self, key: Key, by: Peer) -> Option<(Arc<Message>, u32)> {
        let entry = self.entries.get_mut(&key).filter(|entry| entry.judged)?;
        let message = entry.message.clone();
        let count = match entry.peers.iter_mut().find(|(peer, _)| *peer == by) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                entry.peers.push((by, 1));
                1
            }
        };
        Some((message, count))
    }

    /// What others are to be told of.
    pub(super) fn recent(&self, topic: Topic) -> Vec<Key> {
        let windows = self.history.iter().take(self.gossip).flatten();
        let told = |key: &Key| {
            let entry = self.entries.get(key);
            entry.is_some_and(|entry| entry.judged && entry.message.topic() == topic)
        };
        windows.copied().filter(|key| told(key)).collect()
    }

    /// A heartbeat: the oldest go.
    pub(super) fn shift(&mut self) {
        if let Some(mut oldest) = self.history.pop_back() {
            for key in oldest.drain(..) {
                self.entries.remove(&key);
            }
            // A burst's worth of room is given back.
            oldest.shrink_to(16);
            self.history.push_front(oldest);
        }
        if self.entries.is_empty() {
            self.entries.shrink_to(16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::Rules;
    use bytes::Bytes;
    use pqcnet_p2p::control::GossipConfig;

    fn message(text: &'static str) -> Arc<Message> {
        let rules = Rules::of(&GossipConfig::default()).unwrap();
        Message::new(&rules, Topic(0), Bytes::from_static(text.as_bytes()))
    }

    /// A message is told of only once accepted and for as many heartbeats as it should, and can be asked for a little
    /// longer; a rejected one is gone at once.
    #[test]
    fn from_verdict_to_oblivion() {
        let mut cache = Cache::new(3, 5);
        let (good, bad) = (message("good"), message("bad"));
        cache.put(good.clone(), false);
        cache.put(bad.clone(), false);
        assert!(cache.recent(Topic(0)).is_empty());
        assert!(cache.asked(good.key(), Peer(1)).is_none());
        cache.observe(good.key(), Peer(7));
        cache.observe(good.key(), Peer(7));
        let (_, others) = cache.accept(good.key()).unwrap();
        assert_eq!(others, [(Peer(7), 0)]);
        assert!(cache.remove(bad.key()));
        for beat in 0..5 {
            let told = if beat < 3 { vec![good.key()] } else { vec![] };
            assert_eq!(cache.recent(Topic(0)), told);
            let (_, count) = cache.asked(good.key(), Peer(1)).unwrap();
            assert_eq!(count, beat + 1);
            cache.shift();
        }
        assert!(cache.asked(good.key(), Peer(1)).is_none());
        assert!(cache.asked(bad.key(), Peer(1)).is_none());
        assert!(cache.recent(Topic(1)).is_empty());
    }
}
