//! Metering over real processes: what a relayer reports is what was stored and what receivers took, over kills, by a file that
//! stands on its own; totals by JSON and gRPC say the same; whatever is changed in the file is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use pqcnet_client::{GroupName, Member, Subscription};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_protos::meter::v1 as pb;
use pqcnet_tests::load::{Load, PATIENCE};
use pqcnet_tests::network::{Network, Node};
use pqcnet_tests::report::{create, pair, verified, verify};
use serde_json::Value;

/// Bytes of a message of [`Load`].
const LOAD_PAYLOAD: u64 = 200;

async fn take(records: &mut Subscription, count: usize) -> Result<()> {
    for _ in 0..count {
        records.next().await?;
    }
    Ok(())
}

/// The token of a node's page.
fn token(node: &Node) -> Result<String> {
    let url = std::fs::read_to_string(node.folder().join("page.url"))?;
    let (_, token) = url.trim().rsplit_once('#').context("no token")?;
    Ok(token.to_owned())
}

/// 300 messages are published and 200 taken by a reader, who signs for just those; the relayer is killed with 150 more on its
/// disk and in no window, and comes again. The reports have each message once, every receipt covers what was taken, the file
/// stands by the network file alone, and the totals by JSON and gRPC are those of the report.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_says_what_was_stored_and_taken() -> Result<()> {
    let network = Network::create(1, 1, Admission::Any)?;
    let relayer = network.node(Role::Relayer, 1);
    // Held until the node takes it.
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let grpc = held.local_addr()?;
    relayer.configure(&format!(
        "[metering]\nwindow_seconds = 86400\ngrpc = \"{grpc}\"\n"
    ))?;
    drop(held);
    network.start_all().await?;
    let file = relayer.folder().join("network.toml");

    let (owner, reader) = (
        Arc::new(NodeKeys::generate()),
        Arc::new(NodeKeys::generate()),
    );
    let publisher = network.client(&owner).await?;
    let name = "orders/eu".parse()?;
    publisher.set_readers(&name, vec![reader.node_id()]).await?;
    let subscriber = network.client(&reader).await?;
    let mut records = subscriber
        .subscribe(&publisher.channel(name.clone()), 0)
        .await?;
    let mut bytes = 0;
    let publish = async |count: u64, bytes: &mut u64| {
        for number in 0..count {
            let payload = vec![7u8; 10 + number as usize];
            *bytes += payload.len() as u64;
            publisher.publish(&name, payload).await?;
        }
        anyhow::Ok(())
    };
    publish(300, &mut bytes).await?;
    take(&mut records, 200).await?;
    let taken_bytes: u64 = (0..200).map(|number| 10 + number).sum();

    let first = create(relayer, "first.report").await?;
    let said = verified(&file, &first).await?;
    assert_eq!(pair(&said["sums"]["stored"]), (300, bytes));
    assert_eq!(pair(&said["sums"]["receipted"]), (200, taken_bytes));
    let sent = pair(&said["sums"]["delivered"]).0;
    assert!((200..=300).contains(&sent), "{sent}");
    assert_eq!(pair(&said["sums"]["stored_ungranted"]), (0, 0));
    assert_eq!(pair(&said["sums"]["delivered_ungranted"]), (0, 0));

    // Killed with records on the disk that no window has.
    publish(100, &mut bytes).await?;
    relayer.kill().await?;
    relayer.start().await?;
    publish(50, &mut bytes).await?;
    take(&mut records, 250).await?;
    let second = create(relayer, "second.report").await?;
    let said = verified(&file, &second).await?;
    assert_eq!(pair(&said["sums"]["stored"]), (450, bytes));
    assert_eq!(pair(&said["sums"]["delivered"]), (450, bytes));
    assert_eq!(pair(&said["sums"]["receipted"]), (450, bytes));
    assert_eq!(pair(&said["sums"]["unreceipted"]), (0, 0));

    // The same totals by JSON, to whoever has the token.
    let url = format!("http://{}/api/v1/metering", relayer.admin()?);
    let refused = ureq::get(&url).call();
    assert!(
        matches!(refused, Err(ureq::Error::StatusCode(401))),
        "{refused:?}"
    );
    let bearer = format!("Bearer {}", token(relayer)?);
    let answer = ureq::get(&url).header("authorization", &bearer).call()?;
    let totals: Value = serde_json::from_reader(answer.into_body().into_reader())?;
    for kind in ["stored", "delivered", "receipted"] {
        assert_eq!(pair(&totals["totals"][kind]), (450, bytes), "{kind}");
    }
    assert_eq!(totals["customers"].as_array().map(Vec::len), Some(2));

    // And by gRPC.
    let channel = tonic::transport::Endpoint::new(format!("http://{grpc}"))?
        .connect()
        .await?;
    let unnamed = ask(&channel, None).await.err();
    assert_eq!(
        unnamed.map(|status| status.code()),
        Some(tonic::Code::Unauthenticated)
    );
    let totals = ask(&channel, Some(&bearer)).await?;
    let all = totals.all.context("no sums")?;
    for volume in [all.stored, all.delivered, all.receipted] {
        let volume = volume.context("no volume")?;
        assert_eq!((volume.frames, volume.bytes), (450, bytes));
    }
    drop(channel);

    // One byte in the middle, and another network.
    let mut changed = std::fs::read(&second)?;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let bad = relayer.folder().join("bad.report");
    std::fs::write(&bad, changed)?;
    let judged = verify(&file, &bad).await?;
    assert_eq!(judged.status.code(), Some(5), "{judged:?}");
    let other = Network::create(1, 1, Admission::Any)?;
    let judged = verify(&other.office().folder.join("network.toml"), &second).await?;
    assert_eq!(judged.status.code(), Some(5), "{judged:?}");
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(said.contains("the report is of another network"), "{said}");
    drop((records, subscriber));
    drop(publisher);
    network.stop().await
}

