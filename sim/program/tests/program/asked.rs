//! What users ask before they run something, and what a run shows them.

use std::fs;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use pqcnet_sim::crypto::Costs;
use pqcnet_sim::report::Outcome;
use pqcnet_sim::scenario::builtin;

use super::{run_of, scenario, sim, within, word};

// A run leaves its tables, its page and its run file, with times of messages in them; where no terminal is, progress is a line
// every tenth of the way, with time, speed, events and memory. The replay is the same, event for event.
#[test]
fn a_run_leaves_what_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let toml = scenario(folder.path(), "[network]\nlatency = \"20ms\"\njitter = 0\n");
    let left = within(&folder, "out");
    let out = word(&left);
    let told = sim(&["run", &toml, "--seed", "7", "--out", &out, "--messages"]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    let lines: Vec<&str> = told.err.lines().collect();
    assert!((8..=10).contains(&lines.len()), "{}", told.err);
    for line in lines {
        for part in [
            "/8 s simulated, ",
            "x real time, ",
            " events (",
            "/s), ",
            "iB",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    let run = run_of(&left);
    assert_eq!((run.outcome, run.seed), (Outcome::Held, 7));
    // Client, sentry and relayer are 20 ms apart: an answer takes both ways, a delivery too, and the relayer's disk a little.
    for leg in ["publish to acknowledgement", "publish to delivery"] {
        let times = &run.times[leg];
        assert_eq!(times.count, run.counts["load: sent"], "{leg}");
        assert!((80.0..=90.0).contains(&times.p50_ms), "{leg}: {times:?}");
        assert!(
            times.p50_ms <= times.p99_ms && times.p99_ms <= times.max_ms,
            "{leg}"
        );
        assert!(
            told.out
                .contains(&format!("{leg:<26} p50 {:.0} ms", times.p50_ms)),
            "{}",
            told.out
        );
    }
    let page = fs::read_to_string(left.join("report.html")).unwrap();
    assert!(page.contains("publish to delivery") && page.matches("<polyline").count() > 10);
    let rows = |name: &str| {
        let file = fs::File::open(left.join(name)).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        reader.metadata().file_metadata().num_rows()
    };
    assert!(rows("events.parquet") > 1_000);
    assert!(rows("series.parquet") > 8 * 10);
    let again = sim(&["replay", &out, "--quiet"]);
    assert_eq!((again.code, again.err.as_str()), (0, ""), "{}", again.out);
    assert!(
        again.out.contains("replay       the same, event for event"),
        "{}",
        again.out
    );
}

// A misspelt key is named with its file, its line and what was meant; so is a misspelt scenario. What is sound is said to be.
#[test]
fn check_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let toml = scenario(
        folder.path(),
        "[[faults]]\nkind = \"crash\"\nnodes = [\"relayer\"]\nta = \"1s\"\n",
    );
    let told = sim(&["check", "mixed-32", &toml]);
    assert_eq!(told.code, 2);
    assert_eq!(
        told.out,
        "mixed-32: sound. 32 nodes, 30 s, crypto modelled, 6 faults, 1 byzantine\n"
    );
    let wrong = format!("{toml}: line 24: unknown key `faults[0].ta`, did you mean `at`?\n");
    assert_eq!(told.err, wrong);
    let ran = sim(&["run", &toml]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert_eq!(ran.err, format!("pqcnet-sim: {wrong}"));
    let told = sim(&["check", "steady-100"]);
    assert_eq!(told.code, 2);
    assert_eq!(
        told.err,
        "`steady-100` is neither a file nor a built-in scenario, did you mean `steady-1000`?\n"
    );
}

// The list has every built-in scenario in a line; their files, once written, are sound.
#[test]
fn the_list_can_be_started_from() {
    let folder = tempfile::tempdir().unwrap();
    let files = within(&folder, "scenarios");
    let told = sim(&["list", "--write", &word(&files)]);
    assert_eq!(told.code, 0, "{}", told.err);
    let names: Vec<&str> = builtin::names().collect();
    assert_eq!(told.out.lines().count(), names.len());
    let paths = names
        .iter()
        .map(|name| word(&files.join(format!("{name}.toml"))));
    let paths: Vec<String> = paths.collect();
    for (line, name) in told.out.lines().zip(&names) {
        assert!(line.starts_with(*name) && line.ends_with('.'), "{line}");
    }
    let mut args = vec!["check"];
    args.extend(paths.iter().map(String::as_str));
    let told = sim(&args);
    assert_eq!((told.code, told.err.as_str()), (0, ""));
    assert_eq!(told.out.matches(": sound. ").count(), names.len());
}

// What a machine's cryptography costs, as it is printed, is what a scenario takes.
#[test]
fn a_calibration_goes_into_a_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let told = sim(&["calibrate"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.out.starts_with("[costs]"), "{}", told.out);
    let costs = Costs::WORDS.iter().map(|(word, ..)| *word);
    for word in costs {
        assert_eq!(
            told.out.matches(&format!("\n{word} = ")).count(),
            1,
            "{word}"
        );
        assert_eq!(
            told.out.matches(&format!("\n# {word} ")).count(),
            1,
            "{word}"
        );
    }
    let told = sim(&["check", &scenario(folder.path(), &told.out)]);
    assert_eq!((told.code, told.err.as_str()), (0, ""));
}

// Several seeds over two processes: each part says what became of its own.
#[test]
fn seeds_are_spread_over_processes() {
    let folder = tempfile::tempdir().unwrap();
    let toml = scenario(folder.path(), "");
    let told = sim(&["seeds", &toml, "--from", "3", "--count", "2", "--jobs", "2"]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    for seed in [3, 4] {
        let part = format!("{toml}: seeds {seed} to {seed}: 0 of 1 broke an invariant, ");
        assert!(told.out.contains(&part), "{}", told.out);
    }
}
