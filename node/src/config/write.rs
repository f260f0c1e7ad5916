//! The configuration as text: the commented file of `config init`, the effective values of `config show`.

use std::fmt::Write as _;

use super::keys::{KEYS, Key, Type};
use super::layers::Layers;

/// A commented file with every key at its default.
pub fn template() -> String {
    let mut out = String::from(
        "# A node of PQCNet. Every key with its default; `pqcnet config check FILE` reads it as the node would.\n\
         # PQCNET_<KEY> in the environment (PQCNET_LOG_LEVEL) goes over this file, `--set key=value` over both.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if table != section {
            section = table;
            line(&mut out, format_args!("\n[{table}]"));
        }
        line(&mut out, format_args!("# {}", key.help));
        match key.default {
            Some(value) => line(&mut out, format_args!("{name} = {}", literal(key, value))),
            None => line(&mut out, format_args!("# {name} = \"...\"")),
        }
    }
    out
}

/// The effective values, with where each comes from if wanted. Holds no secrets: those stand in the files that are named
/// here. With origins or without, it is TOML that sets these values.
pub fn shown(layers: &Layers, origins: bool) -> String {
    let mut out = String::new();
    for key in KEYS {
        match layers.values.get(key.path) {
            Some(entry) => {
                let value = literal(key, &entry.text);
                if origins {
                    line(
                        &mut out,
                        format_args!("{} = {value}  # {}", key.path, entry.origin),
                    );
                } else {
                    line(&mut out, format_args!("{} = {value}", key.path));
                }
            }
            None if origins => line(&mut out, format_args!("# {} is not set", key.path)),
            None => {}
        }
    }
    out
}

fn literal(key: &Key, value: &str) -> String {
    match key.of {
        Type::Bool | Type::Number(..) | Type::Ratio => value.to_owned(),
        Type::Ordered(_) => {
            let words = value.split(',').map(|word| word.to_owned().into());
            toml::Value::Array(words.collect()).to_string()
        }
        Type::Path | Type::Socket | Type::Words(_) | Type::Collector => {
            toml::Value::String(value.to_owned()).to_string()
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .and_then(|()| out.write_char('\n'))
        .expect("a String takes any text");
}
