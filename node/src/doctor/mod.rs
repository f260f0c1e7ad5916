//! Checks a node and its surroundings as the node would meet them, without starting it and without changing anything.
//!
//! ```text
//!   config ─┬─ keys ────────┬─ identity ─┬─ peers (reachability, each step of the handshake)
//!           ├─ network file ┘            └─ store (of a relayer)
//!           └─ machine: self-test, clock, disk, descriptors, ports
//! ```
//!
//! A check whose ground is missing is skipped and says which other one has to be mended first, so that one fault is one
//! finding. Every failure has a [`Code`] and its remedy.

mod code;
mod config;
mod keys;
mod machine;
mod network;
mod owner;
mod peers;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pqcnet_actor::Env;
use pqcnet_messages::Role;
use serde::Serialize;

pub use code::{Code, RUNBOOK};

use crate::config::NodeConfig;

/// What a check is about; the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The configuration.
    Config,
    /// Key file, permissions, what opens it.
    Keys,
    /// `network.toml`.
    Network,
    /// Whether both agree on who this node is and what it may be.
    Identity,
    /// Cryptographic self-test, clock, descriptors.
    Machine,
    /// Free space.
    Disk,
    /// Addresses to listen at.
    Ports,
    /// The relayer's shard log.
    Store,
    /// Ways to other nodes.
    Peers,
}

impl Group {
    /// In output.
    pub fn name(self) -> &'static str {
        match self {
            Group::Config => "config",
            Group::Keys => "keys",
            Group::Network => "network",
            Group::Identity => "identity",
            Group::Machine => "machine",
            Group::Disk => "disk",
            Group::Ports => "ports",
            Group::Store => "store",
            Group::Peers => "peers",
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Failed,
    /// Not looked at: another check has to pass first, or it does not apply.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about.
    pub group: Group,
    /// How it ended.
    pub state: State,
    /// The failure's name; empty without one.
    pub code: &'static str,
    /// What was found.
    pub what: String,
    /// What mends it; empty without a failure.
    pub fix: String,
}

impl Check {
    fn ok(group: Group, what: impl Into<String>) -> Check {
        Check {
            group,
            state: State::Ok,
            code: "",
            what: what.into(),
            fix: String::new(),
        }
    }

    fn failed(group: Group, code: Code, what: impl Into<String>) -> Check {
        Check {
            group,
            state: State::Failed,
            code: code.name(),
            what: what.into(),
            fix: code.fix(),
        }
    }

    fn skipped(group: Group, what: impl Into<String>) -> Check {
        Check {
            state: State::Skipped,
            ..Check::ok(group, what)
        }
    }
}

/// What to examine.
#[derive(Clone, Debug, Default)]
pub struct Patient {
    /// The configuration's file; without one, defaults and the environment.
    pub file: Option<PathBuf>,
    /// Over file and environment: `key=value`.
    pub set: Vec<String>,
    /// What it is to be; without it, what the network file grants its keys.
    pub role: Option<Role>,
}

/// Every check, in the order of the groups.
pub async fn examine(env: &Env, patient: &Patient) -> Vec<Check> {
    let (mut checks, config) = config::check(patient);
    checks.push(machine::self_test());
    checks.push(machine::descriptors());
    match config {
        Some(config) => configured(env, patient, &config, &mut checks).await,
        None => {
            let needs = "needs a configuration that passes";
            for group in [
                Group::Keys,
                Group::Network,
                Group::Ports,
                Group::Store,
                Group::Peers,
            ] {
                checks.push(Check::skipped(group, needs));
            }
        }
    }
    checks.sort_by_key(|check| check.group);
    checks
}

async fn configured(env: &Env, patient: &Patient, config: &NodeConfig, checks: &mut Vec<Check>) {
    let (found, secrets) = keys::check(config);
    checks.extend(found);
    let (found, network) = network::check(config);
    checks.push(found);
    checks.push(machine::clock(env.wall_ms(), &files(patient, config)));
    let file = patient.file.as_deref();
    checks.extend(machine::ports(config, file));
    let (Some(secrets), Some(network)) = (secrets, network) else {
        let needs = "needs keys and a network file that pass";
        for group in [Group::Identity, Group::Store, Group::Peers] {
            checks.push(Check::skipped(group, needs));
        }
        return;
    };
    let keys = Arc::new(secrets.keys);
    let standings = network::standings(config, &Arc::new(network));
    let id = keys.node_id();
    let (found, role) = network::identity(config, &standings, id, patient.role, env.wall_ms());
    checks.extend(found);
    let Some(role) = role else {
        checks.push(Check::skipped(
            Group::Store,
            "needs a role that the network grants",
        ));
        checks.push(Check::skipped(
            Group::Peers,
            "needs a role that the network grants",
        ));
        return;
    };
    checks.extend(store::check(config, role, file));
    checks.extend(peers::check(env, keys, &standings, role).await);
}

/// Files whose times tell whether the clock went back.
fn files(patient: &Patient, config: &NodeConfig) -> Vec<PathBuf> {
    let own = patient.file.iter().map(PathBuf::as_path);
    let named = [
        config.keys.as_path(),
        config.network.as_path(),
        config.store.as_path(),
    ];
    own.chain(named).map(Path::to_owned).collect()
}
