//! Prints a channel of its own: `cargo run -p pqcnet-client --example subscribe -- network.toml my.keys unlock.key orders 0`

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use pqcnet_client::{ChannelName, Client, ClientConfig, NetworkFile};
use pqcnet_crypto::keystore::{self, NodeSecrets, Unlock, WrappingKey};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel, after] = args.as_slice() else {
        anyhow::bail!("usage: subscribe NETWORK KEYS UNLOCK_KEY_FILE CHANNEL AFTER_OFFSET");
    };
    let unlock = WrappingKey::open(Path::new(unlock))?;
    let secrets: NodeSecrets = keystore::open(Path::new(keys), Unlock::KeyFile(&unlock))?;
    let network = NetworkFile::load(Path::new(network))?;
    let client = Client::connect(ClientConfig::new(network, Arc::new(secrets.keys))).await?;

    let channel = client.channel(ChannelName::new(channel)?);
    let mut records = client.subscribe(&channel, after.parse()?).await?;
    let mut out = std::io::stdout();
    loop {
        let record = records.next().await?; // store record.offset with what you do with it
        write!(out, "{} ", record.offset)?;
        out.write_all(&record.payload)?;
        writeln!(out)?;
    }
}
