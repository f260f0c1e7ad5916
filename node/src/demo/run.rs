//! The demo from its first process to its last.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pqcnet_actor::Env;
use pqcnet_client::{Channel, ChannelName, NodeId};
use pqcnet_messages::ShardMap;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::DemoArgs;
use super::account::{Account, Ways};
use super::input::{BadInput, Source, Spooled};
use super::parts::{READY, Received, Seen, Sent, read_times};
use crate::commands::status::ask_status;
use crate::exit::{Exit, Failed};
use crate::local::children::{self, NodeProcess};
use crate::local::folder::LocalFolder;
use crate::operator::Operator;
use crate::signals::Interrupt;
use crate::unlock::Opener;

/// Relayers of the demo.
const RELAYERS: usize = 2;
/// Messages of each channel sent one at a time first, at most, and at most a quarter: they show the network's own latency.
const UNHURRIED: u64 = 50;
/// From a process's start to its first word.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The slowest acceptable way for all messages; a stuck demo is worse than a failed one.
const DONE_WITHIN: Duration = Duration::from_secs(900);

/// Runs the demo; 0 only if every message arrived, in order, unaltered.
pub async fn run(args: &DemoArgs) -> Result<Exit, Failed> {
    let mut interrupt = Interrupt::new()?;
    let place = tempfile::Builder::new()
        .prefix("pqcnet-demo-")
        .tempdir()
        .context("no temporary folder")?;
    let mut nodes = Vec::new();
    let outcome = tokio::select! {
        biased;
        () = interrupt.next() => Err(anyhow::anyhow!("interrupted")),
        outcome = network(args, place.path(), &mut nodes) => outcome,
    };
    // Publisher and subscriber went with the future above: they are killed when dropped.
    let started = nodes.len();
    let ends = children::stop_all(nodes).await;
    let clean = ends
        .iter()
        .filter(|(_, end)| end == "exit status: 0")
        .count();
    let at = place.path().display().to_string();
    place.close().context("the temporary folder")?;
    let account = outcome.map_err(|error| match error.is::<BadInput>() {
        true => Failed::usage(error),
        false => Failed::from(error),
    })?;
    for (name, end) in ends.iter().filter(|(_, end)| end != "exit status: 0") {
        eprintln!("{name}: {end}");
    }
    ensure_clean(clean, started)?;
    say!("{account}");
    say!("left behind  nothing: {started} nodes drained and exited 0, {at} removed");
    Ok(Exit::Ok)
}

fn ensure_clean(clean: usize, started: usize) -> Result<()> {
    ensure!(
        clean == started,
        "{} of {started} nodes did not stop cleanly",
        started - clean
    );
    Ok(())
}

async fn network(args: &DemoArgs, place: &Path, nodes: &mut Vec<NodeProcess>) -> Result<Account> {
    let env = Env::plain();
    let (source, told) = Source::find(&env, args.input.as_deref()).await?;
    let channels = usize::from(args.channels);
    let spooled = source.spool(&place.join("spool"), channels, args.max_messages)?;
    let cut = if spooled.cut {
        " (the beginning of it)"
    } else {
        ""
    };
    eprintln!(
        "input: {told}{cut}: {} messages, {} bytes",
        spooled.messages, spooled.bytes
    );

    let folder = LocalFolder::create(&place.join("network"), RELAYERS)?;
    for node in folder.nodes()? {
        let log = place.join(format!("{}.log", node.name));
        let node = children::start(node, Some(&log)).await?;
        eprintln!(
            "started {:<10} {}  pid {}",
            node.node.name,
            node.node.id.short(),
            node.pid()
        );
        nodes.push(node);
    }
    let owner = member(&folder, "client")?;
    let names = channel_names(&folder, owner, channels)?;
    let times = place.join("times");
    std::fs::create_dir(&times).context("the temporary folder")?;
    let (sent, received) = carry(&folder, &names, owner, &spooled, &times).await?;

    let expected: Vec<Seen> = names
        .iter()
        .zip(&spooled.expected)
        .map(|(name, digest)| digest.seen(name))
        .collect();
    verify(&expected, &sent, &received, spooled.messages)?;
    let ways = Ways::from_times(
        &read_all(&times, "sent", channels)?,
        &read_all(&times, "received", channels)?,
        sent.unhurried,
    )?;
    let (handshake, shards) = ask_nodes(&env, &folder).await?;
    Ok(Account {
        input: told,
        messages: spooled.messages,
        bytes: spooled.bytes,
        processes: nodes.len() + 2,
        handshake,
        channels: channels as u64,
        shards,
        full_speed_us: received.ended_us.saturating_sub(sent.began_us),
        ways,
    })
}

