//! `pqcnet drain`, `backup` and `restore`: what an operator does to keep nodes up.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pqcnet_actor::Env;
use pqcnet_crypto::random;
use pqcnet_log::restored;
use pqcnet_messages::Refusal;
use pqcnet_messages::control::Ping;
use pqcnet_messages::orders::{BackUp, BackUpState, Drain, MAX_BACKUP_NAME, is_backup_name};
use pqcnet_p2p::network::NodeEntry;
use pqcnet_p2p::streams::{Streams as _, TcpStreams};
use pqcnet_roles::copies::{self, meter_folder};
use pqcnet_roles::log_schema;
use pqcnet_store::backup::BackupError;
use pqcnet_store::{RocksStore, StoreConfig};

use super::db;
use super::identity::{Identity, IdentityArgs};
use super::nodes::chosen;
use crate::clock::wall_ms;
use crate::exit::{Exit, Failed};
use crate::operator::{NodeLink, Operator};

/// Between two looks at a node that drains or copies.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A process is gone a little after its last link.
const MARGIN: Duration = Duration::from_secs(5);

/// Which node to drain.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The node's name, or its id or the beginning of it.
    node: String,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// What to back up.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The name of a running relayer, or the beginning of its id. It copies its store to a folder of its own (`store.backups`).
    #[arg(required_unless_present = "store", conflicts_with_all = ["store", "out"])]
    node: Option<String>,
    /// The copy's name among the node's backups: lower-case letters, digits and dashes.
    #[arg(long = "name", value_name = "NAME", required_unless_present = "store")]
    copy: Option<String>,
    /// Instead: the store of a relayer that is stopped.
    #[arg(long, requires = "out")]
    store: Option<PathBuf>,
    /// The new folder for the copy.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// What to restore, and where to.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup's folder.
    backup: PathBuf,
    /// The folder for the store; it must not exist.
    #[arg(long)]
    store: PathBuf,
}

/// `pqcnet drain`: 0 once the node is gone.
pub async fn drain(args: &DrainArgs) -> Result<Exit, Failed> {
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let node = meant(&identity, &args.node)?;
    let link = operator.link(node).await?;
    let begun = link.ask(Drain {}).await?.map_err(refused)?;
    let within = Duration::from_millis(begun.within_ms);
    eprintln!("{} drains, {within:?} at most", node.id.short());
    match tokio::time::timeout(within + MARGIN, gone(&env, &link, node)).await {
        Ok(()) => {
            say!("{} is gone", node.id);
            Ok(Exit::Ok)
        }
        Err(_) => Err(Failed::from(anyhow::anyhow!(
            "{} is still there after {:?}",
            node.id.short(),
            within + MARGIN
        ))),
    }
}

/// Resolves when the node answers neither this link nor a new connection.
async fn gone(env: &Env, link: &NodeLink, node: &NodeEntry) {
    while link.ask(Ping { nonce: 0 }).await.is_ok() {
        env.sleep(LOOK_EVERY).await;
    }
    for at in &node.data {
        while TcpStreams.dial(at).await.is_ok() {
            env.sleep(LOOK_EVERY).await;
        }
    }
}

/// `pqcnet backup`: of a running relayer, or of a store that nobody uses.
pub async fn backup(args: &BackupArgs) -> Result<Exit, Failed> {
    match (&args.store, &args.out, &args.node, &args.copy) {
        (Some(store), Some(out), _, _) => {
            let made = copy(store.clone(), out.clone()).await?;
            say!("{}", out.display());
            eprintln!("{} files, {} bytes; {KEYS_APART}", made.0, made.1);
            Ok(Exit::Ok)
        }
        (_, _, Some(node), Some(name)) => ordered(args, node, name).await,
        _ => Err(Failed::usage(anyhow::anyhow!(
            "name a running node with --name, or --store with --out"
        ))),
    }
}

const KEYS_APART: &str = "its records are sealed under the relayer's key file, which is not in it: keep a copy of that too, elsewhere";

