//! A node process from its command line to its exit code.
//!
//! ```text
//!   flags, file, environment ─ configuration ─ logs ─ self-test ─ keys ─ network.toml ─ tree ─ admin pages ─ Ready
//!   SIGHUP ─ the configuration again: what may change does, a broken file changes nothing
//!   SIGTERM, SIGINT, an operator's drain, end of standard input ─ no more links ─ what is in flight ─ flush ─ exit 0
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pqcnet_actor::{Env, Exit as TreeExit, Running};
use pqcnet_crypto::self_test::{self, SelfTestError};
use pqcnet_crypto::{NodeSecrets, keystore};
use pqcnet_log::BrokerConfig;
use pqcnet_messages::{KemAdvert, Role};
use pqcnet_p2p::guard::GuardConfig;
use pqcnet_p2p::network::NetworkFile;
use pqcnet_roles::{Care, KeyVersions, Machine, Setup, StartError, Started};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::admin::watch::Constants;
use crate::admin::{self, Pages, keys};
use crate::config::{self, Layers, NodeConfig};
use crate::exit::{Exit, Failed, finish};
use crate::notify;
use crate::observe::Observed;
use crate::ready::Ready;
use crate::reload::Reloader;
use crate::unlock::{Opener, owners_text};

/// A node of PQCNet: runs until it is told to stop; `pqcnet config init` and `pqcnet keys init` make what it needs.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage or configuration."
)]
pub struct ServiceArgs {
    /// The configuration; `pqcnet config init` writes one. Without it, defaults and the environment.
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// Over file and environment: key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Stop when standard input ends: for whoever started this process and may die.
    #[arg(long)]
    pub stop_with_stdin: bool,
}

/// `main` of a node binary.
pub fn main(program: &'static str, role: Role) -> ExitCode {
    let matches = ServiceArgs::command().name(program).get_matches();
    let args = ServiceArgs::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    finish(program, run(role, &args))
}

fn run(role: Role, args: &ServiceArgs) -> Result<Exit, Failed> {
    let layers = config::gather(args.config.as_deref(), &args.set).map_err(Failed::usage)?;
    let config = NodeConfig::from_layers(layers.clone()).map_err(Failed::usage)?;
    sound(self_test::run())?;
    let network = NetworkFile::load(&config.network).map_err(|error| {
        let error = anyhow::Error::new(error);
        Failed::usage(match args.config {
            Some(_) => error,
            None => error.context(
                "no --config was given: name a configuration with it, or make one with `pqcnet config init`",
            ),
        })
    })?;
    let opener = Opener::from_source(&config.unlock).map_err(Failed::usage)?;
    let secrets: NodeSecrets = opener.open(&config.keys).map_err(Failed::usage)?;
    drop(opener);
    // Nothing before this line logs: what is wrong until here ends the process with words of its own.
    let observed = Observed::start(role, &config, secrets.keys.node_id())?;
    raise_descriptor_limit();
    let stop_with_stdin = args.stop_with_stdin;
    let source = Source {
        given: (args.config.clone(), args.set.clone()),
        layers,
    };
    let watching = observed.clone();
    let outcome = pqcnet_actor::run(role.name(), move |env| async move {
        watching.follow(&env);
        serve(
            env,
            watching,
            role,
            (config, source),
            Arc::new(network),
            secrets,
            stop_with_stdin,
        )
        .await
    });
    observed.stop();
    outcome.context("no runtime")?
}

/// What a node with as many links as it takes has open, 16,384 clients and their strangers and its store's tables
/// included, without being near the line below which it takes no new ones.
const DESCRIPTORS: u64 = 32_768;
/// With fewer it says so when it starts.
const FEW_DESCRIPTORS: u64 = 16_384;

/// A connection is a descriptor, and so is a table of the store. The soft limit of an ordinary login, 1,024, is met long
/// before this node's own limits on connections, and then the store fails too; so it goes up as far as it may.
fn raise_descriptor_limit() {
    let limit = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(limit).and_then(|(soft, hard)| {
        let wanted = DESCRIPTORS.min(hard);
        if soft < wanted {
            setrlimit(limit, wanted, hard)?;
        }
        Ok(soft.max(wanted))
    });
    match raised {
        Ok(descriptors) if descriptors < FEW_DESCRIPTORS => {
            tracing::warn!(
                descriptors,
                wanted = DESCRIPTORS,
                "many connections would use up this process's file descriptors"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on file descriptors stays as it is"),
    }
}

/// A quarter of all descriptors at most: whoever is silent at the door must never leave none for those who are let in.
fn strangers() -> usize {
    let most = GuardConfig::default().waiting;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) => usize::try_from(soft / 4).map_or(most, |quarter| quarter.min(most)),
        Err(_) => most,
    }
}

