//! Plays a scenario: its world, its load, its faults, and what must hold, from the first node to the last page.
//!
//! ```text
//!   Scenario ──▶ boot: a world with all nodes up
//!                  │
//!                  ▼      every second        Meter ──▶ Record: tables
//!   Script ────▶ run_until ───────────────▶             │
//!   (faults)       ▲      every event         Oracle    ▼
//!                  └──── stops the world ◀──── broken   report.html, run.json
//! ```

mod about;
mod again;
mod boot;
mod links;
mod messages;
mod meter;
mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pqcnet_actor::Stopwatch;
use pqcnet_roles::StartError;

use crate::faults::Script;
use crate::geo::MatrixError;
use crate::oracle::{Leg, Metered, Oracle, moved_streams};
use crate::report::{
    Broken, Commit, FORMAT, Kept, Machine, Outcome, Percentiles, Progressed, Record, Run,
    TableError, page, resident,
};
use crate::scenario::Loaded;
use crate::world::{Difference, NodeName, NodeNo, Stopped, Trace, World, WorldError};
use again::Again;
use messages::Messages;
use meter::Meter;

/// How a scenario is played.
#[derive(Clone)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Where tables, page and run file go.
    pub out: Option<PathBuf>,
    /// Every message in the table of events.
    pub messages: bool,
    /// Where the scenario comes from, in words.
    pub from: String,
    /// Writes every event down, to find where two runs part.
    pub trace: Option<Trace>,
    /// The commit that the program was built from.
    pub commit: Commit,
}

impl Options {
    /// A run that leaves nothing.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            out: None,
            messages: false,
            from: String::new(),
            trace: None,
            commit: Commit::default(),
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Played {
    /// As in `run.json`.
    pub run: Run,
    /// What the page draws.
    pub kept: Kept,
}

/// Why a scenario could not be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The scenario's places and its table of latencies do not meet.
    #[error(transparent)]
    Places(#[from] MatrixError),
    /// The scenario's nodes make no world.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A node did not start.
    #[error("{name} did not start: {error}")]
    Failed {
        /// Which.
        name: NodeName,
        /// Why.
        error: StartError,
    },
    /// A node was not up in time.
    #[error("{name} was not up after {} s", boot::PATIENCE.as_secs())]
    Late {
        /// Which.
        name: NodeName,
    },
    /// The world stopped before the run began.
    #[error("the world stopped while it started: {0}")]
    Boot(#[from] Stopped),
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file could not be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Between samples.
const SAMPLE: Duration = Duration::from_secs(1);
/// Between looks at disks, mailboxes and lateness.
const LOOK: Duration = Duration::from_secs(1);
/// After the run, so long may pass until everything that was sent is answered and delivered.
const SETTLE: Duration = Duration::from_secs(120);

/// Plays a scenario.
///
/// # Errors
/// The scenario makes no world, or a file cannot be written. A broken invariant is no error: [`Run::outcome`].
pub fn play(
    loaded: &Loaded,
    options: &Options,
    watch: &mut dyn FnMut(&Progressed),
) -> Result<Played, PlayError> {
    let watch_boot = Stopwatch::start();
    let record = match &options.out {
        Some(folder) => Some(Record::create(folder)?),
        None => None,
    };
    let mut world = boot::world(loaded, options.seed)?;
    if let Some(trace) = &options.trace {
        world.observe(trace.clone());
    }
    boot::start(&mut world)?;
    let script = Script::of(loaded, &world, world.now());
    script.watch(&world);
    let oracle = traffic::oracle(&loaded.scenario, &mut world, script.weather().clone())?;
    let mut stage = Stage {
        loaded,
        script,
        oracle,
        begins: world.now(),
        booted: watch_boot.elapsed(),
        stopwatch: Stopwatch::start(),
        events_before: world.ledger().events(),
        meter: Meter::default(),
        messages: Messages::of(&world, options.messages && record.is_some()),
        again: Again::default(),
        metered: None,
        record,
        world,
    };
    let outcome = stage.run(watch)?;
    stage.end(options, outcome)
}

/// Plays a scenario twice with one seed: what became of it, and where the runs part if they do.
///
/// # Errors
/// As [`play`].
pub fn play_twice(
    loaded: &Loaded,
    seed: u64,
) -> Result<(Played, Option<Box<Difference>>), PlayError> {
    let run = || {
        let mut options = Options::new(seed);
        let trace = Trace::new();
        options.trace = Some(trace.clone());
        let played = play(loaded, &options, &mut |_| {})?;
        Ok::<_, PlayError>((played, trace))
    };
    let (first, first_trace) = run()?;
    let (second, second_trace) = run()?;
    let difference = first_trace.difference(&second_trace);
    // What a trace has no room for, the hash still sees.
    let same = first.run.event_hash == second.run.event_hash;
    let unseen = || Difference {
        number: first_trace.len() + 1,
        before: Vec::new(),
        first: None,
        second: None,
    };
    let difference = difference.or_else(|| (!same).then(unseen));
    Ok((first, difference.map(Box::new)))
}

/// A run under way.
struct Stage<'a> {
    loaded: &'a Loaded,
    script: Script,
    oracle: Oracle,
    /// When all nodes were up.
    begins: Duration,
    booted: Duration,
    stopwatch: Stopwatch,
    events_before: u64,
    meter: Meter,
    messages: Messages,
    again: Again,
    metered: Option<Metered>,
    record: Option<Record>,
    // Last: the others hold parts of it.
    world: World,
}

impl Stage<'_> {
    /// The scenario's time.
    fn now(&self) -> Duration {
        self.world.now().saturating_sub(self.begins)
    }

    fn run(&mut self, watch: &mut dyn FnMut(&Progressed)) -> Result<Outcome, PlayError> {
        let duration = self.loaded.scenario.duration;
        let mut sample = SAMPLE;
        self.oracle.begin(&mut self.world)?;
        while sample < duration + SAMPLE {
            let until = self.begins + sample.min(duration);
            self.note(until)?;
            let (world, script) = (&mut self.world, &mut self.script);
            let ran = self.oracle.drive(world, script, until, LOOK);
            self.again.look(&self.world);
            self.write_messages()?;
            if let Err(stopped) = ran {
                return Ok(Outcome::Broken(self.broken(stopped)));
            }
            self.sample(watch)?;
            sample += SAMPLE;
        }
        let (world, script) = (&mut self.world, &mut self.script);
        let settled = self.oracle.settle(world, script, SETTLE);
        let settled = settled.and_then(|()| {
            self.metered = self.oracle.audit(&mut self.world)?;
            Ok(())
        });
        self.again.look(&self.world);
        self.write_messages()?;
        self.sample(watch)?;
        Ok(match settled {
            Ok(()) => Outcome::Held,
            Err(stopped) => Outcome::Broken(self.broken(stopped)),
        })
    }

    fn broken(&self, stopped: Stopped) -> Broken {
        let at = stopped.at.saturating_sub(self.begins);
        Broken {
            at_ns: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX),
            reason: stopped.reason,
            last_events: stopped.last,
        }
    }

