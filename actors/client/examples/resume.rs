//! Adds up the numbers of a channel, each exactly once, however often it is killed: the offset and the sum it led to are
//! stored in one atomic step, and the next start presents that offset.
//! `cargo run -p pqcnet-client --example resume -- network.toml my.keys unlock.key numbers sum.txt 100`
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::io::Write as _;
use std::path::Path;

use pqcnet_client::{ChannelName, Client, ClientConfig};

/// The last stored (offset, sum); (0, 0) before the first.
fn load(state: &Path) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let text = match std::fs::read_to_string(state) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error.into()),
    };
    let (offset, sum) = text
        .trim()
        .split_once(' ')
        .ok_or("state: want `OFFSET SUM`")?;
    Ok((offset.parse()?, sum.parse()?))
}

/// Both in one rename: a crash leaves the old pair or the new one, never half of each.
fn store(state: &Path, offset: u64, sum: u64) -> std::io::Result<()> {
    let next = state.with_extension("next");
    let mut file = std::fs::File::create(&next)?;
    writeln!(file, "{offset} {sum}")?;
    file.sync_all()?;
    std::fs::rename(next, state)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel, state, until] = args.as_slice() else {
        eprintln!("usage: resume NETWORK KEYS UNLOCK_KEY_FILE CHANNEL STATE_FILE UNTIL_OFFSET");
        std::process::exit(2);
    };
    let (state, until): (&Path, u64) = (state.as_ref(), until.parse()?);
    let (mut offset, mut sum) = load(state)?;
    let client = Client::connect(ClientConfig::from_files(network, keys, unlock)?).await?;
    let channel = client.channel(ChannelName::new(channel)?);
    let mut numbers = client.subscribe(&channel, offset).await?;
    while offset < until {
        let record = numbers.next().await?;
        let number: u64 = std::str::from_utf8(&record.payload)?.trim().parse()?;
        (offset, sum) = (record.offset, sum + number);
        store(state, offset, sum)?;
    }
    println!("{sum}");
    Ok(())
}
