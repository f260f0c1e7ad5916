//! gossipsub 1.1 as the network runs it, pure: frames, verdicts and time go in, frames and messages to judge come out.
//!
//! ```text
//!            connect, disconnect, receive(frame) ──▶ ┌────────┐ ──▶ poll_transmit: (peer, frame)
//!   subscribe, publish, verdict, heartbeat, wake ──▶ │ Router │ ──▶ poll_event: judge this, nobody reads that
//!                       now, random() ─────────────▶ └────────┘
//! ```
//!
//! Every number comes from the configuration that production gives to libp2p's gossipsub ([`Parameters`]), the budget of
//! what one peer may send is production's own code, and the router does what the library does, version 0.50, where its
//! source says so. That includes what may surprise:
//!
//! - Production's peer scores are the same for everybody: nobody is pruned for one, and there is no opportunistic grafting.
//! - Its version is 1.1, so there is no IDONTWANT; PRUNEs carry no peers.
//! - One's own messages are flooded to every peer of the topic; fanout is kept only where a configuration says otherwise.
//! - A message that was asked of a peer that then failed to send it is not asked of another one before the first heartbeat
//!   after the followup time of three seconds.
//! - An IWANT may ask for twice as many messages as one peer's queue holds; the rest of the answer is dropped.
//!
//! What is around it in production is modelled here too: the queue of each peer, with its timeouts, the yamux window of
//! the substream, and the reader that waits while its peer is over the budget. A message's id is computed once, when it
//! comes into being ([`Message::new`]): routers pass it on with the message instead of hashing again.
//!
//! Calibrated against the real one by `tests/calibration.rs`; docs/guides/sim.md has the gap.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use pqcnet_p2p::control::gossip::{MAX_TOPICS, Parameters, message_id};
use pqcnet_p2p::control::{GossipConfig, Offence};

mod backoff;
mod beat;
mod cache;
mod neighbour;
mod router;
mod seen;
pub mod swarm;
#[cfg(test)]
mod tests;
mod wire;

pub use router::{PublishError, Router};
pub use wire::ENVELOPE;

/// A node, by the number that its world gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

/// A topic, by its place among the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic(pub u8);

impl Topic {
    fn bit(self) -> u16 {
        1 << self.0
    }

    fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// The first eight bytes of a message's id. Routers know messages by it: in a world of a million messages two share one
/// with a chance of one in 30 million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// Keys are bytes of a hash: they need no further hashing, and give the same order of buckets in every run.
#[derive(Debug, Default)]
pub(crate) struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

pub(crate) type ByKey = BuildHasherDefault<Plain>;

/// What all nodes of a network gossip by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The numbers.
    pub parameters: Parameters,
    /// The topics' names, in the order of [`Topic`].
    pub topics: Vec<String>,
}

impl Rules {
    /// Those of a production configuration; an error says what gossipsub does not take of it.
    pub fn of(config: &GossipConfig) -> Result<Arc<Rules>, String> {
        let parameters = Parameters::of(config)?;
        // Production says the same when it builds its own.
        if config.topics.len() > MAX_TOPICS {
            return Err(format!("more than {MAX_TOPICS} topics"));
        }
        Ok(Arc::new(Rules {
            parameters,
            topics: config.topics.clone(),
        }))
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        let at = self.topics.iter().position(|topic| topic == name)?;
        u8::try_from(at).ok().map(Topic)
    }

    /// A topic's name.
    pub fn name(&self, topic: Topic) -> &str {
        self.topics.get(topic.at()).map_or("", String::as_str)
    }
}

/// A message on its way; every router holds the same one.
#[derive(Debug)]
pub struct Message {
    key: Key,
    topic: Topic,
    data: Bytes,
}

impl Message {
    /// A message of a topic, named by its content as production names it.
    pub fn new(rules: &Rules, topic: Topic, data: Bytes) -> Arc<Message> {
        let [a, b, c, d, e, f, g, h, ..] = message_id(rules.name(topic), &data);
        let key = Key(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        Arc::new(Message { key, topic, data })
    }

    /// Its name among routers.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Its topic.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// Its bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

/// What a gossip RPC of ours holds: one thing each, as the library sends it.
#[derive(Clone, Debug)]
pub enum Rpc {
    /// The first word on a connection: extensions, of which there are none.
    Extensions,
    /// Takes part in these topics, a bit each.
    Subscribe(u16),
    /// Does not any more.
    Unsubscribe(Topic),
    /// Wants to be in the mesh.
    Graft(Topic),
    /// Is out of it, and not to be grafted for so many seconds.
    Prune {
        /// Which mesh.
        topic: Topic,
        /// For how long, in seconds.
        backoff: u64,
    },
    /// Has these messages.
    IHave {
        /// Of this topic.
        topic: Topic,
        /// The messages.
        keys: Arc<[Key]>,
    },
    /// Wants these.
    IWant(Arc<[Key]>),
    /// A message.
    Publish(Arc<Message>),
}

/// What travels between two routers, in order.
#[derive(Clone, Debug)]
pub enum Frame {
    /// An RPC.
    Rpc(Rpc),
    /// yamux: so many bytes more may be sent.
    Window(u32),
}

/// What a router tells its node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message that was not seen before; [`Router::verdict`] decides whether it is forwarded.
    Judge {
        /// Who brought it.
        from: Peer,
        /// It.
        message: Arc<Message>,
    },
    /// In the last heartbeat so many messages for a peer found its queue full, or grew old in it.
    Unread {
        /// Who does not read.
        peer: Peer,
        /// How many.
        messages: u64,
    },
    /// A peer does what no honest one does: its connections are to be closed.
    Misbehaved {
        /// Who.
        peer: Peer,
        /// What.
        offence: Offence,
    },
}
