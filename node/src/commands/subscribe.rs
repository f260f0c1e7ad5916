//! `pqcnet subscribe`: prints a channel's payloads, each once, in order, a line each.

use std::fs;
use std::io::{ErrorKind, Stdout, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use pqcnet_client::{
    Channel, Client, GroupName, Member, Record, Refusal, RequestError, SubscribeError, Subscription,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::identity::IdentityArgs;
use super::publish::{channel_name, owner_id};
use crate::exit::{Exit, Failed};
use crate::signals::Interrupt;

/// What to read, from where, and for how long.
#[derive(Debug, Args)]
pub struct SubscribeArgs {
    /// The channel.
    channel: String,
    /// Whose channel, an id as `pqcnet keys show` prints it; without it, one's own.
    #[arg(long, value_name = "NODE_ID")]
    owner: Option<String>,
    /// Begin after this offset, whatever --store-offset holds; 0 is everything.
    #[arg(long)]
    after: Option<u64>,
    /// Begin with what was stored at this time or later, by the relayers' clocks, whatever --store-offset holds: seconds since
    /// the Unix epoch, or how long ago, as in 90s, 15m, 2h or 7d.
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    from_time: Option<FromTime>,
    /// Keep the offset of the last payload printed in this file, and begin after it next time.
    #[arg(long, value_name = "FILE")]
    store_offset: Option<PathBuf>,
    /// Share the channel with the other members of this group of one's own: each payload is printed by one of them, and
    /// committed then. A group that never committed begins after --after. What a member had and did not commit when it died
    /// comes again.
    #[arg(long, value_name = "NAME", conflicts_with = "store_offset")]
    group: Option<String>,
    /// End after so many; without it, on Ctrl-C.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// A time, as one types it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FromTime {
    /// Seconds since the Unix epoch.
    At(u64),
    /// Seconds ago.
    Ago(u64),
}

impl FromTime {
    fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            FromTime::At(seconds) => seconds.saturating_mul(1000),
            FromTime::Ago(seconds) => now_ms.saturating_sub(seconds.saturating_mul(1000)),
        }
    }
}

impl FromStr for FromTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is neither seconds since the Unix epoch nor like 90s, 15m, 2h or 7d")
        };
        let Some(last) = text.chars().last() else {
            return Err(wrong());
        };
        let unit = match last {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return text.parse().map(FromTime::At).map_err(|_| wrong()),
        };
        let number = text[..text.len() - 1].parse::<u64>();
        let seconds = number.ok().and_then(|number| number.checked_mul(unit));
        seconds.map(FromTime::Ago).ok_or_else(wrong)
    }
}

/// Runs it.
pub async fn run(args: &SubscribeArgs) -> Result<Exit, Failed> {
    let name = channel_name(&args.channel)?;
    let owner = owner_id(args.owner.as_deref())?;
    let group = args.group.as_deref().map(group_name).transpose()?;
    let after = match (args.after, &args.store_offset) {
        (Some(after), _) => after,
        (None, _) if args.from_time.is_some() => 0,
        (None, Some(path)) => stored_offset(path)?,
        (None, None) => 0,
    };
    let mut interrupt = Interrupt::new()?;
    let client = args.identity.open("client")?.client().await?;
    let channel = Channel {
        owner: owner.unwrap_or_else(|| client.node_id()),
        name,
    };
    let after = match args.from_time {
        Some(time) => {
            let at_ms = time.at_ms(crate::clock::wall_ms());
            let found = client.find_offset(&channel, at_ms).await;
            found.map_err(|error| Failed::new(Exit::Refused, error))?
        }
        None => after,
    };
    let mut records = match &group {
        None => Source::Alone(
            client
                .subscribe(&channel, after)
                .await
                .map_err(|error| not_started(error, &client, &channel))?,
        ),
        Some(group) => Source::Member(
            client
                .join(&channel, group, after)
                .await
                .map_err(|error| not_started(error, &client, &channel))?,
        ),
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut missed = 0;
    // A file or a device cannot be watched, and has no reader that goes away.
    let readers = watched_output();
    while left > 0 {
        let printed = tokio::select! {
            biased;
            () = interrupt.next() => return Ok(Exit::Ok),
            printed = print_arrived(&mut records, left) => printed?,
            () = nobody_reads(&readers) => return Ok(Exit::Ok),
        };
        let Some((printed, last)) = printed else {
            return Ok(Exit::Ok);
        };
        left -= printed;
        let skipped = records.skipped();
        if skipped > missed {
            let more = skipped - missed;
            missed = skipped;
            eprintln!(
                "{more} records were no longer kept when this subscription came to them, and are missed"
            );
        }
        if let Some(path) = &args.store_offset {
            store_offset(path, last)?;
        }
        records.commit(last).await?;
    }
    Ok(Exit::Ok)
}

/// Where the payloads come from.
enum Source {
    Alone(Subscription),
    Member(Member),
}

impl Source {
    async fn next(&mut self) -> Result<Record, SubscribeError> {
        match self {
            Source::Alone(records) => records.next().await,
            Source::Member(records) => records.next().await,
        }
    }

    fn try_next(&mut self) -> Option<Record> {
        match self {
            Source::Alone(records) => records.try_next(),
            Source::Member(records) => records.try_next(),
        }
    }

    /// Records passed over because they are no longer kept. A group's are not counted: it begins where it is.
    fn skipped(&self) -> u64 {
        match self {
            Source::Alone(records) => records.skipped(),
            Source::Member(_) => 0,
        }
    }

    /// A member's group is so far. Where that does not come through, it goes with the next commit, or comes again.
    async fn commit(&self, offset: u64) -> Result<(), Failed> {
        let Source::Member(member) = self else {
            return Ok(());
        };
        match member.commit(offset).await {
            Ok(_) => Ok(()),
            Err(RequestError::Refused(Refusal::Reassigned)) => {
                tracing::info!(offset, "another member has the channel now");
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(offset, %error, "not committed yet");
                Ok(())
            }
            Err(error) => Err(Failed::new(Exit::Refused, error)),
        }
    }
}

pub(super) fn group_name(text: &str) -> Result<GroupName, Failed> {
    GroupName::new(text)
        .with_context(|| format!("--group `{text}`"))
        .map_err(Failed::usage)
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; standard output is never closed while the process lives, which is what that asks for"
)]
fn watched_output() -> Option<AsyncFd<Stdout>> {
    AsyncFd::with_interest(std::io::stdout(), Interest::ERROR).ok()
}

