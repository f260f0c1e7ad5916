//! `network.toml`, and whether it and the keys agree on who this node is.

use std::net::SocketAddr;
use std::sync::Arc;

use pqcnet_crypto::NodeId;
use pqcnet_mesh::{Shelf, Standings, load_directives};
use pqcnet_messages::Role;
use pqcnet_p2p::network::{Address, NetworkFile, NetworkFileError, Problem};

use super::{Check, Code, Group};
use crate::config::NodeConfig;

/// Roles that a binary exists for.
const RUN: [Role; 2] = [Role::Sentry, Role::Relayer];

pub(super) fn check(config: &NodeConfig) -> (Check, Option<NetworkFile>) {
    match NetworkFile::load(&config.network) {
        Ok(network) => {
            let told = format!(
                "{}: network {} ({}…), {} nodes, {} shards",
                config.network.display(),
                network.name(),
                &network.network_id().to_string()[..8],
                network.nodes().len(),
                network.shards(),
            );
            (Check::ok(Group::Network, told), Some(network))
        }
        Err(error) => (
            Check::failed(Group::Network, code(&error), error.to_string()),
            None,
        ),
    }
}

fn code(error: &NetworkFileError) -> Code {
    match error {
        NetworkFileError::Read { .. } => Code::NetworkMissing,
        NetworkFileError::TooLarge { .. } => Code::NetworkInvalid,
        NetworkFileError::Invalid { problem, .. } => match **problem {
            Problem::Syntax(_) => Code::NetworkSyntax,
            Problem::NetworkIdMismatch { .. } => Code::NetworkEdited,
            _ => Code::NetworkInvalid,
        },
    }
}

/// What the root has ordered so far, as the node keeps it, over the network file. What cannot be read is nothing: the node
/// itself says so when it starts.
pub(super) fn standings(config: &NodeConfig, network: &Arc<NetworkFile>) -> Standings {
    let table = load_directives(&Shelf::at(&config.mesh), network).unwrap_or_default();
    Standings::new(
        network.clone(),
        table.iter().map(|signed| &signed.directive),
    )
}

/// Whether the network lists these keys, with which role, and at the addresses where the node listens.
pub(super) fn identity(
    config: &NodeConfig,
    standings: &Standings,
    id: NodeId,
    wanted: Option<Role>,
    now_ms: u64,
) -> (Vec<Check>, Option<Role>) {
    let network = standings.network();
    if let Err(standing) = standings.valid(id, now_ms) {
        let told = standing.to_string();
        return (
            vec![Check::failed(Group::Identity, Code::IdentityUnlisted, told)],
            None,
        );
    }
    // A node that rotated its identity is listed under the first one.
    let Some(entry) = network.node(&standings.seat(id)) else {
        let told = format!(
            "network {} does not list {id}, the node of these keys",
            network.name()
        );
        return (
            vec![Check::failed(Group::Identity, Code::IdentityUnlisted, told)],
            None,
        );
    };
    let granted: Vec<&str> = entry.roles.iter().map(|role| role.name()).collect();
    let role = match wanted {
        Some(role) => Some(role).filter(|role| entry.roles.contains(role)),
        None => RUN.into_iter().find(|role| entry.roles.contains(role)),
    };
    let Some(role) = role else {
        let told = format!(
            "{} is listed as {}, not as {}",
            id.short(),
            granted.join(", "),
            wanted.map_or("a sentry or relayer", Role::name),
        );
        return (
            vec![Check::failed(Group::Identity, Code::RoleNotGranted, told)],
            None,
        );
    };
    let mut checks = vec![Check::ok(
        Group::Identity,
        match entry.id == id {
            true => format!("{} is listed as {}", id.short(), granted.join(", ")),
            false => format!(
                "{} succeeded {}, which is listed as {}",
                id.short(),
                entry.id.short(),
                granted.join(", ")
            ),
        },
    )];
    for (key, listens, listed) in [
        ("listen.control", config.control, &entry.control),
        ("listen.data", config.data, &entry.data),
    ] {
        if !reachable_as(listens, listed) {
            let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
            let told = format!(
                "{key} is {listens}, the network file tells others {}",
                listed.join(", ")
            );
            checks.push(Check::failed(Group::Identity, Code::AddressDiffers, told));
        }
    }
    (checks, Some(role))
}

/// Whether a listed address can lead to where the node listens. Names and forwarded addresses may; ports have to agree
/// unless an address is not this machine's at all.
fn reachable_as(listens: SocketAddr, listed: &[Address]) -> bool {
    if listed.is_empty() {
        return true;
    }
    listed.iter().any(|at| match at.ip() {
        Some(ip) if ip == listens.ip() || ip.is_loopback() == listens.ip().is_loopback() => {
            at.port() == listens.port()
        }
        // Another machine's address forwards here, perhaps to another port.
        Some(ip) => !ip.is_loopback() && !listens.ip().is_loopback(),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: ports must agree on the same kind of address; a name may be anything; loopback is nobody else's way in.
    #[test]
    fn listed_addresses_lead_to_listeners() {
        let of = |text: &str| text.parse::<Address>().unwrap();
        let listens: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        assert!(reachable_as(listens, &[]));
        assert!(reachable_as(listens, &[of("127.0.0.1:7000")]));
        assert!(reachable_as(listens, &[of("localhost:7000")]));
        assert!(!reachable_as(listens, &[of("127.0.0.1:7001")]));
        assert!(!reachable_as(listens, &[of("192.0.2.1:7000")]));
        let public: SocketAddr = "0.0.0.0:7000".parse().unwrap();
        assert!(reachable_as(public, &[of("192.0.2.1:7000")]));
        assert!(!reachable_as(public, &[of("192.0.2.1:7001")]));
    }
}
