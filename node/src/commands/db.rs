//! `pqcnet db`: looks through a relayer's store that no node uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use pqcnet_crypto::NodeSecrets;
use pqcnet_log::check::{self, LogChecked};
use pqcnet_log::{Salt, ShardNo, keys};
use pqcnet_relay::core::seal::{OVERHEAD, ShardKeys};
use pqcnet_roles::log_schema;
use pqcnet_store::{Checker, OpenError, Scan, View};
use serde_json::json;

use super::keys::UnlockArgs;
use super::status::Output;
use crate::exit::{Exit, Failed};
use crate::unlock::Opener;

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub enum Db {
    /// Read every file of a store or a backup, and hold what is stored against itself. Changes nothing; ends with 3 if
    /// anything does not check out, and names the file.
    Check(CheckArgs),
}

/// Which store, and how deep to look.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The store's folder, or a backup of it.
    #[arg(default_value = "store")]
    store: PathBuf,
    /// The relayer's key file: opens every record too, which finds whatever was changed on purpose.
    #[arg(long)]
    keys: Option<PathBuf>,
    #[command(flatten)]
    unlock: UnlockArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs it.
pub fn run(command: &Db) -> Result<Exit, Failed> {
    match command {
        Db::Check(args) => check_store(args),
    }
}

fn check_store(args: &CheckArgs) -> Result<Exit, Failed> {
    let master = args.keys.as_deref().map(|path| {
        let opener = Opener::from_source(&args.unlock.source()).map_err(Failed::usage)?;
        let secrets: NodeSecrets = opener.open(path).map_err(Failed::usage)?;
        Ok::<_, Failed>(*secrets.storage.expose())
    });
    let found = look(&args.store, master.transpose()?.as_ref())?;
    match args.output {
        Output::Text => print_text(&args.store, &found),
        Output::Json => say!("{}", as_json(&args.store, &found)),
    }
    Ok(match found.is_sound() {
        true => Exit::Ok,
        false => Exit::Unhealthy,
    })
}

/// What was found in a store.
pub struct Found {
    /// Its files.
    pub files: Checker,
    /// Its log, unless the database did not even open.
    pub log: Option<LogChecked>,
}

impl Found {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.files.damage.is_empty() && self.log.as_ref().is_some_and(|log| log.found == 0)
    }
}

/// Looks through a store. With the storage master key every record is opened as well.
pub fn look(store: &Path, master: Option<&[u8; 32]>) -> Result<Found, Failed> {
    if !store.is_dir() {
        return Err(Failed::usage(anyhow::anyhow!(
            "{} is no folder",
            store.display()
        )));
    }
    let files = Checker::open(store, &log_schema()).map_err(|error| match error {
        OpenError::Locked { .. } => Failed::usage(
            anyhow::Error::new(error)
                .context("a store in use is not looked at: stop its node, or check a backup"),
        ),
        OpenError::NotAStore { .. } | OpenError::WrongKind { .. } | OpenError::TooNew { .. } => {
            Failed::usage(error)
        }
        other => Failed::from(anyhow::Error::new(other)),
    })?;
    let looked = files.view(|view| {
        let mut seals = Seals::new(view, master);
        let log = check::check(view, &mut |shard, channel, offset, bytes| {
            seals.check(shard, channel, offset, bytes)
        });
        (log, seals.opened)
    });
    if let Some((log, 0)) = &looked
        && master.is_some()
        && log.entries > 0
    {
        return Err(Failed::usage(anyhow::anyhow!(
            "not one of {} records opens with these keys: they are not the ones that sealed {}; \
             without --keys the rest is looked at",
            log.entries,
            store.display()
        )));
    }
    let log = looked.map(|(log, _)| log);
    Ok(Found { files, log })
}

/// Looks at how entries are sealed: by their heads, or with the key.
struct Seals<'a> {
    master: Option<&'a [u8; 32]>,
    /// How many records opened.
    opened: u64,
    salts: BTreeMap<ShardNo, Vec<(u32, Salt)>>,
    keys: BTreeMap<ShardNo, ShardKeys>,
}

