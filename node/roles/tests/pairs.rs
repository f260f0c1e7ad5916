//! Two nodes that dial each other at once: a real relayer, and a neighbour in the test's hand that decides whose link comes first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pqcnet_actor::Env;
use pqcnet_crypto::{MlDsaKeyPair, NodeKeys, StorageMasterKey};
use pqcnet_link::{LinkConfig, Reason, ServiceId};
use pqcnet_messages::Role;
use pqcnet_messages::control::Ping;
use pqcnet_p2p::control::{
    ControlConfig, ControlEvent, ControlEvents, ControlPlane as _, Libp2pControl,
};
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::{Address, Admission, NetworkFile, NetworkParts, NodeEntry};
use pqcnet_p2p::streams::BoxStream;
use pqcnet_p2p::typed::{Bindings, LinkHandle, establish};
use pqcnet_roles::{Care, KeyVersions, Machine, Setup, Started, relayer};

const SOON: Duration = Duration::from_secs(60);

fn loopback() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

/// The neighbour: a sentry of the network, and its bootstrap node.
struct Neighbour {
    env: Env,
    control: Libp2pControl,
    events: ControlEvents,
}

impl Neighbour {
    /// A substream that the relayer opens.
    async fn dialled(&mut self) -> BoxStream {
        loop {
            let event = tokio::time::timeout(SOON, self.events.next()).await;
            if let ControlEvent::Substream(substream) = event.unwrap().unwrap() {
                return substream.stream;
            }
        }
    }

    async fn link(&self, stream: BoxStream, with: &Started) -> LinkHandle {
        let config = LinkConfig::new(Role::Sentry, [ServiceId::CONTROL]);
        let made = establish(&self.env, stream, with.node_id, config, |_, _| Ok(())).await;
        made.unwrap().start(Bindings::new())
    }
}

async fn world(env: &Env, lower: bool) -> (Neighbour, Started, tempfile::TempDir) {
    let (a, b) = (
        Arc::new(NodeKeys::generate()),
        Arc::new(NodeKeys::generate()),
    );
    let (low, high) = if a.node_id() < b.node_id() {
        (a, b)
    } else {
        (b, a)
    };
    let (own, other) = if lower { (low, high) } else { (high, low) };
    let network = |at: Vec<Address>| {
        let entry = |keys: &NodeKeys, role, control| NodeEntry {
            id: keys.node_id(),
            roles: BTreeSet::from([role]),
            control,
            data: Vec::new(),
        };
        let root = MlDsaKeyPair::generate();
        NetworkParts {
            name: "pairs".to_owned(),
            root: root.public().clone(),
            shards: 1,
            admission: Admission::Any,
            nodes: vec![
                entry(&own, Role::Relayer, Vec::new()),
                entry(&other, Role::Sentry, at),
            ],
            bootstrap: vec![other.node_id()],
        }
    };
    // The neighbour listens before the network can say where; addresses are no part of a network's identity, its root is.
    let parts = network(vec![loopback()]);
    let id = NetworkFile::new(parts.clone()).unwrap().network_id();
    let config = SecurityConfig::new(other.clone(), id);
    let security = Security::new(env.clone(), config).unwrap();
    let (control, events) = Libp2pControl::start(env, ControlConfig::new(security, 4)).unwrap();
    let at = control.listen(&loopback()).await.unwrap();
    let mut parts = parts;
    for entry in &mut parts.nodes {
        if entry.id == other.node_id() {
            entry.control = vec![at.clone()];
        }
    }
    let place = tempfile::tempdir().unwrap();
    let machine = Machine::new(env.clone(), Some(place.path().join("store")));
    let setup = Setup {
        keys: own,
        network: Arc::new(NetworkFile::new(parts).unwrap()),
        suites: vec![pqcnet_qstp::Suite::Aes256Gcm],
        control: loopback(),
        data: loopback(),
        software: "test/1".to_owned(),
        versions: KeyVersions::default(),
        lan: false,
        reach: pqcnet_roles::Reach::Direct,
        care: Care {
            backups: place.path().join("backups"),
            ..Care::default()
        },
    };
    let started = relayer(&machine, setup, StorageMasterKey::generate())
        .await
        .unwrap();
    let neighbour = Neighbour {
        env: env.clone(),
        control,
        events,
    };
    (neighbour, started, place)
}

/// Scenario: relayer and neighbour have dialled each other, and the links come about in the one order and in the other; the relayer's
/// id is the lower one and the higher one. In each case the link of the lower id stays and works, the other is closed, and the
/// relayer dials no third.
#[test]
fn one_link_of_two_stays() {
    let exit = pqcnet_actor::run("pairs", |env| async move {
        for (lower, own_first) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut neighbour, relayer, _place) = world(&env, lower).await;
            let waiting = neighbour.dialled().await;
            let mine = neighbour.control.open(relayer.node_id).await.unwrap();
            let (of_relayer, of_neighbour) = if own_first {
                let first = neighbour.link(waiting, &relayer).await;
                (first, neighbour.link(mine, &relayer).await)
            } else {
                let first = neighbour.link(mine, &relayer).await;
                (neighbour.link(waiting, &relayer).await, first)
            };
            let (stays, goes) = if lower {
                (of_relayer, of_neighbour)
            } else {
                (of_neighbour, of_relayer)
            };
            let closed = tokio::time::timeout(SOON, goes.closed()).await.unwrap();
            assert_eq!(closed.reason(), Some(Reason::Closed), "{closed}");
            let to = stays.remote::<Ping>();
            let pong = to.ask(Ping { nonce: 7 }, SOON).await.unwrap();
            assert_eq!(pong.nonce, 7);
            // The relayer makes another only when this one ends.
            stays.close(Reason::Closed);
            let again = neighbour.dialled().await;
            let again = neighbour.link(again, &relayer).await;
            let pong = again
                .remote::<Ping>()
                .ask(Ping { nonce: 8 }, SOON)
                .await
                .unwrap();
            assert_eq!(pong.nonce, 8);
            relayer.running.stop().await;
        }
    });
    exit.unwrap();
}
