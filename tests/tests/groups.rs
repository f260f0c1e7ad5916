//! Consumer groups, with real processes: members share a channel, one dies by SIGKILL, and the group goes on from its last commit.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::select_all;
use pqcnet_client::{Channel, ChannelName, Client, ClientConfig, GroupName, Refusal, RequestError};
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::amqp_proxy::AmqpProxy;
use pqcnet_tests::command::{of_client, pqcnet};
use pqcnet_tests::network::{Identity, Network};
use pqcnet_tests::private_broker::Broker;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// Nothing here takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const GROUP: &str = "workers";

/// The one letter that `pqcnet dead-letters` lists, as a person asks for it.
fn listed(who: &Identity) -> Result<serde_json::Value> {
    let list = ["dead-letters", "work", "--group", GROUP];
    let [file, keys, unlock] = ["network.toml", "client.keys", "unlock.key"];
    let as_whom = ["--network", file, "--keys", keys, "--key-file", unlock];
    let printed = pqcnet(&who.folder, &[&list[..], &as_whom].concat())?;
    Ok(serde_json::from_str(&printed)?)
}

/// `pqcnet subscribe --group`, as a person starts it.
struct MemberProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    printed: Vec<u64>,
}

impl MemberProcess {
    fn start(who: &Identity, channel: &ChannelName) -> Result<MemberProcess> {
        let joining = ["subscribe", channel.as_str(), "--group", GROUP];
        let mut command = of_client(who, &joining)?;
        command.stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("piped")?;
        let lines = BufReader::new(stdout).lines();
        let printed = Vec::new();
        Ok(MemberProcess {
            child,
            lines,
            printed,
        })
    }

    async fn line(&mut self) -> Result<()> {
        let line = self.lines.next_line().await?.context("it ended")?;
        self.printed.push(line.parse()?);
        Ok(())
    }

    /// Reads on until it printed `number`, which everything before comes before.
    async fn until(&mut self, number: u64) -> Result<()> {
        while self.printed.last() != Some(&number) {
            self.line().await?;
        }
        ensure!(
            self.printed.is_sorted_by(|a, b| a < b),
            "{:?}",
            self.printed
        );
        Ok(())
    }
}

/// Reads what any of them prints until one printed `number`, and says which.
async fn any_until(members: &mut [MemberProcess], number: u64) -> Result<usize> {
    loop {
        let lines = members.iter_mut().map(|member| member.line().boxed());
        let (line, of, _) = select_all(lines).await;
        line?;
        if members[of].printed.last() == Some(&number) {
            return Ok(of);
        }
    }
}

async fn client_of(who: &Identity) -> Result<Client> {
    let [network, keys, unlock] = who.files();
    Ok(Client::connect(ClientConfig::from_files(network, keys, unlock)?).await?)
}

