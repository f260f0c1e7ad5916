//! `run` and `replay`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use pqcnet_sim::play::{Options, Played, play, play_twice};
use pqcnet_sim::report::{Commit, Outcome, Progress, Run};
use pqcnet_sim::scenario::{Loaded, Scenario};

use super::{COMMIT, Done, complain, say};

#[derive(Args)]
pub(super) struct RunArgs {
    /// A TOML file, or a built-in scenario by name.
    scenario: String,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write run.json, tables and report.html into this folder; it is made if it does not exist.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Every message in events.parquet, not only what the scenario and the nodes' states brought.
    #[arg(long, requires = "out")]
    messages: bool,
    /// Run it twice in one process and tell the first event that differs, if one does. Leaves nothing.
    #[arg(long, conflicts_with = "out")]
    twice: bool,
    /// No progress.
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
pub(super) struct ReplayArgs {
    /// The folder that `run --out` wrote.
    folder: PathBuf,
    /// No progress.
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<Done> {
    let loaded = Scenario::load(&args.scenario)?;
    if args.twice {
        let (played, difference) = play_twice(&loaded, args.seed)?;
        tell(&played.run)?;
        let Some(difference) = difference else {
            say("twice        the same, event for event")?;
            return Ok(Done::Well);
        };
        say(&format!("twice        NOT THE SAME: {difference}"))?;
        return Ok(Done::Broken);
    }
    if let Some(folder) = &args.out {
        keep(&loaded, folder)?;
    }
    let mut options = Options::new(args.seed);
    options.out = args.out.clone();
    options.messages = args.messages;
    options.from = args.scenario.clone();
    options.commit = Commit::named(COMMIT);
    let played = watched(&loaded, &options, args.quiet)?;
    tell(&played.run)?;
    if let Some(folder) = &args.out {
        say(&format!(
            "report       {}",
            folder.join("report.html").display()
        ))?;
    }
    Ok(match played.run.outcome {
        Outcome::Held => Done::Well,
        Outcome::Broken(_) => Done::Broken,
    })
}

/// Runs a scenario with a progress bar.
fn watched(loaded: &Loaded, options: &Options, quiet: bool) -> anyhow::Result<Played> {
    let mut progress = Progress::new(loaded.scenario.duration, quiet);
    let played = play(loaded, options, &mut |at| progress.show(at));
    progress.end();
    Ok(played?)
}

/// The scenario and the files it names, so that the folder can be replayed wherever it goes.
fn keep(loaded: &Loaded, folder: &Path) -> anyhow::Result<()> {
    let written = |path: &Path| format!("{} cannot be written", path.display());
    fs::create_dir_all(folder).with_context(|| written(folder))?;
    let scenario = folder.join("scenario.toml");
    fs::write(&scenario, &loaded.text).with_context(|| written(&scenario))?;
    for (name, text) in &loaded.files.texts {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            complain(&format!(
                "{name} lies outside the scenario's folder: a replay will need it there"
            ));
            continue;
        }
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| written(parent))?;
        }
        fs::write(&path, text).with_context(|| written(&path))?;
    }
    Ok(())
}

fn tell(run: &Run) -> anyhow::Result<()> {
    let machine = &run.machine;
    say(&format!(
        "scenario     {} (seed {}, crypto {})",
        run.scenario, run.seed, run.crypto
    ))?;
    say(&format!(
        "event hash   {}  over {} events",
        run.event_hash, run.events
    ))?;
    for (name, times) in &run.times {
        say(&format!(
            "{name:<26} p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms, of {}",
            times.p50_ms, times.p99_ms, times.max_ms, times.count
        ))?;
    }
    say(&format!(
        "machine      boot {:.1} s, then {:.1} s: {:.2}x real time, {:.0} events/s, {:.0} MiB",
        machine.boot_seconds,
        machine.run_seconds,
        machine.speed,
        machine.events_per_second,
        machine.peak_rss_bytes as f64 / 1_048_576.0
    ))?;
    match &run.outcome {
        Outcome::Held => say("outcome      every invariant held"),
        Outcome::Broken(broken) => {
            for event in &broken.last_events {
                say(&format!("             {event}"))?;
            }
            say(&format!(
                "outcome      BROKEN at {:.6} s, seed {}: {}",
                broken.at_ns as f64 / 1e9,
                run.seed,
                broken.reason
            ))
        }
    }
}

pub(super) fn replay(args: &ReplayArgs) -> anyhow::Result<Done> {
    let path = args.folder.join("run.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let before = Run::parse(&text).with_context(|| path.display().to_string())?;
    let path = args.folder.join("scenario.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let loaded = Scenario::with_files(text, &path)?;
    if hex::encode(loaded.hash) != before.scenario_sha256 {
        complain("the scenario is not the one that ran: its hash is another");
    }
    let mut options = Options::new(before.seed);
    options.commit = Commit::named(COMMIT);
    let played = watched(&loaded, &options, args.quiet)?;
    let now = &played.run;
    if now.commit != before.commit {
        complain(&format!(
            "commit {} ran, this is {}: the same is not to be expected",
            before.commit, now.commit
        ));
    }
    tell(now)?;
    let same = now.event_hash == before.event_hash && now.outcome == before.outcome;
    if same {
        say("replay       the same, event for event")?;
        return Ok(match now.outcome {
            Outcome::Held => Done::Well,
            Outcome::Broken(_) => Done::Broken,
        });
    }
    say(&format!(
        "replay       ANOTHER RUN: {} over {} events before, {} over {} now",
        before.event_hash, before.events, now.event_hash, now.events
    ))?;
    Ok(Done::Broken)
}