async fn ask(
    channel: &tonic::transport::Channel,
    bearer: Option<&str>,
) -> Result<pb::Totals, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    let ready = client.ready().await;
    ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let mut request = tonic::Request::new(pb::TotalsRequest::default());
    if let Some(bearer) = bearer {
        let value = bearer.parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(
        "/pqcnet.meter.v1.Metering/ReadTotals",
    );
    let codec = tonic_prost::ProstCodec::<pb::TotalsRequest, pb::Totals>::default();
    Ok(client.unary(request, path, codec).await?.into_inner())
}

/// Two relayers, killed four times in mid-flow, with windows of a second: the reports together have exactly what the ledger
/// says is stored, each message once; nothing is signed for that was not delivered.
#[tokio::test(flavor = "multi_thread")]
async fn reports_equal_the_ledger_over_kills() -> Result<()> {
    let network = Network::create(1, 2, Admission::Any)?;
    let relayers = [1, 2].map(|number| network.index(Role::Relayer, number));
    for relayer in relayers {
        network.nodes[relayer].configure("[metering]\nwindow_seconds = 1\n")?;
    }
    network.start_all().await?;
    let network = Arc::new(network);
    let (customers, channels, messages) = (2, 2, 600);
    let load = Load::start(network.clone(), customers, channels, messages).await?;
    let stretch = messages / 5;
    for kill in 0..4 {
        let before = load.progress.settled.load(Ordering::SeqCst);
        load.allow(stretch);
        let half = stretch * load.lanes() / 2;
        load.progress
            .reach(&load.progress.settled, before + half)
            .await;
        let relayer = &network.nodes[relayers[kill % 2]];
        relayer.kill().await?;
        relayer.start().await?;
    }
    load.allow(messages - 4 * stretch);
    let lanes = load.lanes();
    let verdict = tokio::time::timeout(PATIENCE, load.finish()).await??;
    assert!(verdict.is_clean(), "{verdict}");

    // Behind each channel's messages stands one more, which is no part of the ledger.
    let stored = verdict.stored + lanes;
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for relayer in relayers {
        let relayer = &network.nodes[relayer];
        relayer.start().await?;
        let report = create(relayer, "last.report").await?;
        let said = verified(&relayer.folder().join("network.toml"), &report).await?;
        for kind in ["stored", "stored_ungranted", "delivered", "receipted"] {
            let (frames, bytes) = pair(&said["sums"][kind]);
            let sum = sums.entry(kind).or_default();
            *sum = (sum.0 + frames, sum.1 + bytes);
        }
        relayer.stop().await?;
    }
    assert_eq!(sums["stored"], (stored, stored * LOAD_PAYLOAD));
    assert_eq!(sums["stored_ungranted"], (0, 0));
    assert!(sums["receipted"].0 <= sums["delivered"].0, "{sums:?}");
    Ok(())
}

/// Takes what comes up to `last`, and says how many bytes that were.
async fn take_until(member: &mut Member, last: u64) -> Result<u64> {
    let mut bytes = 0;
    loop {
        let record = member.next().await?;
        bytes += record.payload.len() as u64;
        if record.offset == last {
            return Ok(bytes);
        }
        ensure!(record.offset < last, "{} is beyond {last}", record.offset);
    }
}

/// Windows within which a receipt is heard in time: a relayer waits for one for 5 s, which a loaded machine may take.
const ATTEMPTS: u32 = 20;

