//! Shards that change hands in real processes, with logs in the relayers' stores and on a broker.

use std::collections::BTreeSet;

use pqcnet_client::GroupName;
use pqcnet_link::Wire as _;
use pqcnet_messages::control::{Status, StatusReport};
use pqcnet_messages::{Channel, ChannelName, ShardMap};
use pqcnet_tests::command::{pqcnet, run};
use pqcnet_tests::ledger::Verdict;
use pqcnet_tests::load::Load;
use pqcnet_tests::network::SHARDS;
use pqcnet_tests::private_broker::Broker;

use super::*;

/// What a node tells an operator.
async fn account(network: &Network, node: &Node) -> Result<StatusReport> {
    let operator = link(network, &network.operator, Role::Operator, node).await?;
    let operator = operator.map_err(anyhow::Error::msg)?;
    let report = operator.remote::<Status>().ask(Status {}, SOON).await?;
    operator.close(Reason::Closed);
    Ok(report)
}

/// Waits until what a relayer says of the shards that work there is so.
async fn told(
    network: &Network,
    node: &Node,
    what: &str,
    is_so: impl Fn(&StatusReport) -> bool,
) -> Result<()> {
    let asking = async {
        // A node that is busy copying may not answer in time.
        while !account(network, node)
            .await
            .is_ok_and(|report| is_so(&report))
        {
            tokio::time::sleep(PACE).await;
        }
    };
    let asked = tokio::time::timeout(3 * GIVE_UP, asking).await;
    asked.with_context(|| format!("{} never has {what}:\n{}", node.name, node.log()))
}

/// Waits until a relayer has exactly so many shards that work.
async fn has_shards(network: &Network, node: &Node, count: usize) -> Result<()> {
    let what = format!("{count} shards");
    told(network, node, &what, |report| report.shards.len() == count).await
}

/// Waits until the shards that work at a relayer are those that the map gives it: in the midst of an exchange it may have as many.
async fn has_its_own(network: &Network, node: &Node, map: &ShardMap) -> Result<()> {
    let own = (0u32..).zip(map.owners());
    let own: BTreeSet<u32> = own
        .filter(|(_, id)| **id == node.id)
        .map(|(shard, _)| shard)
        .collect();
    let what = format!("its shards of map {}", map.version());
    told(network, node, &what, |report| {
        let here: BTreeSet<u32> = report.shards.iter().map(|shard| shard.id).collect();
        here == own
    })
    .await
}

/// Has the root give the shards out, as an operator does.
fn give_out(network: &Network, among: &[&str]) -> Result<()> {
    let office = network.office();
    let root = ["--root", "root.keys", "--root-key-file", "unlock.key"];
    let order = [&["root", "shards"], among, &root, &office.arguments()].concat();
    pqcnet(&office.folder, &order)?;
    Ok(())
}

/// What `pqcnet root shards` says of relayers that there are not, or that are all left out. What it wrote a node takes once, and knows then; a
/// damaged copy is not handed to anybody.
#[tokio::test(flavor = "multi_thread")]
async fn shards_are_given_to_relayers() -> Result<()> {
    let network = Network::listed(1, 2, Admission::Any, Listing::Operated)?;
    let office = network.office();
    let root = ["--root", "root.keys", "--root-key-file", "unlock.key"];
    let [one, two] = [1, 2].map(|number| network.node(Role::Relayer, number).id.to_string());
    let sentry = network.node(Role::Sentry, 1).id.to_string();
    for (among, told) in [
        (
            &["--without", &sentry][..],
            "no relayer of the network file",
        ),
        (&["--among", ""], "ids of 2 relayers begin with ``"),
        (
            &["--without", &one, "--without", &two],
            "nobody would have the shards",
        ),
        (&["--without", &one, "--among", &two], "cannot be used with"),
    ] {
        let order = [&["root", "shards"], among, &root, &office.arguments()].concat();
        let (code, said) = run(&office.folder, &order)?;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
    let written = ["--among", &two, "--out", "map", "--lease", "30"];
    give_out(&network, &written)?;
    // Never over another file, and least of all over the key that it was signed with.
    let order = ["root", "shards", "--out", "root.keys"];
    let order = [&order[..], &root, &office.arguments()].concat();
    let (code, said) = run(&office.folder, &order)?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("File exists"), "{said}");
    let signed = std::fs::read(office.folder.join("map"))?;
    let signed = SignedDirective::from_wire(signed.into())?;
    let network_id = network.file.network_id().0;
    assert_eq!(signed.verify(&network_id, network.file.root()), Ok(()));
    let Order::ShardMap(map) = &signed.directive.order else {
        bail!("{}", signed.directive);
    };
    assert!(map.owners().iter().all(|owner| owner.to_string() == two));
    assert_eq!(map.version(), signed.directive.version);
    assert_eq!(signed.directive.lease_ms, 30 * 86_400_000);
    let mut damaged = signed.clone();
    damaged.directive.lease_ms += 1;
    std::fs::write(office.folder.join("damaged"), damaged.to_wire())?;
    let submit = |file: &str| {
        let submit = [&["root", "submit", file][..], &office.arguments()].concat();
        run(&office.folder, &submit)
    };
    let (code, said) = submit("damaged")?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not signed by the network's root"), "{said}");
    network.start_all().await?;
    for took in ["has it and passes it on", "had it already"] {
        let (code, said) = submit("map")?;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(took), "{said}");
    }
    network.stop().await
}

