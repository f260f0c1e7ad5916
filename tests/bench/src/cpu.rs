//! CPU time, which other work on the machine distorts less than the wall clock, and the wall clock.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// CPU time of the whole process.
pub fn process() -> anyhow::Result<Duration> {
    Ok(total(&getrusage(UsageWho::RUSAGE_SELF)?))
}

/// CPU time of this thread.
pub fn thread() -> anyhow::Result<Duration> {
    Ok(total(&getrusage(UsageWho::RUSAGE_THREAD)?))
}

fn total(usage: &Usage) -> Duration {
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

/// A wall clock that was started.
pub struct Wall(Instant);

impl Wall {
    /// Starts it.
    pub fn start() -> Wall {
        Wall(Instant::now())
    }

    /// What it shows.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The middle of the samples; zero of none.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
