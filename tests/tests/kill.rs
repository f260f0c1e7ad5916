//! Processes die in mid-flow, again and again; a ledger of what was acknowledged, delivered and stored says what came of
//! it. Every process is a real one on loopback, killed with SIGKILL.
#![allow(
    clippy::print_stdout,
    reason = "the counts of a run are worth reading beside its verdict"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use pqcnet_messages::Role;
use pqcnet_tests::ledger::Verdict;
use pqcnet_tests::load::{CRASH_EVERY, Load, PATIENCE};
use pqcnet_tests::network::Network;

/// What one run does.
struct Plan {
    customers: usize,
    channels_each: usize,
    messages_each: u64,
    relayer_kills: usize,
    sentry_kills: usize,
}

async fn run(plan: Plan) -> Result<Verdict> {
    let network = Arc::new(Network::start(1, 2).await?);
    let (customers, channels) = (plan.customers, plan.channels_each);
    let load = Load::start(network.clone(), customers, channels, plan.messages_each).await?;
    let killed = kill_all(&plan, &network, &load).await?;
    let verdict = load.finish().await?;
    println!("{killed}");
    println!("{verdict}");
    Ok(verdict)
}

/// Lets the flow run in stretches, and in the middle of each kills a process and starts it again.
async fn kill_all(plan: &Plan, network: &Network, load: &Load) -> Result<String> {
    let progress = &load.progress;
    let kills = plan.relayer_kills + plan.sentry_kills;
    let every = kills / plan.sentry_kills.max(1);
    let stretch = plan.messages_each / (kills as u64 + 1);
    let (mut relayers, mut sentries, mut in_flight) = (0, 0, 0);
    for kill in 0..kills {
        let before = progress.settled.load(Ordering::SeqCst);
        load.allow(stretch);
        // Each time at another point: from the very first acknowledgement of the stretch to half of it.
        let half = stretch * load.lanes() / 2;
        progress
            .reach(&progress.settled, before + 1 + half * (kill as u64 % 5) / 5)
            .await;
        let node = if (kill + 1) % every == 0 && sentries < plan.sentry_kills {
            sentries += 1;
            network.node(Role::Sentry, 1)
        } else {
            relayers += 1;
            network.node(Role::Relayer, 1 + relayers % 2)
        };
        node.kill().await?;
        let sent = progress.sent.load(Ordering::SeqCst);
        in_flight += sent - progress.settled.load(Ordering::SeqCst);
        node.start().await?;
    }
    load.allow(plan.messages_each - stretch * kills as u64);
    Ok(format!(
        "kill -9: relayers {relayers}, sentry {sentries}; unacknowledged at those moments: {in_flight} messages"
    ))
}

/// 2 customers, 8 channels, 20,800 messages; 20 times a relayer dies and 5 times the sentry, each in mid-flow. Nothing that
/// was acknowledged is lost, nothing lands twice, order is kept, and no subscriber gets what it had.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() -> Result<()> {
    let plan = Plan {
        customers: 2,
        channels_each: 4,
        messages_each: 2_600,
        relayer_kills: 20,
        sentry_kills: 5,
    };
    let sent = (plan.customers * plan.channels_each) as u64 * plan.messages_each;
    let verdict = tokio::time::timeout(PATIENCE, run(plan)).await??;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(
        (verdict.sent, verdict.acked, verdict.failed),
        (sent, sent, 0)
    );
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    assert_eq!(verdict.delivered, sent);
    assert!(verdict.resumed >= 8 * (2_600 / CRASH_EVERY));
    Ok(())
}

/// Kills of a soak that names no number: three minutes of a release build on two cores.
const SOAK_KILLS: usize = 250;
/// Messages of a channel between two kills.
const STRETCH: u64 = 80;

/// The same for longer, with as many kills as `SOAK_KILLS` says: `make soak KILLS=n`. One kill in five is the sentry's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes"]
async fn soak() -> Result<()> {
    let kills = match std::env::var("SOAK_KILLS") {
        Ok(kills) => kills.parse().context("SOAK_KILLS")?,
        Err(_) => SOAK_KILLS,
    };
    ensure!(kills >= 5, "one kill in five is the sentry's: 5 at least");
    let sentry_kills = kills / 5;
    let plan = Plan {
        customers: 4,
        channels_each: 8,
        messages_each: STRETCH * kills as u64,
        relayer_kills: kills - sentry_kills,
        sentry_kills,
    };
    let verdict = run(plan).await?;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.failed, 0);
    Ok(())
}
