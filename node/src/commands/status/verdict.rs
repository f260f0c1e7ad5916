//! What is wrong with a network, out of what its nodes say: root causes with their symptoms.

use std::collections::BTreeSet;

use pqcnet_messages::{Problem, Role, ShardMap};
use pqcnet_p2p::network::{NetworkFile, NodeEntry};
use pqcnet_roles::problem::{Code, explain};

use super::{Answer, called};
use crate::commands::nodes::Names;

/// Everything that is wrong, gravest first: nodes that do not answer, what nodes report of themselves and each other, and
/// what only shows across nodes. What several nodes say of one is one problem, at its root.
pub fn problems(network: &NetworkFile, names: &Names, answers: &[Answer]) -> Vec<Problem> {
    let mut seen: Vec<Problem> = Vec::new();
    let reports = answers
        .iter()
        .filter_map(|answer| answer.said.as_ref().ok());
    let here = reports.flat_map(|report| report.shards.iter().map(|shard| shard.id));
    let here: BTreeSet<u32> = here.collect();
    for answer in answers {
        let who = called(names, &answer.node);
        match &answer.said {
            Err(error) => {
                let (code, does) = match error.refused {
                    true => (Code::NodeRefuses, "refuses"),
                    false => (Code::NodeUnreachable, "does not answer"),
                };
                let problem = code
                    .problem(format!("{who} {does}"))
                    .because(format!("{}: {}", error.step, error.why))
                    .about(answer.node.id);
                seen.push(problem.explaining(shards_of(network, &answer.node, &here)));
            }
            Ok(report) => seen.extend(report.problems.iter().map(|told| {
                Problem {
                    what: format!("{who}: {}", names.put_into(&told.what)),
                    cause: names.put_into(&told.cause),
                    explains: told
                        .explains
                        .iter()
                        .map(|symptom| names.put_into(symptom))
                        .collect(),
                    ..told.clone()
                }
            })),
        }
    }
    seen.extend(versions(names, answers));
    explain(seen)
}

/// What nobody can reach while this node does not answer: what the network file gives it, unless somebody says to have it.
fn shards_of(network: &NetworkFile, node: &NodeEntry, here: &BTreeSet<u32>) -> Vec<String> {
    if !node.roles.contains(&Role::Relayer) {
        return Vec::new();
    }
    let relayers = network.relayers().into_iter().map(|relayer| relayer.id);
    let Ok(map) = ShardMap::from_relayers(network.shards(), relayers) else {
        return Vec::new();
    };
    let told = map
        .owned_by(node.id)
        .filter(|shard| !here.contains(&u32::from(shard.0)))
        .map(|shard| format!("shard {} is out of reach", shard.0));
    told.take(pqcnet_messages::MAX_EXPLAINED).collect()
}

fn versions(names: &Names, answers: &[Answer]) -> Option<Problem> {
    let told = || {
        let said = answers
            .iter()
            .filter_map(|answer| Some((answer, answer.said.as_ref().ok()?)));
        said.map(|(answer, report)| (answer, report.software.as_str()))
    };
    let versions: BTreeSet<&str> = told().map(|(_, software)| software).collect();
    if versions.len() < 2 {
        return None;
    }
    let each =
        told().map(|(answer, software)| format!("{} runs {software}", called(names, &answer.node)));
    let what = format!(
        "{} versions of the software run in this network",
        versions.len()
    );
    let problem = Code::VersionsDiffer.problem(what);
    Some(
        problem
            .because("an upgrade is under way, or a node was forgotten")
            .explaining(each),
    )
}

#[cfg(test)]
mod tests {
    use pqcnet_crypto::NodeId;
    use pqcnet_messages::control::{ShardStatus, StatusReport};

    use super::*;
    use crate::operator::{NoAnswer, Step};

    fn node(byte: u8, role: Role) -> NodeEntry {
        NodeEntry {
            id: NodeId::from_bytes([byte; 32]),
            roles: [role].into(),
            control: Vec::new(),
            data: vec!["127.0.0.1:1".parse().unwrap()],
        }
    }

    fn network(nodes: Vec<NodeEntry>) -> NetworkFile {
        let root = pqcnet_crypto::MlDsaKeyPair::generate();
        NetworkFile::new(pqcnet_p2p::network::NetworkParts {
            name: "test".to_owned(),
            root: root.public().clone(),
            shards: 24,
            admission: pqcnet_p2p::network::Admission::Any,
            nodes,
            bootstrap: Vec::new(),
        })
        .unwrap()
    }

