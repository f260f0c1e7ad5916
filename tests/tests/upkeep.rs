//! What an operator does to nodes that run, on real processes: a changed configuration, a full disk, a copy and its way
//! back, a damaged file, an orderly end.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pqcnet_actor::{DedicatedThread, Env};
use pqcnet_client::{ChannelName, Client, ClientConfig, PublishError, Refusal};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::{Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_store::{
    Batch, Family, OpenError, RocksStore, Schema, Store as _, StoreConfig, WriteError,
};
use pqcnet_tests::ledger::{Account, Verdict};
use pqcnet_tests::network::{Identity, Network, Node};
use pqcnet_tests::process::binary;
use tokio::process::Command;

/// Only something broken takes it.
const SOON: Duration = Duration::from_secs(20);

/// A network with an operator, not yet running.
fn with_operator(sentries: usize, relayers: usize) -> Result<(Network, Identity)> {
    let mut network = Network::create(sentries, relayers, Admission::Any)?;
    let operator = network.identity("operator")?;
    let mut nodes = network.file.nodes().to_vec();
    nodes.push(NodeEntry {
        id: operator.id,
        roles: BTreeSet::from([Role::Operator]),
        control: Vec::new(),
        data: Vec::new(),
    });
    network.file = NetworkFile::new(NetworkParts {
        name: network.file.name().to_owned(),
        root: network.file.root().clone(),
        shards: network.file.shards(),
        admission: network.file.admission(),
        nodes,
        bootstrap: network
            .file
            .bootstrap()
            .iter()
            .map(|node| node.id)
            .collect(),
    })?;
    for node in &network.nodes {
        node.set_network(&network.file)?;
    }
    network.file.write(&operator.folder.join("network.toml"))?;
    Ok((network, operator))
}

/// Runs `pqcnet` with these arguments and, for an operator, its files.
async fn pqcnet(args: &[&str], operator: Option<&Identity>) -> Result<Output> {
    let mut command = Command::new(binary("pqcnet")?);
    command.args(args);
    if let Some(operator) = operator {
        let [network, keys, unlock] = operator.files();
        command.arg("--network").arg(network);
        command.arg("--keys").arg(keys);
        command.arg("--key-file").arg(unlock);
    }
    let ended = tokio::time::timeout(SOON, command.output()).await;
    Ok(ended.with_context(|| format!("pqcnet {args:?}"))??)
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{:?}\n{out}\n{err}", output.status.code())
}

fn hang_up(node: &Node) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(node.pid()?)?);
    Ok(kill(pid, Signal::SIGHUP)?)
}

/// What its page says about how it is.
async fn account(node: &Node) -> Result<String> {
    let at = node.admin()?;
    let page = Env::plain().offload(move || {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = ureq::Agent::from(config.build());
        let mut answer = agent.get(format!("http://{at}/readyz?verbose")).call()?;
        Ok::<_, anyhow::Error>(answer.body_mut().read_to_string()?)
    });
    page.await?
}

/// Waits until its account holds these words, or no longer does.
async fn tells(node: &Node, words: &str, wanted: bool) -> Result<()> {
    let told = async {
        loop {
            let page = account(node).await?;
            if page.contains(words) == wanted {
                return Ok::<_, anyhow::Error>(());
            }
        }
    };
    let within = tokio::time::timeout(SOON, told).await;
    within.with_context(|| format!("`{words}` wanted: {wanted}\n{}", node.log()))?
}

fn configure(node: &Node, more: &str) -> Result<String> {
    let path = node.folder().join("node.toml");
    let before = fs::read_to_string(&path)?;
    fs::write(&path, format!("{before}\n{more}"))?;
    Ok(before)
}

