//! The systemd units are hardened as far as a node allows, and say what the binaries do.

use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let entries = std::fs::read_dir(&folder).expect("deploy/systemd");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut units: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "service"))
        .collect();
    units.sort();
    units
}

/// Scenario: systemd itself judges each unit without starting it; the exposure level is at most 2.0 of 10.
#[test]
fn exposure_is_at_most_two() {
    let units = units();
    assert_eq!(units.len(), 2, "{units:?}");
    for unit in units {
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(&unit)
            .output()
            .expect("systemd-analyze is missing: install Debian's package `systemd`");
        let told = String::from_utf8_lossy(&judged.stdout);
        let level = told
            .rsplit_once("Overall exposure level for ")
            .and_then(|(_, rest)| rest.split_once(": "))
            .and_then(|(_, rest)| rest.split(' ').next())
            .and_then(|level| level.parse::<f64>().ok());
        let level = level.unwrap_or_else(|| panic!("no level in:\n{told}"));
        assert!(
            judged.status.success() && level <= 2.0,
            "{}: {level}",
            unit.display()
        );
        println!("{}: {level}", unit.display());
    }
}

/// Scenario: a unit starts the binary of its role with a file that stays where it is, waits longer than a drain may take,
/// does not start again what a new start does not mend, and reloads by the signal that the node takes.
#[test]
fn units_fit_the_binaries() {
    for unit in units() {
        let text = std::fs::read_to_string(&unit).expect("a unit");
        let name = unit
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name");
        let role = name.trim_start_matches("pqcnet-");
        for line in [
            format!("ExecStart=/usr/bin/{name} --config /etc/pqcnet/{role}/node.toml"),
            "Type=notify".to_owned(),
            "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
            "RestartPreventExitStatus=2".to_owned(),
            "TimeoutStopSec=35".to_owned(),
            "User=pqcnet".to_owned(),
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{}: no `{line}`",
                unit.display()
            );
        }
    }
}
