//! The geographic model: the shortest way over the world's cables.

use std::time::Duration;

use super::places::{Bed, CABLES, HUBS};
use super::{Point, places};

/// Fibre on land follows roads and rails and passes many exchanges. This factor and the two below were fitted to the
/// round trips of 213 cities: docs/guides/sim.md gives the error.
const LAND_FACTOR: f64 = 1.8;
/// A sea cable goes round capes and shelves.
const SEA_FACTOR: f64 = 1.3;
/// Both ends' last mile and the routers on the way, in one direction.
const BASE_MICROS: f64 = 3_000.0;
/// Light in glass: two thirds of its speed in vacuum, 200 km a millisecond.
const MICROS_PER_KM: f64 = 5.0;
/// A place reaches its network through one of so many of the nearest hubs.
const NEAR_HUBS: usize = 3;

/// Distances along the cables between all hubs, computed once.
#[derive(Clone, Debug)]
pub struct Geography {
    /// Fibre between hub i and hub j in km, row by row.
    between: Vec<f64>,
}

impl Geography {
    /// The built-in world.
    pub fn new() -> Geography {
        let hubs = HUBS.len();
        let index = |name: &str| HUBS.iter().position(|(hub, _)| *hub == name);
        let mut between = vec![f64::INFINITY; hubs * hubs];
        for hub in 0..hubs {
            between[hub * hubs + hub] = 0.0;
        }
        for (from, to, bed) in CABLES {
            let (Some(from), Some(to)) = (index(from), index(to)) else {
                continue; // A test holds that there is none.
            };
            let factor = match bed {
                Bed::Land => LAND_FACTOR,
                Bed::Sea => SEA_FACTOR,
            };
            let km = HUBS[from].1.distance_km(HUBS[to].1) * factor;
            for at in [from * hubs + to, to * hubs + from] {
                between[at] = between[at].min(km);
            }
        }
        // Floyd and Warshall: 77 hubs, so half a million steps.
        for via in 0..hubs {
            for from in 0..hubs {
                let first = between[from * hubs + via];
                for to in 0..hubs {
                    let km = first + between[via * hubs + to];
                    let best = &mut between[from * hubs + to];
                    *best = best.min(km);
                }
            }
        }
        Geography { between }
    }

    /// Fibre between two points, in km.
    pub fn fibre_km(&self, from: Point, to: Point) -> f64 {
        let (exits, entries) = (near_hubs(from), near_hubs(to));
        let mut best = f64::INFINITY;
        for &(exit, first) in &exits {
            for &(entry, last) in &entries {
                let between = self.between[exit * HUBS.len() + entry];
                best = best.min(first + between + last);
            }
        }
        best
    }

    /// The least time from one point to another: light in the fibre, and what both ends' equipment takes.
    pub fn one_way(&self, from: Point, to: Point) -> Duration {
        let micros = if from == to {
            // Within one city the last mile is a data centre's.
            BASE_MICROS / 10.0
        } else {
            BASE_MICROS + self.fibre_km(from, to) * MICROS_PER_KM
        };
        Duration::from_micros(micros as u64)
    }

    /// [`Geography::one_way`] between two places by name.
    pub fn between(&self, from: &str, to: &str) -> Option<Duration> {
        Some(self.one_way(places::find(from)?, places::find(to)?))
    }
}

impl Default for Geography {
    fn default() -> Self {
        Geography::new()
    }
}

/// The nearest hubs, with the fibre to each in km.
fn near_hubs(point: Point) -> Vec<(usize, f64)> {
    let mut hubs: Vec<(usize, f64)> = HUBS
        .iter()
        .enumerate()
        .map(|(index, (_, hub))| (index, point.distance_km(*hub) * LAND_FACTOR))
        .collect();
    hubs.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    hubs.truncate(NEAR_HUBS);
    hubs
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: well-known ways, pinned to the microsecond, so that a change of the model cannot pass unseen and every
    // machine computes the same.
    #[test]
    fn ways_are_pinned() {
        let world = Geography::new();
        let micros = |from, to| world.between(from, to).expect("known places").as_micros();
        assert_eq!(micros("london", "london"), 300);
        assert_eq!(
            [
                micros("london", "new-york"),
                micros("frankfurt", "singapore"),
                micros("eu-west-1", "us-west-2"),
                micros("zurich", "geneva"),
            ],
            PINNED
        );
    }

    const PINNED: [u128; 4] = [39_207, 91_116, 73_748, 7_215];

    // Scenario: every hub reaches every other, both directions take the same time, and nothing is faster than light in
    // fibre along the great circle.
    #[test]
    fn the_world_is_connected_and_slower_than_light() {
        let world = Geography::new();
        assert!(world.between.iter().all(|km| km.is_finite()));
        for (_, a) in HUBS {
            for (_, b) in HUBS.iter().chain(places::CITIES) {
                let (there, back) = (world.one_way(*a, *b), world.one_way(*b, *a));
                assert!(there.abs_diff(back) <= Duration::from_micros(1));
                let light = a.distance_km(*b) * MICROS_PER_KM;
                assert!(there.as_micros() as f64 >= light, "{a:?} {b:?}");
            }
        }
    }
}