/// The log's level changes in a running node. A file with an error changes nothing, and the node says what is wrong and
/// where, in its log and in its account, until a good one comes. What needs a new start is named and left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_takes_over_its_configuration() -> Result<()> {
    let network = Network::create(0, 1, Admission::Any)?;
    let relayer = network.node(Role::Relayer, 1);
    relayer.start().await?;
    let (pid, admin) = (relayer.pid()?, relayer.admin()?);

    let before = configure(relayer, "[log]\nlevel = \"debug\"\n[drain]\nseconds = 7\n")?;
    hang_up(relayer)?;
    relayer.says("log.level: info -> debug").await?;
    relayer.says("drain.seconds: 30 -> 7").await?;

    fs::write(
        relayer.folder().join("node.toml"),
        format!("{before}\n[log]\nlevle = \"info\"\n"),
    )?;
    hang_up(relayer)?;
    relayer
        .says("configuration not reloaded, the old one stays")
        .await?;
    relayer.says("did you mean `log.level`?").await?;
    tells(
        relayer,
        "the changed configuration was not taken over",
        true,
    )
    .await?;

    let moved = before.replace("127.0.0.1:0", "127.0.0.1:1");
    fs::write(relayer.folder().join("node.toml"), moved)?;
    hang_up(relayer)?;
    relayer.says("takes effect at the next start").await?;
    relayer.says("log.level: debug -> info").await?;
    tells(
        relayer,
        "the changed configuration was not taken over",
        false,
    )
    .await?;
    assert_eq!((relayer.pid()?, relayer.admin()?), (pid, admin));
    network.stop().await
}

