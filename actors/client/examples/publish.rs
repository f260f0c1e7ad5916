//! Publishes each line of standard input: `cargo run -p pqcnet-client --example publish -- network.toml my.keys unlock.key orders`

use std::io::BufRead as _;

use pqcnet_client::{ChannelName, Client, ClientConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel] = args.as_slice() else {
        eprintln!("usage: publish NETWORK KEYS UNLOCK_KEY_FILE CHANNEL");
        std::process::exit(2);
    };
    let client = Client::connect(ClientConfig::from_files(network, keys, unlock)?).await?;

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
