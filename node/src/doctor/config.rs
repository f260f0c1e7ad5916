//! The configuration, as the node would read it.

use super::{Check, Code, Group, Patient};
use crate::config::{self, ConfigError, NodeConfig, Origin};

/// One finding for each error, or how many values stand where.
pub(super) fn check(patient: &Patient) -> (Vec<Check>, Option<NodeConfig>) {
    let place = match &patient.file {
        Some(path) => path.display().to_string(),
        None => "no file".to_owned(),
    };
    let outcome = config::gather(patient.file.as_deref(), &patient.set).and_then(|layers| {
        let values = layers.values.values();
        let defaults = values
            .filter(|entry| entry.origin == Origin::Default)
            .count();
        let all = layers.values.len();
        NodeConfig::from_layers(layers).map(|config| (config, all, defaults))
    });
    match outcome {
        Ok((config, all, defaults)) => {
            let told = format!("{place}: {all} values, {defaults} of them defaults");
            (vec![Check::ok(Group::Config, told)], Some(config))
        }
        Err(errors) => {
            let failed = errors
                .0
                .iter()
                .map(|error| Check::failed(Group::Config, code(error), error.to_string()));
            (failed.collect(), None)
        }
    }
}

fn code(error: &ConfigError) -> Code {
    match error {
        ConfigError::Read { .. } => Code::ConfigMissing,
        ConfigError::Syntax { .. } => Code::ConfigSyntax,
        ConfigError::Unknown { .. } => Code::ConfigUnknownKey,
        ConfigError::WrongType { .. } => Code::ConfigWrongType,
        ConfigError::Invalid { .. } | ConfigError::NoValue { .. } => Code::ConfigBadValue,
        ConfigError::Unsafe { .. } => Code::ConfigUnsafe,
    }
}
