//! `pqcnet-sentry` with an allocator that counts, for `pqcnet-bench connections`: the bytes allocated stand in
//! `heap.txt` beside the configuration, written anew every tenth of a second. With `sessions KIND COUNT` it counts what
//! sessions cost in this process instead, and prints resident and allocated bytes of one.
#![allow(clippy::print_stdout, reason = "the figures are this program's data")]

mod pair;
mod sessions;

use std::alloc::System;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EVERY: Duration = Duration::from_millis(100);

fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the count is read beside the node, not by it"
)]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [what, kind, count] = &words[..]
        && what == "sessions"
    {
        let counted = count.parse().map_err(anyhow::Error::new);
        return match counted.and_then(|count| sessions::count(kind, count, live)) {
            Ok([resident, allocated]) => {
                println!("{resident} {allocated}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let config = std::env::args().skip_while(|arg| arg != "--config").nth(1);
    if let Some(config) = config {
        let file = PathBuf::from(config).with_file_name("heap.txt");
        std::thread::spawn(move || {
            // Ends with the process, or when the folder goes.
            while std::fs::write(&file, live().to_string()).is_ok() {
                std::thread::sleep(EVERY);
            }
        });
    }
    pqcnet_node::service::main("pqcnet-sentry", pqcnet_node::Role::Sentry)
}
