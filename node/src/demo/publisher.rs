//! The demo's publisher process: the spooled lines to channels in turn, once it is told to begin.

use std::collections::VecDeque;
use std::io::BufRead as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use pqcnet_actor::Env;
use pqcnet_client::{ChannelName, Client, NodeId, Publisher, Receipt};

use super::parts::{READY, Sent, channel_of, wall_us, write_times};
use crate::commands::identity::IdentityArgs;
use crate::commands::publish::lines_of_stdin;
use crate::exit::{Exit, Failed};

/// Messages handed over and not yet acknowledged, all channels together: enough to fill batches, few enough that the figures
/// show the network's latency and not a queue's.
const IN_FLIGHT: usize = 4096;

/// What it is told.
#[derive(Debug, Args)]
pub struct PublisherArgs {
    /// Channels, used in turn.
    #[arg(long = "channel", required = true)]
    channels: Vec<String>,
    /// Who may read them.
    #[arg(long)]
    reader: String,
    /// Messages of each channel to send one at a time first.
    #[arg(long)]
    unhurried: u64,
    /// The messages, a line each.
    #[arg(long)]
    spool: PathBuf,
    /// Where times go, a file a channel.
    #[arg(long)]
    times: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
}

struct Channel {
    publisher: Publisher,
    times: Vec<u64>,
}

/// Runs it.
pub async fn run(args: &PublisherArgs) -> Result<Exit, Failed> {
    let client = args.identity.open("client")?.client().await?;
    let reader: NodeId = args.reader.parse().context("--reader")?;
    let mut channels = open(&client, &args.channels, reader).await?;
    // The subscriber may read only now; the messages wait until it is there.
    say!("{READY}");
    let mut go = lines_of_stdin(&Env::plain())?;
    go.recv()
        .await
        .context("nobody waits for the messages")?
        .context("standard input")?;
    let file = std::fs::File::open(&args.spool).context("the spool file")?;
    let mut lines = std::io::BufReader::new(file).split(b'\n');
    let slow = args.unhurried.saturating_mul(channels.len() as u64);
    let mut sent = 0;
    while sent < slow
        && let Some(line) = lines.next()
    {
        send(&mut channels, sent, line.context("the spool file")?)
            .await?
            .await
            .map_err(failed)?;
        sent += 1;
    }
    let began_us = wall_us();
    let mut acknowledged = sent;
    let mut receipts: VecDeque<Receipt> = VecDeque::with_capacity(IN_FLIGHT);
    for line in lines {
        if receipts.len() == IN_FLIGHT
            && let Some(first) = receipts.pop_front()
        {
            first.await.map_err(failed)?;
            acknowledged += 1;
        }
        receipts.push_back(send(&mut channels, sent, line.context("the spool file")?).await?);
        sent += 1;
    }
    for receipt in receipts {
        receipt.await.map_err(failed)?;
        acknowledged += 1;
    }
    for (index, channel) in channels.iter().enumerate() {
        write_times(&args.times.join(format!("sent-{index}")), &channel.times)?;
    }
    let unhurried = args.unhurried;
    let told = serde_json::to_string(&Sent {
        unhurried,
        acknowledged,
        began_us,
    })
    .context("account")?;
    say!("{told}");
    Ok(Exit::Ok)
}

async fn open(client: &Client, names: &[String], reader: NodeId) -> Result<Vec<Channel>, Failed> {
    let mut channels = Vec::new();
    for name in names {
        let name = ChannelName::new(name).context("--channel")?;
        client
            .set_readers(&name, vec![reader])
            .await
            .context("the access list")?;
        let publisher = client.publisher(&name).context("a publisher")?;
        channels.push(Channel {
            publisher,
            times: Vec::new(),
        });
    }
    Ok(channels)
}

async fn send(channels: &mut [Channel], message: u64, line: Vec<u8>) -> Result<Receipt, Failed> {
    let index = channel_of(message, channels.len());
    let channel = channels.get_mut(index).context("a channel")?;
    channel.times.push(wall_us());
    channel.publisher.send(line).await.map_err(failed)
}

fn failed(error: pqcnet_client::PublishError) -> Failed {
    Failed::from(anyhow::Error::new(error).context("a message was not acknowledged"))
}
