//! `pqcnet publish`: arguments, or lines of standard input, to a channel. Prints the offset of each once it is durable, `-` where
//! a repeat was recognised as stored before, which does not tell the offset.

use std::collections::VecDeque;
use std::io::{BufRead, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pqcnet_actor::Env;
use pqcnet_client::{ChannelName, MAX_PAYLOAD, NodeId, PublishError, Receipt};
use tokio::sync::mpsc;

use super::identity::IdentityArgs;
use crate::exit::{Exit, Failed};

/// Messages handed over and not yet durable; the client's own window bounds their bytes.
const IN_FLIGHT: usize = 4096;
/// After so long without an acknowledgement one is told that it waits.
const SILENCE: Duration = Duration::from_secs(5);
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
        let payload = payload.map_err(|error| {
            let exit = match &error {
                LineError::TooLong { .. } => Exit::Usage,
                LineError::Read(_) => Exit::Failure,
            };
            Failed::new(exit, error)
        })?;
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

/// A channel's owner from the command line; `None` stands for one's own channel.
pub fn owner_id(text: Option<&str>) -> Result<Option<NodeId>, Failed> {
    text.map(str::parse)
        .transpose()
        .context("--owner takes 64 hex digits")
        .map_err(Failed::usage)
}

async fn print_offset(receipt: Receipt) -> Result<(), Failed> {
    let mut receipt = std::pin::pin!(receipt);
    let published = match tokio::time::timeout(SILENCE, &mut receipt).await {
        Ok(published) => published,
        Err(_) => {
            eprintln!(
                "no acknowledgement for {SILENCE:?}: the network is out of reach, or takes nothing for now \
                 (`pqcnet status` says which); still trying"
            );
            receipt.await
        }
    };
    let published = published.map_err(publish_failed)?;
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

/// Why a line of standard input is no message; the operator or the system erred.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It could not be read.
    #[error("standard input: {0}")]
    Read(#[from] std::io::Error),
    /// It is longer than a message may be.
    #[error("line {line} of standard input has {len} bytes; a message has at most {MAX_PAYLOAD}")]
    TooLong {
        /// Which, from 1.
        line: u64,
        /// Its length, without its end.
        len: u64,
    },
}

type Lines = mpsc::Receiver<Result<Vec<u8>, LineError>>;

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
        for number in 1.. {
            let Some(line) = next_line(&mut input, number).transpose() else {
                return;
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

/// The next line without its end; of one that is too long only the length is kept.
fn next_line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    let mut len: u64 = 0;
    let mut begun = false;
    loop {
        let part = match input.fill_buf() {
            Ok(part) => part,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if part.is_empty() && !begun {
            return Ok(None);
        }
        begun = true;
        let end = part.iter().position(|byte| *byte == b'\n');
        let text = &part[..end.unwrap_or(part.len())];
        let room = MAX_PAYLOAD - line.len();
        line.extend_from_slice(&text[..text.len().min(room)]);
        len += text.len() as u64;
        let (read, over) = (text.len() + usize::from(end.is_some()), part.is_empty());
        input.consume(read);
        if end.is_some() || over {
            break;
        }
    }
    if len > MAX_PAYLOAD as u64 {
        return Err(LineError::TooLong { line: number, len });
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: lines with and without an end, empty ones, one of just the limit; one beyond it is named with its number and
    /// its whole length, however small the reader's buffer.
    #[test]
    fn lines_and_their_lengths() {
        let read = |text: &[u8]| {
            let mut input = std::io::BufReader::with_capacity(1000, text);
            let mut lines = Vec::new();
            for number in 1.. {
                match next_line(&mut input, number) {
                    Ok(Some(line)) => lines.push(line.len()),
                    Ok(None) => return Ok(lines),
                    Err(error) => return Err(error.to_string()),
                }
            }
            unreachable!("the text ends")
        };
        assert_eq!(read(b""), Ok(vec![]));
        assert_eq!(read(b"one\n\nthree"), Ok(vec![3, 0, 5]));
        assert_eq!(read(&vec![b'a'; MAX_PAYLOAD]), Ok(vec![MAX_PAYLOAD]));
        let mut long = b"one\n".to_vec();
        long.extend(vec![b'a'; 70_000]);
        long.extend(b"\nthree\n");
        assert_eq!(
            read(&long),
            Err("line 2 of standard input has 70000 bytes; a message has at most 65536".to_owned())
        );
    }
}
