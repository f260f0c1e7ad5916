//! Status for people: problems first, then a line a node, then its links.

use std::time::Duration;

use pqcnet_messages::Problem;
use pqcnet_messages::control::StatusReport;
use pqcnet_roles::caretaker::MADE_AT_MS;
use pqcnet_roles::steward::plane_name;

use super::{Answer, called, is_starting};
use crate::commands::keys::DAY_MS;
use crate::commands::nodes::Names;

/// Symptoms shown with a problem; `-o json` has all.
const SYMPTOMS: usize = 6;

/// Everything, a line each. Ages are as of `now_ms`, milliseconds since the Unix epoch.
pub fn lines(names: &Names, answers: &[Answer], problems: &[Problem], now_ms: u64) -> Vec<String> {
    let mut out = Vec::new();
    let starting = answers.iter().filter(|answer| is_starting(answer)).count();
    match (problems.len(), answers.len()) {
        (0, 1) if starting == 1 => out.push("the node is starting".to_owned()),
        (0, 1) => out.push("the node is well".to_owned()),
        (0, count) if starting > 0 => {
            out.push(format!(
                "{starting} of {count} nodes are starting, the others are well"
            ));
        }
        (0, count) => out.push(format!("all {count} nodes are well")),
        (1, _) => out.push("1 problem".to_owned()),
        (count, _) => out.push(format!("{count} problems, the gravest first")),
    }
    for problem in problems {
        out.extend(problem_lines(problem));
    }
    out.push(String::new());
    for answer in answers {
        let who = called(names, &answer.node);
        match &answer.said {
            Err(error) => out.push(format!("{who}  {error}")),
            Ok(report) => node_lines(names, &who, report, is_starting(answer), now_ms, &mut out),
        }
    }
    out
}

/// A problem with its cause, its remedy and what it explains.
pub fn problem_lines(problem: &Problem) -> Vec<String> {
    let mut out = vec![format!(
        "{:<8}  {}  {}",
        problem.severity.name(),
        problem.code,
        problem.what
    )];
    if !problem.cause.is_empty() {
        out.push(format!("  cause     {}", problem.cause));
    }
    if !problem.fix.is_empty() {
        out.push(format!("  fix       {}", problem.fix));
    }
    let count = problem.explains.len();
    if count > 0 {
        let shown = problem.explains.iter().take(SYMPTOMS).cloned();
        let mut shown: Vec<String> = shown.collect();
        if count > SYMPTOMS {
            shown.push(format!("{} more", count - SYMPTOMS));
        }
        out.push(format!("  explains  {count}: {}", shown.join("; ")));
    }
    out
}

/// How old the keys are that a node has in use; `None` where it knows of none.
fn ages(report: &StatusReport, now_ms: u64) -> Option<String> {
    let ages = report.counters.iter().filter_map(|(name, made_at_ms)| {
        let purpose = name.strip_suffix(MADE_AT_MS)?;
        let days = now_ms.saturating_sub(*made_at_ms) / DAY_MS;
        let plural = if days == 1 { "" } else { "s" };
        Some(format!("{purpose} {days} day{plural}"))
    });
    let ages: Vec<String> = ages.collect();
    (!ages.is_empty()).then(|| ages.join(", "))
}

fn node_lines(
    names: &Names,
    who: &str,
    report: &StatusReport,
    starting: bool,
    now_ms: u64,
    out: &mut Vec<String>,
) {
    let well = match (report.problems.is_empty(), starting) {
        (true, false) => "ok",
        (true, true) => "starting",
        (false, _) => "unhealthy",
    };
    let sum = |of: fn(&pqcnet_messages::control::ShardStatus) -> u64| -> u64 {
        report.shards.iter().map(of).sum()
    };
    let mut line = format!(
        "{who}  {:<8} {well}  {}  up {:?}  {} links",
        report.role.name(),
        report.software,
        Duration::from_secs(report.uptime_ms / 1000),
        report.links.len(),
    );
    if !report.shards.is_empty() {
        line.push_str(&format!(
            "  {} shards  {} records  {} bytes sealed  lag {}",
            report.shards.len(),
            sum(|shard| shard.records),
            sum(|shard| shard.bytes),
            report
                .shards
                .iter()
                .map(|shard| shard.lag_records)
                .max()
                .unwrap_or(0),
        ));
    }
    out.push(line);
    if let Some(ages) = ages(report, now_ms) {
        out.push(format!("  keys  {ages} old"));
    }
    for link in &report.links {
        out.push(format!(
            "  link  {}  {:<8} {} plane",
            names.full(&link.peer),
            link.role.name(),
            plane_name(link.plane)
        ));
    }
}

#[cfg(test)]
mod tests {
    use pqcnet_crypto::NodeId;
    use pqcnet_messages::Role;
    use pqcnet_p2p::network::NodeEntry;
    use pqcnet_roles::steward::AWAITED;

    use super::*;

    fn answer(byte: u8, awaited: u64) -> Answer {
        let node_id = NodeId::from_bytes([byte; 32]);
        let report = StatusReport {
            node_id,
            role: Role::Relayer,
            software: "pqcnet/0.1.0".to_owned(),
            uptime_ms: 1_000,
            links: Vec::new(),
            shards: Vec::new(),
            counters: vec![(AWAITED.to_owned(), awaited)],
            problems: Vec::new(),
        };
        Answer {
            node: NodeEntry {
                id: node_id,
                roles: [Role::Relayer].into(),
                control: Vec::new(),
                data: Vec::new(),
            },
            said: Ok(report),
        }
    }

    // Scenario: of two nodes one has just started and waits for its links. Nobody has a problem, and nobody is told that all
    // is well either.
    #[test]
    fn a_node_that_starts_is_neither_well_nor_unwell() {
        let names = Names::default();
        let said = |answers: &[Answer]| lines(&names, answers, &[], 0);
        let told = said(&[answer(1, 2), answer(2, 0)]);
        assert_eq!(told[0], "1 of 2 nodes are starting, the others are well");
        assert!(
            told[2].contains("relayer  starting  pqcnet/0.1.0"),
            "{told:?}"
        );
        assert!(told[3].contains("relayer  ok  pqcnet/0.1.0"), "{told:?}");
        assert_eq!(said(&[answer(1, 1)])[0], "the node is starting");
        assert_eq!(said(&[answer(1, 0)])[0], "the node is well");
    }
}
