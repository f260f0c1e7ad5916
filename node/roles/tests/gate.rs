//! A real relayer in this process: who gets a link on its planes, who does not, and what both sides say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::{AskError, Env, Exit};
use pqcnet_crypto::{MlDsaKeyPair, NodeKeys, StorageMasterKey};
use pqcnet_link::{DownReason, LinkConfig, Reason, ServiceId};
use pqcnet_messages::Role;
use pqcnet_messages::control::{Ping, Plane, Status};
use pqcnet_messages::orders::{BackUp, BackUpState, Drain, DrainBegun};
use pqcnet_messages::relay::OpenSession;
use pqcnet_p2p::control::{ControlConfig, ControlPlane as _, Libp2pControl};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_p2p::streams::{BoxStream, TcpStreams};
use pqcnet_p2p::typed::{Bindings, LinkError, LinkHandle, establish};
use pqcnet_roles::steward::Account;
use pqcnet_roles::watchman::Limits;
use pqcnet_roles::{Care, KeyVersions, Machine, Setup, StartError, Started, relayer};

const SOON: Duration = Duration::from_secs(5);

struct World {
    env: Env,
    network: Arc<NetworkFile>,
    relayer: Arc<NodeKeys>,
    sentry: Arc<NodeKeys>,
    operator: Arc<NodeKeys>,
    place: tempfile::TempDir,
}

fn loopback() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

impl World {
    fn new(env: Env) -> World {
        let keys = || Arc::new(NodeKeys::generate());
        let (relayer, sentry, operator) = (keys(), keys(), keys());
        let entry = |keys: &NodeKeys, role| NodeEntry {
            id: keys.node_id(),
            roles: BTreeSet::from([role]),
            control: Vec::new(),
            data: Vec::new(),
        };
        let network = NetworkFile::new(NetworkParts {
            name: "gate".to_owned(),
            root: MlDsaKeyPair::generate().public().clone(),
            shards: 2,
            admission: Admission::Any,
            nodes: vec![
                entry(&relayer, Role::Relayer),
                entry(&sentry, Role::Sentry),
                entry(&operator, Role::Operator),
            ],
            bootstrap: Vec::new(),
        });
        let network = Arc::new(network.unwrap());
        let place = tempfile::tempdir().unwrap();
        World {
            env,
            network,
            relayer,
            sentry,
            operator,
            place,
        }
    }

    async fn start(&self, keys: &Arc<NodeKeys>) -> Result<Started, StartError> {
        let machine = Machine::new(self.env.clone(), Some(self.place.path().join("store")));
        self.start_on(machine, keys).await
    }

    async fn start_on(
        &self,
        machine: Machine,
        keys: &Arc<NodeKeys>,
    ) -> Result<Started, StartError> {
        let setup = Setup {
            keys: keys.clone(),
            network: self.network.clone(),
            suites: vec![pqcnet_qstp::Suite::Aes256Gcm],
            control: loopback(),
            data: loopback(),
            software: "test/1".to_owned(),
            versions: KeyVersions::default(),
            lan: false,
            reach: pqcnet_roles::Reach::Direct,
            care: Care {
                backups: self.place.path().join("backups"),
                ..Care::default()
            },
        };
        relayer(&machine, setup, StorageMasterKey::generate()).await
    }

    fn security(&self, keys: &Arc<NodeKeys>) -> Arc<Security> {
        let config = SecurityConfig::new(keys.clone(), self.network.network_id());
        Security::new(self.env.clone(), config).unwrap()
    }

