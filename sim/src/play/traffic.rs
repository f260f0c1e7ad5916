//! A scenario's traffic and invariants, as the oracle takes them.

use std::time::Duration;

use super::PlayError;
use pqcnet_crypto::NodeId;
use pqcnet_link::Role;
use pqcnet_messages::{Channel, ChannelName, ShardMap};

use crate::faults::Weather;
use crate::oracle::{LaneSpec, Limits, Oracle};
use crate::report::resident;
use crate::scenario::Scenario;
use crate::scenario::spec::Traffic;
use crate::world::{NodeNo, World};

fn memory() -> u64 {
    resident().0
}

/// An oracle with a lane for each channel. Times begin now.
pub(super) fn oracle(
    scenario: &Scenario,
    world: &mut World,
    weather: Weather,
) -> Result<Oracle, PlayError> {
    let invariants = &scenario.invariants;
    let defaults = Limits::default();
    let limits = Limits {
        grace: invariants.reach.or(defaults.grace),
        mailbox: invariants
            .mailbox
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        memory: invariants.memory.map(|most| (memory as fn() -> u64, most)),
    };
    let mut oracle = Oracle::new(world, weather, limits)?;
    // Sentries that break the rules can say what they like: honest clients use the others.
    let fallen = scenario.byzantine.iter().flat_map(|b| &b.targets.nodes);
    for node in fallen.filter_map(|name| world.find(name)) {
        if world.spec(node).role == Role::Sentry {
            oracle.distrust(world.id(node));
        }
    }
    let victims = scenario.byzantine.iter().flat_map(|b| &b.victims.nodes);
    for node in victims.filter_map(|name| world.find(name)) {
        oracle.give_up(node);
    }
    for (index, traffic) in scenario.traffic.iter().enumerate() {
        add(scenario, index, traffic, world, &mut oracle)?;
    }
    Ok(oracle)
}

fn add(
    scenario: &Scenario,
    index: usize,
    traffic: &Traffic,
    world: &World,
    oracle: &mut Oracle,
) -> Result<(), PlayError> {
    let nodes = |name: &str| -> Vec<NodeNo> {
        let group = scenario.group(name).into_iter();
        let names = group.flat_map(|group| group.nodes());
        names.filter_map(|name| world.find(&name)).collect()
    };
    let (publishers, subscribers) = (nodes(&traffic.publishers), nodes(&traffic.subscribers));
    let begins = world.now();
    let every = Duration::from_secs_f64(1.0 / traffic.rate);
    let count = publishers.len().max(subscribers.len());
    for lane in 0..count {
        let both = publishers
            .get(lane % publishers.len().max(1))
            .zip(subscribers.get(lane % subscribers.len().max(1)));
        let Some((&publisher, &subscriber)) = both else {
            return Ok(());
        };
        for channel in 0..traffic.channels {
            // Not all at the same instant: each lane begins at its own part of the pause between two messages.
            let offset = every.mul_f64(lane as f64 / count as f64);
            let mut name = format!("traffic-{index}/lane-{lane}/{channel}");
            if let Some(shard) = traffic.shard {
                name = in_shard(world.id(publisher), &name, (shard, scenario.shards));
            }
            oracle.add(
                world,
                LaneSpec {
                    publisher,
                    subscriber,
                    channel: name,
                    size: traffic.size,
                    every,
                    start: begins + traffic.start + offset,
                    stop: begins + traffic.stop,
                },
            )?;
        }
    }
    Ok(())
}

/// The first of `name/0`, `name/1`, ... that is in this shard of so many.
fn in_shard(owner: NodeId, name: &str, (shard, shards): (u32, u32)) -> String {
    let map = ShardMap::new(1, vec![owner; shards.max(1) as usize]);
    let names = (0u32..).map(|number| format!("{name}/{number}"));
    let mut found = names.filter(|name| {
        let channel = ChannelName::new(name).map(|name| Channel { owner, name });
        match (&map, channel) {
            (Ok(map), Ok(channel)) => u32::from(map.shard_of(&channel).0) == shard,
            // No such channel: whoever adds the lane says so.
            _ => true,
        }
    });
    found.next().unwrap_or_default()
}
