//! `run.json`: what was run, by what, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of the file; a field more does not change it.
pub const FORMAT: u32 = 1;

/// A run. The seed, the scenario and the commit give the event hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// SHA-256 over its text and the files it names.
    pub scenario_sha256: String,
    /// Where it was read, or the built-in scenario's name; `scenario.toml` beside this file has its text.
    pub scenario_from: String,
    /// The seed.
    pub seed: u64,
    /// Commit of the source, and whether the tree had changes.
    pub commit: Commit,
    /// SHA-256 of the program that ran.
    pub program_sha256: String,
    /// Versions of what determinism rests on, by name.
    pub versions: BTreeMap<String, String>,
    /// `real`, `memo` or `modelled`.
    pub crypto: String,
    /// Nodes by role.
    pub nodes: BTreeMap<String, u64>,
    /// Simulated time that ran after all nodes were started.
    pub simulated_seconds: f64,
    /// The rolling hash over everything that happened.
    pub event_hash: String,
    /// What that hash is over.
    pub events: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Counts of the workload and the network, by name.
    pub counts: BTreeMap<String, u64>,
    /// Shares of the workload, by name: what was lost before replay, and after.
    #[serde(default)]
    pub shares: BTreeMap<String, f64>,
    /// Percentiles of times, by name.
    pub times: BTreeMap<String, Percentiles>,
    /// What the machine took. The only part that differs from run to run.
    pub machine: Machine,
}

/// Where the source stood that the program was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash, or `unknown` outside a repository.
    pub hash: String,
    /// Sources differed from it.
    pub changed: bool,
}

/// Ends the name of a commit that the sources differed from.
const DIRTY: &str = "-dirty";

impl Commit {
    /// By its name: its hash, and `-dirty` behind it if the sources differed from it.
    pub fn named(name: &str) -> Commit {
        let clean = name.strip_suffix(DIRTY);
        Commit {
            hash: clean.unwrap_or(name).to_owned(),
            changed: clean.is_some(),
        }
    }
}

impl Default for Commit {
    /// Nobody said which.
    fn default() -> Commit {
        Commit::named("unknown")
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dirty = if self.changed { DIRTY } else { "" };
        write!(f, "{}{dirty}", self.hash)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every invariant held to the end.
    Held,
    /// One broke, and the run stopped there.
    Broken(Broken),
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// When, in nanoseconds of simulated time.
    pub at_ns: u64,
    /// Which promise, where, and what was seen.
    pub reason: String,
    /// What happened just before, the last at the end.
    pub last_events: Vec<String>,
}

/// Of a distribution of times, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// Half are shorter.
    pub p50_ms: f64,
    /// Nine of ten are shorter.
    pub p90_ms: f64,
    /// 99 of 100 are shorter.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What the machine took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Until all nodes were started.
    pub boot_seconds: f64,
    /// After that.
    pub run_seconds: f64,
    /// Simulated seconds a second, after the boot.
    pub speed: f64,
    /// Events a second, after the boot, on one core.
    pub events_per_second: f64,
    /// The most memory the process had resident.
    pub peak_rss_bytes: u64,
}

impl Run {
    /// As text, with a newline at the end.
    pub fn to_json(&self) -> String {
        // Serialising maps with text keys and numbers cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a file of this or an earlier format.
    pub fn parse(text: &str) -> Result<Run, RunError> {
        let run: Run = serde_json::from_str(text)?;
        if run.format > FORMAT {
            return Err(RunError::Newer(run.format));
        }
        Ok(run)
    }
}

/// Why a run file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not of the format.
    #[error("no run file: {0}")]
    Json(#[from] serde_json::Error),
    /// From a later simulator.
    #[error("format {0}, while this simulator knows up to {FORMAT}: use the one that wrote it")]
    Newer(u32),
}

#[cfg(test)]
pub(super) fn example() -> Run {
    let percentiles = Percentiles {
        count: 10,
        p50_ms: 120.0,
        p90_ms: 180.5,
        p99_ms: 250.0,
        max_ms: 300.0,
    };
    Run {
        format: FORMAT,
        scenario: "small".to_owned(),
        scenario_sha256: "ab".repeat(32),
        scenario_from: "small.toml".to_owned(),
        seed: 7,
        commit: Commit {
            hash: "0123456789abcdef".to_owned(),
            changed: false,
        },
        program_sha256: "cd".repeat(32),
        versions: BTreeMap::from([("tokio".to_owned(), "1.54.1".to_owned())]),
        crypto: "memo".to_owned(),
        nodes: BTreeMap::from([("relayer".to_owned(), 2)]),
        simulated_seconds: 30.0,
        event_hash: "ef".repeat(32),
        events: 12_345,
        outcome: Outcome::Held,
        counts: BTreeMap::from([("acked".to_owned(), 100)]),
        shares: BTreeMap::from([("loss before replay".to_owned(), 0.0125)]),
        times: BTreeMap::from([("publish to delivery".to_owned(), percentiles)]),
        machine: Machine::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario: a clean commit, one with changes, and none.
    #[test]
    fn commits_have_names() {
        for (name, hash, changed) in [
            ("0a1b", "0a1b", false),
            ("0a1b-dirty", "0a1b", true),
            ("unknown", "unknown", false),
        ] {
            let commit = Commit::named(name);
            assert_eq!((commit.hash.as_str(), commit.changed), (hash, changed));
            assert_eq!(commit.to_string(), name);
        }
        assert_eq!(Commit::default().to_string(), "unknown");
    }

    // Scenario: a run file comes back as written; one of a later format is refused by its number.
    #[test]
    fn run_files_come_back() {
        let mut run = example();
        run.outcome = Outcome::Broken(Broken {
            at_ns: 5,
            reason: "offset 3 after 4".to_owned(),
            last_events: vec!["a".to_owned()],
        });
        assert_eq!(Run::parse(&run.to_json()).expect("a run"), run);
        run.format = FORMAT + 1;
        let newer = Run::parse(&run.to_json());
        assert!(matches!(newer, Err(RunError::Newer(2))));
        assert!(matches!(Run::parse("{}"), Err(RunError::Json(_))));
    }
}