    async fn stream(&self, keys: &Arc<NodeKeys>, at: &Started, plane: Plane) -> BoxStream {
        let security = self.security(keys);
        match plane {
            Plane::Data => {
                let endpoint = Endpoint::new(security, Arc::new(TcpStreams));
                Box::new(endpoint.dial(&at.data, at.node_id).await.unwrap().stream)
            }
            Plane::Control => {
                let config = ControlConfig::new(security, 4);
                let (control, _events) = Libp2pControl::start(&self.env, config).unwrap();
                control
                    .dial(at.node_id, std::slice::from_ref(&at.control))
                    .await
                    .unwrap();
                let stream = control.open(at.node_id).await.unwrap();
                // The connection stands as long as the plane's handle.
                self.env.spawn(async move {
                    let _held = control;
                    std::future::pending::<()>().await;
                });
                stream
            }
        }
    }

    async fn link(
        &self,
        keys: &Arc<NodeKeys>,
        role: Role,
        at: &Started,
        plane: Plane,
    ) -> Result<LinkHandle, LinkError> {
        let stream = self.stream(keys, at, plane).await;
        // A sentry takes deliveries; without that its link ends with the intake that would send them.
        let config = LinkConfig::new(role, [ServiceId::CONTROL, ServiceId::RELAY]);
        let accepted = establish(&self.env, stream, at.node_id, config, |_, _| Ok(())).await?;
        Ok(accepted.start(Bindings::new()))
    }
}

fn refusal(outcome: Result<LinkHandle, LinkError>) -> (Option<Reason>, String) {
    let error = outcome.err().unwrap();
    assert!(!matches!(error.reason, DownReason::Lost { .. }), "{error}");
    (error.reason.reason(), error.to_string())
}

// Scenario: a sentry and an operator get links on both planes and are answered; a client, and a sentry by its own word only,
// are refused by role on both; asking for what is not bound is refused; the stop is clean and closes the links in order.
#[test]
fn roles_decide_who_gets_a_link() {
    let exit = pqcnet_actor::run("gate", |env| async move {
        let world = World::new(env);
        let started = world.start(&world.relayer).await.unwrap();
        let mut links = Vec::new();
        for plane in [Plane::Data, Plane::Control] {
            for (keys, role) in [
                (&world.sentry, Role::Sentry),
                (&world.operator, Role::Operator),
            ] {
                let link = world.link(keys, role, &started, plane).await.unwrap();
                let pong = link
                    .remote::<Ping>()
                    .ask(Ping { nonce: 7 }, SOON)
                    .await
                    .unwrap();
                assert_eq!(
                    (pong.nonce, pong.role, pong.software.as_str()),
                    (7, Role::Relayer, "test/1")
                );
                links.push(link);
            }
            let stranger = Arc::new(NodeKeys::generate());
            let (reason, told) =
                refusal(world.link(&stranger, Role::Client, &started, plane).await);
            assert_eq!(reason, Some(Reason::Role));
            assert!(told.contains("a client does not link on the"), "{told}");
            let (reason, told) =
                refusal(world.link(&stranger, Role::Sentry, &started, plane).await);
            assert_eq!(reason, Some(Reason::Role));
            assert!(told.contains("does not grant"), "{told}");
        }
        let operator = links.get(1).unwrap();
        let report = operator
            .remote::<Status>()
            .ask(Status {}, SOON)
            .await
            .unwrap();
        let (links_told, shards) = (&report.links, report.shards.len());
        assert_eq!((links_told.len(), shards), (4, 2), "{links_told:?}");
        let nothing = OpenSession {
            grant: a_grant(&world),
        };
        let asked = operator.remote::<OpenSession>().ask(nothing, SOON).await;
        assert!(matches!(asked, Err(AskError::Refused(_))), "{asked:?}");
        let given = started
            .steward
            .of::<Account>()
            .ask(Account, SOON)
            .await
            .unwrap();
        assert!(given.serving);

        let exit = started.running.stop().await;
        for link in &links {
            assert_eq!(link.closed().await.reason(), Some(Reason::Draining));
        }
        exit
    });
    assert_eq!(exit.unwrap(), Exit::Stopped);
}