/// The root signs a map that gives all shards of one relayer to the other. Those without records move, the one with records does, and a
/// client that publishes and subscribes there notices a pause at most. Both know after being killed who has what, and the next map brings
/// everything back.
#[tokio::test(flavor = "multi_thread")]
async fn shards_change_hands() -> Result<()> {
    changed_hands(Network::listed(1, 2, Admission::Any, Listing::Operated)?).await
}

/// The same between a relayer whose log is in its store and one whose log is on a broker, there and back.
#[tokio::test(flavor = "multi_thread")]
async fn shards_go_from_a_store_to_a_broker_and_back() -> Result<()> {
    let broker = Broker::start();
    let network = Network::listed(1, 2, Admission::Any, Listing::Operated)?;
    network.put_one_on_broker(network.node(Role::Relayer, 2), &broker.uri())?;
    changed_hands(network).await
}

async fn changed_hands(network: Network) -> Result<()> {
    network.start_all().await?;
    let [one, two] = [1, 2].map(|number| network.node(Role::Relayer, number));
    let each = usize::from(SHARDS) / 2;
    for node in [one, two] {
        has_shards(&network, node, each).await?;
    }
    let keys = Arc::new(NodeKeys::generate());
    let client = network.client(&keys).await?;
    let first = ShardMap::from_relayers(SHARDS, [one.id, two.id])?;
    // Two channels of the first relayer, in different shards.
    let of = |name: &ChannelName| Channel {
        owner: keys.node_id(),
        name: name.clone(),
    };
    let names = network.balanced_channels(keys.node_id(), 16)?;
    let mut of_one = names
        .iter()
        .filter(|name| first.owner_of_channel(&of(name)) == one.id);
    let kept = of_one.next().context("a channel")?;
    let mut others = of_one.filter(|name| first.shard_of(&of(name)) != first.shard_of(&of(kept)));
    let moving = others.next().context("a channel in another shard")?;
    let publishes = client.publisher(kept)?;
    assert_eq!(publishes.publish("here").await?.offset, Some(1));
    let mut records = client.subscribe(&of(moving), 0).await?;

    give_out(&network, &["--without", &one.id.short()])?;
    has_shards(&network, two, usize::from(SHARDS)).await?;
    has_shards(&network, one, 0).await?;
    assert_eq!(
        client.publisher(moving)?.publish("there").await?.offset,
        Some(1)
    );
    assert_eq!(publishes.publish("here too").await?.offset, Some(2));
    let record = tokio::time::timeout(GIVE_UP, records.next()).await??;
    assert_eq!((record.offset, &record.payload[..]), (1, &b"there"[..]));
    let of_two = account(&network, two).await?;
    let shard = u32::from(first.shard_of(&of(moving)).0);
    let found = of_two.shards.iter().find(|status| status.id == shard);
    assert_eq!(found.context("the shard")?.records, 1);
    let told = account(&network, one).await?.problems;
    let told: Vec<&str> = told.iter().map(|problem| problem.code.as_str()).collect();
    ensure!(!told.contains(&"shard-not-moved"), "{told:?}");

    for node in [one, two] {
        node.kill().await?;
        node.start().await?;
    }
    has_shards(&network, two, usize::from(SHARDS)).await?;
    has_shards(&network, one, 0).await?;
    client.publisher(moving)?.publish("after").await?;
    publishes.publish("as ever").await?;

    give_out(&network, &[])?;
    has_shards(&network, one, each).await?;
    has_shards(&network, two, each).await?;
    assert_eq!(publishes.publish("back again").await?.offset, Some(4));
    client.publisher(moving)?.publish("there still").await?;
    for (offset, payload) in [(2, &b"after"[..]), (3, b"there still")] {
        let record = tokio::time::timeout(GIVE_UP, records.next()).await??;
        assert_eq!((record.offset, &record.payload[..]), (offset, payload));
    }
    network.stop().await
}

