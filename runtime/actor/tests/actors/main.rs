//! What the design promises of actors, on real actors: in virtual time where time matters, on real threads where
//! races do.
#![allow(clippy::unwrap_used, reason = "tests: a panic is their way to fail")]

mod arbiters;
mod bounds;
mod determinism;
mod escalation;
mod flood;
mod nurseries;
mod restart;
mod stopping;

use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Longer than anything in virtual time here takes.
const LONG: Duration = Duration::from_secs(3_600);

/// Runs `test` again as a process of its own, with `PQCNET_CHILD` set, and returns its exit code and output.
fn in_own_process(test: &str) -> (Option<i32>, String) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("PQCNET_CHILD", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

fn is_own_process() -> bool {
    std::env::var_os("PQCNET_CHILD").is_some()
}