/// The report by which so much is signed for, and what it says.
async fn signed(node: &Node, name: &str, wanted: (u64, u64)) -> Result<(PathBuf, Value)> {
    for attempt in 0..ATTEMPTS {
        let path = create(node, &format!("{name}-{attempt}.report")).await?;
        let said = verified(&node.folder().join("network.toml"), &path).await?;
        let receipted = pair(&said["sums"]["receipted"]);
        ensure!(receipted.0 <= wanted.0, "{receipted:?} of {wanted:?}");
        if receipted == wanted {
            return Ok((path, said));
        }
    }
    anyhow::bail!("{name}: not signed for {wanted:?} in {ATTEMPTS} windows")
}

/// A group's member takes 60 of 100 records, commits 40 and refuses one of them, which it signs for as for any other; it leaves, and another is given
/// the rest from the commit on, which it signs for, too. Then the relayer is killed with ten taken and not committed, which come again: over the whole
/// each member has signed for each record that it took, once. The reports stand; one in which a member's receipt was changed does not, and
/// the receipt is named.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_sign_for_what_they_took() -> Result<()> {
    let network = Network::create(1, 1, Admission::Any)?;
    let relayer = network.node(Role::Relayer, 1);
    relayer.configure("[metering]\nwindow_seconds = 86400\n")?;
    network.start_all().await?;
    let file = relayer.folder().join("network.toml");
    let keys = Arc::new(NodeKeys::generate());
    let client = network.client(&keys).await?;
    let (name, group) = ("work".parse()?, GroupName::new("workers")?);
    let own = client.channel(name);
    let publish = async |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            let payload = vec![7u8; number as usize];
            client.publish(&own.name, payload).await?;
        }
        anyhow::Ok(())
    };
    let size = |numbers: std::ops::RangeInclusive<u64>| numbers.sum::<u64>();
    publish(1..=100).await?;

    let mut first = client.join(&own, &group, 0).await?;
    assert_eq!(take_until(&mut first, 60).await?, size(1..=60));
    first.refuse(39).await?;
    assert_eq!(first.commit(40).await?, 40);
    signed(relayer, "first", (60, size(1..=60))).await?;
    drop(first);

    let mut second = client.join(&own, &group, 0).await?;
    let mut taken = take_until(&mut second, 100).await?;
    assert_eq!(taken, size(41..=100));
    assert_eq!(second.commit(100).await?, 100);
    let wanted = (120, size(1..=60) + size(41..=100));
    let (path, said) = signed(relayer, "second", wanted).await?;
    let receipts = said["receipts"].as_array().context("no receipts")?;
    let series: BTreeSet<&str> = receipts
        .iter()
        .filter_map(|r| r["series"].as_str())
        .collect();
    assert_eq!((receipts.len(), series.len()), (2, 2));

    // One bit of the number of bytes of the last receipt.
    let mut changed = std::fs::read(&path)?;
    let context = b"pqcnet/receipt/1";
    let at = changed.windows(context.len()).rposition(|at| at == context);
    let name_at = at.context("no receipt")? + context.len() + 4 * 32;
    let bytes_at = name_at + 1 + usize::from(changed[name_at]) + 16 + 4 * 8;
    changed[bytes_at + 7] ^= 1;
    let bad = relayer.folder().join("bad.report");
    std::fs::write(&bad, changed)?;
    let judged = verify(&file, &bad).await?;
    assert_eq!(judged.status.code(), Some(5), "{judged:?}");
    let words = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(
        words.contains("receipt 1: the receipt's signature does not verify"),
        "{words}"
    );

    publish(101..=120).await?;
    taken += take_until(&mut second, 110).await?;
    let wanted = (130, wanted.1 + size(101..=110));
    signed(relayer, "third", wanted).await?;
    relayer.kill().await?;
    relayer.start().await?;
    // What is not committed comes again, after what had come before the kill.
    let (mut again, mut beyond) = (false, BTreeMap::new());
    loop {
        let record = second.next().await?;
        again |= record.offset == 101;
        if record.offset > 110 {
            beyond.insert(record.offset, record.payload.len() as u64);
        }
        if again && record.offset == 120 {
            break;
        }
    }
    assert!(beyond.keys().copied().eq(111..=120), "{beyond:?}");
    taken += beyond.values().sum::<u64>();
    assert_eq!(taken, size(41..=120));
    assert_eq!(second.commit(120).await?, 120);
    let wanted = (140, size(1..=60) + size(41..=120));
    let (_, said) = signed(relayer, "last", wanted).await?;
    let lines = said["lines"].as_array().context("no lines")?;
    let of_second = lines.iter().filter(|line| line["last_offset"] == 120);
    let of_second = of_second.filter(|line| line["qos"] == "delivered");
    let delivered: Vec<_> = of_second.map(|line| pair(&line["volume"])).collect();
    assert_eq!(delivered, [(80, size(41..=120))], "once each");
    drop(second);
    drop(client);
    network.stop().await
}
