//! A node's configuration, read strictly: file, then `PQCNET_*`, then `--set key=value`.
//!
//! An unknown key, a wrong type or an unsafe value stops the start; each message names the place and, where one is near,
//! what was probably meant. All problems are reported at once.

mod keys;
mod layers;
mod write;

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pqcnet_log::Retention;
use pqcnet_qstp::Suite;
use pqcnet_roles::core::levels::Lines;
use pqcnet_roles::watchman::Limits;
use pqcnet_roles::{Metering, Reach};
use pqcnet_telemetry::{Endpoint, LogFormat, LogLevel, Ratio};

pub use keys::{KEYS, Key, LIVE, MAX_DRAIN_SECONDS, Type, environment_name, nearest};
pub use layers::{Entry, Layers, MAX_FILE, OTHER_VARIABLES, Origin};
pub use write::{shown, template};

/// What a node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// `network.toml`.
    pub network: PathBuf,
    /// The encrypted key file.
    pub keys: PathBuf,
    /// How the key file opens.
    pub unlock: UnlockSource,
    /// Ciphers of QSTP channels, best first; never empty.
    pub suites: Vec<Suite>,
    /// Where libp2p listens.
    pub control: SocketAddr,
    /// Where direct QSTP streams are taken.
    pub data: SocketAddr,
    /// Where the admin pages are served.
    pub admin: SocketAddr,
    /// Where the address of the operator's page is written.
    pub page_url: PathBuf,
    /// The relayer's store.
    pub store: PathBuf,
    /// Where the address of the broker stands that has the shard log; without one the store has it.
    pub broker: Option<PathBuf>,
    /// How long the log keeps what is in it: that broker's new streams, else the store.
    pub retention: Retention,
    /// What the mesh keeps: the root's directives and the peer book.
    pub mesh: PathBuf,
    /// Whether the LAN is searched for nodes.
    pub lan: bool,
    /// How others reach its control plane.
    pub reach: Reach,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it looks.
    pub log_format: LogFormat,
    /// Where traces and metrics are sent, if anywhere.
    pub telemetry: Option<TelemetryConfig>,
    /// The longest a stop may take.
    pub drain: Duration,
    /// Where backups of the store go.
    pub backups: PathBuf,
    /// Bytes of the store's disk that are never written into.
    pub reserve_bytes: u64,
    /// When disk or descriptors run low.
    pub limits: Limits,
    /// Channels that one customer may have in a shard.
    pub customer_channels: usize,
    /// Records that a subscriber may fall behind before its channel's publishers are asked to wait.
    pub lag_records: u64,
    /// How many times as long as its write took a channel rests that crowds others out.
    pub flood_rests: u32,
    /// How a relayer meters, if it does.
    pub metering: Option<Metering>,
    /// Where its meter is served over gRPC, if anywhere.
    pub metering_grpc: Option<SocketAddr>,
}

/// What is sent to a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Where to.
    pub endpoint: Endpoint,
    /// Who vouches for it, instead of those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Which part of what comes without a trace begins one.
    pub sampling: Ratio,
    /// How often metrics are sent.
    pub metrics_every: Duration,
}

/// How a key file opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnlockSource {
    /// A passphrase that stands in a file.
    PassphraseFile(PathBuf),
    /// A file of 32 random bytes.
    KeyFile(PathBuf),
    /// `PQCNET_PASSPHRASE`, or a prompt on the terminal.
    Ask,
}

/// One thing that is wrong with a configuration; the operator erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// The parser's words.
        message: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", meant(.did_you_mean))]
    Unknown {
        /// Where.
        origin: Origin,
        /// As written.
        key: String,
        /// What was probably meant.
        did_you_mean: Option<String>,
    },
    /// A value of another type.
    #[error("{origin}: `{key}` must be {wanted}, not a TOML {found}")]
    WrongType {
        /// Where.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value out of range.
    #[error("{origin}: `{key}`: {why}{}", meant(.did_you_mean))]
    Invalid {
        /// Where.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
        /// What was probably meant.
        did_you_mean: Option<String>,
    },
    /// A value that would expose the node.
    #[error("{origin}: `{key}` is unsafe: {why}; {instead}")]
    Unsafe {
        /// Where.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What it would do.
        why: String,
        /// What to do.
        instead: String,
    },
    /// A flag without `=`.
    #[error("{origin}: write key=value")]
    NoValue {
        /// The flag.
        origin: Origin,
    },
}

fn meant(word: &Option<String>) -> String {
    word.as_ref()
        .map(|word| format!("; did you mean `{word}`?"))
        .unwrap_or_default()
}

