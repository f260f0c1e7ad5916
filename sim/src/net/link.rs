//! What a link does to bytes. Pure: randomness comes in.

use std::time::Duration;

use pqcnet_actor::StreamRng;
use rand_core::Rng;

use crate::world::{NodeName, NodeNo};

/// A node, as a model of links sees it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its number in the world.
    pub node: NodeNo,
    /// Its name.
    pub name: NodeName,
    /// Where it stands, in the words of the model: a city, a region; empty where that does not matter.
    pub place: String,
}

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// What light and routers take.
    pub latency: Duration,
    /// Mean of what queues on the way add: exponentially distributed.
    pub jitter: Duration,
    /// Of the packets, this part is lost.
    pub loss: f64,
    /// Of the datagrams, this part comes twice.
    pub duplicate: f64,
    /// Of the datagrams, this part comes late, by up to four latencies more.
    pub reorder: f64,
    /// Bytes a second, and how many of them may wait; `None` is as fast as one likes.
    pub bandwidth: Option<Bandwidth>,
}

/// How fast a link takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Bytes that wait before datagrams are dropped; streams wait longer.
    pub queue_bytes: u64,
}

impl Default for Link {
    /// 20 ms one way, and nothing else.
    fn default() -> Link {
        Link {
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            bandwidth: None,
        }
    }
}

/// Which link two nodes have. Asked once for each pair and direction, when the first byte goes there.
pub trait LinkModel: Send + 'static {
    /// The link from one node to another.
    fn link(&mut self, from: &Site, to: &Site) -> Link;
}

impl<F: FnMut(&Site, &Site) -> Link + Send + 'static> LinkModel for F {
    fn link(&mut self, from: &Site, to: &Site) -> Link {
        self(from, to)
    }
}

/// The same link between all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uniform(pub Link);

impl LinkModel for Uniform {
    fn link(&mut self, _: &Site, _: &Site) -> Link {
        self.0
    }
}

/// The least that a stream waits before it sends a segment again (RFC 6298 says a second, Linux does 200 ms).
const RETRANSMIT_AT_LEAST: Duration = Duration::from_millis(200);
/// Bytes of a packet, headers not counted: what Ethernet leaves to TCP.
const PACKET: usize = 1_448;
/// Headers of Ethernet, IP and TCP with timestamps.
const HEADERS: usize = 66;
/// A segment is lost at most so often in a row, however bad the link: then it is the path that is cut, not this.
const LOSSES_IN_A_ROW: u32 = 6;

/// Bytes on the wire that carry so many.
pub(super) fn on_wire(bytes: usize) -> u64 {
    let packets = bytes.div_ceil(PACKET).max(1);
    u64::try_from(bytes + packets * HEADERS).unwrap_or(u64::MAX)
}

/// A number from 0 up to and without 1.
pub(super) fn unit(rng: &mut StreamRng) -> f64 {
    // 53 bits are what a double holds exactly.
    let bits = rng.next_u64() >> 11;
    let bits = bits as f64;
    bits / 9_007_199_254_740_992.0
}

fn scaled(duration: Duration, by: f64) -> Duration {
    let ns = duration.as_nanos() as f64 * by;
    let ns = ns.clamp(0.0, 3.2e16) as u64;
    Duration::from_nanos(ns)
}

impl Link {
    /// Whether anything on it is left to chance.
    pub(super) fn is_random(&self) -> bool {
        self.jitter > Duration::ZERO
            || self.loss > 0.0
            || self.duplicate > 0.0
            || self.reorder > 0.0
    }

    fn jittered(&self, rng: &mut StreamRng) -> Duration {
        if self.jitter.is_zero() {
            return self.latency;
        }
        // 1 - u is never zero.
        let exponential = -libm::log(1.0 - unit(rng));
        self.latency + scaled(self.jitter, exponential)
    }

    /// How long a stream's segment is on its way, retransmissions included.
    pub(super) fn stream_delay(&self, bytes: usize, rng: &mut StreamRng) -> Duration {
        let mut delay = self.jittered(rng);
        if self.loss > 0.0 {
            let packets = bytes.div_ceil(PACKET).max(1) as f64;
            let all_arrive = libm::pow(1.0 - self.loss, packets);
            let mut wait = (self.latency * 2).max(RETRANSMIT_AT_LEAST);
            for _ in 0..LOSSES_IN_A_ROW {
                if unit(rng) < all_arrive {
                    break;
                }
                delay += wait;
                wait *= 2;
            }
        }
        delay
    }

    /// When a datagram comes: never, once or twice.
    pub(super) fn datagram_delays(&self, rng: &mut StreamRng) -> [Option<Duration>; 2] {
        if self.loss > 0.0 && unit(rng) < self.loss {
            return [None, None];
        }
        let mut first = self.jittered(rng);
        if self.reorder > 0.0 && unit(rng) < self.reorder {
            first += scaled(self.latency, 4.0 * unit(rng));
        }
        let twice = self.duplicate > 0.0 && unit(rng) < self.duplicate;
        let second = twice.then(|| self.jittered(rng));
        [Some(first), second]
    }
}