impl<'a> Seals<'a> {
    fn new(view: &dyn View, master: Option<&'a [u8; 32]>) -> Seals<'a> {
        let mut salts: BTreeMap<ShardNo, Vec<(u32, Salt)>> = BTreeMap::new();
        let everything = Scan {
            from: &[],
            to: &[0xff; 64],
        };
        let read = view.scan(keys::GENERATION, everything, &mut |key, value| {
            if let (Some((shard, number)), Ok(salt)) = (check::generation_of(key), value.try_into())
            {
                salts.entry(shard).or_default().push((number, salt));
            }
            std::ops::ControlFlow::Continue(())
        });
        if let Err(error) = read {
            // The check itself meets the same, and says so.
            tracing::debug!(%error, "generations");
        }
        Seals {
            master,
            salts,
            keys: BTreeMap::new(),
            opened: 0,
        }
    }

    fn check(
        &mut self,
        shard: ShardNo,
        channel: &pqcnet_log::ChannelId,
        offset: u64,
        sealed: &[u8],
    ) -> Result<(), String> {
        let salts = self
            .salts
            .get(&shard)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if let Some(master) = self.master {
            let keys = self.keys.entry(shard).or_insert_with(|| {
                let mut keys = ShardKeys::new(master, shard);
                keys.learn(salts);
                keys
            });
            let opened = keys.open(channel, offset, &mut sealed.to_vec());
            return opened
                .map(|_| self.opened += 1)
                .map_err(|error| error.to_string());
        }
        let generation = sealed.get(1..5).and_then(|bytes| bytes.try_into().ok());
        match (sealed.first(), generation.map(u32::from_be_bytes)) {
            _ if sealed.len() < OVERHEAD => {
                Err(format!("{} bytes are no sealed entry", sealed.len()))
            }
            (Some(1), Some(generation)) if salts.iter().any(|(known, _)| *known == generation) => {
                Ok(())
            }
            (Some(1), Some(generation)) => {
                Err(format!("sealed under unknown generation {generation}"))
            }
            (version, _) => Err(format!("sealed entry of unknown version {version:?}")),
        }
    }
}

fn print_text(store: &Path, found: &Found) {
    let looked = found.files.looked;
    say!(
        "{}: {} tables ({} bytes), {} logs and manifests ({} bytes, {} records), {} keys",
        store.display(),
        looked.tables.0,
        looked.tables.1,
        looked.logs.0,
        looked.logs.1,
        looked.log_records,
        looked.keys,
    );
    if looked.torn > 0 {
        say!(
            "  {} bytes behind the last whole record of a log: a write that was cut off",
            looked.torn
        );
    }
    for damage in &found.files.damage {
        say!("  damaged: {}: {}", damage.file.display(), damage.detail);
    }
    match &found.log {
        None => say!("  the database does not open: its records were not looked at"),
        Some(log) => {
            say!(
                "  {} shards, {} channels, {} records ({} bytes), {} producers' marks",
                log.shards,
                log.channels,
                log.entries,
                log.entry_bytes,
                log.marks
            );
            for finding in &log.findings {
                say!("  wrong: {finding}");
            }
            let untold = log.found - log.findings.len() as u64;
            if untold > 0 {
                say!("  and {untold} more");
            }
        }
    }
    say!(
        "{}",
        if found.is_sound() {
            "sound"
        } else {
            "NOT SOUND"
        }
    );
}

fn as_json(store: &Path, found: &Found) -> serde_json::Value {
    let looked = found.files.looked;
    let damage = found
        .files
        .damage
        .iter()
        .map(|damage| json!({ "file": damage.file, "detail": damage.detail }));
    let log = found.log.as_ref().map(|log| {
        let findings = log.findings.iter().map(ToString::to_string);
        json!({
            "shards": log.shards,
            "channels": log.channels,
            "records": log.entries,
            "record_bytes": log.entry_bytes,
            "marks": log.marks,
            "findings": findings.collect::<Vec<_>>(),
            "found": log.found,
        })
    });
    json!({
        "store": store,
        "sound": found.is_sound(),
        "tables": looked.tables.0,
        "table_bytes": looked.tables.1,
        "logs": looked.logs.0,
        "log_bytes": looked.logs.1,
        "log_records": looked.log_records,
        "torn_bytes": looked.torn,
        "damage": damage.collect::<Vec<_>>(),
        "log": log,
    })
}
