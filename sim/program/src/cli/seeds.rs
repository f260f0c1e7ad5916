//! `seeds`: one scenario, many seeds, over all cores.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use pqcnet_sim::play::{Options, play};
use pqcnet_sim::report::Outcome;
use pqcnet_sim::scenario::Scenario;

use super::{Done, say};

/// Processes at once, at most.
const MAX_JOBS: u64 = 256;

#[derive(Args)]
pub(super) struct SeedsArgs {
    /// A TOML file, or a built-in scenario by name.
    scenario: String,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many.
    #[arg(long, default_value_t = 200)]
    count: u64,
    /// Processes at once; 1: in this one.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
}

pub(super) fn seeds(args: &SeedsArgs) -> anyhow::Result<Done> {
    // Read here too, so that a wrong scenario is said once.
    let loaded = Scenario::load(&args.scenario)?;
    if args.jobs > 1 {
        return spread(args);
    }
    let terminal = io::stderr().is_terminal();
    let (mut broken, mut events) = (0_u64, 0_u64);
    for seed in args.from..args.from.saturating_add(args.count) {
        let played = play(&loaded, &Options::new(seed), &mut |_| {})?;
        events += played.run.events;
        if let Outcome::Broken(found) = &played.run.outcome {
            broken += 1;
            say(&format!(
                "seed {seed}: BROKEN at {:.6} s: {}",
                found.at_ns as f64 / 1e9,
                found.reason
            ))?;
        }
        if terminal {
            let done = seed - args.from + 1;
            write!(
                io::stderr(),
                "\r{done}/{} seeds, {broken} broken\x1b[K",
                args.count
            )?;
        }
    }
    if terminal {
        write!(io::stderr(), "\r\x1b[K")?;
    }
    say(&format!(
        "{}: seeds {} to {}: {broken} of {} broke an invariant, {events} events",
        args.scenario,
        args.from,
        args.from + args.count.saturating_sub(1),
        args.count
    ))?;
    Ok(if broken == 0 {
        Done::Well
    } else {
        Done::Broken
    })
}

/// One process for each part of the seeds: a world keeps to its thread, and a broken one cannot take others down.
fn spread(args: &SeedsArgs) -> anyhow::Result<Done> {
    if args.jobs > MAX_JOBS {
        bail!("at most {MAX_JOBS} jobs");
    }
    let program = std::env::current_exe().context("this program cannot be found")?;
    let mut children: Vec<Child> = Vec::new();
    for job in 0..args.jobs {
        let first = args.from + args.count * job / args.jobs;
        let next = args.from + args.count * (job + 1) / args.jobs;
        if first == next {
            continue;
        }
        let child = Command::new(&program)
            .args(["seeds", &args.scenario])
            .args(["--from", &first.to_string()])
            .args(["--count", &(next - first).to_string()])
            .stdin(Stdio::null())
            .spawn();
        match child {
            Ok(child) => children.push(child),
            Err(error) => {
                for mut child in children {
                    child.kill().unwrap_or_default();
                }
                return Err(error).context("a process for a part of the seeds did not start");
            }
        }
    }
    let mut done = Done::Well;
    for mut child in children {
        match child.wait()?.code() {
            Some(0) => {}
            Some(3) => done = Done::Broken,
            code => bail!("a process ended with {code:?}"),
        }
    }
    Ok(done)
}
