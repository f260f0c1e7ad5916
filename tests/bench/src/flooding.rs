//! A client that floods one of its channels, for `pqcnet-bench relay`: publishes and reads 1 KiB messages as fast as they are taken, in a
//! process of its own, as a neighbour's client is.
//!
//! `pqcnet-bench-flood NETWORK KEYS UNLOCK CHANNEL`. A line on standard input begins a flood and the next ends it; what it carried is printed then.
#![allow(clippy::print_stdout, reason = "the figures are this program's data")]

use std::collections::VecDeque;
use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_actor::Env;
use pqcnet_client::{ChannelName, Client, ClientConfig, Publisher, Receipt};
use tokio::sync::mpsc;

const PAYLOAD: usize = 1024;
/// Messages whose acknowledgements are awaited together.
const BURST: usize = 512;
/// Of these so many are on their way: what a client of ours has there at most.
const BURSTS: usize = 4;
/// Between two looks at how far the reader is.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel] = &words[..] else {
        anyhow::bail!("wanted: NETWORK KEYS UNLOCK CHANNEL");
    };
    let config = ClientConfig::from_files(network, keys, unlock)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::connect(config.clone()).await?;
        let reader = Client::connect(config).await?;
        let name: ChannelName = channel.parse()?;
        let mut records = reader.subscribe(&reader.channel(name.clone()), 0).await?;
        let publisher = client.publisher(&name)?;
        // The channel is there, and both ways are warm.
        publisher.send(vec![0x5a; PAYLOAD]).await?.await?;
        records.next().await?;
        let taken = Arc::new(AtomicU64::new(0));
        let counted = taken.clone();
        tokio::spawn(async move {
            while records.next().await.is_ok() {
                counted.fetch_add(1, Relaxed);
            }
        });
        let mut orders = orders()?;
        let mut sent = 0;
        println!("ready");
        while orders.recv().await.is_some() {
            let carried = flood(&publisher, &mut sent, &mut orders).await?;
            while taken.load(Relaxed) < sent {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            println!("{carried}");
        }
        Ok(())
    })
}

/// The lines of standard input; they end with it.
fn orders() -> Result<mpsc::Receiver<()>> {
    let (tell, told) = mpsc::channel(1);
    let read = move || {
        let lines = std::io::stdin().lock().lines();
        for _ in lines.map_while(Result::ok) {
            if tell.blocking_send(()).is_err() {
                return;
            }
        }
    };
    Env::plain().dedicated_thread("orders", read)?;
    Ok(told)
}

/// Publishes until the next order; how many were acknowledged until then.
async fn flood(
    publisher: &Publisher,
    sent: &mut u64,
    orders: &mut mpsc::Receiver<()>,
) -> Result<u64> {
    let over = Arc::new(AtomicBool::new(false));
    let flooding = tokio::spawn({
        let (publisher, over) = (publisher.clone(), over.clone());
        async move {
            let (mut sent, mut carried) = (0, 0);
            let mut on_way: VecDeque<Vec<Receipt>> = VecDeque::new();
            while !over.load(Relaxed) {
                let mut burst = Vec::with_capacity(BURST);
                for _ in 0..BURST {
                    burst.push(publisher.send(vec![0x5a; PAYLOAD]).await?);
                }
                sent += BURST as u64;
                on_way.push_back(burst);
                if on_way.len() == BURSTS {
                    for receipt in on_way.pop_front().into_iter().flatten() {
                        receipt.await?;
                        carried += u64::from(!over.load(Relaxed));
                    }
                }
            }
            for receipt in on_way.into_iter().flatten() {
                receipt.await?;
            }
            anyhow::Ok((sent, carried))
        }
    });
    orders.recv().await.context("ended in mid-flood")?;
    over.store(true, Relaxed);
    let (more, carried) = flooding.await??;
    *sent += more;
    Ok(carried)
}
