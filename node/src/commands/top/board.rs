//! What a live view knows: the last round of answers, and how fast records came since the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use pqcnet_crypto::NodeId;
use pqcnet_messages::Problem;
use pqcnet_messages::control::{ShardStatus, StatusReport};

use crate::commands::nodes::Names;
use crate::commands::status::Answer;

/// The last round, and what it took to tell the rates.
#[derive(Clone, Debug)]
pub struct Board {
    /// The network's name.
    pub network: String,
    /// What nodes are called.
    pub names: Names,
    /// What each said.
    pub answers: Vec<Answer>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    rounds: u64,
    heard_at: Duration,
    /// Records stored by a node at the round before, and in a second since.
    records: BTreeMap<NodeId, (u64, f64)>,
}

impl Board {
    /// Knows nothing yet.
    pub fn new(network: &str, names: Names) -> Board {
        Board {
            network: network.to_owned(),
            names,
            answers: Vec::new(),
            problems: Vec::new(),
            rounds: 0,
            heard_at: Duration::ZERO,
            records: BTreeMap::new(),
        }
    }

    /// Rounds heard.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// A round's answers, at this time.
    pub fn hear(&mut self, now: Duration, answers: Vec<Answer>, problems: Vec<Problem>) {
        let since = now.saturating_sub(self.heard_at).as_secs_f64();
        let mut records = BTreeMap::new();
        for answer in &answers {
            let Ok(report) = &answer.said else { continue };
            let total = stored(report);
            let rate = match self.records.get(&answer.node.id) {
                // A node that restarted with fewer records has no rate.
                Some((before, _)) if since > 0.0 && total >= *before => {
                    (total - before) as f64 / since
                }
                _ => 0.0,
            };
            records.insert(answer.node.id, (total, rate));
        }
        self.records = records;
        self.answers = answers;
        self.problems = problems;
        self.heard_at = now;
        self.rounds += 1;
    }

    /// Records a second that a node stored since the round before.
    pub fn rate(&self, node: &NodeId) -> f64 {
        self.records.get(node).map_or(0.0, |(_, rate)| *rate)
    }

    /// Shards with their owners, the one furthest behind first.
    pub fn shards(&self) -> Vec<(NodeId, ShardStatus)> {
        let said = self
            .answers
            .iter()
            .filter_map(|answer| Some((answer.node.id, answer.said.as_ref().ok()?)));
        let mut shards: Vec<(NodeId, ShardStatus)> = said
            .flat_map(|(node, report)| report.shards.iter().map(move |shard| (node, shard.clone())))
            .collect();
        shards.sort_by_key(|(_, shard)| {
            (
                std::cmp::Reverse((shard.lag_records, shard.unwritten_bytes, shard.records)),
                shard.id,
            )
        });
        shards
    }
}

/// Records in all shards of a node.
pub fn stored(report: &StatusReport) -> u64 {
    report.shards.iter().map(|shard| shard.records).sum()
}
