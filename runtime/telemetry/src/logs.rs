//! `tracing` to standard error.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pqcnet_actor::TRACE_TARGET;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, reload};

use crate::otlp::Otlp;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl LogFormat {
    /// The words in a configuration file.
    pub const NAMES: [&'static str; 2] = ["text", "json"];
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<LogFormat, LogError> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}

/// What is logged: a level for everything, or `target=level` pairs after it, as in `info,pqcnet_p2p=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The level words.
    pub const NAMES: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        LogLevel("info".to_owned())
    }
}

impl FromStr for LogLevel {
    type Err = LogError;

    /// Strict where `EnvFilter` is not: it would read a misspelt level as a target and log nothing.
    fn from_str(text: &str) -> Result<LogLevel, LogError> {
        for (index, part) in text.split(',').enumerate() {
            let level = match part.split_once('=') {
                Some((target, level)) if index > 0 && !target.is_empty() => level,
                Some(_) => return Err(LogError::Level(part.to_owned())),
                None if index == 0 => part,
                None => return Err(LogError::Level(part.to_owned())),
            };
            if !Self::NAMES.contains(&level) {
                return Err(LogError::Level(level.to_owned()));
            }
        }
        Ok(LogLevel(text.to_owned()))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why logging could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such format.
    #[error("`{0}` is no log format: text or json")]
    Format(String),
    /// No such level, or pairs without a leading level.
    #[error("`{0}` is no log level: off, error, warn, info, debug or trace, then `,target=level`")]
    Level(String),
    /// A subscriber is installed already.
    #[error("logging is set up already")]
    Twice,
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogHandle(Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>);

impl LogHandle {
    /// From now on this is logged; false if logging has ended.
    pub fn set_level(&self, level: &LogLevel) -> Result<bool, LogError> {
        Ok((self.0)(filter(level)?))
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogHandle")
    }
}

/// Steps of traces are for the exporter; in a log each would be a prefix of every line within it.
fn filter(level: &LogLevel) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(format!("{level},{TRACE_TARGET}=off"))
        .map_err(|_| LogError::Level(level.as_str().to_owned()))
}

/// Installs the process's one subscriber. Colours only on a terminal.
pub fn init(level: &LogLevel, format: LogFormat) -> Result<(), LogError> {
    init_with(level, format, None).map(|_| ())
}

/// The same for a node: with the exporter of traces beside the log if there is one, and a handle to change the level.
pub fn init_with(
    level: &LogLevel,
    format: LogFormat,
    exporter: Option<&Otlp>,
) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal && format == LogFormat::Text);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    // A layer that is `None` would take what every other leaves out.
    let installed = match exporter {
        Some(exporter) => log.with(exporter.layer()).try_init(),
        None => log.try_init(),
    };
    installed.map_err(|_| LogError::Twice)?;
    Ok(LogHandle(Arc::new(move |filter| {
        handle.reload(filter).is_ok()
    })))
}

#[cfg(test)]
mod tests {
    // Scenario: words from a configuration file are read strictly; a second subscriber is refused.
    use super::*;

    #[test]
    fn levels_are_strict() {
        for good in [
            "info",
            "off",
            "warn,pqcnet_p2p=debug",
            "info,a=trace,b::c=off",
        ] {
            assert_eq!(
                good.parse::<LogLevel>().map(|level| level.to_string()),
                Ok(good.to_owned())
            );
        }
        for (bad, part) in [
            ("inof", "inof"),
            ("", ""),
            ("pqcnet=info", "pqcnet=info"),
            ("info,debug", "debug"),
            ("info,pqcnet=loud", "loud"),
            ("info,=debug", "=debug"),
        ] {
            assert_eq!(
                bad.parse::<LogLevel>(),
                Err(LogError::Level(part.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn formats_are_strict() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!(
            "xml".parse::<LogFormat>(),
            Err(LogError::Format("xml".to_owned()))
        );
    }

    #[test]
    fn a_process_logs_once_and_may_change_its_level() {
        let level = "warn,pqcnet=info".parse().unwrap();
        let handle = init_with(&level, LogFormat::Json, None).unwrap();
        assert_eq!(init(&level, LogFormat::Text), Err(LogError::Twice));
        assert!(!tracing::enabled!(target: "pqcnet", tracing::Level::DEBUG));
        assert_eq!(handle.set_level(&"debug".parse().unwrap()), Ok(true));
        assert!(tracing::enabled!(target: "pqcnet", tracing::Level::DEBUG));
        // A step of a trace would be a prefix of every line, and cost what it costs to make.
        assert!(tracing::info_span!(target: TRACE_TARGET, "step").is_disabled());
        assert!(!tracing::info_span!("other").is_disabled());
    }
}
