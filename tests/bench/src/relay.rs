//! The relay's own path: shard workers and log, embedded and on a RabbitMQ.

mod broker;
mod embedded;
mod fairness;
mod rig;

use anyhow::Result;
use pqcnet_tests::private_broker::Broker;

use crate::Args;
use crate::row::Row;

const GROUP: &str = "relay";

/// Every row of the group.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let mut rows = pqcnet_actor::run("bench", |env| async move {
        let mut rows = Vec::new();
        if args.wants("bursts") {
            rows.extend(embedded::bursts(&env, args).await?);
        }
        if args.wants("shards") {
            rows.extend(embedded::by_shards(&env, args).await?);
        }
        if args.wants("stored") {
            rows.extend(embedded::by_level(&env, args).await?);
        }
        anyhow::Ok(rows)
    })??;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if args.wants("fairness") {
        rows.extend(runtime.block_on(fairness::fairness(args))?);
    }
    if args.wants("memory") {
        rows.extend(runtime.block_on(fairness::memory(args))?);
    }
    drop(runtime);
    if args.wants("broker") {
        rows.extend(on_broker(args)?);
    }
    Ok(rows)
}

/// Those of the log on a RabbitMQ.
pub fn on_broker(args: &Args) -> Result<Vec<Row>> {
    let server = Broker::start();
    pqcnet_actor::run("bench", |env| {
        let server = &server;
        async move { broker::rows(&env, args, server).await }
    })?
}
