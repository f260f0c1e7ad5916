//! `pqcnet bundle`: everything that helps to understand a node's trouble, in one tar file that holds no secret.
//!
//! Key files, passphrases and stores are never read into it. Whatever is, goes through the [`Redactor`]: the secrets that this
//! machine knows, and everything that looks like one, are taken out.

mod redact;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use pqcnet_actor::Env;
use pqcnet_p2p::network::NetworkFile;
use serde_json::json;

pub use redact::{REDACTED, Redactor};

use super::identity::STATE;
use super::nodes::{Names, chosen};
use super::status::{ask, document, problems};
use crate::config::{self, NodeConfig, UnlockSource};
use crate::doctor::{Patient, State, examine};
use crate::exit::{Exit, Failed};
use crate::local::folder::LocalFolder;
use crate::operator::Operator;
use crate::unlock::{Opener, PASSPHRASE_VARIABLE};

/// Of each log, its end.
const LOG_BYTES: u64 = 2 * 1024 * 1024;
/// Largest file that holds a secret of ours.
const SECRET_BYTES: u64 = 4096;

/// What goes in.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The node's configuration; without it, every node of the folder --state.
    file: Option<PathBuf>,
    /// The folder of a network made by `pqcnet up`; its logs and its nodes' status go in too.
    #[arg(long, env = "PQCNET_STATE", default_value = STATE)]
    state: PathBuf,
    /// A log to put in, its last 2 MiB.
    #[arg(long = "log", value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// The file to make, never over another one; its mode is 0600.
    #[arg(long, default_value = "pqcnet-bundle.tar")]
    out: PathBuf,
}

/// One file of the bundle.
struct Part {
    name: String,
    text: String,
}

/// `pqcnet bundle`.
pub async fn bundle(args: &BundleArgs) -> Result<Exit, Failed> {
    let folder = match &args.file {
        // One that is there and does not read as a configuration goes in with what is wrong with it.
        Some(file) => {
            let read = File::open(file).and_then(|mut file| file.read(&mut [0]));
            read.with_context(|| format!("cannot read {}", file.display()))
                .map_err(Failed::usage)?;
            None
        }
        None if LocalFolder::exists(&args.state) => {
            Some(LocalFolder::open(&args.state).map_err(Failed::usage)?)
        }
        None => {
            return Err(Failed::usage(anyhow::anyhow!(
                "name a node's configuration, or --state with a network's folder"
            )));
        }
    };
    let nodes: Vec<(String, PathBuf)> = match (&args.file, &folder) {
        (Some(file), _) => vec![("node".to_owned(), file.clone())],
        (None, Some(folder)) => {
            let nodes = folder.nodes().map_err(Failed::usage)?.into_iter();
            nodes.map(|node| (node.name, node.config)).collect()
        }
        (None, None) => Vec::new(),
    };
    let env = Env::plain();
    let mut parts = vec![versions()];
    let mut secrets = known_secrets();
    let mut public = Vec::new();
    for (name, file) in &nodes {
        parts.extend(node_parts(&env, name, file, &mut secrets, &mut public).await);
    }
    let mut logs: Vec<(String, PathBuf)> = (args.logs.iter())
        .map(|path| (path.display().to_string().replace('/', "_"), path.clone()))
        .collect();
    if let Some(folder) = &folder {
        parts.push(status_part(&env, folder).await);
        let own = nodes
            .iter()
            .map(|(name, _)| (name.clone(), folder.root().join(name).join("log.txt")));
        logs.extend(own.filter(|(_, path)| path.exists()));
    }
    for (name, path) in logs {
        let text = end_of(&path)
            .with_context(|| format!("cannot read {}", path.display()))
            .map_err(Failed::usage)?;
        parts.push(Part {
            name: format!("logs/{name}.txt"),
            text,
        });
    }
    let redactor = Redactor::new(secrets, public);
    let count = parts.len();
    write(&args.out, parts, &redactor)?;
    say!("{}", args.out.display());
    eprintln!(
        "{count} files; look through them before you give them away: no filter knows every secret"
    );
    Ok(Exit::Ok)
}

