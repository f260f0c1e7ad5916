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
//! | bounded mailboxes and memory | at each look |

mod checks;
mod lane;
mod load;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_messages::ShardMap;

pub use checks::Limits;
pub use lane::{LaneSpec, Totals};

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
    /// Lanes of each client node.
    of_client: BTreeMap<NodeNo, Vec<Arc<Lane>>>,
    /// Crashes that each disk has had when it was last looked at.
    crashes: BTreeMap<NodeNo, u64>,
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
            of_client: BTreeMap::new(),
            crashes: BTreeMap::new(),
        })
    }

    /// A channel with a load. It begins when its clients are started ([`Restarts::started`], [`Oracle::begin`]).
    ///
    /// # Errors
    /// The channel's name is none.
    pub fn add(&mut self, world: &World, spec: LaneSpec) -> Result<(), WorldError> {
        let lane = Lane::new(world, &self.map, spec)?;
        for node in [lane.spec.publisher, lane.spec.subscriber] {
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
    pub fn settle(&mut self, world: &mut World, within: Duration) -> Result<(), Stopped> {
        const STEP: Duration = Duration::from_millis(500);
        let until = world.now() + within;
        while !self.is_settled() {
            if world.now() >= until {
                let waiting = self.lanes.iter().find(|lane| !lane.is_settled());
                let which = waiting.map_or_else(String::new, |lane| lane.to_string());
                self.ledger
                    .stop(format!("{which}: not settled after {within:?}"));
            }
            world.run_for(STEP)?;
            self.look(world)?;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_settled())
    }

    /// All lanes together.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for lane in &self.lanes {
            lane.add_to(&mut totals);
        }
        totals
    }
}

impl Restarts for Oracle {
    fn started(&mut self, world: &mut World, node: NodeNo) {
        if let Err(error) = self.put_on(world, node) {
            self.ledger
                .stop(format!("the load has no network: {error}"));
        }
    }
}
