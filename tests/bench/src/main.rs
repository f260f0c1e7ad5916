//! `make bench`: every figure beside a named peer measured in the same run.
//!
//! One module a group, each `pub fn run(args: &Args) -> anyhow::Result<Vec<Row>>`. Rows go to standard output as a
//! table or, with `--json`, one JSON object a line.
#![allow(clippy::print_stdout, reason = "the table is this program's data")]

mod actor;
mod ask;
mod compare;
mod connections;
mod cpu;
mod crypto;
mod flow;
mod handshake;
mod pair;
mod relay;
mod row;
mod stream;
mod tls;
mod traces;

use clap::{Parser, Subcommand};

use row::Row;

/// What every group is run with.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "pqcnet-bench",
    about = "Measures PQCNet beside named peers",
    version
)]
pub struct Args {
    /// Which group to run.
    #[command(subcommand)]
    pub group: Group,
    /// Shorter runs, for a check that everything still works; the figures are noisier.
    #[arg(long, global = true)]
    pub quick: bool,
    /// Only this part of a group that has parts: bursts, shards, stored, fairness, memory or broker of `relay`; carried or metered of `flow`.
    #[arg(long, global = true)]
    pub part: Option<String>,
    /// One JSON object a line instead of the table.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Args {
    /// Whether rows of this part are wanted.
    pub fn wants(&self, part: &str) -> bool {
        self.part.as_deref().is_none_or(|wanted| wanted == part)
    }
}

/// The groups of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Group {
    /// Every group, one after another.
    All,
    /// Telling and asking actors beside actix, kameo and ractor.
    Actor,
    /// Primitives of a handshake and a record beside aws-lc-rs.
    Crypto,
    /// A whole handshake beside rustls.
    Handshake,
    /// One stream on both planes beside rustls, libp2p-tls and libp2p-noise.
    Stream,
    /// Publish to delivery through a sentry and a relayer.
    Flow,
    /// Shard workers and log in one process beside a bare RocksDB, and on a RabbitMQ beside a bare lapin loop.
    Relay,
    /// Of the relay's group what needs a RabbitMQ.
    Broker,
    /// What tracing costs, off and on.
    Tracing,
    /// Remote asks beside tonic over rustls.
    Ask,
    /// Memory of a sentry with thousands of idle clients, of its links with other nodes, and of a session.
    Connections,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    for row in measure(&args)? {
        print_row(&row, args.json);
    }
    Ok(())
}

type Measure = fn(&Args) -> anyhow::Result<Vec<Row>>;

const GROUPS: [(Group, Measure); 9] = [
    (Group::Actor, actor::run),
    (Group::Crypto, crypto::run),
    (Group::Handshake, handshake::run),
    (Group::Stream, stream::run),
    (Group::Flow, flow::run),
    (Group::Relay, relay::run),
    (Group::Tracing, traces::run),
    (Group::Ask, ask::run),
    (Group::Connections, connections::run),
];

fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if args.group == Group::Broker {
        return relay::on_broker(args);
    }
    for (group, run) in GROUPS {
        if args.group == Group::All || args.group == group {
            rows.extend(run(args)?);
        }
    }
    Ok(rows)
}

fn print_row(row: &Row, json: bool) {
    if json {
        let peer = row
            .peer
            .as_ref()
            .map(|peer| serde_json::json!({ "name": peer.name, "value": peer.value }));
        println!(
            "{}",
            serde_json::json!({
                "group": row.group, "what": row.what, "value": row.value, "unit": row.unit,
                "peer": peer, "ratio": row.ratio(),
            })
        );
    } else {
        println!("{row}");
    }
}
