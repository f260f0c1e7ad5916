//! The demo, and that nothing of it is left.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{output, path, pqcnet, signal};

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

// Scenario: a real text goes through five processes; the account names what it must, and the temporary folder is empty.
#[test]
fn real_input_arrives_and_nothing_is_left() {
    let place = tempfile::tempdir().unwrap();
    let temporary = place.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let input = place.path().join("input");
    let text = include_str!("../../../Cargo.lock");
    let lines: Vec<&str> = text.lines().take(2000).collect();
    fs::write(&input, lines.join("\n")).unwrap();
    let mut command = pqcnet(&["demo", "--input", path(&input), "--channels", "5"]);
    command.env("TMPDIR", &temporary);
    let (code, out, err) = output(command);
    assert_eq!(code, Some(0), "{out}{err}");
    for told in [
        "every message arrived once, in order, unaltered",
        "messages     2,000 (",
        "in 5 channels",
        "X-Wing (X25519 + ML-KEM-768), Ed25519 + ML-DSA-65",
        "handshake    ",
        "shards       5 of 16",
        "messages/s",
        "p50",
        "left behind  nothing",
    ] {
        assert!(out.contains(told), "{told}: {out}");
    }
    assert!(is_empty(&temporary));
}

// Scenario: Ctrl-C in the middle stops every process by its id and removes the folder; the code is a failure's.
#[test]
fn an_interrupted_demo_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let temporary = place.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let input = place.path().join("input");
    fs::write(&input, "a line of the demo's input\n".repeat(1_000_000)).unwrap();
    let mut command = pqcnet(&["demo", "--input", path(&input), "--max-messages", "1000000"]);
    command
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut pids = Vec::new();
    for line in lines.by_ref() {
        if let Some((_, pid)) = line
            .split_once("  pid ")
            .or_else(|| line.split_once(" pid "))
        {
            pids.push(pid.trim().parse::<i32>().unwrap());
        }
        if line.starts_with("started subscriber") {
            break;
        }
    }
    assert_eq!(pids.len(), 5);
    signal(&child, Signal::SIGINT);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.contains("interrupted")),
        "{rest:?}"
    );
    assert!(is_empty(&temporary));
    for pid in pids {
        assert_eq!(
            kill(Pid::from_raw(pid), None),
            Err(nix::errno::Errno::ESRCH),
            "process {pid} lives"
        );
    }
}

// Scenario: input that cannot be read, or is empty, is a usage error before anything is started.
#[test]
fn input_that_is_not_there_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut command = pqcnet(&["demo", "--input", "does/not/exist"]);
    command.env("TMPDIR", place.path());
    let (code, _, err) = output(command);
    assert_eq!(code, Some(2));
    assert!(err.contains("cannot read does/not/exist"), "{err}");
    let empty = place.path().join("empty");
    fs::write(&empty, "").unwrap();
    let mut command = pqcnet(&["demo", "--input", path(&empty)]);
    command.env("TMPDIR", place.path());
    let (code, _, err) = output(command);
    assert_eq!(code, Some(2));
    assert!(err.contains("the input is empty"), "{err}");
    fs::remove_file(&empty).unwrap();
    assert!(is_empty(place.path()));
}
