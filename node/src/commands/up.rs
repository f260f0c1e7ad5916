//! `pqcnet up`: keeps a network of one sentry and some relayers running on this machine.

use std::path::PathBuf;

use clap::Args;

use super::identity::STATE;
use crate::exit::{Exit, Failed};
use crate::local::children::{self, NodeProcess};
use crate::local::folder::{LocalFolder, MAX_RELAYERS};
use crate::signals::Interrupt;

/// How a node ends that was asked to.
const CLEAN: &str = "exit status: 0";

/// Where and how many.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The network's folder; made when absent, used again when there.
    #[arg(long, env = "PQCNET_STATE", default_value = STATE)]
    state: PathBuf,
    /// Relayers of a new network.
    #[arg(long, default_value_t = 2)]
    relayers: usize,
}

/// Runs until Ctrl-C, or until a node fails or the last has ended.
pub async fn run(args: &UpArgs) -> Result<Exit, Failed> {
    if !(1..=MAX_RELAYERS).contains(&args.relayers) {
        return Err(Failed::usage(anyhow::anyhow!(
            "--relayers takes 1 to {MAX_RELAYERS}"
        )));
    }
    let mut interrupt = Interrupt::new()?;
    let folder = if LocalFolder::exists(&args.state) {
        LocalFolder::open(&args.state).map_err(Failed::usage)?
    } else {
        LocalFolder::create(&args.state, args.relayers)?
    };
    let _lock = folder.lock().map_err(Failed::usage)?;
    let mut running = Vec::new();
    let outcome = tokio::select! {
        biased;
        () = interrupt.next() => Ok(Exit::Ok),
        outcome = keep_up(&folder, &mut running) => outcome,
    };
    // Why it stops comes first, then how each node ended.
    let exit = match outcome {
        Ok(exit) => {
            eprintln!("stopping");
            exit
        }
        Err(failed) => {
            eprintln!("pqcnet: {failed}");
            if !running.is_empty() {
                eprintln!("stopping the others");
            }
            failed.exit
        }
    };
    let mut clean = true;
    for (name, end) in children::stop_all(running).await {
        eprintln!("{name}: {end}");
        clean &= end == CLEAN;
    }
    match exit {
        Exit::Ok if !clean => Ok(Exit::Failure),
        exit => Ok(exit),
    }
}

async fn keep_up(folder: &LocalFolder, running: &mut Vec<NodeProcess>) -> Result<Exit, Failed> {
    for node in folder.nodes()? {
        let log = folder.root().join(&node.name).join("log.txt");
        running.push(children::start(node, Some(&log)).await?);
    }
    describe(folder, running);
    loop {
        let ends = running.iter_mut().map(|node| {
            let name = node.node.name.clone();
            Box::pin(async move { (name, node.ended().await) })
        });
        let ((name, end), ..) = futures::future::select_all(ends).await;
        running.retain(|node| node.node.name != name);
        if end != CLEAN {
            let log = folder.root().join(&name).join("log.txt");
            return Err(Failed::from(anyhow::anyhow!(
                "{name} ended by itself: {end}; its log: {}",
                log.display()
            )));
        }
        if running.is_empty() {
            eprintln!("{name} has drained and ended, the last of them");
            return Ok(Exit::Ok);
        }
        eprintln!("{name} has drained and ended; the others go on");
    }
}

fn describe(folder: &LocalFolder, running: &[NodeProcess]) {
    say!(
        "network {} ({})",
        folder.network().name(),
        folder.network().network_id()
    );
    for node in running {
        say!(
            "  {:<10} {}  data {}  control {}  admin http://{}  pid {}",
            node.node.name,
            node.node.id.short(),
            node.ready.data,
            node.ready.control,
            node.ready.admin,
            node.pid(),
        );
    }
    let state = if folder.root().as_os_str() == STATE {
        String::new()
    } else {
        format!(" --state {}", folder.root().display())
    };
    say!("\nnext, in another terminal:");
    say!("  pqcnet subscribe{state} orders");
    say!("  echo one apple | pqcnet publish{state} orders");
    say!("  pqcnet status{state}");
    say!("  pqcnet ui{state}");
    say!(
        "\nlogs: {}/*/log.txt   stop: Ctrl-C",
        folder.root().display()
    );
}