    /// Writes down what the script is about to do.
    fn note(&mut self, until: Duration) -> Result<(), PlayError> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        for (at, act) in self.script.steps().take_while(|(at, _)| *at <= until) {
            let at = at.saturating_sub(self.begins);
            let words = named(&self.world, &format!("{act:?}"));
            record.world_event(at, "fault", &words)?;
        }
        Ok(())
    }

    fn write_messages(&mut self) -> Result<(), PlayError> {
        if let Some(record) = &mut self.record {
            for mut event in self.messages.take() {
                event.at = event.at.saturating_sub(self.begins);
                record.event(&event)?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, watch: &mut dyn FnMut(&Progressed)) -> Result<(), PlayError> {
        let (now, elapsed) = (self.now(), self.stopwatch.elapsed());
        if let Some(record) = &mut self.record {
            let totals = self.oracle.totals();
            let load = (&totals, self.oracle.times());
            self.meter.sample(&self.world, load, now, elapsed, record)?;
        }
        watch(&Progressed {
            simulated: now,
            elapsed,
            events: self.world.ledger().events() - self.events_before,
            rss_bytes: resident().0,
        });
        Ok(())
    }

    fn end(self, options: &Options, outcome: Outcome) -> Result<Played, PlayError> {
        let elapsed = self.stopwatch.elapsed().as_secs_f64().max(0.000_001);
        let simulated = self.now();
        let events = self.world.ledger().events();
        let scenario = &self.loaded.scenario;
        let mut by_role = BTreeMap::new();
        for node in self.world.nodes() {
            let spec = self.world.spec(node);
            let role = match spec.serves {
                true => "broker".to_owned(),
                false => spec.role.to_string(),
            };
            *by_role.entry(role).or_insert(0) += 1;
        }
        let run = Run {
            format: FORMAT,
            scenario: scenario.name.clone(),
            scenario_sha256: hex::encode(self.loaded.hash),
            scenario_from: options.from.clone(),
            seed: options.seed,
            commit: options.commit.clone(),
            program_sha256: match options.out {
                Some(_) => about::program(),
                None => String::new(),
            },
            versions: about::versions(),
            crypto: scenario.crypto.word().to_owned(),
            nodes: by_role,
            simulated_seconds: simulated.as_secs_f64(),
            event_hash: self.world.hash().to_string(),
            events,
            outcome,
            counts: self.counts(),
            shares: self.shares(),
            times: self.times(),
            machine: Machine {
                boot_seconds: self.booted.as_secs_f64(),
                run_seconds: elapsed,
                speed: simulated.as_secs_f64() / elapsed,
                events_per_second: (events - self.events_before) as f64 / elapsed,
                peak_rss_bytes: resident().1,
            },
        };
        let kept = match self.record {
            Some(record) => record.close()?,
            None => Kept::default(),
        };
        if let Some(folder) = &options.out {
            let html = page(&run, &scenario.about, &self.loaded.text, &kept);
            write(&folder.join("report.html"), &html)?;
            write(&folder.join("run.json"), &run.to_json())?;
        }
        Ok(Played { run, kept })
    }

    /// What would have been lost, and what was: of all messages sent, those of attempts that were not acknowledged and those that
    /// a subscriber got only when it came back; and those that it never got.
    fn shares(&self) -> BTreeMap<String, f64> {
        let totals = self.oracle.totals();
        let again = self.again.publishes() + self.again.deliveries();
        let lost = totals.sent.saturating_sub(totals.delivered);
        let of_sent = |count: u64| count as f64 / totals.sent.max(1) as f64;
        BTreeMap::from([
            ("loss before replay".to_owned(), of_sent(again)),
            ("loss after replay".to_owned(), of_sent(lost)),
        ])
    }

    fn times(&self) -> BTreeMap<String, Percentiles> {
        let times = Leg::ALL.into_iter().filter_map(|leg| {
            let found = self.oracle.times().all(leg)?;
            Some((leg.words().to_owned(), found))
        });
        times.collect()
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let net = self.world.net().counts();
        let totals = self.oracle.totals();
        let victims = self.oracle.victims();
        let crypto = self.world.crypto_counts();
        let mut counts = BTreeMap::from([
            ("victims: sent".to_owned(), victims.sent),
            ("victims: acknowledged".to_owned(), victims.acked),
            ("victims: delivered".to_owned(), victims.delivered),
            ("load: sent".to_owned(), totals.sent),
            ("load: acknowledged".to_owned(), totals.acked),
            ("load: of unknown outcome".to_owned(), totals.unknown),
            ("load: delivered".to_owned(), totals.delivered),
            ("load: subscriptions begun".to_owned(), totals.resumed),
            (
                "replay: messages published again".to_owned(),
                self.again.publishes(),
            ),
            (
                "replay: records got by coming back".to_owned(),
                self.again.deliveries(),
            ),
            ("faults: steps".to_owned(), self.script.done()),
            (
                "faults: programs that ended and were started again".to_owned(),
                self.script.revived(),
            ),
            (
                "byzantine: messages lost, repeated, altered or sent in floods".to_owned(),
                self.script.conducts().done_by_all(),
            ),
            (
                "byzantine: messages not forwarded".to_owned(),
                self.world.ledger().withheld(),
            ),
            ("network: segments of streams".to_owned(), net.segments),
            ("network: bytes of streams".to_owned(), net.stream_bytes),
            ("network: segments held up by a cut".to_owned(), net.held_up),
            ("network: datagrams".to_owned(), net.datagrams),
            ("network: datagrams lost".to_owned(), net.lost),
            (
                "network: dials and datagrams that a NAT turned away".to_owned(),
                net.turned_away,
            ),
            (
                "crypto: verifications remembered".to_owned(),
                crypto.remembered,
            ),
            (
                "table: messages left out".to_owned(),
                self.messages.left_out(),
            ),
        ]);
        for (what, count) in self.metered.iter().flat_map(|metered| {
            [
                ("relayers' books", metered.relayers),
                ("messages stored", metered.stored),
                ("messages delivered", metered.delivered),
                ("messages signed for", metered.receipted),
            ]
        }) {
            counts.insert(format!("metering: {what}"), count);
        }
        if let Some(entries) = self.oracle.on_brokers(&self.world) {
            counts.insert("broker: entries that stand".to_owned(), entries);
        }
        if let Some(streams) = moved_streams(&self.world) {
            counts.insert("broker: streams of shards that moved".to_owned(), streams);
        }
        counts
    }
}

/// What a step's words may take on the page and in the table; a partition of a thousand nodes names them all.
const MAX_WORDS: usize = 400;

/// A step in words, with nodes by their names.
fn named(world: &World, words: &str) -> String {
    let mut parts = words.split("NodeNo(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once(')').unwrap_or((part, ""));
        let node = number.parse().ok().map(NodeNo);
        let known = node.filter(|node| node.index() < world.nodes().count());
        match known {
            Some(node) => out += world.spec(node).name.as_str(),
            None => out += number,
        }
        out += rest;
        if out.len() > MAX_WORDS {
            return out + " ...";
        }
    }
    out
}

fn write(path: &Path, text: &str) -> Result<(), PlayError> {
    fs::write(path, text).map_err(|error| PlayError::Write {
        path: path.to_owned(),
        error,
    })
}
