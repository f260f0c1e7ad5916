//! Prints a channel of its own, or OWNER's: `cargo run -p pqcnet-client --example subscribe -- network.toml my.keys unlock.key orders 0`

use std::io::Write as _;

use pqcnet_client::{Channel, ChannelName, Client, ClientConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel, after, owner @ ..] = args.as_slice() else {
        eprintln!("usage: subscribe NETWORK KEYS UNLOCK_KEY_FILE CHANNEL AFTER_OFFSET [OWNER]");
        std::process::exit(2);
    };
    let client = Client::connect(ClientConfig::from_files(network, keys, unlock)?).await?;

    let name = ChannelName::new(channel)?;
    let channel = match owner.first() {
        Some(owner) => Channel {
            owner: owner.parse()?,
            name,
        },
        None => client.channel(name),
    };
    let mut records = client.subscribe(&channel, after.parse()?).await?;
    let mut out = std::io::stdout();
    loop {
        let record = records.next().await?; // store record.offset with what you do with it
        write!(out, "{} ", record.offset)?;
        out.write_all(&record.payload)?;
        writeln!(out)?;
    }
}
