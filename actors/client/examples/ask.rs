//! Asks the sentry how it is, with a deadline, and again only where that makes sense.
//! `cargo run -p pqcnet-client --example ask -- network.toml my.keys unlock.key`
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::time::Duration;

use pqcnet_client::{Client, ClientConfig};
use pqcnet_messages::control::Ping;

const ATTEMPTS: u32 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock] = args.as_slice() else {
        eprintln!("usage: ask NETWORK KEYS UNLOCK_KEY_FILE");
        std::process::exit(2);
    };
    let client = Client::connect(ClientConfig::from_files(network, keys, unlock)?).await?;
    for attempt in 1..=ATTEMPTS {
        match client.ask(Ping { nonce: 7 }, Duration::from_secs(2)).await {
            Ok(pong) => {
                println!("{} {}, up {} ms", pong.role, pong.software, pong.uptime_ms);
                return Ok(());
            }
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => eprintln!("{error}; again"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
