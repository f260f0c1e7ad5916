//! Scenario: latencies come from a table beside the scenario, as measured ones do: round trips in milliseconds.

use std::fs;

use super::{run_of, scenario, sim, within, word};

// Ten times the round trips, ten times the time to a delivery; what `--out` keeps has the table in it and can be replayed from
// another place; a table without a place that the scenario names is refused by name.
#[test]
fn latencies_of_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let table = |ms: u32| {
        let text = format!(",frankfurt,tokyo\nfrankfurt,{ms},{ms}\ntokyo,{ms},{ms}\n");
        fs::write(folder.path().join("rtt.csv"), text).unwrap();
    };
    let toml = scenario(
        folder.path(),
        "[network]\nmatrix = \"rtt.csv\"\njitter = 0\n",
    );
    let mut medians = Vec::new();
    for ms in [30, 300] {
        table(ms);
        let left = within(&folder, &format!("out-{ms}"));
        let told = sim(&["run", &toml, "--out", &word(&left), "--quiet"]);
        assert_eq!(told.code, 0, "{}{}", told.out, told.err);
        medians.push(run_of(&left).times["publish to delivery"].p50_ms);
    }
    // Two round trips, and a little for the disk.
    assert!((60.0..=70.0).contains(&medians[0]), "{medians:?}");
    assert!((600.0..=610.0).contains(&medians[1]), "{medians:?}");
    fs::remove_file(folder.path().join("rtt.csv")).unwrap();
    let moved = within(&folder, "elsewhere");
    fs::rename(within(&folder, "out-30"), &moved).unwrap();
    let again = sim(&["replay", &word(&moved), "--quiet"]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    fs::write(folder.path().join("rtt.csv"), ",paris\nparis,1\n").unwrap();
    let told = sim(&["check", &toml]);
    assert_eq!(told.code, 2);
    assert!(
        told.err.ends_with("rtt.csv: no row is named `frankfurt`\n"),
        "{}",
        told.err
    );
}
