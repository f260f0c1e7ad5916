//! What was sent more than once, by the nodes' own meters.

use std::collections::BTreeMap;

use pqcnet_actor::Reading;

use crate::world::{NodeNo, World};

/// Of clients: messages of attempts that were not acknowledged.
const PUBLISHES: &str = "publish_unacknowledged_messages";
/// Of sentries: records that a feed missed and got when it began again.
const DELIVERIES: &str = "feed_replayed_records";

/// Both, summed over all nodes and their starts. What a node counted since the last look before it died is not in it.
#[derive(Default)]
pub(super) struct Again {
    seen: BTreeMap<(NodeNo, &'static str), u64>,
    sums: BTreeMap<&'static str, u64>,
}

impl Again {
    pub(super) fn look(&mut self, world: &World) {
        for node in world.nodes() {
            let meters = world.env(node).map(|env| env.meters()).unwrap_or_default();
            for name in [PUBLISHES, DELIVERIES] {
                let found = meters.iter().find(|meter| meter.name == name);
                let now = match found.map(|meter| &meter.reading) {
                    Some(Reading::Counter(total)) => *total,
                    Some(Reading::Histogram(_)) | None => 0,
                };
                let before = self.seen.insert((node, name), now).unwrap_or(0);
                // A node that was started anew counts from zero.
                let more = now.checked_sub(before).unwrap_or(now);
                *self.sums.entry(name).or_default() += more;
            }
        }
    }

    /// Messages of attempts that were not acknowledged.
    pub(super) fn publishes(&self) -> u64 {
        self.sums.get(PUBLISHES).copied().unwrap_or(0)
    }

    /// Records that subscribers got only by coming back.
    pub(super) fn deliveries(&self) -> u64 {
        self.sums.get(DELIVERIES).copied().unwrap_or(0)
    }
}
