//! The relay with its log on a real RabbitMQ: the broker and the relayers die in mid-flow, and a ledger says what came of it.
#![allow(
    clippy::print_stdout,
    reason = "the counts of a run are worth reading beside its verdict"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::amqp_proxy::{AmqpProxy, Flow};
use pqcnet_tests::disk::files_with;
use pqcnet_tests::ledger::Verdict;
use pqcnet_tests::load::{Load, PATIENCE, SECRET};
use pqcnet_tests::network::Network;
use pqcnet_tests::private_broker::Broker;

const CUSTOMERS: usize = 2;
const CHANNELS: usize = 4;
/// Confirms falsified in a cycle: one confirm may be for all there is, so no more can be counted on.
const NACKS: u64 = 1;
/// Goal for the flow to be back after the broker.
const SOON: Duration = Duration::from_secs(10);
const LANES: u64 = (CUSTOMERS * CHANNELS) as u64;

/// How long a run is.
#[derive(Clone, Copy)]
struct Plan {
    /// In each the broker dies once and relayers four times.
    cycles: u64,
    /// Messages of a channel that may be sent between two events; fifteen halves of it a cycle.
    stretch: u64,
    /// Messages of a channel in all.
    messages: u64,
}

async fn run(broker: &mut Broker, plan: Plan) -> Result<Verdict> {
    let network = Network::create(1, 2, Admission::Any)?;
    let proxy = AmqpProxy::start(broker.at()).await?;
    network.put_on_broker(&proxy.in_front_of(&broker.uri()))?;
    network.start_all().await?;
    let network = Arc::new(network);
    let load = Load::start(network.clone(), CUSTOMERS, CHANNELS, plan.messages).await?;
    let progress = load.progress.clone();
    let began = proxy.now();
    let so_far = |what: &str| {
        println!(
            "{:.0} s: {what}; {} settled, {} delivered",
            (proxy.now() - began).as_secs_f64(),
            progress.settled.load(SeqCst),
            progress.delivered.load(SeqCst)
        );
    };
    let settled = |more: u64| {
        let goal = progress.settled.load(SeqCst) + more;
        progress.reach(&progress.settled, goal)
    };
    let stretch = plan.stretch;
    let (mut undisturbed, mut disturbed) = (Vec::new(), Vec::new());
    for cycle in 1..=plan.cycles {
        // Records reach the broker; it dies under way, and everything goes on without it.
        load.allow(stretch);
        settled(stretch).await;
        // The connections are cut while confirms are under way, and the broker refuses what it has.
        // Goals are set before more is allowed: all of it may be settled by the time the proxy has done its part.
        let some = settled(stretch);
        proxy.lose_confirms();
        load.allow(stretch);
        proxy.lost(1).await;
        proxy.cut();
        some.await;
        let some = settled(stretch);
        proxy.falsify(NACKS);
        load.allow(stretch);
        proxy.falsified(NACKS).await;
        some.await;
        broker.kill();
        load.allow(2 * stretch);
        settled(stretch * LANES / 2).await;
        // A relayer dies with a full spill and no broker, and starts like this.
        network.node(Role::Relayer, 1).kill().await?;
        network.node(Role::Relayer, 1).start().await?;
        load.allow(stretch);
        settled(stretch).await;
        proxy.mark();
        let dead = proxy.now();
        broker.resume();
        let back = proxy.now();
        let relayers_die = async {
            // While the spills drain, the other relayer dies, then each again.
            for relayer in [2, 1, 2] {
                load.allow(stretch / 2);
                settled(stretch).await;
                network.node(Role::Relayer, relayer).kill().await?;
                network.node(Role::Relayer, relayer).start().await?;
            }
            anyhow::Ok(())
        };
        // In every other cycle relayers die as soon as the broker answers; else when it has what waited for it.
        let alone = cycle % 2 == 1;
        let flow = if alone {
            let flow = proxy.flows().await;
            relayers_die.await?;
            flow
        } else {
            let (flow, died) = tokio::join!(proxy.flows(), relayers_die);
            died?;
            flow
        };
        println!(
            "death {cycle}{}: started in {:.1} s; {}",
            if alone {
                ""
            } else {
                ", relayers dying after it"
            },
            (back - dead).as_secs_f64(),
            since(back, &flow)
        );
        so_far(&format!("cycle {cycle} of {}", plan.cycles));
        let waited = flow.confirmed.values().map(|at| at.saturating_sub(back));
        if alone {
            &mut undisturbed
        } else {
            &mut disturbed
        }
        .extend(waited);
    }
    load.allow(plan.messages);
    progress
        .reach(&progress.settled, LANES * plan.messages)
        .await;
    so_far("all are sent; what is delivered and what is stored is read back");
    let verdict = load.finish().await?;
    so_far("read back");
    println!(
        "kill -9: broker {}, relayers {}; cut with confirms lost {}, confirms falsified {}",
        plan.cycles,
        4 * plan.cycles,
        plan.cycles,
        NACKS * plan.cycles,
    );
    println!(
        "from the broker's port answering to the first record confirmed, by shard: {}; with relayers dying: {}",
        spread(&mut undisturbed),
        spread(&mut disturbed)
    );
    println!("{verdict}");
    Ok(verdict)
}

