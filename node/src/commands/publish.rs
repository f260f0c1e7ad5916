//! `pqcnet publish`: arguments, or lines of standard input, to a channel. Prints the offset of each once it is durable.

use std::collections::VecDeque;
use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;
use clap::Args;
use pqcnet_actor::Env;
use pqcnet_client::{ChannelName, MAX_PAYLOAD, NodeId, PublishError, Receipt};
use tokio::sync::mpsc;

use super::identity::IdentityArgs;
use crate::exit::{Exit, Failed};

/// Messages handed over and not yet durable; the client's own window bounds their bytes.
const IN_FLIGHT: usize = 4096;
/// Lines read ahead of the network.
const READ_AHEAD: usize = 256;

/// What to publish, and where.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The channel: 1 to 128 of a-z 0-9 . _ / -
    channel: String,
    /// One message each; without any, a message a line of standard input.
    payloads: Vec<String>,
    /// First let these read the channel, beside its owner.
    #[arg(long = "reader", value_name = "NODE_ID")]
    readers: Vec<String>,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// Runs it.
pub async fn run(args: &PublishArgs) -> Result<Exit, Failed> {
    let channel = channel_name(&args.channel)?;
    let readers: Result<Vec<NodeId>, _> = args.readers.iter().map(|id| id.parse()).collect();
    let readers = readers
        .context("--reader takes 64 hex digits")
        .map_err(Failed::usage)?;
    let client = args.identity.open("client")?.client().await?;
    if !readers.is_empty() {
        let set = client.set_readers(&channel, readers).await;
        set.map_err(|error| Failed::new(Exit::Refused, error))?;
    }
    let publisher = client.publisher(&channel).map_err(publish_failed)?;
    let mut payloads = payloads(args)?;
    let mut receipts: VecDeque<Receipt> = VecDeque::new();
    while let Some(payload) = payloads.recv().await {
        let payload = payload.context("standard input")?;
        receipts.push_back(publisher.send(payload).await.map_err(publish_failed)?);
        if receipts.len() >= IN_FLIGHT
            && let Some(first) = receipts.pop_front()
        {
            print_offset(first).await?;
        }
    }
    for receipt in receipts {
        print_offset(receipt).await?;
    }
    Ok(Exit::Ok)
}

/// A channel's name from the command line.
pub fn channel_name(text: &str) -> Result<ChannelName, Failed> {
    ChannelName::new(text).map_err(Failed::usage)
}

async fn print_offset(receipt: Receipt) -> Result<(), Failed> {
    let published = receipt.await.map_err(publish_failed)?;
    let mut out = std::io::stdout();
    match published.offset {
        Some(offset) => writeln!(out, "{offset}"),
        None => writeln!(out, "-"),
    }
    .context("standard output")?;
    Ok(())
}

fn publish_failed(error: PublishError) -> Failed {
    let exit = match &error {
        PublishError::Refused(_) => Exit::Refused,
        PublishError::NotSent => Exit::Unreachable,
        PublishError::TooLarge { .. } => Exit::Usage,
        _ => Exit::Failure,
    };
    Failed::new(exit, error)
}

type Lines = mpsc::Receiver<std::io::Result<Vec<u8>>>;

fn payloads(args: &PublishArgs) -> Result<Lines, Failed> {
    if args.payloads.is_empty() {
        return lines_of_stdin(&Env::plain());
    }
    let (sender, receiver) = mpsc::channel(args.payloads.len());
    for payload in &args.payloads {
        sender
            .try_send(Ok(payload.clone().into_bytes()))
            .context("room for every argument")?;
    }
    Ok(receiver)
}

/// Lines of standard input, read by a thread of their own; it waits while nobody takes them.
pub fn lines_of_stdin(env: &Env) -> Result<Lines, Failed> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    env.dedicated_thread("stdin", move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            // One byte more than fits, so that an over-long line is refused and not split.
            let mut bounded = std::io::Read::take(&mut input, MAX_PAYLOAD as u64 + 2);
            let line = match bounded.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line)
                }
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    })
    .context("no thread for standard input")?;
    Ok(receiver)
}
