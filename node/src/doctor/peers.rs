//! Ways to other nodes: an address, a connection, each step of the handshake, who answers.

use std::sync::Arc;

use futures::future::join_all;
use pqcnet_actor::Env;
use pqcnet_crypto::{NodeId, NodeKeys};
use pqcnet_mesh::Standings;
use pqcnet_messages::Role;
use pqcnet_p2p::network::NodeEntry;
use pqcnet_qstp::Reason;

use super::{Check, Code, Group};
use crate::operator::{NoAnswer, Operator, Step, connect};

/// Nodes that are tried; a larger network is looked at in part.
const MAX_TRIED: usize = 64;

/// Tries every node that this one works with.
pub(super) async fn check(
    env: &Env,
    keys: Arc<NodeKeys>,
    standings: &Standings,
    role: Role,
) -> Vec<Check> {
    let network = standings.network();
    let own = standings.seat(keys.node_id());
    let operator = match Operator::new(env, keys, network) {
        Ok(operator) => operator,
        Err(error) => return vec![Check::skipped(Group::Peers, error.to_string())],
    };
    let works_with = |node: &&NodeEntry| {
        let roles: &[Role] = match role {
            Role::Sentry => &[Role::Relayer],
            _ => &[Role::Sentry, Role::Relayer],
        };
        node.id != own && roles.iter().any(|role| node.roles.contains(role))
    };
    let listed = network.nodes().iter().filter(works_with).take(MAX_TRIED);
    // Under the identities that they have now.
    let tried: Vec<NodeEntry> = listed
        .map(|node| NodeEntry {
            id: standings.successor(node.id),
            ..node.clone()
        })
        .collect();
    if tried.is_empty() {
        return vec![Check::ok(Group::Peers, "there is nobody else to reach")];
    }
    let bootstrap = network.bootstrap().into_iter();
    let bootstrap: Vec<NodeId> = bootstrap.map(|node| standings.successor(node.id)).collect();
    let data = join_all(tried.iter().map(|node| data(&operator, node, role))).await;
    let neighbours = tried.iter().filter(|node| bootstrap.contains(&node.id));
    let mut checks: Vec<Check> = data;
    // A node that is not there at all is one finding, not one for each of its ports.
    let down = |node: &NodeEntry, checks: &[Check]| {
        let who = node.id.short();
        checks
            .iter()
            .any(|check| check.code == Code::PeerUnreachable.name() && check.what.contains(&who))
    };
    let neighbours: Vec<&NodeEntry> = neighbours.filter(|node| !down(node, &checks)).collect();
    checks.extend(join_all(neighbours.into_iter().map(control)).await);
    checks
}

fn called(node: &NodeEntry) -> String {
    let roles: Vec<&str> = node.roles.iter().map(|role| role.name()).collect();
    format!("{} {}", roles.join("+"), node.id.short())
}

async fn data(operator: &Operator, node: &NodeEntry, role: Role) -> Check {
    let who = called(node);
    if node.data.is_empty() {
        let told = format!("{who} has no data address in the network file");
        // Only a sentry dials on the data plane.
        return match role {
            Role::Sentry => Check::failed(Group::Peers, Code::PeerNoAddress, told),
            _ => Check::skipped(Group::Peers, told),
        };
    }
    match operator.reach(node).await {
        Ok(reached) => {
            let steps = reached.secured.account.steps;
            let told = format!(
                "{who} answers at {}: route {:?}, KEM {:?}, signature {:?}",
                reached.at, reached.route, steps.kem, steps.signature,
            );
            Check::ok(Group::Peers, told)
        }
        Err(error) => {
            let told = format!("{who}: {error}");
            Check::failed(Group::Peers, code(&error), told)
        }
    }
}

async fn control(node: &NodeEntry) -> Check {
    let who = called(node);
    let mut last = None;
    for at in &node.control {
        match connect(at).await {
            Ok(_) => {
                return Check::ok(
                    Group::Peers,
                    format!("{who} takes control connections at {at}"),
                );
            }
            Err(error) => last = Some(error),
        }
    }
    let why = last.map(|error| error.why).unwrap_or_default();
    let told = format!("{who} on the control plane: {why}");
    Check::failed(Group::Peers, Code::PeerControlUnreachable, told)
}

fn code(error: &NoAnswer) -> Code {
    match (error.step, error.fault) {
        (Step::Route, _) => Code::PeerUnreachable,
        (_, Some(Reason::WrongNetwork)) => Code::PeerOtherNetwork,
        (_, Some(Reason::Identity { .. } | Reason::SelfConnect)) => Code::PeerOtherIdentity,
        (
            _,
            Some(Reason::Version { .. } | Reason::NoCommonSuite { .. } | Reason::Profile { .. }),
        ) => Code::PeerOtherVersion,
        (_, Some(Reason::Malformed | Reason::Unexpected { .. } | Reason::Unknown { .. })) => {
            Code::PeerNotPqcnet
        }
        (_, Some(_)) => Code::PeerRefuses,
        (_, None) if error.refused => Code::PeerRefuses,
        (_, None) => Code::PeerMute,
    }
}
