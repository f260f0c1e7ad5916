//! `pqcnet status` and `pqcnet ping`: asks nodes how they are, over the network itself.

use std::time::Duration;

use clap::{Args, ValueEnum};
use pqcnet_actor::Env;
use pqcnet_messages::control::{Ping, Status, StatusReport};
use pqcnet_p2p::network::{NetworkFile, NodeEntry};
use pqcnet_roles::steward::plane_name;
use serde_json::{Value, json};

use super::identity::IdentityArgs;
use crate::exit::{Exit, Failed};
use crate::operator::{NoAnswer, Operator};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Which nodes, and how to print what they say.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A node's id or the beginning of it; without one, every node with a data address.
    node: Option<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Which node to ping, and how often.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// A node's id or the beginning of it; without one, every node with a data address.
    node: Option<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Pings per node.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

/// `pqcnet status`: 0 if every node is well, 3 if one is not, 4 or 5 if one does not answer.
pub async fn status(args: &StatusArgs) -> Result<Exit, Failed> {
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let mut worst = Exit::Ok;
    let mut documents = Vec::new();
    for node in chosen(&identity.network, args.node.as_deref())? {
        let answer = ask_status(&operator, node).await;
        worst = worse(worst, &answer);
        match args.output {
            Output::Text => print_text(node, &answer),
            Output::Json => documents.push(as_json(node, &answer)),
        }
    }
    if args.output == Output::Json {
        println!("{}", Value::Array(documents));
    }
    Ok(worst)
}

/// One node's account.
pub async fn ask_status(operator: &Operator, node: &NodeEntry) -> Result<StatusReport, NoAnswer> {
    operator.link(node).await?.ask(Status {}).await
}

fn worse(worst: Exit, answer: &Result<StatusReport, NoAnswer>) -> Exit {
    let this = match answer {
        Ok(report) if report.problems.is_empty() => Exit::Ok,
        Ok(_) => Exit::Unhealthy,
        Err(error) => error.exit(),
    };
    if this as u8 > worst as u8 {
        this
    } else {
        worst
    }
}

fn print_text(node: &NodeEntry, answer: &Result<StatusReport, NoAnswer>) {
    let report = match answer {
        Ok(report) => report,
        Err(error) => return println!("{}  {error}", node.id.short()),
    };
    let well = if report.problems.is_empty() {
        "ok"
    } else {
        "unhealthy"
    };
    println!(
        "{}  {:<8} {well}  {}  up {:?}  {} links  {} shards  {} records",
        node.id.short(),
        report.role.name(),
        report.software,
        Duration::from_secs(report.uptime_ms / 1000),
        report.links.len(),
        report.shards.len(),
        report.shards.iter().map(|shard| shard.records).sum::<u64>(),
    );
    for link in &report.links {
        println!(
            "  link  {}  {:<8} {} plane",
            link.peer.short(),
            link.role.name(),
            plane_name(link.plane)
        );
    }
    for problem in &report.problems {
        println!("  problem  {problem}");
    }
}

fn as_json(node: &NodeEntry, answer: &Result<StatusReport, NoAnswer>) -> Value {
    let report = match answer {
        Ok(report) => report,
        Err(error) => return json!({ "node_id": node.id, "error": error.to_string() }),
    };
    let links = report.links.iter().map(|link| {
        json!({ "peer": link.peer, "role": link.role.name(), "plane": plane_name(link.plane) })
    });
    let shards = report.shards.iter().map(|shard| {
        json!({ "id": shard.id, "channels": shard.channels, "records": shard.records, "bytes": shard.bytes })
    });
    let counters = report
        .counters
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(*value)));
    json!({
        "node_id": report.node_id,
        "role": report.role.name(),
        "healthy": report.problems.is_empty(),
        "software": report.software,
        "uptime_ms": report.uptime_ms,
        "links": links.collect::<Vec<_>>(),
        "shards": shards.collect::<Vec<_>>(),
        "counters": counters.collect::<serde_json::Map<_, _>>(),
        "problems": report.problems,
    })
}

/// `pqcnet ping`.
pub async fn ping(args: &PingArgs) -> Result<Exit, Failed> {
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let mut worst = Exit::Ok;
    for node in chosen(&identity.network, args.node.as_deref())? {
        if let Err(error) = ping_one(&env, &operator, node, args.count).await {
            println!("{}  {error}", node.id.short());
            let this = error.exit();
            worst = if this as u8 > worst as u8 {
                this
            } else {
                worst
            };
        }
    }
    Ok(worst)
}

async fn ping_one(
    env: &Env,
    operator: &Operator,
    node: &NodeEntry,
    count: u32,
) -> Result<(), NoAnswer> {
    let link = operator.link(node).await?;
    println!(
        "{}  handshake in {:?}",
        node.id.short(),
        link.handshake.took
    );
    for nonce in 1..=u64::from(count) {
        let sent = env.now();
        let pong = link.ask(Ping { nonce }).await?;
        if pong.nonce != nonce {
            return Err(NoAnswer::Refused(format!(
                "answered ping {nonce} with {}",
                pong.nonce
            )));
        }
        let took = env.now().saturating_sub(sent);
        println!(
            "{}  {} {}  {took:?}",
            node.id.short(),
            pong.role,
            pong.software
        );
    }
    Ok(())
}

/// Nodes that can be dialled, narrowed by the beginning of an id.
fn chosen<'a>(network: &'a NetworkFile, id: Option<&str>) -> Result<Vec<&'a NodeEntry>, Failed> {
    let begins = |node: &&NodeEntry| id.is_none_or(|id| node.id.to_string().starts_with(id));
    let nodes: Vec<&NodeEntry> = network
        .nodes()
        .iter()
        .filter(|node| !node.data.is_empty())
        .filter(begins)
        .collect();
    if nodes.is_empty() {
        let told = id.unwrap_or_default();
        let known = network.nodes().iter().filter(|node| !node.data.is_empty());
        let known: Vec<String> = known.map(|node| node.id.short().to_string()).collect();
        return Err(Failed::usage(anyhow::anyhow!(
            "no node's id begins with `{told}`; nodes with a data address: {}",
            known.join(", ")
        )));
    }
    Ok(nodes)
}