/// Everything that is wrong, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// Of a file that the configuration names.
    pub fn of_file(path: &Path, error: &impl fmt::Display) -> ConfigErrors {
        let (path, reason) = (path.to_owned(), error.to_string());
        ConfigErrors(vec![ConfigError::Read { path, reason }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// Reads a configuration with the process's environment.
pub fn load(file: Option<&Path>, flags: &[String]) -> Result<NodeConfig, ConfigErrors> {
    let layers = gather(file, flags)?;
    NodeConfig::from_layers(layers)
}

/// All layers, not yet checked against each other.
pub fn gather(file: Option<&Path>, flags: &[String]) -> Result<Layers, ConfigErrors> {
    let text = file
        .map(|path| read(path).map(|text| (path, text)))
        .transpose();
    let text = text.map_err(|error| ConfigErrors(vec![error]))?;
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Layers::gather(
        text.as_ref().map(|(path, text)| (*path, text.as_str())),
        environment,
        flags,
    ))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |reason: String| ConfigError::Read {
        path: path.to_owned(),
        reason,
    };
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(format!("over {MAX_FILE} bytes")));
    }
    Ok(text)
}

impl NodeConfig {
    /// Checks the layers against each other and makes them a configuration.
    pub fn from_layers(mut layers: Layers) -> Result<NodeConfig, ConfigErrors> {
        let mut errors = std::mem::take(&mut layers.errors);
        errors.extend(unsafe_values(&layers));
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let read = Read(&layers);
        let unlock = match (
            read.optional("unlock.passphrase_file"),
            read.optional("unlock.key_file"),
        ) {
            (Some(path), _) => UnlockSource::PassphraseFile(path.into()),
            (None, Some(path)) => UnlockSource::KeyFile(path.into()),
            (None, None) => UnlockSource::Ask,
        };
        Ok(NodeConfig {
            network: read.value("network")?,
            keys: read.value("keys")?,
            unlock,
            suites: read
                .optional("qstp.suites")
                .unwrap_or_default()
                .split(',')
                .filter_map(Suite::of_label)
                .collect(),
            control: read.value("listen.control")?,
            data: read.value("listen.data")?,
            admin: read.value("admin.listen")?,
            page_url: match read.optional("admin.page") {
                Some(path) => path.into(),
                None => read.value::<PathBuf>("keys")?.with_file_name("page.url"),
            },
            store: read.value("store.path")?,
            broker: read.optional("store.broker").map(PathBuf::from),
            retention: {
                let [mib, hours] = match read.optional("store.broker") {
                    Some(_) => ["store.broker_keep_mib", "store.broker_keep_hours"],
                    None => ["store.keep_mib", "store.keep_hours"],
                };
                Retention {
                    bytes: limit(read.value(mib)?).map(|mib| mib << 20),
                    age: limit(read.value(hours)?).map(|hours| Duration::from_secs(hours * 3600)),
                }
            },
            lan: read.value("mesh.lan")?,
            reach: read.value("mesh.reach")?,
            mesh: match read.optional("mesh.path") {
                Some(path) => path.into(),
                None => read.value::<PathBuf>("keys")?.with_file_name("mesh"),
            },
            log_level: read.value("log.level")?,
            log_format: read.value("log.format")?,
            telemetry: read.telemetry()?,
            drain: Duration::from_secs(read.value("drain.seconds")?),
            backups: read.value("store.backups")?,
            reserve_bytes: read.value::<u64>("store.reserve_mib")? << 20,
            limits: Limits {
                disk: Lines::new(
                    read.value::<u64>("disk.low_mib")? << 20,
                    read.value::<u64>("disk.critical_mib")? << 20,
                ),
                descriptors: Lines::new(
                    read.value("descriptors.low_percent")?,
                    read.value("descriptors.critical_percent")?,
                ),
            },
            customer_channels: read.value("limits.customer_channels")?,
            lag_records: read.value("limits.lag_records")?,
            flood_rests: read.value("limits.flood_rests")?,
            metering: match limit(read.value("metering.window_seconds")?) {
                Some(seconds) => Some(Metering {
                    window: Duration::from_secs(seconds),
                    keep: read.value("metering.keep_windows")?,
                }),
                None => None,
            },
            metering_grpc: match read.optional("metering.grpc") {
                Some(_) => Some(read.value("metering.grpc")?),
                None => None,
            },
        })
    }
}

/// A limit, of which 0 is none.
fn limit(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// Typed access to checked layers.
struct Read<'a>(&'a Layers);

