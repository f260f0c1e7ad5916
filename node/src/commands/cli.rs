//! The command line of `pqcnet`, and what each command runs on.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pqcnet_telemetry::{LogFormat, LogLevel, logs};

use super::{
    bundle, config, db, dead_letters, doctor, keys, network, pages, ping, publish, report, root,
    status, subscribe, top, ui, up, upkeep,
};
use crate::demo;
use crate::exit::{Exit, Failed};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pqcnet",
    version,
    about = "A post-quantum overlay network of supervised actors",
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 unhealthy, 4 unreachable, 5 refused.\n\
                  Data goes to standard output, logs to standard error."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `pqcnet` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep a network of one sentry and two relayers running on this machine.
    Up(up::UpArgs),
    /// Carry real input through one sentry and two relayers as processes of their own, and prove what arrived.
    Demo(demo::DemoArgs),
    /// A part of the demo.
    #[command(hide = true)]
    DemoPublisher(demo::publisher::PublisherArgs),
    /// A part of the demo.
    #[command(hide = true)]
    DemoSubscriber(demo::subscriber::SubscriberArgs),
    /// Publish arguments, or lines of standard input, to a channel.
    Publish(publish::PublishArgs),
    /// Print a channel's payloads, each once, in order.
    Subscribe(subscribe::SubscribeArgs),
    /// List what a consumer group put aside in a channel: records that a member refused, or that none got past.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Ask nodes how they are.
    Status(status::StatusArgs),
    /// Measure the way to nodes.
    Ping(ping::PingArgs),
    /// Print the address of a node's page, for a browser on its machine.
    Ui(ui::UiArgs),
    /// Ask a running node to stop in order, and wait until it is gone.
    Drain(upkeep::DrainArgs),
    /// Copy a relayer's store: of a running node by its own hand, or of one that is stopped.
    Backup(upkeep::BackupArgs),
    /// Put a backup back where no store is, verified.
    Restore(upkeep::RestoreArgs),
    /// Look through a relayer's store.
    #[command(subcommand)]
    Db(db::Db),
    /// Make, show and judge reports of what a relayer carried, for whom, and what receivers signed for.
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// Watch a network: what is wrong, every node, the shards furthest behind.
    Top(top::TopArgs),
    /// Check a node and its surroundings without starting it; each failure comes with its remedy.
    Doctor(doctor::DoctorArgs),
    /// Put everything that helps to understand a trouble into one file, without secrets.
    Bundle(bundle::BundleArgs),
    /// Make and show a node's keys.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Make a network's root key, and let it order: grants of roles, directives signed elsewhere.
    #[command(subcommand)]
    Root(root::Root),
    /// Make and show a network file: who is in the network, in which role, and where.
    #[command(subcommand)]
    Network(network::Network),
    /// Write, check and show a node's configuration.
    #[command(subcommand)]
    Config(config::Config),
    /// Print what a shell needs to complete this command line.
    Completions(pages::CompletionsArgs),
    /// Print the manual page, or write all of them.
    Man(pages::ManArgs),
}

/// Does it.
pub fn run(command: Command) -> Result<Exit, Failed> {
    match command {
        Command::Keys(command) => keys::run(&command),
        Command::Root(command) => root::run(&command),
        Command::Network(command) => network::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Db(command) => db::run(&command),
        Command::Report(command) => report::run(&command),
        Command::Drain(args) => on_network(upkeep::drain(&args)),
        Command::Backup(args) => on_network(upkeep::backup(&args)),
        Command::Restore(args) => on_network(upkeep::restore(&args)),
        Command::Ui(args) => ui::run(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
        Command::Up(args) => on_network(up::run(&args)),
        Command::Demo(args) => on_network(demo::run(&args)),
        Command::DemoPublisher(args) => on_network(demo::publisher::run(&args)),
        Command::DemoSubscriber(args) => on_network(demo::subscriber::run(&args)),
        Command::Publish(args) => on_network(publish::run(&args)),
        Command::Subscribe(args) => on_network(subscribe::run(&args)),
        Command::DeadLetters(args) => on_network(dead_letters::run(&args)),
        Command::Status(args) => on_network(status::status(&args)),
        Command::Bundle(args) => on_network(bundle::bundle(&args)),
        Command::Top(args) => on_network(top::top(&args)),
        Command::Doctor(args) => on_network(doctor::doctor(&args)),
        Command::Ping(args) => on_network(ping::ping(&args)),
    }
}

/// Runs a command on the threads and with the logs of a client.
pub(super) fn on_network(
    command: impl Future<Output = Result<Exit, Failed>>,
) -> Result<Exit, Failed> {
    client_logs()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("no runtime")?;
    let outcome = runtime.block_on(command);
    // A thread that waits for standard input must not hold the exit up.
    runtime.shutdown_background();
    outcome
}

/// Warnings, or what PQCNET_LOG_LEVEL says.
fn client_logs() -> Result<(), Failed> {
    let level = std::env::var("PQCNET_LOG_LEVEL").unwrap_or_else(|_| "warn".to_owned());
    let level: LogLevel = level.parse().map_err(Failed::usage)?;
    logs::init(&level, LogFormat::Text).map_err(Failed::usage)
}
