//! The mesh in real processes: nodes find each other from one address, and what the root orders holds everywhere.

mod moves;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pqcnet_actor::Env;
use pqcnet_crypto::{MlDsaKeyPair, NodeId, NodeKeys};
use pqcnet_link::{LinkConfig, Reason, ServiceId};
use pqcnet_mesh::shelf::{Kind, Shelf};
use pqcnet_messages::{
    Directive, Order, Refusal, Role, SignedDirective, SubmitDirective, Submitted,
};
use pqcnet_p2p::endpoint::Endpoint;
use pqcnet_p2p::handshake::{Security, SecurityConfig};
use pqcnet_p2p::network::Admission;
use pqcnet_p2p::streams::TcpStreams;
use pqcnet_p2p::typed::{Bindings, LinkHandle, establish};
use pqcnet_tests::network::{Listing, Network, Node};

/// Nodes of the large network.
const NODES: usize = 30;
/// What the issue allows from the last node's start until every node has heard of every other, on a machine that does nothing else. It is
/// printed beside what was measured: a loaded machine takes longer, and nothing is wrong then.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// A broken mesh does not find its nodes in this time either.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Between two questions to a node.
const PACE: Duration = Duration::from_millis(100);
/// An answer of a node that lives.
const SOON: Duration = Duration::from_secs(10);

/// A node's metrics by name, those without labels.
fn metrics(node: &Node) -> Result<BTreeMap<String, f64>> {
    let answer = ureq::get(format!("http://{}/metrics", node.admin()?)).call()?;
    let text = answer.into_body().read_to_string()?;
    let plain = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Ok(plain.collect())
}

/// None while the node is too busy to give an account of itself.
fn metric(node: &Node, name: &str) -> Result<Option<u64>> {
    Ok(metrics(node)?.get(name).map(|value| *value as u64))
}

/// Asks again until it is so, or the time is up.
async fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let asking = async {
        while !holds()? {
            // Whoever asks without a pause takes the time of those who should find each other.
            tokio::time::sleep(PACE).await;
        }
        anyhow::Ok(())
    };
    let asked = tokio::time::timeout(GIVE_UP, asking).await;
    asked.with_context(|| format!("never {what}"))?
}

/// Waits until each running node has heard of all the others. How long that took.
async fn all_found(network: &Network) -> Result<Duration> {
    let env = Env::plain();
    let began = env.now();
    let running: Vec<&Node> = network.nodes.iter().filter(|node| node.runs()).collect();
    let others = running.len() as u64 - 1;
    for node in running {
        let what = format!("{} hears of {others} others", node.name);
        until(&what, || {
            Ok(metric(node, "pqcnet_mesh_peers_heard")? == Some(others))
        })
        .await?;
    }
    Ok(env.now() - began)
}

/// Thirty processes know one address between them: that of the first sentry. Each hears of all the others, those
/// that need the relayer find its data plane, and nobody has links to everybody. Then the bootstrap node is killed for good
/// and all the others are killed and started anew: they find each other again, by their peer books alone.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_nodes_find_each_other() -> Result<()> {
    let network = Network::listed(NODES - 1, 1, Admission::Any, Listing::OneBootstrap)?;
    let env = Env::plain();
    let began = env.now();
    network.start_together().await?;
    let started = env.now() - began;
    let took = all_found(&network).await?;
    eprintln!(
        "{NODES} nodes: started in {started:.1?}, all found {took:.1?} after the last ({FOUND_WITHIN:?} are allowed)"
    );
    for node in &network.nodes {
        let what = format!("{} serves, with links to some and not to all", node.name);
        until(&what, || {
            let metrics = metrics(node)?;
            let of = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
            let linked = of("pqcnet_mesh_peers_linked");
            Ok(of("pqcnet_serving") == 1.0 && (4.0..29.0).contains(&linked)
                || node.name == "sentry-1")
        })
        .await?;
        let shelf = Shelf::at(node.folder().join("mesh"));
        let what = format!("{} keeps the others' addresses", node.name);
        until(&what, || Ok(shelf.load(Kind::Adverts)?.len() == NODES - 1)).await?;
    }

    let bootstrap = network.node(Role::Sentry, 1);
    for node in &network.nodes {
        node.kill().await?;
    }
    let began = env.now();
    let others = network.nodes.iter().filter(|node| node.id != bootstrap.id);
    futures::future::try_join_all(others.map(Node::start)).await?;
    let started = env.now() - began;
    let took = all_found(&network).await?;
    eprintln!(
        "without the bootstrap: started in {started:.1?}, all found {took:.1?} after the last"
    );
    Ok(())
}

