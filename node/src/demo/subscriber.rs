//! The demo's subscriber process: reads every channel to its end and says what it saw.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use futures::future::try_join_all;
use pqcnet_actor::Env;
use pqcnet_client::{Channel, ChannelName, Client, NodeId, Subscription};

use super::parts::{Digest, READY, Received, Seen, wall_us, write_times};
use crate::commands::identity::IdentityArgs;
use crate::exit::{Exit, Failed};
use crate::service::stdin_closed;

/// What it is told.
#[derive(Debug, Args)]
pub struct SubscriberArgs {
    /// Channels with the number of messages to read: `name=count`.
    #[arg(long = "channel", required = true)]
    channels: Vec<String>,
    /// Whose they are.
    #[arg(long)]
    owner: String,
    /// Where times go, a file a channel.
    #[arg(long)]
    times: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// Runs it; ends early when standard input does, since then nobody wants the answer.
pub async fn run(args: &SubscriberArgs) -> Result<Exit, Failed> {
    let owner: NodeId = args.owner.parse().context("--owner")?;
    let abandoned = stdin_closed(&Env::plain())?;
    let client = args.identity.open("reader")?.client().await?;
    let mut channels = Vec::new();
    for (index, told) in args.channels.iter().enumerate() {
        let times = args.times.join(format!("received-{index}"));
        channels.push(Reading::open(&client, owner, told, times).await?);
    }
    say!("{READY}");
    let channels = tokio::select! {
        biased;
        _ = abandoned => return Err(Failed::from(anyhow::anyhow!("nobody waits for the answer"))),
        channels = try_join_all(channels.into_iter().map(Reading::read_all)) => channels?,
    };
    let told = serde_json::to_string(&Received {
        channels,
        ended_us: wall_us(),
    })
    .context("account")?;
    say!("{told}");
    Ok(Exit::Ok)
}

struct Reading {
    name: String,
    count: u64,
    records: Subscription,
    times: PathBuf,
}

impl Reading {
    async fn open(client: &Client, owner: NodeId, told: &str, times: PathBuf) -> Result<Reading> {
        let (name, count) = told.split_once('=').context("--channel name=count")?;
        let count = count.parse().context("--channel name=count")?;
        let channel = Channel {
            owner,
            name: ChannelName::new(name)?,
        };
        let records = client
            .subscribe(&channel, 0)
            .await
            .with_context(|| format!("channel {name}"))?;
        Ok(Reading {
            name: name.to_owned(),
            count,
            records,
            times,
        })
    }

    async fn read_all(mut self) -> Result<Seen> {
        let (mut seen, mut arrived) = (Digest::default(), Vec::new());
        while seen.count < self.count {
            let record = self.records.next().await?;
            arrived.push(wall_us());
            seen.add(&record.payload);
            let (offset, count) = (record.offset, seen.count);
            ensure!(
                offset == count,
                "offset {offset} of {} came as number {count}",
                self.name
            );
        }
        write_times(&self.times, &arrived)?;
        Ok(seen.seen(&self.name))
    }
}
