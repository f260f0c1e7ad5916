//! Where a value comes from: the file, over it `PQCNET_*`, over that flags. Every value keeps its origin for messages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use pqcnet_telemetry::otlp::{Endpoint, EndpointError, Ratio};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{self, KEYS, Key, Type};

/// Largest file that is read, in bytes: the whole table with comments takes two thousand.
pub const MAX_FILE: u64 = 256 * 1024;

/// Environment variables with our prefix that are no configuration key.
pub const OTHER_VARIABLES: &[&str] = &[
    "PQCNET_PASSPHRASE", // unlocks a key file
    "PQCNET_STATE",      // where `pqcnet up` keeps its network
    "PQCNET_CI_TARGET",
    "PQCNET_SKIP_DEPS",
    "PQCNET_OS_RELEASE",
];

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file, at a line from 1.
    File(PathBuf, usize),
    /// In the environment.
    Environment(String),
    /// On the command line.
    Flag(String),
    /// Nowhere: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(text) => write!(f, "flag --set {text}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value's text and where it stands. Types were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As text, whatever its type.
    pub text: String,
    /// Where it stands.
    pub origin: Origin,
}

/// All values by key path, the highest layer's each, and what was wrong.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// By key path.
    pub values: BTreeMap<&'static str, Entry>,
    /// Everything that was wrong, in the order found.
    pub errors: Vec<ConfigError>,
}

