//! Scenario: the relayer's disk says that it syncs and does not, then its machine loses power: what was acknowledged is gone.

use std::fs;

use pqcnet_sim::report::Outcome;

use super::{run_of, scenario, sim, within, word};

const LIES: &str = r#"[[faults]]
kind = "disk-lies"
nodes = ["relayer"]
at = "2s"
[[faults]]
kind = "crash"
torn = true
nodes = ["relayer"]
at = "4s"
"#;

// The run stops at the crash with the promise that broke, seed, time and last events, here and in everything that it leaves;
// its replay shows the same again; a run file of another run is told from it.
#[test]
fn a_broken_promise_is_told_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let toml = scenario(folder.path(), LIES);
    let left = within(&folder, "out");
    let out = word(&left);
    let told = sim(&["run", &toml, "--seed", "5", "--out", &out, "--quiet"]);
    assert_eq!(told.code, 3, "{}{}", told.out, told.err);
    let run = run_of(&left);
    let Outcome::Broken(broken) = &run.outcome else {
        panic!("{:?}", run.outcome);
    };
    assert!(
        broken.reason.contains("was acknowledged at offset"),
        "{}",
        broken.reason
    );
    assert!(
        broken.reason.contains("and the disk ends at offset"),
        "{}",
        broken.reason
    );
    // Looked at every second: the crash was at the fourth.
    assert!(
        (4_000_000_000..=5_000_000_000).contains(&broken.at_ns),
        "{}",
        broken.at_ns
    );
    assert_eq!(broken.last_events.len(), 64);
    let last = format!(
        "outcome      BROKEN at {:.6} s, seed 5: {}\n",
        broken.at_ns as f64 / 1e9,
        broken.reason
    );
    assert!(told.out.contains(&last), "{}", told.out);
    assert!(
        broken
            .last_events
            .iter()
            .all(|event| told.out.contains(event))
    );
    let page = fs::read_to_string(left.join("report.html")).unwrap();
    assert!(page.contains("and the disk ends at offset"));

    let again = sim(&["replay", &out, "--quiet"]);
    assert_eq!(again.code, 3, "{}{}", again.out, again.err);
    assert!(
        again.out.contains("replay       the same, event for event"),
        "{}",
        again.out
    );
    assert!(again.out.contains(&last), "{}", again.out);
    assert!(again.out.contains(&run.event_hash), "{}", again.out);

    let mut other = run.clone();
    other.seed = 6;
    fs::write(left.join("run.json"), other.to_json()).unwrap();
    let another = sim(&["replay", &out, "--quiet"]);
    assert_eq!(another.code, 3);
    assert!(
        another.out.contains("replay       ANOTHER RUN"),
        "{}",
        another.out
    );
}

// Without the lie the same crash breaks nothing.
#[test]
fn an_honest_disk_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let crash = LIES.split_once("[[faults]]\nkind = \"crash\"").unwrap().1;
    let crash = format!("[[faults]]\nkind = \"crash\"{crash}");
    let toml = scenario(folder.path(), &crash);
    let told = sim(&["run", &toml, "--seed", "5", "--quiet"]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    assert!(told.out.contains("every invariant held"), "{}", told.out);
}
