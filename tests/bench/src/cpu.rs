//! CPU time, which other work on the machine distorts less than the wall clock, and the wall clock.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};

// Not `getrusage`: some kernels count it in timer ticks, 4 ms each, as coarse as what is measured.

/// CPU time of the whole process.
pub fn process() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// CPU time of another process of this user.
pub fn of(pid: u32) -> anyhow::Result<Duration> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    Ok(clock_gettime(clock_getcpuclockid(pid)?)?.into())
}

/// CPU time of those threads of another process that have one of these names, as the scheduler counts it.
pub fn of_threads(pid: u32, names: &[&str]) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = thread?.path();
        let name = std::fs::read_to_string(folder.join("comm"))?;
        if names.contains(&name.trim_end()) {
            let counts = std::fs::read_to_string(folder.join("schedstat"))?;
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
