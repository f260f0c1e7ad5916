//! A relayer that keeps its newest records only, with real processes: whoever comes late begins at what is kept, and is told
//! what it missed.

use std::process::Output;
use std::time::Duration;

use anyhow::{Result, ensure};
use pqcnet_client::{Channel, ChannelName, Client, ClientConfig, GroupName};
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::command::of_client;
use pqcnet_tests::network::{Identity, Network};

/// Nothing here takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const LEN: usize = 1024;
/// A round of publishing: half of what is kept.
const ROUND: usize = 512;
/// How often a subscriber comes late: what hung it once did so every other time.
const LATE: usize = 20;

async fn publish(client: &Client, name: &ChannelName) -> Result<()> {
    let publisher = client.publisher(name)?;
    let mut receipts = Vec::new();
    for _ in 0..ROUND {
        receipts.push(publisher.send(vec![b'x'; LEN]).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// The first offset that a subscriber from the beginning gets, and how many it was told that it missed.
async fn first_kept(client: &Client, channel: &Channel) -> Result<(u64, u64)> {
    let mut records = client.subscribe(channel, 0).await?;
    let first = records.next().await?.offset;
    Ok((first, records.skipped()))
}

async fn subscribe(who: &Identity, arguments: &[&str]) -> Result<Output> {
    let mut command = of_client(who, &[&["subscribe", "news"], arguments].concat())?;
    Ok(command.output().await?)
}

/// A shard keeps a mebibyte. Once its front is gone, subscribers from the beginning get the oldest record kept and the count of
/// those they missed, each time; so does `pqcnet subscribe`, in words; and a group that was never heard of begins there too.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_late_begins_at_what_is_kept() -> Result<()> {
    let run = async {
        let network = Network::create(1, 1, Admission::Any)?;
        let relayer = network.node(Role::Relayer, 1);
        relayer.configure("keep_mib = 1")?;
        network.start_all().await?;
        let who = network.identity("late")?;
        let [file, keys, unlock] = who.files();
        let client = Client::connect(ClientConfig::from_files(file, keys, unlock)?).await?;
        let name = ChannelName::new("news")?;
        let channel = client.channel(name.clone());
        loop {
            publish(&client, &name).await?;
            if first_kept(&client, &channel).await?.0 > 1 {
                break;
            }
        }
        for _ in 0..LATE {
            let (first, missed) = first_kept(&client, &channel).await?;
            ensure!(first > 1 && missed == first - 1, "{first}, {missed} missed");
        }
        let said = subscribe(&who, &["--after", "0", "--count", "1"]).await?;
        let errors = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "{errors}");
        ensure!(errors.contains("records were no longer kept"), "{errors}");
        let mut member = client.join(&channel, &GroupName::new("late")?, 0).await?;
        ensure!(member.next().await?.offset > 1, "it is gone");
        drop(member);
        drop(client);
        network.stop().await
    };
    tokio::time::timeout(PATIENCE, run).await?
}