/// A small file system of its own, until dropped.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn mount(at: &Path, mib: u64) -> SmallDisk {
        fs::create_dir_all(at).expect("a folder to mount at");
        let size = format!("size={mib}m");
        let mounted = Blocking::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "pqcnet-test"])
            .arg(at)
            .output()
            .expect("mount is missing: install Debian's package `mount`");
        assert!(
            mounted.status.success(),
            "mounting a tmpfs is not permitted here, and without one a full disk cannot be tried: run this test as root \
             or with CAP_SYS_ADMIN: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        let at = at.to_owned();
        SmallDisk { at }
    }

    fn free(&self) -> u64 {
        pqcnet_store::free_space_of(&self.at).expect("a mounted disk")
    }

    /// Fills it until so many bytes are free.
    fn fill(&self, left: u64) {
        let ballast = fs::File::create(self.at.join("ballast")).expect("a file");
        let len = self.free().saturating_sub(left);
        nix::fcntl::fallocate(
            &ballast,
            nix::fcntl::FallocateFlags::empty(),
            0,
            i64::try_from(len).expect("small"),
        )
        .expect("room for the ballast");
    }

    fn empty(&self) {
        fs::remove_file(self.at.join("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Blocking::new("umount").arg("-l").arg(&self.at).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Publishes until something is refused, or so many are stored; the refusal, and the messages that were acknowledged.
async fn publish_until_refused(
    client: &Client,
    channel: &ChannelName,
    acked: &mut Vec<u64>,
    most: usize,
) -> Result<Option<PublishError>> {
    let publisher = client.publisher(channel)?;
    for _ in 0..most {
        let number = acked.last().map_or(0, |last| last + 1);
        let mut payload = vec![7; 60 << 10];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        match publisher.publish(payload).await {
            Ok(_) => acked.push(number),
            Err(error) => return Ok(Some(error)),
        }
    }
    Ok(None)
}

/// The numbers in a channel, from its first record to its head.
async fn stored(client: &Client, channel: &ChannelName, last: u64) -> Result<Vec<u64>> {
    let mut records = client
        .subscribe(&client.channel(channel.clone()), 0)
        .await?;
    let mut found = Vec::new();
    while found.last() != Some(&last) {
        let record = tokio::time::timeout(SOON, records.next()).await??;
        assert_eq!(record.offset, found.len() as u64 + 1);
        found.push(number_of(&record.payload));
    }
    Ok(found)
}

fn number_of(payload: &Bytes) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&payload[..8]);
    u64::from_be_bytes(number)
}

/// A relayer on a disk of 192 MiB. First the disk is nearly full: publishing is refused by type, reading goes on, the node
/// reports it, and when there is room again all goes on by itself. Then the node is told to mind nothing and the disk is
/// filled to the last byte: the engine itself meets ENOSPC in mid-write. Reading goes on, and after room is made so does
/// writing; everything that was acknowledged is there, once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers_by_itself() -> Result<()> {
    let network = Network::create(1, 1, Admission::Any)?;
    let relayer = network.node(Role::Relayer, 1);
    let disk = SmallDisk::mount(&relayer.folder().join("small"), 192);
    let path = relayer.folder().join("node.toml");
    let text = fs::read_to_string(&path)?.replace(
        "path = \"store\"",
        "path = \"small/store\"\nreserve_mib = 0\n\n[disk]\nlow_mib = 64\ncritical_mib = 48",
    );
    fs::write(&path, &text)?;
    network.start_all().await?;
    let keys = Arc::new(NodeKeys::generate());
    let mut config = ClientConfig::new(network.file.clone(), keys.clone());
    config.publish_timeout = Duration::from_secs(3);
    let client = Client::connect(config).await?;
    let channel = ChannelName::new("full")?;
    let mut acked = Vec::new();
    let refused = publish_until_refused(&client, &channel, &mut acked, 20).await?;
    assert_eq!(refused, None);

    disk.fill(40 << 20);
    relayer.says("too little is left").await?;
    tells(relayer, "MiB are free on the disk of", true).await?;
    let refused = publish_until_refused(&client, &channel, &mut acked, 20).await?;
    assert_eq!(refused, Some(PublishError::Refused(Refusal::NoRoom)));
    assert_eq!(stored(&client, &channel, 19).await?, acked);
    disk.empty();
    relayer.says("enough again").await?;
    tells(relayer, "MiB are free on the disk of", false).await?;
    let refused = publish_until_refused(&client, &channel, &mut acked, 20).await?;
    assert_eq!((refused, acked.len()), (None, 40));

    fs::write(
        &path,
        text.replace(
            "low_mib = 64\ncritical_mib = 48",
            "low_mib = 0\ncritical_mib = 0",
        ),
    )?;
    hang_up(relayer)?;
    relayer.says("disk.critical_mib: 48 -> 0").await?;
    disk.fill(0);
    let refused = publish_until_refused(&client, &channel, &mut acked, 5_000).await?;
    assert!(
        refused.is_some(),
        "192 MiB held {} messages of 60 KiB",
        acked.len()
    );
    relayer.says("No space left on device").await?;
    let last = *acked.last().context("acknowledged before")?;
    let pid = relayer.pid()?;
    assert_eq!(stored(&client, &channel, last).await?, acked);
    disk.empty();
    let after = loop {
        // A message of unknown outcome may be there: its number is not used again.
        let number = acked.last().map_or(0, |last| last + 1_000_000);
        let mut payload = vec![7; 100];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        match client.publish(&channel, payload).await {
            Ok(_) => break number,
            Err(
                PublishError::Refused(_) | PublishError::OutcomeUnknown | PublishError::NotSent,
            ) => {}
            Err(other) => return Err(other.into()),
        }
    };
    let there = stored(&client, &channel, after).await?;
    let promised: BTreeSet<u64> = acked.iter().copied().chain([after]).collect();
    let mut once = there.clone();
    once.dedup();
    assert_eq!(once, there, "nothing is there twice");
    assert!(there.is_sorted(), "nothing is out of order");
    assert!(
        promised.is_subset(&there.iter().copied().collect()),
        "nothing acknowledged is lost"
    );
    assert_eq!(relayer.pid()?, pid, "it was never ended");
    network.stop().await
}

/// Takes whatever becomes free on a disk, from now until it is dropped.
struct Hoarder {
    enough: Arc<AtomicBool>,
    hoards: Option<DedicatedThread>,
}