impl Layers {
    /// Defaults, the file's text, the environment, then flags (`key=value` each).
    pub fn gather(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Layers {
        let mut layers = Layers::default();
        // Where a node keeps its store must not depend on where it was started: defaults lie beside the file as well.
        let folder = file.and_then(|(path, _)| path.parent());
        for key in KEYS {
            match (key.default, key.of, folder) {
                (Some(text), Type::Path, Some(folder)) => {
                    layers.put(key, &beside(folder, text), Origin::Default);
                }
                (Some(text), _, _) => layers.put(key, text, Origin::Default),
                (None, _, _) => {}
            }
        }
        if let Some((path, text)) = file {
            layers.file(path, text);
        }
        layers.environment(environment);
        for flag in flags {
            layers.flag(flag);
        }
        layers
    }

    fn file(&mut self, path: &Path, text: &str) {
        let at = |offset: usize| {
            let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
            Origin::File(
                path.to_owned(),
                before.iter().filter(|byte| **byte == b'\n').count() + 1,
            )
        };
        match DeTable::parse(text) {
            Ok(table) => self.table("", table.get_ref(), &at),
            Err(error) => self.errors.push(ConfigError::Syntax {
                origin: at(error.span().map_or(0, |span| span.start)),
                message: error.message().to_owned(),
            }),
        }
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        for (name, value) in table {
            let path = format!("{prefix}{}", name.get_ref());
            let origin = at(name.span().start);
            match (value.get_ref(), keys::find(&path)) {
                (DeValue::Table(inner), None) if KEYS.iter().any(|key| within(key, &path)) => {
                    self.table(&format!("{path}."), inner, at);
                }
                (_, None) => self.unknown(&path, origin),
                (_, Some(key)) => self.typed(key, value, origin),
            }
        }
    }

    fn typed(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, origin: Origin) {
        let fits = match (key.of, value.get_ref()) {
            (
                Type::Path | Type::Socket | Type::Words(_) | Type::Collector,
                DeValue::String(text),
            ) => Some(text.to_string()),
            (Type::Ordered(_), DeValue::Array(words)) => {
                let words = words.iter().map(|word| word.get_ref().as_str());
                words
                    .collect::<Option<Vec<&str>>>()
                    .map(|words| words.join(","))
            }
            (Type::Bool, DeValue::Boolean(yes)) => Some(yes.to_string()),
            (Type::Number(..) | Type::Ratio, DeValue::Integer(number)) => Some(number.to_string()),
            (Type::Ratio, DeValue::Float(number)) => Some(number.to_string()),
            _ => None,
        };
        match fits {
            Some(text) => self.put(key, &text, origin),
            None => self.errors.push(ConfigError::WrongType {
                origin,
                key: key.path,
                wanted: key.of.name(),
                found: value.get_ref().type_str(),
            }),
        }
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let names: Vec<String> = KEYS.iter().map(keys::environment_name).collect();
        for (name, text) in variables {
            if !name.starts_with("PQCNET_") || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            match KEYS.iter().zip(&names).find(|(_, known)| **known == name) {
                Some((key, _)) => self.put(key, &text, origin),
                None => self.errors.push(ConfigError::Unknown {
                    origin,
                    did_you_mean: keys::nearest(
                        &name,
                        names
                            .iter()
                            .map(String::as_str)
                            .chain(OTHER_VARIABLES.iter().copied()),
                    )
                    .map(str::to_owned),
                    key: name,
                }),
            }
        }
    }

    fn flag(&mut self, flag: &str) {
        let origin = Origin::Flag(flag.to_owned());
        let Some((path, text)) = flag.split_once('=') else {
            self.errors.push(ConfigError::NoValue { origin });
            return;
        };
        match keys::find(path.trim()) {
            Some(key) => self.put(key, text.trim(), origin),
            None => self.unknown(path.trim(), origin),
        }
    }

    fn unknown(&mut self, path: &str, origin: Origin) {
        self.errors.push(ConfigError::Unknown {
            origin,
            key: path.to_owned(),
            did_you_mean: suggestion(path),
        });
    }

    fn put(&mut self, key: &'static Key, text: &str, origin: Origin) {
        match check(key, text, &origin) {
            Ok(text) => {
                self.values.insert(key.path, Entry { text, origin });
            }
            Err(error) => self.errors.push(error),
        }
    }
}

fn beside(folder: &Path, text: &str) -> String {
    folder.join(text).display().to_string()
}

/// Whether a key lies in the table at `path`.
fn within(key: &Key, path: &str) -> bool {
    key.path
        .strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// A near key or table, or the key with the same or a near last word: `level` at the top was meant as `log.level`.
fn suggestion(path: &str) -> Option<String> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let tables = || KEYS.iter().filter_map(|key| key.path.rsplit_once('.'));
    keys::nearest(path, KEYS.iter().map(|key| key.path))
        .or_else(|| keys::nearest(path, tables().map(|(table, _)| table)))
        .or_else(|| {
            KEYS.iter()
                .map(|key| key.path)
                .find(|key| key.rsplit('.').next() == Some(last))
        })
        // A key of a table, written at the top or in a table that is none: `lisen.dat`, `levle`.
        .or_else(|| {
            let name = keys::nearest(last, tables().map(|(_, name)| name))?;
            let meant = |key: &&str| key.rsplit('.').next() == Some(name);
            KEYS.iter().map(|key| key.path).find(|key| meant(key))
        })
        .map(str::to_owned)
}

/// The value as it will be used: paths of a file made relative to it, everything else unchanged.
fn check(key: &'static Key, text: &str, origin: &Origin) -> Result<String, ConfigError> {
    let invalid = |why: String, did_you_mean: Option<&str>| ConfigError::Invalid {
        origin: origin.clone(),
        key: key.path,
        why,
        did_you_mean: did_you_mean.map(str::to_owned),
    };
    match key.of {
        Type::Path if text.is_empty() => Err(invalid("an empty path".to_owned(), None)),
        Type::Path => Ok(match origin {
            Origin::File(file, _) => beside(file.parent().unwrap_or(Path::new("")), text),
            Origin::Environment(_) | Origin::Flag(_) | Origin::Default => text.to_owned(),
        }),
        Type::Socket => match text.parse::<std::net::SocketAddr>() {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => {
                let with_host = text
                    .strip_prefix("localhost")
                    .map(|rest| format!("127.0.0.1{rest}"));
                Err(invalid(
                    format!("`{text}` is no IP address with a port"),
                    with_host.as_deref(),
                ))
            }
        },
        Type::Bool => match text {
            "true" | "false" => Ok(text.to_owned()),
            _ => Err(invalid(format!("`{text}` is neither true nor false"), None)),
        },
        Type::Number(least, most) => match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(text.to_owned()),
            _ => Err(invalid(
                format!("{text} is not within {least} to {most}"),
                None,
            )),
        },
        Type::Ratio => match text.parse::<Ratio>() {
            Ok(ratio) => Ok(ratio.to_string()),
            Err(error) => Err(invalid(error.to_string(), None)),
        },
        Type::Collector => match text.parse::<Endpoint>() {
            Ok(endpoint) => Ok(endpoint.to_string()),
            Err(error @ EndpointError::ClearText(_)) => Err(ConfigError::Unsafe {
                origin: origin.clone(),
                key: key.path,
                why: error.to_string(),
                instead: "use https://, or a collector on loopback".to_owned(),
            }),
            Err(error) => Err(invalid(error.to_string(), None)),
        },
        Type::Ordered(words) => {
            let found: Vec<&str> = text.split(',').map(str::trim).collect();
            for (at, word) in found.iter().enumerate() {
                if !words.contains(word) {
                    let near = keys::nearest(word, words.iter().copied());
                    let why = format!("`{word}`: some of {}", words.join(", "));
                    return Err(invalid(why, near));
                }
                if found[..at].contains(word) {
                    return Err(invalid(format!("`{word}` stands there twice"), None));
                }
            }
            Ok(found.join(","))
        }
        Type::Words(words) => {
            let first = text.split(',').next().unwrap_or(text);
            if words.contains(&first) {
                Ok(text.to_owned())
            } else {
                let near = keys::nearest(first, words.iter().copied());
                Err(invalid(
                    format!("`{text}`: one of {}", words.join(", ")),
                    near,
                ))
            }
        }
    }
}
