//! Lets other identities read a channel of one's own; the list replaces the one before it.
//! `cargo run -p pqcnet-client --example share -- network.toml my.keys unlock.key orders READER_NODE_ID`
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use pqcnet_client::{ChannelName, Client, ClientConfig, NodeId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [network, keys, unlock, channel, readers @ ..] = args.as_slice() else {
        eprintln!("usage: share NETWORK KEYS UNLOCK_KEY_FILE CHANNEL [READER_NODE_ID]...");
        std::process::exit(2);
    };
    let readers: Vec<NodeId> = readers
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, _>>()?;
    let client = Client::connect(ClientConfig::from_files(network, keys, unlock)?).await?;
    client
        .set_readers(&ChannelName::new(channel)?, readers)
        .await?;
    println!("{}", client.node_id()); // what a reader gives as the channel's owner
    Ok(())
}