impl Hoarder {
    fn on(disk: &SmallDisk) -> Hoarder {
        let enough = Arc::new(AtomicBool::new(false));
        let (at, told) = (disk.at.clone(), enough.clone());
        let hoards = Env::plain().dedicated_thread("hoarder", move || {
            let ballast = fs::File::create(at.join("ballast")).expect("a file");
            let mut len = 0;
            // Halves what it asks for until nothing is left; then begins again, for something may have been given back.
            while !told.load(SeqCst) {
                let mut more = 8 << 20;
                while more >= 1 {
                    let none = nix::fcntl::FallocateFlags::empty();
                    match nix::fcntl::fallocate(&ballast, none, len, more) {
                        Ok(()) => len += more,
                        Err(_) => more /= 2,
                    }
                }
                std::thread::yield_now();
            }
        });
        Hoarder {
            enough,
            hoards: Some(hoards.expect("a thread")),
        }
    }
}

impl Drop for Hoarder {
    fn drop(&mut self) {
        self.enough.store(true, SeqCst);
        let ended = self.hoards.take().map(DedicatedThread::join);
        assert!(ended == Some(true) || std::thread::panicking());
    }
}

/// A store whose disk never has a byte to spare: whatever the engine gives back, somebody else takes. Every write is refused as
/// what it is, everything stored before is read between the writes, and nothing of that ends the process, as RocksDB's own log file
/// would, which takes no more lines when it could not be written once. Then there is room, and it goes on by itself. A store
/// is not opened on a disk without room; with room all is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_byte_to_spare() -> Result<()> {
    const FAMILY: Family = Family("kept");
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount(&folder.path().join("small"), 64);
    let schema = Schema {
        kind: "test",
        version: 1,
        families: vec![FAMILY],
    };
    let mut config = StoreConfig::new(disk.at.join("store"), schema);
    config.reserve_bytes = 0;
    config.tables_bytes = 4 << 20;
    let open = || RocksStore::open(&Env::plain(), config.clone());
    let write = async |store: &RocksStore, number: u64| {
        let mut batch = Batch::new();
        batch.put(FAMILY, &number.to_be_bytes(), &[7; 40 << 10]);
        store.submit(batch).expect("a place in the queue").await
    };
    let holds = |store: &RocksStore, count: u64| {
        for number in 0..count {
            let mut found = None;
            let read = store.view(&mut |view| {
                found = view.get(FAMILY, &number.to_be_bytes())?;
                Ok(())
            });
            assert_eq!(read, Ok(()), "{number}");
            assert_eq!(found, Some(vec![7; 40 << 10]), "{number}");
        }
    };
    let mut store = open()?;
    let mut count = 0;
    for _ in 0..3 {
        for _ in 0..40 {
            write(&store, count).await?;
            count += 1;
        }
        let hoarder = Hoarder::on(&disk);
        let mut refused = 0;
        while refused < 60 {
            match write(&store, count).await {
                Ok(()) => count += 1,
                Err(WriteError::Full { .. }) => refused += 1,
                Err(other) => return Err(other.into()),
            }
            holds(&store, count);
        }
        drop(hoarder);
        disk.empty();
        // A refused write may have landed; the same again changes nothing.
        write(&store, count).await?;
        count += 1;
        holds(&store, count);

        drop(store);
        disk.fill(0);
        let refused = open().map(|_| ());
        assert!(
            matches!(refused, Err(OpenError::NoRoom { .. })),
            "{refused:?}"
        );
        disk.empty();
        store = open()?;
        holds(&store, count);
    }
    Ok(())
}