    fn said(node: &NodeEntry, role: Role, software: &str, problems: Vec<Problem>) -> Answer {
        let report = StatusReport {
            node_id: node.id,
            role,
            software: software.to_owned(),
            uptime_ms: 1,
            links: Vec::new(),
            shards: Vec::new(),
            counters: Vec::new(),
            problems,
        };
        Answer {
            node: node.clone(),
            said: Ok(report),
        }
    }

    /// Scenario: of two relayers one is dead. Its twelve shards, the sentry's missing links and the other relayer's are one
    /// problem with its name, and the step at which it did not answer.
    #[test]
    fn one_dead_relayer_is_one_problem() {
        let (sentry, dead, other) = (
            node(1, Role::Sentry),
            node(2, Role::Relayer),
            node(3, Role::Relayer),
        );
        let network = network(vec![sentry.clone(), dead.clone(), other.clone()]);
        let names = Names::new([
            (dead.id, "relayer-1".to_owned()),
            (sentry.id, "sentry-1".to_owned()),
        ]);
        let shards = (0..24u16).filter(|shard| shard % 2 == 0);
        let data = Code::DataLinkDown
            .problem("no link to 02020202 on the data plane")
            .about(dead.id)
            .explaining(shards.map(|shard| format!("shard {shard} is out of reach")));
        let control = Code::ControlLinkDown
            .problem("no link to 02020202 on the control plane")
            .about(dead.id);
        let refused = NoAnswer {
            step: Step::Route,
            refused: false,
            why: "connection refused".to_owned(),
            fault: None,
        };
        let answers = [
            said(&sentry, Role::Sentry, "a/1", vec![data]),
            Answer {
                node: dead.clone(),
                said: Err(refused),
            },
            said(&other, Role::Relayer, "a/1", vec![control]),
        ];
        let told = problems(&network, &names, &answers);
        assert_eq!(told.len(), 1, "{told:?}");
        let root = &told[0];
        assert_eq!(root.code, "node-unreachable");
        assert_eq!(root.what, "relayer-1 (02020202) does not answer");
        assert_eq!(root.cause, "route: connection refused");
        let shards = root
            .explains
            .iter()
            .filter(|symptom| symptom.starts_with("shard "));
        assert_eq!(shards.count(), 12, "{root:?}");
        let sentry = "sentry-1 (01010101): no link to relayer-1 (02020202) on the data plane";
        assert!(
            root.explains.iter().any(|symptom| symptom == sentry),
            "{root:?}"
        );
    }

    /// Scenario: a relayer without an answer was to have twelve shards; another one says to have ten of them. Two are out of reach.
    #[test]
    fn shards_that_somebody_has_are_in_reach() {
        let (gone, other) = (node(2, Role::Relayer), node(3, Role::Relayer));
        let network = network(vec![gone.clone(), other.clone()]);
        let mut heir = said(&other, Role::Relayer, "a/1", vec![]);
        let has = (0..20).map(|id| ShardStatus {
            id,
            ..ShardStatus::default()
        });
        heir.said.as_mut().unwrap().shards = has.collect();
        let silent = Answer {
            node: gone,
            said: Err(NoAnswer {
                step: Step::Route,
                refused: false,
                why: "connection refused".to_owned(),
                fault: None,
            }),
        };
        let told = problems(&network, &Names::default(), &[heir, silent]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            told[0].explains,
            [20, 22].map(|shard| format!("shard {shard} is out of reach"))
        );
    }

    /// Scenario: two versions in one network are a warning that says who runs which; one version is nothing.
    #[test]
    fn versions_that_differ_are_named() {
        let (one, two) = (node(1, Role::Relayer), node(2, Role::Relayer));
        let network = network(vec![one.clone(), two.clone()]);
        let same = [
            said(&one, Role::Relayer, "a/1", vec![]),
            said(&two, Role::Relayer, "a/1", vec![]),
        ];
        assert_eq!(problems(&network, &Names::default(), &same), []);
        let differ = [
            said(&one, Role::Relayer, "a/1", vec![]),
            said(&two, Role::Relayer, "a/2", vec![]),
        ];
        let told = problems(&network, &Names::default(), &differ);
        assert_eq!(told[0].code, "versions-differ");
        assert_eq!(told[0].explains, ["01010101 runs a/1", "02020202 runs a/2"]);
    }
}
