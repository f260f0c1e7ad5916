//! One channel: who publishes, who reads, and its account.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pqcnet_account::{Broken, Running};
use pqcnet_crypto::NodeId;
use pqcnet_log::ShardNo;
use pqcnet_messages::{Channel, ChannelName, ShardMap};

use crate::world::{NodeNo, SimTime, World, WorldError};

/// A channel's load.
#[derive(Clone, Debug)]
pub struct LaneSpec {
    /// A client that owns the channel and publishes.
    pub publisher: NodeNo,
    /// A client that reads it; it may be the same.
    pub subscriber: NodeNo,
    /// The channel's name.
    pub channel: String,
    /// Bytes of a payload, at least 8.
    pub size: usize,
    /// Between messages.
    pub every: Duration,
    /// When the first is sent.
    pub start: SimTime,
    /// None is sent from then on.
    pub stop: SimTime,
}

/// Counts of all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Handed to a publisher.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Of unknown outcome, by the publisher's word.
    pub unknown: u64,
    /// Records delivered for the first time.
    pub delivered: u64,
    /// Times that a subscriber came back with an offset.
    pub resumed: u64,
}

pub(super) struct Lane {
    pub(super) spec: LaneSpec,
    pub(super) channel: Channel,
    pub(super) shard: ShardNo,
    /// The relayer that has the shard at first.
    pub(super) owner: Option<NodeNo>,
    pub(super) reader: NodeId,
    name: String,
    /// What becomes of it is nobody's fault.
    excused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) account: Running,
    /// The sentry of the publisher's client and of the subscriber's, and since when it is that one.
    pub(super) publishes_by: (Option<NodeId>, SimTime),
    pub(super) reads_by: (Option<NodeId>, SimTime),
    pub(super) resumed: u64,
    /// When each message was handed over that has not been delivered.
    pub(super) sent_at: BTreeMap<u64, SimTime>,
}

impl Lane {
    pub(super) fn new(
        world: &World,
        map: &ShardMap,
        spec: LaneSpec,
    ) -> Result<Arc<Lane>, WorldError> {
        let name = ChannelName::new(spec.channel.as_str())
            .map_err(|error| WorldError::Network(error.to_string()))?;
        let owner = world.id(spec.publisher);
        let channel = Channel { owner, name };
        let shard = map.shard_of(&channel);
        let id = map.owner_of(shard);
        let relayer = world.nodes().find(|node| Some(world.id(*node)) == id);
        let publisher = world.spec(spec.publisher).name.clone();
        Ok(Arc::new(Lane {
            reader: world.id(spec.subscriber),
            name: format!("{publisher}/{}", spec.channel),
            channel,
            shard: ShardNo(shard.0),
            owner: relayer,
            excused: AtomicBool::new(false),
            state: Mutex::default(),
            spec,
        }))
    }

    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// From now on nobody judges it.
    pub(super) fn excuse(&self) {
        self.excused.store(true, Relaxed);
    }

    pub(super) fn is_judged(&self) -> bool {
        !self.excused.load(Relaxed)
    }

    /// What is broken, told with the channel's name.
    pub(super) fn told(&self, broken: &Broken) -> String {
        format!("{self}: {broken}")
    }

    pub(super) fn payload(&self, message: u64) -> Bytes {
        let mut payload = message.to_be_bytes().to_vec();
        payload.resize(self.spec.size.max(8), message as u8);
        payload.into()
    }

    /// The number in a payload; `None` when it is not one of this lane's.
    pub(super) fn message(&self, payload: &[u8]) -> Option<u64> {
        let number = u64::from_be_bytes(*payload.first_chunk()?);
        (payload == self.payload(number)).then_some(number)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.state().account.under_way() == (0, 0)
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        let state = self.state();
        let [sent, acked, unknown, delivered] = state.account.counts();
        totals.sent += sent;
        totals.acked += acked;
        totals.unknown += unknown;
        totals.delivered += delivered;
        totals.resumed += state.resumed;
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {} in shard {}", self.name, self.shard.0)
    }
}