/// The tables of a store or backup.
fn tables(store: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(store.join("db"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "sst") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Replaces a file by one with another byte in the middle. What the file was a hard link to stays as it is.
fn flip(file: &Path) -> Result<Vec<u8>> {
    let whole = fs::read(file)?;
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::remove_file(file)?;
    fs::write(file, flipped)?;
    Ok(whole)
}

/// A relayer that is stopped is copied by hand. Whatever is done to the copy afterwards, restoring it is refused with the file's
/// name and leaves nothing behind that could be taken for a store: a byte changed in a table, a table cut short, one gone, the
/// list of files changed. The sound copy comes back, with every record, under the same key file; a store in use is not copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_by_hand_is_restored_whole_or_not_at_all() -> Result<()> {
    let network = Network::create(1, 1, Admission::Any)?;
    network.start_all().await?;
    let relayer = network.node(Role::Relayer, 1);
    let client = network.client(&Arc::new(NodeKeys::generate())).await?;
    let channel = ChannelName::new("by-hand")?;
    let mut acked = Vec::new();
    let refused = publish_until_refused(&client, &channel, &mut acked, 20).await?;
    assert_eq!(refused, None);
    let shown = |path: &Path| path.display().to_string();
    let (store, copy) = (
        relayer.folder().join("store"),
        relayer.folder().join("copy"),
    );
    let arguments = ["backup", "--store", &shown(&store), "--out", &shown(&copy)];
    let in_use = pqcnet(&arguments, None).await?;
    assert_eq!(in_use.status.code(), Some(2), "{}", said(&in_use));
    assert!(!copy.exists());

    relayer.stop().await?;
    let copied = pqcnet(&arguments, None).await?;
    assert!(copied.status.success(), "{}", said(&copied));
    assert_eq!(String::from_utf8(copied.stdout)?.trim(), shown(&copy));
    let again = pqcnet(&arguments, None).await?;
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    for folder in [&store, &copy] {
        let mode = fs::metadata(folder)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    let sound = pqcnet(&["db", "check", &shown(&copy)], None).await?;
    assert!(sound.status.success(), "{}", said(&sound));

    fs::remove_dir_all(&store)?;
    let restoring = ["restore", &shown(&copy), "--store", &shown(&store)];
    let table = tables(&copy)?.pop().context("a table")?;
    let whole = fs::read(&table)?;
    let list = copy.join("BACKUP");
    let named = fs::read(&list)?;
    type Damage<'a> = (&'a str, &'a Path, &'a dyn Fn() -> Result<()>);
    let damages: [Damage<'_>; 4] = [
        ("a byte", &table, &|| flip(&table).map(drop)),
        ("cut short", &table, &|| {
            Ok(fs::write(&table, &whole[..whole.len() / 2])?)
        }),
        ("gone", &table, &|| Ok(fs::remove_file(&table)?)),
        // The list vouches for the files, so without it the folder is nothing.
        ("the list", &copy, &|| flip(&list).map(drop)),
    ];
    for (what, file, damage) in damages {
        damage()?;
        let refused = pqcnet(&restoring, None).await?;
        assert!(
            matches!(refused.status.code(), Some(1 | 2)),
            "{what}: {}",
            said(&refused)
        );
        assert!(
            said(&refused).contains(&shown(file)),
            "{what}: {}",
            said(&refused)
        );
        let left = fs::read_dir(relayer.folder())?.map(|entry| Ok(entry?.file_name()));
        let left: Vec<_> = left.collect::<Result<_>>()?;
        let like_a_store = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with("store");
        assert_eq!(left.iter().find(like_a_store), None, "{what}");
        fs::write(&table, &whole)?;
        fs::write(&list, &named)?;
    }
    let restored = pqcnet(&restoring, None).await?;
    assert!(restored.status.success(), "{}", said(&restored));
    relayer.start().await?;
    assert_eq!(stored(&client, &channel, 19).await?, acked);
    network.stop().await
}

/// A relayer is copied at an operator's order while messages come in. The copy checks out; with one byte flipped it is
/// refused, and the broken file is named. Then the relayer loses its disk and gets the copy: everything acknowledged before
/// the order is there, the ledger agrees, and messages go on. Nothing is ever written over, and a stranger orders nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_restored_from_a_copy() -> Result<()> {
    let (network, operator) = with_operator(1, 1)?;
    let relayer = network.node(Role::Relayer, 1);
    configure(relayer, "backups = \"backups\"\n")?;
    network.start_all().await?;
    let id = relayer.id.to_string();
    let keys = Arc::new(NodeKeys::generate());
    let client = network.client(&keys).await?;
    let channel = ChannelName::new("copied")?;
    let publisher = client.publisher(&channel)?;
    let send = |number: u64| publisher.publish(number.to_be_bytes().to_vec());
    let mut account = Account::default();
    for number in 0..300 {
        account.acked.insert(number, send(number).await?.offset);
    }

    let stranger = network.identity("stranger")?;
    let refused = pqcnet(&["backup", &id, "--name", "one"], Some(&stranger)).await?;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let arguments = ["backup", &id, "--name", "one"];
    let copying = pqcnet(&arguments, Some(&operator));
    let busy = async {
        for number in 300..400 {
            send(number).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (copied, busy) = tokio::join!(copying, busy);
    busy?;
    let copied = copied?;
    assert!(copied.status.success(), "{}", said(&copied));
    let backup = PathBuf::from(String::from_utf8(copied.stdout)?.trim());
    assert_eq!(backup, relayer.folder().join("backups/one"));

    let shown = |path: &Path| path.display().to_string();
    let sound = pqcnet(&["db", "check", &shown(&backup)], None).await?;
    assert!(sound.status.success(), "{}", said(&sound));
    let in_use = pqcnet(
        &["db", "check", &shown(&relayer.folder().join("store"))],
        None,
    )
    .await?;
    assert_eq!(in_use.status.code(), Some(2), "{}", said(&in_use));

    relayer.stop().await?;
    let store = relayer.folder().join("store");
    fs::remove_dir_all(&store)?;
    let table = tables(&backup)?.pop().context("a table")?;
    let whole = flip(&table)?;
    let broken = pqcnet(&["db", "check", &shown(&backup)], None).await?;
    assert_eq!(broken.status.code(), Some(3), "{}", said(&broken));
    assert!(said(&broken).contains(&shown(&table)), "{}", said(&broken));
    let arguments = ["restore", &shown(&backup), "--store", &shown(&store)];
    let refused = pqcnet(&arguments, None).await?;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("its content differs"),
        "{}",
        said(&refused)
    );
    assert!(!store.exists());

    fs::write(&table, whole)?;
    let restored = pqcnet(&arguments, None).await?;
    assert!(restored.status.success(), "{}", said(&restored));
    let again = pqcnet(&arguments, None).await?;
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    let [store_text, keys_text, unlock_text] = [
        &store,
        &relayer.folder().join("node.keys"),
        &relayer.folder().join("unlock.key"),
    ]
    .map(|path| shown(path));
    let deep = [
        "db",
        "check",
        &store_text,
        "--keys",
        &keys_text,
        "--key-file",
        &unlock_text,
    ];
    let sound = pqcnet(&deep, None).await?;
    assert!(sound.status.success(), "{}", said(&sound));

    relayer.start().await?;
    let client = network.client(&keys).await?;
    client
        .publish(&channel, 1_000u64.to_be_bytes().to_vec())
        .await?;
    let numbers = stored(&client, &channel, 1_000).await?;
    let offsets = numbers
        .iter()
        .zip(1..)
        .map(|(number, offset)| (offset, *number));
    account.stored = offsets.clone().collect();
    account.on_disk = offsets.clone().collect();
    account.delivered = offsets.collect();
    let mut verdict = Verdict::default();
    account.judge(&mut verdict);
    assert!(verdict.is_clean(), "{verdict}");
    assert!((301..=401).contains(&numbers.len()), "{}", numbers.len());
    network.stop().await
}

/// An operator drains a relayer: the command ends when the node is gone, and the node has ended well. Asked once more,
/// nobody answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_by_order() -> Result<()> {
    let (network, operator) = with_operator(1, 1)?;
    network.start_all().await?;
    let relayer = network.node(Role::Relayer, 1);
    let id = relayer.id.to_string();
    let sentry = network.node(Role::Sentry, 1);
    let stranger = network.identity("stranger")?;
    let refused = pqcnet(&["drain", &id], Some(&stranger)).await?;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    let drained = pqcnet(&["drain", &id], Some(&operator)).await?;
    assert!(drained.status.success(), "{}", said(&drained));
    relayer.ended().await?;
    assert!(relayer.log().contains("an operator's order"));
    let gone = pqcnet(&["drain", &id], Some(&operator)).await?;
    assert_eq!(gone.status.code(), Some(4), "{}", said(&gone));
    assert!(sentry.runs());
    network.stop().await
}
