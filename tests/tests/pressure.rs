//! A subscriber takes a third of what is offered, with real processes: publishers are asked to wait, what lies between them is
//! bounded, and nothing that was acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pqcnet_client::{ChannelName, PauseCause, Receipt};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::network::Network;

/// Nothing here takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// The relayer's mark.
const LAG: u64 = 400;
const LEN: usize = 1024;
/// What is offered. Without back-pressure two thirds of it would lie there when the last is acknowledged.
const TOTAL: u64 = 40_000;

/// The publisher offers three records for each one that the subscriber takes, as fast as it is let. It is told to stop because of
/// the lag; the records between what is acknowledged and what is taken stay within the mark and what was on its way, from the
/// first time it is reached to the end, whatever the publisher has left to offer; then everything comes, each once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_third_is_taken() -> Result<()> {
    let run = async {
        let network = Network::create(1, 1, Admission::Any)?;
        let relayer = network.node(Role::Relayer, 1);
        relayer.configure(&format!("[limits]\nlag_records = {LAG}"))?;
        network.start_all().await?;
        let keys = Arc::new(NodeKeys::generate());
        let client = network.client(&keys).await?;
        let name = ChannelName::new("pressed")?;
        let own = client.channel(name.clone());
        let publisher = client.publisher(&name)?;
        // It is at the head once: from there on its lag counts.
        publisher.publish(vec![0; LEN]).await?;
        let reader = network.client(&keys).await?;
        let mut records = reader.subscribe(&own, 0).await?;
        assert_eq!(records.next().await?.offset, 1);

        let (acked, offered) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
        let (counted, allowed) = (acked.clone(), offered.clone());
        let sending = publisher.clone();
        let publishing = tokio::spawn(async move {
            let (done, mut receipts) = tokio::sync::mpsc::channel::<Receipt>(16_384);
            let counting = tokio::spawn(async move {
                while let Some(receipt) = receipts.recv().await {
                    receipt.await?;
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                anyhow::Ok(())
            });
            for _ in 1..TOTAL {
                done.send(sending.send(vec![7; LEN]).await?).await?;
                allowed.fetch_add(1, Ordering::SeqCst);
            }
            drop(done);
            counting.await?
        });
        let (mut most, mut paused) = (0, false);
        let mut taken = 1;
        while taken < TOTAL {
            // One for each three that were offered; all, when the publisher has no room for more and when it is done.
            let may = offered.load(Ordering::SeqCst);
            if taken < may / 3 || may == TOTAL || publisher.room() < 2 * LEN {
                let record = records.next().await?;
                taken += 1;
                assert_eq!(record.offset, taken);
                assert_eq!(record.payload.len(), LEN);
            } else {
                tokio::task::yield_now().await;
            }
            most = most.max(acked.load(Ordering::SeqCst).saturating_sub(taken));
            paused |= publisher.paused() == Some(PauseCause::Lag);
        }
        publishing.await??;
        assert_eq!(acked.load(Ordering::SeqCst), TOTAL);
        ensure!(paused, "the publisher was never asked to wait");
        // The mark; what the publisher may have on its way (four batches of 512); two windows of 2 MiB at the client and the sentry.
        let bound = LAG + 4 * 512 + 3 * 1024 + 2 * 2 * 1024;
        ensure!(
            most <= bound,
            "{most} acknowledged and not taken, beyond {bound}"
        );
        network.stop().await
    };
    tokio::time::timeout(PATIENCE, run)
        .await
        .context("it hangs")?
}
