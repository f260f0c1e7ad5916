//! A world with all nodes of a scenario, switched on.

use std::time::Duration;

use pqcnet_link::Role as LinkRole;
use pqcnet_roles::Metering;

use super::PlayError;
use super::links::{Links, line};
use crate::crypto::Crypto;
use crate::disk::DiskConfig;
use crate::net::Nat;
use crate::scenario::Loaded;
use crate::scenario::spec::{self, Role};
use crate::world::{CpuSpec, NodeNo, NodeSpec, NodeState, World, WorldConfig};

/// Relayers that others dial first on the control plane.
const BOOTSTRAPS: usize = 4;
/// Nodes that are switched on within one simulated second: a data centre that comes back does not start all at once.
const A_SECOND: usize = 100;
/// Simulated time until all nodes must be up.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Between looks at who is up.
const LOOK: Duration = Duration::from_millis(100);
/// One poll in so many gives way to others, so that another seed is another schedule.
const YIELDS: u32 = 64;

/// A world with the scenario's nodes, all down.
pub(super) fn world(loaded: &Loaded, seed: u64) -> Result<World, PlayError> {
    let scenario = &loaded.scenario;
    let mut config = WorldConfig::new(seed);
    config.crypto = match scenario.crypto {
        spec::Crypto::Real => Crypto::Real,
        spec::Crypto::Memo => Crypto::Memo,
        spec::Crypto::Modelled => Crypto::Modelled,
    };
    config.costs = scenario.costs;
    config.links = Box::new(Links::of(loaded)?);
    config.yields = YIELDS;
    config.shards = u16::try_from(scenario.shards).unwrap_or(u16::MAX);
    config.metering = scenario.metering.map(|window| Metering {
        window,
        ..Metering::default()
    });
    let mut world = World::new(config);
    let mut bootstraps = BOOTSTRAPS;
    let brokers = scenario.groups.iter().filter(|g| g.role == Role::Broker);
    let brokers: Vec<String> = brokers.flat_map(spec::Group::nodes).collect();
    let mut relayers = 0;
    for group in &scenario.groups {
        for (index, name) in group.nodes().enumerate() {
            let role = match group.role {
                Role::Relayer => LinkRole::Relayer,
                Role::Sentry => LinkRole::Sentry,
                Role::Client | Role::Broker => LinkRole::Client,
            };
            let mut node = NodeSpec::new(name, role);
            node.place = group.region(index).to_owned();
            node.bootstrap = role == LinkRole::Relayer && bootstraps > 0;
            bootstraps -= usize::from(node.bootstrap);
            node.serves = group.role == Role::Broker;
            if role == LinkRole::Relayer && !brokers.is_empty() {
                node.broker = Some(brokers[relayers % brokers.len()].as_str().into());
                relayers += 1;
            }
            node.nat = match group.nat {
                spec::Nat::None => Nat::None,
                spec::Nat::Cone => Nat::Cone,
                spec::Nat::Symmetric => Nat::Symmetric,
            };
            node.access = group.bandwidth.map(|bits| line(bits, &scenario.network));
            node.cpu = CpuSpec {
                slowness: 1.0 / group.cpu,
                ..CpuSpec::default()
            };
            if let Some(bytes) = group.disk {
                node.disk = DiskConfig {
                    capacity: bytes,
                    ..DiskConfig::default()
                };
            }
            world.add(node)?;
        }
    }
    Ok(world)
}

/// Switches everything on, brokers before members before clients, and waits until all are up.
pub(super) fn start(world: &mut World) -> Result<(), PlayError> {
    let all: Vec<NodeNo> = world.nodes().collect();
    let (clients, members): (Vec<NodeNo>, Vec<NodeNo>) = all
        .into_iter()
        .partition(|node| world.spec(*node).role == LinkRole::Client);
    let (brokers, clients): (Vec<NodeNo>, Vec<NodeNo>) = clients
        .into_iter()
        .partition(|node| world.spec(*node).serves);
    for nodes in [brokers, members, clients] {
        for some in nodes.chunks(A_SECOND / 10) {
            for node in some {
                world.start(*node)?;
            }
            world.run_for(LOOK)?;
        }
        await_up(world, &nodes)?;
    }
    Ok(())
}

fn await_up(world: &mut World, nodes: &[NodeNo]) -> Result<(), PlayError> {
    let until = world.now() + PATIENCE;
    loop {
        let mut late = None;
        for node in nodes {
            match world.state(*node) {
                NodeState::Up => {}
                NodeState::Failed => {
                    let name = world.spec(*node).name.clone();
                    return Err(match world.failure(*node) {
                        Some(error) => PlayError::Failed { name, error },
                        None => PlayError::Late { name },
                    });
                }
                NodeState::Down | NodeState::Starting | NodeState::Stopping => late = Some(*node),
            }
        }
        let Some(late) = late else {
            return Ok(());
        };
        if world.now() >= until {
            let name = world.spec(late).name.clone();
            return Err(PlayError::Late { name });
        }
        world.run_for(LOOK)?;
    }
}