/// Publisher and subscriber, from their start to their accounts.
async fn carry(
    folder: &LocalFolder,
    names: &[String],
    owner: NodeId,
    spooled: &Spooled,
    times: &Path,
) -> Result<(Sent, Received)> {
    let reader = member(folder, "reader")?;
    let mut command = part(folder, "demo-publisher", times)?;
    command
        .arg("--reader")
        .arg(reader.to_string())
        .arg("--spool")
        .arg(&spooled.path);
    let shortest = spooled
        .expected
        .iter()
        .map(|digest| digest.count)
        .min()
        .unwrap_or(0);
    command
        .arg("--unhurried")
        .arg(UNHURRIED.min(shortest / 4).to_string());
    for name in names {
        command.arg("--channel").arg(name);
    }
    let mut publisher = Part::start("publisher", command).await?;

    let mut command = part(folder, "demo-subscriber", times)?;
    command.arg("--owner").arg(owner.to_string());
    for (name, digest) in names.iter().zip(&spooled.expected) {
        command
            .arg("--channel")
            .arg(format!("{name}={}", digest.count));
    }
    let mut subscriber = Part::start("subscriber", command).await?;

    publisher.tell(b"go\n").await?;
    let both = futures::future::try_join(publisher.account(), subscriber.account());
    tokio::time::timeout(DONE_WITHIN, both)
        .await
        .with_context(|| format!("not done within {} s", DONE_WITHIN.as_secs()))?
}

fn part(folder: &LocalFolder, name: &str, times: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command
        .arg(name)
        .arg("--state")
        .arg(folder.root())
        .arg("--times")
        .arg(times);
    Ok(command)
}

/// A publisher or subscriber process.
struct Part {
    name: &'static str,
    child: Child,
    /// Its end tells the process that nobody waits any more.
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Part {
    async fn start(name: &'static str, mut command: Command) -> Result<Part> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdin = child
            .stdin
            .take()
            .context("a child without standard input")?;
        let stdout = child
            .stdout
            .take()
            .context("a child without standard output")?;
        let mut part = Part {
            name,
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        };
        let word = tokio::time::timeout(READY_WITHIN, part.line()).await;
        let word = word.with_context(|| format!("the {name} is not ready in time"))??;
        ensure!(word == READY, "the {name} said `{word}`");
        eprintln!(
            "started {name:<10} pid {}",
            part.child.id().unwrap_or_default()
        );
        Ok(part)
    }

    async fn line(&mut self) -> Result<String> {
        match self.lines.next_line().await? {
            Some(line) => Ok(line),
            None => bail!("the {} ended: {}", self.name, self.child.wait().await?),
        }
    }

    async fn tell(&mut self, bytes: &[u8]) -> Result<()> {
        self.stdin
            .write_all(bytes)
            .await
            .with_context(|| format!("the {} does not listen", self.name))
    }

    async fn account<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line().await?;
        let account = serde_json::from_str(&line)
            .with_context(|| format!("the {} said `{line}`", self.name))?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "the {} ended with {status}", self.name);
        Ok(account)
    }
}

fn member(folder: &LocalFolder, name: &str) -> Result<NodeId> {
    let opener = Opener::from_source(&folder.unlock())?;
    let secrets: pqcnet_crypto::NodeSecrets = opener.open(&folder.keys_of(name))?;
    Ok(secrets.keys.node_id())
}