async fn publish(
    client: &Client,
    channel: &ChannelName,
    numbers: std::ops::RangeInclusive<u64>,
) -> Result<()> {
    let publisher = client.publisher(channel)?;
    let mut receipts = Vec::new();
    for number in numbers {
        receipts.push(publisher.send(number.to_string()).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// Until the group is durably so far.
async fn committed(
    client: &Client,
    channel: &Channel,
    group: &GroupName,
    wanted: u64,
) -> Result<()> {
    while client.dead_letters(channel, group, 0).await?.committed < wanted {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Three processes of one identity share a channel: one of them prints it. That one is killed by SIGKILL in mid-flow, and another
/// goes on from the commit, with nothing left out. The relayer is killed too, and the group
/// goes on from what it had committed then. At last two are left, and every number was printed.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_dies_and_another_goes_on() -> Result<()> {
    let run = async {
        let network = Network::start(1, 1).await?;
        let who = network.identity("workers")?;
        let client = client_of(&who).await?;
        let name = ChannelName::new("work")?;
        let own = client.channel(name.clone());
        let group = GroupName::new(GROUP)?;
        publish(&client, &name, 1..=100).await?;

        let mut first = MemberProcess::start(&who, &name)?;
        first.until(100).await?;
        committed(&client, &own, &group, 100).await?;
        // Whoever of these belongs to the channel takes it over, from the commit on; the others stand by.
        let others = [
            MemberProcess::start(&who, &name)?,
            MemberProcess::start(&who, &name)?,
        ];
        publish(&client, &name, 101..=200).await?;
        let mut members = Vec::from([first]);
        members.extend(others);
        let holder = any_until(&mut members, 200).await?;
        committed(&client, &own, &group, 200).await?;
        for member in &members[1..] {
            ensure!(
                member.printed.iter().all(|number| *number > 100),
                "{:?}",
                member.printed
            );
        }
        let mut dead = members.remove(holder);
        dead.child.start_kill()?;
        dead.child.wait().await?;
        publish(&client, &name, 201..=300).await?;
        any_until(&mut members, 300).await?;
        committed(&client, &own, &group, 300).await?;

        let relayer = network.node(Role::Relayer, 1);
        relayer.kill().await?;
        relayer.start().await?;
        publish(&client, &name, 301..=400).await?;
        any_until(&mut members, 400).await?;
        members.push(dead);
        let mut all: Vec<u64> = members
            .iter()
            .flat_map(|m| m.printed.iter().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (1..=400).collect::<Vec<_>>());
        drop(members);
        network.stop().await
    };
    tokio::time::timeout(PATIENCE, run).await?
}

/// A member in this process: what it commits is durable, what it refuses is put aside and listed by the command with its
/// payload, over a restart of the relayer; a commit beyond what it was given is refused, and one of a former member too. Once
/// nobody is left, the group can be removed, and that outlives the relayer, too.
#[tokio::test(flavor = "multi_thread")]
async fn refused_records_are_listed() -> Result<()> {
    let run = async {
        let network = Network::start(1, 1).await?;
        let who = network.identity("workers")?;
        let client = client_of(&who).await?;
        let name = ChannelName::new("work")?;
        let own = client.channel(name.clone());
        let group = GroupName::new(GROUP)?;
        publish(&client, &name, 1..=10).await?;
        let mut member = client.join(&own, &group, 0).await?;
        for offset in 1..=4 {
            assert_eq!(member.next().await?.offset, offset);
        }
        member.refuse(3).await?;
        assert_eq!(member.commit(4).await?, 4);
        let beyond = member.commit(11).await;
        ensure!(
            matches!(beyond, Err(RequestError::Refused(Refusal::Invalid(_)))),
            "{beyond:?}"
        );
        assert_eq!(member.commit(2).await?, 4);

        let relayer = network.node(Role::Relayer, 1);
        relayer.kill().await?;
        relayer.start().await?;
        let dead = client.dead_letters(&own, &group, 0).await?;
        assert_eq!(dead.committed, 4);
        assert_eq!(
            dead.letters
                .iter()
                .map(|letter| letter.offset)
                .collect::<Vec<_>>(),
            [3]
        );
        let line = listed(&who)?;
        assert_eq!(
            (&line["offset"], &line["why"]),
            (&3.into(), &"refused".into())
        );
        assert_eq!(line["payload_hex"], "33");
        // What is left comes again, from the commit on.
        loop {
            let offset = member.next().await?.offset;
            ensure!(offset > 4, "{offset} is committed");
            if offset == 10 {
                break;
            }
        }
        assert_eq!(member.commit(10).await?, 10);
        assert_eq!(client.dead_letters(&own, &group, 3).await?.letters, []);

        // A group with a member stays; one without goes, for good, and begins anew.
        let has_member =
            |answer: &RequestError| matches!(answer, RequestError::Refused(Refusal::Invalid(_)));
        let kept = client.remove_group(&own, &group).await;
        ensure!(kept.as_ref().is_err_and(has_member), "{kept:?}");
        drop(member);
        // The relayer hears in its time that it went.
        while let Err(error) = client.remove_group(&own, &group).await {
            ensure!(has_member(&error), "{error}");
            tokio::task::yield_now().await;
        }
        relayer.kill().await?;
        relayer.start().await?;
        assert_eq!(client.dead_letters(&own, &group, 0).await?.committed, 0);
        let mut member = client.join(&own, &group, 0).await?;
        assert_eq!(member.next().await?.offset, 1);
        drop(member);
        network.stop().await
    };
    tokio::time::timeout(PATIENCE, run).await?
}

/// A relayer's log is on a broker that keeps little. A member refuses a record, and the relayer dies by SIGKILL when the broker has the copy and its
/// confirm is lost: nothing is put aside, and the record comes again. Refused again it is put aside, once; the broker lets its stream's front
/// go, and the command lists it with its payload all the same, from the queue of what was put aside, over another death of the relayer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_aside_outlives_the_stream() -> Result<()> {
    let run = async {
        let broker = Broker::start();
        let proxy = AmqpProxy::start(broker.at()).await?;
        let network = Network::create(1, 1, Admission::Any)?;
        network.put_on_broker(&proxy.in_front_of(&broker.uri()))?;
        let relayer = network.node(Role::Relayer, 1);
        let config = relayer.folder().join("node.toml");
        let text = std::fs::read_to_string(&config)?;
        let text = text.replace("[store]\n", "[store]\nbroker_keep_mib = 1\n");
        std::fs::write(config, text)?;
        network.start_all().await?;
        let who = network.identity("workers")?;
        let client = client_of(&who).await?;
        let name = ChannelName::new("work")?;
        let own = client.channel(name.clone());
        let group = GroupName::new(GROUP)?;
        publish(&client, &name, 1..=5).await?;
        let mut member = client.join(&own, &group, 0).await?;
        for offset in 1..=5 {
            assert_eq!(member.next().await?.offset, offset);
        }
        proxy.lose_confirms();
        let dying = async {
            proxy.lost(1).await;
            relayer.kill().await
        };
        let (refused, died) = tokio::join!(member.refuse(3), dying);
        died?;
        ensure!(refused.is_err(), "it was put aside without its copy");
        proxy.cut();
        relayer.start().await?;
        assert_eq!(client.dead_letters(&own, &group, 0).await?.letters, []);
        // What was not committed comes again.
        while member.next().await?.offset != 3 {}
        while let Err(error) = member.refuse(3).await {
            ensure!(
                matches!(error, RequestError::Refused(Refusal::Unavailable)),
                "{error}"
            );
        }
        let dead = client.dead_letters(&own, &group, 0).await?;
        assert_eq!((dead.letters.len(), &dead.kept[..]), (1, &[][..]));

        let publisher = client.publisher(&name)?;
        let kept = loop {
            let mut receipts = Vec::new();
            for _ in 0..16 {
                receipts.push(publisher.send(vec![b'x'; 60 << 10]).await?);
            }
            for receipt in receipts {
                receipt.await?;
            }
            let dead = client.dead_letters(&own, &group, 0).await?;
            assert_eq!(dead.letters.len(), 1);
            if !dead.kept.is_empty() {
                break dead.kept;
            }
        };
        let [record] = &kept[..] else {
            anyhow::bail!("{kept:?}");
        };
        assert_eq!((record.offset, &record.payload[..]), (3, &b"3"[..]));
        relayer.kill().await?;
        relayer.start().await?;
        let line = listed(&who)?;
        assert_eq!(
            (&line["offset"], &line["payload_hex"]),
            (&3.into(), &"33".into())
        );
        assert_eq!(client.dead_letters(&own, &group, 3).await?.letters, []);
        drop(member);
        network.stop().await
    };
    tokio::time::timeout(PATIENCE, run).await?
}
