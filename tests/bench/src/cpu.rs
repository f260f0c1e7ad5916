//! CPU time, which other work on the machine distorts less than the wall clock, and the wall clock.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

// Not `getrusage`: some kernels count it in timer ticks, 4 ms each, as coarse as what is measured.

/// CPU time of the whole process.
pub fn process() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// CPU time of those threads of another process whose names are chosen, as the scheduler counts it.
pub fn of_threads(pid: u32, chosen: impl Fn(&str) -> bool) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = thread?.path();
        // One that ended between two looks has nothing to tell any more.
        let (Ok(name), Ok(counts)) = (
            std::fs::read_to_string(folder.join("comm")),
            std::fs::read_to_string(folder.join("schedstat")),
        ) else {
            continue;
        };
        if chosen(name.trim_end()) {
            let spent = counts.split_whitespace().next().unwrap_or_default();
            nanos += spent.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// CPU time of this thread.
pub fn thread() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
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
