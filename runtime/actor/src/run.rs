//! Starting the machinery: a real process, or a simulation.

use std::future::Future;

use actix_rt::System;

use crate::env::{Env, cores};

/// Threads of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// Threads that run [`Env::spawn`]'s tasks: sockets, record encryption.
    pub workers: usize,
    /// Arbiters that run actors, the main thread included.
    pub arbiters: usize,
}

impl Default for Threads {
    /// As many of each as there are cores: either kind may be the busy one.
    fn default() -> Self {
        Threads {
            workers: cores(),
            arbiters: cores(),
        }
    }
}

/// Runs a node's main future on the default threads and returns what it returns. Call it from `main`.
pub fn run<F, Fut>(node: &str, main: F) -> std::io::Result<Fut::Output>
where
    F: FnOnce(Env) -> Fut,
    Fut: Future,
{
    run_on(Threads::default(), node, main)
}

/// As [`run`], on so many threads.
#[expect(
    clippy::disallowed_methods,
    reason = "the arbiters behind Env's placement; stopped and joined before this returns"
)]
pub fn run_on<F, Fut>(threads: Threads, node: &str, main: F) -> std::io::Result<Fut::Output>
where
    F: FnOnce(Env) -> Fut,
    Fut: Future,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.workers.max(1))
        .thread_name("worker")
        .enable_all()
        .build()?;
    let system = System::with_tokio_rt(|| runtime);
    let extra: Vec<actix_rt::Arbiter> = (1..threads.arbiters)
        .map(|_| actix_rt::Arbiter::new())
        .collect();
    let output = system.block_on(async {
        let mut arbiters = vec![System::current().arbiter().clone()];
        arbiters.extend(extra.iter().map(actix_rt::Arbiter::handle));
        main(Env::with_arbiters(node, arbiters)).await
    });
    for arbiter in extra {
        arbiter.stop();
        if arbiter.join().is_err() {
            tracing::error!("an arbiter's thread panicked");
        }
    }
    Ok(output)
}

/// Runs `main` on a paused current-thread tokio under an actix System: time jumps to the next timer whenever nothing
/// is runnable. Nodes in it take [`Env::simulated`]. The same inputs give the same run.
///
/// # Panics
/// If the operating system refuses a runtime.
#[cfg(any(test, feature = "simulation"))]
pub fn simulate<Fut: Future>(main: impl FnOnce() -> Fut) -> Fut::Output {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap_or_else(|error| panic!("no runtime for a simulation: {error}"))
    });
    system.block_on(async { main().await })
}
