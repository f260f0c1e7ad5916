//! Progress in a real pseudo-terminal, which util-linux's `script` makes, read as a terminal would.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{scenario, word};

/// Only something broken takes it; then everything in the terminal is killed.
const SECONDS: &str = "300";
const ROWS: u16 = 24;

/// What `pqcnet-sim` draws in a terminal of so many columns, and the terminal's contents in the end.
fn draws(args: &[&str], columns: u16) -> (String, String) {
    let program = word(Path::new(env!("CARGO_BIN_EXE_pqcnet-sim")));
    let shell = format!(
        "stty rows {ROWS} cols {columns}; {program} {}",
        args.join(" ")
    );
    let output = Command::new("timeout")
        .args(["--signal=KILL", SECONDS])
        .args([
            "script",
            "--quiet",
            "--return",
            "--command",
            &shell,
            "/dev/null",
        ])
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::null())
        .output()
        .expect("script is missing: install Debian's package `bsdutils`");
    let came = output.stdout;
    let mut screen = vt100::Parser::new(ROWS, columns, 0);
    screen.process(&came);
    let came = String::from_utf8(came).unwrap();
    assert!(output.status.success(), "{}: {came}", output.status);
    (came, screen.screen().contents())
}

/// The lines that were drawn one over the other.
fn drawn(came: &str) -> Vec<&str> {
    let parts = came
        .split('\r')
        .filter_map(|part| part.strip_suffix("\x1b[K"));
    parts.filter(|line| !line.is_empty()).collect()
}

// Scenario: a run in terminals of 200 and of 60 columns. A bar is drawn in one line, of which a narrow one shows what fits; when the
// run is over it is gone, and only what the run has to say is left. A quiet run draws nothing.
#[test]
fn a_run_draws_a_bar_and_takes_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let toml = scenario(folder.path(), "");
    for columns in [200, 60] {
        let (came, left) = draws(&["run", &toml], columns);
        let lines = drawn(&came);
        assert!(!lines.is_empty(), "{came:?}");
        for line in lines {
            assert!(line.len() < usize::from(columns), "{line:?}");
            let bar = line.strip_prefix('[').and_then(|line| line.split_once(']'));
            let (bar, words) = bar.unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(bar.trim_start_matches('#').trim_start_matches('.'), "");
            assert_eq!(bar.len(), 24);
            assert!(words.contains("/8 s simulated, "), "{line:?}");
            assert_eq!(words.ends_with("iB"), columns == 200, "{line:?}");
        }
        assert!(left.starts_with("scenario     tiny (seed 1"), "{left}");
        assert!(left.contains("every invariant held"), "{left}");
        assert!(!left.contains("simulated, "), "{left}");
    }
    let (came, _) = draws(&["run", &toml, "--quiet"], 200);
    assert!(
        drawn(&came).is_empty() && !came.contains('\x1b'),
        "{came:?}"
    );
}

// Scenario: three seeds: a count is drawn for each, and gone in the end.
#[test]
fn seeds_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let toml = scenario(folder.path(), "");
    let (came, left) = draws(&["seeds", &toml, "--count", "3"], 100);
    let counted = ["1/3", "2/3", "3/3"].map(|count| format!("{count} seeds, 0 broken"));
    assert_eq!(drawn(&came), counted);
    assert!(left.contains("0 of 3 broke an invariant"), "{left}");
    assert!(!left.contains("seeds, 0 broken"), "{left}");
}