async fn ordered(args: &BackupArgs, node: &str, name: &str) -> Result<Exit, Failed> {
    if !is_backup_name(name) {
        return Err(Failed::usage(anyhow::anyhow!(
            "--name `{name}`: 1 to {MAX_BACKUP_NAME} lower-case letters, digits and dashes"
        )));
    }
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let node = meant(&identity, node)?;
    let link = operator.link(node).await?;
    let order = BackUp {
        name: name.to_owned(),
    };
    loop {
        match link.ask(order.clone()).await?.map_err(refused)? {
            BackUpState::UnderWay => env.sleep(LOOK_EVERY).await,
            BackUpState::Done { path, files, bytes } => {
                say!("{path}");
                eprintln!(
                    "on {}: {files} files, {bytes} bytes; {KEYS_APART}",
                    node.id.short()
                );
                return Ok(Exit::Ok);
            }
            BackUpState::Failed { detail } => {
                return Err(Failed::new(Exit::Refused, anyhow::anyhow!("{detail}")));
            }
        }
    }
}

/// Copies a store that nobody uses.
async fn copy(store: PathBuf, out: PathBuf) -> Result<(usize, u64), Failed> {
    if !store.join("FORMAT").exists() {
        return Err(Failed::usage(anyhow::anyhow!(
            "{} is no store",
            store.display()
        )));
    }
    let env = Env::plain();
    let copying = env.clone().offload(move || {
        let opened = RocksStore::open(&env, StoreConfig::new(&store, log_schema()));
        let opened = opened.map_err(Failed::usage)?;
        let meter = meter_folder(&store);
        let meter = meter.join("FORMAT").exists().then(|| {
            let schema = pqcnet_meter::disk::schema();
            RocksStore::open(&env, StoreConfig::new(&meter, schema))
        });
        let meter = meter.transpose().map_err(Failed::usage)?;
        let made = copies::back_up(&opened, meter.as_ref(), &out).map_err(not_copied)?;
        Ok((made.files, made.bytes))
    });
    copying.await.context("the copy")?
}

/// `pqcnet restore`: puts a backup where no store is, holds every byte against its sums, and looks through it.
pub async fn restore(args: &RestoreArgs) -> Result<Exit, Failed> {
    let (from, to) = (args.backup.clone(), args.store.clone());
    let env = Env::plain();
    let restoring = env.clone().offload(move || {
        let made = copies::restore(&from, &to).map_err(not_copied)?;
        let store = RocksStore::open(&env, StoreConfig::new(&to, log_schema()));
        let store = store.map_err(|error| Failed::from(anyhow::Error::new(error)))?;
        let ahead = restored::set_ahead(&store, || {
            let mut salt = [0; 16];
            random::fill(&mut salt);
            salt
        });
        let ahead = ahead.map_err(|error| Failed::from(anyhow::Error::new(error)))?;
        drop(store);
        let meter = meter_folder(&to);
        if meter.join("FORMAT").exists() {
            let schema = pqcnet_meter::disk::schema();
            let store = RocksStore::open(&env, StoreConfig::new(&meter, schema));
            let store = store.map_err(|error| Failed::from(anyhow::Error::new(error)))?;
            let ahead = pqcnet_meter::restored::set_ahead(&store, wall_ms());
            ahead.map_err(|error| Failed::from(anyhow::Error::new(error)))?;
        }
        let found = db::look(&to, None)?;
        Ok::<_, Failed>((made, ahead.len(), found))
    });
    let (made, shards, found) = restoring.await.context("the restoration")??;
    if !found.is_sound() {
        return Err(Failed::new(
            Exit::Unhealthy,
            anyhow::anyhow!(
                "{} is as it was backed up, and not sound: `pqcnet db check` says what is wrong",
                args.store.display()
            ),
        ));
    }
    say!("{}", args.store.display());
    eprintln!(
        "{} files, {} bytes, {shards} shards set ahead of the original; start it with the key file that sealed it, and \
         never beside the original",
        made.files, made.bytes
    );
    Ok(Exit::Ok)
}

fn not_copied(error: BackupError) -> Failed {
    match error {
        BackupError::Exists(_)
        | BackupError::NotABackup { .. }
        | BackupError::OtherStore { .. } => Failed::usage(error),
        other => Failed::from(anyhow::Error::new(other)),
    }
}

fn refused(refusal: Refusal) -> Failed {
    Failed::new(Exit::Refused, anyhow::anyhow!("refused: {refusal}"))
}

/// The one node that is meant.
fn meant<'a>(identity: &'a Identity, wanted: &str) -> Result<&'a NodeEntry, Failed> {
    match chosen(&identity.network, &identity.names, Some(wanted))?[..] {
        [node] => Ok(node),
        ref several => Err(Failed::usage(anyhow::anyhow!(
            "`{wanted}` means {} nodes",
            several.len()
        ))),
    }
}