/// What passed when, in seconds from a broker's return.
fn since(back: Duration, flow: &Flow) -> String {
    let seconds = |at: &Duration| format!("{:.2}", at.saturating_sub(back).as_secs_f64());
    let or_never = |at: &Option<Duration>| at.as_ref().map_or("never".to_owned(), seconds);
    let mut shards: Vec<&Duration> = flow.confirmed.values().collect();
    shards.sort();
    let shards: Vec<String> = shards.into_iter().map(seconds).collect();
    format!(
        "seconds from its port answering: a connection {}, a stream {}, the first record confirmed of each shard {}",
        or_never(&flow.connected),
        or_never(&flow.declared),
        shards.join(" ")
    )
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(most)) => format!(
            "median {:.2} s, most {:.2} s, {} of {} within {} s",
            median.as_secs_f64(),
            most.as_secs_f64(),
            times.iter().filter(|time| **time <= SOON).count(),
            times.len(),
            SOON.as_secs()
        ),
        _ => "none".to_owned(),
    }
}

fn holds(plan: Plan, verdict: &Verdict) {
    assert!(verdict.is_clean(), "{verdict}");
    let sent = LANES * plan.messages;
    assert_eq!(
        (verdict.sent, verdict.acked, verdict.failed),
        (sent, sent, 0)
    );
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    assert_eq!(verdict.delivered, sent);
}

// 2 customers, 8 channels, 25,600 messages over one sentry and two relayers whose logs are on one broker. What is
// acknowledged while the broker is dead outlives the relayer's death too; in the end all of it is in the streams, in order,
// once, and the broker's files hold no payload in clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_dying_broker_loses_nothing_acknowledged() -> Result<()> {
    let mut broker = Broker::start();
    let plan = Plan {
        cycles: 2,
        stretch: 200,
        messages: 3_200,
    };
    let verdict = tokio::time::timeout(PATIENCE, run(&mut broker, plan)).await??;
    holds(plan, &verdict);
    let clear = files_with(&broker.data(), SECRET)?;
    assert!(clear.is_empty(), "payloads in clear in {clear:?}");
    Ok(())
}

/// Deaths of the broker in a soak that names no number; four times as many of relayers, and 66,672 messages each: a million.
const SOAK_KILLS: u64 = 15;

/// The same for longer: as many deaths of the broker as `SOAK_BROKER_KILLS` says. `make soak-broker BROKER_KILLS=n`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes"]
async fn soak() -> Result<()> {
    let kills = match std::env::var("SOAK_BROKER_KILLS") {
        Ok(kills) => kills.parse().context("SOAK_BROKER_KILLS")?,
        Err(_) => SOAK_KILLS,
    };
    let mut broker = Broker::start();
    let plan = Plan {
        cycles: kills,
        stretch: 1_100,
        messages: 8_334 * kills,
    };
    let verdict = run(&mut broker, plan).await?;
    holds(plan, &verdict);
    Ok(())
}
