//! Scenarios from file to outcome, small enough for every change. The large ones: `pqcnet-sim run`, `make soak`.

mod byzantine;
mod seeds;
mod twice;

use std::path::Path;

use pqcnet_sim::scenario::{Loaded, Scenario};

/// A scenario of sim/tests/small.
fn small(name: &str) -> Loaded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/small");
    let path = folder.join(format!("{name}.toml"));
    let path = path.to_str().expect("a path in UTF-8");
    Scenario::load(path).unwrap_or_else(|error| panic!("{error}"))
}
