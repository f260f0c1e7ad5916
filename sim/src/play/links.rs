//! The links that a scenario describes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::geo::{Geography, MatrixError};
use crate::net::{Bandwidth, Link, LinkModel, Site};
use crate::scenario::spec::{Latency, Network};
use crate::scenario::{Loaded, Scenario};

/// Answers for each pair of nodes by their places.
pub(super) struct Links {
    network: Network,
    /// One-way base delay between places.
    delays: BTreeMap<(String, String), Duration>,
}

impl Links {
    pub(super) fn of(loaded: &Loaded) -> Result<Links, MatrixError> {
        let scenario = &loaded.scenario;
        Ok(Links {
            network: scenario.network.clone(),
            delays: delays(loaded, scenario)?,
        })
    }
}

fn delays(
    loaded: &Loaded,
    scenario: &Scenario,
) -> Result<BTreeMap<(String, String), Duration>, MatrixError> {
    let mut regions: Vec<&str> = scenario.regions().collect();
    regions.sort_unstable();
    regions.dedup();
    let world = Geography::new();
    let mut delays = BTreeMap::new();
    for from in &regions {
        for to in &regions {
            let delay = match (&scenario.network.latency, &loaded.files.matrix) {
                (Latency::Fixed(delay), _) => *delay,
                (Latency::Matrix { .. }, Some(matrix)) => {
                    matrix.one_way(matrix.find(from)?, matrix.find(to)?)
                }
                (Latency::Geography | Latency::Matrix { .. }, _) => {
                    match (scenario.place(from), scenario.place(to)) {
                        (Some(from), Some(to)) => world.one_way(from, to),
                        // Reading a scenario refuses such a place.
                        _ => return Err(MatrixError::Unknown((*from).to_owned())),
                    }
                }
            };
            delays.insert(((*from).to_owned(), (*to).to_owned()), delay);
        }
    }
    Ok(delays)
}

impl LinkModel for Links {
    fn link(&mut self, from: &Site, to: &Site) -> Link {
        let network = &self.network;
        let places = (from.place.clone(), to.place.clone());
        let latency = self.delays.get(&places).copied().unwrap_or_default();
        Link {
            latency,
            jitter: latency.mul_f64(network.jitter),
            loss: network.loss,
            duplicate: network.duplicate,
            reorder: network.reorder,
            bandwidth: Some(line(network.bandwidth, network)),
        }
    }
}

/// A line of so many bits a second, with the network's queue.
pub(super) fn line(bits: u64, network: &Network) -> Bandwidth {
    Bandwidth {
        bytes_per_second: (bits / 8).max(1),
        queue_bytes: network.queue,
    }
}