/// Ends when standard output is a pipe whose reader is gone: `pqcnet subscribe orders | head -1`.
async fn nobody_reads(readers: &Option<AsyncFd<Stdout>>) {
    let gone = match readers {
        Some(pipe) => pipe.ready(Interest::ERROR).await.is_ok(),
        None => false,
    };
    if !gone {
        std::future::pending().await
    }
}

/// Waits for a record, then prints all that have arrived; what is printed is flushed. How many, and the last one's offset;
/// `None`: nobody reads any more.
async fn print_arrived(records: &mut Source, most: u64) -> Result<Option<(u64, u64)>, Failed> {
    let mut next = Some(records.next().await.map_err(subscribe_failed)?);
    let mut out = std::io::stdout().lock();
    let (mut printed, mut last) = (0, 0);
    while let Some(record) = next {
        let written = out.write_all(&record.payload);
        match written.and_then(|()| out.write_all(b"\n")) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(None),
            written => written.context("standard output")?,
        }
        printed += 1;
        last = record.offset;
        next = if printed < most {
            records.try_next()
        } else {
            None
        };
    }
    match out.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
        flushed => flushed
            .context("standard output")
            .map(|()| Some((printed, last)))
            .map_err(Failed::from),
    }
}

fn stored_offset(path: &Path) -> Result<u64, Failed> {
    match fs::read_to_string(path) {
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| format!("{}: `{}` is no offset", path.display(), text.trim()))
            .map_err(Failed::usage),
        // The folder must be there before anything is printed, or the first offset would be lost.
        Err(error) if error.kind() == ErrorKind::NotFound && folder_of(path).is_dir() => Ok(0),
        Err(error) => Err(Failed::usage(
            anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
        )),
    }
}

/// Where the file is to stand.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Writes beside the file and renames, so that a crash leaves the old offset or the new one.
fn store_offset(path: &Path, offset: u64) -> Result<(), Failed> {
    let passing = path.with_extension("new");
    let written = fs::File::create(&passing).and_then(|mut file| {
        writeln!(file, "{offset}")?;
        file.sync_data()
    });
    written
        .and_then(|()| fs::rename(&passing, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Why it did not start. A refusal says nothing of whether there is such a channel, and so does this.
fn not_started(error: SubscribeError, client: &Client, channel: &Channel) -> Failed {
    if !matches!(error, SubscribeError::Refused(Refusal::NotAllowed)) {
        return subscribe_failed(error);
    }
    let (own, Channel { owner, name }) = (client.node_id(), channel);
    let why = format!(
        "{own} (these keys) may not read `{name}` of {owner}, or there is no such channel: the network does not tell which. \
         Its owner lets somebody read it with `pqcnet publish {name} --reader {own} ...`"
    );
    Failed::new(Exit::Refused, anyhow::Error::from(error).context(why))
}

fn subscribe_failed(error: SubscribeError) -> Failed {
    let exit = match &error {
        SubscribeError::Refused(_) => Exit::Refused,
        SubscribeError::TimedOut { .. } => Exit::Unreachable,
        _ => Exit::Failure,
    };
    Failed::new(exit, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seconds of the epoch, or ago in any unit; what is neither is refused in words that say what would do.
    #[test]
    fn times_as_one_types_them() {
        let at = |text: &str| text.parse::<FromTime>().map(|time| time.at_ms(10_000_000));
        assert_eq!(at("1700000000"), Ok(1_700_000_000_000));
        assert_eq!(at("90s"), Ok(9_910_000));
        assert_eq!(at("15m"), Ok(9_100_000));
        assert_eq!(at("2h"), Ok(2_800_000));
        assert_eq!(at("7d"), Ok(0));
        for wrong in ["", "d", "-5", "1.5h", "soon", "99999999999999999999d", "5é"] {
            assert!(at(wrong).unwrap_err().contains("neither"), "{wrong}");
        }
    }
}
