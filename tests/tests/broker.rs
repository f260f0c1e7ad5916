//! The relay with its log on a real RabbitMQ: the broker and the relayers die in mid-flow, and a ledger says what came of it.
#![allow(
    clippy::print_stdout,
    reason = "the counts of a run are worth reading beside its verdict"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use anyhow::Result;
use pqcnet_actor::Env;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::disk::files_with;
use pqcnet_tests::load::{Load, PATIENCE, SECRET};
use pqcnet_tests::network::Network;
use pqcnet_tests::private_broker::Broker;

const CUSTOMERS: usize = 2;
const CHANNELS: usize = 4;
const MESSAGES: u64 = 1_400;
/// Messages of a channel that may be sent between two events.
const STRETCH: u64 = 200;

async fn run(broker: &mut Broker) -> Result<pqcnet_tests::ledger::Verdict> {
    let network = Network::create(1, 2, Admission::Any)?;
    network.put_on_broker(&broker.uri())?;
    network.start_all().await?;
    let network = Arc::new(network);
    let load = Load::start(network.clone(), CUSTOMERS, CHANNELS, MESSAGES).await?;
    let (progress, env) = (load.progress.clone(), Env::plain());
    let settled = |more: u64| {
        let goal = progress.settled.load(SeqCst) + more;
        progress.reach(&progress.settled, goal)
    };
    // The first records reach the broker; then it dies under way, and everything goes on without it.
    load.allow(STRETCH);
    settled(STRETCH).await;
    broker.kill();
    load.allow(2 * STRETCH);
    settled(STRETCH * load.lanes()).await;
    // A relayer dies with a full spill and no broker, and starts like this.
    network.node(Role::Relayer, 1).kill().await?;
    network.node(Role::Relayer, 1).start().await?;
    load.allow(STRETCH);
    settled(STRETCH).await;
    broker.resume();
    let back = env.now();
    // While the spills drain, the other relayer dies, then each again, then the broker.
    for relayer in [2, 1, 2] {
        load.allow(STRETCH / 2);
        settled(STRETCH).await;
        network.node(Role::Relayer, relayer).kill().await?;
        network.node(Role::Relayer, relayer).start().await?;
    }
    let flowed = env.now().saturating_sub(back);
    broker.kill();
    broker.resume();
    load.allow(MESSAGES);
    println!("broker kill -9: 2, relayer kill -9: 4; {flowed:?} from the first return of the broker past three kills");
    load.finish().await
}

// 2 customers, 8 channels, 11,200 messages over one sentry and two relayers whose logs are on one broker. What is
// acknowledged while the broker is dead outlives the relayer's death too; in the end all of it is in the streams, in order,
// once, and the broker's files hold no payload in clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_dying_broker_loses_nothing_acknowledged() -> Result<()> {
    let mut broker = Broker::start();
    let verdict = tokio::time::timeout(PATIENCE, run(&mut broker)).await??;
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    let sent = (CUSTOMERS * CHANNELS) as u64 * MESSAGES;
    assert_eq!((verdict.sent, verdict.acked, verdict.failed), (sent, sent, 0));
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    assert_eq!(verdict.delivered, sent);
    let clear = files_with(&broker.data(), SECRET)?;
    assert!(clear.is_empty(), "payloads in clear in {clear:?}");
    Ok(())
}
