//! Load on a world, and what must hold all along.
//!
//! ```text
//!   client nodes: production clients publish and read ──▶ one account a channel (pqcnet-account)
//!                                                            │ first broken promise
//!   every so often: disks, mailboxes, memory, time ──────────┤
//!                                                            ▼
//!                                          Ledger::stop: seed, time, last events
//! ```
//!
//! | invariant | how it is checked |
//! |---|---|
//! | nothing acknowledged is lost | after each crash and each look: the owner's disk holds every entry up to the highest acknowledged offset; a subscriber gets at each offset what was acknowledged there |
//! | no delivery at or below a presented offset | at each delivery; subscribers come back with the last offset they stored |
//! | order per (customer, channel) | at each delivery, within one start of the publisher |
//! | honest subscribers reached in time | at each look: what was acknowledged has arrived, and what was sent is answered, within a grace since the way is open ([`Weather`]) |
//! | meters count what was stored, each message once | at each look: never more than the owner's disk has, and no receipt for what its subscriber did not take; when all is settled, windows are closed and have exactly what the logs have |
//! | bounded mailboxes and memory | at each look |

mod books;
mod checks;
mod lane;
mod load;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_messages::ShardMap;

pub use books::Metered;
pub use checks::Limits;
pub(crate) use checks::moved_streams;
pub use lane::{LaneSpec, Totals};
pub use times::{Leg, Times};

use crate::faults::{Restarts, Script, Weather};
use crate::world::{Ledger, NodeNo, SimTime, Stopped, World, WorldError};
use lane::Lane;

/// Load and invariants of one world.
pub struct Oracle {
    limits: Limits,
    weather: Weather,
    ledger: Arc<Ledger>,
    map: ShardMap,
    lanes: Vec<Arc<Lane>>,
    times: Times,
    /// Sentries that honest clients do not use.
    distrusted: BTreeSet<NodeId>,
    /// Clients that use those, and nobody else; what they get is not judged.
    victims: BTreeSet<NodeNo>,
    /// Lanes of each client node.
    of_client: BTreeMap<NodeNo, Vec<Arc<Lane>>>,
    /// Crashes that each disk has had when it was last looked at.
    crashes: BTreeMap<NodeNo, u64>,
    /// Whom the root has given shards, and since when a lane's shard may be at any of them.
    heirs: (BTreeSet<NodeNo>, SimTime),
}

impl Oracle {
    /// No load yet.
    ///
    /// # Errors
    /// The world's nodes make no network.
    pub fn new(world: &mut World, weather: Weather, limits: Limits) -> Result<Oracle, WorldError> {
        let network = world.network()?;
        let relayers = network.relayers();
        let ids = relayers.iter().map(|node| node.id);
        let map = ShardMap::from_relayers(network.shards(), ids)
            .map_err(|error| WorldError::Network(error.to_string()))?;
        Ok(Oracle {
            limits,
            weather,
            ledger: world.ledger().clone(),
            map,
            lanes: Vec::new(),
            times: Times::default(),
            distrusted: BTreeSet::new(),
            victims: BTreeSet::new(),
            of_client: BTreeMap::new(),
            crashes: BTreeMap::new(),
            heirs: (BTreeSet::new(), Duration::ZERO),
        })
    }

    /// A sentry breaks the rules. It can acknowledge what nobody stored, so honest clients keep away from it; a load that
    /// goes through it may be added with [`Oracle::give_up`].
    pub fn distrust(&mut self, sentry: NodeId) {
        self.distrusted.insert(sentry);
    }

    /// From its next start on this client uses distrusted sentries alone, and what becomes of its channels is not judged.
    pub fn give_up(&mut self, client: NodeNo) {
        self.victims.insert(client);
        for lane in self.of_client.get(&client).into_iter().flatten() {
            lane.excuse();
        }
    }

    /// A channel with a load. It begins when its clients are started ([`Restarts::started`], [`Oracle::begin`]).
    ///
    /// # Errors
    /// The channel's name is none.
    pub fn add(&mut self, world: &World, spec: LaneSpec) -> Result<(), WorldError> {
        let lane = Lane::new(world, &self.map, spec)?;
        for node in [lane.spec.publisher, lane.spec.subscriber] {
            if self.victims.contains(&node) {
                lane.excuse();
            }
            let lanes = self.of_client.entry(node).or_default();
            if !lanes.iter().any(|known| Arc::ptr_eq(known, &lane)) {
                lanes.push(lane.clone());
            }
        }
        self.lanes.push(lane);
        Ok(())
    }

    /// Puts the load on all clients, which run.
    ///
    /// # Errors
    /// The nodes make no network.
    pub fn begin(&self, world: &mut World) -> Result<(), WorldError> {
        for node in self.of_client.keys() {
            self.put_on(world, *node)?;
        }
        Ok(())
    }

    /// Lets the world run, has the script do its part, and looks every so often.
    ///
    /// # Errors
    /// The world stopped: an invariant is broken, or the wire was tripped.
    pub fn drive(
        &mut self,
        world: &mut World,
        script: &mut Script,
        until: SimTime,
        every: Duration,
    ) -> Result<(), Stopped> {
        while world.now() < until {
            let next = until.min(world.now() + every);
            script.drive(world, next, self)?;
            self.look(world)?;
        }
        Ok(())
    }

    /// Goes on until everything that was sent is answered and delivered, at most so long.
    ///
    /// # Errors
    /// As [`Oracle::drive`]; or it is not over by then.
    pub fn settle(
        &mut self,
        world: &mut World,
        script: &mut Script,
        within: Duration,
    ) -> Result<(), Stopped> {
        const STEP: Duration = Duration::from_millis(500);
        let until = world.now() + within;
        while !self.is_settled() {
            if world.now() >= until {
                let waiting = self.judged().find(|lane| !lane.is_settled());
                let which = waiting.map_or_else(String::new, |lane| lane.to_string());
                self.ledger
                    .stop(format!("{which}: not settled after {within:?}"));
            }
            script.drive(world, world.now() + STEP, self)?;
            self.look(world)?;
        }
        Ok(())
    }

    /// Relayers that may have a lane's shard.
    fn owners(&self, lane: &Lane) -> impl Iterator<Item = NodeNo> {
        let heirs = self.heirs.0.iter().copied();
        let first = lane.owner.filter(|owner| !self.heirs.0.contains(owner));
        first.into_iter().chain(heirs)
    }

    fn is_settled(&self) -> bool {
        self.judged().all(|lane| lane.is_settled())
    }

    /// Channels whose promises hold: both ends are honest and use honest sentries.
    fn judged(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.iter().filter(|lane| lane.is_judged())
    }

    /// How long messages of those channels take.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// All lanes together.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for lane in self.judged() {
            lane.add_to(&mut totals);
        }
        totals
    }

    /// All lanes of clients that were given up.
    pub fn victims(&self) -> Totals {
        let mut totals = Totals::default();
        for lane in self.lanes.iter().filter(|lane| !lane.is_judged()) {
            lane.add_to(&mut totals);
        }
        totals
    }
}

impl Restarts for Oracle {
    fn ordered(&mut self, world: &World, owners: &[NodeNo]) {
        self.heirs.0.extend(owners);
        self.heirs.1 = world.now();
    }

    fn started(&mut self, world: &mut World, node: NodeNo) {
        if let Err(error) = self.put_on(world, node) {
            self.ledger
                .stop(format!("the load has no network: {error}"));
        }
    }
}