/// A node whose primitives do not give their known answers refuses to run.
fn sound(verdict: Result<(), SelfTestError>) -> Result<(), Failed> {
    verdict.map_err(|error| {
        let error = anyhow::Error::new(error);
        Failed::from(error.context("cryptographic self-test failed; this node refuses to run"))
    })
}

/// Where a configuration was read from, to read it again.
struct Source {
    /// The file and the flags.
    given: (Option<PathBuf>, Vec<String>),
    /// What they said.
    layers: Layers,
}

async fn serve(
    env: Env,
    observed: Observed,
    role: Role,
    (config, source): (NodeConfig, Source),
    network: Arc<NetworkFile>,
    secrets: NodeSecrets,
    stop_with_stdin: bool,
) -> Result<Exit, Failed> {
    let mut stops = Stops::new(&env, stop_with_stdin)?;
    // From here on it ends no node, also while one starts: it is read once the node serves.
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let constants = constants(role, &config, &network);
    let facts = keys::made(&constants.keys);
    let started = start(&env, role, &config, network, secrets, facts).await?;
    let pages = Pages::new(&started, &env, constants);
    let (admin_at, mut server) = admin::server(
        config.admin,
        config.metering_grpc,
        pages.clone(),
        &config.page_url,
    )
    .with_context(|| format!("cannot serve admin pages at {}", config.admin))?;
    observed.watch(&env, &pages);
    announce(&started, admin_at)?;
    tracing::info!(node = %started.node_id, %role, control = %started.control, data = %started.data, admin = %admin_at, "ready");

    notify::ready();
    notify::feed_watchdog(&env, started.steward.of());
    let live = started.live.clone();
    let mut reloader = Reloader::new(
        source.given,
        source.layers,
        observed.log.clone(),
        live.clone(),
        started.steward.of(),
    );
    let outcome = loop {
        let why = tokio::select! {
            biased;
            why = stops.next() => why,
            () = live.drain_ordered() => "an operator's order",
            _ = hangup.recv() => {
                notify::reloading();
                reloader.reload();
                notify::ready();
                continue;
            }
            exit = started.running.wait() => break Err(over(&exit)),
            ended = &mut server => {
                break Err(Failed::from(anyhow::anyhow!("the admin pages ended: {ended:?}")));
            }
        };
        let limit = live.drain_within();
        tracing::info!(why, ?limit, "draining");
        notify::stopping();
        pages.drain();
        break Ok(drain(&started.running, limit).await);
    };
    drop(started);
    outcome
}

/// What does not change while the node runs, for its page.
fn constants(role: Role, config: &NodeConfig, network: &Arc<NetworkFile>) -> Constants {
    // It has just been opened; without what it says in clear, the page says nothing of keys.
    let keys = keystore::summary(&config.keys)
        .map(|summary| keys::facts(&summary, role == Role::Relayer))
        .unwrap_or_default();
    Constants {
        network: network.clone(),
        keys,
        suites: config.suites.iter().map(|suite| suite.label()).collect(),
    }
}

async fn start(
    env: &Env,
    role: Role,
    config: &NodeConfig,
    network: Arc<NetworkFile>,
    secrets: NodeSecrets,
    facts: Vec<(String, u64)>,
) -> Result<Started, Failed> {
    let versions = KeyVersions {
        identity: secrets.versions.identity.version,
        kem: secrets.versions.kem().map(|kem| KemAdvert {
            version: kem.version.version,
            key: kem.key.public().clone(),
        }),
    };
    let NodeSecrets { keys, storage, .. } = secrets;
    let setup = Setup {
        keys: Arc::new(keys),
        network,
        suites: config.suites.clone(),
        control: config.control.into(),
        data: config.data.into(),
        software: crate::SOFTWARE.to_owned(),
        versions,
        lan: config.lan,
        reach: config.reach,
        care: Care {
            limits: config.limits,
            drain_within: config.drain,
            backups: config.backups.clone(),
            customer_channels: config.customer_channels,
            lag_records: config.lag_records,
            flood_rests: config.flood_rests,
            strangers: strangers(),
            metering: config.metering,
            facts,
        },
    };
    let outcome = match role {
        Role::Relayer => {
            let store = Some(config.store.clone());
            let mut machine = Machine::new(env.clone(), store)
                .with_mesh(&config.mesh)
                .with_reserve(config.reserve_bytes)
                .with_retention(config.retention);
            if let Some(file) = &config.broker {
                let mut broker = broker(file, &setup.network)?;
                broker.settings.retention = config.retention;
                machine = machine.with_broker(broker);
            }
            pqcnet_roles::relayer(&machine, setup, storage).await
        }
        Role::Sentry => {
            let machine = Machine::new(env.clone(), None).with_mesh(&config.mesh);
            pqcnet_roles::sentry(&machine, setup).await
        }
        other => {
            return Err(Failed::usage(anyhow::anyhow!(
                "no binary runs the role {other}"
            )));
        }
    };
    outcome.map_err(|error| match error {
        StartError::NotGranted { .. } | StartError::Barred { .. } => Failed::usage(error),
        other => Failed::from(anyhow::Error::new(other)),
    })
}