impl Read<'_> {
    fn telemetry(&self) -> Result<Option<TelemetryConfig>, ConfigErrors> {
        if self.optional("telemetry.endpoint").is_none() {
            return Ok(None);
        }
        Ok(Some(TelemetryConfig {
            endpoint: self.value("telemetry.endpoint")?,
            ca_file: self.optional("telemetry.ca_file").map(PathBuf::from),
            sampling: self.value("telemetry.sampling")?,
            metrics_every: Duration::from_secs(self.value("telemetry.metrics_seconds")?),
        }))
    }

    fn optional(&self, key: &str) -> Option<&str> {
        self.0.values.get(key).map(|entry| entry.text.as_str())
    }

    fn value<T: std::str::FromStr<Err: fmt::Display>>(
        &self,
        key: &'static str,
    ) -> Result<T, ConfigErrors> {
        let entry = self.0.values.get(key);
        let (text, origin) = entry.map_or(("", Origin::Default), |entry| {
            (&entry.text, entry.origin.clone())
        });
        text.parse().map_err(|error: T::Err| {
            let why = error.to_string();
            ConfigErrors(vec![ConfigError::Invalid {
                origin,
                key,
                why,
                did_you_mean: None,
            }])
        })
    }
}

/// Values that are well-formed and would still expose or confuse the node.
fn unsafe_values(layers: &Layers) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let open = |key: &str| {
        layers
            .values
            .get(key)
            .is_some_and(|entry| entry.text == "true")
    };
    for (key, allowed_by, what) in [
        (
            "listen.control",
            "listen.public",
            "lets other machines reach the control plane",
        ),
        (
            "listen.data",
            "listen.public",
            "lets other machines reach the data plane",
        ),
        (
            "admin.listen",
            "admin.public",
            "serves health and metrics in clear text to other machines",
        ),
    ] {
        let Some(entry) = layers.values.get(key) else {
            continue;
        };
        let loopback = entry
            .text
            .parse::<SocketAddr>()
            .is_ok_and(|at| at.ip().is_loopback());
        if !loopback && !open(allowed_by) {
            errors.push(ConfigError::Unsafe {
                origin: entry.origin.clone(),
                key,
                why: format!("{} {what}", entry.text),
                instead: format!(
                    "set `{allowed_by} = true` if that is meant, else a loopback address"
                ),
            });
        }
    }
    if let Some(entry) = layers.values.get("metering.grpc") {
        let at = entry.text.parse::<SocketAddr>();
        if !at.is_ok_and(|at| at.ip().is_loopback()) {
            errors.push(ConfigError::Unsafe {
                origin: entry.origin.clone(),
                key: "metering.grpc",
                why: format!("{} would send its token in clear text", entry.text),
                instead: "set a loopback address; a TLS tunnel may end there".to_owned(),
            });
        }
    }
    if layers.values.contains_key("store.broker") {
        for (key, meant) in [
            ("store.keep_mib", "store.broker_keep_mib"),
            ("store.keep_hours", "store.broker_keep_hours"),
        ] {
            let Some(entry) = layers.values.get(key).filter(|entry| entry.text != "0") else {
                continue;
            };
            errors.push(ConfigError::Invalid {
                origin: entry.origin.clone(),
                key,
                why: "it limits the log in the store, and `store.broker` has the log elsewhere"
                    .to_owned(),
                did_you_mean: Some(meant.to_owned()),
            });
        }
    }
    for (low, critical) in [
        ("disk.low_mib", "disk.critical_mib"),
        ("descriptors.low_percent", "descriptors.critical_percent"),
    ] {
        let number = |key: &str| layers.values.get(key)?.text.parse::<u64>().ok();
        if let (Some(entry), true) = (layers.values.get(critical), number(critical) > number(low)) {
            errors.push(ConfigError::Unsafe {
                origin: entry.origin.clone(),
                key: critical,
                why: format!("above `{low}`, nothing would warn before it holds"),
                instead: format!("set it at or below `{low}`"),
            });
        }
    }
    if let (Some(_), Some(entry)) = (
        layers.values.get("unlock.passphrase_file"),
        layers.values.get("unlock.key_file"),
    ) {
        errors.push(ConfigError::Unsafe {
            origin: entry.origin.clone(),
            key: "unlock.key_file",
            why: "unlock.passphrase_file is set too, and a key file opens one way only".to_owned(),
            instead: "keep one of them".to_owned(),
        });
    }
    errors
}

#[cfg(test)]
mod tests;
