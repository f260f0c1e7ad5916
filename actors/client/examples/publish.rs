//! Publishes each line of standard input: `cargo run -p pqcnet-client --example publish -- network.toml my.keys unlock.key orders`

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use pqcnet_client::{ChannelName, Client, ClientConfig, NetworkFile};
use pqcnet_crypto::keystore::{self, NodeSecrets, Unlock, WrappingKey};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel] = args.as_slice() else {
        anyhow::bail!("usage: publish NETWORK KEYS UNLOCK_KEY_FILE CHANNEL");
    };
    let unlock = WrappingKey::open(Path::new(unlock))?;
    let secrets: NodeSecrets = keystore::open(Path::new(keys), Unlock::KeyFile(&unlock))?;
    let network = NetworkFile::load(Path::new(network))?;
    let client = Client::connect(ClientConfig::new(network, Arc::new(secrets.keys))).await?;

    let publisher = client.publisher(&ChannelName::new(channel)?)?;
    let mut receipts = Vec::new();
    for line in std::io::stdin().lock().lines() {
        receipts.push(publisher.send(line?).await?); // many on their way at once
    }
    for receipt in receipts {
        eprintln!("stored at {:?}", receipt.await?.offset);
    }
    Ok(())
}