/// The broker whose address stands in this file. Networks that share one have names of their own there.
fn broker(file: &Path, network: &NetworkFile) -> Result<BrokerConfig, Failed> {
    let address = owners_text(file).map_err(Failed::usage)?;
    let id = hex::encode(&network.network_id().0[..8]);
    let config = BrokerConfig::new(address.trim(), format!("pqcnet.{id}"));
    config.map_err(|error| Failed::usage(anyhow::anyhow!("{}: {error}", file.display())))
}

/// A tree that ended without being asked to: its supervisors gave up, and the service manager decides.
fn over(exit: &TreeExit) -> Failed {
    Failed::from(anyhow::anyhow!("the supervision tree ended: {exit:?}"))
}

/// Stops the tree in order, within the limit.
async fn drain(running: &Running, limit: Duration) -> Exit {
    match tokio::time::timeout(limit, running.stop()).await {
        Ok(TreeExit::Stopped) => {
            tracing::info!("drained");
            Exit::Ok
        }
        Ok(other) => {
            tracing::error!(end = ?other, "not drained cleanly");
            Exit::Failure
        }
        Err(_) => {
            tracing::error!(?limit, "not drained in time");
            Exit::Failure
        }
    }
}

/// The one line of data a node prints.
fn announce(started: &Started, admin: std::net::SocketAddr) -> Result<(), Failed> {
    let ready = Ready {
        role: started.role.to_string(),
        node_id: started.node_id,
        control: started.control.to_string(),
        data: started.data.to_string(),
        admin,
        pid: std::process::id(),
    };
    let line = serde_json::to_string(&ready).context("the ready line")?;
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("standard output")?;
    Ok(())
}

/// Everything that asks a node to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Stops {
    fn new(env: &Env, with_stdin: bool) -> Result<Stops, Failed> {
        let stdin = with_stdin.then(|| stdin_closed(env)).transpose()?;
        Ok(Stops {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            stdin,
        })
    }

    async fn next(&mut self) -> &'static str {
        let stdin = async {
            match &mut self.stdin {
                // An error is the thread's end, which is the end of standard input too.
                Some(closed) => drop(closed.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = stdin => "standard input ended",
        }
    }
}

/// Resolves when standard input ends. Its thread ends with it, or with the process.
pub fn stdin_closed(env: &Env) -> anyhow::Result<oneshot::Receiver<()>> {
    let (closed, waiting) = oneshot::channel();
    env.dedicated_thread("stdin", move || {
        if let Err(error) = std::io::copy(&mut std::io::stdin(), &mut std::io::sink()) {
            tracing::debug!(%error, "standard input");
        }
        if closed.send(()).is_err() {
            tracing::trace!("standard input ended after the node");
        }
    })
    .context("no thread for standard input")?;
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    // Scenarios: a tree whose supervisor gives up ends the process with code 1; a failed self-test stops the start with code 1 and names the primitive; a passed one lets it go on.
    use super::*;
    use pqcnet_actor::{Behaviour, Cx, Intensity, Spec, Strategy, Tree};
    use pqcnet_crypto::self_test::{Fault, Primitive};

    struct Broken;
    impl Behaviour for Broken {
        const NAME: &'static str = "Broken";
        fn started(&mut self, _: &mut Cx<Self>) {
            panic!("meant to");
        }
    }

    #[test]
    fn a_root_that_gives_up_is_a_failure() {
        let exit = pqcnet_actor::run("test", |env| async move {
            let never = Intensity {
                restarts: 0,
                within: Duration::from_secs(1),
            };
            let mut tree = Tree::new("root", Strategy::OneForOne).intensity(never);
            tree.child(Spec::new("broken", |_| Broken));
            tree.start(env).wait().await
        });
        let failed = over(&exit.unwrap());
        assert_eq!(failed.exit, Exit::Failure);
        assert!(failed.to_string().contains("Escalated"), "{failed}");
    }

    #[test]
    fn a_node_that_fails_its_self_test_refuses_to_run() {
        let primitive = Primitive::MlDsa65;
        let failed = sound(Err(SelfTestError {
            primitive,
            fault: Fault::WrongAnswer,
        }))
        .unwrap_err();
        assert_eq!(failed.exit, Exit::Failure);
        let told = failed.to_string();
        assert!(
            told.starts_with("cryptographic self-test failed; this node refuses to run: "),
            "{told}"
        );
        assert!(told.contains("ML-DSA-65"), "{told}");
        assert!(sound(self_test::run()).is_ok());
    }
}
