//! SIGHUP: the configuration is read again, and what may change in a running node changes. A file that does not pass changes
//! nothing; what needs a new start is named.

use std::path::PathBuf;

use pqcnet_actor::Ref;
use pqcnet_p2p::network::NetworkFile;
use pqcnet_roles::Live;
use pqcnet_roles::problem::Code;
use pqcnet_roles::watchman::Noticed;
use pqcnet_telemetry::logs::LogHandle;

use crate::config::{self, ConfigErrors, KEYS, LIVE, Layers, NodeConfig};

/// What a changed configuration comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed from here on, as `key: before -> after`.
    pub live: Vec<String>,
    /// Changed in the file; they wait for the next start.
    pub at_next_start: Vec<String>,
}

/// Compares what was read with what is in force, key by key.
pub fn changes(before: &Layers, after: &Layers) -> Changes {
    let mut changes = Changes::default();
    for key in KEYS {
        let text = |layers: &Layers| layers.values.get(key.path).map(|entry| entry.text.clone());
        let (old, new) = (text(before), text(after));
        if old == new {
            continue;
        }
        let shown = |text: Option<String>| text.unwrap_or_else(|| "unset".to_owned());
        let line = format!("{}: {} -> {}", key.path, shown(old), shown(new));
        match LIVE.contains(&key.path) {
            true => changes.live.push(line),
            false => changes.at_next_start.push(line),
        }
    }
    changes
}

/// Reads the configuration of a running node again.
pub struct Reloader {
    file: Option<PathBuf>,
    flags: Vec<String>,
    /// What the node runs with: live keys as last changed, all others as at its start.
    in_force: Layers,
    log: LogHandle,
    live: Live,
    steward: Ref<Noticed>,
}

impl Reloader {
    /// For a node that was started with these.
    pub fn new(
        (file, flags): (Option<PathBuf>, Vec<String>),
        in_force: Layers,
        log: LogHandle,
        live: Live,
        steward: Ref<Noticed>,
    ) -> Reloader {
        Reloader {
            file,
            flags,
            in_force,
            log,
            live,
            steward,
        }
    }

    /// Reads it and takes over what may change; says what it did.
    pub fn reload(&mut self) {
        match self.take_over() {
            Ok(changes) => {
                for line in &changes.live {
                    tracing::info!(change = line, "configuration changed");
                }
                for line in &changes.at_next_start {
                    tracing::warn!(change = line, "takes effect at the next start");
                }
                if changes == Changes::default() {
                    tracing::info!("configuration read again: nothing changed");
                } else {
                    tracing::info!("configuration reloaded");
                }
                self.notice(None);
            }
            Err(errors) => {
                let said = errors.to_string();
                for error in said.lines() {
                    tracing::error!(error, "configuration not reloaded, the old one stays");
                }
                self.notice(Some(said));
            }
        }
    }

    fn take_over(&mut self) -> Result<Changes, ConfigErrors> {
        let read = config::gather(self.file.as_deref(), &self.flags)?;
        let config = NodeConfig::from_layers(read.clone())?;
        // It is not taken over, but a broken one would stop the next start.
        if let Err(error) = NetworkFile::load(&config.network) {
            return Err(ConfigErrors::of_file(&config.network, &error));
        }
        let changes = changes(&self.in_force, &read);
        match self.log.set_level(&config.log_level) {
            Ok(true) => {}
            Ok(false) => tracing::debug!("logging has ended"),
            Err(error) => tracing::error!(%error, "the level of the log stays"),
        }
        self.live.change(config.limits, config.drain);
        for key in LIVE {
            if let Some(entry) = read.values.get(key) {
                self.in_force.values.insert(key, entry.clone());
            }
        }
        Ok(changes)
    }

    fn notice(&self, error: Option<String>) {
        let problems = error.map(|why| {
            let what = "the changed configuration was not taken over";
            Code::ConfigNotReloaded.problem(what).because(why)
        });
        let noticed = Noticed {
            by: "configuration",
            problems: problems.into_iter().collect(),
            counters: Vec::new(),
        };
        if self.steward.try_tell(noticed).is_err() {
            tracing::debug!("the steward did not hear of the configuration");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(text: &str) -> Layers {
        Layers::gather(Some((std::path::Path::new("node.toml"), text)), [], &[])
    }

    /// Scenario: one key that may change in a running node, one that may not, one that appears and one that stays.
    #[test]
    fn changes_are_told_apart() {
        let before = layers(
            "[log]\nlevel = \"info\"\n[admin]\nlisten = \"127.0.0.1:1\"\n[drain]\nseconds = 5\n",
        );
        let after = layers(
            "[log]\nlevel = \"debug\"\n[admin]\nlisten = \"127.0.0.1:2\"\n[drain]\nseconds = 5\n[unlock]\nkey_file = \"/k\"\n",
        );
        let found = changes(&before, &after);
        assert_eq!(found.live, ["log.level: info -> debug"]);
        assert_eq!(
            found.at_next_start,
            [
                "unlock.key_file: unset -> /k",
                "admin.listen: 127.0.0.1:1 -> 127.0.0.1:2"
            ]
        );
        assert_eq!(changes(&after, &after), Changes::default());
    }
}
