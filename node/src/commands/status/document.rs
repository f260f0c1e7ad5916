//! Status for machines: one JSON document.
//!
//! `{"healthy": bool, "starting": bool, "problems": [{code, severity, what, cause, fix, about, explains}], "nodes": [{node_id, name, ...}]}`.
//! A node that did not answer has `error`, `step` and `refused` in the place of its account.

use pqcnet_messages::Problem;
use pqcnet_roles::steward::plane_name;
use serde_json::{Map, Value, json};

use super::{Answer, is_starting};
use crate::commands::nodes::Names;

/// The whole document.
pub fn document(names: &Names, answers: &[Answer], problems: &[Problem]) -> Value {
    json!({
        "healthy": problems.is_empty(),
        "starting": answers.iter().any(is_starting),
        "problems": problems,
        "nodes": answers.iter().map(|answer| node(names, answer)).collect::<Vec<_>>(),
    })
}

fn node(names: &Names, answer: &Answer) -> Value {
    let name = names.name(&answer.node.id);
    let report = match &answer.said {
        Ok(report) => report,
        Err(error) => {
            return json!({
                "node_id": answer.node.id,
                "name": name,
                "error": error.to_string(),
                "step": error.step,
                "refused": error.refused,
            });
        }
    };
    let links = report.links.iter().map(|link| {
        json!({
            "peer": link.peer,
            "name": names.name(&link.peer),
            "role": link.role.name(),
            "plane": plane_name(link.plane),
        })
    });
    let shards = report.shards.iter().map(|shard| {
        json!({
            "id": shard.id,
            "channels": shard.channels,
            "records": shard.records,
            // As they lie on the disk: each payload is sealed, which adds a few bytes.
            "sealed_bytes": shard.bytes,
            "subscriptions": shard.subscriptions,
            "lag_records": shard.lag_records,
            "unwritten_bytes": shard.unwritten_bytes,
            "paused_channels": shard.work().paused_channels,
            "paused": shard.work().paused.as_ref().map(|paused| json!({
                "channel": paused.channel.to_string(),
                "cause": paused.cause.to_string(),
            })),
            "group_members": shard.work().group_members,
            "dead_letters": shard.work().dead_letters,
        })
    });
    let counters = report
        .counters
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(*value)));
    json!({
        "node_id": report.node_id,
        "name": name,
        "role": report.role.name(),
        "healthy": report.problems.is_empty(),
        "starting": is_starting(answer),
        "software": report.software,
        "uptime_ms": report.uptime_ms,
        "links": links.collect::<Vec<_>>(),
        "shards": shards.collect::<Vec<_>>(),
        "counters": counters.collect::<Map<_, _>>(),
        "problems": report.problems,
    })
}