/// Its effective configuration, its network, what the doctor finds.
async fn node_parts(
    env: &Env,
    name: &str,
    file: &Path,
    secrets: &mut Vec<String>,
    public: &mut Vec<String>,
) -> Vec<Part> {
    let part = |kind: &str, text: String| Part {
        name: format!("{name}/{kind}"),
        text,
    };
    let mut parts = Vec::new();
    match config::gather(Some(file), &[]) {
        // Only values of keys that a node knows: whatever else stands in the file stays there.
        Ok(layers) => {
            parts.push(part("config.txt", config::shown(&layers, true)));
            match NodeConfig::from_layers(layers) {
                Ok(config) => {
                    secrets.extend(secrets_of(&config));
                    if let Ok(network) = NetworkFile::load(&config.network) {
                        public.push(network.network_id().to_string());
                        public.push(hex::encode(network.root().as_bytes()));
                        public.extend(network.nodes().iter().map(|node| node.id.to_string()));
                        parts.push(part("network.toml", network.to_toml()));
                    }
                }
                Err(errors) => parts.push(part("config-errors.txt", errors.to_string())),
            }
        }
        Err(errors) => parts.push(part("config-errors.txt", errors.to_string())),
    }
    let patient = Patient {
        file: Some(file.to_owned()),
        ..Patient::default()
    };
    let checks = examine(env, &patient).await;
    let healthy = checks.iter().all(|check| check.state != State::Failed);
    let told = json!({ "healthy": healthy, "checks": checks });
    parts.push(part("doctor.json", format!("{told:#}\n")));
    parts
}

async fn status_part(env: &Env, folder: &LocalFolder) -> Part {
    let text = match status_of(env, folder).await {
        Ok(text) => text,
        Err(error) => format!("{}\n", json!({ "error": error.to_string() })),
    };
    Part {
        name: "status.json".to_owned(),
        text,
    }
}

async fn status_of(env: &Env, folder: &LocalFolder) -> Result<String, Failed> {
    let opener = Opener::from_source(&folder.unlock()).map_err(Failed::usage)?;
    let secrets: pqcnet_crypto::NodeSecrets = opener
        .open(&folder.keys_of("operator"))
        .map_err(Failed::usage)?;
    let (network, names) = (folder.network(), Names::of_folder(folder));
    let operator = Operator::new(env, std::sync::Arc::new(secrets.keys), network)?;
    let answers = ask(&operator, &chosen(network, &names, None)?).await;
    let problems = problems(network, &names, &answers);
    Ok(format!("{:#}\n", document(&names, &answers, &problems)))
}

/// What runs, and on what.
fn versions() -> Part {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut variables: Vec<String> = variables
        .filter(|name| name.starts_with("PQCNET_"))
        .collect();
    variables.sort_unstable();
    let text = format!(
        "{}\n{}{}\nset in the environment, values left out: {}\n",
        crate::SOFTWARE,
        read("/proc/version"),
        read("/etc/os-release"),
        variables.join(" "),
    );
    Part {
        name: "versions.txt".to_owned(),
        text,
    }
}

fn known_secrets() -> Vec<String> {
    std::env::var(PASSPHRASE_VARIABLE).into_iter().collect()
}

/// What opens the node's keys, and its page's token, in the forms in which a text could hold them.
fn secrets_of(config: &NodeConfig) -> Vec<String> {
    let mut secrets = Vec::new();
    match &config.unlock {
        UnlockSource::PassphraseFile(path) => {
            let text = small(path);
            secrets.push(
                String::from_utf8_lossy(&text)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
            );
        }
        UnlockSource::KeyFile(path) => {
            let key = small(path);
            secrets.push(hex::encode(&key));
            secrets.push(hex::encode_upper(&key));
        }
        UnlockSource::Ask => {}
    }
    let page = small(&config.page_url);
    let page = String::from_utf8_lossy(&page).trim().to_owned();
    secrets.extend(page.rsplit(['=', '#', '/']).next().map(str::to_owned));
    secrets.push(page);
    secrets
}

fn small(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SECRET_BYTES).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    bytes
}

/// The end of a log, from the beginning of a line.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => text,
    })
}

fn write(out: &Path, parts: Vec<Part>, redactor: &Redactor) -> Result<(), Failed> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("cannot make {}", out.display()))
        .map_err(Failed::usage)?;
    let mut tar = tar::Builder::new(file);
    for Part { name, text } in parts {
        let text = redactor.clean(&text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        let path = Path::new("pqcnet-bundle").join(name);
        tar.append_data(&mut header, path, text.as_bytes())
            .context("the bundle")?;
    }
    tar.into_inner()
        .and_then(|file| file.sync_all())
        .context("the bundle")?;
    Ok(())
}
