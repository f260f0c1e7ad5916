//! Networks with a load and an oracle.

use std::time::Duration;

use pqcnet_link::Role;
use pqcnet_roles::Metering;
use pqcnet_sim::crypto::Crypto;
use pqcnet_sim::faults::{Dice, Script};
use pqcnet_sim::oracle::{LaneSpec, Limits, Oracle, Totals};
use pqcnet_sim::world::{Hash, NodeNo, NodeSpec, NodeState, Stopped, Trace, World, WorldConfig};

/// Windows of relayers' meters.
const METERED: Duration = Duration::from_secs(5);
/// Between looks.
pub const LOOK: Duration = Duration::from_secs(1);

pub struct Town {
    pub world: World,
    pub relayers: Vec<NodeNo>,
    pub sentries: Vec<NodeNo>,
    pub clients: Vec<NodeNo>,
    pub script: Script,
    pub oracle: Oracle,
}

impl Town {
    /// A network that runs. Clients are pairs: each publishes to a channel that the other reads, so often, for so long.
    pub fn new(
        seed: u64,
        nodes: [usize; 3],
        every: Duration,
        lasts: Duration,
        limits: Limits,
    ) -> Town {
        Town::with(seed, nodes, every, lasts, limits, |_| {})
    }

    /// The same, after something was arranged.
    pub fn with(
        seed: u64,
        [relayers, sentries, clients]: [usize; 3],
        every: Duration,
        lasts: Duration,
        limits: Limits,
        arrange: impl FnOnce(&mut Town),
    ) -> Town {
        let mut config = WorldConfig::new(seed);
        config.crypto = Crypto::Modelled;
        config.yields = 64;
        config.metering = Some(Metering {
            window: METERED,
            ..Metering::default()
        });
        let mut world = World::new(config);
        let mut add = |count: usize, name: &str, role: Role| -> Vec<NodeNo> {
            let specs = (0..count).map(|n| NodeSpec::new(format!("{name}-{n}"), role));
            let add = |mut spec: NodeSpec| {
                spec.bootstrap = spec.name.as_str() == "relayer-0";
                world.add(spec).unwrap()
            };
            specs.map(add).collect()
        };
        let relayers = add(relayers, "relayer", Role::Relayer);
        let sentries = add(sentries, "sentry", Role::Sentry);
        let clients = add(clients, "client", Role::Client);
        for node in relayers.iter().chain(&sentries) {
            world.start(*node).unwrap();
        }
        let all_up = |world: &World| {
            let mut members = relayers.iter().chain(&sentries);
            members.all(|node| world.state(*node) == NodeState::Up)
        };
        while !all_up(&world) {
            assert!(
                world.now() < Duration::from_secs(60),
                "not all nodes are up"
            );
            world.run_for(Duration::from_millis(100)).unwrap();
        }
        let script = Script::new();
        script.watch(&world);
        let mut oracle = Oracle::new(&mut world, script.weather().clone(), limits).unwrap();
        let start = world.now() + Duration::from_secs(2);
        for (index, publisher) in clients.iter().enumerate() {
            let subscriber = clients[index ^ 1];
            let lane = LaneSpec {
                publisher: *publisher,
                subscriber,
                channel: "c".to_owned(),
                size: 100,
                every,
                start,
                stop: start + lasts,
            };
            oracle.add(&world, lane).unwrap();
        }
        let mut town = Town {
            world,
            relayers,
            sentries,
            clients,
            script,
            oracle,
        };
        arrange(&mut town);
        for node in &town.clients {
            town.world.start(*node).unwrap();
        }
        town.oracle.begin(&mut town.world).unwrap();
        town
    }

    pub fn run_for(&mut self, time: Duration) -> Result<(), Stopped> {
        let until = self.world.now() + time;
        self.oracle
            .drive(&mut self.world, &mut self.script, until, LOOK)
    }

    pub fn settle(&mut self, within: Duration) -> Result<(), Stopped> {
        self.oracle
            .settle(&mut self.world, &mut self.script, within)
    }
}

/// Thirty-two nodes under so many faults by dice for twenty seconds, then fair weather until all is settled.
pub fn stormy(seed: u64, faults: usize, trace: Option<&Trace>) -> Result<(Hash, Totals), Stopped> {
    let every = Duration::from_millis(250);
    let lasts = Duration::from_secs(22);
    let mut town = Town::new(seed, [4, 8, 20], every, lasts, Limits::default());
    if let Some(trace) = trace {
        town.world.observe(trace.clone());
    }
    let now = town.world.now();
    let dice = Dice {
        window: (now + Duration::from_secs(2), now + Duration::from_secs(22)),
        faults,
        longest: Duration::from_secs(5),
    };
    let mut rng = town.world.rng(town.relayers[0], "script", "faults");
    town.script.draw(&town.world, &dice, &mut rng);
    town.run_for(Duration::from_secs(24))?;
    town.settle(Duration::from_secs(90))?;
    let metered = town.oracle.audit(&mut town.world)?;
    assert_eq!(metered.map(|metered| metered.relayers), Some(4));
    Ok((town.world.hash(), town.oracle.totals()))
}
