//! `pqcnet keys show`: what a key file says to everybody, as TOML.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use pqcnet_crypto::keystore::{self, Entry, Summary};

use super::DAY_MS;
use crate::exit::{Exit, Failed};

/// Which file.
#[derive(Debug, Args)]
pub struct Show {
    /// The key file.
    #[arg(default_value = "node.keys")]
    path: PathBuf,
}

/// Prints it. The file stays closed: nothing here is secret, and nothing is proven until it is opened.
pub fn run(show: &Show, now_ms: u64) -> Result<Exit, Failed> {
    let summary = keystore::summary(&show.path).map_err(Failed::usage)?;
    print!("{}", shown(&summary, now_ms));
    Ok(Exit::Ok)
}

fn shown(summary: &Summary, now_ms: u64) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    match summary.node_id() {
        Some(id) => line(format!("node_id = \"{id}\"")),
        None => line(format!("root = \"{}\"", hex::encode(summary.public_id))),
    }
    line(format!("holds = \"{}\"", summary.kind));
    line(format!("locked_by = \"{}\"", summary.protection));
    let Some(table) = &summary.versions else {
        if summary.node_id().is_some() {
            line("# A file of format 1: one identity of unknown age, no KEM key.".to_owned());
            line("# `pqcnet keys rotate kem` makes the first and writes format 2.".to_owned());
        }
        return out;
    };
    let storage = table.storage_made_at_ms;
    line("\n[storage]".to_owned());
    match storage {
        0 => line("# made at an unknown time".to_owned()),
        made => {
            line(format!(
                "age_days = {}",
                now_ms.saturating_sub(made) / DAY_MS
            ));
            line(format!("made_at_ms = {made}"));
        }
    }
    let in_use = table
        .identities
        .iter()
        .position(|entry| entry.id == summary.public_id);
    for (at, entry) in table.identities.iter().enumerate() {
        let state = match Some(at).cmp(&in_use) {
            std::cmp::Ordering::Less => "former",
            std::cmp::Ordering::Equal => "in use",
            std::cmp::Ordering::Greater => "prepared",
        };
        line(of_entry("identity", "node_id", state, entry, now_ms));
    }
    for (at, entry) in table.kem.iter().enumerate() {
        let state = if at + 1 == table.kem.len() {
            "in use"
        } else {
            "former"
        };
        line(of_entry("kem", "fingerprint", state, entry, now_ms));
    }
    out
}

fn of_entry(table: &str, id: &str, state: &str, entry: &Entry, now_ms: u64) -> String {
    let version = entry.version;
    let mut out = format!(
        "\n[[{table}]]\nversion = {}\nstate = \"{state}\"\n",
        version.version
    );
    let mut put = |text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).expect("a String takes any text");
    };
    put(format_args!("{id} = \"{}\"\n", hex::encode(entry.id)));
    match version.age_ms(now_ms) {
        Some(age) => put(format_args!("age_days = {}\n", age / DAY_MS)),
        None => put(format_args!("# made at an unknown time\n")),
    }
    if version.made_at_ms != 0 {
        put(format_args!("made_at_ms = {}\n", version.made_at_ms));
    }
    if version.until_ms != 0 {
        let over = if version.holds(now_ms) {
            ""
        } else {
            "  # over; the next rotation erases it"
        };
        put(format_args!("until_ms = {}{over}\n", version.until_ms));
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    // Scenario: a node that rotated both of its keys is shown as TOML with every version, its state and its age; a root
    // key has none.
    use super::*;
    use pqcnet_crypto::keystore::{Unlock, WrappingKey};
    use pqcnet_crypto::{MlDsaKeyPair, NodeSecrets};
    use std::path::Path;

    const NOW: u64 = 1_800_000_000_000;

    fn table(text: &str) -> toml::Table {
        text.parse()
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn every_version_is_shown() {
        let key = WrappingKey::copied_from(&[1; 32]);
        let mut secrets = NodeSecrets::generate_at(NOW);
        let old = secrets.keys.node_id();
        secrets.rotate_kem(NOW + 5 * DAY_MS, 2 * DAY_MS).unwrap();
        secrets.prepare_identity(NOW + 5 * DAY_MS).unwrap();
        let new = secrets
            .use_prepared(NOW + 5 * DAY_MS, NOW + 35 * DAY_MS)
            .unwrap();
        secrets.prepare_identity(NOW + 6 * DAY_MS).unwrap();
        let file = keystore::sealed(Path::new("k"), &secrets, Unlock::KeyFile(&key)).unwrap();
        let summary = keystore::summary_of(Path::new("k"), &file).unwrap();
        let table = table(&shown(&summary, NOW + 8 * DAY_MS));
        assert_eq!(table["node_id"].as_str(), Some(new.to_string().as_str()));
        assert_eq!(table["storage"]["age_days"].as_integer(), Some(8));
        let list = |name: &str| table[name].as_array().unwrap().clone();
        let states = |name: &str| -> Vec<(i64, String, i64)> {
            (list(name).iter())
                .map(|entry| {
                    let number = |key: &str| entry[key].as_integer().unwrap();
                    let state = entry["state"].as_str().unwrap().to_owned();
                    (number("version"), state, number("age_days"))
                })
                .collect()
        };
        let of = |version, state: &str, age| (version, state.to_owned(), age);
        assert_eq!(
            states("identity"),
            [of(1, "former", 8), of(2, "in use", 3), of(3, "prepared", 2)]
        );
        assert_eq!(states("kem"), [of(1, "former", 8), of(2, "in use", 3)]);
        let first = &list("identity")[0];
        assert_eq!(first["node_id"].as_str(), Some(old.to_string().as_str()));
        assert_eq!(
            first["until_ms"].as_integer(),
            i64::try_from(NOW + 35 * DAY_MS).ok()
        );
    }

    #[test]
    fn a_root_key_has_no_versions() {
        let key = WrappingKey::copied_from(&[1; 32]);
        let root = MlDsaKeyPair::generate();
        let file = keystore::sealed(Path::new("k"), &root, Unlock::KeyFile(&key)).unwrap();
        let summary = keystore::summary_of(Path::new("k"), &file).unwrap();
        let table = table(&shown(&summary, NOW));
        assert_eq!(table.len(), 3, "{table}");
        assert_eq!(table["holds"].as_str(), Some("a network's root key"));
    }
}
