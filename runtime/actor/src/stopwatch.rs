//! How long the machine itself takes: for whoever runs simulated time and tells how fast it goes.

use std::time::{Duration, Instant};

/// Runs from when it is made, on the machine's clock, whatever time a simulation has.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    #[expect(
        clippy::disallowed_methods,
        reason = "it measures the machine: no node and no simulated time is meant"
    )]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Since it was started.
    #[expect(
        clippy::disallowed_methods,
        reason = "it measures the machine: no node and no simulated time is meant"
    )]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
