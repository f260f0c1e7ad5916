//! `pqcnet-sim` as its users have it: the program itself, its exit codes, what it prints and what it leaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod asked;
mod broken;
mod commit;
mod matrix;
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pqcnet_sim::report::Run;

/// What became of a call.
struct Told {
    code: i32,
    out: String,
    err: String,
}

fn sim(args: &[&str]) -> Told {
    let output = Command::new(env!("CARGO_BIN_EXE_pqcnet-sim"))
        .args(args)
        .output()
        .unwrap();
    Told {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A scenario of one relayer, two sentries and two pairs of clients for eight seconds, with something more.
fn scenario(folder: &Path, more: &str) -> String {
    let text = format!(
        "{}{more}",
        r#"name = "tiny"
about = "A few nodes."
duration = "8s"
crypto = "modelled"
shards = 4
[[nodes]]
role = "relayer"
[[nodes]]
role = "sentry"
count = 2
[[nodes]]
name = "people"
role = "client"
count = 4
[[traffic]]
publishers = "people"
subscribers = "people"
rate = 5
start = "1s"
stop = "6s"
"#
    );
    let path = folder.join("tiny.toml");
    fs::write(&path, text).unwrap();
    word(&path)
}

fn word(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn run_of(folder: &Path) -> Run {
    let text = fs::read_to_string(folder.join("run.json")).unwrap();
    Run::parse(&text).unwrap()
}

fn within(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}
