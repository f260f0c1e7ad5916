//! A sensor that would rather lose a reading than fall behind: what the network does not take at once is dropped and
//! counted. `cargo run -p pqcnet-client --example shed -- network.toml my.keys unlock.key readings 100000`
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use pqcnet_client::{ChannelName, Client, ClientConfig, PublishError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel, readings] = args.as_slice() else {
        eprintln!("usage: shed NETWORK KEYS UNLOCK_KEY_FILE CHANNEL READINGS");
        std::process::exit(2);
    };
    let mut config = ClientConfig::from_files(network, keys, unlock)?;
    config.publish_window_bytes = 1024 * 1024; // the smallest: how much may wait
    let client = Client::connect(config).await?;

    let publisher = client.publisher(&ChannelName::new(channel)?)?;
    let (mut receipts, mut dropped) = (Vec::new(), 0u64);
    for reading in 0..readings.parse::<u64>()? {
        match publisher.try_send(format!("reading {reading}")) {
            Ok(receipt) => receipts.push(receipt),
            Err(PublishError::NoRoom { .. }) => {
                dropped += 1;
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let taken = receipts.len();
    for receipt in receipts {
        receipt.await?;
    }
    println!("{taken} stored, {dropped} dropped");
    Ok(())
}
