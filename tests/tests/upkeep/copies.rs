//! Copies of a store, and the way back from them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use pqcnet_client::ChannelName;
use pqcnet_crypto::NodeKeys;
use pqcnet_messages::Role;
use pqcnet_p2p::network::Admission;
use pqcnet_tests::ledger::{Account, Verdict};
use pqcnet_tests::network::{Network, Node};

use crate::{configure, pqcnet, publish_until_refused, said, stored, with_operator};

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

/// Has a relayer make a report, which stands.
async fn metered(relayer: &Node, name: &str, windows: &[&str]) -> Result<serde_json::Value> {
    let [config, report, network] =
        ["node.toml", name, "network.toml"].map(|file| relayer.folder().join(file));
    let [config, report, network] =
        [&config, &report, &network].map(|path| path.display().to_string());
    let create = ["report", "create", "-c", &config, "-f", &report];
    let created = pqcnet(&[&create[..], windows].concat(), None).await?;
    assert!(created.status.success(), "{}", said(&created));
    let verify = ["report", "verify", &report, "--network", &network];
    let judged = pqcnet(&[&verify[..], &["-o", "json"]].concat(), None).await?;
    assert!(judged.status.success(), "{}", said(&judged));
    Ok(serde_json::from_slice(&judged.stdout)?)
}

/// A relayer is copied at an operator's order while messages come in. The copy checks out; with one byte flipped it is
/// refused, and the broken file is named. Then the relayer loses its disk and gets the copy: everything acknowledged before
/// the order is there, the ledger agrees, and messages go on. Nothing is ever written over, and a stranger orders nothing. What was metered
/// is in the copy: its windows are reported again, and the rest of what is stored is counted once, in windows with numbers that the lost disk
/// can not have used.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_restored_from_a_copy() -> Result<()> {
    let (network, operator) = with_operator(1, 1)?;
    let relayer = network.node(Role::Relayer, 1);
    // Windows end when a report is asked for.
    configure(
        relayer,
        "backups = \"backups\"\n\n[metering]\nwindow_seconds = 3600\n",
    )?;
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

    let before = metered(relayer, "before.report", &[]).await?;
    assert_eq!(before["sums"]["stored"]["frames"], 300);
    let last = before["windows"].as_array().and_then(|all| all.last());
    let closed = last.and_then(|last| last["number"].as_u64());
    let closed = closed.context("a window")?;

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
    let twice = pqcnet(&arguments, Some(&operator)).await?;
    assert_eq!(twice.status.code(), Some(5), "{}", said(&twice));
    assert!(
        said(&twice).contains("is there already"),
        "{}",
        said(&twice)
    );
    let arguments = ["backup", &id, "--name", "No Name"];
    let misnamed = pqcnet(&arguments, Some(&operator)).await?;
    assert_eq!(misnamed.status.code(), Some(2), "{}", said(&misnamed));

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
    let deep = |whose: &Node| {
        let of = |name| shown(&whose.folder().join(name));
        let (keys, unlock) = (of("node.keys"), of("unlock.key"));
        let store = shown(&store);
        [
            "db",
            "check",
            &store,
            "--keys",
            &keys,
            "--key-file",
            &unlock,
        ]
        .map(str::to_owned)
    };
    let check = async |arguments: [String; 7]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        pqcnet(&arguments, None).await
    };
    let sound = check(deep(relayer)).await?;
    assert!(sound.status.success(), "{}", said(&sound));
    // Another node's keys open nothing: whoever named them erred, not the disk.
    let wrong = check(deep(network.node(Role::Sentry, 1))).await?;
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("not one of"), "{}", said(&wrong));

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

    let rest = metered(relayer, "rest.report", &[]).await?;
    assert_eq!(rest["sums"]["stored"]["frames"], numbers.len() as u64 - 300);
    let next = rest["windows"][0]["number"].as_u64().context("one")?;
    assert!(next > closed + 1_000, "{next} after {closed}");
    let last = closed.to_string();
    let again = metered(relayer, "again.report", &["--from", "1", "--to", &last]).await?;
    assert_eq!(again["sums"]["stored"]["frames"], 300);
    assert_eq!(
        again["windows"][0]["end_ms"],
        before["windows"][0]["end_ms"]
    );
    network.stop().await
}