fn a_grant(world: &World) -> pqcnet_messages::Grant {
    let network = world.network.network_id().0;
    let customer = NodeKeys::generate();
    pqcnet_messages::Grant::issue(&customer, network, world.sentry.node_id(), 1, 1000, [0; 16])
}

// Scenario: keys that the network lists with another role start nothing, and the error names those that could.
#[test]
fn a_role_must_be_granted() {
    let told = pqcnet_actor::run("gate", |env| async move {
        let world = World::new(env);
        let refused = world.start(&world.sentry).await.err().unwrap();
        assert!(matches!(
            refused,
            StartError::NotGranted {
                role: Role::Relayer,
                ..
            }
        ));
        assert!(
            refused
                .to_string()
                .contains(&world.relayer.node_id().short())
        );
        world.place.path().join("store").exists()
    });
    assert!(!told.unwrap(), "nothing was opened");
}

// Scenario: a sentry orders a drain and a copy and is refused both; an operator orders a copy, asks until it is made, and is
// told its place; a drain ordered by it reaches the process, with the limit that holds now.
#[test]
fn operators_alone_give_orders() {
    let exit = pqcnet_actor::run("orders", |env| async move {
        let world = World::new(env);
        let started = world.start(&world.relayer).await.unwrap();
        let link = |keys, role| world.link(keys, role, &started, Plane::Data);
        let sentry = link(&world.sentry, Role::Sentry).await.unwrap();
        let operator = link(&world.operator, Role::Operator).await.unwrap();
        let order = BackUp {
            name: "one".to_owned(),
        };
        let refused = sentry.remote::<Drain>().ask(Drain {}, SOON).await;
        assert!(matches!(refused, Err(AskError::Refused(_))), "{refused:?}");
        let refused = sentry.remote::<BackUp>().ask(order.clone(), SOON).await;
        assert!(matches!(refused, Err(AskError::Refused(_))), "{refused:?}");
        let made = loop {
            let state = operator.remote::<BackUp>().ask(order.clone(), SOON).await;
            match state.unwrap().unwrap() {
                BackUpState::UnderWay => tokio::task::yield_now().await,
                BackUpState::Done { path, .. } => break path,
                BackUpState::Failed { detail } => panic!("{detail}"),
            }
        };
        let schema = pqcnet_roles::log_schema();
        let checked = pqcnet_store::Checker::open(made.as_ref(), &schema).unwrap();
        assert_eq!(checked.damage, []);
        started
            .live
            .change(Limits::default(), Duration::from_secs(7));
        let begun = operator.remote::<Drain>().ask(Drain {}, SOON).await;
        let within_ms = 7_000;
        assert_eq!(begun, Ok(Ok(DrainBegun { within_ms })));
        started.live.drain_ordered().await;
        started.running.stop().await
    });
    assert_eq!(exit.unwrap(), Exit::Stopped);
}

// Scenario: the store's writer thread panics at its first write. The role does not go on with shards that fail for ever: its
// supervisors give up, which ends the process with a code of failure.
#[test]
fn a_panic_of_the_stores_writer_ends_the_role() {
    let exit = pqcnet_actor::run("writer", |env| async move {
        let world = World::new(env);
        let machine = Machine::new(world.env.clone(), Some(world.place.path().join("store")));
        // The log's store is opened, the meter's takes its first mark, and then the log's writer falls.
        let machine = machine.with_free_space(Arc::new(|path| {
            let thread = std::thread::current();
            let is_writer = thread.name().is_some_and(|name| name.ends_with("-writer"));
            assert!(!is_writer || path.ends_with("meter"), "meant to");
            None
        }));
        match world.start_on(machine, &world.relayer).await {
            Ok(started) => started.running.wait().await,
            Err(StartError::Tree(exit)) => exit,
            Err(other) => panic!("{other}"),
        }
    });
    let exit = exit.unwrap();
    assert_eq!(exit.code(), 1, "{exit:?}");
    assert!(format!("{exit:?}").contains("store"), "{exit:?}");
}