/// A link to a node as somebody.
async fn link(
    network: &Network,
    keys: &Arc<NodeKeys>,
    role: Role,
    node: &Node,
) -> Result<Result<LinkHandle, String>> {
    let env = Env::plain();
    let config = SecurityConfig::new(keys.clone(), network.file.network_id());
    let security = Security::new(env.clone(), config)?;
    let endpoint = Endpoint::new(security, Arc::new(TcpStreams));
    let connected = endpoint.dial(&node.data.into(), node.id).await?;
    let config = LinkConfig::new(role, [ServiceId::CONTROL]);
    let made = establish(&env, connected.stream, node.id, config, |_, _| Ok(())).await;
    Ok(match made {
        Ok(accepted) => Ok(accepted.start(Bindings::new())),
        Err(error) if error.reason.reason() == Some(Reason::Role) => Err(error.to_string()),
        Err(error) => return Err(error.into()),
    })
}

async fn submit(
    network: &Network,
    node: &Node,
    directive: SignedDirective,
) -> Result<Result<Submitted, Refusal>> {
    let operator = link(network, &network.operator, Role::Operator, node).await?;
    let operator = operator.map_err(anyhow::Error::msg)?;
    let submit = SubmitDirective { directive };
    let answer = operator
        .remote::<SubmitDirective>()
        .ask(submit, SOON)
        .await?;
    operator.close(Reason::Closed);
    Ok(answer)
}

/// Waits until a node has links of the control plane with exactly so many peers.
async fn linked_with(node: &Node, peers: u64) -> Result<()> {
    let what = format!("{} is linked with {peers}", node.name);
    until(&what, || {
        Ok(metric(node, "pqcnet_mesh_peers_linked")? == Some(peers))
    })
    .await
}

fn order(network: &Network, version: u64, order: Order) -> Directive {
    Directive {
        network_id: network.file.network_id().0,
        version,
        issued_at_ms: 1_700_000_000_000,
        lease_ms: 0,
        order,
    }
}

fn revoke(network: &Network, node: NodeId) -> Directive {
    let reason = "the key was lost".to_owned();
    order(network, 1, Order::Revoke { node, reason })
}

async fn refused(network: &Network, keys: &Arc<NodeKeys>, role: Role, at: &Node) -> Result<String> {
    match link(network, keys, role, at).await? {
        Ok(_) => anyhow::bail!("{} let {} in", at.name, keys.node_id().short()),
        Err(told) => Ok(told),
    }
}

/// One directive revokes a sentry's key, another a client's. Handed to one relayer, they hold at every running node: open
/// links of both close, neither gets a new one anywhere, and the sentry says itself what is wrong. A relayer that was down
/// learns of it with its first link, one that is killed still knows it when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_everywhere() -> Result<()> {
    let network = Network::listed(2, 2, Admission::Any, Listing::Operated)?;
    network.start_all().await?;
    let [first, second] = [1, 2].map(|number| network.node(Role::Relayer, number));
    let [sentry, lost] = [1, 2].map(|number| network.node(Role::Sentry, number));
    let stolen = Arc::new(lost.secrets()?.keys);
    let client = Arc::new(NodeKeys::generate());
    let open = network.client(&client).await?;
    let channel = network.balanced_channels(client.node_id(), 1)?.remove(0);
    let publisher = open.publisher(&channel)?;
    publisher.send("while it may").await?.await?;
    second.stop().await?;
    for node in [first, sentry, lost] {
        linked_with(node, 2).await?;
    }

    for key in [lost.id, client.node_id()] {
        let signed = revoke(&network, key).sign(&network.root)?;
        let taken = submit(&network, first, signed.clone()).await?;
        assert_eq!(taken, Ok(Submitted::Applied));
        let again = submit(&network, first, signed).await?;
        assert_eq!(again, Ok(Submitted::Known));
    }
    let customer = format!("closing its link peer={}", client.node_id());
    until("the client's sentry closes its link", || {
        Ok([sentry, lost]
            .iter()
            .any(|node| node.log().contains(&customer)))
    })
    .await?;
    // Whose end of a link is closed first is chance: that nobody has one left is not.
    for (node, peers) in [(first, 1), (sentry, 1), (lost, 0)] {
        linked_with(node, peers).await?;
    }
    lost.says("the key was lost").await?;

    second.start().await?;
    second.says("the root has ordered").await?;
    first.kill().await?;
    first.start().await?;
    for node in [first, second, sentry] {
        let told = refused(&network, &stolen, Role::Sentry, node).await?;
        assert!(told.contains("is revoked: the key was lost"), "{told}");
    }
    let told = refused(&network, &client, Role::Client, sentry).await?;
    assert!(told.contains("is revoked: the key was lost"), "{told}");
    // Its own process is barred too, and says so at its next start.
    lost.kill().await?;
    let barred = format!("{:#}", lost.start().await.err().context("it started")?);
    assert!(barred.contains("does not let this node in"), "{barred}");
    // A node that nothing was said of is as welcome as before.
    let healthy = Arc::new(sentry.secrets()?.keys);
    let welcome = link(&network, &healthy, Role::Sentry, second).await?;
    assert!(welcome.is_ok());
    network.stop().await
}

