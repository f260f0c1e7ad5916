//! The simulator's figures: how long worlds of whole nodes take to boot and to live, and in how much memory.
//!
//! `pqcnet-sim-figures` measures every row, each in a process of its own, so that peaks of memory do not mix;
//! `pqcnet-sim-figures NODES CRYPTO SECONDS` measures one. `floor` is what raw actix pays for as many actors of as many bytes,
//! `instructions` what an event takes of them at each size, `metering` what a message of a relayer takes with a meter and without, `costs` what cryptography costs this machine.
//! Every client reads a channel of its own and publishes to it; sentries and clients leave and come back all the while, by the
//! model and at the rate of the built-in scenario `churn-30`.

mod costs;
mod counted;
mod floor;
mod metered;
mod town;

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pqcnet_actor::Stopwatch;
use pqcnet_sim::crypto::Crypto;
use pqcnet_sim::faults::Act;

use town::{Load, boot, churn, town};

/// Nodes, simulated seconds, and how often in a round: a machine's memory is faster in one minute than in the next, so that sizes
/// take turns, and short runs are many.
const SIZES: [(usize, u64, usize); 3] = [(100, 600, 5), (1_000, 60, 3), (10_000, 60, 1)];
const ROUNDS: usize = 3;

/// How long a network lives before it is measured: heralds sweep half a minute after their start.
const SETTLED: Duration = Duration::from_secs(40);

/// glibc's heap in pages of 2 MiB where the kernel has them: a world of whole nodes walks through all of its memory again and
/// again, and spends a fifth of its time on looking up small ones.
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.as_slice() {
        [] => all(),
        [word] if word == "costs" => costs::costs(),
        [word] if word == "floor" => floor::floor(),
        [word] if word == "instructions" => counted::instructions(),
        [word] if word == "metering" => metered::metering(),
        [word, load, window] if word == "metered" => metered::metered(load, window),
        [nodes, crypto, seconds] => one(nodes, crypto, seconds),
        _ => Err(anyhow::anyhow!(
            "usage: pqcnet-sim-figures [costs | floor | instructions | metering | NODES real|memo|modelled SECONDS]"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("pqcnet-sim-figures: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this prints")]
fn tell(line: &str) {
    println!("{line}");
}

fn all() -> Result<()> {
    tell(
        "| nodes | cryptography | boot: s, CPU s | simulated, s | CPU s | times real time | nodes that left | messages acked | events | events/s a core | us an event | peak RSS, MB |",
    );
    tell("|---|---|---|---|---|---|---|---|---|---|---|---|");
    measured(&["1000", Crypto::Memo.name(), "60"])?;
    let mut costs = SIZES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((nodes, seconds, runs), costs) in SIZES.iter().zip(&mut costs) {
            for _ in 0..*runs {
                let (nodes, seconds) = (nodes.to_string(), seconds.to_string());
                let row = measured(&[&nodes, Crypto::Modelled.name(), &seconds])?;
                let cost = row.split('|').nth(11).context("no row")?;
                let cost: f64 = cost.trim().parse().context("the row's us an event")?;
                costs.push(cost);
            }
        }
    }
    tell(
        "\n| nodes | runs | us an event, median (least to most) | beside 100 nodes |\n|---|---|---|---|",
    );
    let few = median(&mut costs[0]);
    for ((nodes, ..), costs) in SIZES.iter().zip(&mut costs) {
        let (cost, runs) = (median(costs), costs.len());
        let (least, most) = (costs[0], costs[runs - 1]);
        let beside = cost / few;
        tell(&format!(
            "| {nodes} | {runs} | {cost:.2} ({least:.2} to {most:.2}) | {beside:.2} |"
        ));
    }
    tell("");
    measured(&["floor"])?;
    counted::instructions()?;
    tell("");
    metered::metering()
}

/// Measures one row in a process of its own and prints it.
fn measured(words: &[&str]) -> Result<String> {
    let program = std::env::current_exe().context("where is this program?")?;
    let mut child = Command::new(program);
    child.args(words).env("GLIBC_TUNABLES", HUGE_PAGES);
    let child = child.stderr(Stdio::inherit());
    let output = child.output().context("cannot start a measurement")?;
    ensure!(output.status.success(), "{words:?}: {}", output.status);
    let row = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    tell(&row);
    Ok(row)
}

/// Of as many as there are; puts them in order.
fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn one(nodes: &str, crypto: &str, seconds: &str) -> Result<()> {
    let nodes: usize = nodes.parse().context("NODES")?;
    let seconds: u64 = seconds.parse().context("SECONDS")?;
    let Some(crypto) = Crypto::named(crypto) else {
        bail!("cryptography is real, memo or modelled");
    };
    let (watch, before) = (Stopwatch::start(), cpu_seconds()?);
    let (mut world, clients) = town(nodes, crypto)?;
    boot(&mut world)?;
    let mut load = Load::of(&world, &clients);
    for client in clients {
        world.start(client)?;
        load.put_on(&mut world, client)?;
    }
    // The first connections are the boot's, and so are the first sweeps, with which each node once puts its record at twenty others.
    world.run_for(SETTLED)?;
    let (booted, boot) = (watch.elapsed().as_secs_f64(), cpu_seconds()? - before);

    let time = Duration::from_secs(seconds);
    let mut script = churn(&world, time);
    let left = script.steps();
    let left = left
        .filter(|(_, act)| matches!(act, Act::Crash(..)))
        .count();
    let before = (
        world.ledger().events(),
        load.acked.load(Relaxed),
        cpu_seconds()?,
    );
    let until = world.now() + time;
    counted::count(true);
    script.drive(&mut world, until, &mut load)?;
    counted::count(false);
    // One thread: on an idle machine its CPU time is the time that passes, on a busy one only it says something.
    let real = cpu_seconds()? - before.2;
    let events = world.ledger().events() - before.0;
    let (many, times) = (events as f64, seconds as f64 / real);
    tell(&format!(
        "| {nodes} | {} | {booted:.1}, {boot:.1} | {seconds} | {real:.1} | {times:.1} | {left} | {} | {events} | {:.0} | {:.2} | {} |",
        crypto.name(),
        load.acked.load(Relaxed) - before.1,
        many / real,
        real * 1e6 / many,
        peak_mb().unwrap_or(0),
    ));
    Ok(())
}

/// CPU time of this process so far.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which is in parentheses: user and system time are the 12th and 13th, in hundredths.
    let (_, rest) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u32>().map(f64::from));
    let ticks: Result<Vec<f64>, _> = ticks.collect();
    Ok(ticks?.iter().sum::<f64>() / 100.0)
}

/// The most memory that this process has had.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kb: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kb / 1_000)
}
