//! Disks that fill up, under a relayer and under a store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context as _, Result};
use pqcnet_actor::{DedicatedThread, Env};
use pqcnet_client::{ChannelName, Client, ClientConfig, PublishError, Refusal};
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_store::{
    Batch, Family, OpenError, RocksStore, Schema, Store as _, StoreConfig, WriteError,
};
use pqcnet_tests::network::Network;

use crate::{hang_up, publish_until_refused, stored};

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
    relayer.tells("MiB are free on the disk of", true).await?;
    let refused = publish_until_refused(&client, &channel, &mut acked, 20).await?;
    assert_eq!(refused, Some(PublishError::Refused(Refusal::NoRoom)));
    assert_eq!(stored(&client, &channel, 19).await?, acked);
    disk.empty();
    relayer.says("enough again").await?;
    relayer.tells("MiB are free on the disk of", false).await?;
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