/// How often these words are in a node's log.
fn said(node: &Node, words: &str) -> usize {
    node.log().matches(words).count()
}

/// How long nothing was stored in each shard that a node gave away with its records.
fn fenced_ms(node: &Node) -> Vec<u64> {
    let log = node.log();
    let told = log.split("fenced_ms=").skip(1);
    let numbers = told.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let numbers = numbers.filter_map(|number| number?.parse().ok());
    numbers.filter(|ms| *ms > 0).collect()
}

/// Who has which shards after a move: the map's owners, who copies first, and who is killed while that goes on.
type Round<'a> = (Vec<NodeId>, &'a Node, &'a Node);

/// Moves shards while eight channels are published to and read. In each round somebody is killed once the first copy of a shard with records was
/// made; the broker too, if there is one, and it is back when the other one is. In the end all that was sent is judged.
async fn moved_under_load(
    network: &Arc<Network>,
    rounds: &[Round<'_>],
    mut broker: Option<&mut Broker>,
) -> Result<Verdict> {
    const MESSAGES: u64 = 1_500;
    const STRETCH: u64 = 300;
    let [one, two] = [1, 2].map(|number| network.node(Role::Relayer, number));
    let sentry = network.node(Role::Sentry, 1);
    let load = Load::start(network.clone(), 2, 4, MESSAGES).await?;
    let progress = load.progress.clone();
    let copied = "a shard is copied";
    let mut last = None;
    for (version, (owners, taker, victim)) in (2..).zip(rounds) {
        load.allow(STRETCH);
        let some = load.lanes() * STRETCH * (version - 2) + load.lanes() * STRETCH / 4;
        progress.reach(&progress.settled, some).await;
        let before = said(taker, copied);
        let map = last.insert(ShardMap::new(version, owners.clone())?);
        let signed = order(network, version, Order::ShardMap(map.clone())).sign(&network.root)?;
        assert_eq!(submit(network, one, signed).await?, Ok(Submitted::Applied));
        let what = format!("{} copies a shard under map {version}", taker.name);
        until(&what, || Ok(said(taker, copied) > before)).await?;
        if let Some(broker) = &mut broker {
            broker.kill();
        }
        victim.kill().await?;
        victim.start().await?;
        if let Some(broker) = &mut broker {
            broker.resume();
        }
        for node in [one, two] {
            has_its_own(network, node, map).await?;
        }
    }
    load.allow(MESSAGES - rounds.len() as u64 * STRETCH);
    let verdict = load.finish_by(&last.context("a round")?).await?;
    let mut fenced: Vec<u64> = [one, two].into_iter().flat_map(fenced_ms).collect();
    fenced.sort_unstable();
    eprintln!(
        "{verdict}\n{} shards were given with records, fenced for {:?} ms at the median, {:?} at most",
        fenced.len(),
        fenced.get(fenced.len() / 2),
        fenced.last()
    );
    assert!(verdict.is_clean(), "{verdict}");
    let sent = 8 * MESSAGES;
    assert_eq!(
        (verdict.sent, verdict.acked, verdict.failed),
        (sent, sent, 0)
    );
    assert_eq!((verdict.stored, verdict.on_disk), (sent, sent));
    ensure!(
        said(sentry, "asked for where it is said to be") > 0,
        "nobody was redirected"
    );
    Ok(verdict)
}

/// Four times the root moves the shards of two relayers while eight channels are published to and read: all to one, all to the other, to
/// each what was the other's, and back. Each time one of the two, in turn the new owner and the old one, is killed once the first copy of a
/// shard with records was made. Nothing acknowledged is lost, nothing lands twice, order is kept; the sentry, which asks by the map, is
/// sent to whoever has a shard.
#[tokio::test(flavor = "multi_thread")]
async fn shards_move_under_load() -> Result<()> {
    let network = Arc::new(Network::listed(1, 2, Admission::Any, Listing::Operated)?);
    network.start_all().await?;
    let [one, two] = [1, 2].map(|number| network.node(Role::Relayer, number));
    let all = usize::from(SHARDS);
    let first = ShardMap::from_relayers(SHARDS, [one.id, two.id])?;
    let swapped = first
        .owners()
        .iter()
        .map(|owner| if *owner == one.id { two.id } else { one.id });
    let rounds = [
        (vec![two.id; all], two, two),
        (vec![one.id; all], one, two),
        (swapped.collect(), two, one),
        (first.owners().to_vec(), one, one),
    ];
    moved_under_load(&network, &rounds, None).await?;
    Ok(())
}

/// The same where both logs are on one broker, which dies by SIGKILL in the midst of each move, with the new owner in the first and the old one in the
/// second. What a relayer gave away goes from the broker.
#[tokio::test(flavor = "multi_thread")]
async fn shards_move_under_load_while_their_broker_dies() -> Result<()> {
    let mut broker = Broker::start();
    let network = Arc::new(Network::listed(1, 2, Admission::Any, Listing::Operated)?);
    network.put_on_broker(&broker.uri())?;
    network.start_all().await?;
    let [one, two] = [1, 2].map(|number| network.node(Role::Relayer, number));
    let all = usize::from(SHARDS);
    let rounds = [(vec![two.id; all], two, two), (vec![one.id; all], one, two)];
    // A stream that the broker has and does not serve would be seen in these.
    let moved = moved_under_load(&network, &rounds, Some(&mut broker)).await;
    moved.inspect_err(|_| eprintln!("{}", broker.last_words()))?;
    // The first relayer has all back, maybe before it looked for what could go: a shard that is to come back is kept.
    let gone = "nothing of a shard that was given away is stored here any more";
    let goes = format!("{} lets go of what it gave away", two.name);
    until(&goes, || Ok(said(two, gone) > 0)).await
}

/// A group put a record aside, and the broker let its payload go with the stream's front. The shard moves to the other relayer and back: the list, what
/// the group committed and the payload are there each time, from a queue of the new owner's own.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_moves() -> Result<()> {
    let broker = Broker::start();
    let network = Network::listed(1, 2, Admission::Any, Listing::Operated)?;
    network.put_on_broker(&broker.uri())?;
    let [one, two] = [1, 2].map(|number| network.node(Role::Relayer, number));
    for node in [one, two] {
        let config = node.folder().join("node.toml");
        let text = std::fs::read_to_string(&config)?;
        let text = text.replace("[store]\n", "[store]\nbroker_keep_mib = 1\n");
        std::fs::write(config, text)?;
    }
    network.start_all().await?;
    let keys = Arc::new(NodeKeys::generate());
    let client = network.client(&keys).await?;
    let first = ShardMap::from_relayers(SHARDS, [one.id, two.id])?;
    let name = ChannelName::new("work")?;
    let own = client.channel(name.clone());
    let group = GroupName::new("workers")?;
    let publisher = client.publisher(&name)?;
    for number in 1..=5 {
        publisher.publish(number.to_string()).await?;
    }
    let mut member = client.join(&own, &group, 0).await?;
    while member.next().await?.offset != 3 {}
    member.refuse(3).await?;
    let kept = loop {
        let mut receipts = Vec::new();
        for _ in 0..16 {
            receipts.push(publisher.send(vec![b'x'; 60 << 10]).await?);
        }
        for receipt in receipts {
            receipt.await?;
        }
        let dead = client.dead_letters(&own, &group, 0).await?;
        if !dead.kept.is_empty() {
            break dead.kept;
        }
    };
    drop(member);
    assert_eq!((kept.len(), &kept[0].payload[..]), (1, &b"3"[..]));
    let from = first.owner_of_channel(&own);
    let to = if from == one.id { two.id } else { one.id };
    for (version, owner) in [(2, to), (3, from)] {
        let map = ShardMap::new(version, vec![owner; usize::from(SHARDS)])?;
        let signed = order(&network, version, Order::ShardMap(map)).sign(&network.root)?;
        assert_eq!(submit(&network, one, signed).await?, Ok(Submitted::Applied));
        for node in [one, two] {
            let count = if node.id == owner {
                usize::from(SHARDS)
            } else {
                0
            };
            has_shards(&network, node, count).await?;
        }
        let asking = async {
            loop {
                if let Ok(dead) = client.dead_letters(&own, &group, 0).await {
                    return dead;
                }
            }
        };
        let dead = tokio::time::timeout(GIVE_UP, asking).await?;
        let listed: Vec<u64> = dead.letters.iter().map(|letter| letter.offset).collect();
        assert_eq!((listed, dead.kept), (vec![3], kept.clone()));
    }
    // It goes on behind what it put aside.
    let mut member = client.join(&own, &group, 0).await?;
    let next = tokio::time::timeout(GIVE_UP, member.next()).await??;
    ensure!(next.offset > 3, "{}", next.offset);
    network.stop().await
}