/// Names that spread over the relayers in turn and, while there are enough, over different shards.
fn channel_names(folder: &LocalFolder, owner: NodeId, count: usize) -> Result<Vec<String>> {
    let relayers: Vec<NodeId> = folder
        .network()
        .relayers()
        .iter()
        .map(|node| node.id)
        .collect();
    let shards = folder.network().shards();
    let map = ShardMap::from_relayers(shards, relayers.iter().copied())?;
    let (mut names, mut used) = (Vec::new(), std::collections::BTreeSet::new());
    for number in 0_u64.. {
        if names.len() == count {
            break;
        }
        let channel = Channel {
            owner,
            name: ChannelName::new(&format!("demo/{number}"))?,
        };
        let wanted = relayers.get(names.len() % relayers.len());
        let shard = map.shard_of(&channel);
        let fresh = used.len() >= usize::from(shards) || used.insert(shard);
        if fresh && wanted == Some(&map.owner_of_channel(&channel)) {
            names.push(channel.name.to_string());
        } else if fresh {
            used.remove(&shard);
        }
    }
    Ok(names)
}

fn verify(expected: &[Seen], sent: &Sent, received: &Received, messages: u64) -> Result<()> {
    ensure!(
        sent.acknowledged == messages,
        "{} of {messages} messages were acknowledged",
        sent.acknowledged
    );
    for (expected, seen) in expected.iter().zip(&received.channels) {
        ensure!(
            expected == seen,
            "channel {}: {} messages with hash {} were sent, {} with {} arrived",
            expected.channel,
            expected.count,
            expected.hash,
            seen.count,
            seen.hash
        );
    }
    ensure!(
        expected.len() == received.channels.len(),
        "not every channel was read"
    );
    Ok(())
}

fn read_all(folder: &Path, name: &str, channels: usize) -> Result<Vec<Vec<u64>>> {
    (0..channels)
        .map(|index| read_times(&folder.join(format!("{name}-{index}"))))
        .collect()
}

/// What a handshake with the sentry costs, and how many shards hold records.
async fn ask_nodes(
    env: &Env,
    folder: &LocalFolder,
) -> Result<(pqcnet_p2p::handshake::Account, (u64, u64))> {
    let opener = Opener::from_source(&folder.unlock())?;
    let secrets: pqcnet_crypto::NodeSecrets = opener.open(&folder.keys_of("operator"))?;
    let keys = std::sync::Arc::new(secrets.keys);
    let operator = Operator::new(env, keys, folder.network()).map_err(|failed| failed.error)?;
    let sentries = folder.network().sentries();
    let sentry = sentries.first().context("a sentry")?;
    let handshake = operator.link(sentry).await?.handshake;
    let mut used = 0;
    for relayer in folder.network().relayers() {
        let report = ask_status(&operator, relayer).await?;
        used += report
            .shards
            .iter()
            .filter(|shard| shard.records > 0)
            .count() as u64;
    }
    Ok((handshake, (used, u64::from(folder.network().shards()))))
}

#[cfg(test)]
mod tests {
    // Scenario: a lost, an altered and an unacknowledged message each fail the demo, with the channel named.
    use super::*;
    use crate::demo::parts::Digest;

    #[test]
    fn what_did_not_arrive_as_it_was_sent_fails_the_demo() {
        let digest = |payloads: &[&str]| {
            let mut digest = Digest::default();
            payloads
                .iter()
                .for_each(|payload| digest.add(payload.as_bytes()));
            digest.seen("demo/1")
        };
        let sent = Sent {
            unhurried: 0,
            acknowledged: 2,
            began_us: 0,
        };
        let expected = [digest(&["a", "b"])];
        let check = |arrived: &[&str]| {
            let received = Received {
                channels: vec![digest(arrived)],
                ended_us: 0,
            };
            verify(&expected, &sent, &received, 2)
        };
        assert!(check(&["a", "b"]).is_ok());
        for wrong in [&["a"][..], &["b", "a"], &["a", "c"], &["ab", ""]] {
            let told = check(wrong).unwrap_err().to_string();
            assert!(told.starts_with("channel demo/1: 2 messages"), "{told}");
        }
        let received = Received {
            channels: vec![expected[0].clone()],
            ended_us: 0,
        };
        let told = verify(&expected, &sent, &received, 3)
            .unwrap_err()
            .to_string();
        assert_eq!(told, "2 of 3 messages were acknowledged");
    }

    #[test]
    fn nodes_that_do_not_stop_cleanly_fail_the_demo() {
        assert!(ensure_clean(3, 3).is_ok());
        assert_eq!(
            ensure_clean(2, 3).unwrap_err().to_string(),
            "1 of 3 nodes did not stop cleanly"
        );
    }
}