/// Directives of somebody else's root, for another network, and of a lower version than one that holds: each has its own
/// answer, and changes nothing. A grant for a time makes a stranger an operator, and ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_root_orders() -> Result<()> {
    let network = Network::listed(1, 1, Admission::Any, Listing::Operated)?;
    network.start_all().await?;
    let relayer = network.node(Role::Relayer, 1);
    let sentry = network.node(Role::Sentry, 1);

    let forged = revoke(&network, sentry.id).sign(&MlDsaKeyPair::generate())?;
    let answer = submit(&network, relayer, forged).await?;
    assert_eq!(answer, Err(Refusal::NotAllowed));
    let foreign = Directive {
        network_id: [7; 32],
        ..revoke(&network, sentry.id)
    };
    let answer = submit(&network, relayer, foreign.sign(&network.root)?).await?;
    let told = "the directive is for another network".to_owned();
    assert_eq!(answer, Err(Refusal::Invalid(told)));

    let newcomer = Arc::new(NodeKeys::generate());
    let node = newcomer.node_id();
    refused(&network, &newcomer, Role::Operator, relayer).await?;
    let roles = [Role::Operator].into();
    let granted = Directive {
        version: 5,
        ..order(&network, 5, Order::GrantRole { node, roles })
    };
    let answer = submit(&network, relayer, granted.sign(&network.root)?).await?;
    assert_eq!(answer, Ok(Submitted::Applied));
    let open = link(&network, &newcomer, Role::Operator, relayer).await?;
    let open = open.map_err(anyhow::Error::msg)?;
    let older = order(
        &network,
        4,
        Order::Revoke {
            node,
            reason: String::new(),
        },
    );
    let answer = submit(&network, relayer, older.sign(&network.root)?).await?;
    assert_eq!(answer, Ok(Submitted::Superseded));

    // The same grant again, with a lease that has been over for years.
    let roles = [Role::Operator].into();
    let lapsed = Directive {
        lease_ms: 1000,
        ..order(&network, 6, Order::GrantRole { node, roles })
    };
    let answer = submit(&network, relayer, lapsed.sign(&network.root)?).await?;
    assert_eq!(answer, Ok(Submitted::Applied));
    let closed = tokio::time::timeout(SOON, open.closed()).await?;
    assert_eq!(closed.reason(), Some(Reason::Role), "{closed}");
    let told = refused(&network, &newcomer, Role::Operator, relayer).await?;
    assert!(told.contains("roles is over"), "{told}");
    network.stop().await
}

/// Two nodes whose addresses nobody is told, and a bootstrap node that relays: they are linked with it and with each other, through
/// it. When the relay is killed and comes back, so do the circuits.
#[tokio::test(flavor = "multi_thread")]
async fn through_a_relay() -> Result<()> {
    let network = Network::listed(2, 1, Admission::Any, Listing::OneBootstrap)?;
    let relay = network.node(Role::Sentry, 1);
    let hidden = [
        network.node(Role::Sentry, 2),
        network.node(Role::Relayer, 1),
    ];
    relay.configure("[mesh]\nreach = \"relay\"\n")?;
    for node in hidden {
        node.configure("[mesh]\nreach = \"relayed\"\n")?;
    }
    network.start_together().await?;
    for round in 1..=2 {
        for node in hidden {
            linked_with(node, 2).await?;
            let what = format!(
                "{} is reached through a relay, for the {round}. time",
                node.name
            );
            until(&what, || {
                let places = node.log().matches("reached through a relay").count();
                Ok(places >= round)
            })
            .await?;
        }
        let dialled = "connected through a relay";
        ensure!(hidden.iter().any(|node| node.log().contains(dialled)));
        if round == 1 {
            relay.kill().await?;
            relay.start().await?;
        }
    }
    network.stop().await
}
